"""Reads shards, wherever they are, each part's hash checked: those of a lock by place and part, others by record."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.mixing.config import Config
from cavendish.mixing.lock import LockedShard
from cavendish.mixing.shards.dataset import SHARD_SCHEMA, Row, read_row, row_names, some_rows
from cavendish.mixing.shards.sample_format import Parts, parse_record
from cavendish.mixing.storage.cache import BlockCache, MissingFile, RemoteFile, Server
from cavendish.mixing.storage.objects import RemoteBytes
from cavendish.mixing.storage.place import Place, exists, file_sha256, is_url, join, local_copy, read_json, with_suffix

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


class _Bytes(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...
    def fetch(self, offset: int, size: int) -> None: ...
    def discard(self, offset: int, size: int) -> None: ...


class _LocalFile:
    """A file of this machine; closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset)

    def fetch(self, offset: int, size: int) -> None:
        os.posix_fadvise(self._file, offset, size, os.POSIX_FADV_WILLNEED)

    def discard(self, offset: int, size: int) -> None:
        """Do nothing: the file itself is damaged."""


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


@dataclass(frozen=True)
class OpenShard:
    """A shard that was found to be the locked one."""

    name: str
    index: ShardIndex
    file: _Bytes

    def parts(self, place: int, names: Collection[str] | None = None) -> Parts:
        """Read the parts of the record at `place`, all or those among `names`, and check the hash of each.

        Raises:
            InputError: a part's bytes are not those that were written, also when they are fetched a second time.
        """
        return {name: self._part(place, name, *rest) for name, *rest in self.index.ranges(place, names)}

    def _part(self, place: int, name: str, offset: int, size: int, crc32: int) -> bytes:
        for attempt in range(2):
            if attempt:
                self.file.discard(offset, size)
            data = self.file.read(offset, size)
            if len(data) == size and zlib.crc32(data) == crc32:
                return data
        found = "is damaged (its hash differs from the row's)" if len(data) == size else "is cut off"
        raise InputError(f"{self.name}: {self.index.keys[place]}.{name} {found}")

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
    try:
        return OpenShard(tar.name, read_index(row.read_bytes(), str(row)), _LocalFile(tar))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: not there") from None


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
                self._server = Server(cache, reading.block_bytes, reading.attempts, reading.backoff_s)
            return self._server

    def open(self, source: str, locked: LockedShard) -> OpenShard:
        """Open a shard of a source.

        Raises:
            ChangedShard: it is not the locked one.
            MissingShard: it is not there; a tar cut short is opened all the same when `on_damage` says so.
        """
        base = source if is_url(source) or not str(self._data) else f"{str(self._data).rstrip('/')}/{source}"
        tar = f"{base}/{locked.name}"
        row = f"{tar.removesuffix('.tar')}.json"
        try:
            data = self.server.whole(row, locked.row_sha256) if is_url(row) else Path(row).read_bytes()
            if hashlib.sha256(data).hexdigest() != locked.row_sha256:
                raise ChangedShard(f"{row}: changed since the mixture was locked; lock it again")
            file: _Bytes
            if is_url(tar):
                size = self.server.size(tar)
                file = RemoteFile(self.server, tar, locked.sha256, min(size, locked.bytes))
            else:
                size = Path(tar).stat().st_size
                file = _LocalFile(Path(tar))
        except FileNotFoundError as error:
            raise MissingShard(f"{error.filename}: not there, but the lock names it") from None
        except MissingFile as error:
            raise MissingShard(f"{error}, but the lock names it") from None
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


@contextmanager
def open_tar(path: Place) -> Iterator[BinaryIO | RemoteBytes]:
    """Open the tar of a shard for `read_parts`."""
    if is_url(path):
        yield RemoteBytes(str(path))
        return
    with Path(path).open("rb") as file:
        yield file


def read_parts(file: BinaryIO | RemoteBytes, row: Row, key: str, names: Collection[str] | None = None) -> Parts:
    """Read the parts of one key from an open tar, checking the hash of each.

    Args:
        names: only these parts, as far as the key has them; None: all.

    Raises:
        InputError: a part's bytes are not those that were written, also when they are fetched a second time.
    """
    parts: Parts = {}
    for name, (offset, size, crc32) in row.samples[key].items():
        if names is not None and name not in names:
            continue
        if isinstance(file, RemoteBytes):
            data = file.read(offset, size, crc32)
        else:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size or zlib.crc32(data) != crc32:
            raise InputError(f"{row.shard}: {key}.{name} is damaged (its hash differs from the row's)")
        parts[name] = data
    return parts


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
    with open_tar(path) as file:
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
    dataset = read_json(join(directory, "dataset.json"), "the plan of a shard directory")
    try:
        planned, plan_digest = int(dataset["shards"]), str(dataset["digest"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{directory}/dataset.json: damaged plan: {error}") from None
    problems = []
    rows = []
    for name in row_names(directory):
        try:
            rows.append(read_row(join(directory, name)))
        except InputError as error:
            problems.append(str(error))
    missing = planned - len(rows)
    if missing:
        problems.append(f"{directory}: {missing} of {planned} planned shards are not committed")
    seen: set[str] = set()
    for row in rows:
        problems += _verify_shard(directory, row, plan_digest, seen)
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
        if len(row.samples) != row.count or set(tar_members(path)) != {
            f"{key}.{name}" for key, parts in row.samples.items() for name in parts
        }:
            problems.append(f"{place}: its members are not those of its row")
        try:
            with open_tar(path) as file:
                for key in row.samples:
                    parse_record(key, read_parts(file, row, key))
        except InputError as error:
            problems.append(f"{place}: {error}")
    return problems


def tar_members(path: Path) -> list[str]:
    """List the member names of a tar with Python's own reader, as any other tool would see them."""
    with tarfile.open(path, mode="r:") as tar:
        return tar.getnames()
