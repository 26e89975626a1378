"""Training: configuration, the loop, checkpoints, parallelism and logs."""
