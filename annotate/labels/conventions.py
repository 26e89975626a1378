"""A gate at the start of a run: do a depth and a normal annotator mean the same axes, sign and direction?

Axis flips, inverse depth and wrong focal lengths are the usual mistakes with new depth and normal models, and all of
them show as disagreement of the normals with those of the depth. Noise in real depth does too, so this judges a
convention on one clear picture, not the samples of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

AGREES_DEG = 11.25
MIN_SHARE = 0.6
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
