"""Sources at an fsspec URL: their files are copied to a local folder first, each once, and are read there."""

from __future__ import annotations

import os
import time
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from encoders.sample import InputError
from mixing.storage import commit, temporary_name

_ATTEMPTS = 5


def mirror(url: str, folder: Path, suffixes: tuple[str, ...]) -> int:
    """Copy the files below a URL to a folder; what is there with the right size is kept. Returns how many were copied.

    A file is written under another name and renamed when its size is right, so that a kill leaves no half file.

    Args:
        suffixes: of the files that are wanted, lower case.

    Raises:
        InputError: nothing there, no such protocol, or a file that cannot be copied after five attempts.
    """
    try:
        system, root = fsspec.core.url_to_fs(url)
        found: dict[str, Any] = system.find(root, detail=True)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{url}: cannot be listed: {' '.join(str(error).split())[:200]}") from None
    copied = 0
    wanted = {path: facts for path, facts in sorted(found.items()) if path.lower().endswith(suffixes)}
    if not wanted:
        raise InputError(f"{url}: no files there that end in {', '.join(suffixes)}")
    for path, facts in wanted.items():
        relative = PurePosixPath(path.removeprefix(root).lstrip("/") or PurePosixPath(path).name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{url}: holds a file named {relative}, which would leave {folder}")
        target = folder / relative
        if not (target.is_file() and target.stat().st_size == facts["size"]):
            _copy(system, path, target, int(facts["size"]))
            copied += 1
    return copied


def _copy(system: Any, path: str, target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        try:
            system.get_file(path, str(temporary))
        except OSError as error:
            problem = " ".join(str(error).split())[:200]
            continue
        found = temporary.stat().st_size
        if found == size:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            commit(temporary, target)
            return
        problem = f"{found} of {size} bytes came"
    temporary.unlink(missing_ok=True)
    raise InputError(f"{path}: cannot be copied after {_ATTEMPTS} attempts: {problem}")
