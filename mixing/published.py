"""A folder of this machine that is also at a URL: what a verb writes there is published, and found on any machine.

Verbs that write many files of their own (train, evaluate, audit) work in a folder. For a URL it is a temporary one,
which starts with what the URL has; `publish` sends what is new or changed, in the order in which it was written, so
that whatever moment a run is killed at, the URL has no file without those it builds on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mixing import objects
from mixing.places import Place, is_url
from mixing.storage import collect_leftovers, digest, is_alive

Chosen = Callable[[list[str]], list[str]]
"""Of the names at a URL, those that are needed."""


class Published:
    """A working folder and where it is published; see `published`.

    Args:
        folder: of this machine.
        url: where its files go; None when it is where it is to be.
        last: names of files that say that others are complete.
    """

    def __init__(self, folder: Path, url: str | None, last: tuple[str, ...] = ()) -> None:
        self.folder, self._url, self._last = folder, url, last
        self._sent: dict[str, tuple[int, int]] = {}
        self._there: set[str] = set()

    def fetch(self, chosen: Chosen) -> None:
        """Bring what the URL has into the folder."""
        if self._url is None:
            return
        names = objects.tree(self._url)
        self._there = set(names)
        for name in chosen(names):
            file = self.folder / name
            if not file.resolve().is_relative_to(self.folder.resolve()):
                raise objects.Refused(f"{self._url}/{name}: leads out of its folder")
            file.parent.mkdir(parents=True, exist_ok=True)
            objects.download(f"{self._url}/{name}", file)
            self._sent[name] = _state(file)

    def publish(self) -> None:
        """Send what is new or changed, in the order in which it was written; then delete what is gone from here."""
        if self._url is None:
            return
        found = {name: _state(self.folder / name) for name in _files(self.folder)}
        changed = [name for name, state in found.items() if self._sent.get(name) != state]
        for name in sorted(changed, key=lambda name: (Path(name).name in self._last, found[name][0], name)):
            objects.upload(self.folder / name, f"{self._url}/{name}")
            self._sent[name] = found[name]
        for name in sorted(self._there - found.keys()):
            objects.delete(f"{self._url}/{name}")
        self._there = set(found)


def _files(folder: Path) -> list[str]:
    """List the finished files of a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if not any(_is_temporary(part) for part in name.split("/"))]


def _is_temporary(part: str) -> bool:
    return ".tmp-" in part or part.endswith(".tmp")


def _state(file: Path) -> tuple[int, int]:
    facts = file.stat()
    return facts.st_mtime_ns, facts.st_size


def everything(names: list[str]) -> list[str]:
    """Choose every file."""
    return names


@contextmanager
def published(
    place: Place, last: tuple[str, ...] = (), chosen: Chosen = everything, owner: int | None = None
) -> Iterator[Published]:
    """Give a working folder for `place`; at the end of the context, whatever ended it, it is published.

    A folder of this machine is itself. For a URL it is a temporary folder that has what was there, and is deleted at
    the end; one that a killed process left is deleted by the next.

    Args:
        last: names of files that say that others are complete: published after those.
        chosen: which of the files at the URL are needed to go on.
        owner: the process it is named after, this one unless told; processes that share it name the same, and the
            first of them alone publishes.

    Raises:
        Refused, Unreachable: the URL cannot be read or written.
    """
    if not is_url(place):
        yield Published(Path(place), None)
        return
    url = str(place)
    _collect_folders(url)
    folder = Path(tempfile.gettempdir()) / f"cavendish-{digest(url)[:16]}.folder-{owner or os.getpid()}"
    folder.mkdir(exist_ok=True)
    work = Published(folder, url, last)
    try:
        work.fetch(chosen)
        try:
            yield work
        finally:
            work.publish()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _collect_folders(url: str) -> None:
    for path in Path(tempfile.gettempdir()).glob(f"cavendish-{digest(url)[:16]}.folder-*"):
        if not is_alive(int(path.name.rpartition("-")[2])):
            shutil.rmtree(path, ignore_errors=True)
    collect_leftovers(url)


@contextmanager
def fetched(place: Place) -> Iterator[Path]:
    """Give a folder of this machine with the files of `place`: itself, or a copy for as long as the context lasts.

    Raises:
        MissingFile: nothing is there.
    """
    if not is_url(place):
        yield Path(place)
        return
    names = objects.tree(str(place))
    if not names:
        raise objects.MissingFile(f"{place}: not there")
    with tempfile.TemporaryDirectory(prefix="cavendish-") as text:
        copy = Published(Path(text), str(place))
        copy.fetch(everything)
        yield Path(text)
