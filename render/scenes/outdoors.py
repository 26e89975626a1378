"""Outdoors: streets, parks, yards and open land; and long views from the ground before the camera to the hills."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Camera
from cavendish.render.light.skies import draw_weather, weather_of
from cavendish.render.scenes.land import bush_thing, fence_thing, grow_grass, lay_ground, plant_forests, tree_thing
from cavendish.render.scenes.layout import Footprint, Layout, model, rounded, some_paint
from cavendish.render.scenes.presets import Palette, Rng, Style, draw_lens, pick
from cavendish.render.scenes.recipe import Light, Material, Recipe, Texture, Thing, look_at
from cavendish.render.scenes.streets import (
    CAR_COLORS,
    build_houses,
    dress_street,
    furnish_pavements,
    house_thing,
    lay_street,
    park_cars,
)

ANIMALS = ("horse", "dog", "cat")
ON_WHEELS = ("car", "van", "truck", "bus")
LENSES: Mapping[str, float] = {"phone": 0.5, "dslr": 0.2, "car": 0.2, "wide": 0.1}
HOURS: Mapping[str, float] = {"day": 0.6, "overcast": 0.18, "low sun": 0.16, "dusk": 0.03, "night": 0.03}
LONG_LENSES: Mapping[str, float] = {"car": 0.4, "phone": 0.3, "dslr": 0.3}
LONG_HOURS: Mapping[str, float] = {"day": 0.6, "overcast": 0.2, "low sun": 0.2}
SEASONS = ("summer", "summer", "summer", "autumn")


def draw_outdoor(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a street, a park or open land, and a camera at the height of a person or a car."""
    layout = Layout()
    place = str(rng.choice(["street", "street", "park", "open land", "yard"]))
    season = str(rng.choice(SEASONS))
    grounds = {"street": ("grass", "grass", "paving"), "yard": ("asphalt", "paving", "grass")}
    ground = str(rng.choice(grounds.get(place, ("grass", "grass", "dry grass", "sand", "snow", "earth"))))
    hour = pick(rng, style.hours or HOURS)
    weather = weather_of(hour, rng)
    sun, sky = draw_weather(rng, weather)
    hills = float(rng.uniform(15, 120)) if rng.random() < 0.7 else 6.0
    land = lay_ground(layout, rng, ground, {"street": 235.0, "yard": 120.0}.get(place, 70.0), hills)
    dark = hour in ("night", "dusk")
    lights: list[Light] = [sun]
    lens, fov = draw_lens(rng, style, LENSES)
    if place == "street":
        manner = str(rng.choice(["suburb", "town", "town", "modern"]))
        street = lay_street(layout, rng, manner)
        driving = lens == "car" or rng.random() < 0.25
        x = (
            street.x - street.road / 4
            if driving
            else street.edge(float(rng.choice([-1, 1])), float(rng.uniform(0.8, 1.8)))
        )
        eye, camera = _camera(rng, lens, fov, width, height, x, driving)
        layout.reserve(Footprint(eye[0], eye[1], 0.9, 0.9, 0.0, 0.0, 3.0))
        build_houses(layout, rng, street, 0.45 if dark else 0.0)
        lights += dress_street(layout, rng, street, season, dark)
        park_cars(layout, rng, street, _cars(palette))
        _people(layout, rng, palette, 3.0, 45.0, int(rng.integers(0, 3)))
        furnish_pavements(layout, rng, palette, street)
    else:
        eye, camera = _camera(rng, lens, fov, width, height, float(rng.uniform(-2, 2)), lens == "car")
        layout.reserve(Footprint(eye[0], eye[1], 0.7, 0.7, 0.0, 0.0, 3.0))
        if place == "yard":
            _yard_houses(layout, rng, 0.45 if dark else 0.0)
            _parked(layout, rng, palette, int(rng.integers(2, 6)))
        if dark and place == "park":
            lights += _park_lamps(layout, rng)
        _vegetation(layout, rng, palette, place, ground, season, eye)
        _people(layout, rng, palette, 3.0, 30.0, int(rng.integers(1, 4)))
        _street_items(layout, rng, palette, int(rng.integers(2, 6)))
        _rocks(layout, rng, int(rng.integers(0, 4)))
        if place != "yard":
            plant_forests(layout, rng, land, int(rng.integers(2, 7)), 130.0, ground == "snow")
    facts = (("place", place), ("ground", ground), ("weather", weather), ("lens", lens))
    return Recipe("outdoor", tuple(layout.things), tuple(lights), sky, camera, facts)


