"""What a listing of strangers' data holds: items, the parts they are read from, and what was left aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.tars import read_slice


@dataclass(frozen=True)
class Part:
    """A slice of a file.

    Args:
        path: relative to the folder that was listed; "" is that path itself.
        offset, size: in bytes; an offset over 0 is one into a tar or a table.
        suffix: what follows the first dot of its name, lower case.
        folder: its number, where a source is a list of folders.
    """

    path: str
    offset: int
    size: int
    suffix: str = ""
    folder: int = 0


@dataclass(frozen=True)
class Item:
    """One record to be read: where its parts are, by field; or, in `problem`, why it cannot be read.

    `caption` and `facts` are what the listing itself says of it.
    """

    key: str
    name: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    problem: str = ""
    caption: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> Part | None:
        """Where the bytes of its image are."""
        return self.parts.get("image")

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Item:
        """Make an item of what `dataclasses.asdict` made of it."""
        return cls(**{**fields, "parts": {name: Part(**part) for name, part in fields["parts"].items()}})


@dataclass(frozen=True)
class Listing:
    """What was found: items, and inputs that are none, counted by reason (see `mixing.accounting`)."""

    items: Sequence[Item]
    left_aside: Mapping[str, int] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """The number of inputs."""
        return len(self.items) + sum(self.left_aside.values())

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def read_part(folders: Sequence[Path], part: Part, limit: int) -> bytes:
    """Read the bytes of a part.

    Raises:
        InputError: it is over the limit, cannot be read, or its file has changed since it was listed.
    """
    if part.size > limit:
        raise InputError(f"{part.size} bytes is over the limit of {limit}")
    path = folders[part.folder] / part.path if part.path else folders[part.folder]
    try:
        data = read_slice(path, part.offset, part.size)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) != part.size:
        raise InputError(f"{part.path or path.name} has changed since it was listed")
    return data
