"""Folders of this machine and fsspec URLs alike: what locking a mixture needs of either."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from encoders.sample import InputError
from mixing.remote import is_url
from mixing.storage import file_sha256

Place = Path | str
"""A path of this machine, or a URL as text."""

Value = TypeVar("Value")


def join(base: Place, path: Place) -> Place:
    """Return `path` below `base`; a URL stands for itself."""
    if is_url(path):
        return str(path)
    return f"{str(base).rstrip('/')}/{Path(path).as_posix()}" if is_url(base) else Path(base) / path


def read_bytes(place: Place) -> bytes:
    """Read a small file.

    Raises:
        InputError: it is not there or cannot be read.
    """
    return _ask(place, lambda: Path(place).read_bytes(), lambda system, path: bytes(system.cat_file(path)))


def size_of(place: Place) -> int:
    """Return the size of a file in bytes.

    Raises:
        InputError: it is not there, or its server does not say.
    """
    return _ask(place, lambda: Path(place).stat().st_size, lambda system, path: int(system.size(path)))


def sha256_of(place: Place) -> str:
    """Return the sha256 of a file of any size, in hex.

    Raises:
        InputError: it is not there or cannot be read.
    """

    def remote(system: Any, path: str) -> str:
        digest = hashlib.sha256()
        with system.open(path, "rb", cache_type="none") as file:
            while block := file.read(8 << 20):
                digest.update(block)
        return digest.hexdigest()

    return _ask(place, lambda: file_sha256(Path(place)), remote)


def list_names(place: Place) -> list[str]:
    """List the names in a folder, sorted.

    Raises:
        InputError: it is not there or cannot be listed.
    """
    return sorted(
        _ask(
            place,
            lambda: [path.name for path in Path(place).iterdir()],
            lambda system, path: [str(entry).rstrip("/").rpartition("/")[2] for entry in system.ls(path, detail=False)],
        )
    )


def _ask(place: Place, local: Callable[[], Value], remote: Callable[[Any, str], Value]) -> Value:
    try:
        return remote(*fsspec.core.url_to_fs(str(place))) if is_url(place) else local()
    except FileNotFoundError:
        raise InputError(f"{place}: not there") from None
    except ImportError as error:
        raise InputError(f"{place}: {error}; pip install cavendish[remote]") from None
    except Exception as error:  # every kind of server has its own errors
        raise InputError(f"{place}: cannot be read: {type(error).__name__} {' '.join(str(error).split())}") from None
