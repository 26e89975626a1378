"""Reads the headers of a tar without trusting it: nothing is extracted, no header makes us read much or loop."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENDED_BYTES = 8192
_EXTENDED_NAME = {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME}


class DamagedTar(ValueError):
    """The tar cannot be read from some offset on; what came before it is good."""


@dataclass(frozen=True)
class TarMember:
    """A regular file inside a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def list_members(file: BinaryIO) -> Iterator[TarMember]:
    """Yield the regular files of an uncompressed tar, in order; links, devices and folders are passed over.

    Reads headers only. Our own loop rather than `tarfile`, which reads extended headers of any size into memory and
    can be sent backwards by a negative size (CVE-2025-8194).

    Raises:
        DamagedTar: not a tar, cut short, or a header that is not credible, naming the offset.
    """
    end = os.fstat(file.fileno()).st_size
    offset = 0
    extended: dict[str, str] = {}
    while offset + _BLOCK <= end:
        block = os.pread(file.fileno(), _BLOCK, offset)
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except (tarfile.HeaderError, ValueError) as error:
            raise DamagedTar(f"bad tar header at byte {offset}: {error}") from None
        start = offset + _BLOCK
        is_extended = header.type in _EXTENDED_NAME
        size = _decimal(f"{header.size}" if is_extended else extended.get("size", f"{header.size}"), offset)
        if size < 0 or start + size > end:
            raise DamagedTar(f"the member at byte {offset} claims {size} bytes, beyond the end of the file")
        if is_extended:
            if size > _MAX_EXTENDED_BYTES:
                raise DamagedTar(f"extended header of {size} bytes at byte {offset}")
            extended |= _parse_extended(header.type, os.pread(file.fileno(), size, start), offset)
        else:
            if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                yield TarMember(extended.get("path", header.name), start, size)
            extended = {}
        offset = start + -(-size // _BLOCK) * _BLOCK
    raise DamagedTar(f"cut short at byte {min(offset, end)}: no end-of-archive block")


def _parse_extended(kind: bytes, data: bytes, offset: int) -> dict[str, str]:
    """Read `path` and `size` from a pax header, or the path from a GNU long name."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "replace")}
    found = {}
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        length = _decimal(digits[:8].decode("ascii", "replace"), offset)
        if not len(digits) < length <= len(data):
            raise DamagedTar(f"bad pax header at byte {offset}")
        name, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if name in (b"path", b"size"):
            found[name.decode()] = value.decode("utf-8", "replace")
        data = data[length:]
    return found


def _decimal(text: str, offset: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise DamagedTar(f"bad size {text[:20]!r} in the header at byte {offset}")
    return int(text)
