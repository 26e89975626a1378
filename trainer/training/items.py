"""What the trainer reads: an endless sequence of items, each an example and where it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, Rejection
from cavendish.mixing.lock import Kind


class Item(Protocol):
    """One element of a mixture: an example, the source it is from, its kind, and the records it stands in for."""

    @property
    def example(self) -> Example: ...
    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def replaced(self) -> Sequence[Rejection]: ...


class Items(Protocol):
    """A mixture as the trainer reads it: item i is a pure function of i, without end."""

    def __getitem__(self, index: int) -> Item: ...


@dataclass(frozen=True)
class Kept:
    """What was computed before of one example, without a batch axis; None where it was not.

    Arrays and not tensors: each tensor that a worker process hands over costs most of a millisecond.

    Args:
        condition: arrays by name, see `trainer.generators.frozen.from_arrays`.
        source, target: latents (C, H, W).
    """

    condition: Mapping[str, NDArray[Any]] | None = None
    source: NDArray[np.float32] | None = None
    target: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class KeptItem:
    """An item of a mixture with what was computed before of its example."""

    example: Example
    source: str
    kind: Kind
    replaced: Sequence[Rejection]
    kept: Kept
