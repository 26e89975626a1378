"""Item i of a locked mixture: a pure function of (lock, i), read at random from the shards, every byte checked.

No torch here: `mixing.loader` puts this behind torch's interfaces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.sample import Example, InputError, Rejection, Sample
from mixing.draw import draw_example, parse_sample_for, parts_of
from mixing.lock import Kind, Lock, LockedShard, LockedSource, Stream, unpack_bits
from mixing.permutation import LocalOrder
from mixing.records import parse_example, parse_sample
from mixing.shards import Row, read_parts, read_row
from mixing.storage import file_sha256

BLOCK = 4096  # indices scheduled at a time: 1.5 ms, once per block
OPEN_SHARDS = 128  # rows and files kept open; an order of records touches about so many shards at a time
_ATTEMPTS = 16  # records tried for one draw before the run stops
_MIN_DRAWS = 200  # draws before the share of damaged records can stop a run
DAMAGED, UNFIT = "damaged: ", "unfit: "  # how the reasons of replacements begin


@dataclass(frozen=True)
class MixtureItem:
    """One element of a mixture.

    Args:
        source: name of the source in the mixture file.
        index: global index.
        replaced: records that were drawn before this one and could not be used, and why.
    """

    example: Example
    source: str
    kind: Kind
    index: int
    replaced: tuple[Rejection, ...] = ()


@dataclass
class Ledger:
    """What a reader did: draws by stream, and the records it had to replace, by stream and key, with the reason.

    `bad` counts draws that met a damaged record; one that cannot serve its task at this size is no damage.
    """

    draws: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, dict[str, str]] = field(default_factory=dict)
    bad: int = 0

    def count(self, stream: str, rejections: tuple[Rejection, ...], max_bad: Fraction) -> None:
        """Note one draw.

        Raises:
            InputError: more than `max_bad` of the draws met a damaged record.
        """
        self.draws[stream] = self.draws.get(stream, 0) + 1
        if not rejections:
            return
        damaged = [rejection for rejection in rejections if rejection.reason.startswith(DAMAGED)]
        self.bad += bool(damaged)
        for rejection in rejections:
            self.replaced.setdefault(stream, {})[rejection.key] = rejection.reason
        total = sum(self.draws.values())
        if damaged and total >= _MIN_DRAWS and self.bad > max_bad * total:
            raise InputError(
                f"{self.bad} of {total} draws met a damaged record, max_bad is {float(max_bad):g}; the last: "
                f"{damaged[-1].key}: {damaged[-1].reason}"
            )


Value = TypeVar("Value")


class _Cache(Generic[Value]):
    """The most recently used values, at most `size`; `drop` is told which leaves."""

    def __init__(self, size: int, make: Callable[[Any], Value], drop: Callable[[Value], None] | None = None) -> None:
        self._size, self._make, self._drop = size, make, drop
        self._values: OrderedDict[Any, Value] = OrderedDict()

    def __call__(self, key: Any) -> Value:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = self._make(key)
        if len(self._values) > self._size:
            _, oldest = self._values.popitem(last=False)
            if self._drop is not None:
                self._drop(oldest)
        return value


class _Pool:
    """The records of a source that may be drawn for a task, numbered through all shards."""

    def __init__(self, source: LockedSource, task: str) -> None:
        self._shards = source.shards
        self._task = task
        counts = [int(self._flags(shard).sum()) for shard in source.shards]
        self._ends = np.cumsum(counts)
        self.size = int(self._ends[-1]) if counts else 0

    def _flags(self, shard: LockedShard) -> NDArray[np.bool_]:
        return unpack_bits(shard.usable.get(self._task, "none"), shard.count)

    def locate(self, number: int) -> tuple[int, int]:
        """Return the shard of record `number`, and its place among all the keys of that shard."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[shard - 1]) if shard else 0
        if self._shards[shard].usable[self._task] == "all":
            return shard, number - before
        return shard, int(np.flatnonzero(self._flags(self._shards[shard]))[number - before])


@dataclass(frozen=True)
class _OpenShard:
    file: BinaryIO
    row: Row
    keys: tuple[str, ...]


