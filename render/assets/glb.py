"""Reads binary glTF 2.0 (GLB) into arrays. Files are not trusted: every count and offset is checked before use.

Read: triangles of all nodes of the scene, base colour, roughness and metallic of their materials, colours of vertices.
Not read: normal maps, emission, animations. Refused with a reason: compressed meshes, rigs, files outside the GLB.
Source: Khronos glTF 2.0 specification, sections 3.6 (accessors), 3.9 (materials) and 4.4 (the container).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.render.assets.wavefront import MAX_TRIANGLES, Phong, Wavefront
from cavendish.render.geometry.triangles import face_palette

Floats = NDArray[np.float64]
MAX_NODES = 20_000
MAX_DEPTH = 64
READABLE = frozenset(
    {
        "KHR_lights_punctual",
        "KHR_materials_clearcoat",
        "KHR_materials_emissive_strength",
        "KHR_materials_ior",
        "KHR_materials_sheen",
        "KHR_materials_specular",
        "KHR_materials_unlit",
        "KHR_mesh_quantization",
    }
)
"""Extensions a file may require: without them it is still drawn in its right shape and colour."""
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Glb:
    """Triangles with +y up, materials by name, encoded images by name, and colour tables made from vertex colours."""

    geometry: Wavefront
    materials: dict[str, Phong]
    images: dict[str, bytes]
    palettes: dict[str, UInt8Image]
    see_through: frozenset[str]
    """Images whose alpha the file asks to be drawn."""


@dataclass(frozen=True, eq=False)
class _Part:
    """One primitive in the scene's space: (V, 3) positions, (F, 3) faces, (V, 3) normals and (V, 2) uv or None."""

    positions: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float64] | None
    uv: NDArray[np.float64] | None
    material: str


def parse_glb(data: bytes, name: str) -> Glb:
    """Parse a GLB file.

    Raises:
        InputError: damaged, compressed, rigged, refers to other files, or over the limits.
    """
    try:
        tree, blob = _chunks(data)
        return _Reader(tree, blob).read()
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error, RecursionError) as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, LookupError) else str(error)
        raise InputError(f"{name}: not a readable GLB: {what}") from None


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise ValueError("it does not begin with the header of glTF 2")
    if length > len(data):
        raise ValueError(f"cut off: {len(data)} of {length} bytes")
    size, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON" or 20 + size > length:
        raise ValueError("its first chunk is not JSON, or is cut off")
    tree = json.loads(data[20 : 20 + size])
    blob = b""
    if 28 + size <= length:
        blob_size, kind = struct.unpack_from("<I4s", data, 20 + size)
        if kind == b"BIN\0":
            blob = data[28 + size : 28 + size + blob_size]
    return tree, blob


