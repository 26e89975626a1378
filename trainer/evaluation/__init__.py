"""Metrics with protocol ids and readers of the public benchmarks; no torch."""
