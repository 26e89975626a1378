"""Legends in prompts: class names and colors written as text, and parsed back from it."""
