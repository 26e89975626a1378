"""The gate before a run with hub models: depth and normals of a picture whose geometry is known.

Flipped axes and inverse depth are the usual mistakes with a new model, and nothing in a model's files tells them. So
each model sees a shaded ball on a tiled floor first. This judges conventions, not how good a model is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cavendish.annotate.annotators.protocol import Annotator, Depth, Failure, Normals, metric_depth_m
from cavendish.annotate.labels.conventions import Vectors, check_conventions
from cavendish.encoders.sample import InputError, UInt8Image

HEIGHT, WIDTH, FOCAL_PX = 384, 512, 440.0
MIN_RANK_CORRELATION = 0.5


@cache
def known_scene() -> tuple[UInt8Image, NDArray[np.float32], Vectors]:
    """Return (H, W, 3) uint8 of a ball on a tiled floor, (H, W) float32 planar metres, (H, W, 3) float32 normals."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(x + 0.5 - WIDTH / 2) / FOCAL_PX, -(y + 0.5 - HEIGHT / 2) / FOCAL_PX, -np.ones(x.shape)], axis=-1)
    floor = np.array([0.0, 0.8, 0.6])
    to_floor = (floor @ np.array([0.0, -1.1, -3.0])) / (rays @ floor)
    to_floor = np.where(to_floor > 0, to_floor, np.inf)
    centre, radius = np.array([0.25, -0.2, -3.2]), 0.8
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    under_root = b**2 - a * c
    to_ball = np.where(under_root > 0, (b - np.sqrt(np.maximum(under_root, 0))) / a, np.inf)
    depth = np.minimum(to_ball, to_floor)
    points = rays * np.where(np.isfinite(depth), depth, 0)[..., None]
    on_ball = to_ball <= to_floor
    normals = np.where(on_ball[..., None], (points - centre) / radius, floor)
    normals[~np.isfinite(depth)] = 0
    light = np.array([-0.45, 0.75, 0.5]) / np.linalg.norm([-0.45, 0.75, 0.5])
    shade = 0.25 + 0.75 * np.maximum(normals @ light, 0)
    tiles = (np.floor(points[..., 0] * 2.5) + np.floor(points[..., 2] * 2.5)) % 2
    colour = np.where(
        on_ball[..., None], (200, 70, 50), np.where(tiles[..., None] > 0, (225, 220, 205), (120, 125, 130))
    )
    colour = np.where(np.isfinite(depth)[..., None], colour * shade[..., None], (170, 200, 230))
    return colour.astype(np.uint8), depth.astype(np.float32), normals.astype(np.float32)


def check_models(depth: Annotator[UInt8Image, Depth] | None, normals: Annotator[UInt8Image, Normals] | None) -> None:
    """Try a depth and a normals annotator, either or both, on the known scene.

    Raises:
        InputError: one fails there, or its axes, sign or direction are not what it declares; says what is.
    """
    image, true_depth_m, true_normals = known_scene()
    found: Depth | None = None
    if depth is not None:
        (result,) = depth.annotate([image])
        if isinstance(result, Failure):
            raise InputError(
                f"{depth.spec.id}: failed on the picture that conventions are checked with: {result.reason}"
            )
        found = result
        check_depth(found, true_depth_m, depth.spec.id)
    if normals is not None:
        (vectors,) = normals.annotate([image])
        if isinstance(vectors, Failure):
            raise InputError(
                f"{normals.spec.id}: failed on the picture that conventions are checked with: {vectors.reason}"
            )
        check_normals(vectors.normals, true_normals, normals.spec.id)
        if found is not None and found.kind == "metric" and found.focal_px is not None:
            check_conventions(metric_depth_m(found), vectors.normals, found.focal_px)


def check_depth(found: Depth, true_depth_m: NDArray[np.float32], name: str) -> float:
    """Check that depth grows with distance, or falls when its kind is "inverse"; return the rank correlation.

    Raises:
        InputError: it does not.
    """
    known = found.valid & np.isfinite(found.values) & np.isfinite(true_depth_m)
    correlation = 0.0
    if known.any() and np.ptp(found.values[known]) > 0:
        correlation = float(spearmanr(found.values[known], true_depth_m[known]).statistic)
    expected = -correlation if found.kind == "inverse" else correlation
    if expected >= MIN_RANK_CORRELATION:
        return correlation
    does = "its values do neither"
    if abs(correlation) >= MIN_RANK_CORRELATION:
        does = f"its values {'grow' if correlation > 0 else 'fall'} with distance"
    raise InputError(
        f'{name}: depth of kind "{found.kind}" should {"fall" if found.kind == "inverse" else "grow"} with distance, '
        f"{does} (rank correlation {correlation:.2f} on a picture of known geometry)"
    )


def check_normals(normals: Vectors, reference: Vectors, name: str, min_cosine: float = 0.5) -> float:
    """Refuse normals whose axes are not ours.

    Args:
        normals: (H, W, 3), of the annotator, on a picture whose geometry is known.
        reference: (H, W, 3), the true normals, (0, 0, 0) unknown.
        min_cosine: the mean cosine that must be reached.

    Returns:
        The mean cosine.

    Raises:
        InputError: too low; names the signs that would fit better if any would.
    """
    known = (reference != 0).any(axis=-1) & (normals != 0).any(axis=-1)
    if not known.any():
        raise InputError(f"{name}: no pixel with a normal to check the convention with")
    ours, theirs = reference[known], normals[known]
    cosines = {
        (sx, sy, sz): float((ours * theirs * np.array((sx, sy, sz))).sum(axis=-1).mean())
        for sx in (1, -1)
        for sy in (1, -1)
        for sz in (1, -1)
    }
    found = cosines[1, 1, 1]
    best = max(cosines, key=lambda signs: cosines[signs])
    if found < min_cosine or (best != (1, 1, 1) and cosines[best] > found + 0.1):
        hint = f"; signs {list(best)} would give {cosines[best]:.2f}" if cosines[best] >= min_cosine else ""
        raise InputError(
            f"{name}: its normals have mean cosine {found:.2f} with known ones, under {min_cosine:g}{hint}"
        )
    return found
