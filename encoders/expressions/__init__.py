"""Referring expressions: short programs over a table of scene facts, and their English wording."""
