"""Files of this machine that are complete or not there, read, listed and hashed; canonical json and its digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError

Place = Path | str
"""A path of this machine, or a URL as text."""

LEFT_AFTER_S = 3600.0
"""A temporary file of another machine is taken to be left behind when nobody wrote to it for so long."""


class MissingFile(InputError):
    """A file is not there."""


def canonical_json(value: Any) -> bytes:
    """Serialise to the one json text this value has (sorted keys, no spaces, no NaN), as UTF-8.

    Raises:
        ValueError: NaN or infinity somewhere in `value`: not JSON-serialisable.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 of the canonical json of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@contextlib.contextmanager
def reading(path: Place) -> Iterator[None]:
    """Turn an error of the system into an InputError that names the path."""
    try:
        yield
    except FileNotFoundError:
        raise MissingFile(f"{path}: not there") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {type(error).__name__} {' '.join(str(error).split())}") from None


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex; an error of the system is raised as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sizes(folder: Place) -> dict[str, int]:
    """Return the size in bytes of everything in a folder, by name; empty where there is no folder."""
    found = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, or a link to nothing
                found[entry.name] = entry.stat().st_size
    return found


def tree(folder: Path) -> list[str]:
    """List every file below a folder by its path in it, sorted; a linked folder is followed once, so no cycle is."""
    found, seen, tops = list[Path](), set[str](), [folder]
    while tops:
        for place, folders, files in os.walk(tops.pop(0)):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            tops += sorted(path for name in folders if (path := Path(place, name)).is_symlink())
            found += (path for name in files if (path := Path(place, name)).is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def temporary_name(path: Path) -> Path:
    """Name the file that this process writes before it becomes `path`."""
    # containers that share a folder have equal process ids: the machine's name tells them apart
    return path.with_name(f"{path.name}.tmp-{platform.node()}-{os.getpid()}")


def rename(temporary: Path, path: Path) -> None:
    """Give a finished, fsynced temporary file its final name, durably."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def writing(temporary: Path, path: Place) -> Iterator[None]:
    """Delete the temporary file of `path` when writing it fails, and name `path` in an error of the system."""
    try:
        with naming(path, temporary):
            yield
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def naming(path: Place, temporary: Path | None = None) -> Iterator[None]:
    """Name `path` in an error of the system that names its temporary file, or nothing, as a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or error.filename == str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def collect_leftovers(folder: Path, stems: Collection[str] = ()) -> None:
    """Delete the temporary files in a folder that killed processes of this machine left on the way to its files.

    Args:
        stems: names up to the first dot: of these files, those that killed processes of other machines left too.
    """
    for path in folder.glob("*.tmp-*"):
        if (path.name.partition(".")[0] in stems or f".tmp-{platform.node()}-" in path.name) and is_left(path):
            path.unlink(missing_ok=True)


def is_left(temporary: Path) -> bool:
    """Tell whether the writer of a temporary file has gone; of another machine's, its age has to tell."""
    written_at, _, process = temporary.name.rpartition(".tmp-")[2].rpartition("-")
    if written_at == platform.node() and process.isdigit():
        return not is_alive(int(process))
    try:
        return time.time() - temporary.stat().st_mtime > LEFT_AFTER_S
    except FileNotFoundError:
        return True


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine runs, by its number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
