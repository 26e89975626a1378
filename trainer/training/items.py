"""What the trainer reads: an endless sequence of items, each an example and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cavendish.encoders.sample import Example, Rejection
from cavendish.encoders.tasks.task import Kind
from cavendish.trainer.generators.frozen import CachedEncoding


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
class CachedItem:
    """An item of a mixture with the precomputed encodings of its example."""

    example: Example
    source: str
    kind: Kind
    replaced: Sequence[Rejection]
    cached: CachedEncoding
