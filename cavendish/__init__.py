"""Cavendish: data pipeline and trainer that teaches image generators to answer vision tasks in decodable RGB."""
