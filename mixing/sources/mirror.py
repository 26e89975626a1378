"""Sources at an fsspec URL: their files are copied to a local folder first, each once, and are read there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.records import IMAGE_ENDINGS, ending_of
from cavendish.mixing.sources.tars import tar_stem
from cavendish.mixing.storage import objects

_ENDINGS = tuple(f".{ending}" for ending in (*IMAGE_ENDINGS, "jfif", "jpe", "heic", "txt", "json", "arrow"))


def mirror(url: str, folder: Path) -> dict[str, int]:
    """Copy the images, sidecars, tars and tables below a URL to a folder; what is there with the right size stays.

    A file is written under another name and renamed when its size is right, so that a kill leaves no half file. What
    fails is asked for again, as `mixing.storage.objects.ask` does.

    Returns:
        what was not copied, counted by reason.

    Raises:
        InputError: nothing there, no such protocol, or a server that refuses or fails too often.
    """
    left: Counter[str] = Counter()
    wanted: dict[str, int] = {}
    for below, size in sorted(_sizes(url).items()):
        name = (below or url).rpartition("/")[2]
        if name.lower().endswith(_ENDINGS) or tar_stem(name) is not None:
            wanted[below] = size
        else:
            left[f"{ending_of(name)}: not copied from its URL"] += 1
    if not wanted:
        raise InputError(f"{url}: no files there that end in {', '.join(_ENDINGS)} or .tar")
    for below, size in wanted.items():
        relative = PurePosixPath(below or PurePosixPath(url).name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{url}: holds a file named {relative}, which would leave {folder}")
        target = folder / relative
        if not (target.is_file() and target.stat().st_size == size):
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.download("/".join(part for part in (url.rstrip("/"), below) if part), target, size)
    return dict(left)


def _sizes(url: str) -> dict[str, int]:
    """Return the size of every file at a URL by its path below it, "" for the URL itself."""

    def look(system: Any, root: str) -> dict[str, int]:
        found = system.find(root, detail=True)
        return {str(path).removeprefix(root).lstrip("/"): int(facts["size"]) for path, facts in found.items()}

    return objects.ask(url, look, "listed")
