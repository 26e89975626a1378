"""Streets: road, pavements with kerbs, houses on both sides, parked and moving cars, lamps, signs, trees, people."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.render.geometry.textures import shade
from cavendish.render.scenes.land import GROUNDS, bush_thing, fence_thing, hedge_thing, tree_thing
from cavendish.render.scenes.layout import GAP_M, Layout, model, vivid
from cavendish.render.scenes.presets import Palette, Rng
from cavendish.render.scenes.recipe import Light, Material, Rgb, Texture, Thing

CAR_COLORS: tuple[Rgb, ...] = (
    (0.90, 0.90, 0.90), (0.62, 0.64, 0.66), (0.36, 0.37, 0.39), (0.05, 0.05, 0.06), (0.10, 0.16, 0.34),
    (0.52, 0.06, 0.07),
    (0.30, 0.34, 0.30), (0.70, 0.66, 0.58), (0.16, 0.34, 0.46),
)  # fmt: skip
WALLS: tuple[Rgb, ...] = (
    (0.80, 0.75, 0.66), (0.86, 0.84, 0.79), (0.72, 0.70, 0.67), (0.82, 0.72, 0.54), (0.70, 0.56, 0.46),
    (0.60, 0.64, 0.66),
    (0.84, 0.80, 0.70), (0.76, 0.62, 0.54), (0.66, 0.69, 0.60), (0.90, 0.89, 0.86),
)  # fmt: skip
BRICKS: tuple[Rgb, ...] = ((0.56, 0.30, 0.22), (0.64, 0.40, 0.30), (0.46, 0.27, 0.22), (0.68, 0.55, 0.42))
ROOFS: tuple[Rgb, ...] = ((0.52, 0.27, 0.19), (0.28, 0.28, 0.30), (0.40, 0.31, 0.26), (0.44, 0.22, 0.17))


@dataclass(frozen=True)
class Street:
    """Where a street runs along +y: the middle and width of its road, the outer edges of its pavements, its manner."""

    x: float
    road: float
    walk: float
    manner: str

    def edge(self, side: float, out: float = 0.0) -> float:
        """Return x at `out` metres beyond the kerb of a side (-1 left, 1 right)."""
        return self.x + side * (self.road / 2 + out)


def lay_street(layout: Layout, rng: Rng, manner: str) -> Street:
    """Lay the road with its markings, and pavements on both sides."""
    street = Street(float(rng.uniform(-2.5, 2.5)), float(rng.uniform(6.5, 9.5)), float(rng.uniform(2.2, 4.2)), manner)
    kind, colors, size_m = GROUNDS["asphalt"]
    dark = tuple(shade(color, float(rng.uniform(0.7, 1.0))) for color in colors)
    texture = Texture(kind, dark, size_m, int(rng.integers(1 << 30)), 512)
    tar = Material("asphalt", dark[0], float(rng.uniform(0.6, 0.95)), 0.0, texture, relief_m=0.002)
    length, ahead = 520.0, 230.0
    road = layout.structure(
        Thing(0, "road", "box", (street.x, ahead, GAP_M), (street.road, length, 0.03), materials=(tar,))
    )
    layout.platforms.append(road)
    paving = Texture(
        "paving", ((0.60, 0.57, 0.53), (0.34, 0.33, 0.31)), float(rng.uniform(1.2, 2.4)), int(rng.integers(99)), 512
    )
    if rng.random() < 0.3:
        paving = replace(paving, kind="concrete", size_m=3.0)
    flags = Material("stone", (0.58, 0.56, 0.52), 0.9, 0.0, paving, relief_m=0.004)
    kerb = Material("stone", (0.62, 0.61, 0.59), 0.85)
    for side in (-1.0, 1.0):
        x = street.edge(side, street.walk / 2 + 0.002)
        thing = Thing(
            0, "pavement", "pavement", (x, ahead, GAP_M), (street.walk, length, 0.14), materials=(flags, kerb)
        )
        layout.platforms.append(layout.structure(thing))
    _mark(layout, rng, street)
    return street


def _mark(layout: Layout, rng: Rng, street: Street) -> None:
    white = Material(
        "paint", (0.84, 0.84, 0.81), 0.7, 0.0, Texture("worn", ((0.84, 0.84, 0.81), (0.4, 0.4, 0.4)), 2.0, 4)
    )
    level = 0.03 + 2 * GAP_M
    crossing = float(rng.uniform(9, 40)) if rng.random() < 0.45 else -100.0
    for number in range(34):
        y = -8 + 8.0 * number
        if abs(y - crossing) > 5:
            layout.structure(
                Thing(0, "road marking", "box", (street.x, y, level), (0.14, 3.2, 0.004), materials=(white,))
            )
    if crossing > 0:
        at = (street.x, crossing, level)
        layout.structure(Thing(0, "road marking", "zebra", at, (street.road - 0.8, 3.2, 0.004), materials=(white,)))


def build_houses(layout: Layout, rng: Rng, street: Street, lit: float) -> None:
    """Line both sides with houses, the near ones in detail; in suburbs with gardens, trees and fences before them."""
    suburb = street.manner == "suburb"
    for side in (-1.0, 1.0):
        y = float(rng.uniform(-26, -12))
        setback = street.walk + (float(rng.uniform(4, 8)) if suburb else float(rng.uniform(0.1, 0.5)))
        while y < 210:
            w = float(rng.uniform(9, 15) if suburb else rng.uniform(10, 26))
            d = float(rng.uniform(9, 12) if suburb else rng.uniform(10, 15))
            x = street.edge(side, setback + d / 2 + float(rng.uniform(0, 1.5) if suburb else 0))
            house = house_thing(rng, street.manner, (w, d), lit, detail=y < 65)
            if rng.random() < 0.93:
                layout.stand(replace(house, position_m=(x, y + w / 2, 0), yaw_rad=-side * math.pi / 2))
            gap = float(rng.uniform(2.5, 7) if suburb else rng.choice([0.05, 0.05, 0.05, 3.5, 8.0]))
            if suburb and y < 70:
                _front_garden(layout, rng, street, side, y, w, setback)
            y += w + gap
    if rng.random() < 0.5:  # something closes the view
        house = house_thing(rng, "town", (float(rng.uniform(20, 40)), 13.0), lit, detail=False)
        layout.stand(replace(house, position_m=(street.x + float(rng.uniform(-25, 25)), 505.0, 0)))


def _front_garden(layout: Layout, rng: Rng, street: Street, side: float, y: float, w: float, setback: float) -> None:
    x = street.edge(side, street.walk + 0.6)
    draw = rng.random()
    if draw < 0.4:
        border = hedge_thing(rng, w * 0.7, math.pi / 2)
    else:
        border = fence_thing(rng, w * 0.8, math.pi / 2, int(rng.integers(3)))
    if draw < 0.8:
        layout.stand(replace(border, position_m=(x, y + w / 2, 0)), 0.05)
    for _ in range(int(rng.integers(1, 4))):
        plant = bush_thing(rng, "summer")
        at = (
            street.edge(side, float(rng.uniform(street.walk + 1.4, max(street.walk + 1.6, setback - 1)))),
            y + float(rng.uniform(0, w)),
            0.0,
        )
        layout.stand(replace(plant, position_m=at), 0.05)


def house_thing(rng: Rng, manner: str, plan: tuple[float, float], lit: float, detail: bool) -> Thing:
    """Make a building in a manner of street: "suburb", "town" (with shops) or "modern" (towers)."""
    storeys, roof, shops, balconies, height = _proportions(rng, manner)
    bays = max(2, round(plan[0] / float(rng.uniform(2.6, 4.2))))
    rise = 0.0 if roof == 0 else min(0.32 * plan[1], 0.4 * height)
    size = (plan[0], plan[1], round(height + rise, 2))
    numbers = (float(roof), float(storeys), float(bays), round(lit, 2), float(balconies), float(shops), float(detail))
    wall = _wall_material(rng, manner, detail, height / storeys)
    gray = float(rng.uniform(0.45, 0.8))
    stone = Material("stone", (gray, gray * 0.98, gray * 0.94), 0.9)
    tiles = one_of(ROOFS, rng)
    roofing = Material(
        "tile",
        tiles,
        0.85,
        0.0,
        Texture("roofing", (tiles, shade(tiles, 0.75)), 3.6, int(rng.integers(9))),
        relief_m=0.03,
    )
    if roof == 0:
        roofing = Material("stone", shade(wall.color, 0.9), 0.9)
    glass = Material("glass", (0.24, 0.29, 0.33), 0.05, 0.55)
    accent_color = (
        vivid(rng)
        if shops
        else ((0.16, 0.17, 0.18), (0.36, 0.22, 0.13), (0.80, 0.80, 0.78), (0.20, 0.30, 0.26))[rng.integers(4)]
    )
    accent = Material("paint", shade(accent_color, 0.8), 0.5)
    warm = Material("light", (1.0, float(rng.uniform(0.72, 0.9)), float(rng.uniform(0.42, 0.7))), 0.5, emission=1.6)
    frame = Material(
        "paint", ((0.90, 0.90, 0.88), (0.16, 0.16, 0.17), (0.42, 0.30, 0.20))[rng.choice(3, p=[0.6, 0.25, 0.15])], 0.5
    )
    drape = Material("fabric", ((0.78, 0.76, 0.72), (0.55, 0.50, 0.44), (0.62, 0.66, 0.70))[rng.integers(3)], 0.3)
    noun = "house" if storeys <= 3 and roof else "building"
    return Thing(
        0, noun, "building", (0, 0, 0), size, 0.0, "", numbers,
        (wall, stone, roofing, glass, accent, warm, frame, drape),
        seed=int(rng.integers(1 << 30)),
    )  # fmt: skip


def _proportions(rng: Rng, manner: str) -> tuple[int, int, bool, bool, float]:
    """Draw storeys, roof, shops, balconies and the height of the walls."""
    if manner == "suburb":
        storeys = int(rng.integers(1, 3)) + 1
        return storeys, int(rng.choice([1, 1, 2])), False, False, storeys * float(rng.uniform(2.7, 3.0))
    if manner == "modern":
        storeys = int(rng.integers(5, 15))
        return storeys, 0, bool(rng.random() < 0.4), bool(rng.random() < 0.6), storeys * float(rng.uniform(2.9, 3.4))
    storeys = int(rng.integers(3, 7))
    roof = int(rng.choice([0, 0, 1, 2]))
    return storeys, roof, bool(rng.random() < 0.65), bool(rng.random() < 0.3), storeys * float(rng.uniform(3.0, 3.6))


def _wall_material(rng: Rng, manner: str, detail: bool, storey: float) -> Material:
    seed = int(rng.integers(1 << 30))
    color = one_of(WALLS, rng)
    draw = rng.random()
    if draw < (0.45 if manner != "modern" else 0.2):
        color = one_of(BRICKS, rng)
    if not detail:
        panes = ((0.20, 0.24, 0.28), (0.88, 0.88, 0.86) if draw < 0.6 else (0.25, 0.25, 0.26))
        return Material("plaster", color, 0.8, 0.0, Texture("windows", (color, *panes), round(4 * storey, 2), seed % 4))
    if color in BRICKS:
        texture = Texture("bricks", (color, (0.62, 0.58, 0.53)), 1.6, seed % 6, 512)
        return Material("brick", color, 0.9, 0.0, texture, relief_m=0.008)
    if manner == "suburb" and draw > 0.72:
        return Material("wood", color, 0.7, 0.0, Texture("siding", (color,), 1.5, seed % 6), relief_m=0.012)
    kind, size = ("concrete", 5.0) if manner == "modern" and draw < 0.6 else ("render", 7.0)
    return Material("plaster", color, 0.9, 0.0, Texture(kind, (color,), size, seed % 6))


def park_cars(layout: Layout, rng: Rng, street: Street, cars: list[str]) -> None:
    """Park cars along both kerbs, and let a few drive."""
    for side in (-1.0, 1.0):
        y = float(rng.uniform(5, 14))
        full = float(rng.uniform(0.1, 0.8))
        while y < 110:
            car = model(one_of(cars, rng), paint=one_of(CAR_COLORS, rng))
            if rng.random() < full and car.size_m[1] < 6:
                x = street.edge(side, -car.size_m[0] / 2 - float(rng.uniform(0.15, 0.35)))
                yaw = (0.0 if side < 0 else math.pi) + float(rng.normal(0, 0.012))
                layout.stand(replace(car, position_m=(x, y + car.size_m[1] / 2, 0), yaw_rad=yaw), 0.25)
            y += max(5.2, car.size_m[1] + float(rng.uniform(0.7, 2.0)))
    for _ in range(int(rng.integers(0, 4))):
        car = model(one_of(cars, rng), paint=one_of(CAR_COLORS, rng))
        side = float(rng.choice([-1, 1]))
        x = street.x + side * (street.road / 4 - 0.55)
        y = float(np.exp(rng.uniform(math.log(11), math.log(160)))) + car.size_m[1] / 2
        layout.stand(replace(car, position_m=(x, y, 0), yaw_rad=0.0 if side < 0 else math.pi), 0.3)


def dress_street(layout: Layout, rng: Rng, street: Street, season: str, night: bool) -> list[Light]:
    """Set lamps, trees, signs and bollards along the pavements; by night the lamps shine."""
    lights: list[Light] = []
    pole = Material("metal", ((0.22, 0.24, 0.24), (0.45, 0.46, 0.47), (0.12, 0.18, 0.15))[rng.integers(3)], 0.5, 0.6)
    shine = Material("light", (1.0, 0.82, 0.56), 0.5, emission=14.0 if night else 0.0)
    step, first, tall = float(rng.uniform(20, 32)), float(rng.uniform(5, 12)), float(rng.uniform(5.5, 8.5))
    for number in range(7):
        for side in (-1.0, 1.0):
            y = first + number * step + (step / 2 if side > 0 else 0)
            lamp = Thing(0, "street lamp", "lamp post", (0, 0, 0), (0.3, 2.6, tall), 0.0, "", (), (pole, shine))
            # the arm's box is turned to stand over the pavement alone
            at = (street.edge(side, 0.25 + 0.15), y, 0.0)
            stood = layout.stand(replace(lamp, position_m=at, yaw_rad=0.0), 0.1)
            if stood and night and len(lights) < 7:
                where = (stood.position_m[0], round(y - 0.7, 3), round(tall - 0.35, 3))
                lights.append(Light("point", (1.0, 0.78, 0.5), 420.0, (0, 0, -1), where, 0.12))
    if rng.random() < 0.65:
        step = float(rng.uniform(8, 16))
        for number in range(int(120 / step)):
            for side in (-1.0, 1.0):
                y = 6 + number * step + float(rng.uniform(-1, 1))
                slim = tree_thing(rng, season, {2: 1.0}, y)
                if rng.random() < 0.8 and slim.size_m[0] < street.walk - 0.1:
                    layout.stand(replace(slim, position_m=(street.edge(side, street.walk / 2), y, 0)), 0.1)
    for _ in range(int(rng.integers(0, 4))):
        layout.stand(_sign(rng, street, float(rng.choice([-1, 1])), float(np.exp(rng.uniform(1.8, 3.8)))), 0.1)
    return lights


def _sign(rng: Rng, street: Street, side: float, y: float) -> Thing:
    kind = int(rng.integers(3))
    colors: tuple[Rgb, ...] = ((0.75, 0.05, 0.06), (0.06, 0.2, 0.6), (0.9, 0.75, 0.08))
    plate = Material("metal", colors[int(rng.integers(3))], 0.35)
    pole = Material("metal", (0.6, 0.6, 0.6), 0.4, 0.8)
    at = (street.edge(side, 0.45), y, 0.0)
    return Thing(0, "road sign", "sign", at, (0.62, 0.09, 2.5), 0.0, "", (float(kind),), (plate, pole))


ON_PAVEMENTS = ("bench", "waste bin", "mailbox", "traffic cone", "dog", "crate", "barrel", "stroller", "wheelbarrow")


def furnish_pavements(layout: Layout, rng: Rng, palette: Palette, street: Street) -> None:
    """Stand people, benches, bins and the like on the pavements, nearer to the camera than far."""
    items = [name for name in palette["street_item"] if model(name).category in ON_PAVEMENTS]
    for _ in range(int(rng.integers(5, 14))):
        walker = not items or rng.random() < 0.6
        names = palette["person"] if walker else items
        thing = model(one_of(names, rng))
        side, y = float(rng.choice([-1, 1])), float(np.exp(rng.uniform(math.log(3.5), math.log(55))))
        room = street.walk - max(thing.size_m[:2]) - 0.1
        if room < 0:
            continue
        x = street.edge(side, max(thing.size_m[:2]) / 2 + 0.05 + float(rng.uniform(0, room)))
        yaw = float(rng.choice([0.0, math.pi]) + rng.normal(0, 0.2)) if walker else -side * math.pi / 2
        layout.stand(replace(thing, position_m=(x, y, 0), yaw_rad=yaw), 0.1)
