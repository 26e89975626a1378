"""Rooms: floor, walls with windows, ceiling, furniture along the walls and in groups, small things on flat tops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Camera
from cavendish.render.geometry.models import model_top
from cavendish.render.scenes.layout import (
    GAP_M,
    Footprint,
    Layout,
    model,
    on_top,
    plain_material,
    rounded,
    some_paint,
    vivid,
)
from cavendish.render.scenes.presets import Palette, Rng, Style, draw_lens, pick
from cavendish.render.scenes.recipe import Light, Material, Recipe, Rgb, Texture, Thing, look_at
from cavendish.render.scenes.shell import (
    build_shell,
    door_materials,
    hang_curtains,
    hang_door,
    neon,
    open_outside,
    rug_colors,
    window_lights,
)

LENSES: Mapping[str, float] = {"phone": 0.5, "wide": 0.3, "dslr": 0.2}
HOURS: Mapping[str, float] = {"day": 0.6, "overcast": 0.05, "low sun": 0.1, "night": 0.25}
USES = {
    "living room": ("sofa", "low_storage", "high_storage", "armchair", "floor_lamp", "floor_plant"),
    "bedroom": ("bed", "high_storage", "low_storage", "desk", "armchair", "floor_plant"),
    "study": ("desk", "high_storage", "high_storage", "armchair", "low_storage", "floor_plant"),
    "dining room": ("low_storage", "high_storage", "floor_plant", "appliance"),
    "kitchen": ("appliance", "low_storage", "appliance", "low_storage", "high_storage"),
    "play room": ("low_storage", "high_storage", "bed", "desk", "stool"),
}


def draw_room(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a furnished room and a camera standing in it."""
    layout = Layout()
    size = (float(rng.uniform(3.4, 7.0)), float(rng.uniform(3.6, 8.5)), float(rng.uniform(2.45, 3.2)))
    use = str(rng.choice(list(USES)))
    windows = build_shell(layout, rng, size)
    hour = pick(rng, style.hours or HOURS)
    materials = door_materials(rng)
    for _ in range(int(rng.integers(1, 3))):
        side = int(rng.integers(4))
        reach = (size[0] if side % 2 == 0 else size[1]) / 2 - 0.7
        hang_door(layout, rng, size, side, float(rng.uniform(-reach, reach)), materials)
    if rng.random() < 0.6:
        hang_curtains(layout, rng, windows)
    lamp = _hang_lamp(layout, rng, size, lit=hour == "night" or rng.random() < 0.3)
    _group(layout, rng, palette, size, use)
    for role in rng.permutation(USES[use]):
        _against_wall(layout, rng, palette, str(role), size)
    _scatter(layout, rng, palette, size, use)
    for thing in list(layout.things):
        if thing.is_thing and thing.model and model_top(thing.model) is not None and thing.size_m[2] < 1.3:
            for _ in range(int(rng.integers(1, 6))):
                on_top(layout, thing, lambda: small_thing(rng, palette), rng)
    hang_pictures(layout, rng, palette, size, int(rng.integers(2, 7)))
    sun, sky = open_outside(layout, rng, size, windows, hour)
    lights = (sun, *window_lights(rng, windows, hour), *lamp_lights(rng, size, lamp, hour))
    lens, fov = draw_lens(rng, style, LENSES)
    camera = _camera(layout, rng, size, fov, width, height)
    return Recipe("room", tuple(layout.things), lights, sky, camera, (("place", use), ("hour", hour), ("lens", lens)))


def _hang_lamp(layout: Layout, rng: Rng, size: tuple[float, float, float], lit: bool) -> Thing | None:
    """Hang a lamp from the middle of the ceiling, mostly."""
    if rng.random() < 0.25:
        return None
    width = float(rng.uniform(0.28, 0.55))
    tall = float(rng.uniform(0.5, 0.9)) if size[2] > 2.6 else 0.45
    color: Rgb = ((0.9, 0.89, 0.86), (0.08, 0.08, 0.09), (0.62, 0.42, 0.2), (0.35, 0.4, 0.38))[rng.integers(4)]
    shade_of = Material("metal" if color[0] < 0.3 else "fabric", color, 0.5)
    glow = Material("light", (1.0, 0.9, 0.74), 0.4, emission=9.0 if lit else 0.0)
    materials = (shade_of, Material("plastic", (0.1, 0.1, 0.1), 0.5), glow)
    at = (float(rng.uniform(-0.1, 0.1) * size[0]), float(rng.uniform(-0.1, 0.1) * size[1]), size[2] - tall - GAP_M)
    lamp = Thing(0, "lamp", "pendant", at, (width, width, tall), 0.0, "", (float(rng.integers(3)),), materials)
    return layout.hold(lamp)


