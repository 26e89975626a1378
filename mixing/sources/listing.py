"""Where images come from, listed in a fixed order and read in place: folders, WebDataset tars, COCO, saved datasets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.config import Config
from cavendish.mixing.shards.sample_format import check_key
from cavendish.mixing.shards.tar_index import DamagedTar, list_members
from cavendish.mixing.sources.coco import list_coco
from cavendish.mixing.sources.decode import MAX_BYTES
from cavendish.mixing.sources.items import IMAGE_SUFFIXES, Item, Part, clean_text
from cavendish.mixing.sources.mirror import mirror
from cavendish.mixing.sources.saved_datasets import list_arrow
from cavendish.mixing.storage.files import sha256
from cavendish.mixing.storage.place import is_url

MAX_TEXT_BYTES = 64 * 1024
MAX_META_BYTES = 1024 * 1024
_MAX_KEY_CHARS = 80
_SIDECARS = {".txt": "text", ".json": "meta"}
_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")
_MIRRORED = (*IMAGE_SUFFIXES, ".txt", ".json", ".arrow")
_LISTED_META = ("url", "author", "licence")


class SourceConfig(Config):
    """One collection of images.

    Args:
        name: begins every key and is the `source` of every sample; letters, digits and `_`.
        kind: "folder" (images anywhere under `path`, each with an optional .txt caption and .json beside it; hidden
            files and folders behind links are left out), "tar" (a WebDataset or img2dataset tar, or a folder of
            them), "coco" (images of a COCO json, see `annotations`) or "arrow" (a Hugging Face dataset saved to disk).
        path: relative to the data folder; or an fsspec URL, of which `mirror` holds a copy.
        annotations: for "coco": the json, relative to `path`. Its captions and licences are read, its labels are not.
        mirror: for a URL: the local folder that its files are copied to, relative to the data folder.
        licence: of every image whose own .json does not state another.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_]{1,24}$")  # no "-": it ends the name in a key, so no two sources meet
    kind: Literal["folder", "tar", "coco", "arrow"]
    path: Path | str
    licence: str = Field(min_length=1)
    annotations: Path | None = None
    mirror: Path | None = None

    @field_validator("path", mode="before")
    @classmethod
    def _path_or_url(cls, path: Any) -> Any:
        return Path(path) if isinstance(path, str) and not is_url(path) else path

    @model_validator(mode="after")
    def _complete(self) -> SourceConfig:
        if (self.annotations is None) == (self.kind == "coco"):
            raise ValueError(f"source {self.name}: annotations is for kind coco, which needs it")
        if (self.mirror is None) == is_url(self.path):
            raise ValueError(f"source {self.name}: mirror is for a path that is a URL, which needs it")
        return self


@dataclass(frozen=True)
class FoundImage:
    """What a source says about one image, before anything is decoded.

    `facts` holds, as far as known: licence, url, author. `flags` says which sidecar could not be used.
    """

    key: str
    data: bytes
    text: str
    facts: Mapping[str, str]
    flags: tuple[str, ...]


def source_root(source: SourceConfig, data: Path) -> Path:
    """Return where a source's files are on this machine; nothing is copied."""
    return data / (source.path if source.mirror is None else source.mirror)


def fetch_source(source: SourceConfig, data: Path) -> Path:
    """Copy a source at a URL to its mirror, if it is one; return where its files are.

    Raises:
        InputError: see `mixing.sources.mirror.mirror`.
    """
    root = source_root(source, data)
    if source.mirror is not None:
        mirror(str(source.path), root, (".tar",) if source.kind == "tar" else _MIRRORED)
    return root


def list_items(source: SourceConfig, root: Path) -> list[Item]:
    """List the images of a source in a fixed order, each with a key that is unique within it; no image is read.

    Args:
        source: what to list.
        root: see `source_root`.

    Raises:
        InputError: `root` is not there, is of the wrong kind, or holds no image.
    """
    match source.kind:
        case "tar":
            items = [item for path in _tars(source, root) for item in _list_tar(root, path)]
        case _ if not root.is_dir():
            raise InputError(f"source {source.name}: no folder {root}")
        case "folder":
            items = _list_folder(root)
        case "coco":
            assert source.annotations is not None
            items = list(list_coco(root, root / source.annotations))
        case "arrow":
            items = list(list_arrow(root))
    if not items:
        raise InputError(f"source {source.name}: no images ({', '.join(IMAGE_SUFFIXES)}) in {root}")
    return list(_with_keys(source.name, items))


def fingerprint(root: Path, items: list[Item], check: Literal["sha256", "size"]) -> list[list[Any]]:
    """Describe the files that `items` read, for the plan: (relative path, size) and, for "sha256", the contents' hash.

    What cannot be read is in the list with the reason, so that mending it changes the plan.
    """
    paths = {part.path for item in items for part in (item.image, item.text, item.meta) if part is not None}
    found: list[list[Any]] = []
    for relative in sorted(paths):
        try:
            path = root / relative
            entry: list[Any] = [relative, path.stat().st_size]
            found.append([*entry, sha256(path)] if check == "sha256" else entry)
        except OSError as error:  # reading it will fail again, and reject only what needs it
            found.append([relative, error.strerror])
    return found + [[item.name, item.problem] for item in items if item.problem]


