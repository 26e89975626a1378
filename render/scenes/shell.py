"""The shell of rooms and corridors: floor, ceiling, walls with glazed windows, doors, curtains, the world outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.render.geometry.textures import shade
from cavendish.render.light.skies import draw_weather
from cavendish.render.scenes.land import lay_ground, tree_thing
from cavendish.render.scenes.layout import GAP_M, MUTED, Footprint, Layout, vivid, wood_material
from cavendish.render.scenes.presets import Rng
from cavendish.render.scenes.recipe import Light, Material, Rgb, Sky, Texture, Thing, Vec3
from cavendish.render.scenes.streets import house_thing

WALL_COLORS: tuple[Rgb, ...] = (
    (0.90, 0.89, 0.86), (0.93, 0.92, 0.90), (0.86, 0.82, 0.74), (0.76, 0.81, 0.84), (0.72, 0.77, 0.69),
    (0.84, 0.76, 0.69), (0.60, 0.68, 0.71), (0.80, 0.80, 0.82), (0.87, 0.82, 0.70), (0.42, 0.50, 0.52),
    (0.79, 0.69, 0.66), (0.94, 0.94, 0.93), (0.91, 0.90, 0.88), (0.88, 0.87, 0.85),
)  # fmt: skip
WALL_M = 0.15
DOOR_M = (0.86, 0.12, 2.06)
QUARTERS = (0.0, math.pi / 2, math.pi, -math.pi / 2)
PANE = Material("glass", (0.955, 0.97, 0.965), 0.0, see_through=True)


@dataclass(frozen=True)
class Window:
    """A hole in a wall: its middle on the inner side, the direction into the room, width and height."""

    middle: Vec3
    inward: Vec3
    width: float
    height: float


def put(layout: Layout, size: Sequence[float], side: int, along: float, away: float) -> tuple[float, float]:
    """Return the place `along` a wall (0 back, 1 left, 2 front, 3 right) and `away` from its inner face."""
    yaw = QUARTERS[side]
    reach = (size[1] if side % 2 == 0 else size[0]) / 2 - away
    return along * math.cos(yaw) - reach * math.sin(yaw), along * math.sin(yaw) + reach * math.cos(yaw)


def build_shell(layout: Layout, rng: Rng, size: Vec3, window_chance: float = 0.25, carpet: bool = True) -> list[Window]:
    """Build floor, ceiling and four walls around the origin; return their windows."""
    w, d, h = size
    seed = int(rng.integers(1 << 30))
    outer = (w + 2 * WALL_M, d + 2 * WALL_M, 0.1)
    layout.structure(Thing(0, "floor", "box", (0, 0, -0.1), outer, materials=(floor_material(rng, carpet),)))
    white = Material("plaster", (0.93, 0.93, 0.92), 0.9)
    layout.structure(Thing(0, "ceiling", "box", (0, 0, h), outer, materials=(white,)))
    color = one_of(WALL_COLORS, rng)
    paint = Material("plaster", color, 0.85, 0.0, Texture("plaster", (color,), 2.0, seed % 16))
    accent = _accent(rng, paint)
    trim = Material("wood", ((0.92, 0.92, 0.91), (0.92, 0.92, 0.91), (0.42, 0.27, 0.17))[rng.integers(3)], 0.35)
    windows: list[Window] = []
    glazed = int(rng.integers(4))
    for side, yaw in enumerate(QUARTERS):
        length = w if side % 2 == 0 else d
        holes = _window_holes(rng, length, h) if side == glazed or rng.random() < window_chance else ()
        x, y = put(layout, size, side, 0.0, -WALL_M / 2)
        material = accent if side == seed % 4 else paint
        layout.structure(
            Thing(
                0,
                "wall",
                "wall",
                (x, y, 0),
                (length + 2 * WALL_M, WALL_M, h),
                yaw,
                numbers=holes,
                materials=(material, trim),
            ),
            solid=True,
        )
        for k in range(0, len(holes), 4):
            along, sill, wide, tall = holes[k : k + 4]
            x, y = put(layout, size, side, along, -0.1)
            pane = Thing(
                0, "window pane", "box", (x, y, sill + 0.04), (wide - 0.06, 0.004, tall - 0.08), yaw, materials=(PANE,)
            )
            layout.structure(pane)
            inward = (round(math.sin(yaw), 6), round(-math.cos(yaw), 6), 0.0)
            x, y = put(layout, size, side, along, 0.0)
            windows.append(Window((x, y, sill + tall / 2), inward, wide, tall))
    return windows


def floor_material(rng: Rng, carpet: bool = True) -> Material:
    """Draw boards, tiles, carpet or stone."""
    seed = int(rng.integers(1 << 30))
    kind = rng.choice(
        ["planks", "planks", "planks", "tiles", "carpet" if carpet else "tiles", "marble", "concrete", "checker"]
    )
    if kind == "planks":
        boards = wood_material(rng, float(rng.uniform(1.2, 2.0)), "planks")
        assert boards.texture is not None
        texture = replace(boards.texture, side=512)
        return replace(boards, roughness=float(rng.uniform(0.25, 0.5)), texture=texture, relief_m=0.0015)
    if kind == "carpet":
        color = one_of(MUTED, rng) if rng.random() < 0.4 else (0.60, 0.56, 0.50)
        return Material(
            "carpet", color, 0.98, 0.0, Texture("fabric", (color, shade(color, 0.8)), 0.6, seed), relief_m=0.003
        )
    if kind == "marble":
        texture = Texture("marble", ((0.88, 0.86, 0.83), (0.55, 0.52, 0.50)), 2.5, seed, 512)
        return Material("stone", (0.88, 0.86, 0.83), 0.15, 0.0, texture)
    light = float(rng.uniform(0.5, 0.9))
    color = (light, light * float(rng.uniform(0.93, 1.0)), light * float(rng.uniform(0.86, 1.0)))
    if kind == "concrete":
        return Material(
            "stone", color, float(rng.uniform(0.2, 0.6)), 0.0, Texture("concrete", (shade(color, 0.8),), 3.0, seed, 512)
        )
    other = (0.2, 0.2, 0.2) if kind == "checker" else (0.55, 0.53, 0.5)
    texture = Texture(str(kind), (color, other), float(rng.uniform(1.2, 2.4)), seed, 512)
    return Material("tile", color, float(rng.uniform(0.15, 0.4)), 0.0, texture, relief_m=0.0015)


def _accent(rng: Rng, paint: Material) -> Material:
    """Draw what one of the walls has: brick, stripes, panelling, wallpaper, a darker colour, or the same paint."""
    draw, seed = rng.random(), int(rng.integers(1 << 30))
    if draw < 0.12:
        texture = Texture("bricks", ((0.60, 0.35, 0.27), (0.74, 0.70, 0.65)), 0.96, seed, 512)
        return Material("brick", (0.60, 0.35, 0.27), 0.9, 0.0, texture, relief_m=0.008)
    if draw < 0.22:
        return replace(paint, texture=Texture("stripes", (paint.color, shade(paint.color, 0.9)), 0.8, seed))
    if draw < 0.30:
        wood = wood_material(rng, 1.6, "planks")
        return replace(wood, relief_m=0.003)
    if draw < 0.48:
        color: Rgb = (
            (0.16, 0.26, 0.34),
            (0.32, 0.38, 0.30),
            (0.58, 0.38, 0.31),
            (0.24, 0.25, 0.28),
            (0.45, 0.52, 0.50),
        )[rng.integers(5)]
        return Material("plaster", color, 0.85, 0.0, Texture("plaster", (color,), 2.0, seed % 16))
    return paint


def _window_holes(rng: Rng, length: float, height: float) -> tuple[float, ...]:
    count = 1 if length < 4.5 else int(rng.integers(1, 3)) if length < 9 else int(length // 4)
    sill = float(rng.choice([0.85, 0.85, 0.5, 0.15]))
    top = min(height - 0.2, float(rng.uniform(2.0, 2.4)))
    holes: list[float] = []
    for number in range(count):
        width = float(min(rng.uniform(1.0, 2.4), length / count - 0.6))
        center = (number + 0.5) * length / count - length / 2
        holes += [round(center, 3), sill, round(width, 3), round(top - sill, 3)]
    return tuple(holes)


def hang_door(
    layout: Layout, rng: Rng, size: Vec3, side: int, along: float, materials: tuple[Material, ...]
) -> Thing | None:
    """Set a closed door into a wall where no window and nothing else is, and keep the way to it free."""
    walls = [thing for thing in layout.things if thing.category == "wall"]
    holes = walls[side].numbers
    if any(abs(along - holes[k]) < (holes[k + 2] + DOOR_M[0]) / 2 + 0.12 for k in range(0, len(holes), 4)):
        return None
    x, y = put(layout, size, side, along, DOOR_M[1] / 2 + 0.001)
    leaf = Thing(
        0, "door", "door", (x, y, 0.0), DOOR_M, QUARTERS[side], "", (float(rng.integers(0, 4)),), materials,
        seed=int(rng.integers(2)),
    )  # fmt: skip
    return layout.hold(replace(leaf, position_m=(x, y, GAP_M)))


def door_materials(rng: Rng) -> tuple[Material, ...]:
    """Draw a door's leaf, frame and handle."""
    if rng.random() < 0.45:
        leaf = wood_material(rng, 0.9, "wood")
    else:
        color: Rgb = ((0.92, 0.92, 0.90), (0.90, 0.89, 0.86), (0.30, 0.38, 0.42), (0.55, 0.57, 0.58))[rng.integers(4)]
        leaf = Material("painted wood", color, 0.4)
    frame = Material("wood", (0.92, 0.92, 0.9), 0.4) if rng.random() < 0.7 else replace(leaf, texture=None)
    return leaf, frame, Material("metal", (0.78, 0.77, 0.74), 0.25, 1.0)


