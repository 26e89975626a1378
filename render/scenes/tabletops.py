"""Table tops: a table in front of walls, clutter on it, a camera an arm's length away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.render.scenes.layout import MUTED, Layout, model, on_top, rounded, some_paint, vivid, wood_material
from cavendish.render.scenes.presets import Palette, Rng, Style, draw_lens, pick
from cavendish.render.scenes.recipe import Light, Material, Recipe, Rgb, Sky, Texture, Thing, look_at
from cavendish.render.scenes.rooms import primitive, small_thing
from cavendish.render.scenes.shell import WALL_COLORS, floor_material, neon

LENSES: Mapping[str, float] = {"phone": 0.55, "dslr": 0.45}
HOURS: Mapping[str, float] = {"day": 0.65, "low sun": 0.2, "night": 0.15}


def draw_tabletop(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a table with up to twenty things on it, seen from close by."""
    layout = Layout()
    table = draw_table(rng, palette)
    surround(layout, rng, palette, table)
    stood = layout.stand(table)
    assert stood is not None  # the first solid thing of the scene
    center = (stood.position_m[0], stood.position_m[1], stood.position_m[2] + stood.size_m[2])
    for _ in range(int(rng.integers(7, 17))):
        draw = rng.random()
        if draw < 0.75:
            on_top(layout, stood, lambda: small_thing(rng, palette), rng)
        else:
            on_top(layout, stood, lambda: primitive(rng, float(rng.uniform(0.05, 0.16))), rng)
    placed = [thing for thing in layout.things if thing.rests_on == stood.id]
    focus = one_of(placed, rng).position_m if placed else center
    away = float(rng.uniform(0.55, 1.25)) + 0.35 * max(stood.size_m[0], stood.size_m[1]) * float(rng.random())
    turn = float(rng.uniform(-0.9, 0.9))
    lift = math.radians(float(rng.uniform(14, 52)))
    aim = (0.55 * focus[0] + 0.45 * center[0], 0.55 * focus[1] + 0.45 * center[1], center[2] + 0.06)
    eye = (
        aim[0] + away * math.cos(lift) * math.sin(turn),
        aim[1] - away * math.cos(lift) * math.cos(turn),
        aim[2] + away * math.sin(lift),
    )
    lens, fov = draw_lens(rng, style, LENSES)
    camera = look_at(rounded(eye), rounded(aim), fov, width, height, float(rng.normal(0, 0.03)))
    hour = pick(rng, style.hours or HOURS)
    lights, sky = studio_lights(rng, center, hour)
    facts = (("place", "table"), ("hour", hour), ("lens", lens))
    return Recipe("table top", tuple(layout.things), lights, sky, camera, facts)


def draw_table(rng: Rng, palette: Palette, procedural: bool = False) -> Thing:
    """Draw a table: a model, or one of plain parts with a top of wood, stone, paint or cloth."""
    if not procedural and rng.random() < 0.45:
        role = str(rng.choice(["table", "desk", "coffee_table"]))
        return model(one_of(palette[role], rng), yaw=float(rng.choice([0.0, math.pi])))
    size = (float(rng.uniform(0.8, 1.7)), float(rng.uniform(0.6, 0.95)), float(rng.uniform(0.45, 0.8)))
    draw = rng.random()
    if draw < 0.55:
        top = wood_material(rng, float(rng.uniform(0.7, 1.2)), "wood")
    elif draw < 0.7:
        texture = Texture("marble", ((0.90, 0.89, 0.87), (0.45, 0.44, 0.45)), 1.3, int(rng.integers(1 << 30)))
        top = Material("stone", (0.9, 0.89, 0.87), 0.12, 0.0, texture)
    elif draw < 0.85:
        top = Material("painted wood", vivid(rng), float(rng.uniform(0.3, 0.6)))
    else:
        colors = (vivid(rng), (0.93, 0.92, 0.9))
        pattern = str(rng.choice(["checker", "stripes", "dots"]))
        top = Material("fabric", colors[0], 0.95, 0.0, Texture(pattern, colors, 0.4, int(rng.integers(1 << 30))))
    leg: Rgb = ((0.08, 0.08, 0.09), (0.9, 0.9, 0.9), (0.4, 0.26, 0.15))[rng.integers(3)]
    shape = (float(rng.integers(2)),)
    return Thing(
        0,
        "table",
        "table",
        (0, 0, 0),
        size,
        0.0,
        "",
        shape,
        (top, Material("wood", leg, 0.4)),
        seed=int(rng.integers(3)),
    )


