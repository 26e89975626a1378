"""Codecs: arrays to decodable RGB and back, one file per kind of label; pure numpy."""
