"""Sources of images: folders, WebDataset tars, COCO and saved datasets, listed in a fixed order and read in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.accounting import Accounting, add_counts
from cavendish.mixing.config import Config
from cavendish.mixing.sources.coco import list_coco
from cavendish.mixing.sources.decode import MAX_BYTES
from cavendish.mixing.sources.items import Item, Listing, Part, read_part
from cavendish.mixing.sources.records import IMAGE_ENDINGS, ending_of, folders_of, list_photos, list_source, list_tars
from cavendish.mixing.sources.tables import list_arrow
from cavendish.mixing.sources.tars import tar_stem
from cavendish.mixing.sources.text import clean_text, decode_text
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.files import sha256
from cavendish.mixing.storage.place import is_url

MAX_TEXT_BYTES = 64 * 1024
MAX_META_BYTES = 1024 * 1024
_LISTED_META = ("url", "author", "licence")
_MIRRORED = tuple(f".{ending}" for ending in (*IMAGE_ENDINGS, "jfif", "jpe", "heic", "txt", "json", "arrow"))


class SourceConfig(Config):
    """One collection of images.

    Args:
        name: begins every key and is the `source` of every sample; letters, digits and `_`.
        kind: "folder" (images anywhere under `path`, each with an optional .txt caption and .json beside it), "tar" (a
            WebDataset or img2dataset tar, or a folder with tars below it), "coco" (images of a COCO json, see
            `annotations`) or "arrow" (a Hugging Face dataset saved to disk).
        path: relative to the data folder, or a list of such paths; or an fsspec URL, of which `mirror` holds a copy.
        annotations: for "coco": the json, relative to `path`. Its captions and licences are read, its labels are not.
        mirror: for a URL: the local folder that its files are copied to, relative to the data folder.
        licence: of every image whose own .json does not state another.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_]{1,24}$")  # no "-": it ends the name in a key, so no two sources meet
    kind: Literal["folder", "tar", "coco", "arrow"]
    path: Path | str | tuple[Path, ...]
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
        if isinstance(self.path, tuple) and (not self.path or self.kind == "coco"):
            raise ValueError(f"source {self.name}: a list of paths is for the other kinds than coco, and not empty")
        if (self.mirror is None) == isinstance(self.path, str):
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


def source_folders(source: SourceConfig, data: Path) -> tuple[Path, ...]:
    """Return where a source's files are on this machine; nothing is copied."""
    if source.mirror is not None:
        return (data / source.mirror,)
    return folders_of(source.path, data)


def list_items(source: SourceConfig, data: Path) -> Listing:
    """List the images of a source in a fixed order, each with a key that is unique within it; no image is decoded.

    A source at a URL is copied to its mirror first.

    Args:
        source: what to list.
        data: where its paths start.

    Raises:
        InputError: a folder is not there, is of the wrong kind, or holds no image, or a URL cannot be copied.
    """
    folders = source_folders(source, data)
    not_copied = _mirror(str(source.path), folders[0]) if source.mirror is not None else {}
    for folder in folders:
        if not (folder.is_dir() or (source.kind == "tar" and folder.is_file())):
            expected = "no tar and no folder of tars at" if source.kind == "tar" else "no folder"
            raise InputError(f"source {source.name}: {expected} {folder}")
    coco = partial(list_coco, annotations=folders[0] / (source.annotations or ""))
    listers: dict[str, Callable[[Path], Listing]] = {"tar": list_tars, "folder": list_photos, "arrow": list_arrow}
    listed = list_source(source.name, folders, listers.get(source.kind, coco))
    if not listed.items:
        endings = ", ".join(f".{ending}" for ending in IMAGE_ENDINGS)
        where = ", ".join(map(str, folders))
        account = Accounting(listed.found, 0, 0, listed.left_aside)
        raise InputError(f"source {source.name}: no images ({endings}) in {where}; {account}")
    return Listing(listed.items, add_counts((listed.left_aside, not_copied)))


