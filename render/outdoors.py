"""Outdoors: ground to the horizon, a road, buildings, vehicles, trees, people, hills far away, and a painted sky."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from encoders.sample import Camera
from render.layout import GAP_M, Footprint, Layout, model, rounded, some_paint, vivid
from render.recipe import Light, Material, Recipe, Rgb, Sky, Texture, Thing, look_at
from render.rooms import Palette, Rng
from render.textures import shade

GROUNDS: Mapping[str, tuple[str, tuple[Rgb, ...], float]] = {
    "grass": ("grass", ((0.16, 0.28, 0.07), (0.40, 0.48, 0.18)), 3.0),
    "dry grass": ("grass", ((0.40, 0.36, 0.18), (0.66, 0.60, 0.34)), 3.0),
    "asphalt": ("asphalt", ((0.20, 0.20, 0.21), (0.42, 0.42, 0.42)), 2.0),
    "paving": ("paving", ((0.62, 0.58, 0.54), (0.40, 0.38, 0.36)), 2.4),
    "sand": ("noise", ((0.76, 0.66, 0.48), (0.86, 0.78, 0.62)), 5.0),
    "snow": ("noise", ((0.88, 0.91, 0.95), (0.97, 0.97, 0.98)), 6.0),
    "earth": ("noise", ((0.34, 0.25, 0.17), (0.50, 0.40, 0.28)), 4.0),
}
ANIMALS = ("horse", "dog", "cat")
WALLS: tuple[Rgb, ...] = (
    (0.80, 0.74, 0.64), (0.62, 0.34, 0.26), (0.86, 0.84, 0.80), (0.58, 0.60, 0.62), (0.84, 0.70, 0.46),
    (0.70, 0.48, 0.40), (0.52, 0.60, 0.66), (0.90, 0.86, 0.76),
)  # fmt: skip
SKIES: Mapping[str, tuple[tuple[Rgb, ...], float, Rgb, tuple[float, float], float]] = {
    # zenith, horizon, cloud; strength; sun colour; range of sun heights in degrees; sun power
    "clear": (((0.20, 0.42, 0.78), (0.74, 0.84, 0.94), (0.97, 0.97, 0.98)), 1.0, (1.0, 0.95, 0.86), (28, 65), 3.6),
    "hazy": (((0.46, 0.60, 0.78), (0.88, 0.90, 0.92), (0.95, 0.95, 0.96)), 1.1, (1.0, 0.93, 0.82), (25, 55), 2.4),
    "overcast": (((0.66, 0.70, 0.75), (0.82, 0.84, 0.86), (0.90, 0.91, 0.92)), 1.2, (1.0, 1.0, 1.0), (40, 70), 0.5),
    "low sun": (((0.26, 0.36, 0.62), (0.97, 0.74, 0.50), (0.98, 0.80, 0.66)), 0.8, (1.0, 0.66, 0.36), (9, 20), 3.2),
}


def draw_outdoor(rng: Rng, palette: Palette, width: int, height: int) -> Recipe:
    """Draw a street, a park or open land, and a camera at the height of a person or a car."""
    layout = Layout()
    place = str(rng.choice(["street", "street", "park", "open land", "yard"]))
    grounds = {"street": ("paving", "grass", "asphalt"), "yard": ("asphalt", "paving", "earth")}
    ground = str(rng.choice(grounds.get(place, ("grass", "dry grass", "sand", "snow", "earth"))))
    kind, colors, size_m = GROUNDS[ground]
    texture = Texture(kind, colors, size_m, int(rng.integers(1 << 30)))
    soil = Material(ground, colors[0], 0.95, 0.0, texture)
    layout.structure(Thing(0, "ground", "box", (0, 0, -1), (1600, 1600, 1), materials=(soil,)))
    eye, camera = _camera(rng, place, width, height)
    if place == "street":
        _road(layout, rng)
    layout.reserve(Footprint(eye[0], eye[1], 0.7, 0.7, 0.0, 0.0, 3.0))
    if place in ("street", "yard"):
        _buildings(layout, rng, place)
    _hills(layout, rng, place)
    _vehicles(layout, rng, palette, place)
    _trees(layout, rng, palette, place, ground)
    _small(layout, rng, palette)
    lights, sky, weather = _weather(rng)
    return Recipe(
        "outdoor",
        tuple(layout.things),
        lights,
        sky,
        camera,
        (("place", place), ("ground", ground), ("weather", weather)),
    )


def _camera(rng: Rng, place: str, width: int, height: int) -> tuple[tuple[float, float, float], Camera]:
    eye = rounded((float(rng.uniform(-2.5, 2.5)), 0.0, float(rng.uniform(1.2, 2.1))))
    if rng.random() < 0.1:
        eye = rounded((eye[0], 0.0, float(rng.uniform(4, 12))))
    turn = float(rng.normal(0, 0.16))
    pitch = math.radians(float(rng.uniform(-7, 2)) - (8 if eye[2] > 3 else 0))
    aim = rounded((eye[0] + 10 * math.sin(turn), 10 * math.cos(turn), eye[2] + 10 * math.tan(pitch)))
    return eye, look_at(eye, aim, float(rng.uniform(42, 84)), width, height, float(rng.normal(0, 0.01)))


def _road(layout: Layout, rng: Rng) -> None:
    """Lay a road along +y with dashed lines, its surface 3 cm above the ground."""
    width, x = float(rng.uniform(6.5, 9.0)), float(rng.uniform(-3, 3))
    kind, colors, size_m = GROUNDS["asphalt"]
    dark = tuple(tuple(0.72 * part for part in color) for color in colors)
    texture = Texture(kind, dark, size_m, int(rng.integers(1 << 30)))  # type: ignore[arg-type]
    tar = Material("asphalt", dark[0], 0.9, 0.0, texture)  # type: ignore[arg-type]
    road = layout.structure(Thing(0, "road", "box", (x, 190, GAP_M), (width, 420, 0.03), materials=(tar,)))
    layout.platforms.append(road)
    white = Material("paint", (0.86, 0.86, 0.84), 0.7)
    for number in range(26):
        at = (x, -4 + 7.0 * number, 0.03 + 2 * GAP_M)
        layout.structure(Thing(0, "road marking", "box", at, (0.14, 3.0, 0.004), materials=(white,)))


def _buildings(layout: Layout, rng: Rng, place: str) -> None:
    """Line both sides of the street, or close the yard at its far end."""
    for side in (-1, 1):
        y = float(rng.uniform(3, 14))
        row = side * float(rng.uniform(11, 17))
        while y < 170:
            w, d = float(rng.uniform(9, 22)), float(rng.uniform(8, 14))
            gabled = rng.random() < 0.45
            h = float(rng.uniform(5.5, 9) if gabled else rng.uniform(6, 24))
            if rng.random() < 0.85:
                x = row + side * d / 2
                layout.stand(_building(rng, (w, d, h), (x, y + w / 2, 0), -side * math.pi / 2, gabled))
            y += w + float(rng.choice([0.3, 3.0, 9.0]))
    if place == "yard" or rng.random() < 0.4:
        at = (float(rng.uniform(-15, 15)), float(rng.uniform(40, 150)), 0)
        layout.stand(_building(rng, (float(rng.uniform(14, 40)), 12.0, float(rng.uniform(8, 30))), at, 0.0, False))


def _building(
    rng: Rng, size: tuple[float, float, float], at: tuple[float, float, float], yaw: float, gabled: bool
) -> Thing:
    color = WALLS[rng.integers(len(WALLS))]
    frame: Rgb = (0.92, 0.92, 0.9) if rng.random() < 0.7 else (0.2, 0.2, 0.22)
    windows = Texture(
        "windows", (color, (0.16, 0.20, 0.25), frame), float(rng.uniform(10.5, 12.5)), int(rng.integers(1 << 30))
    )
    wall = Material("plaster", color, 0.8, 0.0, windows)
    plinth = Material("stone", (0.36, 0.35, 0.34), 0.9)
    tiles: Rgb = ((0.50, 0.22, 0.16), (0.26, 0.26, 0.28), (0.38, 0.30, 0.25))[rng.integers(3)]
    roof = Material("tile", tiles, 0.8, 0.0, Texture("bricks", (tiles, tuple(0.6 * p for p in tiles)), 2.4, 5))  # type: ignore[arg-type]
    noun = "house" if gabled else "building"
    return Thing(0, noun, "building", at, size, yaw, "", (float(gabled),), (wall, plinth, roof))


def _hills(layout: Layout, rng: Rng, place: str) -> None:
    if rng.random() < (0.25 if place == "street" else 0.75):
        for _ in range(int(rng.integers(1, 4))):
            away, turn = float(rng.uniform(260, 600)), float(rng.uniform(-0.9, 0.9))
            size = (float(rng.uniform(200, 420)), float(rng.uniform(120, 220)), float(rng.uniform(18, 95)))
            green = ((0.20, 0.28, 0.14), (0.30, 0.30, 0.24), (0.24, 0.30, 0.30), (0.42, 0.36, 0.26))[rng.integers(4)]
            texture = Texture("noise", (green, shade(green, 1.5)), 90.0, int(rng.integers(1 << 30)))
            soil = Material("earth", green, 0.95, 0.0, texture)
            at = (away * math.sin(turn), away * math.cos(turn), -0.5)
            layout.structure(
                Thing(
                    0,
                    "hill",
                    "hill",
                    at,
                    size,
                    float(rng.uniform(-0.4, 0.4)),
                    seed=int(rng.integers(1 << 30)),
                    materials=(soil,),
                )
            )


def _spot(rng: Rng, near: float, far: float, spread: float = 0.75) -> tuple[float, float, float]:
    """Draw a place ahead of the camera; distances are spread evenly in their logarithm."""
    away = float(np.exp(rng.uniform(math.log(near), math.log(far))))
    turn = float(rng.uniform(-spread, spread))
    return away * math.sin(turn), away * math.cos(turn), 0.0


def _stand_somewhere(layout: Layout, rng: Rng, thing: Thing, near: float, far: float, tries: int = 10) -> Thing | None:
    for _ in range(tries):
        placed = layout.stand(replace(thing, position_m=_spot(rng, near, far)), 0.1)
        if placed is not None:
            return placed
    return None


def _vehicles(layout: Layout, rng: Rng, palette: Palette, place: str) -> None:
    roads = layout.platforms
    for _ in range(int(rng.integers(2, 8)) if place in ("street", "yard") else int(rng.integers(0, 3))):
        name = palette["vehicle"][rng.integers(len(palette["vehicle"]))]
        vehicle = model(name, paint=vivid(rng) if rng.random() < 0.6 else None)
        if roads and rng.random() < 0.85:
            road = roads[0]
            side = float(rng.choice([-1, 1]))
            x = road.position_m[0] + side * (road.size_m[0] / 4 + float(rng.uniform(-0.2, 0.35)))
            y = float(np.exp(rng.uniform(math.log(5), math.log(90)))) + vehicle.size_m[1] / 2
            yaw = (0.0 if side < 0 else math.pi) + float(rng.normal(0, 0.02))
            layout.stand(replace(vehicle, position_m=(x, y, 0), yaw_rad=yaw), 0.4)
        else:
            yaw = float(rng.uniform(-math.pi, math.pi))
            _stand_somewhere(layout, rng, replace(vehicle, yaw_rad=yaw), 6, 60)


def _trees(layout: Layout, rng: Rng, palette: Palette, place: str, ground: str) -> None:
    """Plant procedural trees, a few shapes repeated, and palms on sand."""
    count = {"street": (2, 8), "yard": (0, 4), "park": (8, 22), "open land": (0, 10)}[place]
    fir = rng.random() < (0.8 if ground == "snow" else 0.3)
    seeds = [int(rng.integers(1 << 30)) for _ in range(2)]
    for _ in range(int(rng.integers(*count))):
        if ground == "sand" and palette.get("tree"):
            thing = model(palette["tree"][rng.integers(len(palette["tree"]))])
        else:
            h = float(rng.uniform(4, 13))
            w = h * float(rng.uniform(0.4, 0.55) if fir else rng.uniform(0.6, 0.85))
            green: Rgb = ((0.14, 0.27, 0.08), (0.24, 0.36, 0.10), (0.10, 0.22, 0.13), (0.46, 0.36, 0.10))[
                rng.integers(4)
            ]
            dark = tuple(0.55 * part for part in green)
            leaves = Texture("grass", (dark, green), 1.6, int(rng.integers(4)))  # type: ignore[arg-type]
            materials = (Material("leaves", green, 0.95, 0.0, leaves), Material("wood", (0.24, 0.17, 0.11), 0.95))
            noun = "fir tree" if fir else "tree"
            thing = Thing(
                0, noun, "tree", (0, 0, 0), (w, w, h), 0, "", (float(fir),), materials, None, seeds[rng.integers(2)]
            )
        _stand_somewhere(layout, rng, replace(thing, yaw_rad=float(rng.uniform(-math.pi, math.pi))), 8, 140)


def _small(layout: Layout, rng: Rng, palette: Palette) -> None:
    """Stand people, benches, lamps, rocks and the like, nearer to the camera."""
    for _ in range(int(rng.integers(4, 11))):
        draw = rng.random()
        yaw = float(rng.uniform(-math.pi, math.pi))
        if draw < 0.3:
            thing = model(palette["person"][rng.integers(len(palette["person"]))], yaw=yaw)
        elif draw < 0.85:
            name = palette["street_item"][rng.integers(len(palette["street_item"]))]
            thing = model(name, yaw=yaw)
            if thing.category not in ANIMALS:
                thing = replace(thing, paint=some_paint(rng, 0.15))
        else:
            side = float(rng.uniform(0.4, 1.6))
            gray = float(rng.uniform(0.35, 0.6))
            texture = Texture("noise", ((gray, gray, gray * 0.96), (0.6 * gray,) * 3), 1.5, int(rng.integers(1 << 30)))
            stone = Material("stone", (gray, gray, gray), 0.95, 0.0, texture)
            size = (side, side * float(rng.uniform(0.6, 1)), side * float(rng.uniform(0.4, 0.8)))
            thing = Thing(0, "rock", "rock", (0, 0, 0), size, yaw, seed=int(rng.integers(1 << 30)), materials=(stone,))
        _stand_somewhere(layout, rng, thing, 2.5 + max(thing.size_m[:2]) / 2, 32)


def _weather(rng: Rng) -> tuple[tuple[Light, ...], Sky, str]:
    weather = str(rng.choice(list(SKIES), p=[0.45, 0.2, 0.2, 0.15]))
    colors, strength, tint, (low, high), power = SKIES[weather]
    lift = math.radians(float(rng.uniform(low, high)))
    turn = float(rng.uniform(-math.pi, math.pi))
    direction = rounded((-math.cos(lift) * math.sin(turn), -math.cos(lift) * math.cos(turn), -math.sin(lift)))
    sun = Light("sun", tint, power, direction, size_m=0.009 if power > 1 else 0.3)
    cloudiness = {"clear": 0.35, "hazy": 0.2, "overcast": 0.9, "low sun": 0.45}[weather] * float(rng.uniform(0.4, 1.2))
    sky = Sky(
        "painted", strength, "", round(turn, 4), colors, round(min(1.0, cloudiness), 3), int(rng.integers(1 << 30))
    )
    return (sun,), sky, weather
