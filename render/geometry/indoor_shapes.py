"""Procedural shapes indoors: doors, curtains, hanging lamps, trays, and letters as solid bodies."""

from __future__ import annotations

import math

import numpy as np

from cavendish.render.geometry.buildings import slabs
from cavendish.render.geometry.shapes import SMOOTH_COS, Size, Solid, box, cylinder, join, lathe, moved, scaled
from cavendish.render.geometry.triangles import crease_normals


def door(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A closed door in its frame, front along -y: leaf (slot 0) with sunk panels, frame (slot 1), handle (slot 2)."""
    width, depth, height = size[:3]
    bar = 0.07
    frame = [moved(box((bar, depth, height), (0.006,)), x * (width - bar) / 2, 0, 0, 1) for x in (-1, 1)]
    frame.append(moved(box((width - 2 * bar, depth, bar), (0.006,)), 0, 0, height - bar, 1))
    w, h = width - 2 * bar, height - bar
    leaf = moved(box((w, 0.35 * depth, h)), 0, 0.2 * depth, 0, 0)
    rows = int(numbers[0]) if numbers else 2
    parts = [*frame, leaf]
    if rows:
        rail = 0.11
        front, back = -0.18 * depth, 0.03 * depth
        z = np.linspace(0, h - rail, rows + 1)
        low = [[-w / 2, front, level] for level in z] + [[-w / 2, front, 0], [w / 2 - rail, front, 0]]
        high = [[w / 2, back, level + rail] for level in z] + [[-w / 2 + rail, back, h], [w / 2, back, h]]
        parts.append(slabs(np.array(low), np.array(high), 0))
    side = 1 if seed % 2 else -1
    plate = slabs(
        np.array([[side * (w / 2 - 0.07) - 0.02, -0.24 * depth, 0.95]]),
        np.array([[side * (w / 2 - 0.07) + 0.02, 0.05 * depth, 1.13]]),
        2,
    )
    grip = slabs(
        np.array([[side * (w / 2 - 0.12) - 0.06, -0.5 * depth, 1.03]]),
        np.array([[side * (w / 2 - 0.12) + 0.06, -0.36 * depth, 1.055]]),
        2,
    )
    return scaled(join(*parts, plate, grip), size)


def curtain(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A curtain hanging in folds along x, numbers[0] of them; cloth of two sides."""
    width, depth, height = size[:3]
    folds = int(numbers[0]) if numbers else 6
    rng = np.random.default_rng([seed, 21])
    columns, rows = 10 * folds + 1, 9
    t, z = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    phase = 2 * np.pi * folds * t + 0.5 * np.sin(2 * np.pi * t * 1.7 + rng.uniform(0, 6)) * (1 - z)
    y = 0.5 * depth * np.sin(phase) * (0.55 + 0.45 * (1 - z))
    x = (t - 0.5) * width + 0.02 * np.cos(phase) * (1 - z)
    front = np.column_stack([x.ravel(), y.ravel(), (z * height).ravel()])
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    normals = crease_normals(front[faces], faces, SMOOTH_COS)
    return scaled(Solid(front, faces, np.zeros(len(faces), np.int64), normals), size)


def pendant(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A lamp hanging from the ceiling: cord (slot 1), shade (slot 0) and a shining bulb (slot 2)."""
    width, height = size[0], size[2]
    kind = int(numbers[0]) if numbers else 0
    profiles = (
        [(0.94, 0), (1, 0), (0.35, 0.7), (0.12, 1), (0.10, 0.97), (0.3, 0.66)],
        [(0.05, 0), (0.7, 0.08), (1, 0.45), (0.8, 0.85), (0.12, 1)],
        [(0.98, 0), (1, 0), (1, 1), (0.98, 1), (0.98, 0)],
    )
    shade = 0.55 * width * (1.0 if kind == 1 else 0.8)
    points = np.array(profiles[kind]) * [width / 2, shade]
    parts = [moved(lathe(points, 28), 0, 0, 0.0, 2 if kind == 1 else 0)]
    if kind != 1:
        angles = np.linspace(-np.pi / 2, np.pi / 2, 9)
        bulb = 0.16 * width
        parts.append(
            moved(lathe(np.column_stack([np.cos(angles), np.sin(angles)]) * bulb, 16), 0, 0, 0.3 * shade + bulb / 2, 2)
        )
    parts.append(moved(cylinder((0.012, 0.012, height - 0.6 * shade)), 0, 0, 0.6 * shade, 1))
    return scaled(join(*parts), size)


def tray(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """An open box: a floor and four sides, numbers[0] metres thick."""
    width, depth, height = size[0] / 2, size[1] / 2, size[2]
    t = numbers[0] if numbers else 0.012
    low = [
        [-width, -depth, 0],
        [-width, -depth, t],
        [-width, depth - t, t],
        [-width, -depth + t, t],
        [width - t, -depth + t, t],
    ]
    high = [
        [width, depth, t],
        [width, -depth + t, height],
        [width, depth, height],
        [-width + t, depth - t, height],
        [width, depth - t, height],
    ]
    return slabs(np.array(low), np.array(high), 0)


GLYPHS = {
    "A": "010101111101101", "C": "111100100100111", "D": "110101101101110", "E": "111100110100111",
    "F": "111100110100100", "H": "101101111101101", "I": "111010010010111", "J": "001001001101111",
    "L": "100100100100111", "O": "111101101101111", "P": "111101111100100", "S": "111100111001111",
    "T": "111010010010010", "U": "101101101101111", "X": "101101010101101", "Z": "111001010100111",
}  # fmt: skip
"""Block letters, three columns by five rows from the top."""


def letters(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """One block letter lying on its back, facing up; numbers[0] says which of GLYPHS."""
    bits = np.array([int(bit) for bit in list(GLYPHS.values())[int(numbers[0]) % len(GLYPHS)]]).reshape(5, 3)
    row, column = np.nonzero(bits)
    low = np.column_stack([column / 3, (4 - row) / 5, np.zeros(len(row))])
    high = low + np.array([1 / 3, 1 / 5, 1.0])
    return scaled(slabs(low, high, 0), size)


def turned(x: float, y: float, yaw: float) -> tuple[float, float]:
    """Turn a point of the plane by an angle about the origin."""
    return x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw)
