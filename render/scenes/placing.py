"""Moves things of a finished scene: where one could stand instead, without touching others and without floating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Camera
from cavendish.render.geometry.meshes import Placed, model_top, place
from cavendish.render.labels.passes import nearest_hit, project_box
from cavendish.render.scenes.layout import footprint, overlap, rounded
from cavendish.render.scenes.recipe import Thing, pose_matrix

REST_GAP_M = 0.004
"""A thing rests when what is below its middle and its four sides is at most this far down (or this far up)."""
LIFT_M = 0.05


def world_box(placed: Placed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest corner of a thing's box along the world's axes, metres."""
    points = placed.mesh.vertices @ placed.matrix[:3, :3].T + placed.matrix[:3, 3]
    return points.min(axis=0), points.max(axis=0)


def is_free(placed: Placed, others: Sequence[Placed]) -> bool:
    """Tell whether a thing stands clear of all others: of the boxes of things, of the triangles of structures."""
    low, high = world_box(placed)
    for other in others:
        if any(other.thing.tilt) or any(placed.thing.tilt):
            other_low, other_high = world_box(other)
            apart = bool((low >= other_high).any() or (other_low >= high).any())
        elif other.thing.is_thing:
            apart = not overlap(footprint(placed.thing), footprint(other.thing), 0.005)
        else:
            apart = _clear_of_triangles(low, high, other)
        if not apart:
            return False
    return True


def _clear_of_triangles(low: NDArray[np.float64], high: NDArray[np.float64], other: Placed) -> bool:
    points = other.mesh.vertices @ other.matrix[:3, :3].T + other.matrix[:3, 3]
    corners = points[other.mesh.faces]
    first, last = corners.min(axis=1), corners.max(axis=1)
    return not bool(((first < high) & (last > low)).all(axis=1).any())


def rests(placed: Placed, others: Sequence[Placed]) -> bool:
    """Tell whether a thing stands on something level: rays down from its middle and near its four sides."""
    thing = placed.thing
    half = np.array(thing.size_m[:2]) * 0.4
    down = np.array([0.0, 0.0, -1.0])
    for x, y in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        local = np.array([x * half[0], y * half[1], 0.0])
        start = placed.matrix[:3, :3] @ local + placed.matrix[:3, 3] + [0, 0, LIFT_M]
        if abs(nearest_hit(others, start, down) - LIFT_M) > REST_GAP_M:
            return False
    return True


def beside(
    placed: Placed, reference: Placed, camera: Camera, side: str, others: Sequence[Placed], rng: np.random.Generator
) -> Placed | None:
    """Place a thing to the "left" or "right", as the camera sees it, of another one, on what that one stands on.

    Args:
        others: all of the scene but the thing itself.
    """
    right = pose_matrix(camera)[:3, 0].copy()
    right[2] = 0
    right /= np.linalg.norm(right)
    away = right if side == "right" else -right
    back = np.array([-right[1], right[0], 0.0])
    reach = sum(_reach(one, away) for one in (placed, reference))
    gap = float(rng.uniform(0.05, 0.5)) * max(reach, 0.05)
    shift = float(rng.uniform(-0.25, 0.25)) * _reach(reference, back)
    at = np.array(reference.thing.position_m) + (reach + gap) * away + shift * back
    moved = replace(placed.thing, position_m=rounded(at), rests_on=reference.thing.rests_on)
    return _if_possible(moved, camera, others)


def on_top_of(
    placed: Placed, support: Placed, camera: Camera, others: Sequence[Placed], rng: np.random.Generator
) -> Placed | None:
    """Place a thing somewhere on the flat top of another one."""
    top = model_top(support.thing.model) if support.thing.shape == "model" else None
    if top is None:
        return None
    reach = float(np.hypot(*placed.thing.size_m[:2])) / 2
    free = np.array([top.half_x_m, top.half_y_m]) - reach
    if (free < 0).any():
        return None
    local = np.array([*rng.uniform(-free, free), top.height_m + 0.0005])
    at = support.matrix[:3, :3] @ local + support.matrix[:3, 3]
    return _if_possible(replace(placed.thing, position_m=rounded(at), rests_on=support.thing.id), camera, others)


def _reach(placed: Placed, direction: NDArray[np.float64]) -> float:
    """Return how far a thing's box reaches from its middle along a horizontal direction."""
    local = np.abs(direction @ placed.matrix[:3, :3])[:2]
    return float((local * np.array(placed.thing.size_m[:2]) / 2).sum())


def _if_possible(thing: Thing, camera: Camera, others: Sequence[Placed]) -> Placed | None:
    """Place a thing if it is then in the picture, clear of all others, and at rest."""
    moved = place(thing)
    x0, y0, x1, y1 = project_box(moved, camera)
    inside = 0 < x0 < x1 < camera.width and 0 < y0 < y1 < camera.height
    return moved if inside and is_free(moved, others) and rests(moved, others) else None
