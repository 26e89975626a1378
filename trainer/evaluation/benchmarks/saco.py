"""SA-Co/Gold: seven subsets of (picture, noun phrase) pairs, each annotated by three people.

Annotations: gold_SUBSET_merged_{a,b,c}_release_test.json; pictures: MetaCLIP and SA-1B folders beside them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.evaluation.benchmarks.coco_masks import decode_segmentation
from cavendish.trainer.evaluation.benchmarks.files import ODD, read_rgb, safe_name
from cavendish.trainer.evaluation.benchmarks.prompts import instance_prompt
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.tasks.instance import InstancesTruth

SUBSETS = ("metaclip", "sa1b", "crowded", "fg_food", "fg_sports_equipment", "attributes", "wiki_common")
_PICTURES = ("", "images", "metaclip-images", "sa1b-images", "metaclip", "sa1b", "gold_images")
_PLACES = ("", "annotations", "gt-annotations", "gold_annotations")
_NOTE = (
    "pairs that are not exhaustively annotated are left out; each pair is scored against its most favourable annotator"
)


def read_saco_gold(folder: Path) -> Benchmark:
    """Read SA-Co/Gold: the subsets whose three annotation files are in `folder` (or its `annotations`).

    Raises:
        InputError: no subset, an incomplete subset, or annotation files that do not belong together.
    """
    items: list[Item] = []
    found = []
    for subset in SUBSETS:
        files = [_annotation_file(folder, subset, annotator) for annotator in "abc"]
        if not any(files):
            continue
        if not all(files):
            missing = "abc"[files.index(None)]
            raise InputError(f"saco-gold: {subset} lacks gold_{subset}_merged_{missing}_release_test.json in {folder}")
        found.append(subset)
        items += _subset_items(subset, [path for path in files if path], folder)
    if not found:
        raise InputError(f"saco-gold: no gold_SUBSET_merged_a_release_test.json in {folder}")
    notes = [_NOTE]
    if len(found) < len(SUBSETS):
        notes.append(f"only {', '.join(found)} of the 7 subsets: the published average is over all 7")
    return Benchmark(name="saco-gold", task="instance", items=tuple(items), notes=tuple(notes))


def _annotation_file(folder: Path, subset: str, annotator: str) -> Path | None:
    name = f"gold_{subset}_merged_{annotator}_release_test.json"
    return next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None)


def _subset_items(subset: str, files: list[Path], folder: Path) -> list[Item]:
    annotators = [_read_annotator(path) for path in files]
    images = annotators[0][0]
    excluded = {
        key for others, _ in annotators[1:] for key, image in others.items() if not image["is_instance_exhaustive"]
    }
    items = []
    for key, image in images.items():
        if not image["is_instance_exhaustive"] or key in excluded:
            continue
        prompt, spec = instance_prompt(str(image["text_input"]))
        segmentations = [annotations.get(key, []) for _, annotations in annotators]
        size = int(image["height"]), int(image["width"])
        items.append(
            Item(
                name=safe_name(subset, str(key)),
                prompt=prompt,
                read_image=partial(_read_picture, folder, str(image["file_name"])),
                read_truth=partial(_read_masks, segmentations, size, f"saco-gold {subset} {key}"),
                spec=spec,
                group=subset,
            )
        )
    return items


def _read_annotator(path: Path) -> tuple[dict[int, Any], dict[int, list[Any]]]:
    values = read_json(path, "SA-Co/Gold annotations")
    by_image: dict[int, list[Any]] = {}
    try:
        images = {int(image["id"]): image for image in values["images"]}
        for image in images.values():
            image["is_instance_exhaustive"], image["text_input"], image["file_name"]
            image["height"], image["width"] = int(image["height"]), int(image["width"])
        for annotation in values["annotations"]:
            if not annotation.get("iscrowd", annotation.get("is_crowd", 0)):
                by_image.setdefault(int(annotation["image_id"]), []).append(annotation["segmentation"])
    except ODD as error:
        raise InputError(f"{path}: not an SA-Co annotation file: {error!r}") from None
    return images, by_image


def _read_picture(folder: Path, name: str) -> Any:
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"saco-gold: picture name {name!r} leads out of the folder")
    for place in _PICTURES:
        if (folder / place / relative).is_file():
            return read_rgb(folder / place / relative)
    raise InputError(f"saco-gold: no picture {name} in {folder} (looked in {', '.join(p or '.' for p in _PICTURES)})")


def _read_masks(segmentations: list[list[Any]], size: tuple[int, int], where: str) -> InstancesTruth:
    annotators = []
    for entries in segmentations:
        masks = [decode_segmentation(entry, *size, where) for entry in entries]
        annotators.append(np.stack(masks) if masks else np.zeros((0, *size), bool))
    return InstancesTruth(tuple(annotators))
