"""Inference: prompts about a user's images, sampling and decoded answers."""