def fingerprint(
    source: SourceConfig,
    data: Path,
    items: Iterable[Item],
    check: Literal["sha256", "size"],
    hash_file: Callable[[Path], str] = sha256,
) -> list[list[Any]]:
    """Describe the files that `items` read, for the plan: (relative path, size) and, for "sha256", the contents' hash.

    What cannot be read is in the list with the reason, so that mending it changes the plan.
    """
    items = list(items)
    folders = source_folders(source, data)
    parts = {(part.folder, part.path) for item in items for part in item.parts.values()}
    found: list[list[Any]] = []
    for number, relative in sorted(parts):
        name = f"{number}:{relative}" if number else relative
        try:
            path = folders[number] / relative if relative else folders[number]
            entry: list[Any] = [name, path.stat().st_size]
            found.append([*entry, hash_file(path)] if check == "sha256" else entry)
        except OSError as error:  # reading it will fail again, and reject only what needs it
            found.append([name, error.strerror])
    return found + [[item.name, item.problem] for item in items if item.problem]


def read_item(source: SourceConfig, data: Path, item: Item) -> FoundImage:
    """Read the bytes, the caption and the facts of one image.

    Raises:
        InputError: the item has a problem, is too large, its file has changed since it was listed, or its json cannot
            be read: the image's own licence may be in there.
    """
    if item.image is None or item.problem:
        raise InputError(item.problem or "no image under this key")
    flags: list[str] = []
    folders = source_folders(source, data)
    meta = _read_meta(folders, item.parts.get("meta"))
    facts = {"licence": source.licence, **item.facts}
    for name in _LISTED_META:
        value = meta.get(name, meta.get("license") if name == "licence" else None)
        if isinstance(value, str) and value.strip():
            facts[name] = clean_text(value)
    text = _read_text(folders, item.parts.get("text"), flags) or item.caption
    if not text and isinstance(meta.get("caption"), str):
        text = clean_text(meta["caption"])
    return FoundImage(item.key, read_part(folders, item.image, MAX_BYTES), text, facts, tuple(flags))


def _read_text(folders: Sequence[Path], part: Part | None, flags: list[str]) -> str:
    if part is None:
        return ""
    try:
        return decode_text(read_part(folders, part, MAX_TEXT_BYTES))
    except InputError:
        flags.append("text_unusable")
        return ""


def _read_meta(folders: Sequence[Path], part: Part | None) -> dict[str, Any]:
    if part is None:
        return {}
    try:
        meta = json.loads(read_part(folders, part, MAX_META_BYTES))
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"its json cannot be read, and may name another licence: {one_line(error)}") from None
    if not isinstance(meta, dict):
        raise InputError("its json is no map of facts, such as url, licence and author")
    return meta


def _mirror(url: str, folder: Path) -> dict[str, int]:
    """Copy the images, sidecars, tars and tables below a URL to a folder; what is there with the right size stays.

    A file is written under another name and renamed when its size is right, so that a kill leaves no half file.

    Returns:
        what was not copied, counted by reason.

    Raises:
        InputError: nothing there, no such protocol, or a server that refuses or fails too often.
    """

    def list_sizes(system: Any, root: str) -> dict[str, int]:
        found = system.find(root, detail=True)
        return {str(path).removeprefix(root).lstrip("/"): int(facts["size"]) for path, facts in found.items()}

    left: Counter[str] = Counter()
    sizes = objects.ask(url, list_sizes, "listed")
    for below, size in sorted(sizes.items()):
        name = (below or url).rpartition("/")[2]
        if not name.lower().endswith(_MIRRORED) and tar_stem(name) is None:
            left[f"{ending_of(name)}: not copied from its URL"] += 1
            continue
        relative = PurePosixPath(below or name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{url}: holds a file named {relative}, which would leave {folder}")
        target = folder / relative
        if not (target.is_file() and target.stat().st_size == size):
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.download("/".join(part for part in (url.rstrip("/"), below) if part), target, size)
    if len(sizes) == left.total():
        raise InputError(f"{url}: no files there that end in {', '.join(_MIRRORED)} or .tar")
    return dict(left)
