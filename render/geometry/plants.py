"""Procedural trees, bushes, hedges and grass: many small leaves on lumpy crowns, so that silhouettes look grown.

Slots: 0 leaves, 1 wood. A leaf's texture coordinate is one random point of its texture, so each has its own tone.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.shapes import Size, Solid, box, cone, join, moved, rock, scaled
from cavendish.render.geometry.triangles import face_normals

Floats = NDArray[np.float64]


def leaves(rng: np.random.Generator, at: Floats, outward: Floats, length: Floats, spread: float) -> Solid:
    """Make one rhombic leaf per point, bent by `spread` radians off its (N, 3) outward direction.

    Normals are those of the crown, not of the leaf: light then falls on the crown as on one soft body.
    """
    count = len(at)
    facing = outward + spread * rng.standard_normal((count, 3))
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    wrong = (facing * outward).sum(axis=1) < 0.25
    facing[wrong] = outward[wrong]
    side = np.cross(facing, rng.standard_normal((count, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    along = np.cross(facing, side)
    reach = length[:, None]
    points = np.stack(
        [at - 0.5 * reach * along, at + 0.32 * reach * side, at + 0.5 * reach * along, at - 0.32 * reach * side], axis=1
    )
    turned = (np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]) * facing).sum(axis=1) < 0
    points[turned] = points[turned][:, ::-1]
    base = 4 * np.arange(count)[:, None]
    faces = np.concatenate([base + np.array([0, 1, 2]), base + np.array([0, 2, 3])])
    normals = np.broadcast_to(np.tile(outward, (2, 1))[:, None], (2 * count, 3, 3)).copy()
    tone = rng.random((count, 1, 2)) + np.zeros((1, 3, 1))
    tone = tone + np.array([[0, 0], [0.01, 0], [0, 0.01]])
    return Solid(points.reshape(-1, 3), faces, np.zeros(2 * count, np.int64), normals, np.tile(tone, (2, 1, 1)))


def _on_ball(rng: np.random.Generator, count: int) -> Floats:
    points = rng.standard_normal((count, 3))
    ball: Floats = points / np.linalg.norm(points, axis=1, keepdims=True)
    return ball


def _clump(rng: np.random.Generator, center: Floats, radii: Floats, count: int, leaf: float) -> Solid:
    """A lump of leaves: leaves on an ellipsoid's skin, over a dark core."""
    unit = _on_ball(rng, count)
    unit[:, 2] = np.where(unit[:, 2] < -0.6, -unit[:, 2], unit[:, 2])
    at = center + unit * radii * rng.uniform(0.62, 1.1, (count, 1))
    outward = unit / radii
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    return leaves(rng, at, outward, leaf * rng.uniform(0.7, 1.3, count), 0.55)


def _core(center: Floats, radii: Floats, seed: int) -> Solid:
    size = tuple(2 * 0.6 * radii)
    lump = rock(size, (6,), seed)
    lump = moved(lump, center[0], center[1], center[2] - size[2] / 2)
    uv = np.full((len(lump.faces), 3, 2), 0.02)  # the texture's darkest corner
    uv[:, 1, 0] += 0.01
    uv[:, 2, 1] += 0.01
    return Solid(lump.vertices, lump.faces, lump.slots, lump.normals, uv)


def with_uv(solid: Solid) -> Solid:
    """Give a solid made of plain parts texture coordinates by projection from the side, in metres."""
    if solid.uv is not None:
        return solid
    corners = solid.vertices[solid.faces]
    return Solid(solid.vertices, solid.faces, solid.slots, solid.normals, corners[..., [0, 2]] + corners[..., [1, 1]])


def join_leafy(*parts: Solid) -> Solid:
    """Join solids and keep their texture coordinates."""
    parts = tuple(with_uv(part) for part in parts)
    joined = join(*parts)
    uv = np.concatenate([part.uv for part in parts if part.uv is not None])
    return Solid(joined.vertices, joined.faces, joined.slots, joined.normals, uv)