class MixtureReader:
    """Reads items of a locked mixture at any index.

    Args:
        lock: what to read.
        data: folder that the paths of the lock are relative to.
        size: side of the pictures in pixels.

    Raises:
        InputError: a shard is not the one that was locked, a draw finds no usable record, or too many are replaced.
    """

    def __init__(self, lock: Lock, data: Path, size: int) -> None:
        self.lock = lock
        self.data = data
        self.size = size
        self.ledger = Ledger()
        self.schedule = lock.schedule()
        self._max_bad = Fraction(lock.max_bad)
        self._open_caches()

    def _open_caches(self) -> None:
        self._block = _Cache(8, lambda number: self.schedule.draws(number * BLOCK, BLOCK))
        self._pool = _Cache(len(self.lock.streams), self._make_pool)
        self._shard = _Cache(OPEN_SHARDS, self._open_shard, lambda shard: shard.file.close())
        self._order = lru_cache(maxsize=4 * len(self.lock.streams))(self._make_order)

    def __getstate__(self) -> dict[str, Any]:
        return {"lock": self.lock, "data": self.data, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # caches and open files stay with their process

    def draw(self, index: int) -> tuple[Stream, int]:
        """Return the stream that index draws from, and which draw of that stream it is."""
        number, at = divmod(index, BLOCK)
        streams, ordinals = self._block(number)
        return self.lock.streams[int(streams[at])], int(ordinals[at])

    def record(self, stream: Stream, ordinal: int, attempt: int = 0) -> tuple[int, str]:
        """Return the shard number and the key that draw `ordinal` of a stream takes; later attempts go on from it.

        A stream deals its whole pool, shuffled anew, before any record comes again.
        """
        epoch, at = divmod(ordinal, stream.pool)
        number = self._order(stream, epoch)[(at + attempt) % stream.pool]
        shard, place = self._pool(stream).locate(number)
        return shard, self._shard((stream.source, shard)).keys[place]

    def item(self, index: int) -> MixtureItem:
        """Return item `index`.

        A record that is damaged or cannot serve is replaced by the next of the same stream, and counted.
        """
        if index < 0:
            raise IndexError(f"index {index}: a mixture starts at 0")
        stream, ordinal = self.draw(index)
        replaced: list[Rejection] = []
        for attempt in range(min(_ATTEMPTS, stream.pool)):
            shard, key = self.record(stream, ordinal, attempt)
            try:
                record = self._read(stream, shard, key)
            except InputError as error:
                replaced.append(Rejection(key, f"{DAMAGED}{error}"))
                continue
            try:
                example = self._encode(record, stream, ordinal // stream.pool)
            except InputError as error:
                replaced.append(Rejection(key, f"{UNFIT}{error}"))
                continue
            self.ledger.count(stream.name, tuple(replaced), self._max_bad)
            return MixtureItem(example, stream.source, stream.kind, index, tuple(replaced))
        raise InputError(
            f"{stream.name}: {len(replaced)} records in a row could not be used at index {index}; "
            f"the last: {replaced[-1].key}: {replaced[-1].reason}"
        )

    def _read(self, stream: Stream, shard: int, key: str) -> Sample | Example:
        opened = self._shard((stream.source, shard))
        if self.lock.source(stream.source).form == "instructions":
            return parse_example(key, read_parts(opened.file, opened.row, key))
        return parse_sample_for(stream.task, key, read_parts(opened.file, opened.row, key, parts_of(stream.task)))

    def _encode(self, record: Sample | Example, stream: Stream, epoch: int) -> Example:
        if isinstance(record, Sample):
            return draw_example(record, stream.task, self.lock.seed, epoch, self.size, self.lock.negatives)
        height, width = record.target.shape[:2]
        if (height, width) != (self.size, self.size):
            raise InputError(f"frozen at {width}x{height} pixels, the run is at {self.size}x{self.size}")
        return record

    def _make_pool(self, stream: Stream) -> _Pool:
        pool = _Pool(self.lock.source(stream.source), stream.task)
        if pool.size != stream.pool:
            raise InputError(f"{stream.name}: the lock says {stream.pool} records, its shards have {pool.size}")
        return pool

    def _make_order(self, stream: Stream, epoch: int) -> LocalOrder:
        return LocalOrder(stream.pool, (self.lock.seed, stream.name, epoch))

    def _open_shard(self, at: tuple[str, int]) -> _OpenShard:
        source = self.lock.source(at[0])
        locked = source.shards[at[1]]
        tar = self.data / source.path / locked.name
        try:
            if file_sha256(tar.with_suffix(".json")) != locked.row_sha256 or tar.stat().st_size != locked.bytes:
                raise ChangedShard(f"{tar}: changed since the mixture was locked; lock it again")
            row = read_row(tar.with_suffix(".json"))
            return _OpenShard(tar.open("rb"), row, tuple(sorted(row.samples)))
        except FileNotFoundError as error:
            raise ChangedShard(f"{error.filename}: not there, but the lock names it") from None


class ChangedShard(InputError):
    """A shard is not the one that was locked: no record of it may be replaced quietly."""


def held_out(lock: Lock, data: Path) -> Iterator[Sample]:
    """Yield the samples that the mixture's raw sources keep for evaluation, each once, in the order of the lock."""
    seen: set[str] = set()
    for source in lock.sources:
        if source.form != "raw":
            continue
        for shard in source.shards:
            flags = unpack_bits(shard.held_out, shard.count)
            if not flags.any():
                continue
            tar = data / source.path / shard.name
            row = read_row(tar.with_suffix(".json"))
            with tar.open("rb") as file:
                for key in np.array(sorted(row.samples))[flags]:
                    if key not in seen:
                        seen.add(str(key))
                        yield parse_sample(str(key), read_parts(file, row, str(key)))
