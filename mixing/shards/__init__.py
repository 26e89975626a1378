"""Shards: the sample format, deterministic WebDataset tars and their rows in the dataset."""
