"""Checks of a view: is it worth keeping, do its labels agree with one another, and with the engine's own passes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.mesh import Placed
from cavendish.render.labels.passes import Truth
from cavendish.render.scenes.recipe import Recipe, pose_matrix

MIN_DEPTH_M = 0.12
MIN_THING_SHARE = 0.004
MAX_DERIVED_ANGLE_DEG = 0.1
MAX_DERIVED_SHARE = 0.15
"""Share of the pixels on flat ground whose normal may differ from that of their depth: strips a pixel wide (skirting
boards, shelves), where both neighbours are on a parallel plane. Up to 3 % at 64 x 64, under 1 % at 256 x 256."""
BOX_TOLERANCE = 1e-5
"""How far outside its own box a seen point of a thing may be, relative to its distance from the camera."""
MAX_ID_MISMATCH = 1e-3
"""Share of pixels whose id may differ from the ray cast's: rays that graze an edge in float32."""
MAX_RASTER_MISMATCH = 0.01
MAX_DEPTH_ERROR = 1e-4
"""Relative depth error, times the cosine between ray and triangle normal, that all but MAX_ID_MISMATCH of the others
stay under: where a surface is seen edge-on, float32 rays turn an angle of 1e-7 into any depth error."""
EXACT_DEPTH_ERROR = 1e-5
EXACT_ANGLE_DEG = 0.05
NO_SURFACE_M = 1e9


class ViewRejected(Exception):
    """This view is not worth keeping, or its passes disagree; the message is a fixed reason, a colon, and details."""


def check_view(recipe: Recipe, scene: Sequence[Placed], truth: Truth) -> None:
    """Check a view before it is painted.

    Raises:
        ViewRejected: too near, too empty, filled by one thing, or labels that contradict each other.
    """
    check_content(recipe, truth)
    check_normals(truth)
    check_boxes(recipe, scene, truth)


def check_content(recipe: Recipe, truth: Truth) -> None:
    """Check that there is enough to see, and that nothing fills the picture.

    Raises:
        ViewRejected: there is not, or it does.
    """
    pixels = truth.instance_ids.size
    seen = truth.instance_ids > 0
    nearest = float(truth.depth_m.min())
    if not seen.any() or nearest < MIN_DEPTH_M:
        raise ViewRejected(f"too near: something is {nearest:.2f} m before the camera (at least {MIN_DEPTH_M} m)")
    counts = np.bincount(truth.instance_ids.ravel(), minlength=max(thing.id for thing in recipe.things) + 1)
    things = [thing for thing in recipe.things if thing.is_thing]
    shares = [(counts[thing.id] / pixels, thing) for thing in things]
    large = sum(share >= MIN_THING_SHARE for share, _ in shares)
    wanted = 2 if recipe.kind in ("outdoor", "long range") else 3
    if large < wanted:
        raise ViewRejected(
            f"too empty: {large} things of at least {MIN_THING_SHARE:.1%} of the picture, {wanted} wanted"
        )
    for share, thing in shares:
        most = 0.7 if thing.category in ("table", "desk", "coffee table") and recipe.kind == "table top" else 0.4
        if share > most:
            raise ViewRejected(f"filled by one thing: a {thing.category} covers {share:.0%} of the picture")
    structures = max((counts[thing.id] / pixels for thing in recipe.things if not thing.is_thing), default=0)
    if structures > 0.8:
        raise ViewRejected(f"filled by one surface: it covers {structures:.0%} of the picture")


def check_normals(truth: Truth) -> None:
    """Check both kinds of normals: unit length, facing the viewer, zero exactly where there is no surface.

    Those of the triangles must also be the ones that follow from depth, where neighbouring pixels lie on one plane.

    Raises:
        ViewRejected: they do not agree.
    """
    seen = truth.instance_ids > 0
    if (np.isfinite(truth.depth_m) != seen).any():
        raise ViewRejected("labels disagree: depth and ids on where there is a surface")
    for normals in (truth.normals, truth.geometric_normals):
        if normals[~seen].any():
            raise ViewRejected("labels disagree: normals and ids on where there is a surface")
        if np.abs(np.linalg.norm(normals[seen], axis=-1) - 1).max() > 1e-4:
            raise ViewRejected("labels disagree: normals are not unit vectors")
        if ((normals * truth.rays).sum(axis=-1)[seen] > 1e-6).any():
            raise ViewRejected("labels disagree: normals look away from the viewer")
    flat, angle_deg = derived_angles(truth)
    wrong = float((angle_deg[flat] > MAX_DERIVED_ANGLE_DEG).mean()) if flat.any() else 0.0
    if wrong > MAX_DERIVED_SHARE:
        raise ViewRejected(f"labels disagree: normals and depth at {wrong:.1%} of the pixels on flat ground")


