"""Imports foreign 3D files, each once: what was imported before comes from a cache by content.

The cache is `$CAVENDISH_CACHE`, else `cavendish` in the user's cache folder; deleting it only costs time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra
from cavendish.mixing.storage.place import file_sha256, write_atomic
from cavendish.render.assets.asset import SCHEMA, Asset, decode_asset
from cavendish.render.engines.worker import Limits, Worker, WorkerFault

LIMITS = Limits(start_timeout_s=120.0, request_timeout_s=120.0, recycle_after=200, max_memory_mb=6000)


@dataclass(frozen=True)
class Entry:
    """An imported file: where its asset is kept, and the sha256 of every file that was read."""

    path: Path
    files: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of the file; of the list of all of them where it refers to others."""
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def load(self) -> Asset:
        """Read the asset."""
        return decode_asset(self.path.read_bytes())


class AssetImporter:
    """Imports files in a supervised child; `close` ends it. The child starts when something is not in the cache."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or cache_folder()
        self._worker: Worker | None = None
        self._asked = False

    def import_file(self, path: Path, root: Path) -> Entry:
        """Import a file, or find it in the cache.

        Args:
            root: the folder it may refer to; what it needs of it is part of its identity.

        Raises:
            InputError: it is refused; the line says why.
        """
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{path.name}: lies outside of its folder")
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise InputError(f"{path.name}: {error.strerror}") from None
        key = f"{path.suffix.lower()} {digest}"
        for entry in self._entries(key):
            if all(_has(root / name, sha256) for name, sha256 in entry.files.items()):
                return entry
        return self._import(key, path, root, False)

    def import_package_file(self, key: str, unpack: Callable[[Path], Path]) -> Entry:
        """Import a file of an installed package, or find it in the cache by a key that changes with its content.

        Args:
            unpack: puts the file and what belongs to it into a folder, and returns its path. What is missing there is
                left out.

        Raises:
            InputError: it is refused; the line says why.
        """
        for entry in self._entries(key):
            return entry
        with tempfile.TemporaryDirectory(prefix="cavendish-") as folder:
            return self._import(key, unpack(Path(folder)), Path(folder), True)

    def _import(self, key: str, path: Path, root: Path, allow_missing: bool) -> Entry:
        with tempfile.TemporaryDirectory(prefix="cavendish-") as scratch:
            made = Path(scratch) / "asset.npz"
            answer = self._ask({"path": str(path), "root": str(root), "out": str(made), "allow_missing": allow_missing})
            if "error" in answer:
                raise InputError(answer["error"])
            files, folder = answer["files"], self._folder(key)
            name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:32]
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / f"{name}.npz", made.read_bytes())
            write_atomic(folder / f"{name}.json", json.dumps(files, sort_keys=True).encode())
            return Entry(folder / f"{name}.npz", files)

    def _entries(self, key: str) -> Iterator[Entry]:
        for record in sorted(self._folder(key).glob("*.json")):
            yield Entry(record.with_suffix(".npz"), json.loads(record.read_text()))

    def _folder(self, key: str) -> Path:
        digest = hashlib.sha256(f"{SCHEMA} {importer_version()} {key}".encode()).hexdigest()
        return self._cache / "assets" / digest[:2] / digest

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._worker is None:
            command = [sys.executable, "-m", "cavendish.render.assets.blender_import"]
            self._worker = Worker(command, LIMITS)
        self._asked = True
        try:
            return self._worker.ask(request)[0]
        except WorkerFault as fault:
            return {"error": f"{str(fault).replace('renderer', 'importer')}, twice"}

    def rest(self) -> None:
        """End a child that nothing was asked of since the last rest."""
        if not self._asked:
            self.close()
        self._asked = False

    def close(self) -> None:
        """End the child."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def importer_version() -> str:
    """Return the version of the importers.

    Raises:
        InputError: bpy is not installed.
    """
    require_extra("render", "bpy")
    return version("bpy")


def cache_folder() -> Path:
    """Return the folder of the cache; a temporary one where the user's own cannot be written."""
    told = os.environ.get("CAVENDISH_CACHE")
    if told:
        return Path(told)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(home) / "cavendish"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="cavendish-cache-"))
    return folder


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