def draw_long_range(rng: Rng, palette: Palette, width: int, height: int, style: Style) -> Recipe:
    """Draw a long view: a country road, fields, or hills, with things from a few metres to beyond 200 m, and sky."""
    layout = Layout()
    place = str(rng.choice(["avenue", "country road", "country road", "fields", "fields", "hills", "hills"]))
    ground = str(rng.choice(("grass", "grass", "grass", "dry grass", "sand", "snow", "earth")))
    season = str(rng.choice(SEASONS))
    hour = pick(rng, style.hours or LONG_HOURS)
    weather = weather_of(hour, rng)
    sun, sky = draw_weather(rng, weather)
    lights: list[Light] = [sun]
    hills = {"avenue": 60.0, "country road": 120.0, "fields": 70.0, "hills": 320.0}[place] * float(
        rng.uniform(0.5, 1.3)
    )
    level = 235.0 if place in ("avenue", "country road") else float(rng.uniform(45, 80))
    wild = "fields" if place in ("fields", "country road") and ground in ("grass", "dry grass") else "meadow"
    land = lay_ground(layout, rng, "grass" if place == "avenue" else ground, level, hills, wild)
    lens, fov = draw_lens(rng, style, LONG_LENSES)
    if place in ("avenue", "country road"):
        street = lay_street(layout, rng, str(rng.choice(["suburb", "town", "modern"])))
        eye, camera = _camera(rng, lens, fov, width, height, street.x - street.road / 4, True)
        layout.reserve(Footprint(eye[0], eye[1], 1.2, 1.2, 0.0, 0.0, 3.0))
        furnish_pavements(layout, rng, palette, street)
        if place == "avenue":
            build_houses(layout, rng, street, 0.4 if hour == "dusk" else 0.0)
            lights += dress_street(layout, rng, street, season, hour == "dusk")
        else:
            _roadside(layout, rng, street.edge, street.walk, season)
        park_cars(layout, rng, street, _cars(palette))
    else:
        eye, camera = _camera(rng, lens, fov, width, height, float(rng.uniform(-2, 2)), False)
        layout.reserve(Footprint(eye[0], eye[1], 0.7, 0.7, 0.0, 0.0, 3.0))
        for _ in range(int(rng.integers(1, 4))):
            yaw = float(rng.uniform(-0.5, 0.5))
            fence = fence_thing(rng, float(rng.choice([12, 20, 30])), yaw, int(rng.choice([0, 0, 2])))
            _stand_somewhere(layout, rng, fence, 7, 60, 0.5, keep_yaw=True)
        if rng.random() < 0.5:
            for _ in range(int(rng.integers(1, 4))):
                farm = house_thing(rng, "suburb", (float(rng.uniform(10, 22)), float(rng.uniform(8, 12))), 0.0, True)
                _stand_somewhere(layout, rng, farm, 35, min(level + 20, 95), 0.6)
        _vegetation(layout, rng, palette, "open land", ground, season, eye)
        _people(layout, rng, palette, 4.0, 40.0, 2)
        _rocks(layout, rng, int(rng.integers(1, 5)))
    plant_forests(layout, rng, land, int(rng.integers(5, 12)), 250.0 if level > 200 else 120.0, ground == "snow")
    facts = (("place", place), ("ground", ground), ("weather", weather), ("lens", lens))
    return Recipe("long range", tuple(layout.things), tuple(lights), sky, camera, facts)


