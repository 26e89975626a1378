"""Writes the card of a directory of shards or of a lock: README.md, croissant.json and ATTRIBUTION.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from encoders.sample import InputError
from mixing.cards.croissant import About, croissant
from mixing.cards.facts import ShardSet, read_mixture, read_shard_set
from mixing.cards.markdown import attribution, card
from mixing.lock import Lock, read_lock
from mixing.places import Place, join
from mixing.remote import is_url
from mixing.storage import write_atomic


def write_card(path: Path, out: Path, about: About, data: Path = Path()) -> tuple[Path, ...]:
    """Write the card; the same shards and words give the same bytes.

    Args:
        path: a finished directory of shards, or the lock of a mixture.
        out: folder to write to; contents are named relative to it unless `about.url` says where they are published.
        data: folder that the paths in a lock, and in the plan of instruction shards, are relative to.

    Raises:
        InputError: neither is there, not finished, or not the locked shards.
    """
    lock: Lock | None = None
    folders: dict[str, Place]
    if path.is_file():
        lock = read_lock(path)
        sets = read_mixture(lock, data)
        folders = {one.name: join(data, one.path) for one in sets}
    else:
        sets = (read_shard_set(path, data, path=path.as_posix()),)
        folders = {sets[0].name: path}
    folder_of = {one.name: _folder(one, folders[one.name], out, about, len(sets) > 1) for one in sets}
    told = json.dumps(croissant(about, sets, folder_of), indent=1, ensure_ascii=False, sort_keys=True)
    files: Mapping[str, str] = {
        "README.md": card(about, sets, lock),
        "croissant.json": told + "\n",
        "ATTRIBUTION.md": attribution(about, sets),
    }
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in files.items():
        if text:
            write_atomic(out / name, text.encode())
            written.append(out / name)
    return tuple(written)


def _folder(one: ShardSet, folder: Place, out: Path, about: About, several: bool) -> str:
    """Say where the tars of a set are, for the metadata in `out`."""
    if is_url(folder):
        return str(folder).rstrip("/")
    if about.url:
        if not is_url(about.url):
            raise InputError(f"--url {about.url}: an address with a scheme, such as https://")
        return "/".join([about.url.rstrip("/"), *([one.path] if several else [])])
    relative = Path(os.path.relpath(folder, out)).as_posix()
    return "" if relative == "." else relative
