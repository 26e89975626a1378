"""Clutter: many things dropped onto a table, a floor or into a tray, lying as they came to rest.

Each is dropped, tipped and nudged until its center of mass can sink no further: a pose of least height is one that
gravity leaves alone. What lies below is a grid of heights, the highest point of each cell, so that things touch within
millimeters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.draws import one_of
from cavendish.render.geometry.mesh import Mesh
from cavendish.render.geometry.meshes import place
from cavendish.render.geometry.triangles import triangle_areas
from cavendish.render.scenes.layout import (
    GAP_M,
    Layout,
    model,
    plain_material,
    rounded,
    some_paint,
    vivid,
    wood_material,
)
from cavendish.render.scenes.presets import Palette, Rng, Style, draw_lens, pick
from cavendish.render.scenes.recipe import Material, Recipe, Texture, Thing, Vec3, look_at, rotation, thing_matrix
from cavendish.render.scenes.rooms import primitive, small_thing
from cavendish.render.scenes.tabletops import draw_table, studio_lights, surround

LENSES: Mapping[str, float] = {"phone": 0.5, "dslr": 0.5}
HOURS: Mapping[str, float] = {"day": 0.7, "low sun": 0.1, "night": 0.2}
POSES = ((0.0, 0.0, 0.0), (math.pi / 2, 0.0, 0.0), (0.0, math.pi / 2, 0.0), (math.pi, 0.0, 0.0), (0.7, 0.5, 0.0))
NOT_PILED = ("lamp", "plant", "television", "computer")
Floats = NDArray[np.float64]
COARSE = 700
"""Surface points of a thing that are tested while it moves; at the end there is one for every 6 mm2."""
CELL_M = 0.003
CLEARANCE_M = 0.0008
LARGEST_GAP_M = 0.008


def draw_clutter(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a pile of 14 to 34 things, and a camera 0.5 to 2 m away that looks down on it."""
    layout = Layout()
    base = str(rng.choice(["table", "floor", "tray"]))
    span = float(rng.uniform(0.45, 0.7)) if base != "floor" else float(rng.uniform(0.8, 1.5))
    table = draw_table(rng, palette, procedural=True)
    if base == "floor":
        surround(layout, rng, palette, replace(table, size_m=(1.8, 1.8, 0.4)))
        floor = 0.0
    else:
        surround(layout, rng, palette, table)
        table = layout.structure(replace(table, position_m=(0, 0, GAP_M)), solid=True)
        floor = table.position_m[2] + table.size_m[2]
        span = min(span, 0.9 * table.size_m[1])
    pile = Pile(0.0, 0.0, 2.2 * span, floor)
    reach = 0.5 * span
    if base == "tray":
        tray = layout.structure(_tray(rng, span, floor))
        points = dense_points(place(tray).mesh) @ rotation((0.0, 0.0, tray.yaw_rad)).T + tray.position_m
        pile.add(points, tray.id)
        reach = 0.42 * span
    for _ in range(int(rng.integers(14, 35))):
        thing = _item(rng, palette, span if base == "floor" else 0.55 * span)
        _drop(layout, rng, pile, thing, reach)
    top = float(pile.height.max())
    lens, fov = draw_lens(rng, style, LENSES)
    away = span * float(rng.uniform(0.6, 1.4)) * 0.55 / math.tan(math.radians(fov) / 2) + 0.12
    if rng.random() < 0.3:  # a close look at the middle of the pile
        away = float(rng.uniform(0.2, 0.4)) + 0.5 * (top - floor)
    lift, turn = math.radians(float(rng.uniform(24, 68))), float(rng.uniform(-1.2, 1.2))
    aim = (float(rng.normal(0, 0.05)) * span, float(rng.normal(0, 0.05)) * span, floor + 0.3 * (top - floor))
    eye = (
        aim[0] + away * math.cos(lift) * math.sin(turn),
        aim[1] - away * math.cos(lift) * math.cos(turn),
        max(aim[2] + away * math.sin(lift), top + 0.12),
    )
    camera = look_at(rounded(eye), rounded(aim), fov, width, height, float(rng.normal(0, 0.04)))
    hour = pick(rng, style.hours or HOURS)
    lights, sky = studio_lights(rng, (0.0, 0.0, floor + 0.1), hour)
    facts = (
        (
            "place",
            {"tray": "pile of things in a tray", "table": "pile of things on a table"}.get(
                base, "pile of things on the floor"
            ),
        ),
        ("hour", hour),
        ("lens", lens),
    )
    return Recipe("clutter", tuple(layout.things), lights, sky, camera, facts)


def _tray(rng: Rng, span: float, floor: float) -> Thing:
    size = (span, span * float(rng.uniform(0.7, 1.0)), float(rng.uniform(0.05, 0.16)))
    draw = rng.random()
    if draw < 0.4:
        material = wood_material(rng, 0.6, "wood")
    elif draw < 0.7:
        color = vivid(rng)
        material = Material(
            "plastic", color, 0.4, 0.0, Texture("worn", (color, (0.6, 0.58, 0.55)), 0.4, int(rng.integers(9)))
        )
    else:
        material = Material("metal", (0.78, 0.78, 0.79), 0.35, 1.0)
    yaw = float(rng.uniform(-0.4, 0.4))
    return Thing(0, "tray", "tray", (0, 0, floor + GAP_M), size, yaw, "", (0.012,), (material,))


def _item(rng: Rng, palette: Palette, span: float) -> Thing:
    """Make one thing for the pile, of about a sixth to a third of its span."""
    side = span * float(rng.uniform(0.12, 0.3))
    draw = rng.random()
    if draw < 0.34:
        thing = primitive(rng, side)
    elif draw < 0.46:
        thick = side * float(rng.uniform(0.2, 0.4))
        material = plain_material(rng)
        thing = Thing(
            0,
            "letter",
            "letters",
            (0, 0, 0),
            (0.6 * side, side, thick),
            numbers=(float(rng.integers(16)),),
            materials=(material,),
        )
    else:
        thing = small_thing(rng, palette)
        for _ in range(4):
            if thing.category not in NOT_PILED and max(thing.size_m) < 0.62 * span:
                break
            thing = small_thing(rng, palette)
        else:
            thing = primitive(rng, side)
    if thing.model:
        thing = model(thing.model, paint=some_paint(rng, 0.12))
    return thing


def _drop(layout: Layout, rng: Rng, pile: Pile, thing: Thing, reach: float) -> Thing | None:
    """Drop a thing at a random place; where it would end beyond the pile's reach, or stick out high, it is left out."""
    mesh = place(thing).mesh
    for _ in range(3):
        pose = one_of(POSES, rng) if not thing.model or rng.random() < 0.5 else POSES[0]
        start = rotation((0.0, 0.0, float(rng.uniform(-math.pi, math.pi)))) @ rotation(pose)
        away, angle = reach * math.sqrt(rng.random()) * 0.9, float(rng.uniform(0, 2 * math.pi))
        rest = settle(pile, mesh, start, away * math.cos(angle), away * math.sin(angle), reach)
        if rest is None or rest.position_m[2] > pile.floor_m + 0.9 * reach:
            continue
        carrier = rest.touches[0] if rest.touches else 0
        lying = replace(
            thing, position_m=rest.position_m, yaw_rad=0.0, tilt=rest.tilt, rests_on=carrier, leans_on=rest.touches[1:]
        )
        added = layout.lay(lying)
        points = dense_points(mesh)
        matrix = thing_matrix(added)
        pile.add(points @ matrix[:3, :3].T + np.array(added.position_m), added.id)
        return added
    return None


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
