"""Rooms: floor, walls with windows, ceiling, furniture along the walls and in groups, small things on flat tops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from encoders.sample import Camera
from render.layout import (
    GAP_M,
    Footprint,
    Layout,
    model,
    on_top,
    plain_material,
    some_paint,
    vivid,
    wood_material,
)
from render.meshes import model_top
from render.presets import Style
from render.recipe import Light, Material, Recipe, Rgb, Sky, Texture, Thing, look_at

Palette = Mapping[str, Sequence[str]]
Rng = np.random.Generator

WALL_COLORS: tuple[Rgb, ...] = (
    (0.90, 0.89, 0.86), (0.93, 0.92, 0.90), (0.86, 0.82, 0.74), (0.74, 0.80, 0.84), (0.70, 0.76, 0.68),
    (0.84, 0.74, 0.66), (0.56, 0.66, 0.70), (0.80, 0.80, 0.82), (0.88, 0.80, 0.62), (0.42, 0.50, 0.52),
    (0.78, 0.66, 0.64), (0.93, 0.93, 0.93),
)  # fmt: skip
USES = {
    "living room": ("sofa", "low_storage", "high_storage", "armchair", "floor_lamp", "floor_plant"),
    "bedroom": ("bed", "high_storage", "low_storage", "desk", "armchair", "floor_plant"),
    "study": ("desk", "high_storage", "high_storage", "armchair", "low_storage", "floor_plant"),
    "dining room": ("low_storage", "high_storage", "floor_plant", "appliance"),
    "kitchen": ("appliance", "low_storage", "appliance", "low_storage", "high_storage"),
    "play room": ("low_storage", "high_storage", "bed", "desk", "stool"),
}
WALL_M = 0.15


def draw_room(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a furnished room and a camera standing in it."""
    layout = Layout()
    size = (float(rng.uniform(3.4, 7.0)), float(rng.uniform(3.6, 8.5)), float(rng.uniform(2.45, 3.2)))
    use = str(rng.choice(list(USES)))
    windows = build_shell(layout, rng, size)
    _group(layout, rng, palette, size, use)
    for role in rng.permutation(USES[use]):
        _against_wall(layout, rng, palette, str(role), size)
    _scatter(layout, rng, palette, size, use)
    for thing in list(layout.things):
        if thing.is_thing and thing.model and model_top(thing.model) is not None and thing.size_m[2] < 1.3:
            for _ in range(int(rng.integers(1, 5))):
                on_top(layout, thing, lambda: small_thing(rng, palette), rng)
    _hang(layout, rng, palette, size)
    lights, sky = room_lights(rng, size, windows)
    camera = _camera(layout, rng, size, width, height)
    return Recipe("room", tuple(layout.things), lights, sky, camera, (("place", use),))


def build_shell(layout: Layout, rng: Rng, size: tuple[float, float, float]) -> list[Thing]:
    """Build floor, ceiling and four walls around the origin; return the walls that have windows."""
    w, d, h = size
    seed = int(rng.integers(1 << 30))
    floor = floor_material(rng)
    layout.structure(Thing(0, "floor", "box", (0, 0, -0.1), (w + 2 * WALL_M, d + 2 * WALL_M, 0.1), materials=(floor,)))
    white = Material("plaster", (0.93, 0.93, 0.92), 0.9)
    layout.structure(Thing(0, "ceiling", "box", (0, 0, h), (w + 2 * WALL_M, d + 2 * WALL_M, 0.1), materials=(white,)))
    color = WALL_COLORS[rng.integers(len(WALL_COLORS))]
    paint = Material("plaster", color, 0.9, 0.0, Texture("plaster", (color,), 2.0, seed))
    accent = _accent(rng, paint)
    trim = Material("wood", (0.92, 0.92, 0.91), 0.4)
    windows = []
    glazed = int(rng.integers(4))
    for number, (x, y, length, yaw) in enumerate(
        ((0, d / 2, w, 0.0), (-w / 2, 0, d, math.pi / 2), (0, -d / 2, w, math.pi), (w / 2, 0, d, -math.pi / 2))
    ):
        holes = _window_holes(rng, length, h) if number == glazed or rng.random() < 0.25 else ()
        out = WALL_M / 2
        wall = Thing(
            0, "wall", "wall",
            (x - out * math.sin(yaw), y + out * math.cos(yaw), 0),
            (length + 2 * WALL_M, WALL_M, h), yaw, numbers=holes,
            materials=(accent if number == seed % 4 else paint, trim),
        )  # fmt: skip
        added = layout.structure(wall, solid=True)
        if holes:
            windows.append(added)
    return windows


