"""Provenance: where a record comes from, and how to make it again."""
