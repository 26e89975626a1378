"""The shapes a recipe can name: word -> function of (size, numbers, seed) that makes a Solid."""

from __future__ import annotations

from collections.abc import Callable

from cavendish.render.geometry import buildings, fittings, plants, shapes, streetware, terrain
from cavendish.render.geometry.shapes import Size, Solid

SHAPES: dict[str, Callable[[Size, Size, int], Solid]] = {
    "books": shapes.books,
    "box": shapes.box,
    "building": buildings.building,
    "bush": plants.bush,
    "cone": shapes.cone,
    "curtain": fittings.curtain,
    "cylinder": shapes.cylinder,
    "door": fittings.door,
    "fence": streetware.fence,
    "forest": plants.forest,
    "frame": shapes.frame,
    "grass": plants.grass,
    "hedge": plants.hedge,
    "lamp post": streetware.lamp_post,
    "letters": fittings.letters,
    "mat": shapes.mat,
    "pavement": streetware.pavement,
    "pendant": fittings.pendant,
    "power pole": streetware.power_pole,
    "rock": shapes.rock,
    "shelf": shapes.shelf,
    "sign": streetware.sign,
    "sphere": shapes.sphere,
    "table": shapes.table,
    "terrain": terrain.terrain,
    "torus": shapes.torus,
    "tray": fittings.tray,
    "tree": plants.tree,
    "vessel": shapes.vessel,
    "wall": shapes.wall,
    "zebra": streetware.zebra,
}
