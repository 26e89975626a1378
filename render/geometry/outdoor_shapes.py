"""Procedural shapes outdoors: pavements, lamp posts, fences, signs, poles, crossings and land to the horizon."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.buildings import quads, slabs
from cavendish.render.geometry.shapes import Size, Solid, box, cylinder, join, moved, scaled
from cavendish.render.geometry.triangles import crease_normals


def pavement(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A pavement (slot 0) with kerb stones (slot 1) along both sides, each a metre long."""
    width, length, height = size[0] / 2, size[1] / 2, size[2]
    kerb = 0.14
    flags = slabs(np.array([[-width + kerb, -length, 0]]), np.array([[width - kerb, length, height - 0.002]]), 0)
    near = np.arange(-length, min(length, -length + 60.0), 1.0)
    ends = np.minimum(near + 0.985, length)
    near, ends = np.append(near, near[-1] + 1.0), np.append(ends, length)
    keep = ends > near
    low = [np.column_stack([np.full(keep.sum(), x), near[keep], np.zeros(keep.sum())]) for x in (-width, width - kerb)]
    high = [
        np.column_stack([np.full(keep.sum(), x), ends[keep], np.full(keep.sum(), height)])
        for x in (-width + kerb, width)
    ]
    return join(flags, slabs(np.concatenate(low), np.concatenate(high), 1))