def hang_curtains(layout: Layout, rng: Rng, windows: Sequence[Window]) -> None:
    """Hang curtains on both sides of the windows, of one cloth."""
    color = one_of(MUTED, rng) if rng.random() < 0.6 else (0.86, 0.84, 0.80)
    cloth = Material(
        "fabric", color, 0.95, 0.0, Texture("fabric", (color, shade(color, 0.86)), 0.5, int(rng.integers(9)))
    )
    for window in windows:
        x, y, z = window.middle
        top = z + window.height / 2 + 0.1
        low = 0.02 if rng.random() < 0.75 else max(0.02, z - window.height / 2 - 0.15)
        yaw = math.atan2(-window.inward[0], window.inward[1]) + math.pi
        wide = float(rng.uniform(0.28, 0.5))
        for end in (-1.0, 1.0):
            u = end * (window.width / 2 + 0.3 * wide)
            at = (x + u * math.cos(yaw) + 0.09 * window.inward[0], y + u * math.sin(yaw) + 0.09 * window.inward[1], low)
            size = (wide, 0.12, top - low)
            thing = Thing(
                0,
                "curtain",
                "curtain",
                at,
                size,
                yaw,
                "",
                (float(rng.integers(4, 7)),),
                (cloth,),
                seed=int(rng.integers(9)),
            )
            layout.hold(thing)