def _camera(
    rng: Rng, lens: str, fov: float, width: int, height: int, x: float, driving: bool
) -> tuple[tuple[float, float, float], Camera]:
    """Stand (or sit in a car) looking about +y; now and then from a balcony or a drone."""
    up = float(rng.uniform(1.15, 1.55) if lens == "car" else rng.uniform(1.4, 1.85))
    if not driving and rng.random() < 0.12:
        up = float(rng.uniform(4, 14))
    eye = rounded((x, 0.0, up))
    turn = float(rng.normal(0, 0.07 if driving else 0.16))
    pitch = math.radians(float(rng.normal(-2.5, 2.5)) - (9 if up > 3 else 0))
    aim = rounded((eye[0] + 10 * math.sin(turn), 10 * math.cos(turn), eye[2] + 10 * math.tan(pitch)))
    return eye, look_at(eye, aim, fov, width, height, float(rng.normal(0, 0.01)))


def _cars(palette: Palette) -> list[str]:
    """Return the palette's four-wheelers, or all of its vehicles when it has none."""
    names = list(palette["vehicle"])
    return [name for name in names if model(name).category in ON_WHEELS] or names


def _spot(rng: Rng, near: float, far: float, spread: float) -> tuple[float, float, float]:
    """Draw a place ahead of the camera; distances are spread evenly in their logarithm."""
    away = math.exp(float(rng.uniform(math.log(near), math.log(far))))
    turn = float(rng.uniform(-spread, spread))
    return away * math.sin(turn), away * math.cos(turn), 0.0


def _stand_somewhere(
    layout: Layout, rng: Rng, thing: Thing, near: float, far: float, spread: float = 0.75, keep_yaw: bool = False
) -> Thing | None:
    for _ in range(10):
        yaw = thing.yaw_rad if keep_yaw else float(rng.uniform(-math.pi, math.pi))
        placed = layout.stand(replace(thing, position_m=_spot(rng, near, far, spread), yaw_rad=yaw), 0.1)
        if placed is not None:
            return placed
    return None


def _yard_houses(layout: Layout, rng: Rng, lit: float) -> None:
    """Close the yard on its far side and, mostly, on one more."""
    manner = str(rng.choice(["town", "modern", "suburb"]))
    y = float(rng.uniform(24, 60))
    for x in (-26.0, 0.0, 26.0):
        house = house_thing(rng, manner, (float(rng.uniform(16, 25)), 12.0), lit, True)
        layout.stand(replace(house, position_m=(x, y + 6, 0)))
    if rng.random() < 0.7:
        side = float(rng.choice([-1, 1]))
        house = house_thing(rng, manner, (float(rng.uniform(14, 24)), 12.0), lit, True)
        layout.stand(
            replace(house, position_m=(side * float(rng.uniform(20, 30)), y * 0.45, 0), yaw_rad=-side * math.pi / 2)
        )


def _parked(layout: Layout, rng: Rng, palette: Palette, count: int) -> None:
    cars = _cars(palette)
    for _ in range(count):
        car = model(one_of(cars, rng), paint=one_of(CAR_COLORS, rng))
        yaw = float(rng.choice([0.0, math.pi / 2, math.pi])) + float(rng.normal(0, 0.05))
        _stand_somewhere(layout, rng, replace(car, yaw_rad=yaw), 7, 35, 0.6, keep_yaw=True)


def _park_lamps(layout: Layout, rng: Rng) -> list[Light]:
    lights = []
    pole, shine = (
        Material("metal", (0.1, 0.12, 0.11), 0.5, 0.5),
        Material("light", (1.0, 0.85, 0.6), 0.5, emission=14.0),
    )
    lamp = Thing(0, "street lamp", "lamp post", (0, 0, 0), (0.3, 2.0, 4.6), 0.0, "", (), (pole, shine))
    for _ in range(5):
        stood = _stand_somewhere(layout, rng, lamp, 6, 40, 0.6, keep_yaw=True)
        if stood:
            x, y, _ = stood.position_m
            lights.append(Light("point", (1.0, 0.8, 0.52), 260.0, (0, 0, -1), (x, round(y - 0.55, 3), 4.25), 0.12))
    return lights


