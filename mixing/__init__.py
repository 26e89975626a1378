"""Shards, Beam jobs, mixtures with exact ratios, and the leakage audit that stands before training."""
