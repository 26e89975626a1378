"""The row of a shard: the json that commits it, its hash, counts and index; what a reader keeps of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.storage.files import Place, canonical_json, digest

SHARD_SCHEMA = "cavendish-shard/1"
_ROW_NAME = re.compile(r"shard-\d{6}\.json")
_TAR_NAME = re.compile(r"shard-\d{6}\.tar")


@dataclass(frozen=True)
class Row:
    """The committed facts of one shard.

    `samples` maps a key to {part: (offset, size, crc32)}; `licences` and `tasks` count records; `facts`
    has what a mixture chooses by (see `mixing.shards.sample_format.record_facts`), for each key; `left_aside` counts
    inputs by the reason that made them none of the job's.
    """

    shard: str
    plan: str
    count: int
    bytes: int
    sha256: str
    samples: Mapping[str, Mapping[str, tuple[int, int, int]]]
    rejected: tuple[Rejection, ...] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_aside: Mapping[str, int] = field(default_factory=dict)


def is_row_name(name: str) -> bool:
    """Tell whether a file of that name is the row of a shard."""
    return _ROW_NAME.fullmatch(name) is not None


def row_bytes(row: Row) -> bytes:
    """Serialise a row to canonical json with its digest, by which a flipped bit in it is noticed."""
    values = asdict(row)
    if not row.left_aside:
        del values["left_aside"]
    return canonical_json({"schema": SHARD_SCHEMA, **values, "digest": digest(values)})


def parse_row(data: bytes, path: Place) -> Row:
    """Read a row out of its bytes; `path` says where they are from.

    Raises:
        InputError: not json, or not a row of this schema.
    """
    try:
        return row_of(json.loads(data), path)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid json (the row of a shard): {error}") from None


def row_of(values: Any, path: Place) -> Row:
    """Return the row that parsed json holds; `path` says where it is from.

    Raises:
        InputError: not a row of this schema.
    """
    if not isinstance(values, dict) or values.pop("schema", None) != SHARD_SCHEMA:
        raise InputError(f"{path}: not a {SHARD_SCHEMA} row")
    written = values.pop("digest", None)
    try:
        if written is not None and written != digest(values):
            raise ValueError("its digest is not that of its content")
        values["rejected"] = tuple(Rejection(**item) for item in values["rejected"])
        values["samples"] = {
            key: {name: (int(at[0]), int(at[1]), int(at[2])) for name, at in parts.items()}
            for key, parts in values["samples"].items()
        }
        row = Row(**values)
        _check_row(row)
        return row
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: damaged shard row: {error}") from None


def _check_row(row: Row) -> None:
    """Check the kinds of what a row says, so that nothing after this has to: a row may be anybody's.

    Raises:
        ValueError: naming what is wrong.
    """
    texts = (row.plan, row.sha256)
    counts = (row.licences, row.tasks, row.left_aside)
    numbers = (row.count, row.bytes, *(number for each in counts for number in each.values()))
    if not isinstance(row.shard, str) or _TAR_NAME.fullmatch(row.shard) is None:
        raise ValueError(f"shard {row.shard!r:.60} is no name of a shard")
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a hash or a count of another kind")
    if row.count != len(row.samples):
        raise ValueError(f"it counts {row.count} records and lists {len(row.samples)}")
    spans = (at for parts in row.samples.values() for at in parts.values())
    if any(min(at) < 0 or at[0] + at[1] > row.bytes or at[2] >= 1 << 32 for at in spans):
        raise ValueError("a part that lies outside of the shard")
    if not all(isinstance(text, str) for item in row.rejected for text in (item.key, item.reason)):
        raise ValueError("a rejection of another kind")
    for key, fact in row.facts.items():
        tasks, size, quality = fact["tasks"], fact["size"], fact["quality"]
        sound = (
            isinstance(fact["sample"], str)
            and isinstance(fact["licence"], str)
            and isinstance(tasks, list)
            and all(isinstance(task, str) for task in tasks)
            and isinstance(size, list)
            and len(size) == 2
            and all(type(side) is int and side > 0 for side in size)
            and isinstance(quality, dict)
            and all(type(score) in (int, float) for score in quality.values())
        )
        if not sound:
            raise ValueError(f"facts of {key} of another kind")


@dataclass(frozen=True)
class ShardIndex:
    """Where the parts of a shard's records are: what a reader keeps of a row, a tenth of its memory.

    Args:
        keys: in sorted order; a place is a number in it.
        names: of the parts that occur.
        parts: (records, names, 3) int64: offset, size and crc32 of each part; offset -1 where a record has none.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    parts: NDArray[np.int64]

    def ranges(self, place: int, names: Collection[str] | None = None) -> Iterator[tuple[str, int, int, int]]:
        """Yield name, offset, size and crc32 of the parts of a record, or of those among `names`."""
        for name, (offset, size, crc32) in zip(self.names, self.parts[place].tolist()):
            if offset >= 0 and (names is None or name in names):
                yield name, offset, size, crc32


def read_index(data: bytes, name: str) -> ShardIndex:
    """Read the index out of the bytes of a shard's row.

    Raises:
        InputError: not a row of this schema.
    """
    try:
        values = json.loads(data)
        if values["schema"] != SHARD_SCHEMA:
            raise InputError(f"{name}: not a {SHARD_SCHEMA} row")
        samples = values["samples"]
        keys = tuple(sorted(samples))
        names = tuple(sorted({part for parts in samples.values() for part in parts}))
        none = (-1, 0, 0)
        table = [[samples[key].get(part, none) for part in names] for key in keys]
        parts = np.array(table, np.int64).reshape(len(keys), len(names), 3)
        if (parts < -1).any() or (parts[..., 1] > int(values.get("bytes", 1 << 62))).any():
            raise ValueError("a part that lies outside of the shard")
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{name}: damaged shard row: {error}") from None
    return ShardIndex(keys, names, parts)