def tree(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A tree: numbers[0] 0 broad, 1 fir, 2 slender (poplar, birch); numbers[1] its number of leaves in thousands."""
    kind, thousands = (*numbers, 0.0, 1.0)[:2] if len(numbers) < 2 else numbers[:2]
    return scaled(_unit_tree(int(kind), float(thousands), seed), size)


@lru_cache(maxsize=24)
def _unit_tree(kind: int, thousands: float, seed: int) -> Solid:
    rng = np.random.default_rng([seed, 7])
    return _fir(rng, thousands) if kind == 1 else _broad(rng, thousands, slender=kind == 2)


def _broad(rng: np.random.Generator, thousands: float, slender: bool) -> Solid:
    """Trunk, branches to the lumps of the crown, and the lumps; one unit high."""
    width = 0.3 if slender else float(rng.uniform(0.6, 0.8))
    low = 0.22 if slender else float(rng.uniform(0.26, 0.4))
    lumps = 11 if thousands > 0.5 else 6
    height = np.linspace(low + 0.08, 0.9, lumps) + rng.uniform(-0.03, 0.03, lumps)
    belly = np.sqrt(np.clip(1 - ((height - 0.58) / 0.42) ** 2, 0.05, 1))
    angle = np.arange(lumps) * 2.4 + rng.uniform(0, 0.8, lumps)
    away = 0.29 * width * belly * rng.uniform(0.6, 1.1, lumps)
    centers = np.stack([away * np.cos(angle), away * np.sin(angle), height], axis=1)
    radii = ((0.30 if lumps > 6 else 0.36) * width * (0.55 + 0.5 * belly) * rng.uniform(0.8, 1.15, lumps))[
        :, None
    ] * np.array([1, 1, 0.8])
    if slender:
        radii = radii * np.array([1, 1, 1.5])
    count = max(12, int(1000 * thousands / lumps))
    leaf = 0.8 * width / math.sqrt(count)
    parts = [_clump(rng, center, radius, count, leaf) for center, radius in zip(centers, radii)]
    parts += [_core(center, radius, int(rng.integers(1 << 30))) for center, radius in zip(centers, radii)]
    thick = 0.05 if slender else 0.075
    parts.append(moved(cone((thick, thick, low + 0.35), (0.45,)), 0, 0, 0, 1))
    parts += [limb(np.array([0, 0, low - 0.06]), center, 0.3 * thick) for center in centers[:6]]
    return join_leafy(*parts)


def limb(start: Floats, end: Floats, thick: float) -> Solid:
    """A straight tapering five-sided branch, slot 1."""
    along = end - start
    side = np.cross(along, [0.3, 0.9, 0.1])
    side /= np.linalg.norm(side)
    other = np.cross(along / np.linalg.norm(along), side)
    angles = np.arange(5) * 2 * np.pi / 5
    ring = np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * other
    vertices = np.concatenate([start + 0.5 * thick * ring, end + 0.15 * thick * ring])
    k, after = np.arange(5), (np.arange(5) + 1) % 5
    faces = np.concatenate([np.stack([k, after, after + 5], 1), np.stack([k, after + 5, k + 5], 1)])
    normals = np.concatenate([ring, ring])[faces]
    return Solid(vertices, faces, np.ones(len(faces), np.int64), normals)


def _fir(rng: np.random.Generator, thousands: float) -> Solid:
    """A fir: whorls of drooping twigs along a trunk; one unit high."""
    count = int(1000 * thousands)
    height = 1 - (1 - 0.14) * np.sqrt(rng.random(count))
    whorl = np.round(height * 16) / 16
    height = 0.55 * height + 0.45 * whorl
    radius = 0.24 * (1 - height) ** 0.85 + 0.008
    share = np.sqrt(rng.random(count))
    angle = rng.uniform(0, 2 * np.pi, count)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    at = ring * (radius * share)[:, None]
    at[:, 2] = height - 0.25 * radius * share
    outward = ring * 0.8 + np.array([0, 0, 0.6])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    needles = leaves(rng, at, outward, (0.6 + radius * 2) * 2.2 / math.sqrt(count) * rng.uniform(0.7, 1.2, count), 0.45)
    core = moved(cone((0.36, 0.36, 0.78), ()), 0, 0, 0.15)
    uv = np.full((len(core.faces), 3, 2), 0.02)
    uv[:, 1, 0] += 0.01
    uv[:, 2, 1] += 0.01
    core = Solid(core.vertices, core.faces, core.slots, core.normals, uv)
    return join_leafy(needles, core, moved(cone((0.05, 0.05, 0.9), (0.2,)), 0, 0, 0, 1))


def bush(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A bush of numbers[0] thousand leaves."""
    return scaled(_unit_bush(float(numbers[0]) if numbers else 0.6, seed), size)


@lru_cache(maxsize=16)
def _unit_bush(thousands: float, seed: int) -> Solid:
    rng = np.random.default_rng([seed, 17])
    lumps = 6
    angle = np.arange(lumps) * 2.4
    centers = np.stack([0.24 * np.cos(angle), 0.24 * np.sin(angle), rng.uniform(0.3, 0.6, lumps)], axis=1)
    radii = rng.uniform(0.24, 0.34, (lumps, 1)) * np.array([1, 1, 1.0])
    count = int(1000 * thousands / lumps)
    parts = [_clump(rng, c, r, count, 2.4 * 0.3 / math.sqrt(count)) for c, r in zip(centers, radii)]
    return join_leafy(*parts, *(_core(c, r, number) for number, (c, r) in enumerate(zip(centers, radii))))


def hedge(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A clipped hedge: leaves over a box; numbers[0] is how many per square metre."""
    rng = np.random.default_rng([seed, 18])
    half = np.array(size[:3]) / 2
    areas = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    count = int((numbers[0] if numbers else 120.0) * 8 * areas.sum())
    axis = rng.choice(3, count, p=areas / areas.sum())
    at = rng.uniform(-1, 1, (count, 3))
    sign = np.where(axis == 2, 1.0, np.sign(rng.uniform(-1, 1, count)))
    at[np.arange(count), axis] = sign * rng.uniform(0.86, 1.0, count)
    outward = np.zeros((count, 3))
    outward[np.arange(count), axis] = sign
    skin = leaves(rng, at * half * 0.96, outward, np.full(count, 0.13) * rng.uniform(0.7, 1.3, count), 0.6)
    core = moved(box(tuple(1.84 * half)), 0, 0, -0.92 * half[2])
    uv = np.full((len(core.faces), 3, 2), 0.02)
    uv[:, 1, 0] += 0.01
    uv[:, 2, 1] += 0.01
    return scaled(join_leafy(skin, Solid(core.vertices, core.faces, core.slots, core.normals, uv)), size)


def forest(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A strip of wood seen from afar: rows of small crowns, numbers[0] of them, firs where numbers[1] is 1."""
    rng = np.random.default_rng([seed, 19])
    count, firs = int(numbers[0]), bool(numbers[1])
    parts = []
    for _ in range(count):
        tall = float(rng.uniform(0.6, 1.0)) * size[2]
        wide = tall * float(rng.uniform(0.4, 0.6) if firs else rng.uniform(0.6, 1.0))
        one = scaled(_unit_tree(int(firs), 0.06, int(rng.integers(3))), (wide, wide, tall))
        x, y = rng.uniform(-0.5, 0.5, 2) * (np.array(size[:2]) - wide)
        parts.append(moved(one, float(x), float(y), 0.0))
    return scaled(join_leafy(*parts), size)


def grass(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """Tufts of bent blades over a rectangle: numbers[0] tufts, denser toward its middle of the -y side."""
    rng = np.random.default_rng([seed, 20])
    tufts, blades = int(numbers[0]), 9
    away = size[1] * rng.random(tufts) ** 1.5
    across = np.clip(0.17 * rng.standard_normal(tufts), -0.48, 0.48) * (0.35 + 0.65 * away / size[1])
    root = np.stack([size[0] * across, away - size[1] / 2], axis=1)
    root = np.repeat(root, blades, axis=0) + 0.05 * rng.standard_normal((tufts * blades, 2))
    count = len(root)
    fade = np.repeat(1 - 0.6 * away / size[1], blades)  # no edge where the tufts end
    tall = size[2] * rng.uniform(0.35, 1.0, count) * fade
    angle = rng.uniform(0, 2 * np.pi, count)
    lean = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (0.45 * tall)[:, None]
    side = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * (0.006 + 0.05 * tall)[:, None]
    zero = np.zeros(count)
    a, b = np.column_stack([root - side, zero]), np.column_stack([root + side, zero])
    c = np.column_stack([root + lean, tall])
    vertices = np.stack([a, b, c], axis=1).reshape(-1, 3)
    faces = np.arange(3 * count).reshape(-1, 3)
    normals = np.repeat(face_normals(vertices[faces])[:, None], 3, axis=1)
    tone = rng.random((count, 1, 2)) + np.array([[0, 0], [0.01, 0], [0, 0.01]])
    return scaled(Solid(vertices, faces, np.zeros(count, np.int64), normals, tone), size)