def lamp_lights(rng: Rng, size: tuple[float, float, float], lamp: Thing | None, hour: str) -> list[Light]:
    """Return the light of lamps: the hanging one's where it is lit, else a soft one above; at times a coloured one."""
    w, d, h = size
    warm: Rgb = (1.0, round(float(rng.uniform(0.75, 0.9)), 3), round(float(rng.uniform(0.5, 0.75)), 3))
    lights = []
    night = hour == "night"
    lit = lamp is not None and lamp.materials[-1].emission > 0
    if lit and lamp is not None:
        x, y, z = lamp.position_m
        lights.append(
            Light(
                "point",
                warm,
                round(w * d * float(rng.uniform(1.2, 2.2)) + 6, 2),
                (0, 0, -1),
                (x, y, round(z - 0.08, 4)),
                0.06,
            )
        )
    elif night or rng.random() < 0.4:
        at = (
            round(float(rng.uniform(-0.15, 0.15) * w), 4),
            round(float(rng.uniform(-0.15, 0.15) * d), 4),
            round(h - 0.06, 4),
        )
        lights.append(Light("area", warm, round(w * d * float(rng.uniform(1.6, 3.0)), 2), (0.0, 0.0, -1.0), at, 0.6))
    if night and rng.random() < 0.3:
        at = (
            round((w / 2 - 0.25) * float(rng.choice([-1, 1])), 4),
            round((d / 2 - 0.25) * float(rng.choice([-1, 1])), 4),
            0.35,
        )
        lights.append(Light("point", neon(rng), 12.0, (0, 0, -1), at, 0.1))
    return lights


def _pick(rng: Rng, palette: Palette, role: str) -> str:
    return one_of(palette[role], rng)


def _against_wall(layout: Layout, rng: Rng, palette: Palette, role: str, size: tuple[float, float, float]) -> None:
    """Stand a piece of furniture with its back to a wall; a chair before it if it is a desk."""
    name = _pick(rng, palette, role)
    for _ in range(10):
        side = int(rng.integers(4))
        yaw = (0.0, math.pi / 2, math.pi, -math.pi / 2)[side]
        piece = model(name, yaw=yaw, paint=some_paint(rng, 0.45 if role in ("sofa", "armchair", "bed") else 0.15))
        length = size[0] if side % 2 == 0 else size[1]
        reach = size[1] / 2 if side % 2 == 0 else size[0] / 2
        along = (length - piece.size_m[0]) / 2 - 0.06
        if along < 0 or piece.size_m[2] > size[2] - 0.05:
            return
        u, v = float(rng.uniform(-along, along)), reach - piece.size_m[1] / 2 - float(rng.uniform(0.03, 0.08))
        x, y = u * math.cos(yaw) - v * math.sin(yaw), u * math.sin(yaw) + v * math.cos(yaw)
        placed = layout.stand(replace(piece, position_m=(x, y, 0)))
        if placed is None:
            continue
        if role == "desk":
            seat = model(
                _pick(rng, palette, "office_chair" if rng.random() < 0.6 else "chair"), paint=some_paint(rng, 0.5)
            )
            v -= piece.size_m[1] / 2 + seat.size_m[1] / 2 + 0.05
            at = (u * math.cos(yaw) - v * math.sin(yaw), u * math.sin(yaw) + v * math.cos(yaw), 0.0)
            layout.stand(replace(seat, position_m=at, yaw_rad=yaw + math.pi + float(rng.uniform(-0.5, 0.5))))
        return


def _group(layout: Layout, rng: Rng, palette: Palette, size: tuple[float, float, float], use: str) -> None:
    """Stand a table with seats round it in the middle, sometimes on a rug."""
    x, y = float(rng.uniform(-0.12, 0.12) * size[0]), float(rng.uniform(-0.12, 0.12) * size[1])
    yaw = float(rng.choice([0.0, math.pi / 2])) + (float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.3 else 0.0)
    dining = use in ("dining room", "kitchen", "study") or rng.random() < 0.25
    if rng.random() < 0.55:
        colors = rug_colors(rng)
        texture = Texture("rug", colors, 1.0, int(rng.integers(1 << 30)))
        rug = (min(2.9, size[0] * 0.55), min(3.6, size[1] * 0.55), 0.008)
        material = Material("fabric", colors[0], 0.98, 0.0, texture)
        layout.platform(Thing(0, "rug", "mat", (x, y, GAP_M), rug, materials=(material,)))
    table = model(_pick(rng, palette, "table" if dining else "coffee_table"), x, y, yaw, some_paint(rng, 0.2))
    placed = layout.stand(table)
    if placed is None:
        return
    seat_name, seat_paint = _pick(rng, palette, "chair"), some_paint(rng, 0.5)
    for side in range(4):
        if rng.random() < 0.25:
            continue
        seat = model(seat_name if dining else _pick(rng, palette, "armchair"), paint=seat_paint)
        turn = yaw + side * math.pi / 2
        across = table.size_m[1] if side % 2 == 0 else table.size_m[0]
        away = across / 2 + seat.size_m[1] / 2 + (0.04 if dining else float(rng.uniform(0.3, 0.6)))
        spread = table.size_m[0] if side % 2 == 0 else table.size_m[1]
        slots = (-spread / 4, spread / 4) if dining and spread > 1.3 else (0.0,)
        for u in slots:
            # stands on the far side of the table along the turned +y, its front (-y) toward the table
            at = (x + u * math.cos(turn) - away * math.sin(turn), y + u * math.sin(turn) + away * math.cos(turn), 0.0)
            layout.stand(replace(seat, position_m=at, yaw_rad=turn + float(rng.uniform(-0.15, 0.15))))


