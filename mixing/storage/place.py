"""Where files are: folders of this machine and fsspec URLs alike. Read, list, write atomically, hash."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import files, objects
from cavendish.mixing.storage.files import MissingFile, Place, writing

__all__ = ["Place", "is_url"]

_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def is_url(place: object) -> bool:
    """Tell whether a place is an fsspec URL rather than a path of this machine."""
    return "://" in str(place)


def url_of(place: Place) -> str | None:
    """Return the URL that a place is, or None for a path of this machine."""
    return str(place) if is_url(place) else None


def parse_place(text: Place) -> Place:
    """Read a place out of text: a path, or a URL that fsspec knows; `file://` is a path of this machine."""
    url = url_of(text)
    if url is not None and not url.startswith("file://"):
        return url.rstrip("/")
    return expand_user(Path(str(text).removeprefix("file://")))


def expand_user(path: Path) -> Path:
    """Read a leading `~/` as the shell does, which leaves it as it is in `--out=~/data`."""
    return path.expanduser() if path.parts[:1] == ("~",) else path


def url_within(path: object) -> str | None:
    """Return the URL that was given where a path was to be: a path has one slash where its URL had two."""
    found = _URL_AS_PATH.match(str(path))  # a letter alone would be a drive
    return None if found is None else f"{found[1]}://{str(path)[found.end() :]}"


def join(base: Place, path: Place) -> Place:
    """Return `path` below `base`; a URL stands for itself."""
    url = url_of(path)
    if url is not None:
        return url
    if isinstance(base, Path):
        return base / path
    return posixpath.join(base, Path(path).as_posix()).removesuffix("/.")


def split_server(place: Place) -> tuple[str, str]:
    """Split a place into its server, such as `s3://bucket`, and its path there; the server of a path is ""."""
    scheme, mark, rest = str(place).rpartition("://")
    server, _, path = rest.partition("/") if mark else ("", "", rest)
    return f"{scheme}{mark}{server}", path


def name_of(place: Place) -> str:
    """Return the last part of a place's name."""
    return PurePosixPath(place).name


def parent_of(place: Place) -> Place:
    """Return the folder that a place is in."""
    return place.parent if isinstance(place, Path) else posixpath.dirname(place.rstrip("/"))


def with_suffix(place: Place, suffix: str) -> Place:
    """Return the place with its last suffix replaced."""
    return join(parent_of(place), PurePosixPath(place).with_suffix(suffix).name)


def make_folder(place: Place) -> None:
    """Make a folder and those above it; at a URL there is nothing to make."""
    if url_of(place) is None:
        Path(place).mkdir(parents=True, exist_ok=True)


def exists(place: Place) -> bool:
    """Tell whether a file is there."""
    url = url_of(place)
    try:
        return Path(place).exists() if url is None else objects.size(url) >= 0
    except MissingFile:
        return False


def is_file(place: Place) -> bool:
    """Tell whether a file, rather than a folder or nothing, is there."""
    url = url_of(place)
    return Path(place).is_file() if url is None else objects.is_file(url)


def list_sizes(folder: Place) -> dict[str, int]:
    """Return the size in bytes of everything in a folder, by name, sorted; empty where there is no folder."""
    url = url_of(folder)
    return dict(sorted((files.sizes(folder) if url is None else objects.sizes(url)).items()))


def files_below(folder: Place) -> list[str]:
    """List every file below a folder by its path in it, sorted; none where there is no folder.

    Links are followed: a linked folder once, so that no cycle is.
    """
    url = url_of(folder)
    return files.tree(Path(folder)) if url is None else objects.tree(url)


def size_of(place: Place) -> int:
    """Return the size of a file in bytes; an InputError where it is not there."""
    url = url_of(place)
    with files.reading(place):
        return Path(place).stat().st_size if url is None else objects.size(url)


def file_sha256(place: Place) -> str:
    """Return the sha256 of a file of any size, in hex; an InputError where it is not there."""
    url = url_of(place)
    with files.reading(place):
        return files.sha256(Path(place)) if url is None else objects.sha256(url)


def read_bytes(place: Place) -> bytes:
    """Read a small file; an InputError where it is not there."""
    url = url_of(place)
    with files.reading(place):
        return Path(place).read_bytes() if url is None else objects.read(url)


def read_all(places: Sequence[Place]) -> Iterator[bytes]:
    """Yield the bytes of small json files of one folder, in order; of those at a URL many are read at a time."""
    urls = [url for place in places if (url := url_of(place)) is not None]
    return objects.read_many(urls) if urls else map(read_bytes, places)


def read_json(place: Place, what: str) -> Any:
    """Read a json file.

    Raises:
        InputError: the file is not there or not json; the message names `what` it should have been.
    """
    url = url_of(place)
    try:
        return json.loads(Path(place).read_bytes()) if url is None else objects.read_json(url)
    except FileNotFoundError:
        raise MissingFile(f"{place}: no such file ({what})") from None
    except MissingFile as error:
        raise MissingFile(f"{error} ({what})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: not valid json ({what}): {error}") from None


def write_atomic(place: Place, data: bytes) -> None:
    """Write a small file so that it holds either its old content or all of `data`, whatever happens.

    A temporary name in the same folder, fsync, rename, fsync of the folder; at a URL one put, checked.
    """
    url = url_of(place)
    if url is not None:
        objects.write(url, data)
        return
    temporary = temporary_name(place)
    with writing(temporary, place), temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    commit(temporary, place)


def temporary_name(place: Place) -> Path:
    """Name the file of this machine that a process writes before it becomes `place`."""
    url = url_of(place)
    return files.temporary_name(Path(place)) if url is None else objects.temporary_name(url)


def commit(temporary: Path, place: Place) -> None:
    """Give a finished, fsynced temporary file its final name, durably; for a URL, upload and delete it."""
    url = url_of(place)
    if url is None:
        files.rename(temporary, Path(place))
        return
    try:
        objects.upload(temporary, url)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Give a file of this machine: itself, or for as long as the context lasts a copy."""
    url = url_of(place)
    if url is None:
        yield Path(place)
        return
    temporary = temporary_name(place)
    try:
        objects.download(url, temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def collect_leftovers(folder: Place, stems: Collection[str] = ()) -> None:
    """Delete what killed processes left on the way to the files of a folder: temporary files, and unfinished uploads.

    Args:
        stems: names up to the first dot: of these files, those of processes of other machines too.
    """
    url = url_of(folder)
    if url is None:
        files.collect_leftovers(Path(folder), stems)
    else:
        objects.collect_leftovers(url)
