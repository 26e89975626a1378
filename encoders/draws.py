"""Seeded draws from a sequence, whatever it holds: those of numpy make an array of it first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


def one_of(items: Sequence[_T], rng: np.random.Generator) -> _T:
    """Draw one of the items, each as likely as any other."""
    return items[int(rng.integers(len(items)))]


def shuffled(items: Sequence[_T], rng: np.random.Generator) -> list[_T]:
    """Return the items in a random order."""
    return [items[int(i)] for i in rng.permutation(len(items))]