def _scatter(layout: Layout, rng: Rng, palette: Palette, size: tuple[float, float, float], use: str) -> None:
    count = int(rng.integers(2, 6)) + (4 if use == "play room" else 0)
    for _ in range(count):
        draw = rng.random()
        if draw < 0.08 and palette.get("person"):
            thing = model(_pick(rng, palette, "person"))
        elif draw < 0.2:
            thing = model(_pick(rng, palette, "stool"), paint=some_paint(rng, 0.6))
        elif draw < 0.35:
            thing = primitive(rng, float(rng.uniform(0.18, 0.5)))
        else:
            thing = model(_pick(rng, palette, "floor_item"), paint=some_paint(rng, 0.1))
        for _ in range(6):
            half = (size[0] / 2 - 0.4, size[1] / 2 - 0.4)
            at = (float(rng.uniform(-half[0], half[0])), float(rng.uniform(-half[1], half[1])), 0.0)
            if layout.stand(replace(thing, position_m=at, yaw_rad=float(rng.uniform(-math.pi, math.pi)))):
                break


def primitive(rng: Rng, side: float) -> Thing:
    """Make a simple body of about `side` metres: box, ball, cylinder, cone, ring."""
    shape = str(rng.choice(["box", "sphere", "cylinder", "cone", "torus", "box"]))
    a, b, c = (float(side * value) for value in rng.uniform(0.6, 1.1, 3))
    size = {"box": (a, b, c), "sphere": (a, a, a), "cylinder": (a, a, c), "cone": (a, a, c), "torus": (a, a, a * 0.28)}[
        shape
    ]
    noun = {"box": "box", "sphere": "ball", "cylinder": "cylinder", "cone": "cone", "torus": "ring"}[shape]
    numbers = (0.04 * side,) if shape == "box" else ()
    return Thing(0, noun, shape, (0, 0, 0), size, numbers=numbers, materials=(plain_material(rng),))


def small_thing(rng: Rng, palette: Palette) -> Thing:
    """Make something that stands on tables: a model, a turned pot, a pile of books, a toy block."""
    draw = rng.random()
    if draw < 0.62:
        return model(_pick(rng, palette, "table_item"), paint=some_paint(rng, 0.12))
    if draw < 0.78:
        noun, kind, size = (
            ("vase", 0, (0.14, 0.14, 0.28)), ("bowl", 1, (0.22, 0.22, 0.09)), ("cup", 2, (0.085, 0.085, 0.1)),
            ("bottle", 3, (0.08, 0.08, 0.27)), ("bowl", 4, (0.25, 0.25, 0.06)), ("vase", 5, (0.18, 0.18, 0.22)),
        )[rng.integers(6)]  # fmt: skip
        scale = float(rng.uniform(0.85, 1.3))
        material = Material("ceramic", vivid(rng), float(rng.uniform(0.08, 0.35)), coat=0.5)
        if rng.random() < 0.4:
            tint = ((0.97, 0.98, 0.97), (0.72, 0.90, 0.78), (0.62, 0.80, 0.95), (0.93, 0.72, 0.42))[rng.integers(4)]
            material = Material("glass", tint, 0.02, transmission=1.0)
        return Thing(
            0,
            noun,
            "vessel",
            (0, 0, 0),
            (scale * size[0], scale * size[1], scale * size[2]),
            numbers=(float(kind),),
            materials=(material,),
        )
    if draw < 0.9:
        covers = [Material("paper", vivid(rng), 0.5) for _ in range(3)]
        paper = Material("paper", (0.93, 0.9, 0.82), 0.9)
        size = (float(rng.uniform(0.15, 0.24)), float(rng.uniform(0.2, 0.3)), float(rng.uniform(0.03, 0.16)))
        noun = "book" if size[2] < 0.045 else "stack of books"
        return Thing(
            0,
            noun,
            "books",
            (0, 0, 0),
            size,
            seed=int(rng.integers(1 << 30)),
            materials=(covers[0], paper, *covers[1:]),
        )
    return primitive(rng, float(rng.uniform(0.06, 0.14)))


