"""RefCOCOg (UMD split) and ReasonSeg."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.evaluation.benchmarks.coco_masks import decode_segmentation
from cavendish.trainer.evaluation.benchmarks.files import (
    ODD,
    need_files,
    need_folder,
    read_bytes,
    read_plain_pickle,
    read_rgb,
    safe_name,
)
from cavendish.trainer.evaluation.benchmarks.prompts import referring_prompt
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.tasks.referring import MaskTruth

_TRAIN2014 = ("images/mscoco/images/train2014", "train2014", "images/train2014", "../images/mscoco/images/train2014")


def read_refcocog(folder: Path, split: str = "val") -> Benchmark:
    """Read RefCOCOg, UMD split: `refcocog/refs(umd).p` (or .json), `refcocog/instances.json`, COCO train2014 pictures.

    Every sentence of every ref is one item. The mask is the union of the polygons of the ref's annotation.

    Raises:
        InputError: a file is missing or odd; a pickle that holds more than plain data is refused.
    """
    annotations = need_folder(folder, "refcocog", ".", what="refcocog")
    pictures = need_folder(folder, *_TRAIN2014, what="refcocog (COCO train2014 pictures)")
    instances = read_json(annotations / "instances.json", "RefCOCOg annotations")
    refs = _read_refs(annotations)
    try:
        by_annotation = {entry["id"]: entry for entry in instances["annotations"]}
        by_image = {entry["id"]: entry for entry in instances["images"]}
        items = [
            _refcocog_item(ref, sentence, by_annotation[ref["ann_id"]], by_image[ref["image_id"]], pictures)
            for ref in refs
            if ref["split"] == split
            for sentence in ref["sentences"]
        ]
    except ODD as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{annotations}: refs and instances.json do not fit together: {error!r}") from None
    if not items:
        raise InputError(f"{annotations}: no ref has split {split!r}")
    count = len({str(ref["ref_id"]) for ref in refs if ref["split"] == split})
    return Benchmark(
        name="refcocog",
        task="referring",
        items=tuple(items),
        expected=4896 if split == "val" else None,
        headline="ciou",
        notes=(
            f"{len(items)} sentences of {count} refs, every sentence a sample; codes that score one sentence per ref "
            "(2,573 in val) get another number",
            "the pictures are COCO train2014: training data made from COCO leaks them",
        ),
    )


def _read_refs(annotations: Path) -> list[Any]:
    for stem in ("refs(umd)", "refs_umd"):
        if (annotations / f"{stem}.json").is_file():
            refs = read_json(annotations / f"{stem}.json", "RefCOCOg refs")
            break
        if (annotations / f"{stem}.p").is_file():
            refs = read_plain_pickle(annotations / f"{stem}.p")
            break
    else:
        raise InputError(f"refcocog: no refs(umd).p or refs(umd).json in {annotations}")
    if not isinstance(refs, list):
        raise InputError(f"{annotations}: refs(umd) holds a {type(refs).__name__}, expected a list")
    return refs


def _refcocog_item(ref: Any, sentence: Any, annotation: Any, image: Any, pictures: Path) -> Item:
    prompt, spec = referring_prompt(str(sentence["sent"]).strip())
    segmentation, where = annotation["segmentation"], f"refcocog annotation {annotation['id']}"
    name = safe_name(f"{ref['ref_id']}_{sentence['sent_id']}")
    size = int(image["height"]), int(image["width"])
    return Item(
        name=name,
        prompt=prompt,
        read_image=partial(read_rgb, pictures / Path(image["file_name"]).name),
        read_truth=lambda: MaskTruth(decode_segmentation(segmentation, *size, where)),
        spec=spec,
    )


def read_reasonseg(folder: Path, split: str = "val") -> Benchmark:
    """Read ReasonSeg: `val/NAME.jpg` beside `val/NAME.json` with polygons; only the first sentence counts.

    "flag" shapes are skipped, "ignore" shapes remove their pixels from prediction and truth, larger shapes are painted
    first.

    Source: LISA utils/data_processing.py and ValDataset.
    """
    place = need_folder(folder, split, f"ReasonSeg/{split}", f"reason_seg/ReasonSeg/{split}", what="reasonseg")
    paths = need_files(list(place.glob("*.json")), place, "NAME.json", "reasonseg")
    return Benchmark(
        name="reasonseg",
        task="referring",
        items=tuple(_reasonseg_item(path) for path in paths),
        expected=200 if split == "val" else None,
        headline="giou",
        notes=(
            "first sentence only, as LISA scores it; published figures put a language model in front",
            "pictures come from OpenImages and ScanNet: training data made from them leaks",
        ),
    )


def _reasonseg_item(path: Path) -> Item:
    values = _reasonseg_json(path)
    sentence = str(values["text"][0]).strip()
    prompt, spec = referring_prompt(sentence)
    image = path.with_suffix(".jpg")
    return Item(
        name=safe_name(path.stem),
        prompt=prompt,
        read_image=partial(read_rgb, image),
        read_truth=lambda: _reasonseg_truth(path, values["shapes"], read_rgb(image).shape[:2]),
        spec=spec,
    )


def _reasonseg_json(path: Path) -> Any:
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # a few published files are cp1252
    try:
        values = json.loads(text)
        if not isinstance(values["text"], list) or not values["text"] or not isinstance(values["shapes"], list):
            raise InputError(f"{path}: `text` must be a list with a sentence and `shapes` a list")
        return values
    except (RecursionError, *ODD) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a ReasonSeg annotation: {error!r}") from None


def _points(values: Any, size: tuple[int, ...]) -> NDArray[np.int32]:
    """Return corners (N, 2) that are in or near the picture: OpenCV walks along all of an outline."""
    points = np.array(values, dtype=np.float64).reshape(-1, 2)
    if not len(points) or not np.isfinite(points).all() or np.abs(points).max() > 3 * max(size) + 100:
        raise ValueError("corners that are not x, y pairs in or near the picture")
    return points.astype(np.int32)


def _reasonseg_truth(path: Path, shapes: list[Any], size: tuple[int, ...]) -> MaskTruth:
    painted = []
    for shape in shapes:
        try:
            label, points = str(shape["label"]).lower(), _points(shape["points"], size)
        except ODD as error:
            raise InputError(f"{path}: a shape without label or points: {error!r}") from None
        if label != "flag":
            mask = np.zeros(size, np.uint8)
            cv2.polylines(mask, [points], True, 1, 1)
            cv2.fillPoly(mask, [points], 1)
            painted.append((int(mask.sum()), mask.astype(bool), "ignore" in label))
    values = np.zeros(size, np.uint8)
    # Largest first; the reference reverses an ascending sort, so that of equal areas the later shape comes first.
    for index in np.argsort(np.array([area for area, _, _ in painted], np.int64), kind="stable")[::-1]:
        _, mask, ignored = painted[int(index)]
        values[mask] = 255 if ignored else 1
    return MaskTruth(values == 1, values == 255)
