"""Decodable RGB: pure numpy functions between arrays a Sample holds and the pictures a generator draws."""
