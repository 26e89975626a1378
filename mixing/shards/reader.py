"""Reads shards, wherever they are, each part's hash checked: those of a lock by place and part, others by record."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.mixing.config import Config
from cavendish.mixing.shards.dataset import Row, load_dataset, parse_row, read_row, row_names, some_rows
from cavendish.mixing.shards.sample_format import Parts, parse_record
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.cache import BlockCache, LocalFile, RemoteFile, Server, open_file
from cavendish.mixing.storage.files import MissingFile, reading
from cavendish.mixing.storage.objects import Retry
from cavendish.mixing.storage.place import Place, exists, file_sha256, is_url, join, local_copy, read_bytes, with_suffix

if TYPE_CHECKING:
    from cavendish.mixing.lock import LockedShard

OPEN_SHARDS = 128  # indexes and files kept open; an order of records touches about so many shards at a time
OnDamage = Literal["stop", "replace", "replace_shards"]


class Reading(Config):
    """How the records of a mixture are read; what is read does not depend on it, as long as nothing is damaged."""

    threads: int = Field(default=0, ge=0, description="examples made ahead by threads of each process")
    on_damage: OnDamage = Field(
        default="replace",
        description="stop at the first damaged record, replace records one by one, or those of missing shards too",
    )
    cache: Path | None = Field(default=None, description="folder on a local disk for blocks of remote shards")
    cache_bytes: int = Field(default=20 << 30, ge=1, description="which that folder never exceeds")
    block_bytes: int = Field(default=4 << 20, ge=4096, description="what is fetched of a remote shard at a time")
    ahead: int = Field(default=256, ge=0, description="examples whose remote blocks are fetched before their turn")
    fetches: int = Field(default=8, ge=1, description="blocks fetched at a time by each process")
    attempts: int = Field(default=5, ge=1, description="how often a block is asked for before the run stops")
    backoff_s: float = Field(default=0.5, ge=0, description="wait after a failure, doubled after each further one")


class ChangedShard(InputError):
    """A shard is not the one that was locked: no record of it may be replaced quietly."""


class MissingShard(ChangedShard):
    """A shard is not there, or is cut short."""


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


def read_index(data: bytes, path: Place) -> ShardIndex:
    """Read the index out of the bytes of a shard's row.

    Raises:
        InputError: not a row of this schema.
    """
    samples = parse_row(data, path).samples
    keys = tuple(sorted(samples))
    names = tuple(sorted({part for parts in samples.values() for part in parts}))
    table = [[samples[key].get(part, (-1, 0, 0)) for part in names] for key in keys]
    return ShardIndex(keys, names, np.array(table, np.int64).reshape(len(keys), len(names), 3))


@dataclass(frozen=True)
class OpenShard:
    """A shard that was found to be the locked one."""

    name: str
    index: ShardIndex
    file: LocalFile | RemoteFile

    def parts(self, place: int, names: Collection[str] | None = None) -> Parts:
        """Read the parts of the record at `place`, all or those among `names`, and check the hash of each."""
        where = f"{self.name}: {self.index.keys[place]}"
        return {name: read_part(self.file, f"{where}.{name}", *at) for name, *at in self.index.ranges(place, names)}

    def fetch(self, place: int, names: Collection[str] | None = None) -> None:
        """Have the bytes of a record brought near."""
        for _, offset, size, _ in self.index.ranges(place, names):
            self.file.fetch(offset, size)


def open_local(tar: Path) -> OpenShard:
    """Open a committed shard of this machine that no lock names, by the row beside it.

    Raises:
        InputError: no such shard, or its row is damaged.
    """
    row = tar.with_suffix(".json")
    data = read_bytes(row)
    with reading(tar):
        return OpenShard(tar.name, read_index(data, row), LocalFile(tar))


class Shards:
    """Opens shards by the path of their source, relative to `data` or a URL, and what the lock says of them.

    Args:
        data: folder, or URL of a folder, that the paths of sources are relative to.
    """

    def __init__(self, data: Path | str, reading: Reading) -> None:
        self._data, self._reading = data, reading
        self._server: Server | None = None
        self._lock = threading.Lock()

    @property
    def server(self) -> Server:
        """Where remote shards are fetched from.

        Raises:
            InputError: no folder was given for its cache.
        """
        with self._lock:
            if self._server is None:
                reading = self._reading
                if reading.cache is None:
                    raise InputError(
                        "shards at a URL need a folder on a local disk for their blocks: set reading.cache"
                    )
                if reading.block_bytes > reading.cache_bytes:
                    raise InputError(
                        f"reading.block_bytes {reading.block_bytes} is over reading.cache_bytes {reading.cache_bytes}"
                    )
                cache = BlockCache(reading.cache, reading.cache_bytes)
                self._server = Server(cache, reading.block_bytes, Retry(reading.attempts, reading.backoff_s))
            return self._server

    def is_remote(self, source: str) -> bool:
        """Tell whether the shards of a source are at a URL."""
        return is_url(join(self._data, source))

    def open(self, source: str, locked: LockedShard) -> OpenShard:
        """Open a shard of a source.

        Raises:
            ChangedShard: it is not the locked one.
            MissingShard: it is not there; a tar cut short is opened all the same when `on_damage` says so.
        """
        tar = join(join(self._data, source), locked.name)
        row = with_suffix(tar, ".json")
        file: LocalFile | RemoteFile
        try:
            if self.is_remote(source):
                data = self.server.read_file(str(row), locked.row_sha256)
                size = objects.size(str(tar), self.server.retry)
                file = RemoteFile(self.server, str(tar), locked.sha256, min(size, locked.bytes))
            else:
                data, size, file = Path(row).read_bytes(), Path(tar).stat().st_size, LocalFile(Path(tar))
        except FileNotFoundError as error:
            raise MissingShard(f"{error.filename}: not there, but the lock names it") from None
        except MissingFile as error:
            raise MissingShard(f"{error}, but the lock names it") from None
        if hashlib.sha256(data).hexdigest() != locked.row_sha256:
            raise ChangedShard(f"{row}: changed since the mixture was locked; lock it again")
        if size < locked.bytes and self._reading.on_damage != "replace_shards":
            raise MissingShard(f"{tar}: {size} bytes, locked with {locked.bytes}: cut short")
        if size > locked.bytes:
            raise ChangedShard(
                f"{tar}: changed since the mixture was locked ({size} bytes, locked with {locked.bytes})"
            )
        return OpenShard(locked.name, read_index(data, row), file)


Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The most recently used values, at most `size`, for any number of threads: each value is made once."""

    def __init__(self, size: int, make: Callable[[Key], Value]) -> None:
        self._size, self._make = size, make
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._making: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            value = self._make(key)
            with self._lock:
                self._values[key] = value
                self._making.pop(key, None)
                if len(self._values) > self._size:
                    self._values.popitem(last=False)
            return value


