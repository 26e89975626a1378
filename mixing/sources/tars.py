"""Members of tars made by others: found by their headers and read in place; no header makes us read much, or loop.

Our own loop over the headers: Python's `tarfile`, and the iterators of `webdataset` over it, hold whole members and
extended headers of any size in memory, follow a negative size backwards (CVE-2025-8194), stop at the first end of an
archive, and pass over what is no plain file without a word. A test compares the members with those of `tarfile`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENDED_BYTES = 1 << 20
_MAX_ZEROS = 1 << 30
MAX_EXPANDED_BYTES = 64 << 30
"""A compressed tar is not read beyond here: 64 MB of gzip can stand for as much."""

_EXTENDED = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_LINKS = {tarfile.LNKTYPE, tarfile.SYMTYPE}
_DEVICES = {tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
_WITHOUT_DATA = {*_LINKS, *_DEVICES, tarfile.DIRTYPE}
_NAMED_TAR = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_ZSTD = b"\x28\xb5\x2f\xfd"
_OPENERS: tuple[tuple[bytes, Callable[[Path], object]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)
_DECODING = threading.Lock()

SPARSE = "stored as a sparse file; pack the tar without --sparse"
LINK = "a link to a file that is not in the tar"
DEVICE = "a device or a pipe"


class DamagedTar(ValueError):
    """The tar cannot be read from some offset on; what came before it is good."""


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar: its name and where its bytes are; or, in `problem`, why it has none that can be read.

    `archive` is its number, where several tars are put one after another.
    """

    name: str
    offset: int
    size: int
    archive: int
    problem: str = ""


def tar_stem(name: str) -> str | None:
    """Return the name of a tar without its ending (.tar, .tar.gz, .TAR, .tgz, ...), None when it ends otherwise."""
    match = _NAMED_TAR.search(name)
    return name[: match.start()] if match else None


def is_tar(path: Path) -> bool:
    """Tell by its first bytes whether a file is a tar, compressed or not."""
    try:
        with _opened(path) as data:
            block = data.read_at(0, _BLOCK)
        return len(block) == _BLOCK and block != bytes(_BLOCK) and bool(_parse_header(block, 0))
    except (OSError, DamagedTar):
        return False


def read_tar(path: Path) -> tuple[list[TarMember], str]:
    """List the files in a tar, compressed or not, in their order; also those of tars that are put one after another.

    A link to another member stands for that member's bytes. Folders and labels are no files and are left out.

    Returns:
        the members, and what is wrong from some offset on: "" for a tar that is sound.
    """
    found: list[tuple[TarMember, str]] = []
    damage = ""
    try:
        with _opened(path) as data:
            found.extend(_walk(data))
    except DamagedTar as error:
        damage = f"{error}; nothing after it was read"
    except OSError as error:
        damage = f"cannot be read: {error.strerror or error}"
    members = {posixpath.normpath(member.name): member for member, target in found if not target}
    return [_resolve(member, target, members) for member, target in found], damage


def read_slice(path: Path, offset: int, size: int) -> bytes:
    """Read bytes of a file; an offset over 0 is one into a tar, and into what a compressed one holds.

    Raises:
        OSError: it cannot be opened or decompressed.
    """
    if offset:
        try:
            with _opened(path) as data:
                return data.read_at(offset, size)
        except DamagedTar as error:
            raise OSError(0, str(error)) from None
    with path.open("rb") as file:
        return os.pread(file.fileno(), size, 0)


@contextmanager
def _opened(path: Path) -> Iterator[_Bytes]:
    with path.open("rb") as file:
        yield _Bytes(path, file.fileno())


