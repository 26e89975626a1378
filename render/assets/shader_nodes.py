"""Reads the shader nodes that Blender's importers make into an AssetMaterial and its images; anything else is named.

A value of a socket is a product: a constant, at most one image (what nodes do to its pixels is done to the pixels) and
at most the colors of the corners. Runs in the import child; it does not import bpy.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from cavendish.encoders.sample import InputError
from cavendish.render.assets.asset import AssetMaterial, ImageUse, Rgb, Wrap
from cavendish.render.geometry.mesh import linear_to_srgb, srgb_to_linear

Floats = NDArray[np.float64]
MAX_TEXTURE_PIXELS = 80_000_000
MAX_IMAGES = 128  # each a fraction of a second, whatever its bytes say
TEXTURE_SIDE = 1024
LUMA = np.array([0.2126, 0.7152, 0.0722])
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF", "DDS")
WRAPS: dict[str, Wrap] = {"REPEAT": "repeat", "EXTEND": "clamp", "CLIP": "clamp", "MIRROR": "mirror"}
GLASS_OPACITY = 0.9
"""A surface whose whole opacity is below is drawn as dark glass; images that blend are cut at half their opacity."""


class NotDrawn(InputError):
    """A node, or a combination of nodes, that no engine here draws."""


@dataclass(frozen=True)
class Coordinates:
    """A set of texture coordinates: the name of the UV map ("": the first) and the affine map (2x3) applied to it."""

    uv_map: str
    matrix: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image as a node gives it: (H, W, C) floats, linear; `raw` are its bytes where nothing was done to them."""

    values: Floats
    raw: NDArray[np.uint8] | None
    coordinates: Coordinates
    wrap: tuple[Wrap, Wrap]
    nearest: bool
    key: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """What arrives at a socket: factor (C,) times image times corner colors; with a threshold, 1 above it, else 0."""

    factor: Floats
    pixels: Pixels | None = None
    corner_colors: bool = False
    threshold: float | None = None

    @property
    def is_constant(self) -> bool:
        return self.pixels is None and not self.corner_colors


@dataclass
class ImageTable:
    """The images of an asset, each once; and its sets of texture coordinates."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    sets: list[Coordinates] = field(default_factory=lambda: [Coordinates("")])
    _known: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _decoded: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def add(self, pixels: Pixels, image: NDArray[np.uint8], purpose: str) -> ImageUse:
        """Add an image made of a node's pixels."""
        number = self.add_image((*pixels.key, purpose), image)
        if pixels.coordinates not in self.sets:
            self.sets.append(pixels.coordinates)
        return ImageUse(number, self.sets.index(pixels.coordinates), pixels.wrap, pixels.nearest)

    def add_image(self, key: tuple[Any, ...], image: NDArray[np.uint8]) -> int:
        """Return the number of an image, added if there is none of its key."""
        if key not in self._known:
            if len(self.images) >= MAX_IMAGES:
                raise InputError(f"more than {MAX_IMAGES} textures")
            self._known[key] = len(self.images)
            self.images.append(np.ascontiguousarray(image))
        return self._known[key]

    def decode(self, image: Any) -> NDArray[np.uint8]:
        """Decode one of Blender's images to (H, W, 4) uint8, at most TEXTURE_SIDE a side.

        Raises:
            InputError: missing, not readable, or too large.
        """
        if image.name not in self._decoded:
            name = Path(str(image.filepath).replace("\\", "/")).name or image.name
            if image.packed_file is not None:
                data = bytes(image.packed_file.data)
            else:
                try:
                    data = Path(image.filepath_from_user()).read_bytes()
                except OSError:
                    raise InputError(f"texture {name}: not there") from None
            self._decoded[image.name] = decode_texture(data, name)
        return self._decoded[image.name]


