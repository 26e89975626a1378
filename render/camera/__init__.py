"""Cameras: viewpoints, lens distortion and sensor effects."""