class _Reader:
    """The parsed JSON and the binary chunk of one file."""

    def __init__(self, tree: dict[str, Any], blob: bytes) -> None:
        self._tree, self._blob = tree, blob
        strange = sorted(set(tree.get("extensionsRequired", ())) - READABLE)
        if strange:
            raise ValueError(f"it needs the extension {strange[0]}: export it without")
        if any("uri" in item for kind in ("buffers", "images") for item in tree.get(kind, ())):
            raise ValueError("it refers to other files or inline data: pack everything into the GLB")
        if tree.get("skins"):
            raise ValueError("it is rigged: apply its pose before export")
        self._parts: list[_Part] = []
        self._materials: dict[str, Phong] = {}
        self._images: dict[str, bytes] = {}
        self._palettes: dict[str, UInt8Image] = {}
        self._see_through: set[str] = set()
        self._seen, self._triangles = 0, 0

    def read(self) -> Glb:
        """Walk the default scene and join what it holds."""
        scenes = self._tree.get("scenes", [])
        roots = scenes[self._tree.get("scene", 0)].get("nodes", []) if scenes else range(len(self._tree["nodes"]))
        for root in roots:
            self._walk(root, np.eye(4), 0)
        if not self._parts:
            raise ValueError("no triangles")
        geometry = _join(self._parts)
        return Glb(geometry, self._materials, self._images, self._palettes, frozenset(self._see_through))

    def _walk(self, number: int, above: NDArray[np.float64], depth: int) -> None:
        self._seen += 1
        if self._seen > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_NODES} nodes, or nested deeper than {MAX_DEPTH}")
        node = self._item("nodes", number)
        matrix = above @ _matrix(node)
        if not np.isfinite(matrix).all():
            raise ValueError(f"node {number} has a place that is not finite")
        if "mesh" in node:
            for primitive in self._item("meshes", node["mesh"])["primitives"]:
                self._add(primitive, matrix)
        for child in node.get("children", ()):
            self._walk(child, matrix, depth + 1)

    def _item(self, kind: str, number: int) -> dict[str, Any]:
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"{number!r} is no number of {kind}")
        item: dict[str, Any] = self._tree[kind][number]
        return item

    def _add(self, primitive: dict[str, Any], matrix: NDArray[np.float64]) -> None:
        if primitive.get("mode", 4) in (0, 1, 2, 3):
            return  # points and lines have no surface
        if primitive.get("mode", 4) != 4:
            raise ValueError("it has triangle strips: export it as triangles")
        if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
            raise ValueError("its mesh is compressed (Draco): export it without")
        attributes = primitive["attributes"]
        positions = self._floats(attributes["POSITION"], 3)
        faces = self._faces(primitive, len(positions))
        if not np.isfinite(positions).all():
            raise ValueError("a vertex is not finite")
        turn = matrix[:3, :3]
        size = np.linalg.det(turn)
        if abs(size) < 1e-18:
            return  # scaled away
        normals = None
        if "NORMAL" in attributes:
            normals = self._floats(attributes["NORMAL"], 3, len(positions)) @ np.linalg.inv(turn)
        uv = self._floats(attributes["TEXCOORD_0"], 2, len(positions)) if "TEXCOORD_0" in attributes else None
        material = self._material(primitive.get("material"), uv is not None)
        if "COLOR_0" in attributes and self._materials[material].image == "":
            colors = self._floats(attributes["COLOR_0"], None, len(positions))[:, :3]
            positions, normals, faces, uv, material = self._color(
                colors, positions, normals, faces, self._materials[material]
            )
        placed = positions @ turn.T + matrix[:3, 3]
        faces = faces[:, ::-1] if size < 0 else faces
        self._parts.append(_Part(placed, faces, normals, None if uv is None else uv * [1, -1] + [0, 1], material))

    def _color(
        self, colors: Floats, positions: Floats, normals: Floats | None,
        faces: NDArray[np.int64], material: Phong,
    ) -> tuple[Floats, Floats | None, NDArray[np.int64], Floats, str]:  # fmt: skip
        """Give every triangle the mean (linear) colour of its corners, from a small table; corners are not shared."""
        mean = _to_srgb(colors[faces].mean(axis=1) * _to_linear(np.array(material.diffuse)))
        table, uv = face_palette((mean * 255 + 0.5).astype(np.uint8))
        name = f"colors-{len(self._palettes)}"
        self._palettes[name] = table
        self._materials[name] = replace(material, image=name, diffuse=(1.0, 1.0, 1.0))
        uv = np.repeat(uv, 3, axis=0) * [1, -1] + [0, 1]
        corners = faces.ravel()
        order = np.arange(len(corners), dtype=np.int64).reshape(-1, 3)
        return positions[corners], None if normals is None else normals[corners], order, uv, name

    def _faces(self, primitive: dict[str, Any], vertices: int) -> NDArray[np.int64]:
        if "indices" in primitive:
            flat = self._accessor(primitive["indices"], 1)[0].ravel().astype(np.int64)
        else:
            flat = np.arange(vertices, dtype=np.int64)
        if len(flat) % 3:
            raise ValueError("its corners do not make whole triangles")
        if len(flat) and flat.max() >= vertices:
            raise ValueError("a triangle refers to a vertex that is not there")
        self._triangles += len(flat) // 3
        if self._triangles > MAX_TRIANGLES:
            raise ValueError(f"more than {MAX_TRIANGLES} triangles")
        return flat.reshape(-1, 3)

    def _floats(self, number: int, width: int | None, count: int | None = None) -> NDArray[np.float64]:
        values, scale = self._accessor(number, width)
        if count is not None and len(values) != count:
            raise ValueError("its vertices have attributes of different lengths")
        return values.astype(np.float64) / scale

    def _accessor(self, number: int, width: int | None) -> tuple[NDArray[Any], float]:
        """Return (N, width) raw values and the number that stands for one."""
        entry = self._item("accessors", number)
        if "sparse" in entry or "bufferView" not in entry:
            raise ValueError("it has sparse or empty accessors: export it plainly")
        view = self._item("bufferViews", entry["bufferView"])
        dtype = np.dtype(_COMPONENTS[entry["componentType"]])
        columns, rows = _WIDTHS[entry["type"]], int(entry["count"])
        if width is not None and columns != width:
            raise ValueError(f"an accessor is {entry['type']} where {width} numbers are needed")
        step = int(view.get("byteStride", columns * dtype.itemsize))
        start = int(view.get("byteOffset", 0)) + int(entry.get("byteOffset", 0))
        if rows < 1 or start < 0 or step < columns * dtype.itemsize or view.get("buffer", 0) != 0:
            raise ValueError("an accessor has no values, or lies outside its buffer")
        if start + (rows - 1) * step + columns * dtype.itemsize > len(self._blob):
            raise ValueError(f"cut off: an accessor of {rows} values ends beyond the {len(self._blob)} bytes there are")
        values: NDArray[Any] = np.ndarray((rows, columns), dtype, self._blob, start, (step, dtype.itemsize))
        return values, float(np.iinfo(dtype).max) if entry.get("normalized") and dtype.kind in "iu" else 1.0

    def _material(self, number: int | None, textured: bool) -> str:
        if number is None:
            self._materials.setdefault("", Phong(diffuse=(1.0, 1.0, 1.0), roughness=0.8, metallic=0.0))
            return ""
        name = f"material-{number}"
        if name in self._materials:
            return name
        entry = self._item("materials", number)
        pbr = entry.get("pbrMetallicRoughness", {})
        factor = [_share(value) for value in pbr.get("baseColorFactor", (1, 1, 1, 1))]
        if len(factor) != 4:
            raise ValueError(f"material {number}: its base colour is not four numbers")
        metallic, roughness = _share(pbr.get("metallicFactor", 1)), _share(pbr.get("roughnessFactor", 1))
        if "metallicRoughnessTexture" in pbr:
            # its map is not read: what is mostly metal by factor alone is left to the map, and drawn as not metal
            metallic, roughness = 0.0, min(roughness, 0.6)
        image = ""
        if textured and "baseColorTexture" in pbr:
            image = self._image(pbr["baseColorTexture"])
            if entry.get("alphaMode", "OPAQUE") != "OPAQUE":
                self._see_through.add(image)
        opacity = factor[3] if entry.get("alphaMode", "OPAQUE") == "BLEND" else 1.0
        color = tuple(float(part) for part in _to_srgb(np.array(factor[:3])))
        self._materials[name] = Phong(
            diffuse=color,  # type: ignore[arg-type]
            opacity=opacity,
            image=image,
            roughness=roughness,
            metallic=metallic,
        )
        return name

    def _image(self, reference: dict[str, Any]) -> str:
        if reference.get("texCoord", 0) != 0:
            raise ValueError("a texture uses a second set of coordinates: bake it onto the first")
        number = self._item("textures", reference["index"])["source"]
        view = self._item("bufferViews", self._item("images", number)["bufferView"])
        start, size = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or size < 1 or start + size > len(self._blob):
            raise ValueError(f"cut off: image {number} ends beyond the file")
        self._images[f"image-{number}"] = self._blob[start : start + size]
        return f"image-{number}"


