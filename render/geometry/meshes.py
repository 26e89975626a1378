"""Recipe -> triangle meshes with normals, texture coordinates and surfaces: what all engines and labels share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image
from cavendish.render.assets.catalogue import RawModel, load_model
from cavendish.render.assets.wavefront import Phong
from cavendish.render.geometry import buildings, indoor_shapes, outdoor_shapes, plants, shapes
from cavendish.render.geometry.shapes import Size, Solid
from cavendish.render.geometry.textures import texture_image
from cavendish.render.geometry.triangles import crease_normals, face_normals, triangle_areas
from cavendish.render.scenes.recipe import Material, Recipe, Rgb, Thing, thing_matrix

CREASE_COS = math.cos(math.radians(40))
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
    "shelf": shapes.shelf,
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


@dataclass(frozen=True)
class Surface:
    """How a part of a mesh looks: sRGB colour or texture (H, W, 3), roughness and metallic 0..1, emission W/m2/sr."""

    color: Rgb
    roughness: float
    metallic: float
    texture: UInt8Image | None = None
    emission: float = 0.0
    transmission: float = 0.0
    see_through: bool = False
    coat: float = 0.0
    relief_m: float = 0.0


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in a thing's own space, metres, sorted by slot.

    Args:
        vertices: (V, 3) float64; normals: (V, 3) float32 unit; uv: (V, 2) float32, v up.
        faces: (F, 3) int32; slot_of: (F,) int32 index into the thing's surfaces.
    """

    vertices: NDArray[np.float64]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    slot_of: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Placed:
    """A thing in the scene: its mesh, the surfaces of the mesh's slots, and the 4x4 matrix to the world."""

    thing: Thing
    mesh: Mesh
    surfaces: tuple[Surface, ...]
    matrix: NDArray[np.float64]


def is_pane(placed: Placed) -> bool:
    """Tell whether a thing is a thin clear pane, which labels look through."""
    return all(surface.see_through for surface in placed.surfaces) and bool(placed.surfaces)


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
                replace(surface, color=thing.paint, texture=None) if number == slot else surface
                for number, surface in enumerate(surfaces)
            )
    else:
        mesh = _shape_mesh(thing.shape, thing.size_m, thing.numbers, thing.seed, _texture_sizes(thing))
        surfaces = tuple(_surface(material) for material in thing.materials)
        if thing.paint is not None:
            surfaces = (replace(surfaces[0], color=thing.paint, texture=None), *surfaces[1:])
    return Placed(thing, mesh, surfaces, thing_matrix(thing))


def _texture_sizes(thing: Thing) -> tuple[float, ...]:
    return tuple(1.0 if m.texture is None else m.texture.size_m for m in thing.materials)


def _surface(material: Material) -> Surface:
    image = None if material.texture is None else texture_image(material.texture)
    return Surface(
        material.color, material.roughness, material.metallic, image, material.emission,
        material.transmission, material.see_through, material.coat, material.relief_m,
    )  # fmt: skip


def largest_slot(mesh: Mesh) -> int:
    """Return the slot with the largest area."""
    return int(np.argmax(np.bincount(mesh.slot_of, weights=triangle_areas(mesh.vertices, mesh.faces))))


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
    return _merge(corners, normals, uv, slots)


_models: dict[str, tuple[Mesh, tuple[Surface, ...]]] = {}
MAX_KEPT_BYTES = 300_000_000
TREE_BYTES = 150
"""What the search tree of a mesh takes, about, per triangle."""


def model_mesh(name: str) -> tuple[Mesh, tuple[Surface, ...]]:
    """Return a model at its real size (origin: centre of its bottom, front along -y) and its surfaces.

    The models used last are kept, up to MAX_KEPT_BYTES in all.
    """
    made = _models.pop(name, None) or _make_model(name)
    _models[name] = made
    total = sum(_bytes_of(mesh, surfaces) for mesh, surfaces in _models.values())
    while total > MAX_KEPT_BYTES and len(_models) > 1:
        total -= _bytes_of(*_models.pop(next(iter(_models))))
    return made


def _bytes_of(mesh: Mesh, surfaces: tuple[Surface, ...]) -> int:
    arrays = sum(array.nbytes for array in (mesh.vertices, mesh.normals, mesh.uv, mesh.faces, mesh.slot_of))
    textures = {id(surface.texture): surface.texture.nbytes for surface in surfaces if surface.texture is not None}
    return arrays + TREE_BYTES * len(mesh.faces) + sum(textures.values())


def _make_model(name: str) -> tuple[Mesh, tuple[Surface, ...]]:
    raw = load_model(name)
    obj = raw.geometry
    rotation = np.array(raw.info.rotation).reshape(3, 3)
    points = obj.positions @ rotation.T
    used = np.unique(obj.corners[..., 0])
    low, high = points[used].min(axis=0), points[used].max(axis=0)
    width, depth, height = raw.info.size_m
    scale = np.array([width, height, depth]) / np.maximum(high - low, 1e-9)
    points = (points - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) * scale
    points = points[:, [0, 2, 1]] * [1, -1, 1]  # catalogue space is y up, front +z
    corners = points[obj.corners[..., 0]]
    flat = face_normals(corners)
    keep = np.linalg.norm(flat, axis=1) > 0.5
    corners, flat, indices = corners[keep], flat[keep], obj.corners[keep]
    normals = _model_normals(raw, rotation, scale, corners, flat, indices)
    uv = np.zeros((*corners.shape[:2], 2))
    if len(obj.uv):
        uv = np.where(indices[..., 1:2] >= 0, obj.uv[indices[..., 1]], 0.0)
    surfaces, slot_of_material = _model_surfaces(raw)
    return _merge(corners, normals, uv, slot_of_material[obj.material_of[keep]]), surfaces


