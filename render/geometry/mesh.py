"""Triangle meshes and how their surfaces look: what all engines and labels share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image
from cavendish.render.assets.asset import Wrap
from cavendish.render.geometry.triangles import triangle_areas
from cavendish.render.scenes.recipe import Rgb, Thing

Floats = NDArray[np.float64]
CUT = 127.5
"""Interpolated value of a cut-out map, of 255, under which there is no surface."""


@dataclass(frozen=True, eq=False)
class ImageMap:
    """An image on a surface: (H, W) or (H, W, 3) uint8, by one of the mesh's sets of texture coordinates."""

    pixels: NDArray[np.uint8]
    uv: int = 0
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    nearest: bool = False


@dataclass(frozen=True)
class Surface:
    """How a part of a mesh looks. Where there is a map, the number beside it does not count.

    Args:
        color: sRGB 0..1; texture: its map, sRGB; corner_colors: the mesh's colors multiply either, in linear light.
        roughness, metallic: 0..1, and their maps (255 is 1).
        emission: W/m2/sr of a white surface, of the color above unless `emission_map` (sRGB) or `emission_color` (sRGB)
            is there.
        transmission: 1 is clear solid glass; see_through: so thin a pane that labels show what lies behind it.
        coat: 0..1, clear varnish; relief_m: how deep the light and dark of the texture are felt, by light only.
        normal_map: (H, W, 3) in tangent space, +y up, felt by light only; normal_strength scales it.
        cutout: (H, W), below `CUT` there is no surface.
    """

    color: Rgb
    roughness: float
    metallic: float
    texture: ImageMap | None = None
    emission: float = 0.0
    transmission: float = 0.0
    see_through: bool = False
    coat: float = 0.0
    relief_m: float = 0.0
    corner_colors: bool = False
    roughness_map: ImageMap | None = None
    metallic_map: ImageMap | None = None
    normal_map: ImageMap | None = None
    normal_strength: float = 1.0
    emission_color: Rgb | None = None
    emission_map: ImageMap | None = None
    cutout: ImageMap | None = None

    def repainted(self, color: Rgb) -> Surface:
        """Return the surface in one new color."""
        return replace(self, color=color, texture=None, corner_colors=False)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in a thing's own space, metres, sorted by slot.

    Args:
        vertices: (V, 3) float64; normals: (V, 3) float32 unit; uv: (K, V, 2) float32, K sets, v up.
        faces: (F, 3) int32; slot_of: (F,) int32 index into the thing's surfaces.
        colors: (V, 3) uint8 sRGB, or None.
    """

    vertices: NDArray[np.float64]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    slot_of: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None


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


def largest_slot(mesh: Mesh) -> int:
    """Return the slot with the largest area."""
    return int(np.argmax(np.bincount(mesh.slot_of, weights=triangle_areas(mesh.vertices, mesh.faces))))


def look_up(mesh: Mesh, used: ImageMap, face: NDArray[np.int64], weights: Floats) -> Floats:
    """Return (N, C) values 0..255 of an image at barycentric weights (N, 3) of N triangles of a mesh."""
    corners = mesh.uv[used.uv][mesh.faces[face]].astype(np.float64)
    return sample_image(used, (corners * weights[..., None]).sum(axis=1))


def sample_image(used: ImageMap, uv: Floats) -> Floats:
    """Return (N, C) values 0..255 of an image at (N, 2) texture coordinates, as Cycles and OpenGL read it."""
    height, width = used.pixels.shape[:2]
    pixels = used.pixels.reshape(height, width, -1)
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    if used.nearest:
        column, row = (np.floor(part + 0.5).astype(np.int64) for part in (x, y))
        texels = pixels[_wrapped(row, height, used.wrap[1]), _wrapped(column, width, used.wrap[0])]
        return np.asarray(texels, np.float64)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, down = (x - left)[:, None], (y - top)[:, None]

    def at(dx: int, dy: int) -> Floats:
        texel: Floats = pixels[
            _wrapped(top + dy, height, used.wrap[1]), _wrapped(left + dx, width, used.wrap[0])
        ].astype(np.float64)
        return texel

    upper = at(0, 0) * (1 - right) + at(1, 0) * right
    lower = at(0, 1) * (1 - right) + at(1, 1) * right
    mixed: Floats = upper * (1 - down) + lower * down
    return mixed


def _wrapped(index: NDArray[np.int64], size: int, wrap: Wrap) -> NDArray[np.int64]:
    if wrap == "clamp":
        return np.clip(index, 0, size - 1)
    if wrap == "mirror":
        folded = index % (2 * size)
        return np.where(folded < size, folded, 2 * size - 1 - folded)
    return index % size


def is_there(placed: Placed, face: NDArray[np.int64], weights: Floats) -> NDArray[np.bool_]:
    """Tell of N points of a thing whether there is a surface: false where its cut-out map says so."""
    there = np.ones(len(face), bool)
    slots = placed.mesh.slot_of[face]
    for number, surface in enumerate(placed.surfaces):
        if surface.cutout is not None:
            here = np.flatnonzero(slots == number)
            there[here] = look_up(placed.mesh, surface.cutout, face[here], weights[here])[:, 0] >= CUT
    return there


def base_colors(placed: Placed, face: NDArray[np.int64], weights: Floats) -> UInt8Image:
    """Return (N, 3) sRGB base colors at points of a thing: textures are interpolated as encoded."""
    mesh, colors = placed.mesh, np.zeros((len(face), 3), np.uint8)
    slots = mesh.slot_of[face]
    for number in np.unique(slots):
        surface, chosen = placed.surfaces[number], slots == number
        if surface.texture is None:
            shown = np.broadcast_to(np.clip(np.array(surface.color), 0, 1) * 255, (int(chosen.sum()), 3))
        else:
            shown = look_up(mesh, surface.texture, face[chosen], weights[chosen])
        if surface.corner_colors and mesh.colors is not None:
            corners = srgb_to_linear(mesh.colors[mesh.faces[face[chosen]]] / 255.0)
            tint = (corners * weights[chosen][..., None]).sum(axis=1)
            shown = linear_to_srgb(srgb_to_linear(shown / 255) * tint) * 255
        colors[chosen] = np.rint(shown)
    return colors


def srgb_to_linear(color: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def merge_corners(
    corners: Floats, normals: Floats, uv: Floats, slots: NDArray[np.int64], colors: NDArray[np.uint8] | None = None
) -> Mesh:
    """Make a mesh of (F, 3) corners: faces sorted by slot, equal corners shared (equal to a micrometre).

    Args:
        corners, normals: (F, 3, 3); uv: (K, F, 3, 2); slots: (F,); colors: (F, 3, 3).
    """
    order = np.argsort(slots, kind="stable")
    columns = [corners, normals, *uv] + ([] if colors is None else [colors.astype(np.float64)])
    table = np.concatenate(columns, axis=-1)[order].reshape(-1, sum(column.shape[-1] for column in columns))
    rounded = np.ascontiguousarray(np.round(table, 6).astype(np.float32) + 0.0)
    _, first, inverse = np.unique(_row_keys(rounded), return_index=True, return_inverse=True)
    if not np.array_equal(rounded[first][inverse], rounded):  # two rows with one key: compare the rows themselves
        rows = rounded.view(f"V{rounded.shape[1] * 4}").ravel()
        _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    first = np.sort(first)
    faces = rank[inverse].reshape(-1, 3).astype(np.int32)
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)  # a sliver whose corners became one crashes Blender
    kept, sets = table[first], len(uv)
    return Mesh(
        kept[:, :3],
        kept[:, 3:6].astype(np.float32),
        kept[:, 6 : 6 + 2 * sets].astype(np.float32).reshape(-1, sets, 2).transpose(1, 0, 2),
        faces[whole],
        slots[order][whole].astype(np.int32),
        None if colors is None else kept[:, -3:].astype(np.uint8),
    )


def _row_keys(table: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row: sorting whole rows takes ten times as long."""
    keys = np.zeros(len(table), np.uint64)
    for column in table.view(np.uint32).T.astype(np.uint64):
        keys ^= column
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