def decode_texture(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 4) uint8, alpha of palettes and transparent colors included.

    Raises:
        InputError: not a readable image, or too large; the line names it.
    """
    if data[:4] == b"\xabKTX":
        raise InputError(f"texture {name}: KTX is not read: use PNG or JPEG")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            image: Image.Image = opened
            if image.width * image.height > MAX_TEXTURE_PIXELS:
                raise InputError(f"texture {name}: {image.width}x{image.height} is too large")
            if image.mode.startswith("I") or image.mode == "F":  # 16 bits
                values = np.asarray(image, np.float64) / 257
                image = Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
            colored = image.convert("RGBA")
            if max(colored.size) > TEXTURE_SIDE:
                ratio = TEXTURE_SIDE / max(colored.size)
                size = max(1, round(colored.width * ratio)), max(1, round(colored.height * ratio))
                # channels one by one: what is hidden by alpha keeps its color, and no color its neighbor's alpha
                colored = Image.merge("RGBA", [band.resize(size, Image.Resampling.BOX) for band in colored.split()])
            return np.asarray(colored)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        kind = type(error).__name__
        words = "not an image of a known format" if kind == "UnidentifiedImageError" else str(error)
        raise InputError(f"texture {name}: not readable: {words}") from None


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


class MaterialReader:
    """Reads one material's nodes. `warnings` gets what is passed over."""

    def __init__(self, material: Any, table: ImageTable, warnings: list[str]) -> None:
        self._name, self._tree, self._table, self._warnings = material.name, material.node_tree, table, warnings

    def read(self) -> AssetMaterial:
        """Read the material.

        Raises:
            InputError: its color or opacity comes from nodes that are not drawn.
        """
        output = next((node for node in self._tree.nodes if node.bl_idname == "ShaderNodeOutputMaterial"), None)
        if output is None or not output.inputs["Surface"].is_linked:
            raise InputError(f"material {self._name!r} has no surface")
        return self._read_shader(output.inputs["Surface"].links[0].from_node)

    def _read_shader(self, node: Any) -> AssetMaterial:
        kind = node.bl_idname
        if kind == "ShaderNodeBsdfPrincipled":
            return self._read_principled(node)
        if kind == "ShaderNodeEmission":
            self._warn("is unlit in the file, and lit here")
            material = AssetMaterial(self._name, roughness=1.0)
            return self._with_color(material, self._value(node.inputs["Color"]))
        if kind == "ShaderNodeMixShader":
            first, second = (_linked_node(node.inputs[number]) for number in (1, 2))
            if first is not None and second is not None and first.bl_idname == "ShaderNodeBsdfTransparent":
                source = _linked_node(node.inputs["Fac"])
                if source is not None and source.bl_idname == "ShaderNodeLightPath":
                    return self._read_shader(second)
                return self._with_opacity(self._read_shader(second), self._value(node.inputs["Fac"]))
        raise NotDrawn(f"material {self._name!r}: the shader {_label(node)} is not drawn")

    def _read_principled(self, node: Any) -> AssetMaterial:
        inputs = node.inputs
        material = AssetMaterial(
            self._name,
            roughness=self._number(inputs["Roughness"]),
            metallic=self._number(inputs["Metallic"]),
            transmission=self._number(inputs["Transmission Weight"]),
            coat=self._number(inputs["Coat Weight"]),
        )
        material = self._with_color(material, self._value(inputs["Base Color"]))
        material = self._with_opacity(material, self._value(inputs["Alpha"]))
        material = replace(
            material,
            roughness_map=self._scalar_map(inputs["Roughness"], "roughness"),
            metallic_map=self._scalar_map(inputs["Metallic"], "metal"),
        )
        material = self._with_emission(material, node)
        for name in ("Transmission Weight", "Coat Weight"):
            if inputs[name].is_linked:
                self._warn(f"the texture of its {name.lower()} is not drawn")
        if inputs["Specular Tint"].is_linked or min(inputs["Specular Tint"].default_value[:3]) < 0.99:
            self._warn("the color of its reflections is not drawn")
        return self._with_normals(material, inputs["Normal"])

    def _warn(self, words: str) -> None:
        line = f"material {self._name!r}: {words}"
        if line not in self._warnings:
            self._warnings.append(line)

    # ---- what sockets give ------------------------------------------------------------------------------------------

    def _with_color(self, material: AssetMaterial, value: Value) -> AssetMaterial:
        material = replace(material, corner_colors=value.corner_colors)
        if value.pixels is None:
            return replace(material, color=_rgb(value.factor))
        white = np.allclose(value.factor, 1, atol=1e-4)
        if white and value.pixels.raw is not None:
            image = value.pixels.raw[..., :3]
        else:
            image = _bytes(linear_to_srgb(np.clip(_three(value.pixels.values) * _three(value.factor), 0, 1)))
        use = self._table.add(value.pixels, image, f"color {value.factor.tolist()}")
        return replace(material, color=(1.0, 1.0, 1.0), color_map=use)

    def _with_opacity(self, material: AssetMaterial, value: Value) -> AssetMaterial:
        if value.corner_colors:
            self._warn("the opacity of its corners is not drawn")
        factor = float(value.factor.mean())
        if value.pixels is None:
            return replace(material, opacity=factor)
        alpha = value.pixels.values.mean(axis=-1)
        if value.threshold is None:
            if factor < GLASS_OPACITY or float(np.quantile(alpha, 0.99)) < GLASS_OPACITY:
                return replace(material, opacity=factor * float(alpha.mean()))
            cutoff = 0.5 / factor
            if float(((alpha > 0.1) & (alpha < 0.9)).mean()) > 0.02:
                self._warn("it blends with what is behind, and is cut at half its opacity here")
        else:
            cutoff = value.threshold / max(factor, 1e-6)
        if alpha.min() >= cutoff:
            return material
        # where the interpolated value crosses 128, the file's opacity crosses its threshold
        image = np.clip(np.floor((alpha - cutoff) * 255 + 128), 0, 255).astype(np.uint8)
        material = self._with_hidden_texels_filled(material, alpha < cutoff, f"cut {cutoff}")
        return replace(material, cutout_map=self._table.add(value.pixels, image, f"cut {cutoff}"))

    def _with_hidden_texels_filled(
        self, material: AssetMaterial, hidden: NDArray[np.bool_], purpose: str
    ) -> AssetMaterial:
        """Give hidden texels the color of the nearest visible one, so that none of theirs shows at an edge."""
        use = material.color_map
        if use is None or self._table.images[use.image].shape[:2] != hidden.shape or hidden.all():
            return material
        _, nearest = distance_transform_edt(hidden, return_indices=True)
        filled = self._table.images[use.image][tuple(nearest)]
        number = self._table.add_image((use.image, purpose, hidden.tobytes()), filled)
        return replace(material, color_map=replace(use, image=number))

    def _with_emission(self, material: AssetMaterial, node: Any) -> AssetMaterial:
        strength = self._value(node.inputs["Emission Strength"])
        if not strength.is_constant:
            self._warn("the texture of its emission strength is not drawn")
        value = self._value(node.inputs["Emission Color"])
        factor = _three(value.factor) * float(strength.factor.mean())
        if factor.max() <= 0:
            return material
        if value.pixels is None:
            return replace(material, emission=_rgb(factor))
        raw = value.pixels.raw
        image = raw[..., :3] if raw is not None else _bytes(linear_to_srgb(_three(value.pixels.values)))
        if not image.any():
            return material
        return replace(material, emission=_rgb(factor), emission_map=self._table.add(value.pixels, image, "emission"))

    def _with_normals(self, material: AssetMaterial, socket: Any) -> AssetMaterial:
        node = _linked_node(socket)
        if node is None:
            return material
        if node.bl_idname != "ShaderNodeNormalMap" or not node.inputs["Color"].is_linked:
            self._warn(f"its relief ({_label(node)}) is not drawn")
            return material
        try:
            value = self._value(node.inputs["Color"])
        except NotDrawn as error:
            self._warn(str(error).partition(": ")[2])
            return material
        if value.pixels is None:
            return material
        use = self._table.add(value.pixels, _bytes(_three(_data(value.pixels))), "normals")
        return replace(material, normal_map=use, normal_strength=float(node.inputs["Strength"].default_value))

    def _number(self, socket: Any) -> float:
        try:
            value = self._value(socket)
        except NotDrawn:
            return float(socket.default_value)
        return float(np.clip(value.factor.mean(), 0, 1)) if value.pixels is None else 1.0

    def _scalar_map(self, socket: Any, purpose: str) -> ImageUse | None:
        try:
            value = self._value(socket)
        except NotDrawn as error:
            self._warn(f"the texture of its {purpose} is not drawn ({error})")
            return None
        if value.pixels is None:
            return None
        values = _luma(_data(value.pixels)) * float(value.factor.mean())
        image = _bytes(values)
        return self._table.add(value.pixels, image, f"{purpose} {value.factor.tolist()}")

    # ---- the nodes --------------------------------------------------------------------------------------------------

    def _value(self, socket: Any) -> Value:
        """Return what arrives at a socket.

        Raises:
            NotDrawn: it comes from nodes that are not read here.
        """
        if not socket.is_linked:
            default = socket.default_value
            values = [default] if isinstance(default, int | float) else list(default)[:3]
            return Value(np.array(values, np.float64))
        link = socket.links[0]
        node, output = link.from_node, link.from_socket.name
        readers: dict[str, Callable[[Any, str], Value]] = {
            "ShaderNodeTexImage": self._read_image,
            "ShaderNodeVertexColor": self._read_corner_colors,
            "ShaderNodeAttribute": self._read_corner_colors,
            "ShaderNodeMix": self._read_mix,
            "ShaderNodeMath": self._read_math,
            "ShaderNodeSeparateColor": self._read_channel,
            "ShaderNodeSeparateXYZ": self._read_channel,
        }
        if node.bl_idname not in readers:
            raise NotDrawn(f"material {self._name!r}: the node {_label(node)} is not drawn")
        return readers[node.bl_idname](node, output)

    def _read_image(self, node: Any, output: str) -> Value:
        if node.image is None:
            raise InputError(f"material {self._name!r}: a texture is missing")
        pixels = self._table.decode(node.image)
        coordinates, wrap = self._coordinates(node)
        key = (node.image.name, output, coordinates, wrap)
        is_data = node.image.colorspace_settings.is_data or node.image.colorspace_settings.name == "Non-Color"
        nearest = node.interpolation == "Closest"
        if output == "Alpha":
            raw = pixels[..., 3:]
            return Value(np.ones(1), Pixels(raw / 255.0, raw, coordinates, wrap, nearest, key))
        raw = pixels[..., :3]
        values = raw / 255.0 if is_data else srgb_to_linear(raw / 255.0)
        shown = Pixels(values, raw, coordinates, wrap, nearest, (*key, is_data))
        return Value(np.ones(3), shown)

    def _coordinates(self, node: Any) -> tuple[Coordinates, tuple[Wrap, Wrap]]:
        """Return the texture coordinates of an image node: a UV map, mapped, wrapped differently along u and v."""
        wrap: tuple[Wrap, Wrap] = (WRAPS[node.extension], WRAPS[node.extension])
        source = _linked_node(node.inputs["Vector"])
        if source is not None and source.bl_idname == "ShaderNodeCombineXYZ":
            ends = [self._wrapped(source.inputs[axis], axis) for axis in range(2)]
            if ends[0][1] != ends[1][1]:
                raise NotDrawn(f"material {self._name!r}: its texture coordinates are made by nodes")
            wrap, source = (ends[0][0], ends[1][0]), ends[0][1]
        matrix = np.eye(3)
        while source is not None and source.bl_idname == "ShaderNodeMapping":
            matrix = matrix @ _mapping(source)
            source = _linked_node(source.inputs["Vector"])
        if source is None:
            name = ""
        elif source.bl_idname == "ShaderNodeUVMap":
            name = source.uv_map
        elif source.bl_idname == "ShaderNodeTexCoord":
            name = ""
        elif source.bl_idname == "ShaderNodeAttribute":
            name = source.attribute_name
        else:
            raise NotDrawn(f"material {self._name!r}: texture coordinates of the node {_label(source)} are not drawn")
        return Coordinates(name, tuple(round(float(part), 9) for part in matrix[:2].ravel())), wrap

    def _wrapped(self, socket: Any, axis: int) -> tuple[Wrap, Any]:
        node = _linked_node(socket)
        wrap: Wrap = "clamp"
        if node is not None and node.bl_idname == "ShaderNodeMath":
            wrap = {"WRAP": "repeat", "PINGPONG": "mirror"}[node.operation]  # type: ignore[assignment]
            node = _linked_node(node.inputs[0])
        if node is None or node.bl_idname != "ShaderNodeSeparateXYZ":
            raise NotDrawn(f"material {self._name!r}: its texture coordinates are made by nodes")
        return wrap, _linked_node(node.inputs[0])

    def _read_corner_colors(self, node: Any, output: str) -> Value:
        if output not in ("Color", "Alpha"):
            raise NotDrawn(f"material {self._name!r}: the node {_label(node)} is not drawn")
        return Value(np.ones(3 if output == "Color" else 1), corner_colors=True)

    def _read_mix(self, node: Any, output: str) -> Value:
        whole = not node.inputs[0].is_linked and node.inputs[0].default_value == 1
        if node.data_type != "RGBA" or node.blend_type != "MULTIPLY" or not whole:
            raise NotDrawn(f"material {self._name!r}: the node {_label(node)} ({node.blend_type.lower()}) is not drawn")
        return self._multiply(self._value(node.inputs[6]), self._value(node.inputs[7]))

    def _read_math(self, node: Any, output: str) -> Value:
        first, second = (self._value(node.inputs[number]) for number in (0, 1))
        match node.operation:
            case "MULTIPLY":
                return self._multiply(first, second)
            case "SUBTRACT" if second.threshold is not None and second.threshold < 0:  # 1 - (alpha < cutoff)
                return replace(second, threshold=-second.threshold)
            case "LESS_THAN" if second.is_constant:
                return replace(first, threshold=-float(second.factor.mean()))
            case "GREATER_THAN" if second.is_constant:
                return replace(first, threshold=float(second.factor.mean()))
        raise NotDrawn(f"material {self._name!r}: the node {_label(node)} ({node.operation.lower()}) is not drawn")

    def _read_channel(self, node: Any, output: str) -> Value:
        number = {"Red": 0, "Green": 1, "Blue": 2, "X": 0, "Y": 1, "Z": 2}[output]
        value = self._value(node.inputs[0])
        if value.corner_colors:
            raise NotDrawn(f"material {self._name!r}: a channel of the colors of its corners is not drawn")
        factor = _three(value.factor)[number : number + 1]
        if value.pixels is None:
            return Value(factor)
        channel = _three(value.pixels.values)[..., number : number + 1]
        pixels = replace(value.pixels, values=channel, raw=None, key=(*value.pixels.key, number))
        return Value(factor, pixels)

    def _multiply(self, first: Value, second: Value) -> Value:
        if first.threshold is not None or second.threshold is not None:
            if second.is_constant and float(second.factor.mean()) == 1:
                return first
            raise NotDrawn(f"material {self._name!r}: a cut-out times something is not drawn")
        factor = first.factor * second.factor
        if first.pixels is not None and second.pixels is not None:
            raise NotDrawn(f"material {self._name!r}: a product of two textures is not drawn")
        return Value(factor, first.pixels or second.pixels, first.corner_colors or second.corner_colors)


