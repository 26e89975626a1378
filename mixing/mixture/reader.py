"""Item i of a locked mixture: a pure function of (lock, i), read at random from the shards, every byte checked.

No torch here: `mixing.loader` puts this behind torch's interfaces.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.lock import Lock, LockedShard, LockedSource, Stream, unpack_bits
from cavendish.mixing.mixture.draw import Sizes, draw_example, parse_sample_for, parts_of
from cavendish.mixing.shards.reader import OPEN_SHARDS, ChangedShard, MissingShard, OpenShard, Reading, Recent, Shards
from cavendish.mixing.shards.sample_format import parse_example, parse_sample
from cavendish.mixing.storage.objects import Unreachable

BLOCK = 4096  # indices scheduled at a time: 1.5 ms, once per block
_ATTEMPTS = 16  # records tried for one draw before the run stops
_MIN_DRAWS = 200  # draws before the share of damaged records can stop a run
DAMAGED, UNFIT = "damaged: ", "unfit: "  # how the reasons of replacements begin
_ROUNDS, _MASK = 4, (1 << 64) - 1  # of the permutation


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


class MixtureReader:
    """Reads items of a locked mixture at any index.

    Args:
        lock: what to read.
        data: folder, or fsspec URL of one, that the paths of the lock are relative to.
        sizes: side of the images in pixels, or buckets; see `mixing.mixture.draw.nearest_size`.
        reading: how; see `Reading`.

    Raises:
        InputError: a shard is not the one that was locked, a draw finds no usable record, or too many are replaced.
    """

    def __init__(self, lock: Lock, data: Path | str, sizes: Sizes, reading: Reading | None = None) -> None:
        self.lock = lock
        self.data = data
        self.sizes = sizes
        self.reading = Reading() if reading is None else reading
        self.ledger = Ledger()
        self.schedule = lock.schedule()
        self.shards = Shards(data, self.reading)
        self._max_bad = Fraction(lock.max_bad)
        self._sources = {source.name: source for source in lock.sources}
        self._remote = any(self.shards.is_remote(source.path) for source in lock.sources)
        self._open_caches()

    def _open_caches(self) -> None:
        self._process = os.getpid()
        self._planning = threading.Lock()
        self._block: Recent[int, Any] = Recent(8, lambda number: self.schedule.draws(number * BLOCK, BLOCK))
        self._pool = Recent(len(self.lock.streams), self._make_pool)
        self._order = Recent(4 * len(self.lock.streams), self._make_order)
        self._shard = Recent(OPEN_SHARDS, self._open_shard)
        self._fetchers: ThreadPoolExecutor | None = None
        self._fetched_to = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"lock": self.lock, "data": self.data, "sizes": self.sizes, "reading": self.reading}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # caches and open files stay with their process

    def close(self) -> None:
        """Stop fetching ahead, and wait for what is on its way: the cache's folder may go then."""
        if self._fetchers is not None:
            self._fetchers.shutdown(cancel_futures=True)
            self._fetchers = None

    def draw(self, index: int) -> tuple[Stream, int]:
        """Return the stream that index draws from, and which draw of that stream it is."""
        with self._planning:
            number, at = divmod(index, BLOCK)
            streams, ordinals = self._block(number)
            return self.lock.streams[int(streams[at])], int(ordinals[at])

    def _locate(self, stream: Stream, ordinal: int, attempt: int) -> tuple[int, int]:
        """Return the shard, and the place in it, of what a draw takes; later attempts go on from it.

        A stream deals its whole pool, shuffled anew, before any record comes again.
        """
        epoch, at = divmod(ordinal, stream.pool)
        with self._planning:
            return self._pool(stream).locate(self._order((stream, epoch))[(at + attempt) % stream.pool])

    def record(self, stream: Stream, ordinal: int, attempt: int = 0) -> tuple[int, str]:
        """Return the shard number and the key that draw `ordinal` of a stream takes; later attempts go on from it."""
        shard, place = self._locate(stream, ordinal, attempt)
        return shard, self._shard((stream.source, shard)).index.keys[place]

    def item(self, index: int) -> MixtureItem:
        """Return item `index`.

        A record that is damaged or cannot serve is replaced by the next of the same stream, and counted.
        """
        if self._process != os.getpid():
            self._open_caches()  # of the process this one was forked from
        if self._remote and self.reading.ahead:
            first = max(index + 1, min(self._fetched_to, index + self.reading.ahead))
            for near in range(first, index + 1 + self.reading.ahead):
                self._fetch_ahead(near)
            self._fetched_to = index + 1 + self.reading.ahead
        return self._count(self._make(index))

    def items(self, indices: Iterable[int]) -> Iterator[MixtureItem]:
        """Yield the items of `indices` in this order; made ahead by threads, and fetched ahead, as `reading` says."""
        if self._process != os.getpid():
            self._open_caches()
        left = iter(indices)
        near: deque[int] = deque()  # to be fetched, or being fetched
        making: deque[Future[tuple[MixtureItem, Stream]]] = deque()
        threads = self.reading.threads
        ahead = self.reading.ahead if self._remote else 0
        with ThreadPoolExecutor(threads or 1, "make") as pool:
            try:
                while True:
                    for index in itertools.islice(left, max(0, ahead + 1 - len(near))):
                        near.append(index)
                        if ahead:
                            self._fetch_ahead(index)
                    while threads and near and len(making) < 2 * threads:
                        making.append(pool.submit(self._make, near.popleft()))
                    if making:
                        yield self._count(making.popleft().result())
                    elif near:
                        yield self._count(self._make(near.popleft()))
                    else:
                        return
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fetch_ahead(self, index: int) -> None:
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(self.reading.fetches, "fetch")
        self._fetchers.submit(self._fetch, index)

    def _fetch(self, index: int) -> None:
        """Bring the bytes of an item near; what goes wrong is said when the item is read."""
        with contextlib.suppress(InputError):
            stream, ordinal = self.draw(index)
            shard, place = self._locate(stream, ordinal, 0)
            self._shard((stream.source, shard)).fetch(place, self._parts_of(stream))

    def _parts_of(self, stream: Stream) -> tuple[str, ...] | None:
        return None if self._sources[stream.source].form == "instructions" else parts_of(stream.task)

    def _count(self, made: tuple[MixtureItem, Stream]) -> MixtureItem:
        item, stream = made
        self.ledger.count(stream.name, item.replaced, self._max_bad)
        return item

    def _make(self, index: int) -> tuple[MixtureItem, Stream]:
        if index < 0:
            raise IndexError(f"index {index}: a mixture starts at 0")
        stream, ordinal = self.draw(index)
        replaced: list[Rejection] = []
        for attempt in range(min(_ATTEMPTS, stream.pool)):
            shard, place = self._locate(stream, ordinal, attempt)
            key = f"{self._sources[stream.source].shards[shard].name}#{place}"
            try:
                opened = self._shard((stream.source, shard))
                key = opened.index.keys[place]
                record = self._read(stream, opened, place)
            except InputError as error:
                self._may_replace(error)
                replaced.append(Rejection(key, f"{DAMAGED}{error}"))
                continue
            try:
                example = self._encode(record, stream, ordinal // stream.pool)
            except InputError as error:
                replaced.append(Rejection(key, f"{UNFIT}{error}"))
                continue
            return MixtureItem(example, stream.source, stream.kind, index, tuple(replaced)), stream
        raise InputError(
            f"{stream.name}: {len(replaced)} records in a row could not be used at index {index}; "
            f"the last: {replaced[-1].key}: {replaced[-1].reason}"
        )

    def _may_replace(self, error: InputError) -> None:
        """Raise `error` again when the record it is about may not be replaced."""
        if isinstance(error, MissingShard):
            if self.reading.on_damage != "replace_shards":
                raise error
        elif isinstance(error, Unreachable | ChangedShard) or self.reading.on_damage == "stop":
            raise error

    def _read(self, stream: Stream, opened: OpenShard, place: int) -> Sample | Example:
        key, parts = opened.index.keys[place], opened.parts(place, self._parts_of(stream))
        if self._sources[stream.source].form == "instructions":
            return parse_example(key, parts)
        return parse_sample_for(stream.task, key, parts)

    def _encode(self, record: Sample | Example, stream: Stream, epoch: int) -> Example:
        if isinstance(record, Sample):
            source = self.lock.source(stream.source)
            settings = source.negatives, source.colormaps
            return draw_example(record, stream.task, self.lock.seed, epoch, self.sizes, *settings)
        height, width = record.target.shape[:2]
        allowed = [(self.sizes, self.sizes)] if isinstance(self.sizes, int) else self.sizes
        if (height, width) not in allowed:
            run = ", ".join(f"{wide}x{high}" for high, wide in allowed)
            raise InputError(f"frozen at {width}x{height} pixels, the run is at {run}")
        return record

    def _make_pool(self, stream: Stream) -> _Pool:
        pool = _Pool(self._sources[stream.source], stream.task)
        if pool.size != stream.pool:
            raise InputError(f"{stream.name}: the lock says {stream.pool} records, its shards have {pool.size}")
        return pool

    def _make_order(self, of: tuple[Stream, int]) -> LocalOrder:
        stream, epoch = of
        return LocalOrder(stream.pool, (self.lock.seed, stream.name, epoch))

    def _open_shard(self, at: tuple[str, int]) -> OpenShard:
        source = self._sources[at[0]]
        return self.shards.open(source.path, source.shards[at[1]])


def held_out(lock: Lock, data: Path | str, reading: Reading | None = None) -> Iterator[Sample]:
    """Yield the samples that the mixture's raw sources keep for evaluation, each once, in the order of the lock."""
    shards = Shards(data, Reading() if reading is None else reading)
    seen: set[str] = set()
    for source in lock.sources:
        if source.form != "raw":
            continue
        for shard in source.shards:
            flags = unpack_bits(shard.held_out, shard.count)
            if not flags.any():
                continue
            opened = shards.open(source.path, shard)
            for place in np.flatnonzero(flags).tolist():
                key = opened.index.keys[place]
                if key not in seen:
                    seen.add(key)
                    yield parse_sample(key, opened.parts(place))


class Permutation:
    """A Feistel network on the smallest even number of bits that holds `size`, walked until it lands inside.

    Args:
        size: number of elements, at least 1.
        key: anything json-able that names this order, for example (seed, source, epoch).

    Source: Black and Rogaway 2002 (cycle walking); four rounds of a keyed 64-bit mix. It shuffles; it is no cipher.
    """

    def __init__(self, size: int, key: tuple[int | str, ...]) -> None:
        if size < 1:
            raise ValueError(f"a permutation of {size} elements")
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        seed = hashlib.sha256(repr(key).encode()).digest()
        self._keys = [int.from_bytes(seed[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS)]

    def __getitem__(self, index: int) -> int:
        """Return where element `index` of the natural order goes."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in a permutation of {self.size}")
        value = self._encrypt(index)
        while value >= self.size:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        low_bits = (1 << self._half) - 1
        left, right = value >> self._half, value & low_bits
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & low_bits)
        return left << self._half | right


def _mix(x: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


class LocalOrder:
    """A keyed order of 0 .. n-1 that touches few neighbourhoods at a time: for records that lie in shards.

    Chunks of `chunk` neighbours are permuted; each `window` chunks in that order are shuffled record by record. A
    reader then has at most `window` places (twice that many shards) open at once, however large the pool; pools of one
    window or less are permuted as a whole. Where the chunks begin changes with the key.
    """

    def __init__(self, size: int, key: tuple[int | str, ...], chunk: int = 64, window: int = 64) -> None:
        self.size = size
        self._key, self._chunk, self._window = key, chunk, window
        self._chunks = size // chunk  # whole ones; what is left over comes last
        self._whole = Permutation(size, key) if size <= chunk * window else None
        self._order = Permutation(max(1, self._chunks), (*key, "chunks"))
        self._shift = Permutation(size, (*key, "shift"))[0]
        self._inside: tuple[int, Permutation] | None = None

    def __getitem__(self, index: int) -> int:
        """Return where element `index` of the natural order goes."""
        if self._whole is not None:
            return self._whole[index]
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in an order of {self.size}")
        if index >= self._chunks * self._chunk:
            return (index + self._shift) % self.size
        window, at = divmod(index, self._window * self._chunk)
        if self._inside is None or self._inside[0] != window:
            chunks = min(self._window, self._chunks - window * self._window)
            self._inside = window, Permutation(chunks * self._chunk, (*self._key, "window", window))
        place, offset = divmod(self._inside[1][at], self._chunk)
        first = self._order[window * self._window + place] * self._chunk
        return (first + offset + self._shift) % self.size
