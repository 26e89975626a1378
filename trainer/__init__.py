"""Instruction-tunes an image generator on a mixture, and scores what it draws."""
