"""COCO mask AP through pycocotools.

Generated pictures carry no scores, and with equal scores AP depends on the input's order (a stable sort on -score).
Score instances by a decoder's confidence where there is one, and report the score-free F1 of `instances` beside AP.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.instances import Masks, encode_masks

PROTOCOL = "coco/1;segm AP .50:.05:.95;maxDets 100"
_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")


@dataclass(frozen=True)
class ScoredImage:
    """Instances of one picture as COCO run lengths; made by `scored_image`."""

    size: tuple[int, int]
    predicted: tuple[tuple[Any, float, int], ...]
    expected: tuple[tuple[Any, int, bool], ...]


def scored_image(
    prediction: Masks,
    scores: Sequence[float],
    truth: Masks,
    categories: Sequence[int] | None = None,
    truth_categories: Sequence[int] | None = None,
    crowd: Sequence[bool] | None = None,
) -> ScoredImage:
    """Pack one picture's instances for `average_precision`.

    Args:
        prediction, truth: (N, H, W) and (M, H, W) bool masks; `scores` has N entries.
        categories, truth_categories: N and M integers; None means that there is one category.
        crowd: M flags; None means no crowd.

    Raises:
        InputError: a list is not as long as its masks.
    """
    predicted_lists = (prediction, scores, categories if categories is not None else [1] * len(prediction))
    true_lists = (
        truth,
        truth_categories if truth_categories is not None else [1] * len(truth),
        crowd if crowd is not None else [False] * len(truth),
    )
    for lists in (predicted_lists, true_lists):
        if len({len(values) for values in lists}) > 1:
            raise InputError(f"masks and their lists are {[len(v) for v in lists]} long; each must be as its masks")
    return ScoredImage(
        (truth.shape[1], truth.shape[2]),
        tuple(
            (run, float(s), int(c))
            for run, s, c in zip(encode_masks(prediction), predicted_lists[1], predicted_lists[2])
        ),
        tuple((run, int(c), bool(flag)) for run, c, flag in zip(encode_masks(truth), true_lists[1], true_lists[2])),
    )


def average_precision(images: Iterable[ScoredImage]) -> dict[str, Any]:
    """Score a set with COCO's mask AP.

    Returns:
        protocol, images, instances, ap, ap50, ap75, ap_small (area < 32^2), ap_medium, ap_large (> 96^2), ar1, ar10,
        ar100. A value is None where COCO prints -1 (no true instance of that size).
    """
    truth: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": []}
    results: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        truth["images"].append({"id": image_id, "height": image.size[0], "width": image.size[1]})
        truth["annotations"] += [
            {
                "image_id": image_id,
                "category_id": category,
                "segmentation": run,
                "area": int(coco_mask.area(run)),
                "bbox": [float(v) for v in coco_mask.toBbox(run)],
                "iscrowd": int(crowd),
            }
            for run, category, crowd in image.expected
        ]
        results += [
            {"image_id": image_id, "category_id": category, "segmentation": run, "score": score}
            for run, score, category in image.predicted
        ]
    for number, annotation in enumerate(truth["annotations"], start=1):
        annotation["id"] = number
    categories = sorted({annotation["category_id"] for annotation in truth["annotations"]})
    truth["categories"] = [{"id": category, "name": str(category)} for category in categories]
    counts = {"protocol": PROTOCOL, "images": len(truth["images"]), "instances": len(truth["annotations"])}
    if not truth["annotations"]:
        return {**counts, **dict.fromkeys(_NAMES)}
    return {**counts, **_run(truth, results)}


def _run(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float | None]:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) if value >= 0 else None for name, value in zip(_NAMES, evaluation.stats)}
