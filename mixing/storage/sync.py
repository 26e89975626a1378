"""A folder of this machine that is also at a URL: what a verb writes there is published, and found on any machine.

Verbs that write many files of their own (train, evaluate, audit) work in a folder. For a URL it is a temporary one,
which starts with what the URL has; `publish` sends what is new or changed, in the order in which it was written, so
that whatever moment a run is killed at, the URL has no file without those it builds on.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.files import digest, is_alive
from cavendish.mixing.storage.place import Place, collect_leftovers, join, url_of

if TYPE_CHECKING:
    from cavendish.mixing.jobs.runners import Progress

Chosen = Callable[[list[str]], list[str]]
"""Of the names at a URL, those that are needed."""


class Published:
    """A working folder and where it is published; see `published`.

    Args:
        folder: of this machine.
        url: where its files go; None when it is where it is to be.
        last: names of files that say that others are complete.
        superseded: of all names at the URL, those that newer files have made useless.
    """

    def __init__(
        self, folder: Path, url: str | None, last: tuple[str, ...] = (), superseded: Chosen = lambda names: []
    ) -> None:
        self.folder, self._url, self._last, self._superseded = folder, url, last, superseded
        self._known: dict[str, tuple[int, int]] = {}
        self._there: set[str] = set()

    def place_of(self, file: Path) -> Place:
        """Say where a file of the folder is published."""
        inside = self._url is not None and file.is_relative_to(self.folder)
        return f"{self._url}/{file.relative_to(self.folder).as_posix()}" if inside else file

    def fetch(self, chosen: Chosen) -> None:
        """Bring what the URL has into the folder."""
        if self._url is None:
            return
        names = objects.tree(self._url)
        self._there = set(names)
        for name in chosen(names):
            self._known[name] = _fetch(f"{self._url}/{name}", self.folder, name)

    def publish(self) -> None:
        """Send what is new or changed, in the order in which it was written; then delete what is gone from here."""
        if self._url is None:
            return
        found = {name: _state(self.folder / name) for name in _files(self.folder)}
        changed = [name for name, state in found.items() if self._known.get(name) != state]
        for name in sorted(changed, key=lambda name: (Path(name).name in self._last, found[name][0], name)):
            objects.upload(self.folder / name, f"{self._url}/{name}")
            self._known[name] = found[name]
            self._there.add(name)
        gone = {name for name in self._known if name not in found} | set(self._superseded(sorted(self._there)))
        for name in sorted(gone & self._there):
            objects.delete(f"{self._url}/{name}")
            self._there.discard(name)
            self._known.pop(name, None)


def now_and_then(work: Published, progress: Progress, every_s: float = 60.0) -> Progress:
    """Return a progress function that also publishes, at most so often."""
    last = time.monotonic()

    def told(done: int, planned: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            work.publish()
            last = time.monotonic()
        progress(done, planned)

    return told


def _fetch(url: str, folder: Path, name: str) -> tuple[int, int]:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise objects.Refused(f"{url}: leads out of its folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    objects.download(url, file)
    return _state(file)


def _files(folder: Path) -> list[str]:
    """List the finished files of a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if ".tmp-" not in name and not re.search(r"\.tmp(/|$)", name)]


def _state(file: Path) -> tuple[int, int]:
    facts = file.stat()
    return facts.st_mtime_ns, facts.st_size


@contextmanager
def published(
    place: Place, last: tuple[str, ...] = (), chosen: Chosen = list, superseded: Chosen = lambda names: []
) -> Iterator[Published]:
    """Give a working folder for `place`; at the end of the context, whatever ended it, it is published.

    A folder of this machine is itself. For a URL it is a temporary folder that has what was there, and is deleted at
    the end; one that a killed process left is deleted by the next.

    Args:
        last: names of files that say that others are complete: published after those.
        chosen: which of the files at the URL are needed to go on.
        superseded: which of them newer ones have made useless: deleted after each publishing.

    Raises:
        InputError: there are several processes, each with a temporary folder of its own.
        Refused, Unreachable: the URL cannot be read or written.
    """
    url = url_of(place)
    if url is None:
        yield Published(Path(place), None)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"--out {url}: several processes need a folder that all see; copy it there when they are done")
    collect_leftovers(url)
    with _temporary_folder(url, "folder") as folder:
        work = Published(folder, url, last, superseded)
        work.fetch(chosen)
        try:
            yield work
        finally:
            work.publish()


@contextmanager
def _temporary_folder(url: str, what: str) -> Iterator[Path]:
    """Give a folder for what belongs at a URL; it is deleted at the end, as are those that killed processes left."""
    root, prefix = Path(tempfile.gettempdir()), f"cavendish-{digest(url)[:16]}."
    for path in root.glob(f"{prefix}*"):
        if not is_alive(int(path.name.rpartition("-")[2])):
            shutil.rmtree(path, ignore_errors=True)
    folder = root / f"{prefix}{what}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier process of the same number
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fetched(data: Place, paths: Iterable[Path]) -> Iterator[Path]:
    """Give a folder of this machine with these files and folders of `data`: itself, or for a while copies of them.

    What is not at the URL is not in the copy either: whoever needs it says so.

    Args:
        paths: relative to `data`; absolute ones are of this machine.
    """
    url = url_of(data)
    if url is None:
        yield Path(data)
        return
    with _temporary_folder(url, "copy") as folder:
        for path in sorted({path for path in paths if not path.is_absolute()}):
            at = str(join(data, path))
            if objects.is_file(at):
                _fetch(at, folder, path.as_posix())
                continue
            for name in objects.tree(at):
                _fetch(f"{at}/{name}", folder, (path / name).as_posix())
        yield folder


def paths_in(value: object) -> Iterator[Path]:
    """Yield every path that a configuration names, its caches apart."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        yield from paths_in({name: part for name, part in value if name != "cache"})
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from paths_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from paths_in(part)