def read_item(source: SourceConfig, root: Path, item: Item) -> FoundImage:
    """Read the bytes, the caption and the facts of one image.

    Raises:
        InputError: the item has a problem, is too large, its file has changed since it was listed, or its json cannot
            be read: the picture's own licence may be in there.
    """
    if item.image is None or item.problem:
        raise InputError(item.problem or "no image under this key")
    flags: list[str] = []
    meta = _read_meta(root, item.meta)
    facts = {"licence": source.licence, **item.facts}
    for name in _LISTED_META:
        value = meta.get(name, meta.get("license") if name == "licence" else None)
        if isinstance(value, str) and value.strip():
            facts[name] = clean_text(value)
    text = _read_text(root, item.text, flags) or item.caption
    if not text and isinstance(meta.get("caption"), str):
        text = clean_text(meta["caption"])
    return FoundImage(item.key, _read_part(root, item.image, MAX_BYTES), text, facts, tuple(flags))


def _list_folder(root: Path) -> list[Item]:
    items = []
    for folder, _, names in os.walk(root):
        here = Path(folder)
        siblings = set(names)
        for name in names:
            path = here / name
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                sidecars = {
                    field: here / f"{path.stem}{suffix}"
                    for suffix, field in _SIDECARS.items()
                    if f"{path.stem}{suffix}" in siblings
                }
                items.append(_folder_item(root, path, sidecars))
    return sorted(items, key=lambda item: item.name)


def _folder_item(root: Path, image: Path, sidecars: Mapping[str, Path]) -> Item:
    relative = image.relative_to(root).as_posix()
    name = relative.encode("utf-8", "backslashreplace").decode()
    if name != relative:
        return Item("", name, problem="its file name is not UTF-8")
    parts: dict[str, Any] = {}
    for field, path in {"image": image, **sidecars}.items():
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            return Item("", name, problem=f"{path.name} is a link that leaves the folder")
        if not path.is_file():
            return Item("", name, problem=f"{path.name} is not a file")
        parts[field] = Part(path.relative_to(root).as_posix(), 0, path.stat().st_size)
    return Item("", name, **parts)


def _tars(source: SourceConfig, root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"source {source.name}: no tar and no folder of tars at {root}")
    return sorted(root.glob("*.tar"))


def _list_tar(root: Path, path: Path) -> Iterator[Item]:
    """Group the members of a tar as WebDataset does: neighbours that share the name up to the first dot."""
    relative = "" if path == root else path.relative_to(root).as_posix()
    tar_name = path.stem.encode("utf-8", "backslashreplace").decode()
    if tar_name != path.stem:
        yield Item("", f"{tar_name}/damaged", problem="the tar's file name is not UTF-8")
        return
    group: Item | None = None
    try:
        with path.open("rb") as file:
            for member in list_members(file):
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if not stem:
                    continue
                name = f"{tar_name}/{f'{folder}/' if folder else ''}{stem}"
                if group is None or group.name != name:
                    if group is not None:
                        yield _finished(group)
                    group = Item("", name)
                group = _with_member(group, f".{extension.lower()}", Part(relative, member.offset, member.size))
    except (DamagedTar, OSError) as error:
        if group is not None:
            yield _finished(group)
        yield Item("", f"{tar_name}/damaged", problem=f"{path.name}: {error}; nothing after it was read")
        return
    if group is not None:
        yield _finished(group)


def _with_member(group: Item, suffix: str, part: Part) -> Item:
    if suffix in IMAGE_SUFFIXES:
        if group.image is not None:
            return replace(group, problem="two images under one key")
        return replace(group, image=part)
    if suffix in _SIDECARS:
        return replace(group, text=part) if suffix == ".txt" else replace(group, meta=part)
    return group


def _finished(group: Item) -> Item:
    if group.image is None and not group.problem:
        return replace(group, problem="no image under this key")
    return group


def _with_keys(source: str, items: list[Item]) -> Iterator[Item]:
    """Give each item a key that shards accept; what had to be changed to fit carries a hash of its full name."""
    seen: set[str] = set()
    for item in items:
        stem = item.name if item.image is None else os.path.splitext(item.name)[0]
        plain = _NOT_KEY.sub("_", stem.replace("/", "-"))
        key = f"{source}-{plain}"
        if plain != stem.replace("/", "-") or len(key) > _MAX_KEY_CHARS or key in seen:
            for attempt in range(1000):
                tag = hashlib.sha256(f"{attempt or ''}{item.name}".encode("utf-8", "surrogateescape")).hexdigest()[:10]
                key = f"{source}-{plain}"[: _MAX_KEY_CHARS - 11] + f"-{tag}"
                if key not in seen:
                    break
        seen.add(check_key(key))
        yield replace(item, key=key)


def _read_part(root: Path, part: Part, limit: int) -> bytes:
    if part.size > limit:
        raise InputError(f"{part.size} bytes is over the limit of {limit}")
    try:
        with (root / part.path).open("rb") as file:
            data = os.pread(file.fileno(), part.size, part.offset)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    if len(data) != part.size:
        raise InputError(f"{part.path or root.name} has changed since it was listed")
    return data


def _read_text(root: Path, part: Part | None, flags: list[str]) -> str:
    if part is None:
        return ""
    try:
        return clean_text(_read_part(root, part, MAX_TEXT_BYTES).decode())
    except (InputError, UnicodeDecodeError):
        flags.append("text_unusable")
        return ""


def _read_meta(root: Path, part: Part | None) -> dict[str, Any]:
    if part is None:
        return {}
    try:
        meta = json.loads(_read_part(root, part, MAX_META_BYTES))
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"its json cannot be read, and may name another licence: {one_line(error)}") from None
    if not isinstance(meta, dict):
        raise InputError("its json is no map of facts, such as url, licence and author")
    return meta