def open_outside(layout: Layout, rng: Rng, size: Vec3, windows: Sequence[Window], hour: str) -> tuple[Light, Sky]:
    """Put a world behind the windows: ground, trees and houses at true distances, under a painted sky with its sun."""
    weather = {"day": "clear", "overcast": "overcast", "low sun": "low sun", "dusk": "dusk", "night": "night"}[hour]
    sun, sky = draw_weather(rng, weather)
    below = float(rng.choice([0.35, 0.35, 3.2, 6.4]))
    scenery = Layout()
    lay_ground(scenery, rng, str(rng.choice(["grass", "grass", "paving"])), 90.0, 25.0)
    scenery.reserve(Footprint(0, 0, size[0] / 2 + 2.5, size[1] / 2 + 2.5, 0.0, 0.0, 40.0))
    for inward in sorted({window.inward for window in windows}):
        facing = math.atan2(-inward[1], -inward[0])
        for _ in range(int(rng.integers(1, 4))):
            away, turn = float(rng.uniform(11, 38)), facing + float(rng.uniform(-0.6, 0.6))
            at = (away * math.cos(turn), away * math.sin(turn), 0.0)
            scenery.stand(replace(tree_thing(rng, "summer", {0: 0.8, 2: 0.2}, 50.0), position_m=at), 0.1)
        if rng.random() < 0.75:
            away, turn = float(rng.uniform(24, 48)), facing + float(rng.uniform(-0.3, 0.3))
            house = house_thing(
                rng,
                str(rng.choice(["town", "suburb", "modern"])),
                (float(rng.uniform(14, 30)), 11.0),
                0.4 if hour == "night" else 0.0,
                True,
            )
            at = (away * math.cos(turn), away * math.sin(turn), 0.0)
            scenery.stand(replace(house, position_m=at, yaw_rad=facing - math.pi / 2 + float(rng.normal(0, 0.1))), 0.1)
    for thing in scenery.things:
        x, y, z = thing.position_m
        layout.structure(replace(thing, position_m=(x, y, z - below)))
    return replace(sun, power=round(0.8 * sun.power, 4)), replace(
        sky, haze_m=0.0, strength=round(0.9 * sky.strength, 3)
    )


def window_lights(rng: Rng, windows: Sequence[Window], hour: str) -> list[Light]:
    """Send the light of the sky in through each window by an area lamp in it."""
    color: Rgb = {"low sun": (1.0, 0.9, 0.78), "dusk": (0.6, 0.66, 1.0), "night": (0.5, 0.6, 1.0)}.get(
        hour, (0.88, 0.94, 1.0)
    )
    strength = {"dusk": 3.0, "night": 0.6, "overcast": 16.0}.get(hour, 22.0)
    lights = []
    for window in windows:
        power = strength * window.width * window.height * float(rng.uniform(0.7, 1.4))
        x, y, z = window.middle
        at = (round(x + 0.05 * window.inward[0], 4), round(y + 0.05 * window.inward[1], 4), round(z, 4))
        down = np.array([window.inward[0], window.inward[1], -0.35])
        direction = tuple(round(float(part), 4) for part in down / np.linalg.norm(down))
        lights.append(Light("area", color, round(power, 2), direction, at, round(min(window.width, window.height), 3)))  # type: ignore[arg-type]
    return lights


def neon(rng: Rng) -> Rgb:
    """Draw the colour of a coloured lamp."""
    colors: tuple[Rgb, ...] = (
        (1.0, 0.25, 0.35),
        (0.3, 0.5, 1.0),
        (0.75, 0.3, 1.0),
        (0.25, 1.0, 0.75),
        (1.0, 0.6, 0.15),
    )
    return one_of(colors, rng)


def rug_colors(rng: Rng) -> tuple[Rgb, Rgb, Rgb]:
    """Draw three colours that go together on a rug, mostly muted."""
    first = vivid(rng) if rng.random() < 0.2 else one_of(MUTED, rng)
    return first, one_of(MUTED, rng), (0.84, 0.80, 0.72)