def derived_angles(truth: Truth) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Compare triangle normals with those that follow from depth.

    Returns:
        (H, W) bool: pixels with a neighbour left or right, and one above or below, of the same thing and normal; and
        (H, W) float64: the angle there in degrees between the normal and the cross product of the two steps. Of two
        such neighbours the one whose step is nearer to the plane is taken: the other may be on a parallel plane.
    """
    points = truth.rays * np.where(np.isfinite(truth.depth_m), truth.depth_m, 0)[..., None]
    steps, usable = [], truth.instance_ids > 0
    for axis in (1, 0):
        best = np.full(truth.depth_m.shape, np.inf)
        step = np.zeros_like(points)
        for shift in (-1, 1):
            other = np.roll(points, -shift, axis) - points
            same = np.roll(truth.instance_ids, -shift, axis) == truth.instance_ids
            same &= np.abs(np.roll(truth.geometric_normals, -shift, axis) - truth.geometric_normals).max(-1) < 1e-6
            edge: list[slice | int] = [slice(None), slice(None)]
            edge[axis] = -1 if shift == 1 else 0
            same[tuple(edge)] = False
            away = np.where(same, np.abs((other * truth.geometric_normals).sum(axis=-1)), np.inf)
            nearer = away < best
            best[nearer], step[nearer] = away[nearer], shift * other[nearer]
        steps.append(step)
        usable = usable & np.isfinite(best)
    derived = np.cross(steps[1], steps[0])  # down x right looks at the viewer: +y is up, rows go down
    length = np.linalg.norm(derived, axis=-1)
    sine = np.linalg.norm(np.cross(derived, truth.geometric_normals), axis=-1) / np.maximum(length, 1e-300)
    cosine = (derived * truth.geometric_normals).sum(axis=-1)
    angles = np.degrees(np.arctan2(sine * length, cosine))
    return usable, angles


def check_boxes(recipe: Recipe, scene: Sequence[Placed], truth: Truth) -> None:
    """Check ids and depth against the boxes of the things: every seen point of a thing lies within the thing's own.

    Raises:
        ViewRejected: one does not.
    """
    pose = pose_matrix(recipe.camera)
    for placed in scene:
        mask = truth.instance_ids == placed.thing.id
        if not mask.any():
            continue
        depth = truth.depth_m[mask][:, None]
        world = pose[:3, 3] + truth.rays[mask] * depth @ pose[:3, :3].T
        local = (world - placed.matrix[:3, 3]) @ placed.matrix[:3, :3]
        low, high = placed.mesh.vertices.min(axis=0), placed.mesh.vertices.max(axis=0)
        outside = np.maximum(low - local, local - high) - BOX_TOLERANCE * depth
        if outside.max() > 0:
            raise ViewRejected(
                f"labels disagree: a {placed.thing.category} is seen {outside.max():.2g} m outside its box"
            )


def depth_errors(depth_m: NDArray[np.float32], same: NDArray[np.bool_], truth: Truth) -> NDArray[np.float64]:
    """Return the depth errors (see MAX_DEPTH_ERROR) of those pixels of `same` that show a surface."""
    surface = same & (truth.instance_ids > 0) & (depth_m > 0) & (depth_m < NO_SURFACE_M)
    rays = truth.rays[surface]
    facing = np.abs((truth.geometric_normals[surface] * rays).sum(axis=-1)) / np.linalg.norm(rays, axis=-1)
    errors: NDArray[np.float64] = np.abs(depth_m[surface] / truth.depth_m[surface] - 1) * facing
    return errors


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


def compare_passes(depth_m: NDArray[np.float32], indices: NDArray[np.int64], truth: Truth) -> dict[str, float]:
    """Compare the depth and object index that Cycles writes beside a picture with the ray cast's.

    Returns:
        Share of pixels with another id; and the depth error (see MAX_DEPTH_ERROR) that 99.9 % of the others stay under.

    Raises:
        ViewRejected: above MAX_ID_MISMATCH or MAX_DEPTH_ERROR.
    """
    same = indices == truth.instance_ids
    mismatch, worst = float(1 - same.mean()), _most(depth_errors(depth_m, same, truth), MAX_ID_MISMATCH)
    if mismatch > MAX_ID_MISMATCH or worst > MAX_DEPTH_ERROR:
        raise ViewRejected(f"Cycles and the ray cast differ: ids at {mismatch:.2%} of pixels, depth by {worst:.2g}")
    return {"cycles_id_mismatch": round(mismatch, 6), "cycles_depth_error": _short(worst)}


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


def _most(errors: NDArray[np.float64], left_out: float) -> float:
    return float(np.quantile(errors, 1 - left_out)) if errors.size else 0.0


def _angles_deg(normals: NDArray[np.float32], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) angles between two lists of unit vectors; what is not of unit length is 180 degrees off."""
    sine = np.linalg.norm(np.cross(normals, others), axis=-1)
    angles = np.degrees(np.arctan2(sine, (normals * others).sum(axis=-1)))
    return np.where(np.abs(np.linalg.norm(normals, axis=-1) - 1) < 1e-3, angles, 180.0)


def _short(value: float) -> float:
    return float(f"{value:.2g}")


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
