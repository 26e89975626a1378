"""Conventions of depth and normals models: axes, sign and direction, tried on an image of known geometry before a run.

Flipped axes, inverse depth and wrong focal lengths are the usual mistakes with a new model, and nothing in its files
tells them. They show as disagreement with the truth, and of the normals with those of the depth. Noise in real depth
does too, so this judges conventions on one clear image, not how good a model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cavendish.annotate.annotators.protocol import Annotator, Depth, Failure, Normals, metric_depth_m
from cavendish.encoders.sample import InputError, UInt8Image

AGREES_DEG = 11.25
MIN_SHARE = 0.6
MIN_RANK_CORRELATION = 0.5
HEIGHT, WIDTH, FOCAL_PX = 384, 512, 440.0  # of the image of known geometry
_SMOOTHING_PX = 1.5

Vectors = NDArray[np.float32]


def normals_of_depth(depth_m: NDArray[np.float32], focal_px: float) -> Vectors:
    """Return (H, W, 3) float32 camera-space normals of a depth map, +x right, +y up, +z toward the viewer.

    Args:
        depth_m: (H, W) planar metres; where it is not finite, and beside it, the normal is (0, 0, 0).
        focal_px: of a camera whose principal point is the centre of the picture.
    """
    height, width = depth_m.shape
    known = np.isfinite(depth_m)
    filled = np.where(known, depth_m, 0).astype(np.float64)
    blurred = cv2.GaussianBlur(filled, (0, 0), _SMOOTHING_PX)
    weight = cv2.GaussianBlur(known.astype(np.float64), (0, 0), _SMOOTHING_PX)
    z = np.divide(blurred, weight, out=np.zeros_like(blurred), where=weight > 0)
    x = (np.arange(width) + 0.5 - width / 2) / focal_px * z
    y = -(np.arange(height)[:, None] + 0.5 - height / 2) / focal_px * z
    points = np.stack([x, y, -z], axis=-1)
    across, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(down, across)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    sure = cv2.erode(known.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) == 1
    unit = np.divide(normals, length, out=np.zeros_like(normals), where=(length > 0) & sure[..., None])
    result: Vectors = unit.astype(np.float32)
    return result


def agreeing_share(normals: Vectors, others: Vectors) -> float:
    """Return the share of pixels, of those both know, where two normal maps differ by less than 11.25 degrees."""
    both = normals.any(axis=-1) & others.any(axis=-1)
    if not both.any():
        return 0.0
    cosine = (normals[both].astype(np.float64) * others[both]).sum(axis=-1)
    return float((cosine > np.cos(np.radians(AGREES_DEG))).mean())


def _signs(signs: list[int]) -> Vectors:
    return np.array(signs, np.float32)


_MISTAKES: Mapping[str, Callable[[NDArray[np.float32], Vectors], tuple[NDArray[np.float32], Vectors]]] = {
    "the normals' x points left": lambda depth, normals: (depth, normals * _signs([-1, 1, 1])),
    "the normals' y points down": lambda depth, normals: (depth, normals * _signs([1, -1, 1])),
    "the normals' z points away from the viewer": lambda depth, normals: (depth, normals * _signs([1, 1, -1])),
    "the normals' y points down and z away (OpenCV)": lambda depth, normals: (depth, normals * _signs([1, -1, -1])),
    "the normals' x points left and y down": lambda depth, normals: (depth, normals * _signs([-1, -1, 1])),
    "the depth is inverse": lambda depth, normals: (
        np.divide(1, depth, out=np.full_like(depth, np.nan), where=depth > 0),
        normals,
    ),
}


def check_conventions(depth_m: NDArray[np.float32], normals: Vectors, focal_px: float) -> float:
    """Check that depth and normals of one picture agree; return the share of pixels that do.

    Args:
        depth_m: (H, W) float32 planar metres, NaN or inf where there is none.
        normals: (H, W, 3) float32 in the frame of `normals_of_depth`.
        focal_px: see `normals_of_depth`.

    Raises:
        InputError: under 60 % agree; the message names the mistake that would explain it, if one does.
    """
    share = agreeing_share(normals_of_depth(depth_m, focal_px), normals)
    if share >= MIN_SHARE:
        return share
    explained = {}
    for mistake, undo in _MISTAKES.items():
        depth, turned = undo(depth_m, normals)
        explained[mistake] = agreeing_share(normals_of_depth(depth, focal_px), turned)
    likely = max(explained, key=lambda mistake: explained[mistake])
    cause = f"it seems that {likely} ({explained[likely]:.0%} would agree)"
    if explained[likely] < MIN_SHARE:
        cause = "no usual mistake of axes explains it; is the depth metric, and the focal length right?"
    raise InputError(f"depth and normals agree on {share:.0%} of the pixels, {MIN_SHARE:.0%} is needed: {cause}")


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
