"""Sources at an fsspec URL: their files are copied to a local folder first, each once, and are read there."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.place import commit, temporary_name


def mirror(url: str, folder: Path, suffixes: tuple[str, ...]) -> int:
    """Copy the files below a URL to a folder; what is there with the right size is kept. Returns how many were copied.

    A file is written under another name and renamed when its size is right, so that a kill leaves no half file. What
    fails is asked for again, as `mixing.storage.objects.ask` does.

    Args:
        suffixes: of the files that are wanted, lower case.

    Raises:
        InputError: nothing there, no such protocol, or a server that refuses or fails too often.
    """
    copied = 0
    wanted = {below: size for below, size in _sizes(url).items() if below.lower().endswith(suffixes)}
    if not wanted:
        raise InputError(f"{url}: no files there that end in {', '.join(suffixes)}")
    for below, size in sorted(wanted.items()):
        relative = PurePosixPath(below or PurePosixPath(url).name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{url}: holds a file named {relative}, which would leave {folder}")
        target = folder / relative
        if not (target.is_file() and target.stat().st_size == size):
            _copy("/".join(part for part in (url.rstrip("/"), below) if part), target, size)
            copied += 1
    return copied


def _sizes(url: str) -> dict[str, int]:
    """Return the size of every file at a URL by its path below it, "" for the URL itself."""

    def look(system: Any, root: str) -> dict[str, int]:
        found = system.find(root, detail=True)
        return {str(path).removeprefix(root).lstrip("/"): int(facts["size"]) for path, facts in found.items()}

    return objects.ask(url, look, "listed")


def _copy(url: str, target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)

    def get(system: Any, path: str) -> None:
        system.get_file(path, str(temporary))
        found = temporary.stat().st_size
        if found != size:
            raise OSError(f"{found} of {size} bytes came")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())

    try:
        objects.ask(url, get, "copied")
        commit(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
