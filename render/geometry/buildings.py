"""Procedural buildings: facades of recessed windows, doors, shop fronts, balconies; flat, gabled or hipped roofs.

Slots: 0 walls, 1 stone (plinth, sills, cornice), 2 roof, 3 window glass, 4 doors, railings and shop signs,
5 lit windows, 6 window frames, 7 curtains. Everything is made of many quads at once:
a house costs milliseconds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.shapes import Size, Solid, join

WALL, STONE, ROOF, GLASS, ACCENT, LIT, FRAME, CURTAIN = range(8)
Floats = NDArray[np.float64]
MARGIN_M = 0.35
"""How far sills, eaves and plinths may stand out from the walls."""
BALCONY_M = 1.25


def quads(points: Floats, slots: NDArray[np.int64] | int) -> Solid:
    """Make flat four-sided faces of (N, 4, 3) corners, anticlockwise from outside; faces without area are left out."""
    points = np.asarray(points, np.float64).reshape(-1, 4, 3)
    slots = np.broadcast_to(slots, len(points))
    cross = np.cross(points[:, 2] - points[:, 0], points[:, 3] - points[:, 1])
    length = np.linalg.norm(cross, axis=1)
    keep = length > 1e-6
    points, normals = points[keep], cross[keep] / length[keep, None]
    base = 4 * np.arange(len(points))[:, None]
    faces = np.concatenate([base + np.array([0, 1, 2]), base + np.array([0, 2, 3])])
    corner_normals = np.broadcast_to(np.tile(normals, (2, 1))[:, None], (len(faces), 3, 3)).copy()
    return Solid(points.reshape(-1, 3), faces, np.tile(slots[keep], 2), corner_normals)


def slabs(low: Floats, high: Floats, slots: NDArray[np.int64] | int) -> Solid:
    """Make boxes with sharp edges between (N, 3) corners."""
    low, high = np.atleast_2d(low).astype(float), np.atleast_2d(high).astype(float)
    bits = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], bool)
    corners = np.where(bits[None], high[:, None], low[:, None])
    sides = [[3, 2, 1, 0], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
    slots = np.repeat(np.broadcast_to(slots, len(low)), 6)
    return quads(corners[:, sides].reshape(-1, 4, 3), slots)


def building(size: Size, numbers: Size = (), seed: int = 0) -> Solid:
    """A building, front along -y.

    `numbers` are roof (0 flat, 1 gabled, 2 hipped), storeys, bays of the front, share of lit windows,
    balconies (0 or 1), shops below (0 or 1), detail (0: no recessed windows, for what is far away).
    """
    roof, storeys, bays, lit, balconies, shops, detail = numbers
    width, depth, height = size[:3]
    rng = np.random.default_rng([seed, 31])
    rise = 0.0 if roof == 0 else min(0.32 * depth, 0.4 * height)
    top = height - rise
    front = depth / 2 - (BALCONY_M if balconies else MARGIN_M)
    x, back = width / 2 - MARGIN_M, depth / 2 - MARGIN_M
    plinth = slabs(np.array([[-x - 0.06, -front - 0.06, 0.0]]), np.array([[x + 0.06, back + 0.06, 0.45]]), STONE)
    parts = [plinth, _roof(roof, width, depth, top, height, x, front, back, rng)]
    if not detail:
        parts.append(slabs(np.array([[-x, -front, 0.45]]), np.array([[x, back, top - 0.02]]), WALL))
        return join(*parts)
    door = int(rng.integers(int(bays)))
    sides = max(1, round((front + back) / (2 * x) * bays))
    doors = set(range(int(bays))) if shops else {door}
    parts.append(_facade(rng, 2 * x, top, storeys, bays, lit, doors, bool(shops), True, _turn(0, -front, 0)))
    parts.append(
        _facade(rng, front + back, top, storeys, sides, lit, set(), False, False, _turn(x, (back - front) / 2, 1))
    )
    parts.append(
        _facade(rng, front + back, top, storeys, sides, lit, set(), False, False, _turn(-x, (back - front) / 2, 3))
    )
    parts.append(quads(np.array([[[x, back, 0], [-x, back, 0], [-x, back, top], [x, back, top]]]), WALL))
    if balconies:
        parts.append(_balconies(rng, 2 * x, top, storeys, bays, front))
    return join(*parts)


def _turn(x: float, y: float, quarter: int) -> Floats:
    """Return the 3x4 placing of a facade whose outside looks along -y, turned by quarters and moved to (x, y)."""
    cos, sin = round(math.cos(quarter * math.pi / 2)), round(math.sin(quarter * math.pi / 2))
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, 0]], np.float64)


def _facade(
    rng: np.random.Generator, length: float, top: float, storeys: float, bays: float, lit: float, doors: set[int],
    shops: bool, rich: bool, placing: Floats,
) -> Solid:  # fmt: skip
    """One wall with its windows; u runs along the wall, v up, w into the building."""
    rows, columns = int(storeys), int(bays)
    bay, storey = length / columns, top / rows
    share_u, share_v = rng.uniform(0.34, 0.62), rng.uniform(0.45, 0.62)
    share_u = min(share_u, 1.9 / bay)
    column, row = (grid.ravel() for grid in np.meshgrid(np.arange(columns), np.arange(rows)))
    u0 = -length / 2 + column * bay
    v0 = row * storey
    center = u0 + bay / 2
    h0, h1 = center - share_u * bay / 2, center + share_u * bay / 2
    k0 = v0 + storey * (0.92 - share_v) * 0.75
    k1 = k0 + share_v * storey
    is_door = (row == 0) & np.isin(column, list(doors))
    if shops:
        h0, h1 = np.where(is_door, u0 + 0.07 * bay, h0), np.where(is_door, u0 + 0.93 * bay, h1)
        k0, k1 = np.where(is_door, 0.47, k0), np.where(is_door, 0.78 * storey, k1)
    else:
        half = min(0.55, 0.4 * bay)
        h0, h1 = np.where(is_door, center - half, h0), np.where(is_door, center + half, h1)
        k0, k1 = np.where(is_door, 0.46, k0), np.where(is_door, min(2.65, 0.9 * storey), k1)
    u1, v1 = u0 + bay, v0 + storey
    recess = float(rng.uniform(0.10, 0.24))
    made = [
        _rect(u0, v0, u1, k0, 0, WALL), _rect(u0, k1, u1, v1, 0, WALL), _rect(u0, k0, h0, k1, 0, WALL),
        _rect(h1, k0, u1, k1, 0, WALL), _reveals(h0, k0, h1, k1, recess),
        _rect(h0, k0, h1, k1, recess, np.where(is_door & (not shops), ACCENT, FRAME)),
    ]  # fmt: skip
    made += _panes(rng, h0, k0, h1, k1, recess, is_door, shops, lit)
    if rich:
        sill = ~is_door
        low = np.stack([h0[sill] - 0.08, np.full(sill.sum(), -0.11), k0[sill] - 0.1], axis=1)
        high = np.stack([h1[sill] + 0.08, np.full(sill.sum(), 0.02), k0[sill]], axis=1)
        made.append(slabs(low, high, STONE))
        bands = np.arange(1, rows + (rng.random() < 0.5)) if rng.random() < 0.4 or shops else np.array([1])
        z = bands * storey
        deep, tall = (0.2, 0.5) if shops else (0.07, 0.16)
        low = np.stack([np.full(len(z), -length / 2), np.full(len(z), -deep), z - tall], axis=1)
        high = np.stack([np.full(len(z), length / 2), np.full(len(z), 0.0), z - 0.02], axis=1)
        made.append(slabs(low, high, np.where((bands == 1) & shops, ACCENT, STONE)))
    solid = join(*made)
    turn = placing[:, :3]
    return Solid(solid.vertices @ turn.T + placing[:, 3], solid.faces, solid.slots, solid.normals @ turn.T)


def _rect(u0: Floats, v0: Floats, u1: Floats, v1: Floats, w: float, slot: NDArray[np.int64] | int) -> Solid:
    """Upright rectangles that look along -w."""
    deep = np.full(len(u0), w, np.float64)
    corners = [[u0, deep, v0], [u1, deep, v0], [u1, deep, v1], [u0, deep, v1]]
    return quads(np.moveaxis(np.array(corners), -1, 0), slot)


def _reveals(u0: Floats, v0: Floats, u1: Floats, v1: Floats, deep: float) -> Solid:
    """The four inner sides of window holes."""
    o, w = np.zeros(len(u0)), np.full(len(u0), deep)
    sides = [
        [[u0, o, v0], [u0, w, v0], [u0, w, v1], [u0, o, v1]], [[u1, w, v0], [u1, o, v0], [u1, o, v1], [u1, w, v1]],
        [[u0, o, v0], [u1, o, v0], [u1, w, v0], [u0, w, v0]], [[u0, w, v1], [u1, w, v1], [u1, o, v1], [u0, o, v1]],
    ]  # fmt: skip
    return quads(np.concatenate([np.moveaxis(np.array(side), -1, 0) for side in sides]), WALL)


def _panes(
    rng: np.random.Generator, u0: Floats, v0: Floats, u1: Floats, v1: Floats, recess: float, is_door: NDArray[np.bool_],
    shops: bool, lit: float,
) -> list[Solid]:  # fmt: skip
    """Panes in front of their frames: one to three beside each other, sometimes a light above."""
    window = ~is_door | shops
    u0, v0, u1, v1 = (edge[window] for edge in (u0, v0, u1, v1))
    draw = rng.random(len(u0))
    kind = np.where(draw < lit, LIT, np.where(draw < lit + 0.22 * (1 - lit), CURTAIN, GLASS))
    across = int(rng.integers(1, 4))
    bar = 0.06
    parts = []
    split = rng.random() < 0.4
    bands = [(v0 + bar, v1 - bar)]
    if split:
        cut = v0 + 0.68 * (v1 - v0)
        bands = [(v0 + bar, cut - bar / 2), (cut + bar / 2, v1 - bar)]
    for low, high in bands:
        for number in range(across):
            step = (u1 - u0 - bar) / across
            left = u0 + bar + number * step
            parts.append(_rect(left, low, left + step - bar, high, recess - 0.03, kind))
    return parts


def _balconies(rng: np.random.Generator, length: float, top: float, storeys: float, bays: float, front: float) -> Solid:
    """Slabs with railings before some columns of windows, from the first floor up."""
    bay, storey = length / bays, top / storeys
    chosen = np.flatnonzero(rng.random(int(bays)) < 0.6)
    chosen = chosen if len(chosen) else np.array([0])
    column, row = (grid.ravel() for grid in np.meshgrid(chosen, np.arange(1, int(storeys))))
    if not len(column):
        column, row = chosen[:1], np.array([0.35])
    u = -length / 2 + (column + 0.5) * bay
    half, deep, z = 0.45 * bay, BALCONY_M - 0.06, row * storey + 0.1
    low = np.stack([u - half, np.full(len(u), -front - deep), z - 0.16], axis=1)
    high = np.stack([u + half, np.full(len(u), -front), z], axis=1)
    parts = [slabs(low, high, STONE)]
    solid = rng.random() < 0.5
    rails = ((0.08, 0.98),) if solid else ((0.12, 0.17), (0.40, 0.44), (0.66, 0.70), (0.94, 1.0))
    for a, b in rails:
        for left, right, near, far in (
            (u - half, u + half, deep, deep - 0.04), (u - half, u - half + 0.04, deep - 0.04, 0.0),
            (u + half - 0.04, u + half, deep - 0.04, 0.0),
        ):  # fmt: skip
            low = np.stack([left, np.full(len(u), -front - near), z + a], axis=1)
            high = np.stack([right, np.full(len(u), -front - far), z + b], axis=1)
            parts.append(slabs(low, high, ACCENT))
    return join(*parts)


def _roof(
    kind: float, width: float, depth: float, top: float, height: float, x: float, front: float, back: float,
    rng: np.random.Generator,
) -> Solid:  # fmt: skip
    """The roof over walls of half width `x` between -front and back; it reaches the building's whole size."""
    w, d = width / 2, depth / 2
    if kind == 0:
        low = np.array([[-w, -d, top - 0.35], [-x, -front, top - 1e-3], [x - 0.25, -front, top - 0.01]])
        cornice = slabs(low[:1], np.array([[w, d, top - 0.05]]), STONE)
        walls = [
            ([-w, -d, top - 0.05], [w, -d + 0.25, top]), ([-w, d - 0.25, top - 0.05], [w, d, top]),
            ([-w, -d + 0.25, top - 0.05], [-w + 0.25, d - 0.25, top]),
            ([w - 0.25, -d + 0.25, top - 0.05], [w, d - 0.25, top]),
        ]  # fmt: skip
        parapet = slabs(np.array([a for a, _ in walls]), np.array([b for _, b in walls]), ROOF)
        return join(cornice, parapet)
    inset = min(d, 0.45 * width) if kind == 2 else 0.0
    eave = top - 0.12
    a, b, c, e = [-w, -d, eave], [w, -d, eave], [w, d, eave], [-w, d, eave]
    r0, r1 = [-w + inset, 0, height], [w - inset, 0, height]
    parts = [
        quads(np.array([[a, b, r1, r0], [c, e, r0, r1], [b, c, r1, r1], [e, a, r0, r0]]), ROOF),
        quads(np.array([[e, c, b, a]]), STONE),
    ]
    if kind == 1:  # gables: walls up to the roof, a little inside its ends
        slope = (height - eave) / d
        peak = height - 0.03
        for side in (-1, 1):
            near, far = eave + slope * (d - front) - 0.03, eave + slope * (d - back) - 0.03
            ends = [[side * x, -front, eave], [side * x, back, eave], [side * x, back, far], [side * x, -front, near]]
            ridge = [[side * x, -front, near], [side * x, back, far], [side * x, 0, peak], [side * x, 0, peak]]
            order = slice(None) if side > 0 else slice(None, None, -1)
            parts.append(quads(np.array([ends[order], ridge[order]]), WALL))
        at = rng.uniform(-0.6, 0.6) * x
        parts.append(slabs(np.array([[at - 0.35, 0.4, height - 1.2]]), np.array([[at + 0.35, 1.0, height]]), STONE))
    return join(*parts)