def surround(layout: Layout, rng: Rng, palette: Palette, table: Thing) -> None:
    """Build a floor, a wall behind, sometimes one beside, and some furniture along the back wall."""
    behind = table.size_m[1] / 2 + float(rng.uniform(0.15, 2.5))
    layout.structure(Thing(0, "floor", "box", (0, 0, -0.1), (14, 14, 0.1), materials=(floor_material(rng),)))
    color = one_of(WALL_COLORS, rng) if rng.random() < 0.7 else one_of(MUTED, rng)
    texture = Texture("plaster", (color,), 2.0, int(rng.integers(1 << 30)))
    if rng.random() < 0.15:
        texture = Texture("bricks", ((0.62, 0.33, 0.25), (0.75, 0.72, 0.68)), 0.96, int(rng.integers(1 << 30)))
    paint = Material("plaster", color, 0.9, 0.0, texture)
    trim = Material("wood", (0.92, 0.92, 0.91), 0.4)
    materials = (paint, trim)
    layout.structure(Thing(0, "wall", "wall", (0, behind + 0.075, 0), (14, 0.15, 3), materials=materials), solid=True)
    if rng.random() < 0.5:
        side = float(rng.choice([-1, 1]))
        x = side * (table.size_m[0] / 2 + float(rng.uniform(0.2, 1.5)) + 0.075)
        turned = Thing(0, "wall", "wall", (x, behind - 3.5, 0), (7, 0.15, 3), -side * math.pi / 2, materials=materials)
        layout.structure(turned, solid=True)
    if behind - table.size_m[1] / 2 > 0.8:
        for _ in range(3):
            roles = ("high_storage", "low_storage", "floor_plant", "sofa", "armchair")
            role = one_of(roles, rng)
            piece = model(one_of(palette[role], rng), paint=some_paint(rng, 0.3))
            y = behind - piece.size_m[1] / 2 - 0.05
            if y - piece.size_m[1] / 2 > table.size_m[1] / 2 + 0.05:
                layout.stand(replace(piece, position_m=(float(rng.uniform(-2, 2)), y, 0)))


def studio_lights(rng: Rng, center: tuple[float, float, float], hour: str) -> tuple[tuple[Light, ...], Sky]:
    """Light from a large soft source on one side, sometimes a second, at night a coloured lamp, and an environment."""
    lights = []
    night = hour == "night"
    for number in range(int(rng.integers(1, 3))):
        turn = float(rng.uniform(-2.4, 2.4))
        lift = float(rng.uniform(0.5, 1.3))
        away = float(rng.uniform(1.3, 2.2))
        offset = np.array([math.cos(lift) * math.sin(turn), -math.cos(lift) * math.cos(turn), math.sin(lift)])
        tint: Rgb = (1.0, float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.6, 1.0)))
        if night and number == 1:
            tint = neon(rng)
        power = float(rng.uniform(40, 80)) * (1.0 if number == 0 else 0.35)
        at, size = rounded(list(center + away * offset)), round(float(rng.uniform(0.3, 1.1)), 3)
        lights.append(Light("area", rounded(tint), round(power, 2), rounded(list(-offset)), at, size))
    if hour == "low sun":
        lift, turn = math.radians(float(rng.uniform(14, 30))), float(rng.uniform(-1.2, 1.2)) + math.pi
        down = (math.cos(lift) * math.sin(turn), -math.cos(lift) * math.cos(turn), -math.sin(lift))
        lights.append(Light("sun", (1.0, 0.8, 0.58), 4.0, rounded(down), size_m=0.009))
    names = {"night": ["night"], "low sun": ["sunset", "sunrise"]}
    name = str(rng.choice(names.get(hour, ["interior", "studio", "courtyard", "city", "forest"])))
    strength = float(round(rng.uniform(0.5, 1.0), 3))
    return tuple(lights), Sky("map", strength, name, round(float(rng.uniform(0, 2 * math.pi)), 4))
