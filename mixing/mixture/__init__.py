"""Mixtures: the configuration, exact ratios, the schedule and the lock that fixes what is drawn."""
