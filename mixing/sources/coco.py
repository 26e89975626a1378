"""Images listed by a COCO json: their files, captions, licences and ids. Boxes and masks in it are not read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.items import Item, Listing, Part
from cavendish.mixing.sources.records import list_images
from cavendish.mixing.sources.text import clean_text, printable
from cavendish.mixing.storage.place import read_json

MAX_JSON_BYTES = 4 * 2**30
_Id = tuple[int, int, str]


def list_coco(root: Path, annotations: Path) -> Listing:
    """List the images of a COCO json in the order of their ids; numbers come before words.

    An image with several captions has the first of them by id; its licence is the name (or URL) of the one it refers
    to. The image id is kept as `coco_image_id`, which the leakage audit compares with benchmarks made from COCO.

    Args:
        root: folder that `file_name` is relative to.
        annotations: the json.

    Raises:
        InputError: not a COCO json.
    """
    values = _read(annotations)
    left: Counter[str] = Counter()
    licences = {
        str(entry.get("id")): str(entry.get("name") or entry.get("url") or "")
        for entry in _objects(values, "licenses", left)
    }
    images: dict[_Id, list[Mapping[str, Any]]] = defaultdict(list)
    items = []
    for image in _objects(values, "images", left):
        key = _sort_key(image.get("id"))
        if key is None:
            items.append(Item("", _name(image), problem=f"image id {str(image.get('id'))[:40]!r} is no number or word"))
        elif image.get("file_name") in [other.get("file_name") for other in images[key]]:
            left["an image that is listed again with the same id and file"] += 1
        else:
            images[key].append(image)
    captions = _captions(values, images, left)
    for key in sorted(images):
        for image in images[key]:
            items.append(_item(root, image, images[key], captions.get(key, ""), licences))
    return Listing(items, left + _unlisted(root, annotations, values))


def _unlisted(root: Path, annotations: Path, values: Mapping[str, Any]) -> Counter[str]:
    """Count the files below a folder that the json does not list."""
    names = (image.get("file_name") for image in _objects(values, "images", Counter()))
    listed = {PurePosixPath(name).as_posix() for name in names if isinstance(name, str)}
    below = list_images(root)
    left = Counter(below.left_aside)
    left[f"{annotations.suffix.lower()}: not an image"] -= annotations.resolve().is_relative_to(root.resolve())
    left["an image that the json does not list"] = sum(item.name not in listed for item in below)
    return +left


def _captions(
    values: Mapping[str, Any], images: Mapping[_Id, Sequence[Mapping[str, Any]]], left: Counter[str]
) -> dict[_Id, str]:
    """Return the caption of each image: the one with the lowest id, or the first where ids are equal or missing."""
    found: dict[_Id, tuple[tuple[bool, _Id], str]] = {}
    for entry in _objects(values, "annotations", left):
        caption, key = entry.get("caption"), _sort_key(entry.get("image_id"))
        if not isinstance(caption, str):
            continue
        if key is None or key not in images:
            left["a caption of an image that is not listed"] += 1
            continue
        order = _sort_key(entry.get("id"))
        ranked = (order is None, order or (0, 0, ""))
        if key not in found or ranked < found[key][0]:
            found[key] = ranked, caption
    return {key: clean_text(caption) for key, (_, caption) in found.items()}


def _sort_key(value: Any) -> _Id | None:
    """Return what ids are compared and ordered by: 7, 7.0 and "7" are one id; None for what can be no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    text = str(value) if isinstance(value, str) or abs(value) < 1 << 63 else hex(value)
    is_number = text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 20
    return (0, int(text), "") if is_number else (1, 0, text)


def _item(
    root: Path, image: Mapping[str, Any], same: Sequence[Mapping[str, Any]], caption: str, licences: Mapping[str, str]
) -> Item:
    """Make the item of an image; `same` are all images of its id."""
    name, file_name = _name(image), image.get("file_name")
    if len(same) > 1:
        others = ", ".join(_name(other) for other in same)
        return Item("", name, problem=f"image id {image['id']} is there {len(same)} times ({others[:200]}): twice is "
                    "once too often, since captions name images by id")  # fmt: skip
    if not isinstance(file_name, str) or not file_name:
        return Item("", name, problem="no file_name")
    path = PurePosixPath(file_name)
    try:
        if path.is_absolute() or ".." in path.parts or not (root / path).resolve().is_relative_to(root.resolve()):
            return Item("", name, problem="its file_name leaves the folder")
        size = (root / path).stat().st_size
    except (OSError, ValueError):
        return Item("", name, problem="no such file")
    _, number, word = _sort_key(image["id"]) or (0, 0, "")
    facts = {"coco_image_id": clean_text(word) or str(number)}
    licence = clean_text(licences.get(str(image.get("license")), ""))
    url = image.get("coco_url") or image.get("flickr_url")
    facts |= {"licence": licence} if licence else {}
    facts |= {"url": clean_text(url)} if isinstance(url, str) else {}
    suffix = path.name.partition(".")[2].lower()
    return Item("", name, {"image": Part(path.as_posix(), 0, size, suffix)}, caption=caption, facts=facts)


def _name(image: Mapping[str, Any]) -> str:
    """Return what an image is called in messages: its file, or its id where it has none."""
    name = image.get("file_name")
    return printable(name) if isinstance(name, str) and name else printable(f"image {str(image.get('id'))[:40]}")


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes is over the limit of {MAX_JSON_BYTES}")
    values = read_json(path, "a COCO json")
    if not isinstance(values, dict) or not isinstance(values.get("images"), list):
        raise InputError(f"{path}: not a COCO json: no list of images in it")
    return values


def _objects(values: Mapping[str, Any], name: str, left: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list of the json; what is none is counted."""
    rows = values.get(name, [])
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            yield row
        else:
            left[f"an entry of {name} that is no object"] += 1
