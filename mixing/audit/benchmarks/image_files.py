"""The files of a benchmark folder, every one reckoned: images by their contents, text, and what may hide an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.matching.views import Views, find_views
from cavendish.mixing.sources.decode import FILE_LIMITS
from cavendish.mixing.sources.items import Item, Part, read_part
from cavendish.mixing.sources.records import list_images
from cavendish.mixing.storage.files import digest, sha256

_HEAD_BYTES = 2**16
_TEXT_ENDINGS = ("txt", "json", "jsonl", "csv", "tsv", "cls", "md", "xml", "yaml", "yml", "html", "no ending")
_NOT_AN_IMAGE = ": not an image"


@dataclass(frozen=True)
class BenchmarkFiles:
    """What a folder of benchmark images holds.

    Args:
        images: items to read, by name.
        unread: (name, reason) of what is, or may be, an image and cannot be read.
        left_aside: counts of text and hidden files, by reason.
    """

    images: Mapping[str, Item]
    unread: tuple[tuple[str, str], ...]
    left_aside: Mapping[str, int]


def list_benchmark(folder: Path, label_suffix: str = "") -> BenchmarkFiles:
    """List a benchmark's images, in the folder and in tars below it, and every other file by what it is.

    Args:
        label_suffix: of the benchmark's label maps, which may lie in the folder too.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmark images")
    listing = list_images(folder)
    images = {item.name: item for item in listing.items if not item.problem and item.image is not None}
    unread = [(item.name, item.problem) for item in listing.items if item.problem]
    left = Counter(listing.left_aside)
    listed = {item.image.path for item in images.values() if item.image is not None} | {name for name, _ in unread}
    for path in image_files(folder):
        name = path.relative_to(folder).as_posix()
        reason = f"{path.suffix.lower()[:16] or 'no ending'}{_NOT_AN_IMAGE}"
        if name in listed or left[reason] < 1:
            continue
        left[reason] -= 1
        kind = _kind(path)
        if kind == "text":
            left[f"{reason}, text"] += 1
        elif path.name.endswith(label_suffix) if label_suffix else False:
            left["label maps"] += 1
        elif kind == "array":
            images[name] = Item("", name, {"image": Part(name, 0, path.stat().st_size, "npy")})
        else:
            unread.append((name, "not known as an image, and no text: convert it to PNG, or take it out"))
    for reason, count in list(left.items()):  # members of tars, of which the endings are known
        if count and reason.endswith(_NOT_AN_IMAGE) and reason.split(":")[0].lstrip(".") not in _TEXT_ENDINGS:
            unread.append((f"{count} members of tars", f"{reason}, and no text"))
            left[reason] = 0
        elif count and reason.startswith("link "):
            unread.append((reason.removeprefix("link ").partition(":")[0], reason))
    return BenchmarkFiles(images, tuple(unread), {reason: count for reason, count in sorted(left.items()) if count > 0})


def _kind(path: Path) -> str:
    """Tell text, an array and what is neither apart by the beginning of a file."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    whole_lines = head if len(head) < _HEAD_BYTES else head[: head.rfind(b"\n") + 1] or head
    return find_views(whole_lines).kind


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders in sorted order; hidden ones are left out.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmark images")
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def read_image_file(folder: Path, item: Item) -> tuple[bytes, Views]:
    """Read an image of a benchmark and decode every frame of it.

    Raises:
        InputError: it cannot be read, or shows nothing.
    """
    assert item.image is not None
    data = read_part([folder], item.image, FILE_LIMITS.max_bytes)
    found = find_views(data)
    if not found.views:
        raise InputError("; ".join(found.problems) or "no image")
    return data, found


def read_original(folder: Path, identity: str) -> UInt8Image:
    """Decode an image of a benchmark again, by the id that its pack gives it.

    Raises:
        InputError: it is not there any more, or cannot be read.
    """
    name, _, view = identity.rpartition(" (") if identity.endswith(")") else (identity, "", "")
    images = _listed_images(folder)
    name, view = (identity, "") if identity in images else (name, view.removesuffix(")"))
    if name not in images:
        raise InputError(f"{folder}: {identity} is not there any more")
    for found in read_image_file(folder, images[name])[1].views:
        if found.name == view:
            return found.image
    raise InputError(f"{folder}: {identity} is not there any more")


@lru_cache(maxsize=8)
def _listed_images(folder: Path) -> Mapping[str, Item]:
    return list_benchmark(folder).images


def source_digest(folder: Path) -> str:
    """Hash the names and bytes of all files of a folder."""
    return digest([[path.relative_to(folder).as_posix(), sha256(path)] for path in image_files(folder)])
