"""Sources at an fsspec URL: their files are copied to a local folder first, each once, and are read there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.decode import image_kind
from cavendish.mixing.sources.records import IMAGE_ENDINGS
from cavendish.mixing.sources.tars import is_tar_block, tar_stem
from cavendish.mixing.storage import objects

_ENDINGS = tuple(f".{ending}" for ending in (*IMAGE_ENDINGS, "txt", "json", "arrow"))
_HEAD_BYTES = 512


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
        place = "/".join(part for part in (url.rstrip("/"), below) if part)
        if _is_wanted(place):
            wanted[below] = size
        else:
            left[f"{PurePosixPath(place).suffix.lower() or 'no ending'}: not copied from its URL"] += 1
    if not wanted:
        raise InputError(f"{url}: no files there that end in {', '.join(_ENDINGS)} or .tar, and none that begins so")
    for below, size in wanted.items():
        relative = PurePosixPath(below or PurePosixPath(url).name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{url}: holds a file named {relative}, which would leave {folder}")
        target = folder / relative
        if not (target.is_file() and target.stat().st_size == size):
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.download("/".join(part for part in (url.rstrip("/"), below) if part), target, size)
    return dict(left)


def _is_wanted(url: str) -> bool:
    """Tell by its ending, or else by its first bytes, whether a file at a URL may be of a source."""
    name = PurePosixPath(url).name
    if name.startswith("."):
        return False
    if name.lower().endswith(_ENDINGS) or tar_stem(name) is not None:
        return True
    head = objects.ask(url, lambda system, path: system.cat_file(path, start=0, end=_HEAD_BYTES), "read")
    return bool(image_kind(head)) or is_tar_block(head)


def _sizes(url: str) -> dict[str, int]:
    """Return the size of every file at a URL by its path below it, "" for the URL itself."""

    def look(system: Any, root: str) -> dict[str, int]:
        found = system.find(root, detail=True)
        return {str(path).removeprefix(root).lstrip("/"): int(facts["size"]) for path, facts in found.items()}

    return objects.ask(url, look, "listed")
