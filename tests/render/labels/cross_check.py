"""Compares an engine's passes at the very centers of the pixels with the ray cast's labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cavendish.render.labels.checks import MAX_DEPTH_ERROR, MAX_ID_MISMATCH, ViewRejected, _most, _short, depth_errors
from cavendish.render.labels.passes import Truth

MAX_RASTER_MISMATCH = 0.01
EXACT_DEPTH_ERROR = 1e-5
EXACT_ANGLE_DEG = 0.05


def away_from_edges(ids: NDArray[np.uint16], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the pixels with another id that is not found in `ids` at any of the eight around: no edge explains it."""
    explained = ids == others
    around = np.pad(ids.astype(np.int64), 1, mode="edge")
    height, width = ids.shape
    for dy in range(3):
        for dx in range(3):
            explained |= around[dy : dy + height, dx : dx + width] == others
    unexplained: NDArray[np.bool_] = ~explained
    return unexplained


def compare_raster(depth_m: NDArray[np.float32], indices: NDArray[np.int64], truth: Truth) -> dict[str, float]:
    """Compare a rasteriser's depth and ids with the ray cast's.

    A rasteriser moves corners to 1/256 of a pixel and loses blades and leaves thinner than a pixel (0.3 % of a picture
    with trees): only ids that no edge explains count, and the worst 3 % of depths do not.

    Returns:
        Share of pixels with another id, at edges or not; and the depth error that 97 % of the others stay under.

    Raises:
        ViewRejected: above MAX_RASTER_MISMATCH away from edges, or above MAX_DEPTH_ERROR.
    """
    same = indices == truth.instance_ids
    wrong = float(away_from_edges(truth.instance_ids, indices).mean())
    worst = _most(depth_errors(depth_m, same, truth), 0.03)
    if wrong > MAX_RASTER_MISMATCH or worst > MAX_DEPTH_ERROR:
        raise ViewRejected(
            f"pyrender and the ray cast differ: ids at {wrong:.2%} of pixels, edges aside, depth by {worst:.2g}"
        )
    return {"pyrender_id_mismatch": round(float(1 - same.mean()), 6), "pyrender_depth_error": _short(worst)}


def _angles_deg(normals: NDArray[np.float32], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) angles between two lists of unit vectors; what is not of unit length is 180 degrees off."""
    sine = np.linalg.norm(np.cross(normals, others), axis=-1)
    angles = np.degrees(np.arctan2(sine, (normals * others).sum(axis=-1)))
    return np.where(np.abs(np.linalg.norm(normals, axis=-1) - 1) < 1e-3, angles, 180.0)


def compare_exactly(
    depth_m: NDArray[np.float32], indices: NDArray[np.int64], normals: NDArray[np.float32], truth: Truth
) -> dict[str, float]:
    """Compare depth, ids and triangle normals that Cycles sees at the very centres of the pixels with the ray cast's.

    Args:
        normals: (H, W, 3) camera-space, facing the viewer.

    Returns:
        Share of pixels with another id; the depth error that 99 %, and the angle between normals that 99.9 % of the
        rest stay under. (The last hundredth of depths: slivers, on which Cycles' own float32 distances are worse.)

    Raises:
        ViewRejected: another id away from every edge, above MAX_ID_MISMATCH, EXACT_DEPTH_ERROR or EXACT_ANGLE_DEG, or
            0.1 % of depths above MAX_DEPTH_ERROR.
    """
    same = indices == truth.instance_ids
    wrong = int(away_from_edges(truth.instance_ids, indices).sum())
    errors = depth_errors(depth_m, same, truth)
    worst, slivers = _most(errors, 0.01), _most(errors, MAX_ID_MISMATCH)
    seen = same & (truth.instance_ids > 0)
    angle = _most(_angles_deg(normals[seen], truth.geometric_normals[seen]), MAX_ID_MISMATCH)
    mismatch = float(1 - same.mean())
    depth_off = worst > EXACT_DEPTH_ERROR or slivers > MAX_DEPTH_ERROR
    if wrong or mismatch > MAX_ID_MISMATCH or depth_off or angle > EXACT_ANGLE_DEG:
        raise ViewRejected(
            f"cross check failed: ids at {wrong} pixels away from edges ({mismatch:.2%} in all), "
            f"depth by {worst:.2g} (0.1 %: {slivers:.2g}), normals by {angle:.2g} degrees"
        )
    return {
        "check_id_mismatch": round(mismatch, 6),
        "check_depth_error": _short(worst),
        "check_normal_error_deg": _short(angle),
    }