class _Bytes:
    """The bytes of an open tar by offset; of a compressed one, those that it holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        head = os.pread(descriptor, 8, 0)
        self._facts = os.fstat(descriptor)
        if head.startswith(_ZSTD):
            raise DamagedTar("compressed as zstd, which is not read; decompress it first")
        self._opener = next((opener for magic, opener in _OPENERS if head.startswith(magic)), None)
        self._size = self._facts.st_size if self._opener is None else None

    def reaches(self, end: int) -> bool:
        """Tell whether there are so many bytes; a compressed tar is read up to there."""
        return bool(self.read_at(end - 1, 1)) if self._size is None else end <= self._size

    def read_at(self, offset: int, size: int) -> bytes:
        if self._opener is None:
            return os.pread(self._descriptor, size, offset)
        if offset + size > MAX_EXPANDED_BYTES:
            raise DamagedTar(f"expands to over the limit of {MAX_EXPANDED_BYTES} bytes")
        with _DECODING:
            stream = _decompressed(self._path, self._opener, self._facts.st_mtime_ns, self._facts.st_size)
            try:
                stream.seek(offset)
                return stream.read(size)
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                _decompressed.cache_clear()  # its place in the file is not known now
                raise DamagedTar(f"damaged or cut compressed data before byte {offset + size}: {error}") from None


@lru_cache(maxsize=4)
def _decompressed(path: Path, opener: Callable[[Path], object], _mtime_ns: int, _size: int) -> BinaryIO:
    """Keep compressed tars open: parts are read in order, and going on costs nothing, going back all of it."""
    return cast(BinaryIO, opener(path))


@dataclass
class _Extended:
    """What extended headers say of the member after them."""

    path: str | None = None
    link: str | None = None
    size: str | None = None
    sparse: bool = False


def _walk(data: _Bytes) -> Iterator[tuple[TarMember, str]]:
    """Yield each file, with the name of the member that it is a link to, or ""."""
    offset = zeros = archive = 0
    ended = False
    extended = _Extended()
    while block := data.read_at(offset, _BLOCK):
        if block == bytes(len(block)):
            ended, zeros = ended or len(block) == _BLOCK, zeros + _BLOCK
            offset += len(block)
            if zeros > _MAX_ZEROS:
                raise DamagedTar(f"over {_MAX_ZEROS} bytes of zeros before byte {offset}")
            continue
        if len(block) < _BLOCK and not ended:
            break
        try:
            header = _parse_header(block, offset)
        except DamagedTar as error:
            if ended:
                raise DamagedTar(f"after the end of the archive, at byte {offset}, follows what is no tar") from None
            raise error
        archive += ended
        ended, zeros = False, 0
        start = offset + _BLOCK
        is_extended = header.type in _EXTENDED
        size = _decimal(f"{header.size}" if is_extended or extended.size is None else extended.size, offset)
        if size and header.type not in _WITHOUT_DATA and not data.reaches(start + size):
            raise DamagedTar(f"the member at byte {offset} claims {size} bytes, beyond the end of the file")
        if is_extended:
            if size > _MAX_EXTENDED_BYTES:
                raise DamagedTar(f"extended header of {size} bytes at byte {offset}")
            _read_extended(extended, header.type, data.read_at(start, size), offset)
        elif header.type == tarfile.GNUTYPE_SPARSE:
            yield TarMember(extended.path or header.name, start, 0, archive, SPARSE), ""
            start = _skip_sparse_map(data, block, start)
        elif header.type in _LINKS:
            name, target = extended.path or header.name, extended.link or header.linkname
            is_symbolic = header.type == tarfile.SYMTYPE
            target = posixpath.join(posixpath.dirname(name), target) if is_symbolic else target
            yield TarMember(name, 0, 0, archive, LINK), posixpath.normpath(target)
        elif header.type in _FILES or header.type in _DEVICES:
            problem = DEVICE if header.type in _DEVICES else SPARSE if extended.sparse else ""
            yield TarMember(extended.path or header.name, start, size, archive, problem), ""
        if not is_extended:
            extended = _Extended()
        offset = start if header.type in _WITHOUT_DATA else start + -(-size // _BLOCK) * _BLOCK
    if not ended:
        raise DamagedTar(f"cut short at byte {offset}: no end-of-archive block")


def _parse_header(block: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError) as error:
        raise DamagedTar(f"bad tar header at byte {offset}: {error}") from None


def _skip_sparse_map(data: _Bytes, block: bytes, start: int) -> int:
    """Return where the data of an old GNU sparse member begin: after the blocks that say where its holes are."""
    more = block[482]
    while more:
        block = data.read_at(start, _BLOCK)
        more = len(block) == _BLOCK and block[504]
        start += _BLOCK
    return start


def _resolve(member: TarMember, target: str, members: dict[str, TarMember]) -> TarMember:
    """Give a link the bytes of the member that it names."""
    found = members.get(target) if target else None
    return member if found is None else replace(found, name=member.name, archive=member.archive)


def _read_extended(extended: _Extended, kind: bytes, data: bytes, offset: int) -> None:
    """Read a GNU long name or link, or path, linkpath, size and sparseness from a pax header."""
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        text = data.partition(b"\0")[0].decode("utf-8", "replace")
        if kind == tarfile.GNUTYPE_LONGNAME:
            extended.path = text
        else:
            extended.link = text
        return
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        length = _decimal(digits[:8].decode("ascii", "replace"), offset)
        if not len(digits) < length <= len(data):
            raise DamagedTar(f"bad pax header at byte {offset}")
        name, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        text = value.decode("utf-8", "replace")
        if name == b"path" and not extended.sparse:
            extended.path = text
        elif name == b"linkpath":
            extended.link = text
        elif name == b"size":
            extended.size = text
        elif name.startswith(b"GNU.sparse."):
            extended.sparse = True
            if name == b"GNU.sparse.name":
                extended.path = text
        data = data[length:]


def _decimal(text: str, offset: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise DamagedTar(f"bad size {text[:20]!r} in the header at byte {offset}")
    return int(text)
