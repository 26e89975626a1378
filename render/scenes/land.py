"""Open ground: terrain with its textures, trees, bushes, hedges, fences, woods in the distance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.render.geometry.outdoor_shapes import height_at
from cavendish.render.geometry.textures import shade
from cavendish.render.scenes.layout import Layout
from cavendish.render.scenes.recipe import Material, Rgb, Texture, Thing

Rng = np.random.Generator
GROUNDS: Mapping[str, tuple[str, tuple[Rgb, ...], float]] = {
    "grass": ("grass", ((0.15, 0.24, 0.07), (0.40, 0.47, 0.19)), 6.0),
    "dry grass": ("grass", ((0.36, 0.31, 0.16), (0.66, 0.59, 0.36)), 6.0),
    "asphalt": ("asphalt", ((0.24, 0.24, 0.25), (0.44, 0.44, 0.44)), 7.0),
    "paving": ("paving", ((0.58, 0.55, 0.51), (0.36, 0.34, 0.32)), 2.6),
    "sand": ("gravel", ((0.66, 0.57, 0.42), (0.84, 0.76, 0.60)), 4.0),
    "snow": ("noise", ((0.90, 0.92, 0.95), (0.97, 0.97, 0.98)), 6.0),
    "earth": ("gravel", ((0.30, 0.23, 0.16), (0.50, 0.41, 0.30)), 4.0),
}
GREENS: tuple[Rgb, ...] = (
    (0.31, 0.43, 0.15), (0.38, 0.48, 0.19), (0.25, 0.38, 0.18), (0.44, 0.50, 0.22), (0.33, 0.44, 0.24),
)  # fmt: skip
AUTUMN: tuple[Rgb, ...] = ((0.68, 0.44, 0.14), (0.70, 0.30, 0.12), (0.74, 0.60, 0.22))
BARK = Material(
    "wood", (0.22, 0.17, 0.13), 0.95, 0.0, Texture("wood", ((0.30, 0.24, 0.19), (0.16, 0.12, 0.09)), 0.6, 3)
)
LAND_M = 3200.0


def lay_ground(layout: Layout, rng: Rng, ground: str, level_m: float, hills_m: float, wild: str = "") -> Thing:
    """Lay land to the horizon: `ground` up close, fields or meadows far away; level within `level_m`."""
    kind, colors, size_m = GROUNDS[ground]
    seed = int(rng.integers(1 << 30))
    near = Material(
        ground,
        colors[0],
        0.95,
        0.0,
        Texture(kind, colors, size_m, seed, 512),
        relief_m=0.0 if ground == "snow" else 0.004,
    )
    green = one_of(GREENS, rng) if ground not in ("sand", "snow", "dry grass", "earth") else colors[0]
    far_colors = (shade(green, 0.9), shade(green, 1.35), (0.58, 0.52, 0.28))
    if ground in ("sand", "snow", "dry grass", "earth"):
        far_colors = (shade(colors[0], 0.85), shade(colors[-1], 0.95), shade(colors[-1], 0.8))
    middle_kind = kind if ground in ("asphalt", "paving") else "meadow"
    middle_colors = colors if ground in ("asphalt", "paving", "grass", "dry grass") else (colors[0], colors[-1])
    middle = Material(ground, colors[0], 0.95, 0.0, Texture(middle_kind, middle_colors[:2], size_m * 9, seed + 1, 512))
    far_kind = wild or str(rng.choice(["fields", "meadow"]))
    far = Material(ground, green, 0.95, 0.0, Texture(far_kind, far_colors, 900.0, seed + 2, 512))
    size = (LAND_M, LAND_M, max(2.0, hills_m))
    land = Thing(
        0,
        "ground",
        "terrain",
        (0, 0, 0),
        size,
        0.0,
        "",
        (level_m,),
        (near, middle, far),
        seed=int(rng.integers(1 << 30)),
    )
    return layout.structure(land)


def leaf_material(rng: Rng, season: str) -> Material:
    """Draw the foliage of a tree; most is green, in autumn it is not."""
    color = one_of(AUTUMN, rng) if season == "autumn" and rng.random() < 0.7 else one_of(GREENS, rng)
    color = shade(color, float(rng.uniform(0.85, 1.15)))
    tones = (shade(color, 0.74), shade(color, 1.2), (0.5, 0.46, 0.2))
    return Material("leaves", color, 0.75, 0.0, Texture("leaves", tones, 1.0, int(rng.integers(8)), 64))


def tree_thing(rng: Rng, season: str, kinds: Mapping[int, float], distance_m: float = 20.0) -> Thing:
    """Make a tree of 4 to 16 m; sizes come in steps, so that trees of a scene share their meshes."""
    kind = int(rng.choice(list(kinds), p=np.array(list(kinds.values())) / sum(kinds.values())))
    height = float(rng.choice([4.5, 6.0, 8.0, 10.5, 13.5]))
    width = height * {0: 0.72, 1: 0.46, 2: 0.27}[kind]
    thousands = 2.0 if distance_m < 16 else 0.8 if distance_m < 40 else 0.25
    leaves = leaf_material(rng, "summer" if kind == 1 else season)
    if kind == 1:
        leaves = replace(
            leaves, texture=Texture("leaves", ((0.10, 0.17, 0.10), (0.26, 0.37, 0.20), (0.28, 0.34, 0.16)), 1.0, 3, 64)
        )
    noun = "fir tree" if kind == 1 else "tree"
    return Thing(
        0, noun, "tree", (0, 0, 0), (width, width, height), round(float(rng.uniform(-math.pi, math.pi)), 3), "",
        (float(kind), thousands), (leaves, BARK), seed=int(rng.integers(3)),
    )  # fmt: skip


def bush_thing(rng: Rng, season: str) -> Thing:
    """Make a bush of 0.6 to 1.8 m."""
    height = float(rng.choice([0.6, 0.9, 1.3, 1.8]))
    return Thing(
        0, "bush", "bush", (0, 0, 0), (1.2 * height, 1.2 * height, height), 0.0, "", (1.2,),
        (leaf_material(rng, season),),
        seed=int(rng.integers(3)),
    )  # fmt: skip


def hedge_thing(rng: Rng, length: float, yaw: float) -> Thing:
    """Make a clipped hedge along its own x."""
    size = (length, float(rng.uniform(0.5, 0.8)), float(rng.uniform(0.7, 1.6)))
    return Thing(
        0,
        "hedge",
        "hedge",
        (0, 0, 0),
        size,
        yaw,
        "",
        (90.0,),
        (leaf_material(rng, "summer"),),
        seed=int(rng.integers(3)),
    )


def fence_thing(rng: Rng, length: float, yaw: float, kind: int) -> Thing:
    """Make a stretch of fence along its own x: 0 rails, 1 pickets, 2 a low wall."""
    if kind == 2:
        gray = float(rng.uniform(0.45, 0.65))
        stone = Material(
            "stone", (gray,) * 3, 0.95, 0.0,
            Texture("bricks", ((gray, gray * 0.95, gray * 0.88), (0.35, 0.34, 0.32)), 1.6, int(rng.integers(9))),
            relief_m=0.01,
        )  # fmt: skip
        return Thing(
            0,
            "wall",
            "fence",
            (0, 0, 0),
            (length, 0.3, 0.8),
            yaw,
            "",
            (2.0,),
            (stone, Material("stone", (0.6,) * 3, 0.9)),
        )
    color: Rgb = ((0.34, 0.26, 0.19), (0.86, 0.86, 0.84), (0.46, 0.42, 0.38))[rng.integers(3)]
    worn = Texture("worn", (color, shade(color, 0.55)), 1.5, int(rng.integers(9)))
    wood = Material("wood", color, 0.85, 0.0, worn)
    return Thing(0, "fence", "fence", (0, 0, 0), (length, 0.12, 1.1), yaw, "", (float(kind),), (wood,))


def plant_forests(layout: Layout, rng: Rng, land: Thing, count: int, nearest_m: float, firs: bool) -> None:
    """Set strips of wood on the land, far from the camera, each on its own height."""
    for _ in range(count):
        away = float(np.exp(rng.uniform(math.log(nearest_m), math.log(nearest_m * 6))))
        turn = float(rng.uniform(-0.85, 0.85))
        x, y = away * math.sin(turn), away * math.cos(turn)
        tall = float(rng.uniform(8, 16))
        size = (float(rng.uniform(40, 120)), float(rng.uniform(12, 30)), tall)
        base = min(
            height_at(land.size_m, land.numbers, land.seed, x + u * size[0] / 2, y + v * size[1] / 2)
            for u in (-1, 0, 1) for v in (-1, 0, 1)
        )  # fmt: skip
        crowns = float(min(46, int(size[0] * size[1] / 55) + 6))
        wood = Thing(
            0, "trees", "forest", (x, y, base - 0.4), size, 0.0, "", (crowns, float(firs)),
            (leaf_material(rng, "summer"), BARK),
            seed=int(rng.integers(4)),
        )  # fmt: skip
        layout.structure(wood)


def grow_grass(layout: Layout, rng: Rng, ground: str, eye: tuple[float, float, float], tufts: int) -> None:
    """Grow tufts before the camera, which looks along +y."""
    _, colors, _ = GROUNDS[ground]
    tones = (shade(colors[0], 0.9), shade(colors[-1], 1.05), (0.55, 0.5, 0.26))
    blade = Material("grass", colors[-1], 0.8, 0.0, Texture("leaves", tones, 1.0, 5, 64))
    size = (14.0, 9.0, float(rng.uniform(0.07, 0.17)))
    at = (eye[0], eye[1] + 1.6 + size[1] / 2, 0.0)
    layout.structure(
        Thing(0, "grass", "grass", at, size, 0.0, "", (float(tufts),), (blade,), seed=int(rng.integers(1 << 30)))
    )
