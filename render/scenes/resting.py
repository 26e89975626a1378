"""Lets things come to rest on a pile: each is dropped, tipped and nudged until its centre of mass can sink no further.

A pose of least height of the centre of mass is one that gravity leaves alone. What lies below is a grid of heights, the
highest point of each cell, so that things touch within millimetres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.render.geometry.meshes import Mesh
from cavendish.render.geometry.triangles import triangle_areas
from cavendish.render.scenes.recipe import Vec3, rotation

Floats = NDArray[np.float64]
COARSE = 700
"""Surface points of a thing that are tested while it moves; at the end there is one for every 6 mm2."""
CELL_M = 0.003
CLEARANCE_M = 0.0008
LARGEST_GAP_M = 0.008


@dataclass
class Pile:
    """Heights over a square of `side_m` metres around (x, y), in cells of 3 mm; `owner` is whose they are."""

    x: float
    y: float
    side_m: float
    floor_m: float
    cells: int = field(init=False)
    height: Floats = field(init=False)
    owner: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = int(np.ceil(self.side_m / CELL_M))
        self.height = np.full((self.cells, self.cells), self.floor_m)
        self.owner = np.zeros((self.cells, self.cells), np.int64)

    def cell(self, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return row and column of (N, 2+) points; those outside belong to the border."""
        place = (points[:, :2] - [self.x, self.y]) / self.side_m + 0.5
        index = np.clip((place * self.cells).astype(np.int64), 0, self.cells - 1)
        return index[:, 1], index[:, 0]

    def add(self, points: Floats, number: int) -> None:
        """Add the surface points of a thing that stays."""
        row, column = self.cell(points)
        top = np.full((self.cells, self.cells), -np.inf)
        np.maximum.at(top, (row, column), points[:, 2])
        top = cv2.morphologyEx(top, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))  # cells that no point fell into
        higher = top > self.height
        self.height[higher], self.owner[higher] = top[higher], number


@dataclass(frozen=True)
class Rest:
    """Where a thing came to rest: the place of its origin, its rotation vector, and the ids of what it touches."""

    position_m: Vec3
    tilt: Vec3
    touches: tuple[int, ...]


def surface_points(mesh: Mesh, count: int) -> Floats:
    """Return (count, 3) points spread evenly over a mesh, the same ones each time, and all vertices of small meshes."""
    areas = triangle_areas(mesh.vertices, mesh.faces)
    rng = np.random.default_rng(len(areas))
    face = mesh.faces[rng.choice(len(areas), count, p=areas / areas.sum())]
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = (mesh.vertices[face[:, corner]] for corner in range(3))
    points = (1 - u) * a + u * (1 - v) * b + u * v * c
    corners = np.unique(mesh.vertices, axis=0)
    points[: min(count // 2, len(corners))] = corners[:: max(1, 2 * len(corners) // count)][
        : min(count // 2, len(corners))
    ]
    found: Floats = points
    return found


def dense_points(mesh: Mesh) -> Floats:
    """Return points so close on a mesh that no cell under it is missed."""
    area = float(triangle_areas(mesh.vertices, mesh.faces).sum())
    return surface_points(mesh, int(np.clip(area / 6e-6, 4000, 90_000)))


def settle(pile: Pile, mesh: Mesh, start: Floats, x: float, y: float, reach: float) -> Rest | None:
    """Let a thing come to rest.

    Args:
        start: its 3x3 rotation when it is dropped.
        x, y: where, and `reach`: how far from the pile's middle it may end (metres); beyond it, None is returned,
            and where it would hang by an edge.
    """
    coarse, fine = surface_points(mesh, COARSE), dense_points(mesh)
    center = surface_points(mesh, 4000)[2000:].mean(axis=0)
    turn, at = start, np.array([x, y])
    size = float(np.ptp(mesh.vertices, axis=0).max())
    best = _height(pile, coarse, center, turn, at)
    step = 0.4
    while step > 0.004:
        moved = False
        for spin, shift in _nudges(step, size):
            new_turn, new_at = rotation(spin) @ turn, at + shift
            height = _height(pile, coarse, center, new_turn, new_at)
            if height < best - 1e-4 * size:
                best, turn, at, moved = height, new_turn, new_at, True
        if not moved:
            step *= 0.5
    if np.hypot(*(at - [pile.x, pile.y])) > reach:
        return None
    vector, _ = cv2.Rodrigues(turn)
    tilt = tuple(round(float(part), 6) for part in vector.ravel())
    points = fine @ rotation(tilt).T  # type: ignore[arg-type]
    place = np.append(np.round(at, 5), 0.0)
    row, column = pile.cell(points + place)
    gaps = points[:, 2] - pile.height[row, column]
    z = float(np.ceil((CLEARANCE_M - gaps.min()) * 1e5) / 1e5)
    near = gaps - gaps.min() < 0.02 * size
    # at the rim of what lies below, a cell is higher than most of what is in it: that alone holds nothing up
    held = cv2.erode(pile.height, np.ones((3, 3), np.uint8))[row, column]
    if (points[:, 2] + z - held).min() > LARGEST_GAP_M:
        return None
    touches = tuple(int(number) for number in np.unique(pile.owner[row[near], column[near]]) if number)
    return Rest((float(place[0]), float(place[1]), round(z, 5)), tilt, touches)  # type: ignore[arg-type]


def _nudges(step: float, size: float) -> Iterator[tuple[Vec3, Floats]]:
    """Yield small turns about level axes, and shifts in eight directions: past the edge of a cell, and farther."""
    for sign in (-step, step):
        yield (sign, 0.0, 0.0), np.zeros(2)
        yield (0.0, sign, 0.0), np.zeros(2)
    for away in (max(0.12 * step * size, 1.3 * CELL_M), 4 * CELL_M, 10 * CELL_M):
        for angle in np.arange(8) * np.pi / 4:
            yield (0.0, 0.0, 0.0), away * np.array([np.cos(angle), np.sin(angle)])


def _height(pile: Pile, points: Floats, center: Floats, turn: Floats, at: Floats) -> float:
    """Return how high the centre of mass is when the thing lies on the pile in this pose."""
    turned = points @ turn.T
    row, column = pile.cell(turned + np.append(at, 0.0))
    lift = float((pile.height[row, column] - turned[:, 2]).max())
    return lift + float(turn[2] @ center)
