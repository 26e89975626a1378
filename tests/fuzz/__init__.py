"""Readers of files from outside, given files that somebody broke or made to hurt."""