def _vegetation(
    layout: Layout, rng: Rng, palette: Palette, place: str, ground: str, season: str, eye: tuple[float, float, float]
) -> None:
    """Plant trees and bushes (palms on sand), and grass at the camera's feet."""
    firs = ground == "snow" or rng.random() < 0.25
    kinds = {1: 1.0} if firs else {0: 0.8, 1: 0.1, 2: 0.1}
    low, high = {"park": (9, 24), "open land": (3, 12), "yard": (1, 6)}[place]
    for _ in range(int(rng.integers(low, high))):
        if ground == "sand" and palette.get("tree"):
            _stand_somewhere(layout, rng, model(one_of(palette["tree"], rng)), 8, 60)
            continue
        spot = _spot(rng, 9, 66, 0.75)
        thing = tree_thing(rng, season, kinds, spot[1])
        layout.stand(replace(thing, position_m=spot), 0.1)
    if ground != "sand":
        for _ in range(int(rng.integers(0, 7))):
            _stand_somewhere(layout, rng, bush_thing(rng, season), 5, 45)
    if ground in ("grass", "dry grass", "earth") and eye[2] < 3:
        grow_grass(layout, rng, ground, eye, int(rng.integers(120, 450)))


def _roadside(layout: Layout, rng: Rng, edge, walk: float, season: str) -> None:  # type: ignore[no-untyped-def]
    """Line a country road with trees, poles and fences."""
    kinds = {0: 1.0} if rng.random() < 0.7 else {2: 1.0}
    pole = Material(
        "wood", (0.30, 0.24, 0.19), 0.95, 0.0, Texture("wood", ((0.34, 0.28, 0.22), (0.2, 0.16, 0.12)), 1.0, 2)
    )
    pins = Material("ceramic", (0.75, 0.74, 0.70), 0.3)
    poles = float(rng.choice([-1.0, 1.0]))
    fenced = rng.random() < 0.6
    step = float(rng.uniform(9, 22))
    for number in range(18):
        y = 10 + number * step
        for side in (-1.0, 1.0):
            if rng.random() < 0.75:
                thing = tree_thing(rng, season, kinds, y)
                at = (
                    edge(side, walk + thing.size_m[0] / 2 + 0.8 + float(rng.uniform(0, 2))),
                    y + float(rng.uniform(-2, 2)),
                    0.0,
                )
                layout.stand(replace(thing, position_m=at), 0.1)
    for number in range(9):
        y = 7 + 34.0 * number
        post = Thing(
            0, "power pole", "power pole", (edge(poles, walk + 0.75), y, 0), (1.3, 0.3, 8.5), 0.0, "", (), (pole, pins)
        )
        layout.stand(post, 0.05)
        if fenced and number < 5:
            fence = fence_thing(rng, 16.0, math.pi / 2, 0)
            layout.stand(replace(fence, position_m=(edge(-poles, walk + 0.4), 12 + 16.2 * number, 0)), 0.05)


def _people(layout: Layout, rng: Rng, palette: Palette, near: float, far: float, count: int) -> None:
    for _ in range(count):
        thing = model(one_of(palette["person"], rng))
        _stand_somewhere(layout, rng, thing, near, far, 0.5)


def _street_items(layout: Layout, rng: Rng, palette: Palette, count: int) -> None:
    """Stand benches, bins, mailboxes, animals and the like, nearer to the camera."""
    for _ in range(count):
        thing = model(one_of(palette["street_item"], rng))
        if thing.category not in ANIMALS:
            thing = replace(thing, paint=some_paint(rng, 0.15))
        _stand_somewhere(layout, rng, thing, 2.5 + max(thing.size_m[:2]) / 2, 25)


def _rocks(layout: Layout, rng: Rng, count: int) -> None:
    for _ in range(count):
        side, gray = float(rng.uniform(0.3, 1.5)), float(rng.uniform(0.35, 0.6))
        texture = Texture("gravel", ((gray, gray, gray * 0.96), (0.6 * gray,) * 3), 1.5, int(rng.integers(99)))
        stone = Material("stone", (gray, gray, gray), 0.95, 0.0, texture, relief_m=0.02)
        size = (side, side * float(rng.uniform(0.6, 1)), side * float(rng.uniform(0.4, 0.8)))
        rock = Thing(0, "rock", "rock", (0, 0, 0), size, seed=int(rng.integers(1 << 30)), materials=(stone,))
        _stand_somewhere(layout, rng, rock, 3.0, 40)