def _share(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a material has a number that is not finite")
    return min(max(number, 0.0), 1.0)


def _to_srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _to_linear(color: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def _matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    length = x * x + y * y + z * z + w * w
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z) / length, 2 * (x * y - z * w) / length, 2 * (x * z + y * w) / length],
            [2 * (x * y + z * w) / length, 1 - 2 * (x * x + z * z) / length, 2 * (y * z - x * w) / length],
            [2 * (x * z - y * w) / length, 2 * (y * z + x * w) / length, 1 - 2 * (x * x + y * y) / length],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64)
    return matrix


def _join(parts: list[_Part]) -> Wavefront:
    """Put the parts together; equal positions get one index, so that smoothing sees through seams of textures."""
    offsets = np.cumsum([0, *(len(part.positions) for part in parts)])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)])
    positions = np.concatenate([part.positions for part in parts])
    normals = np.concatenate([np.zeros_like(p.positions) if p.normals is None else p.normals for p in parts])
    uv = np.concatenate([np.zeros((len(p.positions), 2)) if p.uv is None else p.uv for p in parts])
    if not np.isfinite(uv).all() or not np.isfinite(normals).all():
        raise ValueError("a normal or texture coordinate is not finite")
    has_normal = np.repeat([part.normals is not None for part in parts], np.diff(offsets))
    unique, index = np.unique(positions, axis=0, return_inverse=True)
    corners = np.stack([index.reshape(-1)[faces], faces, np.where(has_normal[faces], faces, -1)], axis=-1)
    names = list(dict.fromkeys(part.material for part in parts))
    material_of = np.repeat([names.index(part.material) for part in parts], [len(part.faces) for part in parts])
    return Wavefront(unique, uv, normals, corners, material_of, tuple(names), "")
