"""Writes the card of a directory of shards or of a lock: README.md, croissant.json and ATTRIBUTION.md."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cavendish.encoders.sample import InputError
from cavendish.mixing.cards.croissant import About, croissant
from cavendish.mixing.cards.facts import ShardSet, read_mixture, read_shard_set
from cavendish.mixing.cards.markdown import attribution, card
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.storage.files import write_atomic
from cavendish.mixing.storage.place import Place, is_file, is_url, join, make_folder


def write_card(path: Place, out: Place, about: About, data: Place = Path()) -> tuple[Place, ...]:
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
    if is_file(path):
        lock = read_lock(path)
        sets = read_mixture(lock, data)
        folders = {one.name: join(data, one.path) for one in sets}
    else:
        sets = (read_shard_set(path, data, path=path.as_posix() if isinstance(path, Path) else path),)
        folders = {sets[0].name: path}
    folder_of = {one.name: _folder(one, folders[one.name], out, about, len(sets) > 1) for one in sets}
    told = json.dumps(croissant(about, sets, folder_of), indent=1, ensure_ascii=False, sort_keys=True)
    files: Mapping[str, str] = {
        "README.md": card(about, sets, lock),
        "croissant.json": told + "\n",
        "ATTRIBUTION.md": attribution(about, sets),
    }
    make_folder(out)
    written = []
    for name, text in files.items():
        if text:
            write_atomic(join(out, name), text.encode())
            written.append(join(out, name))
    return tuple(written)


def _folder(one: ShardSet, folder: Place, out: Place, about: About, several: bool) -> str:
    """Say where the tars of a set are, for the metadata in `out`: where they are published, else relative to it."""
    if is_url(one.path) and several:
        return one.path.rstrip("/")
    if about.url:
        if not is_url(about.url):
            raise InputError(f"--url {about.url}: an address with a scheme, such as https://")
        return "/".join([about.url.rstrip("/"), *([one.path] if several else [])])
    if is_url(folder) and is_url(out):
        there, here = urlsplit(str(folder)), urlsplit(str(out))
        if there[:2] != here[:2]:
            return str(folder)
        relative = posixpath.relpath(there.path or "/", here.path or "/")
    elif is_url(folder):
        return str(folder)
    elif is_url(out):
        raise InputError(f"{folder}: is on this machine, and its card would not be: give --url, where both can be read")
    else:
        relative = Path(os.path.relpath(folder, out)).as_posix()
    return "" if relative == "." else relative
