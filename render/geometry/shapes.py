"""Procedural geometry: each function makes a Solid of a given size, its origin at the centre of its bottom."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.triangles import crease_normals

SMOOTH_COS = math.cos(math.radians(50))
Size = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Solid:
    """(V, 3) vertices, (F, 3) triangles, anticlockwise from outside, (F,) slots, (F, 3, 3) corner normals.

    `uv` is (F, 3, 2), or None for a projection along the axis each triangle faces most.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    slots: NDArray[np.int64]
    normals: NDArray[np.float64]
    uv: NDArray[np.float64] | None = None


def _solid(vertices: NDArray[np.float64], faces: NDArray[np.int64], slot: int = 0) -> Solid:
    slots = np.full(len(faces), slot, np.int64)
    return Solid(vertices, faces, slots, crease_normals(vertices[faces], faces, SMOOTH_COS))


def join(*parts: Solid) -> Solid:
    """Put solids together, each keeping its slots; texture coordinates by projection."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Solid(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)]),
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.normals for part in parts]),
    )


def moved(part: Solid, x: float, y: float, z: float, slot: int | None = None) -> Solid:
    """Shift a solid, and fill all of it with another slot if asked."""
    slots = part.slots if slot is None else np.full_like(part.slots, slot)
    return replace(part, vertices=part.vertices + np.array([x, y, z]), slots=slots)


def box(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A box whose edges are bevelled by numbers[0] metres (0 or absent: sharp)."""
    half = np.array(size[:3]) / 2
    bevel = min(numbers[0] if numbers else 0.0, 0.45 * half.min())
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    vertices = np.concatenate([signs * (half - bevel) + np.eye(3)[axis] * signs * bevel for axis in range(3)])

    def at(axis: int, sign: NDArray[np.float64]) -> int:
        return axis * 8 + int(sign[0] > 0) * 4 + int(sign[1] > 0) * 2 + int(sign[2] > 0)

    quads, triangles = [], []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1, 1):
            loop = []
            for sb, sc in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                sign = np.zeros(3)
                sign[axis], sign[b], sign[c] = side, sb, sc
                loop.append(at(axis, sign))
            quads.append(loop)
            if bevel > 0:
                for other in (-1, 1):  # the strip between the faces of `axis` and `b`, along `c`
                    low, high = np.zeros(3), np.zeros(3)
                    low[axis] = high[axis] = side
                    low[b] = high[b] = other
                    low[c], high[c] = -1, 1
                    quads.append([at(axis, low), at(axis, high), at(b, high), at(b, low)])
    if bevel > 0:
        triangles = [[at(axis, sign) for axis in range(3)] for sign in signs]
    faces = np.array([[q[0], q[1], q[2]] for q in quads] + [[q[0], q[2], q[3]] for q in quads] + triangles, np.int64)
    axis_of = np.repeat(np.arange(3), 8)
    normals = np.eye(3)[axis_of] * np.tile(signs, (3, 1))  # each vertex belongs to one of the six faces
    a, b_, c_ = (vertices[faces[:, k]] for k in range(3))
    inward = (np.cross(b_ - a, c_ - a) * (a + b_ + c_)).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    slots = np.zeros(len(faces), np.int64)
    return Solid(vertices + np.array([0, 0, half[2]]), faces, slots, normals[faces])


def lathe(profile: NDArray[np.float64], segments: int = 32) -> Solid:
    """Revolve (N, 2) radius-height points about z; the profile runs from bottom to top on the outside."""
    return _solid(*_revolve(profile, segments))


