"""Fingerprints of label maps: masks and depth, compact and comparable in eight turns.

A mask is kept as 64 x 64 bits, depth as the 32 x 32 residual of its logarithm after a smooth surface of fourth degree.
Neither tells what a plain shape is of: boxes, ellipses, bands and smooth slopes are left out on both sides and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.mixing.audit.matching.pdq import DIHEDRAL

LABELS_ALGORITHM = "cavendish-labels/1"
LabelKind = Literal["masks", "depth"]

MASK_SIDE = 64
DEPTH_SIDE = 32
MAX_MASKS = 48
MIN_MASK_CELLS = 40
MAX_MASK_SHARE = 0.85
_PLAIN_IOU = 0.88
_SHRINK_PX = 384
_MIN_KNOWN_CELLS = 0.5
_DEGREE = 4
_MIN_RELIEF = 0.05
"""Of the natural logarithm of depth: a map that is flatter beyond a smooth slope has nothing to tell it by."""


@dataclass(frozen=True)
class LabelPrint:
    """The fingerprint of one label map.

    Args:
        masks: (N, 64, 64) bool, the telling masks, largest first.
        relief: (32, 32) float32 with zero mean and unit variance where known, 0 where not; None when there is no depth
            or it is plain.
        known: (32, 32) bool.
        plain: how many masks or maps were left out as plain.
    """

    masks: NDArray[np.bool_]
    relief: NDArray[np.float32] | None = None
    known: NDArray[np.bool_] | None = None
    plain: int = 0


def print_masks(masks: Iterable[NDArray[np.bool_]]) -> LabelPrint:
    """Fingerprint the masks of one picture, each (H, W) bool; they may overlap."""
    grids = []
    plain = 0
    for mask in masks:
        grid = _mask_grid(mask)
        if not MIN_MASK_CELLS <= grid.sum() <= MAX_MASK_SHARE * grid.size:
            continue
        if is_plain(grid):
            plain += 1
        else:
            grids.append(grid)
    grids.sort(key=lambda grid: (-int(grid.sum()), grid.tobytes()))
    kept = np.stack(grids[:MAX_MASKS]) if grids else np.zeros((0, MASK_SIDE, MASK_SIDE), bool)
    return LabelPrint(kept, plain=plain)


def print_ids(ids: NDArray[Any]) -> LabelPrint:
    """Fingerprint an (H, W) integer map of ids or classes; each value is a mask."""
    factor = max(1, int(np.ceil(max(ids.shape) / _SHRINK_PX)))
    small = ids[factor // 2 :: factor, factor // 2 :: factor]
    values, counts = np.unique(small, return_counts=True)
    big = values[counts >= MIN_MASK_CELLS / MASK_SIDE**2 * small.size / 2]
    return print_masks(small == value for value in big)


def print_depth(depth_m: NDArray[np.floating[Any]]) -> LabelPrint:
    """Fingerprint (H, W) planar depth in any unit; NaN, 0 and infinity are not known."""
    known = np.isfinite(depth_m) & (depth_m > 0)
    nothing = LabelPrint(np.zeros((0, MASK_SIDE, MASK_SIDE), bool), plain=1)
    size = (DEPTH_SIDE, DEPTH_SIDE)
    weight = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    logs = np.log(np.where(known, depth_m, 1)).astype(np.float32)
    mean = cv2.resize(np.where(known, logs, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    cells = weight > 0.02  # a laser scanner fills a twentieth of the pixels
    if cells.mean() < _MIN_KNOWN_CELLS:
        return nothing
    values = mean[cells] / weight[cells]
    y, x = np.nonzero(cells)
    u, v = (x - DEPTH_SIDE / 2) / DEPTH_SIDE, (y - DEPTH_SIDE / 2) / DEPTH_SIDE
    terms = np.stack([u**i * v**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)], axis=1)
    fit, *_ = np.linalg.lstsq(terms, values, rcond=None)
    residual = values - terms @ fit
    spread = float(residual.std())
    if spread < _MIN_RELIEF:
        return nothing
    relief = np.zeros((DEPTH_SIDE, DEPTH_SIDE), np.float32)
    relief[cells] = np.clip((residual - residual.mean()) / spread, -4, 4)
    return LabelPrint(nothing.masks, relief, cells)


def is_plain(grid: NDArray[np.bool_]) -> bool:
    """Tell a shape that chance repeats: a box, an ellipse, a half plane, a polygon of few corners; or all but one."""
    return _plainness(grid if 2 * grid.sum() <= grid.size else ~grid) >= _PLAIN_IOU


def complexity(grid: NDArray[np.bool_]) -> float:
    """Return the outline's length squared over 4 pi times the area: 1 for a disc, 1.27 for a square."""
    contours, _ = cv2.findContours(grid.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    length = sum(cv2.arcLength(contour, True) for contour in contours)
    return float(length**2 / (4 * np.pi * max(int(grid.sum()), 1)))


def _plainness(grid: NDArray[np.bool_]) -> float:
    contours, _ = cv2.findContours(grid.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 1.0
    points = np.concatenate(contours)
    hull = cv2.convexHull(points)
    shapes: list[NDArray[Any]] = [np.round(cv2.boxPoints(cv2.minAreaRect(points))).astype(np.int32)]
    largest = max(contours, key=cv2.contourArea)
    for outline, corners in ((hull, 6), (largest, 5)):
        for tolerance in (0.02, 0.04, 0.06):
            polygon = cv2.approxPolyDP(outline, tolerance * cv2.arcLength(outline, True), True)
            if 3 <= len(polygon) <= corners:
                shapes.append(polygon.reshape(-1, 2))
    drawn = [cv2.fillPoly(np.zeros(grid.shape, np.uint8), [shape.astype(np.int32)], 1) > 0 for shape in shapes]
    drawn.append(_ellipse(grid))
    return max(_iou(shape, grid) for shape in drawn)


def _ellipse(grid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the ellipse with the mask's moments."""
    y, x = np.nonzero(grid)
    centre = np.array([x.mean(), y.mean()])
    covariance = np.cov(np.stack([x, y])) + 1e-3 * np.eye(2)
    v, u = np.mgrid[: grid.shape[0], : grid.shape[1]]
    offset = np.stack([u - centre[0], v - centre[1]], axis=-1)
    distance: NDArray[np.float64] = np.einsum("hwi,ij,hwj->hw", offset, np.linalg.inv(covariance), offset)
    return distance <= 4


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def _mask_grid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    size = (MASK_SIDE, MASK_SIDE)
    grid: NDArray[np.bool_] = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    return grid


def turned_back(grids: NDArray[Any], variant: int) -> NDArray[Any]:
    """Undo on grids (..., S, S) the turn that variant 0 to 7 of `pdq.DIHEDRAL` stands for."""
    transpose, flip_x, flip_y = DIHEDRAL[variant]
    if transpose:
        grids = np.swapaxes(grids, -1, -2)
    if flip_y:
        grids = grids[..., ::-1, :]
    return np.ascontiguousarray(grids[..., ::-1] if flip_x else grids)
