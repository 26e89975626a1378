"""Objects with a class, a box and a mask: two detectors that look twice each, and the saliency net.

One weak detector is wrong every few pictures, and two still share errors now and then. So an object must be seen in
all four views; a class of which anything is in doubt is left out of the picture altogether, because a prompt that asks
for a class means all of it; and only what no view gives a chance is called absent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.annotators.detection import area, box_iou, intersection
from cavendish.annotate.annotators.protocol import Box, Detection, Detections, Mask
from cavendish.annotate.annotators.saliency import CropSaliency
from cavendish.annotate.config import ObjectThresholds
from cavendish.annotate.labels.quality import colour_separation, edge_align
from cavendish.encoders.expressions.programs import NO, category_match
from cavendish.encoders.sample import UInt8Image

SAME_PLACE_IOU = 0.5
SURFACES = ("bed", "dining table")  # the saliency net cuts out what lies on them
PART_SHARE = 0.8  # a box that lies so far inside another of its class is a part of the same object


@dataclass(frozen=True)
class Agreed:
    """An object all views see: its class, its mean box, its scores in the views."""

    label: str
    box: Box
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Return the geometric mean of the scores."""
        return float(np.prod(self.scores) ** (1 / len(self.scores)))


@dataclass(frozen=True)
class CutOut:
    """An object's mask over the whole picture, how sure each pixel is, and its checks.

    Args:
        probability: (H, W) float32 in [0, 1]; 0 outside the crop.
    """

    object: Agreed
    mask: Mask
    probability: NDArray[np.float32]
    scores: dict[str, float]


def mirrored(found: Detections, width: int) -> Detections:
    """Return the detections of a mirrored picture as they lie in the picture itself."""
    boxes = tuple(
        Detection(one.label, one.score, (width - one.box[2], one.box[1], width - one.box[0], one.box[3]))
        for one in found.boxes
    )
    return Detections(boxes, found.class_scores)


def agreed_objects(views: Sequence[Detections], thresholds: ObjectThresholds) -> list[Agreed]:
    """Return the objects that every view has with the same class, best first, each once."""
    found: list[Agreed] = []
    for one in (one for one in views[0].boxes if one.label not in SURFACES):
        same = [_same_object(one, view, thresholds.min_iou) for view in views[1:]]
        seen = [one, *(other for other in same if other is not None)]
        if len(seen) < len(views):
            continue
        x0, y0, x1, y1 = np.mean([other.box for other in seen], axis=0)
        found.append(Agreed(one.label, (x0, y0, x1, y1), tuple(other.score for other in seen)))
    kept: list[Agreed] = []
    for candidate in sorted(found, key=lambda candidate: -candidate.score):
        apart = all(not _is_part(candidate.box, other.box) for other in kept if other.label == candidate.label)
        if candidate.score >= thresholds.min_score and apart:
            kept.append(candidate)
    return kept


def _same_object(one: Detection, view: Detections, min_iou: float) -> Detection | None:
    matches = [other for other in view.boxes if other.label == one.label and box_iou(one.box, other.box) >= min_iou]
    return max(matches, key=lambda other: other.score, default=None)


def _is_part(inner: Box, outer: Box) -> bool:
    return intersection(inner, outer) >= PART_SHARE * min(area(inner), area(outer))


def contested_boxes(
    views: Sequence[Detections], objects: Sequence[Agreed], thresholds: ObjectThresholds
) -> list[tuple[Detection, bool]]:
    """List what a view sees beside the objects under the name of one of them, or one that could be meant by it.

    Returns:
        Each detection, and whether the others bear it out, so that its class cannot be trusted in this picture.
    """
    labels = {one.label for one in objects}
    seen = [
        (number, one)
        for number, view in enumerate(views)
        for one in view.boxes
        if one.score >= thresholds.contested and _beside(one, objects) and _meant(one.label, labels)
    ]
    found = []
    for number, one in seen:
        again = any(other != number and box_iou(one.box, box.box) >= 0.3 for other, box in seen)
        found.append((one, again or one.score >= 1.5 * thresholds.contested))
    return found


def contested_classes(contested: Sequence[tuple[Detection, bool]], objects: Sequence[Agreed]) -> frozenset[str]:
    """Return the classes of objects that cannot be trusted, because more of them was seen than agreed on."""
    doubtful = {one.label for one, borne_out in contested if borne_out}
    return frozenset(one.label for one in objects if _meant(one.label, doubtful))


def _meant(label: str, asked: Collection[str]) -> bool:
    return any(category_match(one, label) != NO for one in asked)


def _beside(one: Detection, objects: Sequence[Agreed]) -> bool:
    mine = [other for other in objects if category_match(other.label, one.label) != NO]
    return not any(box_iou(other.box, one.box) >= SAME_PLACE_IOU or _is_part(one.box, other.box) for other in mine)


def absent_classes(views: Sequence[Detections], thresholds: ObjectThresholds) -> tuple[str, ...]:
    """Return the classes that no view gives a chance, in the order of the vocabulary."""
    return tuple(
        label
        for label in views[0].class_scores
        if all(view.class_scores[label] < thresholds.max_absent for view in views)
    )


def cut_out(image: UInt8Image, found: Agreed, crop: CropSaliency) -> CutOut:
    """Lay the saliency of an object's crop on the whole picture and make its checked mask of it."""
    x0, y0, x1, y1 = crop.window
    probability = np.zeros(image.shape[:2], np.float32)
    probability[y0:y1, x0:x1] = crop.probability
    mask = _main_parts(probability > 0.5)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    own = (0.0, 0.0, 0.0, 0.0)
    if len(rows):
        own = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    scores = {
        "agreed": found.score,
        "box_iou": box_iou(own, found.box),
        "edge_align": edge_align(image, mask),
        "colour_sep": colour_separation(image, mask),
        "flip_iou": crop.flip_iou,
        "scale_iou": crop.scale_iou,
        "main_part": _main_part(mask),
    }
    return CutOut(found, mask, probability, scores)


def _main_parts(mask: Mask) -> Mask:
    """Keep the parts that are at least a tenth of the largest: an object that something crosses stays whole."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return mask
    kept = stats[:, cv2.CC_STAT_AREA] >= 0.1 * stats[1:, cv2.CC_STAT_AREA].max()
    kept[0] = False
    result: Mask = kept[parts]
    return result


def _main_part(mask: Mask) -> float:
    """Return the share of a mask's pixels in its largest part; 0 for an empty one."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 0.0


def doubts(cuts: Sequence[CutOut], thresholds: ObjectThresholds) -> list[str]:
    """Return for each cut-out "" to keep it, or why it is not believed."""
    limits = {
        "box_iou": thresholds.min_box_iou,
        "flip_iou": thresholds.min_flip_iou,
        "scale_iou": thresholds.min_scale_iou,
        "main_part": thresholds.min_main_part,
        "edge_align": thresholds.min_edge_align,
        "colour_sep": thresholds.min_colour_sep,
    }
    reasons = []
    for cut in cuts:
        failed = [f"{name} {cut.scores[name]:.3f} is under {low:g}" for name, low in limits.items()
                  if cut.scores[name] < low]  # fmt: skip
        for other in cuts:
            shared = int((cut.mask & other.mask).sum()) / max(1, min(int(cut.mask.sum()), int(other.mask.sum())))
            if other is not cut and shared > thresholds.max_overlap:
                failed.append(f"{shared:.0%} of it or of the {other.object.label} is in both")
        reasons.append("; ".join(failed))
    return reasons
