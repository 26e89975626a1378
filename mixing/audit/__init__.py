"""Benchmark leakage: fingerprints, the index of the benchmark side, verification of pairs, the report."""