def floor_material(rng: Rng) -> Material:
    """Draw boards, tiles, carpet or stone."""
    seed = int(rng.integers(1 << 30))
    kind = rng.choice(["planks", "planks", "planks", "tiles", "carpet", "marble", "checker"])
    if kind == "planks":
        return replace(
            wood_material(rng, float(rng.uniform(1.2, 2.0)), "planks"), roughness=float(rng.uniform(0.25, 0.5))
        )
    if kind == "carpet":
        color = vivid(rng) if rng.random() < 0.3 else (0.60, 0.56, 0.50)
        dark = tuple(0.8 * part for part in color)
        return Material("carpet", color, 0.98, 0.0, Texture("fabric", (color, dark), 0.6, seed))  # type: ignore[arg-type]
    if kind == "marble":
        texture = Texture("marble", ((0.88, 0.86, 0.83), (0.55, 0.52, 0.50)), 2.5, seed)
        return Material("stone", (0.88, 0.86, 0.83), 0.15, 0.0, texture)
    light = float(rng.uniform(0.5, 0.9))
    color = (light, light * float(rng.uniform(0.9, 1.0)), light * float(rng.uniform(0.8, 1.0)))
    other = (0.2, 0.2, 0.2) if kind == "checker" else (0.55, 0.53, 0.5)
    texture = Texture(str(kind), (color, other), float(rng.uniform(1.2, 2.4)), seed)
    return Material("tile", color, float(rng.uniform(0.15, 0.4)), 0.0, texture)


def _accent(rng: Rng, paint: Material) -> Material:
    draw = rng.random()
    seed = int(rng.integers(1 << 30))
    if draw < 0.2:
        texture = Texture("bricks", ((0.62, 0.33, 0.25), (0.75, 0.72, 0.68)), 0.96, seed)
        return Material("brick", (0.62, 0.33, 0.25), 0.9, 0.0, texture)
    if draw < 0.35:
        light = paint.color
        texture = Texture("stripes", (light, tuple(0.85 * part for part in light)), 0.8, seed)  # type: ignore[arg-type]
        return replace(paint, texture=texture)
    if draw < 0.5:
        color = ((0.16, 0.26, 0.34), (0.30, 0.36, 0.28), (0.60, 0.34, 0.26))[rng.integers(3)]
        return Material("plaster", color, 0.9, 0.0, Texture("plaster", (color,), 2.0, seed))
    return paint


def _window_holes(rng: Rng, length: float, height: float) -> tuple[float, ...]:
    count = 1 if length < 4.5 else int(rng.integers(1, 3))
    sill = float(rng.choice([0.85, 0.5, 0.2]))
    top = min(height - 0.2, float(rng.uniform(2.0, 2.4)))
    holes: list[float] = []
    for number in range(count):
        width = float(min(rng.uniform(1.0, 2.2), length / count - 0.6))
        center = (number + 0.5) * length / count - length / 2
        holes += [round(center, 3), sill, round(width, 3), round(top - sill, 3)]
    return tuple(holes)


def _pick(rng: Rng, palette: Palette, role: str) -> str:
    return palette[role][rng.integers(len(palette[role]))]


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
        colors = (vivid(rng), vivid(rng), (0.85, 0.8, 0.7))
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
        material = Material("ceramic", vivid(rng), float(rng.uniform(0.08, 0.35)))
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


