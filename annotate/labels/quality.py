"""Label-free checks of a mask on its picture: does its edge lie on edges, do its sides differ, do the views agree?

No check alone is enough: an inverted mask keeps its edge, an empty one is "certain", and agreement can be agreement on
an error. So all must pass, and a plausible area is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.config import MaskThresholds
from cavendish.encoders.sample import UInt8Image

EDGE_TOLERANCE_PX = 2
BAND_PX = 12

Mask = NDArray[np.bool_]
"""(H, W) bool."""


def edge_align(image: UInt8Image, mask: Mask) -> float:
    """Tell how strong the picture's edges are along the mask's outline, as a mean percentile in [0, 1].

    For each outline pixel: the strongest Lab gradient within 2 px, ranked among the same quantity everywhere in the
    picture, so that 0.5 is what a random line gets. Outline on the picture's border does not count; 0 if none is left.
    Source: ours, after the boundary checks of mask curation pipelines; on good masks of photographs 0.8 to 0.95.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0)
    gradient = np.hypot(cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)).max(axis=-1)
    side = 2 * EDGE_TOLERANCE_PX + 1
    nearby = cv2.dilate(gradient, np.ones((side, side), np.uint8))
    outline = outline_of(mask)
    if not outline.any():
        return 0.0
    ranked = np.sort(nearby, axis=None)
    low, high = (np.searchsorted(ranked, nearby[outline], side=side_of_ties) for side_of_ties in ("left", "right"))
    return float((low + high).mean() / (2 * ranked.size))


def outline_of(mask: Mask) -> Mask:
    """Return the mask's pixels that touch its outside, without the picture's own border."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    outline: Mask = mask & (inner == 0)
    return outline


def colour_separation(image: UInt8Image, mask: Mask) -> float:
    """Return the distance of the mean Lab colours in two 12 px bands along the outline, inside and outside, in
    pooled standard deviations; 0 when a band is empty.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    square = np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
    bits = mask.astype(np.uint8)
    inside = lab[mask & (cv2.erode(bits, square, borderValue=1) == 0)]
    outside = lab[~mask & (cv2.dilate(bits, square, borderValue=0) == 1)]
    if not len(inside) or not len(outside):
        return 0.0
    spread = np.sqrt((inside.var(axis=0).sum() + outside.var(axis=0).sum()) / 2)
    return float(np.linalg.norm(inside.mean(axis=0) - outside.mean(axis=0)) / max(spread, 1e-3))


def uncertain_share(probability: NDArray[np.float32], mask: Mask) -> float:
    """Return the number of undecided pixels (probability 0.2 to 0.8) over the mask's area; 0 for an empty mask."""
    area = int(mask.sum())
    return float(((probability > 0.2) & (probability < 0.8)).sum() / area) if area else 0.0


def pixel_weight(
    probabilities: Sequence[NDArray[np.float32]], unsure: Sequence[tuple[float, float, float, float]]
) -> NDArray[np.float32]:
    """Return how far each pixel's label can be trusted: (H, W) float32, 0 or 1.

    Args:
        probabilities: (H, W) of each mask in the sample; a pixel between 0.2 and 0.8 in one of them is undecided.
        unsure: boxes (x0, y0, x1, y1) in pixels of what may be one more object; where no mask is sure, they count 0.
    """
    undecided = np.zeros(probabilities[0].shape, bool)
    sure = np.zeros(probabilities[0].shape, bool)
    for probability in probabilities:
        undecided |= (probability > 0.2) & (probability < 0.8)
        sure |= probability >= 0.8
    for x0, y0, x1, y1 in unsure:
        inside = (slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1))))
        undecided[inside] |= ~sure[inside]
    return np.where(undecided, np.float32(0), np.float32(1))


def verdict(scores: Mapping[str, float], thresholds: MaskThresholds) -> str:
    """Return "" to keep, or the reason to drop: every score that fails beside its threshold, then all scores."""
    limits = {
        "area": (thresholds.min_area, thresholds.max_area),
        "edge_align": (thresholds.min_edge_align, np.inf),
        "colour_sep": (thresholds.min_colour_sep, np.inf),
        "flip_iou": (thresholds.min_flip_iou, np.inf),
        "scale_iou": (thresholds.min_scale_iou, np.inf),
        "uncertain": (-np.inf, thresholds.max_uncertain),
    }
    failed = [
        f"{name} {scores[name]:.3f} is {'under' if scores[name] < low else 'over'} "
        f"{low if scores[name] < low else high:g}"
        for name, (low, high) in limits.items()
        if not low <= scores[name] <= high
    ]
    if not failed:
        return ""
    return f"{', '.join(failed)} ({', '.join(f'{name} {scores[name]:.3f}' for name in limits)})"
