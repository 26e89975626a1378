"""Files that are whole or not there, on this machine or at a URL: atomic writes, canonical json, digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.objects import is_url

Place = Path | str
"""A path of this machine, or a URL as text."""

LEFT_AFTER_S = 3600.0
"""A temporary file of another machine is taken to be left behind when nobody wrote to it for so long."""


def canonical_json(value: Any) -> bytes:
    """Serialise to the one json text this value has (sorted keys, no spaces, no NaN), as UTF-8.

    Raises:
        ValueError: NaN or infinity somewhere in `value`; json has no word for them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 of the canonical json of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Place) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    if is_url(path):
        return objects.sha256(str(path))
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def collect_dead(folder: Path) -> None:
    """Delete temporary files in a folder that killed processes of this machine left on the way to its files."""
    for path in folder.glob(f"*.tmp-{platform.node()}-*"):
        if is_left(path):
            path.unlink(missing_ok=True)


def is_left(temporary: Path) -> bool:
    """Tell whether whoever wrote a temporary file has gone; of another machine's, its age has to tell."""
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