def _model_normals(
    raw: RawModel,
    rotation: NDArray[np.float64],
    scale: NDArray[np.float64],
    corners: NDArray[np.float64],
    flat: NDArray[np.float64],
    indices: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return (F, 3, 3) corner normals: the model's own where they fit its triangles, else from the triangles."""
    usable = np.zeros(indices.shape[:2], bool)
    given = indices[..., 2] >= 0
    if given.any():
        authored = (raw.geometry.normals @ rotation.T / scale)[:, [0, 2, 1]] * [1, -1, 1]
        length = np.linalg.norm(authored, axis=1, keepdims=True)
        authored = np.divide(authored, length, out=np.zeros_like(authored), where=length > 1e-9)[indices[..., 2]]
        usable = given & ((authored * flat[:, None]).sum(axis=-1) > 0.2)
        # a few models carry normals that have nothing to do with their triangles: none of those are used
        if usable.all():
            return np.asarray(authored, np.float64)
        if usable[given].mean() > 0.9:
            return np.where(usable[..., None], authored, crease_normals(corners, indices[..., 0], CREASE_COS))
    return crease_normals(corners, indices[..., 0], CREASE_COS)


def _model_surfaces(raw: RawModel) -> tuple[tuple[Surface, ...], NDArray[np.int64]]:
    """Return the distinct surfaces, and the slot of each OBJ material."""
    surfaces: list[Surface] = []
    known: dict[tuple[Phong, bool], int] = {}
    slots = []
    for name in raw.geometry.materials:
        phong = raw.materials.get(name, Phong())
        metal = phong.image == "" and any(word in name.lower() for word in ("chrom", "metal", "steel", "alu", "inox"))
        if (phong, metal) not in known:
            known[phong, metal] = len(surfaces)
            surfaces.append(_from_phong(phong, metal, raw))
        slots.append(known[phong, metal])
    return tuple(surfaces), np.array(slots, np.int64)


def _from_phong(phong: Phong, metal: bool, raw: RawModel) -> Surface:
    if phong.roughness is not None and phong.opacity >= 0.9:
        return Surface(phong.diffuse, max(phong.roughness, 0.05), phong.metallic or 0.0, raw.textures.get(phong.image))
    # Phong exponent to roughness as in Walter et al. 2007 (alpha = sqrt(2 / (n + 2))); dull ones are kept off a mirror
    roughness = min(0.9, max(0.15, math.sqrt(2 / (max(phong.shininess, 0.0) + 2)) ** 0.5))
    color = tuple(0.02 + 0.93 * part for part in phong.diffuse)
    if phong.opacity < 0.9:
        # Policy: panes are drawn as dark, glossy, opaque glass: their own surface is what depth and normals show.
        color, roughness = tuple(0.1 + 0.25 * part for part in phong.diffuse), 0.08
    if metal:
        return Surface(tuple(max(0.35, part) for part in color), min(roughness, 0.35), 1.0)  # type: ignore[arg-type]
    return Surface(color, roughness, 0.0, raw.textures.get(phong.image))  # type: ignore[arg-type]


def _merge(
    corners: NDArray[np.float64], normals: NDArray[np.float64], uv: NDArray[np.float64], slots: NDArray[np.int64]
) -> Mesh:
    """Sort faces by slot and share equal corners (equal to a micrometre)."""
    order = np.argsort(slots, kind="stable")
    table = np.concatenate([corners, normals, uv], axis=-1)[order].reshape(-1, 8)
    rounded = np.ascontiguousarray(np.round(table, 6).astype(np.float32) + 0.0)
    _, first, inverse = np.unique(_row_keys(rounded), return_index=True, return_inverse=True)
    if not np.array_equal(rounded[first][inverse], rounded):  # two rows with one key: compare the rows themselves
        _, first, inverse = np.unique(rounded.view("V32").ravel(), return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    first = np.sort(first)
    faces = rank[inverse].reshape(-1, 3).astype(np.int32)
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)  # a sliver whose corners became one crashes Blender
    kept = table[first]
    return Mesh(
        kept[:, :3],
        kept[:, 3:6].astype(np.float32),
        kept[:, 6:].astype(np.float32),
        faces[whole],
        slots[order][whole].astype(np.int32),
    )


def _row_keys(table: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row: sorting whole rows takes ten times as long."""
    keys = np.zeros(len(table), np.uint64)
    for column in table.view(np.uint32).T.astype(np.uint64):
        keys ^= column
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


@dataclass(frozen=True)
class Top:
    """The flat top of a model, in its own space: height and half sizes of the rectangle that things can stand on."""

    height_m: float
    half_x_m: float
    half_y_m: float


@lru_cache(maxsize=256)
def model_top(name: str) -> Top | None:
    """Find the level surface that closes a model above, if it has one; None when things cannot stand on it."""
    mesh, _ = model_mesh(name)
    corners = mesh.vertices[mesh.faces]
    peak = float(corners[..., 2].max())
    level = (np.abs(face_normals(corners)[:, 2]) > 0.99) & (corners[..., 2].min(axis=1) > peak - 0.003)
    if not level.any():
        return None
    size = np.ptp(mesh.vertices[:, :2], axis=0)
    area = triangle_areas(mesh.vertices, mesh.faces[level]).sum()
    share = area / (size[0] * size[1])
    if share < 0.55:
        return None
    half = size / 2 * (0.9 if share > 0.85 else 0.66)
    return Top(peak, float(half[0]), float(half[1]))
