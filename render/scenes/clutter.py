"""Clutter: many things dropped onto a table, a floor or into a tray, lying as they came to rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.render.geometry.meshes import place
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
from cavendish.render.scenes.recipe import Material, Recipe, Texture, Thing, look_at, rotation, thing_matrix
from cavendish.render.scenes.resting import Pile, dense_points, settle
from cavendish.render.scenes.rooms import primitive, small_thing
from cavendish.render.scenes.tabletops import draw_table, studio_lights, surround

LENSES: Mapping[str, float] = {"phone": 0.5, "dslr": 0.5}
HOURS: Mapping[str, float] = {"day": 0.7, "low sun": 0.1, "night": 0.2}
POSES = ((0.0, 0.0, 0.0), (math.pi / 2, 0.0, 0.0), (0.0, math.pi / 2, 0.0), (math.pi, 0.0, 0.0), (0.7, 0.5, 0.0))
NOT_PILED = ("lamp", "plant", "television", "computer")


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
