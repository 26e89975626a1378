"""Scenes: kinds of scenes drawn from seeds, as recipes without an engine."""