def _linked_node(socket: Any) -> Any:
    return socket.links[0].from_node if socket.is_linked else None


def _label(node: Any) -> str:
    return str(node.bl_idname).removeprefix("ShaderNode")


def _mapping(node: Any) -> Floats:
    """Return the 3x3 matrix of a mapping node for plane coordinates."""
    if node.vector_type not in ("POINT", "TEXTURE"):
        raise NotDrawn(f"a mapping of type {node.vector_type.lower()} is not drawn")
    x, y = node.inputs["Location"].default_value[:2]
    sx, sy = node.inputs["Scale"].default_value[:2]
    angle = node.inputs["Rotation"].default_value[2]
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos * sx, -sin * sy, x], [sin * sx, cos * sy, y], [0, 0, 1.0]])
    return matrix if node.vector_type == "POINT" else np.asarray(np.linalg.inv(matrix), np.float64)


def _rgb(factor: Floats) -> Rgb:
    red, green, blue = (float(max(part, 0.0)) for part in np.broadcast_to(factor, 3))
    return red, green, blue


def _three(values: Floats) -> Floats:
    return np.asarray(np.broadcast_to(values, (*values.shape[:-1], 3)), np.float64)


def _data(pixels: Pixels) -> Floats:
    """Return an image's own numbers: maps of numbers are none of color, whatever their importer says."""
    return pixels.values if pixels.raw is None else np.asarray(pixels.raw / 255.0, np.float64)


def _luma(values: Floats) -> Floats:
    return np.asarray(values[..., 0] if values.shape[-1] == 1 else values @ LUMA, np.float64)