def lamp_post(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A street lamp: pole and arm toward -y (slot 0), a shining panel below its head (slot 1)."""
    reach, height = 0.75 * size[1], size[2]
    pole = moved(cylinder((0.13, 0.13, height - 0.1)), 0, 0, 0)
    foot = cylinder((0.24, 0.24, 0.5))
    arm = slabs(np.array([[-0.03, -reach, height - 0.13]]), np.array([[0.03, 0.02, height - 0.07]]), 0)
    head = moved(box((0.26, 0.62, 0.11), (0.03,)), 0, -reach, height - 0.11)
    glow = moved(box((0.18, 0.5, 0.02)), 0, -reach, height - 0.13, 1)
    return scaled(join(pole, foot, arm, head, glow), size)


def fence(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A fence along x: numbers[0] 0 posts and two rails, 1 pickets, 2 a wall of stone with a coping (slot 1)."""
    width, depth, height = size[:3]
    kind = int(numbers[0]) if numbers else 0
    if kind == 2:
        body = slabs(np.array([[-width / 2, -0.4 * depth, 0]]), np.array([[width / 2, 0.4 * depth, height - 0.08]]), 0)
        low, high = np.array([[-width / 2, -depth / 2, height - 0.08]]), np.array([[width / 2, depth / 2, height]])
        return join(body, slabs(low, high, 1))
    step, thick = (2.2, 0.11) if kind == 0 else (0.14, 0.09)
    count = max(2, round(width / step) + 1)
    x = np.linspace(-width / 2 + thick / 2, width / 2 - thick / 2, count)
    zero = np.zeros(count)
    front = np.full(count, -depth / 2)
    low = np.column_stack([x - thick / 2, front, zero])
    high = np.column_stack([x + thick / 2, front + 0.45 * depth, zero + height])
    posts = slabs(low, high, 0)
    z = np.array([0.42, 0.82] if kind == 0 else [0.25, 0.75]) * height
    low = np.column_stack([np.full(2, -width / 2), np.full(2, -0.05 * depth), z - 0.05])
    high = np.column_stack([np.full(2, width / 2), np.full(2, depth / 2), z + 0.05])
    return join(posts, slabs(low, high, 0))


def sign(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A road sign: a pole (slot 1) with a plate (slot 0), round, square or triangular by numbers[0]."""
    width, height = size[0], size[2]
    kind = int(numbers[0]) if numbers else 0
    count, start = ((24, 0.0), (4, math.pi / 4), (3, math.pi / 2))[kind]
    angles = start + np.arange(count) * 2 * np.pi / count
    ring = np.column_stack([np.cos(angles), np.sin(angles)]) * (0.5 * width)
    center = height - width / 2
    front = np.column_stack([ring[:, 0], np.full(count, -0.02), ring[:, 1] + center])
    after = np.roll(front, -1, axis=0)
    back, back_after = front + np.array([0, 0.015, 0]), after + np.array([0, 0.015, 0])
    middle = np.broadcast_to([0, -0.02, center], front.shape)
    plate = np.stack([middle, front, after, middle], axis=1)
    behind = np.stack([middle + np.array([0, 0.015, 0]), back_after, back, middle + np.array([0, 0.015, 0])], axis=1)
    rim = np.stack([front, back, back_after, after], axis=1)
    return scaled(
        join(
            quads(plate, 0), quads(behind, 1), quads(rim, 1), moved(cylinder((0.06, 0.06, height - 0.1)), 0, 0.03, 0, 1)
        ),
        size,
    )


def power_pole(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A wooden pole (slot 0) with a cross beam along x and insulators (slot 1)."""
    width, height = size[0], size[2]
    pole = cylinder((0.26, 0.26, height - 0.2))
    beam = moved(box((width, 0.12, 0.14)), 0, -0.15, height - 1.0)
    pins = [moved(cylinder((0.09, 0.09, 0.2)), x * width, -0.15, height - 0.86, 1) for x in (-0.45, -0.2, 0.2, 0.45)]
    return scaled(join(pole, beam, *pins), size)


def zebra(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """The stripes of a crossing, along y, side by side across x."""
    count = max(3, int(size[0] // 1.0))
    x = np.linspace(-size[0] / 2, size[0] / 2 - 0.5, count)
    low = np.column_stack([x, np.full(count, -size[1] / 2), np.zeros(count)])
    high = np.column_stack([x + 0.5, np.full(count, size[1] / 2), np.full(count, size[2])])
    return slabs(low, high, 0)


STEPS = 60
NEAR_M, FAR_M = 22.0, 150.0
"""Where the ground's texture gives way to that of slot 1, and that to slot 2: what is fine up close repeats afar."""


@lru_cache(maxsize=8)
def height_field(size: Size, numbers: Size, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (STEPS,) coordinates of the grid, finer in the middle, and its (STEPS, STEPS) heights in metres."""
    rng = np.random.default_rng([seed, 6])
    line = np.linspace(-1, 1, STEPS)
    at = np.sign(line) * np.abs(line) ** 2.4 * size[0] / 2
    x, y = np.meshgrid(at, at)
    away = np.hypot(x, y)
    level = numbers[0]
    height = np.zeros_like(x)
    for length in (900.0, 700.0, 400.0, 260.0, 140.0):
        angle = rng.uniform(0, 2 * np.pi)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / length + rng.uniform(0, 6))
        height += (0.5 + 0.5 * wave) ** 1.4 * length
    height *= np.clip((away - level) / (6 * level), 0, 1) ** 1.3 * np.clip(away / 700, 0.12, 1)
    return at, height * size[2] / height.max()


def height_at(size: Size, numbers: Size, seed: int, x: float, y: float) -> float:
    """Return the height of the land at a place, as its triangles have it, within a few centimetres."""
    at, height = height_field(size, numbers, seed)
    column, row = (int(np.clip(np.searchsorted(at, value) - 1, 0, STEPS - 2)) for value in (x, y))
    u, v = (x - at[column]) / (at[column + 1] - at[column]), (y - at[row]) / (at[row + 1] - at[row])
    a, b = height[row, column : column + 2] @ [1 - u, u], height[row + 1, column : column + 2] @ [1 - u, u]
    return float((1 - v) * a + v * b)


def terrain(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """Land of size[0] metres square, level within numbers[0] metres, its highest hill size[2] metres high.

    Slots 0, 1 and 2 are the same ground near, farther and far away.
    """
    at, height = height_field(size, numbers, seed)
    x, y = np.meshgrid(at, at)
    vertices = np.column_stack([x.ravel(), y.ravel(), height.ravel()])
    index = np.arange(STEPS * STEPS).reshape(STEPS, STEPS)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    middle = vertices[faces].mean(axis=1)
    away = np.abs(middle[:, :2]).max(axis=1)
    slots = (away > NEAR_M).astype(np.int64) + (away > FAR_M)
    return Solid(vertices, faces, slots, crease_normals(vertices[faces], faces, -1.0), vertices[faces][..., :2])