def _hang(layout: Layout, rng: Rng, palette: Palette, size: tuple[float, float, float]) -> None:
    """Hang pictures, and now and then a clock or a screen, on free stretches of wall."""
    for _ in range(int(rng.integers(2, 7))):
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


def room_lights(rng: Rng, size: tuple[float, float, float], windows: Sequence[Thing]) -> tuple[tuple[Light, ...], Sky]:
    """Light a room: daylight through each window and/or a lamp under the ceiling."""
    w, d, h = size
    evening = rng.random() < 0.25
    warm: Rgb = (1.0, float(rng.uniform(0.75, 0.9)), float(rng.uniform(0.5, 0.75)))
    lights = []
    for wall in windows:
        for k in range(0, len(wall.numbers), 4):
            u, sill, width, height = wall.numbers[k : k + 4]
            yaw = wall.yaw_rad
            inward = (math.sin(yaw), -math.cos(yaw), 0.0)
            x, y, _ = wall.position_m
            at = (
                x + u * math.cos(yaw) + 0.12 * inward[0],
                y + u * math.sin(yaw) + 0.12 * inward[1],
                sill + height / 2,
            )
            day: Rgb = (0.85, 0.92, 1.0) if not evening else (0.5, 0.6, 1.0)
            power = (55.0 if not evening else 6.0) * width * height * float(rng.uniform(0.7, 1.4))
            direction = (inward[0], inward[1], -0.35)
            lights.append(
                Light("area", day, round(power, 2), _unit(direction), _round(at), round(min(width, height), 3))
            )
    if evening or rng.random() < 0.6 or not lights:
        power = w * d * float(rng.uniform(3.5, 6.5)) * (1.6 if evening else 1.0)
        at = (float(rng.uniform(-0.15, 0.15) * w), float(rng.uniform(-0.15, 0.15) * d), h - 0.06)
        lights.append(Light("area", warm, round(power, 2), (0.0, 0.0, -1.0), _round(at), 0.6))
    name = "night" if evening else str(rng.choice(["city", "courtyard", "forest", "sunrise", "sunset"]))
    return tuple(lights), Sky("map", 1.0, name, round(float(rng.uniform(0, 2 * math.pi)), 4))


def _round(values: Sequence[float]) -> tuple[float, float, float]:
    return tuple(round(float(value), 4) for value in values)  # type: ignore[return-value]


def _unit(values: Sequence[float]) -> tuple[float, float, float]:
    vector = np.array(values) / np.linalg.norm(values)
    return _round(vector)


def _camera(layout: Layout, rng: Rng, size: tuple[float, float, float], width: int, height: int) -> Camera:
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
    target = things[rng.integers(len(things))].position_m if things else (0.0, 0.0, 0.0)
    mix = float(rng.uniform(0.3, 0.8))
    aim = (
        mix * target[0] + (1 - mix) * 0.15 * -eye[0],
        mix * target[1] + (1 - mix) * 0.15 * -eye[1],
        float(rng.uniform(0.45, 1.0)),
    )
    if math.hypot(aim[0] - eye[0], aim[1] - eye[1]) < 1.0:
        aim = (-0.4 * eye[0], -0.4 * eye[1], aim[2])
    return look_at(_round(eye), _round(aim), float(rng.uniform(50, 88)), width, height)


def distance_to(point: tuple[float, float, float], box: Footprint) -> float:
    """Return how far a point is from a box, 0 inside."""
    cos, sin = math.cos(box.yaw), math.sin(box.yaw)
    dx, dy = point[0] - box.x, point[1] - box.y
    x, y = abs(cos * dx + sin * dy) - box.half_x, abs(-sin * dx + cos * dy) - box.half_y
    z = max(box.low - point[2], point[2] - box.high)
    return math.hypot(max(x, 0), max(y, 0), max(z, 0))
