"""Land to the horizon: a height field, level around the middle, with hills farther out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.shapes import Size, Solid
from cavendish.render.geometry.triangles import crease_normals

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
