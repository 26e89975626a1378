"""Folders of this machine and fsspec URLs alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.files import Place, file_sha256
from cavendish.mixing.storage.objects import is_url

__all__ = ["Place", "is_url"]

Value = TypeVar("Value")

_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def parse_place(text: Place) -> Place:
    """Read a place out of text: a path, or a URL that fsspec knows; `file://` is a path of this machine."""
    if isinstance(text, Path):
        return text
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return text.rstrip("/") if is_url(text) else at_home(Path(text))


def at_home(path: Path) -> Path:
    """Read a leading `~/` as the shell does, which leaves it as it is in `--out=~/data`."""
    return path.expanduser() if path.parts[:1] == ("~",) else path


def url_within(path: object) -> str | None:
    """Return the URL that was given where a path was to be: a path has one slash where its URL had two."""
    found = _URL_AS_PATH.match(str(path))  # a letter alone would be a drive
    return None if found is None else f"{found[1]}://{str(path)[found.end() :]}"


def join(base: Place, path: Place) -> Place:
    """Return `path` below `base`; a URL stands for itself."""
    if is_url(path):
        return str(path)
    if not is_url(base):
        return Path(base) / path
    below = Path(path).as_posix()
    return str(base).rstrip("/") if below == "." else f"{str(base).rstrip('/')}/{below}"


def name_of(place: Place) -> str:
    """Return the last part of a place's name."""
    return str(place).rstrip("/").rpartition("/")[2] if is_url(place) else Path(place).name


def parent_of(place: Place) -> Place:
    """Return the folder that a place is in."""
    return str(place).rstrip("/").rpartition("/")[0] if is_url(place) else Path(place).parent


def with_suffix(place: Place, suffix: str) -> Place:
    """Return the place with its last suffix replaced."""
    if is_url(place):
        folder, slash, name = str(place).rpartition("/")
        return f"{folder}{slash}{Path(name).with_suffix(suffix)}"
    return Path(place).with_suffix(suffix)


def make_folder(place: Place) -> None:
    """Make a folder and those above it; at a URL there is nothing to make."""
    if not is_url(place):
        Path(place).mkdir(parents=True, exist_ok=True)


def exists(place: Place) -> bool:
    """Tell whether a file is there."""
    return objects.exists(str(place)) if is_url(place) else Path(place).exists()


def is_file(place: Place) -> bool:
    """Tell whether a file, rather than a folder or nothing, is there."""
    return objects.is_file(str(place)) if is_url(place) else Path(place).is_file()


def files_below(folder: Place) -> list[str]:
    """List every file below a folder by its path in it, sorted; none where there is no folder."""
    if is_url(folder):
        return objects.tree(str(folder))
    paths = Path(folder).rglob("*")
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def read_bytes(place: Place) -> bytes:
    """Read a small file.

    Raises:
        InputError: it is not there or cannot be read.
    """
    return objects.read(str(place)) if is_url(place) else _local(place, lambda: Path(place).read_bytes())


def read_all(places: Sequence[Place]) -> Iterator[bytes]:
    """Yield the bytes of small json files, in order; of those at URLs of one server many are asked for at a time.

    Raises:
        InputError: one is not there or cannot be read.
    """
    if not places or not is_url(places[0]):
        yield from (read_bytes(place) for place in places)
        return
    for url, data in objects.read_many([str(place) for place in places]):
        # What did not come, or was cut short (a json map ends in a brace), is asked for again, alone.
        yield data if data is not None and data.endswith(b"}") else objects.read(url)


def size_of(place: Place) -> int:
    """Return the size of a file in bytes.

    Raises:
        InputError: it is not there, or its server does not say.
    """
    return objects.size(str(place)) if is_url(place) else _local(place, lambda: Path(place).stat().st_size)


def sha256_of(place: Place) -> str:
    """Return the sha256 of a file of any size, in hex.

    Raises:
        InputError: it is not there or cannot be read.
    """
    return _local(place, lambda: file_sha256(place))


def list_names(place: Place) -> list[str]:
    """List the names in a folder, sorted.

    Raises:
        InputError: it is not there or cannot be listed.
    """
    if not is_url(place):
        return _local(place, lambda: sorted(path.name for path in Path(place).iterdir()))
    found = objects.names(str(place))
    if not found:
        raise InputError(f"{place}: not there")
    return found


def _local(place: Place, ask: Callable[[], Value]) -> Value:
    try:
        return ask()
    except FileNotFoundError:
        raise InputError(f"{place}: not there") from None
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {type(error).__name__} {' '.join(str(error).split())}") from None