def hang_pictures(layout: Layout, rng: Rng, palette: Palette, size: tuple[float, float, float], count: int) -> None:
    """Hang pictures, and now and then a clock or a screen, on free stretches of wall."""
    for _ in range(count):
        side = int(rng.integers(4))
        yaw = (0.0, math.pi / 2, math.pi, -math.pi / 2)[side]
        if rng.random() < 0.2 and palette.get("wall_hung"):
            thing = model(_pick(rng, palette, "wall_hung"), yaw=yaw)
        else:
            w, h = float(rng.uniform(0.25, 0.9)), float(rng.uniform(0.25, 0.8))
            colors = tuple(vivid(rng) for _ in range(4))
            picture = Material(
                "picture", colors[0], 0.7, 0.0, Texture("picture", colors, 1.0, int(rng.integers(1 << 30)))
            )
            edge = Material("wood", ((0.1, 0.1, 0.1), (0.85, 0.84, 0.8), (0.45, 0.28, 0.15))[rng.integers(3)], 0.4)
            thing = Thing(0, "picture", "frame", (0, 0, 0), (w, 0.025, h), yaw, materials=(picture, edge))
        length, reach = (size[0], size[1] / 2) if side % 2 == 0 else (size[1], size[0] / 2)
        u = float(rng.uniform(-1, 1)) * (length / 2 - thing.size_m[0] / 2 - 0.1)
        v = reach - thing.size_m[1] / 2 - 0.016
        z = float(rng.uniform(1.25, 1.75)) - thing.size_m[2] / 2
        if z + thing.size_m[2] > size[2] - 0.05 or _before_window(layout, side, u, thing):
            continue
        at = (u * math.cos(yaw) - v * math.sin(yaw), u * math.sin(yaw) + v * math.cos(yaw), z)
        layout.hold(replace(thing, position_m=at))


def _before_window(layout: Layout, side: int, u: float, thing: Thing) -> bool:
    walls = [other for other in layout.things if other.category == "wall"]
    holes = walls[side].numbers
    return any(abs(u - holes[k]) < (holes[k + 2] + thing.size_m[0]) / 2 + 0.05 for k in range(0, len(holes), 4))


def _camera(layout: Layout, rng: Rng, size: tuple[float, float, float], fov: float, width: int, height: int) -> Camera:
    """Stand near a wall or a corner, clear of furniture, and look across the room at some of its things."""
    w, d, h = size
    things = [thing for thing in layout.things if thing.is_thing]
    best = None
    for _ in range(40):
        eye = (
            float(rng.uniform(-1, 1) * (w / 2 - 0.3)),
            float(rng.uniform(-1, 1) * (d / 2 - 0.3)),
            float(rng.uniform(0.9, min(1.85, h - 0.4))),
        )
        clear = min((distance_to(eye, box) for box in layout.boxes), default=1.0)
        edge = max(abs(eye[0]) / (w / 2), abs(eye[1]) / (d / 2))
        score = min(clear, 0.6) + 0.6 * edge
        if clear > 0.25 and (best is None or score > best[0]):
            best = (score, eye)
    eye = best[1] if best else (0.0, -d / 2 + 0.35, 1.5)
    target = one_of(things, rng).position_m if things else (0.0, 0.0, 0.0)
    mix = float(rng.uniform(0.3, 0.8))
    aim = (
        mix * target[0] + (1 - mix) * 0.15 * -eye[0],
        mix * target[1] + (1 - mix) * 0.15 * -eye[1],
        float(rng.uniform(0.45, 1.0)),
    )
    if math.hypot(aim[0] - eye[0], aim[1] - eye[1]) < 1.0:
        aim = (-0.4 * eye[0], -0.4 * eye[1], aim[2])
    return look_at(rounded(eye), rounded(aim), fov, width, height)


def distance_to(point: tuple[float, float, float], box: Footprint) -> float:
    """Return how far a point is from a box, 0 inside."""
    cos, sin = math.cos(box.yaw), math.sin(box.yaw)
    dx, dy = point[0] - box.x, point[1] - box.y
    x, y = abs(cos * dx + sin * dy) - box.half_x, abs(-sin * dx + cos * dy) - box.half_y
    z = max(box.low - point[2], point[2] - box.high)
    return math.hypot(max(x, 0), max(y, 0), max(z, 0))
