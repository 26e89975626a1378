"""Recipe -> the meshes of its things, placed in the scene."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from cavendish.render.geometry import buildings, indoor_shapes, outdoor_shapes, plants, shapes
from cavendish.render.geometry.mesh import ImageMap, Mesh, Placed, Surface, largest_slot, merge_corners
from cavendish.render.geometry.models import model_mesh
from cavendish.render.geometry.shapes import Size, Solid
from cavendish.render.geometry.textures import texture_image
from cavendish.render.geometry.triangles import face_normals
from cavendish.render.scenes.recipe import Material, Recipe, Texture, Thing, thing_matrix

SHAPES: dict[str, Callable[[Size, Size, int], Solid]] = {
    "books": shapes.books,
    "box": shapes.box,
    "building": buildings.building,
    "bush": plants.bush,
    "cone": shapes.cone,
    "curtain": indoor_shapes.curtain,
    "cylinder": shapes.cylinder,
    "door": indoor_shapes.door,
    "fence": outdoor_shapes.fence,
    "forest": plants.forest,
    "frame": shapes.frame,
    "grass": plants.grass,
    "hedge": plants.hedge,
    "lamp post": outdoor_shapes.lamp_post,
    "letters": indoor_shapes.letters,
    "mat": shapes.mat,
    "pavement": outdoor_shapes.pavement,
    "pendant": indoor_shapes.pendant,
    "power pole": outdoor_shapes.power_pole,
    "rock": shapes.rock,
    "sign": outdoor_shapes.sign,
    "sphere": shapes.sphere,
    "table": shapes.table,
    "terrain": outdoor_shapes.terrain,
    "torus": shapes.torus,
    "tray": indoor_shapes.tray,
    "tree": plants.tree,
    "vessel": shapes.vessel,
    "wall": shapes.wall,
    "zebra": outdoor_shapes.zebra,
}
"""The shapes a recipe can name: word -> function of (size, numbers, seed)."""


def build_scene(recipe: Recipe) -> tuple[Placed, ...]:
    """Make the meshes of a recipe, in the order of its things."""
    return tuple(place(thing) for thing in recipe.things)


def place(thing: Thing) -> Placed:
    """Make one thing's mesh and surfaces."""
    if thing.shape == "model":
        mesh, surfaces = model_mesh(thing.model)
        if thing.paint is not None:
            slot = largest_slot(mesh)
            surfaces = tuple(
                surface.repainted(thing.paint) if number == slot else surface for number, surface in enumerate(surfaces)
            )
    else:
        mesh = _shape_mesh(thing.shape, thing.size_m, thing.numbers, thing.seed, _texture_sizes(thing))
        surfaces = tuple(_surface(material) for material in thing.materials)
        if thing.paint is not None:
            surfaces = (surfaces[0].repainted(thing.paint), *surfaces[1:])
    return Placed(thing, mesh, surfaces, thing_matrix(thing))


@lru_cache(maxsize=128)
def _texture_map(texture: Texture) -> ImageMap:
    return ImageMap(texture_image(texture))


def _texture_sizes(thing: Thing) -> tuple[float, ...]:
    return tuple(1.0 if m.texture is None else m.texture.size_m for m in thing.materials)


def _surface(material: Material) -> Surface:
    texture = None if material.texture is None else _texture_map(material.texture)
    return Surface(
        material.color, material.roughness, material.metallic, texture, material.emission,
        material.transmission, material.see_through, material.coat, material.relief_m,
    )  # fmt: skip


@lru_cache(maxsize=32)
def _shape_mesh(
    shape: str, size_m: tuple[float, ...], numbers: tuple[float, ...], seed: int, texture_sizes: tuple[float, ...]
) -> Mesh:
    """Make a procedural mesh; its texture coordinates are metres along the dominant plane, over the texture's size."""
    solid: Solid = SHAPES[shape](size_m, numbers, seed)
    corners = solid.vertices[solid.faces]
    flat = face_normals(corners)
    keep = np.linalg.norm(flat, axis=1) > 0.5
    corners, flat, slots = corners[keep], flat[keep], solid.slots[keep]
    normals = solid.normals[keep]
    axis = np.abs(flat).argmax(axis=1)
    first = np.where(axis == 0, 1, 0)
    second = np.where(axis == 2, 1, 2)
    rows = np.arange(len(corners))[:, None]
    uv = np.stack([corners[rows, [0, 1, 2], first[:, None]], corners[rows, [0, 1, 2], second[:, None]]], axis=-1)
    uv = uv / np.array(texture_sizes)[slots][:, None, None]
    if solid.uv is not None:
        uv = solid.uv[keep]
    return merge_corners(corners, normals, uv[None], slots)
