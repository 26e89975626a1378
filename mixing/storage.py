"""Files that are whole or not there: atomic writes, canonical json, digests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from encoders.sample import InputError


def canonical_json(value: Any) -> bytes:
    """Serialise to the one json text this value has (sorted keys, no spaces, no NaN), as UTF-8.

    Raises:
        ValueError: NaN or infinity somewhere in `value`; json has no word for them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 of the canonical json of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new one, whatever happens.

    A temporary name in the same folder, fsync, rename, fsync of the folder.
    """
    temporary = temporary_name(path)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    commit(temporary, path)


def temporary_name(path: Path) -> Path:
    """Name the file that a process writes before it becomes `path`."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}")


def commit(temporary: Path, path: Path) -> None:
    """Rename a finished, fsynced temporary file to its final name, durably."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: Path, what: str) -> Any:
    """Read a json file.

    Raises:
        InputError: the file is not there or not json; the message names `what` it should have been.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({what})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid json ({what}): {error}") from None
