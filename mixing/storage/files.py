"""Files of this machine that are whole or not there: canonical json, digests, temporary files of killed processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
