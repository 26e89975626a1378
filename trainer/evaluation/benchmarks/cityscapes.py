"""Cityscapes, fine annotations, val: leftImg8bit/val/CITY/*_leftImg8bit.png and gtFine/val/CITY/*_gtFine_labelIds.png.

Truth is read as labelIds (not trainIds). 500 pictures of 2048x1024; 19 classes; every other id is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from cavendish.trainer.evaluation.benchmarks.files import need_files, need_folder, read_gray, read_rgb, safe_name
from cavendish.trainer.evaluation.benchmarks.prompts import semantic_prompt
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.tasks.semantic import SemanticTruth

CITYSCAPES: Mapping[int, str] = MappingProxyType(
    {
        7: "road",
        8: "sidewalk",
        11: "building",
        12: "wall",
        13: "fence",
        17: "pole",
        19: "traffic light",
        20: "traffic sign",
        21: "vegetation",
        22: "terrain",
        23: "sky",
        24: "person",
        25: "rider",
        26: "car",
        27: "truck",
        28: "bus",
        31: "train",
        32: "motorcycle",
        33: "bicycle",
    }
)
"""labelId to name of the 19 evaluated classes."""


def read_cityscapes(folder: Path, split: str = "val") -> Benchmark:
    """Read a Cityscapes folder that holds `leftImg8bit` and `gtFine`."""
    truths = need_folder(folder, f"gtFine/{split}", what="cityscapes")
    images = need_folder(folder, f"leftImg8bit/{split}", what="cityscapes")
    paths = need_files(list(truths.glob("*/*_gtFine_labelIds.png")), truths, "CITY/*_gtFine_labelIds.png", "cityscapes")
    prompt, spec = semantic_prompt(CITYSCAPES)
    return Benchmark(
        name="cityscapes",
        task="semantic",
        items=tuple(_item(path, images, prompt, spec) for path in paths),
        expected=500 if split == "val" else None,
        classes=CITYSCAPES,
    )


def _item(path: Path, images: Path, prompt: str, spec: Mapping[str, object]) -> Item:
    stem = path.name.removesuffix("_gtFine_labelIds.png")
    image = images / path.parent.name / f"{stem}_leftImg8bit.png"
    return Item(
        name=safe_name(stem),
        prompt=prompt,
        read_image=partial(read_rgb, image),
        read_truth=lambda: SemanticTruth(read_gray(path)),
        spec=spec,
        classes={name: label for label, name in CITYSCAPES.items()},
    )