def read_part(file: LocalFile | RemoteFile, name: str, offset: int, size: int, crc32: int) -> bytes:
    """Read a part of a record from the tar of its shard, and check its hash.

    Raises:
        InputError: its bytes are not those that were written, also when they are fetched a second time.
    """
    data = b""
    for attempt in range(2):
        if attempt:
            file.discard(offset, size)
        data = file.read(offset, size)
        if len(data) == size and zlib.crc32(data) == crc32:
            return data
    found = "is damaged (its hash differs from the row's)" if len(data) == size else "is cut off"
    raise InputError(f"{name} {found}")


def read_parts(file: LocalFile | RemoteFile, row: Row, key: str, names: Collection[str] | None = None) -> Parts:
    """Read the parts of one key, or those among `names`, from the tar of a shard, checking the hash of each."""
    return {
        name: read_part(file, f"{row.shard}: {key}.{name}", *at)
        for name, at in row.samples[key].items()
        if names is None or name in names
    }


def read_shard(path: Place) -> Iterator[Sample | Example]:
    """Yield the records of one committed shard, ordered by key, each part's hash checked.

    Raises:
        InputError: no row beside the tar, or a damaged part or record.

    Example:
        >>> for sample in cavendish.read_shard("raw/scenes/shard-000000.tar"):
        ...     print(sample.key, sample.image.shape, sample.depth_m.dtype)
        pyrender-1-000000 (64, 64, 3) float32
        pyrender-1-000001 (64, 64, 3) float32
    """
    row = read_row(with_suffix(path, ".json"))
    with open_file(path) as file:
        for key in row.samples:
            yield parse_record(key, read_parts(file, row, key))


def read_dataset(directory: Place) -> Iterator[Sample | Example]:
    """Yield the records of all committed shards of a directory.

    Raises:
        InputError: the directory has no committed shard.
    """
    for row in some_rows(directory):
        yield from read_shard(join(directory, row.shard))


def verify(directory: Place) -> list[str]:
    """Check every shard of a directory against its row and every record against the schema; return the problems.

    An empty list means: every planned shard is there, every byte is as committed, every record can be read.
    """
    dataset = load_dataset(directory)
    problems = []
    rows = []
    for name in row_names(directory):
        try:
            rows.append(read_row(join(directory, name)))
        except InputError as error:
            problems.append(str(error))
    missing = dataset.shards - len(rows)
    if missing:
        problems.append(f"{directory}: {missing} of {dataset.shards} planned shards are not committed")
    seen: set[str] = set()
    for row in rows:
        problems += _verify_shard(directory, row, dataset.plan_of(row), seen)
    return problems


def _verify_shard(directory: Place, row: Row, plan_digest: str, seen: set[str]) -> list[str]:
    place = join(directory, row.shard)
    if row.plan != plan_digest:
        return [f"{place}: made by plan {row.plan[:12]}, the directory's is {plan_digest[:12]}"]
    if not exists(place):
        return [f"{place}: its row is here, the tar is not"]
    with local_copy(place) as path:
        if file_sha256(path) != row.sha256:
            return [f"{place}: sha256 differs from the row's"]
        problems = [f"{place}: key {key} is in another shard too" for key in row.samples if key in seen]
        seen.update(row.samples)
        with tarfile.open(path, mode="r:") as tar:  # Python's own reader: what any other tool would see
            members = set(tar.getnames())
        if members != {f"{key}.{name}" for key, parts in row.samples.items() for name in parts}:
            problems.append(f"{place}: its members are not those of its row")
        try:
            with open_file(path) as file:
                for key in row.samples:
                    parse_record(key, read_parts(file, row, key))
        except InputError as error:
            problems.append(f"{place}: {error}")
    return problems
