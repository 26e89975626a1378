"""Byte ranges of files anywhere: of this machine, and at fsspec URLs through a cache of blocks.

The cache is on disk, bounded and shared by all processes; a reader of one file keeps its last block in memory instead.
A block in the cache is named by the sha256 that its file is known by, so that another file, or another version of one,
is never taken for it. Whoever reads a range checks it against a hash of its own and calls `discard` when it differs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cavendish.mixing.storage import files, objects
from cavendish.mixing.storage.objects import Retry, Unreachable
from cavendish.mixing.storage.place import Place, url_of

_STRIPES = 256  # lock files, so that a block is fetched once by all processes together
_KEPT_SHARE = 0.9  # of the limit that an eviction leaves, so that not every block evicts
_LAST_BLOCK_BYTES = 8 << 20  # of a file that is read once, mostly forwards
_DEAD_S = 600.0  # a half-filled block this old has lost its process


class BlockCache:
    """Blocks of files in a folder, the least recently used deleted first; safe for any number of processes.

    Args:
        folder: where the blocks are; created.
        limit: bytes that the blocks, finished or being fetched, never exceed together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        (folder / "blocks").mkdir(exist_ok=True)

    def read(self, name: str, at: int = 0, size: int | None = None) -> bytes | None:
        """Return bytes of a block, all from `at` on without a size, or None when the cache does not have it."""
        try:
            file = os.open(self.folder / "blocks" / name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            os.utime(file)  # used now; bytes of an evicted block can be read as long as it is open
            return os.pread(file, os.fstat(file).st_size - at if size is None else size, at)
        finally:
            os.close(file)

    def has(self, name: str) -> bool:
        """Tell whether a block is there."""
        return (self.folder / "blocks" / name).exists()

    def discard(self, name: str) -> None:
        """Delete a block whose bytes turned out to be wrong."""
        (self.folder / "blocks" / name).unlink(missing_ok=True)

    def fill(self, name: str, size: int, fetch: Callable[[], bytes]) -> bool:
        """Make sure that a block is there; `fetch` is called when no process has it or is getting it.

        Returns:
            False when there is no room: the cache is full of blocks that others are fetching.
        """
        stripe = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _STRIPES
        with _locked(self.folder / "locks" / f"{stripe:03d}"):
            if self.has(name):
                return True
            temporary = self.folder / "blocks" / f"tmp-{os.getpid()}-{os.urandom(8).hex()}"
            if not self._reserve(temporary, size):
                return False
            try:
                with temporary.open("r+b") as file:
                    file.write(fetch())
                with _locked(self.folder / "locks" / "all"):  # a folder that is being listed may lose sight of a rename
                    temporary.replace(self.folder / "blocks" / name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return True

    def _reserve(self, temporary: Path, size: int) -> bool:
        """Make an empty file of `size` bytes, after deleting old blocks where needed; tell whether there was room.

        The room a block takes is taken before it is fetched, under one lock, so that many processes stay in the limit.
        """
        with _locked(self.folder / "locks" / "all"):
            used = self._used()
            if used + size > self.limit:
                used = self._evict(size)
            if used + size > self.limit:
                return False
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            (self.folder / "locks" / "used").write_text(str(used + size))
        return True

    def _used(self) -> int:
        """Return the bytes in use as last counted: never too few, too many after a discard or a crash."""
        try:
            return int((self.folder / "locks" / "used").read_text())
        except (FileNotFoundError, ValueError):
            return self.limit  # unknown: count

    def _evict(self, size: int) -> int:
        """Delete the least recently used blocks so that `size` more bytes fit; return the bytes that are left."""
        found = []
        for entry in os.scandir(self.folder / "blocks"):
            try:
                facts = entry.stat()
            except FileNotFoundError:  # discarded meanwhile
                continue
            found.append((facts.st_mtime_ns, facts.st_size, entry))
        used = sum(size for _, size, _ in found)
        target = max(0, min(self.limit - size, int(self.limit * _KEPT_SHARE)))
        dead = time.time_ns() - int(_DEAD_S * 1e9)
        for changed, bytes_, entry in sorted(found, key=lambda item: item[:2]):
            if used <= target:
                break
            if not entry.name.startswith("tmp-") or changed < dead:
                Path(entry.path).unlink(missing_ok=True)
                used -= bytes_
        return used


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile has the file open too
        os.close(file)


class LastBlock:
    """The block that was read last, in memory: the cache of a reader that goes through one file once."""

    def __init__(self) -> None:
        self._held = "", b""

    def read(self, name: str, at: int = 0, size: int | None = None) -> bytes | None:
        """Return bytes of the block, or None when another one is held."""
        held, data = self._held
        return None if held != name else data[at:] if size is None else data[at : at + size]

    def discard(self, name: str) -> None:
        """Drop the block: its bytes turned out to be wrong."""
        self._held = "", b""

    def fill(self, name: str, size: int, fetch: Callable[[], bytes]) -> bool:
        """Hold this block."""
        self._held = name, fetch()
        return True


@dataclass(frozen=True)
class Server:
    """How files are fetched.

    Args:
        cache: where their blocks go.
        block: bytes of a block.
        retry: how often a range is asked for before its file is given up.
        traffic: counts blocks that were fetched, and those that were discarded, by this process.
    """

    cache: BlockCache | LastBlock
    block: int
    retry: Retry
    traffic: Counter[str] = field(default_factory=Counter)

    def read_file(self, url: str, sha256: str) -> bytes:
        """Return all bytes of a small file, fetched when the cache has none of this sha256; the caller checks them.

        Raises:
            MissingFile: the file is not there.
            Unreachable: it cannot be fetched.
        """
        name = f"{sha256}.whole"
        data = self.cache.read(name)
        if data is not None and hashlib.sha256(data).hexdigest() == sha256:
            return data
        self.cache.discard(name)
        others: list[bytes] = []

        def fetch(fs: Any, path: str) -> bytes:
            data: bytes = fs.cat_file(path)
            if hashlib.sha256(data).hexdigest() != sha256:
                others.append(data)
                raise OSError(f"{len(data)} bytes came, of another sha256")
            return data

        try:
            fetched = objects.ask(url, fetch, retry=self.retry)
        except Unreachable:
            if others:  # the server answers well enough: this is another file
                return others[-1]
            raise
        self.cache.fill(name, len(fetched), lambda: fetched)
        return fetched

    def read_range(self, url: str, start: int, end: int) -> bytes:
        """Return bytes start to end of a file, from where it really is."""
        data = objects.read_range(url, start, end, self.retry)
        self.traffic["blocks"] += 1
        return data


class LocalFile:
    """A file of this machine; closed when nobody holds it any more."""

    _file = -1

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; fewer only where it ends."""
        return os.pread(self._file, size, offset)

    def fetch(self, offset: int, size: int) -> None:
        """Have the bytes of a range read ahead."""
        os.posix_fadvise(self._file, offset, size, os.POSIX_FADV_WILLNEED)

    def discard(self, offset: int, size: int) -> None:
        """Do nothing: the file itself is damaged."""


class RemoteFile:
    """A file of known size and sha256, read by ranges; see `Server`."""

    def __init__(self, server: Server, url: str, sha256: str, size: int) -> None:
        self._server, self._url, self._sha256, self._size = server, url, sha256, size

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; fewer only where it ends."""
        end = min(offset + size, self._size)
        parts = []
        while offset < end:
            block, at = divmod(offset, self._server.block)
            length = min(end - offset, self._server.block - at)
            parts.append(self._read_block(block, at, length))
            offset += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_block(self, block: int, at: int, size: int) -> bytes:
        name = self._name(block)
        for _ in range(3):  # another process may evict it in between
            data = self._server.cache.read(name, at, size)
            if data is not None and len(data) == size:
                return data
            if data is not None:
                self._server.cache.discard(name)
            self._fetch(block)
        start = block * self._server.block + at
        return self._server.read_range(self._url, start, start + size)

    def fetch(self, offset: int, size: int) -> None:
        """Bring the blocks of a range into the cache."""
        for block in self._blocks(offset, size):
            self._fetch(block)

    def discard(self, offset: int, size: int) -> None:
        """Drop the blocks of a range from the cache: their bytes are wrong."""
        for block in self._blocks(offset, size):
            self._server.cache.discard(self._name(block))
            self._server.traffic["discarded"] += 1

    def _fetch(self, block: int) -> None:
        start = block * self._server.block
        end = min(start + self._server.block, self._size)
        self._server.cache.fill(self._name(block), end - start, lambda: self._server.read_range(self._url, start, end))

    def _blocks(self, offset: int, size: int) -> range:
        end = min(offset + size, self._size)
        return range(offset // self._server.block, -(-end // self._server.block))

    def _name(self, block: int) -> str:
        return f"{self._sha256}-{self._server.block}-{block}"


@contextmanager
def open_file(place: Place) -> Iterator[LocalFile | RemoteFile]:
    """Open a file to read ranges of it once, wherever it is.

    Raises:
        InputError: it is not there or cannot be read.
    """
    url = url_of(place)
    if url is not None:
        yield RemoteFile(Server(LastBlock(), _LAST_BLOCK_BYTES, objects.RETRY), url, "", objects.size(url))
        return
    with files.reading(place):
        file = LocalFile(Path(place))
    yield file