def _revolve(profile: NDArray[np.float64], segments: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    angles = np.arange(segments) * 2 * np.pi / segments
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.concatenate([np.column_stack([ring * r, np.full(segments, z)]) for r, z in profile])
    k = np.arange(segments)
    after = (k + 1) % segments
    faces = []
    for row in range(len(profile) - 1):
        low, high = row * segments, (row + 1) * segments
        if profile[row, 0] > 1e-9:
            faces.append(np.stack([low + k, low + after, high + after], axis=1))
        if profile[row + 1, 0] > 1e-9:
            faces.append(np.stack([low + k, high + after, high + k], axis=1))
    index = np.arange(len(vertices))
    for row, radius in enumerate(profile[:, 0]):
        if radius <= 1e-9:  # one vertex on the axis, so that normals there are smooth
            index[row * segments : (row + 1) * segments] = row * segments
    return vertices, index[np.concatenate(faces)]


def scaled(solid: Solid, size: Size) -> Solid:
    """Stretch a solid to a size, its origin at the centre of its bottom."""
    low, high = solid.vertices.min(axis=0), solid.vertices.max(axis=0)
    factor = np.array(size[:3]) / (high - low)
    center = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    normals = solid.normals / factor
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return replace(solid, vertices=(solid.vertices - center) * factor, normals=normals)


def cylinder(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A cylinder with slightly rounded rims."""
    r, h, e = size[0] / 2, size[2], min(size[0], size[2]) * 0.03
    profile = [(0, 0), (r - e, 0), (r, e), (r, h - e), (r - e, h), (0, h)]
    return scaled(lathe(np.array(profile), 40), size)


def cone(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A cone, cut off at numbers[0] of its radius (0: a tip)."""
    r, h = size[0] / 2, size[2]
    tip = numbers[0] * r if numbers else 0.0
    return scaled(lathe(np.array([(0, 0), (r, 0), (tip, h), (0, h)] if tip else [(0, 0), (r, 0), (0, h)]), 40), size)


def sphere(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """An ellipsoid."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 25)
    return scaled(lathe(np.column_stack([np.cos(angles), np.sin(angles)]), 48), size)


def torus(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A ring lying flat."""
    tube = size[2] / 2
    around = np.linspace(0, 2 * np.pi, 21)
    return scaled(lathe(np.column_stack([size[0] / 2 - tube + tube * np.cos(around), tube * np.sin(around)]), 48), size)


VESSELS = {
    0: [
        (0, 0),
        (0.55, 0),
        (0.62, 0.05),
        (0.95, 0.5),
        (1.0, 0.75),
        (0.7, 0.92),
        (0.72, 1.0),
        (0.62, 1.0),
        (0.6, 0.93),
        (0, 0.7),
    ],
    1: [(0, 0), (0.5, 0), (0.52, 0.06), (0.85, 0.5), (1.0, 1.0), (0.94, 1.0), (0.75, 0.45), (0.4, 0.12), (0, 0.1)],
    2: [(0, 0), (0.85, 0), (0.9, 0.03), (1.0, 1.0), (0.92, 1.0), (0.84, 0.1), (0, 0.08)],
    3: [(0, 0), (0.75, 0), (0.8, 0.03), (0.8, 0.55), (0.7, 0.66), (0.3, 0.76), (0.27, 0.97), (0.33, 1.0), (0, 1.0)],
    4: [(0, 0), (0.6, 0), (0.65, 0.1), (1.0, 0.9), (1.0, 1.0), (0.9, 1.0), (0.6, 0.3), (0, 0.28)],
    5: [
        (0, 0),
        (0.7, 0),
        (1.0, 0.35),
        (0.85, 0.7),
        (0.4, 0.85),
        (0.35, 0.94),
        (0.5, 1.0),
        (0.4, 1.0),
        (0.25, 0.9),
        (0, 0.88),
    ],
}


def vessel(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A turned pot: profile numbers[0] of vase, bowl, cup, bottle, plate, round vase."""
    return scaled(lathe(np.array(VESSELS[int(numbers[0])], np.float64), 36), size)


def rock(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A boulder: a sphere pushed in and out by a few random waves, its bottom flattened; numbers[0] sets its detail."""
    rows = int(numbers[0]) if numbers else 25
    angles = np.linspace(-np.pi / 2, np.pi / 2, rows)
    points, faces = _revolve(np.column_stack([np.cos(angles), np.sin(angles)]), 2 * rows - 2)
    rng = np.random.default_rng([seed, 5])
    bump = np.zeros(len(points))
    for scale in (1.5, 1.5, 3.0, 3.0, 6.0):
        direction = rng.standard_normal(3)
        bump += np.cos(points @ (direction / np.linalg.norm(direction)) * scale + rng.uniform(0, 6)) / scale
    points = points * (1 + 0.22 * bump[:, None])
    points[:, 2] = np.maximum(points[:, 2], -0.6)
    return scaled(_solid(points, faces), size)


def table(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A table: bevelled top (slot 0) on four legs (slot 1), square or, when numbers[0] is 1, round."""
    width, depth, height = size[:3]
    thick = 0.035
    leg = 0.05 + 0.02 * (seed % 3)
    legs = []
    for x in (-1, 1):
        for y in (-1, 1):
            at = (x * (width / 2 - leg), y * (depth / 2 - leg))
            make = cylinder if numbers and numbers[0] == 1 else box
            legs.append(moved(make((leg, leg, height - thick), (0.004,)), *at, 0, 1))
    apron = moved(box((width - 2 * leg, depth - 2 * leg, 0.07), (0.004,)), 0, 0, height - thick - 0.07, 1)
    return join(moved(box((width, depth, thick), (0.006,)), 0, 0, height - thick, 0), apron, *legs)


def books(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A pile of books: covers (slots 0, 2, 3) around paper (slot 1)."""
    count = max(1, round(size[2] / 0.03))
    rng = np.random.default_rng([seed, 8])
    parts, z, thick = [], 0.0, size[2] / count
    for number in range(count):
        w, d = size[0] * rng.uniform(0.86, 1.0), size[1] * rng.uniform(0.86, 1.0)
        slot = (0, 2, 3)[number % 3]
        cover = 0.1 * thick
        parts.append(moved(box((w, d, cover)), 0, 0, z, slot))
        parts.append(moved(box((w, d, cover)), 0, 0, z + thick - cover, slot))
        parts.append(moved(box((cover, d, thick * 0.8)), -(w - cover) / 2, 0, z + cover, slot))
        parts.append(moved(box((w * 0.94, d * 0.95, thick * 0.8)), w * 0.015, 0, z + cover, 1))
        z += thick
    return scaled(join(*parts), size)


def frame(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A framed picture, front along -y: the picture (slot 0) in a frame (slot 1)."""
    width, depth, height = size[:3]
    w = 0.06 * min(width, height) + 0.012
    bars = [moved(box((width, depth, w), (0.003,)), 0, 0, z, 1) for z in (0, height - w)]
    bars += [moved(box((w, depth, height - 2 * w), (0.003,)), x * (width - w) / 2, 0, w, 1) for x in (-1, 1)]
    vertices = np.array([[-1, 0, 0], [1, 0, 0], [1, 0, 1], [-1, 0, 1]]) * [width / 2 - w / 2, 1, height - w]
    picture = _solid(vertices + np.array([0, 0, w / 2]), np.array([[0, 1, 2], [0, 2, 3]]))
    joined = join(picture, *bars)
    uv = joined.vertices[joined.faces][..., [0, 2]] / [width, height] + [0.5, 0.0]
    return replace(joined, uv=uv)


def mat(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A thin rectangle whose top shows its texture exactly once."""
    solid = box(size, (min(0.003, size[2] / 3),))
    uv = solid.vertices[solid.faces][..., :2] / [size[0], size[1]] + 0.5
    return replace(solid, uv=uv)


def wall(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A wall (slot 0) with a skirting board (slot 1) on its -y side and windows framed in slot 1.

    `numbers` are windows, each x from its centre, sill height, width, height, in metres.
    """
    width, depth, height = size[:3]
    holes = [numbers[k : k + 4] for k in range(0, len(numbers), 4)]
    xs = sorted({-width / 2, width / 2, *(x + side * w / 2 for x, _, w, _ in holes for side in (-1, 1))})
    zs = sorted({0.0, height, *(value for _, sill, _, h in holes for value in (sill, sill + h))})
    parts = []
    for x0, x1 in pairwise(xs):
        for z0, z1 in pairwise(zs):
            cx, cz = (x0 + x1) / 2, (z0 + z1) / 2
            if not any(abs(cx - x) < w / 2 and sill < cz < sill + h for x, sill, w, h in holes):
                parts.append(moved(box((x1 - x0, depth, z1 - z0)), cx, 0, z0, 0))
    for x, sill, w, h in holes:
        bar, deep = 0.05, depth + 0.03
        parts += [moved(box((w, deep, bar), (0.005,)), x, 0, z, 1) for z in (sill, sill + h - bar)]
        parts += [
            moved(box((bar, deep, h - 2 * bar), (0.005,)), x + s * (w - bar) / 2, 0, sill + bar, 1) for s in (-1, 1)
        ]
        parts.append(moved(box((bar * 0.7, 0.04, h - 2 * bar)), x, 0, sill + bar, 1))
    if not numbers or all(sill > 0.12 for _, sill, _, _ in holes):
        parts.append(moved(box((width, 0.015, 0.08), (0.003,)), 0, -depth / 2 - 0.0075, 0, 1))
    return join(*parts)
