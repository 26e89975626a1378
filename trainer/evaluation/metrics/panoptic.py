"""Panoptic quality, with the void and crowd rules of panopticapi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

PROTOCOL = "panoptic/1;match IoU>.5"
VOID = 0


@dataclass(frozen=True)
class Panoptic:
    """Segments of one image.

    Args:
        ids: (H, W) integer segment ids; 0 is void.
        categories: segment id to category.
        crowd: ids of true segments that hold several objects.
    """

    ids: NDArray[np.integer[Any]]
    categories: Mapping[int, int]
    crowd: frozenset[int] = field(default_factory=frozenset)


@dataclass
class _Counts:
    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0


def ids_from_rgb(rgb_u8: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read COCO panoptic ids R + 256 G + 65536 B from (H, W, 3) uint8."""
    channels = rgb_u8.astype(np.int64)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def panoptic_metrics(images: Iterable[tuple[Panoptic, Panoptic]]) -> dict[str, Any]:
    """Score (prediction, truth) pairs.

    A predicted and a true segment of one category match when their IoU is above .5, where the union leaves out what
    the prediction paints on void truth. An unmatched prediction that lies by more than half on void, or on crowd of its
    category, is dropped. PQ = sum IoU / (TP + FP / 2 + FN / 2) per category, averaged over those that occur.

    Returns:
        protocol, categories (how many occur), pq, sq, rq (None when none occurs), per_category.

    Raises:
        InputError: an id without a category, or different sizes.

    Source: cocodataset/panopticapi evaluation.py.
    """
    counts: dict[int, _Counts] = {}
    for prediction, truth in images:
        _count(prediction, truth, counts)
    per_category = {}
    for category, count in sorted(counts.items()):
        weight = count.tp + 0.5 * count.fp + 0.5 * count.fn
        if weight:
            sq = count.iou / count.tp if count.tp else 0.0
            per_category[category] = {"pq": count.iou / weight, "sq": sq, "rq": count.tp / weight}
    means = {
        name: float(np.mean([values[name] for values in per_category.values()])) if per_category else None
        for name in ("pq", "sq", "rq")
    }
    return {"protocol": PROTOCOL, "categories": len(per_category), **means, "per_category": per_category}


def _areas(segments: Panoptic, which: str) -> dict[int, int]:
    values, areas = np.unique(segments.ids, return_counts=True)
    found = {int(value): int(area) for value, area in zip(values, areas)}
    unknown = sorted(set(found) - set(segments.categories) - {VOID})
    if unknown:
        raise InputError(f"{which}: segment {unknown[0]} is in the id map and has no category")
    return found


def _count(prediction: Panoptic, truth: Panoptic, counts: dict[int, _Counts]) -> None:
    if prediction.ids.shape != truth.ids.shape:
        raise InputError(f"panoptic ids predicted {prediction.ids.shape}, true {truth.ids.shape}: use nearest")
    predicted, expected = _areas(prediction, "panoptic prediction"), _areas(truth, "panoptic truth")
    span = int(prediction.ids.max()) + 1
    pairs, areas = np.unique(truth.ids.astype(np.int64) * span + prediction.ids, return_counts=True)
    overlap = {(int(pair) // span, int(pair) % span): int(area) for pair, area in zip(pairs, areas)}
    matched_truth: set[int] = set()
    matched_prediction: set[int] = set()
    for (true_id, predicted_id), shared in overlap.items():
        if VOID in (true_id, predicted_id) or true_id in truth.crowd:
            continue
        category = truth.categories[true_id]
        if category != prediction.categories[predicted_id]:
            continue
        union = predicted[predicted_id] + expected[true_id] - shared - overlap.get((VOID, predicted_id), 0)
        if shared / union > 0.5:
            count = counts.setdefault(category, _Counts())
            count.tp += 1
            count.iou += shared / union
            matched_truth.add(true_id)
            matched_prediction.add(predicted_id)
    crowd_of = {truth.categories[i]: i for i in sorted(truth.crowd & set(expected))}
    for true_id in set(expected) - matched_truth - truth.crowd - {VOID}:
        counts.setdefault(truth.categories[true_id], _Counts()).fn += 1
    for predicted_id in set(predicted) - matched_prediction - {VOID}:
        category = prediction.categories[predicted_id]
        outside = overlap.get((VOID, predicted_id), 0) + overlap.get((crowd_of.get(category, -1), predicted_id), 0)
        if outside / predicted[predicted_id] <= 0.5:
            counts.setdefault(category, _Counts()).fp += 1
