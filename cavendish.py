"""The command line: one thin verb per stage; each imports its stage only when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
