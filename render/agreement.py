"""Compares an engine's own depth, ids and normals with the ray cast's; what differs too much rejects the view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from render.checks import ViewRejected
from render.passes import Truth

CYCLES_TOLERATED = 1e-3
"""Share of pixels whose id may differ from the ray cast's: rays that graze an edge in float32."""
RASTER_TOLERATED = 0.03
"""The same for the rasteriser, which moves corners to 1/256 of a pixel: it loses leaves thinner than a pixel."""
MAX_DEPTH_ERROR = 1e-4
"""Relative depth error, times the cosine between ray and triangle normal, that all but the tolerated share stay under:
where a surface is seen edge-on, float32 rays turn an angle of 1e-7 into any depth error."""
EXACT_DEPTH_ERROR = 1e-5
EXACT_ANGLE_DEG = 0.05
NO_SURFACE_M = 1e9


def depth_errors(depth_m: NDArray[np.float32], same: NDArray[np.bool_], truth: Truth) -> NDArray[np.float64]:
    """Return the depth errors (see MAX_DEPTH_ERROR) of those pixels of `same` that show a surface."""
    surface = same & (truth.instance_ids > 0) & (depth_m > 0) & (depth_m < NO_SURFACE_M)
    rays = truth.rays[surface]
    facing = np.abs((truth.geometric_normals[surface] * rays).sum(axis=-1)) / np.linalg.norm(rays, axis=-1)
    errors: NDArray[np.float64] = np.abs(depth_m[surface] / truth.depth_m[surface] - 1) * facing
    return errors


def away_from_edges(ids: NDArray[np.uint16], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the pixels where neither answer is found among the other's eight neighbours: no edge explains them."""
    differ = ids != others
    explained = np.zeros_like(differ)
    first, second = np.pad(ids.astype(np.int64), 1, mode="edge"), np.pad(others, 1, mode="edge")
    height, width = ids.shape
    for dy in range(3):
        for dx in range(3):
            window = (slice(dy, dy + height), slice(dx, dx + width))
            explained |= (first[window] == others) | (second[window] == ids)
    left: NDArray[np.bool_] = differ & ~explained
    return left


def compare_passes(
    engine: str, depth_m: NDArray[np.float32], indices: NDArray[np.int64], truth: Truth, tolerated: float
) -> dict[str, float]:
    """Compare an engine's depth and object index with the ray cast's.

    Args:
        tolerated: share of pixels that may differ: CYCLES_TOLERATED or RASTER_TOLERATED.

    Returns:
        Share of pixels with another id, and the depth error (see MAX_DEPTH_ERROR) that all but the tolerated share of
        the others stay under.

    Raises:
        ViewRejected: above what is tolerated, or above MAX_DEPTH_ERROR.
    """
    same = indices == truth.instance_ids
    mismatch = float(1 - same.mean())
    errors = depth_errors(depth_m, same, truth)
    worst = float(np.quantile(errors, 1 - tolerated)) if errors.size else 0.0
    if mismatch > tolerated or worst > MAX_DEPTH_ERROR:
        raise ViewRejected(f"{engine} and the ray cast differ: ids at {mismatch:.2%} of pixels, depth by {worst:.2g}")
    return {f"{engine.lower()}_id_mismatch": round(mismatch, 6), f"{engine.lower()}_depth_error": float(f"{worst:.2g}")}


def compare_exactly(
    depth_m: NDArray[np.float32], indices: NDArray[np.int64], normals: NDArray[np.float32], truth: Truth
) -> dict[str, float]:
    """Compare depth, ids and triangle normals that Cycles sees at the very centres of the pixels with the ray cast's.

    Args:
        normals: (H, W, 3) camera-space, facing the viewer.

    Returns:
        Share of pixels with another id, and the errors of depth and of the normals' angle that 99.9 % of the rest stay
        under.

    Raises:
        ViewRejected: another id away from every edge, or above EXACT_DEPTH_ERROR or EXACT_ANGLE_DEG.
    """
    same = indices == truth.instance_ids
    wrong = int(away_from_edges(truth.instance_ids, indices).sum())
    errors = depth_errors(depth_m, same, truth)
    worst = float(np.quantile(errors, 1 - CYCLES_TOLERATED)) if errors.size else 0.0
    seen = same & (truth.instance_ids > 0)
    sine = np.linalg.norm(np.cross(normals[seen], truth.geometric_normals[seen]), axis=-1)
    angles = np.degrees(np.arctan2(sine, (normals[seen] * truth.geometric_normals[seen]).sum(axis=-1)))
    angle = float(np.quantile(angles, 1 - CYCLES_TOLERATED)) if angles.size else 0.0
    mismatch = float(1 - same.mean())
    if wrong or mismatch > CYCLES_TOLERATED or worst > EXACT_DEPTH_ERROR or angle > EXACT_ANGLE_DEG:
        raise ViewRejected(
            f"cross check failed: ids at {wrong} pixels away from edges ({mismatch:.2%} in all), "
            f"depth by {worst:.2g}, normals by {angle:.2g} degrees"
        )
    return {
        "check_id_mismatch": round(mismatch, 6),
        "check_depth_error": float(f"{worst:.2g}"),
        "check_normal_error_deg": float(f"{angle:.2g}"),
    }
