"""What there is in tars and folders made by others: records and where their files are; nothing is extracted."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cavendish.encoders.sample import InputError
from cavendish.mixing.shards.tar_index import DamagedTar, list_members

_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_KEY_CHARS = 80


@dataclass(frozen=True)
class Piece:
    """One file of a record: `path` is relative to the source ("" is the source itself); `suffix` names its format."""

    path: str
    offset: int
    size: int
    suffix: str


@dataclass(frozen=True)
class Found:
    """One record: its key, and its pieces by field; or, in `problem`, why it cannot be read."""

    key: str
    name: str
    pieces: Mapping[str, Piece]
    problem: str = ""


def list_records(root: Path, source: str, fields: Mapping[str, Sequence[str]]) -> list[Found]:
    """List the records of a tar, a folder of tars, or a folder of files, in a fixed order.

    Files of one record share their name up to its first dot; the rest of the name tells the field.

    Args:
        source: begins every key.
        fields: for each field the endings that mean it, the first that is there wins.

    Raises:
        InputError: nothing there.
    """
    tars = [root] if root.is_file() else sorted(root.glob("*.tar")) if root.is_dir() else []
    groups = [group for tar in tars for group in _groups_of_tar(root, tar)] if tars else _groups_of_folder(root)
    formats = {suffix.rpartition(".")[2] for suffixes in fields.values() for suffix in suffixes}
    records, seen = [], set[str]()
    for name, members, problem in groups:
        key = _key(source, name)
        pieces = {
            field: next(members[suffix] for suffix in suffixes if suffix in members)
            for field, suffixes in fields.items()
            if any(suffix in members for suffix in suffixes)
        }
        if not pieces and any(suffix.rpartition(".")[2] in formats for suffix in members):
            problem = problem or f"no field ends in {' or '.join(f'.{suffix}' for suffix in members)}"
        if key in seen:
            problem = problem or "a record of this name came before"
        seen.add(key)
        if pieces or problem:
            records.append(Found(key, name, pieces, problem))
    if not any(record.pieces for record in records):
        endings = ", ".join(suffix for suffixes in fields.values() for suffix in suffixes)
        problems = [record.problem for record in records]
        raise InputError(f"{root}: {problems[0] if problems else f'no tar and no file that ends in any of {endings}'}")
    return records


_Group = tuple[str, dict[str, Piece], str]


def _groups_of_tar(root: Path, tar: Path) -> Iterator[_Group]:
    """Group the members as WebDataset does: neighbours that share the name up to the first dot."""
    relative = "" if tar == root else tar.relative_to(root).as_posix()
    current, members = "", dict[str, Piece]()
    problem = ""
    try:
        with tar.open("rb") as file:
            for member in list_members(file):
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if name != current and members:
                    yield f"{tar.stem}/{current}", members, ""
                    members = {}
                current = name
                members[suffix.lower()] = Piece(relative, member.offset, member.size, suffix.lower())
    except DamagedTar as error:
        problem = f"{tar.name}: {error}; nothing after it was read"
    except OSError as error:
        problem = f"{tar.name}: cannot be read: {error.strerror}"
    if members:
        yield f"{tar.stem}/{current}", members, ""
    if problem:
        yield f"{tar.stem}/damaged", {}, problem


def _groups_of_folder(root: Path) -> list[_Group]:
    groups: dict[str, dict[str, Piece]] = {}
    problems: dict[str, str] = {}
    for folder, _, names in os.walk(root):
        for base in names:
            path = Path(folder) / base
            stem, _, suffix = base.partition(".")
            if not stem or not suffix:
                continue
            relative = path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
            name = relative[: len(relative) - len(suffix) - 1]
            members = groups.setdefault(name, {})
            if not path.resolve().is_relative_to(root.resolve()):
                problems[name] = f"{base} is a link that leaves the folder"
            elif path.is_file():
                members[suffix.lower()] = Piece(relative, 0, path.stat().st_size, suffix.lower())
    return [(name, groups[name], problems.get(name, "")) for name in sorted(groups)]


def _key(source: str, name: str) -> str:
    """Make a key that shards accept; where characters had to go, a hash of the whole name keeps it unique."""
    plain = name.replace("/", "-")
    clean = _NOT_KEY.sub("_", plain)
    key = f"{source}-{clean}"
    if clean == plain and len(key) <= _MAX_KEY_CHARS:
        return key
    tag = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{key[: _MAX_KEY_CHARS - 11]}-{tag}"
