"""Where files are: folders of this machine and fsspec URLs alike; read, listed, written whole, hashed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import files, objects
from cavendish.mixing.storage.files import Place, digest, is_alive, writing
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
    return text.rstrip("/") if is_url(text) else expand_user(Path(text))


def expand_user(path: Path) -> Path:
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


def size_of(place: Place) -> int:
    """Return the size of a file in bytes.

    Raises:
        InputError: it is not there, or its server does not say.
    """
    return objects.size(str(place)) if is_url(place) else _local(place, lambda: Path(place).stat().st_size)


def file_sha256(path: Place) -> str:
    """Return the sha256 of a file of any size, in hex.

    Raises:
        InputError: it is not there or cannot be read.
    """
    return objects.sha256(str(path)) if is_url(path) else _local(path, lambda: files.sha256(Path(path)))


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


def read_json(path: Place, what: str) -> Any:
    """Read a json file.

    Raises:
        InputError: the file is not there or not json; the message names `what` it should have been.
    """
    if is_url(path):
        try:
            return objects.read_json(str(path))
        except objects.MissingFile as error:
            raise objects.MissingFile(f"{error} ({what})") from None
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({what})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid json ({what}): {error}") from None


def _local(place: Place, ask: Callable[[], Value]) -> Value:
    try:
        return ask()
    except FileNotFoundError:
        raise InputError(f"{place}: not there") from None
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {type(error).__name__} {' '.join(str(error).split())}") from None


def write_atomic(path: Place, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new one, whatever happens.

    A temporary name in the same folder, fsync, rename, fsync of the folder; at a URL one put, checked.
    """
    if is_url(path):
        objects.write(str(path), data)
        return
    temporary = temporary_name(path)
    with writing(temporary, path), temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    commit(temporary, path)


def temporary_name(path: Place) -> Path:
    """Name the file that a process writes before it becomes `path`; what becomes a URL is made on a local disk."""
    if is_url(path):
        folder, _, name = str(path).rpartition("/")
        thread = threading.get_native_id()  # several may write at a time; it is found alive as a process is
        return Path(tempfile.gettempdir()) / f"cavendish-{digest(folder)[:16]}-{name}.tmp-{thread}"
    # containers that share a folder have equal process ids: the machine's name tells them apart
    return Path(path).with_name(f"{Path(path).name}.tmp-{platform.node()}-{os.getpid()}")


def commit(temporary: Path, path: Place) -> None:
    """Give a finished, fsynced temporary file its final name, durably; for a URL, upload and delete it."""
    if is_url(path):
        try:
            objects.upload(temporary, str(path))
        finally:
            temporary.unlink(missing_ok=True)
        return
    temporary.replace(path)
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def collect_leftovers(folder: str) -> None:
    """Delete what killed processes left on the way to the files of a URL: files of this machine, and uploads in parts.

    What may be of a process that still works is left alone: files of one that is alive, uploads younger than a day.
    """
    for path in Path(tempfile.gettempdir()).glob(f"cavendish-{digest(folder)[:16]}-*.tmp-*"):
        if not is_alive(int(path.name.rpartition("-")[2])):
            path.unlink(missing_ok=True)
    # Only tidying: a server that cannot, or an account that may not, list uploads is no reason not to work.
    with contextlib.suppress(objects.Unreachable):
        objects.end_uploads(folder, older_than_s=24 * 3600.0)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Give a file of this machine: itself, or for as long as the context lasts a copy.

    Raises:
        MissingFile, Unreachable: it cannot be fetched.
    """
    if not is_url(place):
        yield Path(place)
        return
    temporary = temporary_name(place)
    try:
        objects.download(str(place), temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
