"""Imported assets as meshes at their real size, with surfaces that every engine can draw."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cavendish.render.assets.asset import Asset, AssetMaterial, ImageUse
from cavendish.render.assets.catalogue import Model, load_model
from cavendish.render.geometry.mesh import ImageMap, Mesh, Surface, linear_to_srgb, merge_corners
from cavendish.render.geometry.triangles import crease_normals, face_normals, triangle_areas
from cavendish.render.scenes.recipe import Rgb

Floats = NDArray[np.float64]
CREASE_COS = math.cos(math.radians(40))
METALS = re.compile(r"(?<![a-z])(chrom\w*|metal\w*|steel\w*|alumin\w*|alu|inox|brass|copper)(?![a-z])")
"""Words in the names of MTL materials that mean metal: the format has no other way to say so."""
GLASS_OPACITY = 0.9
MAX_KEPT_BYTES = 300_000_000
TREE_BYTES = 150
"""What the search tree of a mesh takes, about, per triangle."""
_models: dict[str, tuple[Mesh, tuple[Surface, ...]]] = {}


def model_mesh(name: str) -> tuple[Mesh, tuple[Surface, ...]]:
    """Return a model at its real size (origin: centre of its bottom, front along -y) and its surfaces.

    The models used last are kept, up to MAX_KEPT_BYTES in all.
    """
    made = _models.pop(name, None) or make_model(load_model(name))
    _models[name] = made
    total = sum(_bytes_of(mesh, surfaces) for mesh, surfaces in _models.values())
    while total > MAX_KEPT_BYTES and len(_models) > 1:
        total -= _bytes_of(*_models.pop(next(iter(_models))))
    return made


def _bytes_of(mesh: Mesh, surfaces: tuple[Surface, ...]) -> int:
    arrays = sum(array.nbytes for array in (mesh.vertices, mesh.normals, mesh.uv, mesh.faces, mesh.slot_of))
    values = [value for surface in surfaces for value in vars(surface).values()]
    images = {id(value.pixels): value.pixels.nbytes for value in values if isinstance(value, ImageMap)}
    return arrays + TREE_BYTES * len(mesh.faces) + sum(images.values())


def make_model(model: Model) -> tuple[Mesh, tuple[Surface, ...]]:
    """Turn and scale an asset, and keep its triangles that have an area."""
    asset, turn = model.asset, model.turn
    points = asset.positions.astype(np.float64) @ turn.T
    used = np.unique(asset.faces)
    low, high = points[used].min(axis=0), points[used].max(axis=0)
    scale = np.array(model.info.size_m) / np.maximum(high - low, 1e-9)
    points = (points - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) * scale
    corners = points[asset.faces]
    flat = face_normals(corners)
    keep = np.linalg.norm(flat, axis=1) > 0.5
    normals = _normals(asset, turn, scale, points, keep, flat[keep])
    colors = None if asset.colors is None else asset.colors[keep]
    uses = {use for material in asset.materials for use in material.maps()}
    maps: dict[ImageUse | None, ImageMap] = {
        use: ImageMap(asset.images[use.image], use.uv, use.wrap, use.nearest) for use in uses
    }
    surfaces = tuple(_surface(material, maps) for material in asset.materials)
    slots, kept = _distinct(surfaces)
    uv = asset.uv[:, keep].astype(np.float64)
    return merge_corners(corners[keep], normals, uv, slots[asset.material_of[keep]], colors), kept


def _distinct(surfaces: tuple[Surface, ...]) -> tuple[NDArray[np.int64], tuple[Surface, ...]]:
    """Return the slot of each material, and the distinct surfaces by slot."""
    kept: list[Surface] = []
    slots = []
    for surface in surfaces:
        if surface not in kept:
            kept.append(surface)
        slots.append(kept.index(surface))
    return np.array(slots, np.int64), tuple(kept)


def _normals(
    asset: Asset, turn: Floats, scale: Floats, points: Floats, keep: NDArray[np.bool_], flat: Floats
) -> Floats:
    """Return (F, 3, 3) corner normals: the asset's own where they fit its triangles, else from the triangles."""
    corners, faces = points[asset.faces[keep]], asset.faces[keep]
    authored = asset.normals[keep].astype(np.float64) @ turn.T / scale
    length = np.linalg.norm(authored, axis=-1, keepdims=True)
    authored = np.divide(authored, length, out=np.zeros_like(authored), where=length > 1e-9)
    given = np.isfinite(length[..., 0])
    usable = given & ((authored * flat[:, None]).sum(axis=-1) > 0.2)
    # a few models carry normals that have nothing to do with their triangles: none of those are used
    if usable.all():
        return authored
    if asset.flat and not given.any():
        return np.repeat(flat[:, None], 3, axis=1)
    _, welded = np.unique(points[faces].reshape(-1, 3), axis=0, return_inverse=True)
    smooth = crease_normals(corners, welded.reshape(-1, 3), CREASE_COS)
    if given.any() and usable[given].mean() > 0.9:
        return np.where(usable[..., None], authored, smooth)
    return smooth


def _surface(material: AssetMaterial, maps: Mapping[ImageUse | None, ImageMap]) -> Surface:
    """Translate a material; policy: a surface that is clear as a whole is drawn as dark, glossy, opaque glass."""
    color, roughness, metallic = _srgb(material.color), material.roughness, material.metallic
    texture = maps.get(material.color_map)
    if material.phong:
        roughness = _phong_roughness(roughness)
        color = _rgb(0.02 + 0.93 * np.array(color)) if not material.corner_colors else color
        if texture is None and METALS.search(material.name.lower()):
            color, roughness, metallic = _rgb(np.maximum(0.35, color)), min(roughness, 0.35), 1.0
    if material.opacity < GLASS_OPACITY:
        color, roughness, texture = _rgb(0.1 + 0.25 * np.array(_srgb(material.color))), 0.08, None
    emission = max(material.emission)
    return Surface(
        color=color,
        roughness=max(roughness, 0.05),
        metallic=metallic,
        texture=texture,
        emission=emission,
        emission_color=_srgb(tuple(part / emission for part in material.emission)) if emission > 0 else None,
        emission_map=maps.get(material.emission_map) if emission > 0 else None,
        transmission=1.0 if material.transmission > 0.5 else 0.0,
        coat=material.coat,
        corner_colors=material.corner_colors,
        roughness_map=maps.get(material.roughness_map),
        metallic_map=maps.get(material.metallic_map),
        normal_map=maps.get(material.normal_map),
        normal_strength=material.normal_strength,
        cutout=maps.get(material.cutout_map),
    )


def _phong_roughness(imported: float) -> float:
    """Return the roughness of a Phong exponent n, from the importer's own 1 - sqrt(n / 1000).

    Source: Walter et al. 2007, alpha = sqrt(2 / (n + 2)); dull surfaces are kept off a mirror.
    """
    exponent = 1000 * (1 - imported) ** 2
    return float(np.clip((2 / (exponent + 2)) ** 0.25, 0.15, 0.9))


def _srgb(linear: tuple[float, ...]) -> Rgb:
    return _rgb(linear_to_srgb(np.clip(np.array(linear, np.float64), 0, 1)))


def _rgb(color: Floats) -> Rgb:
    red, green, blue = (round(float(part), 6) for part in color)
    return red, green, blue


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
