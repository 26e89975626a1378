"""Builds glTF files of one box, piece by piece."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image


def png(pixels: Any, **options: Any) -> bytes:
    """Encode an array, or a Pillow image, as PNG."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    file = io.BytesIO()
    image.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def pack_glb(tree: dict[str, Any], blob: bytes = b"") -> bytes:
    """Put a tree and its binary chunk together."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


class GltfFile:
    """A glTF file of one box of 0.2 x 0.4 x 0.2 m (y up); each face shows the whole texture."""

    def __init__(self) -> None:
        self.blob = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}], "bufferViews": [], "accessors": [],
        }  # fmt: skip
        points, normals, uv, faces = [], [], [], []
        for axis in range(3):
            for sign in (-1, 1):
                normal = np.zeros(3)
                normal[axis] = sign
                side = np.roll(normal, 1)
                up = np.cross(normal, side)
                start = 4 * len(faces)
                for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
                    points.append((normal + (2 * a - 1) * side + (2 * b - 1) * up) * [0.1, 0.2, 0.1])
                    normals.append(normal)
                    uv.append((a, 1 - b))
                faces.append([start, start + 1, start + 2, start, start + 2, start + 3])
        self.points = np.array(points, "<f4")
        self.attributes = {
            "POSITION": self.array(self.points, "VEC3"),
            "NORMAL": self.array(np.array(normals, "<f4"), "VEC3"),
            "TEXCOORD_0": self.array(np.array(uv, "<f4"), "VEC2"),
        }
        indices = self.array(np.array(faces, "<u2").ravel(), "SCALAR", 5123)
        self.primitive: dict[str, Any] = {"attributes": self.attributes, "indices": indices}
        self.tree["meshes"][0]["primitives"].append(self.primitive)

    def view(self, data: bytes) -> int:
        """Add bytes; return the number of their view."""
        self.blob += b"\0" * (-len(self.blob) % 4)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)})
        self.blob += data
        return len(self.tree["bufferViews"]) - 1

    def array(self, values: Any, kind: str, component: int = 5126) -> int:
        """Add an array; return the number of its accessor."""
        values = np.ascontiguousarray(values)
        accessor = {"bufferView": self.view(values.tobytes()), "componentType": component, "type": kind}
        self.tree["accessors"].append({**accessor, "count": len(values)})
        return len(self.tree["accessors"]) - 1

    def texture(self, data: bytes, mime: str = "image/png", sampler: dict[str, int] | None = None) -> int:
        """Add an image and a texture of it; return the texture's number."""
        images, textures = self.tree.setdefault("images", []), self.tree.setdefault("textures", [])
        images.append({"bufferView": self.view(data), "mimeType": mime})
        textures.append({"source": len(images) - 1})
        if sampler is not None:
            self.tree.setdefault("samplers", []).append(sampler)
            textures[-1]["sampler"] = len(self.tree["samplers"]) - 1
        return len(textures) - 1

    def material(self, pbr: dict[str, Any] | None = None, **more: Any) -> None:
        """Give the box a material."""
        self.tree.setdefault("materials", []).append({"pbrMetallicRoughness": pbr or {}, **more})
        self.primitive["material"] = len(self.tree["materials"]) - 1

    def extension(self, name: str, required: bool = False) -> None:
        """Declare an extension."""
        self.tree.setdefault("extensionsUsed", []).append(name)
        if required:
            self.tree.setdefault("extensionsRequired", []).append(name)

    def glb(self) -> bytes:
        """Return the binary file."""
        blob = self.blob + b"\0" * (-len(self.blob) % 4)
        return pack_glb({**self.tree, "buffers": [{"byteLength": len(blob)}]}, blob)
