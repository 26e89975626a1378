"""Images listed by a COCO json: their files, captions, licences and ids. Boxes and masks in it are not read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.items import Item, Part, clean_text

MAX_JSON_BYTES = 4 * 2**30


def list_coco(root: Path, annotations: Path) -> Iterator[Item]:
    """Yield the images of a COCO json in the order of their ids.

    An image with several captions has the first of them; its licence is the name (or URL) of the one it refers to. The
    image id is kept as `coco_image_id`, which the leakage audit compares with benchmarks made from COCO.

    Args:
        root: folder that `file_name` is relative to.
        annotations: the json.

    Raises:
        InputError: not a COCO json.
    """
    values = _read(annotations)
    licences = {
        str(entry.get("id")): str(entry.get("name") or entry.get("url") or "") for entry in _rows(values, "licenses")
    }
    captions: dict[str, list[tuple[Any, str]]] = defaultdict(list)
    for entry in _rows(values, "annotations"):
        if isinstance(entry.get("caption"), str):
            captions[str(entry.get("image_id"))].append((entry.get("id", 0), entry["caption"]))
    images = _rows(values, "images")
    if not all(isinstance(image.get("id"), int) for image in images):
        raise InputError(f"{annotations}: an image without a number as its id")
    for image in sorted(images, key=lambda image: int(image["id"])):
        name = image.get("file_name")
        facts = {"coco_image_id": str(image["id"])}
        licence = licences.get(str(image.get("license")), "")
        url = image.get("coco_url") or image.get("flickr_url")
        facts |= {"licence": clean_text(licence)} if licence else {}
        facts |= {"url": clean_text(url)} if isinstance(url, str) else {}
        told = min(captions.get(str(image["id"]), [(0, "")]), key=lambda pair: str(pair[0]))[1]
        yield _item(root, name, clean_text(told), facts)


def _item(root: Path, name: Any, caption: str, facts: Mapping[str, str]) -> Item:
    if not isinstance(name, str) or not name:
        return Item("", f"image {facts['coco_image_id']}", problem="no file_name")
    path = PurePosixPath(name)
    try:
        if path.is_absolute() or ".." in path.parts or not (root / path).resolve().is_relative_to(root.resolve()):
            return Item("", name, problem="its file_name leaves the folder")
        size = (root / path).stat().st_size
    except (OSError, ValueError):
        return Item("", name, problem="no such file")
    return Item("", path.as_posix(), image=Part(path.as_posix(), 0, size), caption=caption, facts=facts)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path}: over the limit of {MAX_JSON_BYTES} bytes")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid json: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("images"), list):
        raise InputError(f"{path}: not a COCO json: no list of images in it")
    return values


def _rows(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = values.get(name, [])
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
