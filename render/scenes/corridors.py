"""Corridors: long and narrow, doors on both sides, lamps in the ceiling, furniture along the walls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cavendish.encoders.draws import one_of
from cavendish.render.scenes.layout import GAP_M, Footprint, Layout, model, rounded, some_paint
from cavendish.render.scenes.presets import Palette, Rng, Style, draw_lens, pick
from cavendish.render.scenes.recipe import Light, Material, Recipe, Rgb, Texture, Thing, Vec3, look_at
from cavendish.render.scenes.rooms import hang_pictures
from cavendish.render.scenes.shell import (
    QUARTERS,
    build_shell,
    door_materials,
    hang_door,
    neon,
    open_outside,
    put,
    window_lights,
)

LENSES: Mapping[str, float] = {"phone": 0.45, "wide": 0.35, "dslr": 0.2}
HOURS: Mapping[str, float] = {"day": 0.55, "overcast": 0.1, "night": 0.35}
PLACES = ("corridor", "office corridor", "hotel corridor", "hall")


def draw_corridor(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a corridor of 9 to 40 m along y, and a camera near its end that looks along it."""
    layout = Layout()
    place = str(rng.choice(PLACES))
    size = (
        float(rng.uniform(1.7, 2.6) if place != "hall" else rng.uniform(3.2, 6.0)),
        float(rng.uniform(9, 40)),
        float(rng.uniform(2.4, 3.0) if place != "hall" else rng.uniform(3.0, 4.4)),
    )
    hour = pick(rng, style.hours or HOURS)
    windows = build_shell(layout, rng, size, 0.12, carpet=place == "hotel corridor")
    eye = (
        float(rng.uniform(-0.2, 0.2) * size[0]),
        -size[1] / 2 + float(rng.uniform(0.4, 1.2)),
        float(rng.uniform(1.2, 1.75)),
    )
    layout.reserve(Footprint(eye[0], eye[1], 0.4, 0.6, 0.0, 0.0, 2.5))
    _doors(layout, rng, size)
    _runner(layout, rng, size, place)
    _furniture(layout, rng, palette, size)
    hang_pictures(layout, rng, palette, size, int(rng.integers(2, 9)))
    lamps = _ceiling_lamps(layout, rng, size)
    sun, sky = open_outside(layout, rng, size, windows, hour)
    lights = [sun, *window_lights(rng, windows, hour), *lamps]
    if rng.random() < 0.12:
        lights.append(
            Light(
                "point", neon(rng), 16.0, (0, 0, -1), (0.0, round(float(rng.uniform(0, size[1] / 2 - 1)), 3), 1.9), 0.1
            )
        )
    lens, fov = draw_lens(rng, style, LENSES)
    ahead = float(rng.uniform(4, 9))
    aim = (eye[0] + float(rng.normal(0, 0.22)) * size[0], eye[1] + ahead, eye[2] + float(rng.normal(-0.35, 0.3)))
    camera = look_at(rounded(eye), rounded(aim), fov, width, height, float(rng.normal(0, 0.01)))
    facts = (("place", place), ("hour", hour), ("lens", lens))
    return Recipe("corridor", tuple(layout.things), tuple(lights), sky, camera, facts)


def _doors(layout: Layout, rng: Rng, size: Vec3) -> None:
    """Set doors along both long walls, evenly, and one at the far end."""
    materials = door_materials(rng)
    step = float(rng.uniform(2.4, 5.0))
    for side in (1, 3):
        along = -size[1] / 2 + float(rng.uniform(1.5, 2.5))
        while along < size[1] / 2 - 0.8:
            if rng.random() < 0.85:
                hang_door(layout, rng, size, side, along if side == 1 else -along, materials)
            along += step
    hang_door(layout, rng, size, 0, 0.0, materials)


def _runner(layout: Layout, rng: Rng, size: Vec3, place: str) -> None:
    if place == "hotel corridor" or rng.random() < 0.3:
        color: Rgb = ((0.42, 0.14, 0.13), (0.16, 0.22, 0.32), (0.34, 0.32, 0.29), (0.22, 0.30, 0.24))[rng.integers(4)]
        texture = Texture("rug", (color, (0.55, 0.47, 0.34), (0.66, 0.58, 0.42)), 1.2, int(rng.integers(99)))
        cloth = Material("carpet", color, 0.98, 0.0, texture)
        rug = (0.62 * size[0], size[1] - 1.2, 0.008)
        layout.platform(Thing(0, "rug", "box", (0, 0, GAP_M), rug, materials=(cloth,)))


def _furniture(layout: Layout, rng: Rng, palette: Palette, size: Vec3) -> None:
    """Stand narrow furniture, plants and odd things with their backs to the long walls, and a few people on the way."""
    roles = ("low_storage", "floor_plant", "floor_plant", "floor_item", "floor_item", "stool", "chair", "high_storage")
    for _ in range(int(rng.integers(6, 14))):
        role = one_of(roles, rng)
        piece = model(one_of(palette[role], rng), paint=some_paint(rng, 0.15))
        if piece.size_m[1] > 0.42 * size[0] or piece.size_m[2] > size[2] - 0.05:
            continue
        side = int(rng.choice([1, 3]))
        along = float(rng.uniform(-0.47, 0.47)) * size[1]
        x, y = put(layout, size, side, along, piece.size_m[1] / 2 + 0.04)
        layout.stand(replace(piece, position_m=(x, y, 0), yaw_rad=QUARTERS[side]))
    for _ in range(int(rng.integers(0, 3))):
        person = model(one_of(palette["person"], rng), yaw=float(rng.choice([0.0, math.pi])))
        at = (float(rng.uniform(-0.25, 0.25)) * size[0], float(rng.uniform(-0.3, 0.45)) * size[1], 0.0)
        layout.stand(replace(person, position_m=at))


def _ceiling_lamps(layout: Layout, rng: Rng, size: Vec3) -> list[Light]:
    """Set a row of flat lamps into the ceiling, each with its light; some are broken."""
    step = float(rng.uniform(2.2, 4.5))
    count = min(10, int(size[1] / step))
    tint = (1.0, round(float(rng.uniform(0.82, 1.0)), 3), round(float(rng.uniform(0.62, 1.0)), 3))
    square = rng.random() < 0.5
    plan = (0.5, 0.5) if square else (0.16, 1.2)
    lights = []
    for number in range(count):
        y = (number + 0.5) * size[1] / count - size[1] / 2
        on = rng.random() < 0.9
        glow = Material("light", tint, 0.4, emission=4.0 if on else 0.0)
        z = size[2] - 0.04
        layout.structure(Thing(0, "ceiling lamp", "box", (0, y, z), (*plan, 0.038), 0.0, "", (0.006,), (glow,)))
        if on:
            lights.append(
                Light(
                    "area",
                    tint,
                    round(4.0 * size[0] * step / 2, 2),
                    (0.0, 0.0, -1.0),
                    (0.0, round(y, 4), round(z - 0.01, 4)),
                    0.5,
                )
            )
    return lights
