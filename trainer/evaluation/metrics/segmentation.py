"""Semantic and referring segmentation metrics.

Semantic: one confusion matrix over all pixels of all images (the Cityscapes rules). Referring: intersections and unions
per expression, summed (cIoU) or averaged (gIoU).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

SEMANTIC_PROTOCOL = "semantic/1;iou=confusion over all pixels;void predictions are misses"
REFERRING_PROTOCOL = "referring/1;gIoU=mean I/(U+1e-5), empty and empty = 1;cIoU=sum I/sum U"
_PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)


def semantic_confusion(
    prediction: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    classes: Sequence[int],
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        prediction, truth: (H, W) integer ids; an id not in `classes` is void.
        classes: the K ids that are evaluated.

    Returns:
        (K + 1, K + 1) int64, truth by prediction; the last row and column are void.

    Raises:
        InputError: shapes differ.
    """
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise InputError(
            f"labels predicted {prediction.shape}, true {truth.shape}: both must be one (H, W); use nearest"
        )
    true_index, predicted_index = _index(truth, classes), _index(prediction, classes)
    size = len(classes) + 1
    counts = np.bincount((true_index * size + predicted_index).ravel(), minlength=size * size)
    return counts.reshape(size, size).astype(np.int64)


def _index(labels: NDArray[np.integer[Any]], classes: Sequence[int]) -> NDArray[np.int64]:
    """Map ids to their place in `classes`, anything else to len(classes)."""
    if len(set(classes)) != len(classes):
        raise InputError(f"classes {list(classes)}: an id occurs twice")
    order = np.argsort(classes)
    ordered = np.asarray(classes, np.int64)[order]
    place = np.clip(np.searchsorted(ordered, labels), 0, len(classes) - 1)
    return np.where(ordered[place] == labels, order[place], len(classes))


def semantic_metrics(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], names: Sequence[str]
) -> dict[str, Any]:
    """Measure the label map of one image: mean IoU, pixel accuracy, IoU of each class.

    Args:
        prediction, truth: (H, W) integers: positions in `names`, as `decode_semantic` returns them; others are void.
        names: of the classes.

    Returns:
        See `semantic_set_metrics`.

    Raises:
        InputError: shapes differ.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[0, 0, 1, 1]])
        >>> cavendish.semantic_metrics(np.array([[0, 0, 0, 1]]), truth, ["road", "car"])["iou"]
        {'road': 0.6666666666666666, 'car': 0.5}
    """
    return semantic_set_metrics(semantic_confusion(prediction, truth, range(len(names))), names)


def semantic_set_metrics(confusion: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Score a confusion matrix (of one image, or the sum over a set) by the Cityscapes rules.

    IoU = TP / (TP + FP + FN). FN counts the rest of the class's truth, predictions of void included; FP counts only
    where the truth is one of the classes. A class with no pixel in truth or prediction has no IoU and is not averaged.

    Args:
        confusion: (K + 1, K + 1) from `semantic_confusion`, summed over images.
        names: the K class names.

    Returns:
        protocol, pixels (of true classes), miou (None when no class occurs), pixel_accuracy, iou (name to IoU or None).

    Source: cityscapesScripts evalPixelLevelSemanticLabeling.
    """
    classes = len(names)
    if confusion.shape != (classes + 1, classes + 1):
        raise InputError(f"confusion {confusion.shape} for {classes} classes: expected ({classes + 1}, {classes + 1})")
    known = confusion[:classes]
    hit = np.diag(known)
    union = known.sum(axis=1) + known[:, :classes].sum(axis=0) - hit
    ious = [float(h) / float(u) if u else None for h, u in zip(hit, union)]
    found = [iou for iou in ious if iou is not None]
    pixels = int(known.sum())
    return {
        "protocol": SEMANTIC_PROTOCOL,
        "pixels": pixels,
        "miou": float(np.mean(found)) if found else None,
        "pixel_accuracy": float(hit.sum()) / pixels if pixels else None,
        "iou": dict(zip(names, ious)),
    }


@dataclass(frozen=True)
class MaskOverlap:
    """Pixels two masks share, pixels either covers."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union; two empty masks agree (1)."""
        return self.intersection / self.union if self.union else 1.0


def mask_overlap(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None
) -> MaskOverlap:
    """Compare two (H, W) bool masks; pixels of `ignore` are removed from both.

    Raises:
        InputError: shapes differ.
    """
    if prediction.shape != truth.shape:
        raise InputError(f"mask predicted {prediction.shape}, true {truth.shape}: shapes must agree; use nearest")
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    return MaskOverlap(int((prediction & truth).sum()), int((prediction | truth).sum()))


def referring_metrics(overlaps: Iterable[MaskOverlap]) -> dict[str, Any]:
    """Score a set of expressions, each one sample.

    Returns:
        protocol, expressions, ciou (sum I / sum U: large objects weigh more), giou (mean of I / (U + 1e-5), and 1 where
        both masks are empty: each expression weighs the same), precision_at (share of expressions with IoU above
        .5 .. .9). Values are None for an empty set.

    Source: LISA validate and intersectionAndUnionGPU (foreground class); lichengunc/refer for cIoU.
    """
    items = list(overlaps)
    protocol = {"protocol": REFERRING_PROTOCOL, "expressions": len(items)}
    if not items:
        return {**protocol, "ciou": None, "giou": None, "precision_at": {}}
    shares = [1.0 if item.union == 0 else item.intersection / (item.union + 1e-5) for item in items]
    exact = np.array([item.iou for item in items])
    return {
        **protocol,
        "ciou": sum(i.intersection for i in items) / (sum(i.union for i in items) + 1e-10),
        "giou": float(np.mean(shares)),
        "precision_at": {f"{level:g}": float((exact > level).mean()) for level in _PRECISION_AT},
    }
