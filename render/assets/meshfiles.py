"""Reads one mesh of a user's folder, whatever its format, to triangles, materials and textures."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.render.assets.folders import OwnFile, read_limited
from cavendish.render.assets.glb import parse_glb
from cavendish.render.assets.wavefront import MAX_TRIANGLES, Phong, Wavefront, parse_mtl, parse_obj
from cavendish.render.geometry.triangles import face_palette

MAX_TEXTURE_PIXELS = 40_000_000
MAX_TEXTURES = 128  # each a fraction of a second, whatever its bytes say
TEXTURE_SIDE = 512
Textures = dict[str, UInt8Image]
Parsed = tuple[Wavefront, dict[str, Phong], Textures, str]
"""Triangles, materials by name, textures by the name materials give them, and a sha256 over all files read."""


def read_mesh(file: OwnFile) -> Parsed:
    """Read a mesh.

    Raises:
        InputError: damaged, over a limit, of another format, or it refers to what is not in its folder.
    """
    suffix = file.path.suffix.lower()
    if suffix not in (".glb", ".obj", ".ply"):
        raise InputError(f"{suffix} is not read: convert it to GLB")
    data = read_limited(file.path, file.root)
    if suffix == ".obj":
        parsed = _read_obj(file, data)
    elif suffix == ".glb":
        parsed = _read_glb(file, data)
    else:
        parsed = _read_ply(file, data)
    if len(parsed[0].corners) == 0:
        raise InputError("it has no triangles")
    return parsed


def _read_obj(file: OwnFile, data: bytes) -> Parsed:
    hashed = hashlib.sha256(data)
    geometry = parse_obj(data, file.path.name)
    materials: dict[str, Phong] = {}
    if geometry.library:
        text = read_limited(_inside(file, geometry.library), file.root)
        hashed.update(text)
        materials = parse_mtl(text, geometry.library)
    textures = {}
    images = sorted({materials[used].image for used in geometry.materials if used in materials} - {""})
    if len(images) > MAX_TEXTURES:
        raise InputError(f"{len(images)} textures: at most {MAX_TEXTURES} are read")
    for image in images:
        content = read_limited(_inside(file, image), file.root)
        hashed.update(content)
        textures[image] = decode_texture(content, image)
    return geometry, materials, textures, hashed.hexdigest()


def _inside(file: OwnFile, name: str) -> Path:
    """Return the path of a file that an OBJ or MTL names; `read_limited` refuses what lies outside the folder."""
    if "\0" in name or len(name) > 400:
        raise InputError("it refers to a file by a name that is none")
    return file.path.parent / name


def _read_glb(file: OwnFile, data: bytes) -> Parsed:
    glb = parse_glb(data, file.path.name)
    if len(glb.images) > MAX_TEXTURES:
        raise InputError(f"{len(glb.images)} textures: at most {MAX_TEXTURES} are read")
    textures: Textures = dict(glb.palettes)
    for name, content in glb.images.items():
        textures[name] = decode_texture(content, name, opaque=name in glb.see_through)
    materials = dict(glb.materials)
    for name, phong in glb.materials.items():
        if phong.image in glb.images and phong.diffuse != (1.0, 1.0, 1.0):
            # sRGB factors on sRGB pixels: within a few levels of the product of linear values
            tint = np.array(phong.diffuse)
            textures[f"{phong.image} {name}"] = (textures[phong.image] * tint + 0.5).astype(np.uint8)
            materials[name] = replace(phong, image=f"{phong.image} {name}")
    return glb.geometry, materials, textures, hashlib.sha256(data).hexdigest()


def _read_ply(file: OwnFile, data: bytes) -> Parsed:
    """Read a PLY file with trimesh, after its header's counts have been checked."""
    import trimesh

    header, end, _ = data[:65536].partition(b"end_header")
    if not data.startswith(b"ply") or not end:
        raise InputError("not a PLY file: no header")
    counts = {kind: int(count) for kind, count in re.findall(rb"element\s+(\w+)\s+(\d{1,18})\s", header)}
    if counts.get(b"face", 0) > MAX_TRIANGLES or counts.get(b"vertex", 0) > 3 * MAX_TRIANGLES:
        raise InputError(f"it announces {counts.get(b'face', 0)} faces: at most {MAX_TRIANGLES} are read")
    if b"TextureFile" in header:
        raise InputError("it names a texture file: convert it to GLB")
    try:
        mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
    except Exception as error:  # trimesh raises whatever the first wrong byte leads to
        raise InputError(f"not a readable PLY: {type(error).__name__} {error}") from None
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise InputError("it has points but no triangles")
    positions, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if len(faces) > MAX_TRIANGLES:
        raise InputError(f"more than {MAX_TRIANGLES} triangles")
    if not np.isfinite(positions).all():
        raise InputError("a vertex is not finite")
    if faces.min() < 0 or faces.max() >= len(positions):
        raise InputError("a triangle refers to a vertex that is not there")
    material, uv, textures = Phong(roughness=0.7, metallic=0.0), np.zeros((1, 2)), Textures()
    texel = np.full(faces.shape, 0, np.int64)
    if mesh.visual.kind in ("vertex", "face"):
        table, uv = face_palette(_face_colors(mesh))
        textures["colors"] = table
        material = replace(material, image="colors")
        texel = np.repeat(np.arange(len(faces))[:, None], 3, axis=1)
    unique, index = np.unique(positions, axis=0, return_inverse=True)
    corners = np.stack([index.reshape(-1)[faces], texel, np.full_like(faces, -1)], axis=-1)
    geometry = Wavefront(unique, uv, np.zeros((0, 3)), corners, np.zeros(len(faces), np.int64), ("",), "")
    return geometry, {"": material}, textures, hashlib.sha256(data).hexdigest()


def _face_colors(mesh: object) -> NDArray[np.uint8]:
    colors: NDArray[np.uint8] = np.asarray(mesh.visual.face_colors)[:, :3]  # type: ignore[attr-defined]
    return colors


def decode_texture(data: bytes, name: str, opaque: bool = False) -> UInt8Image:
    """Decode a PNG or JPEG texture to at most TEXTURE_SIDE a side.

    Args:
        opaque: refuse a picture that is seen through where its alpha says so.

    Raises:
        InputError: not a readable picture, too large, or seen through.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_TEXTURE_PIXELS:
                raise InputError(f"{name}: {image.width}x{image.height} is too large a texture")
            if opaque and "A" in image.getbands() and np.mean(np.asarray(image.getchannel("A")) < 128) > 0.001:
                raise InputError(f"{name}: it is cut out of an image with alpha, which is not drawn")
            pixels = image.convert("RGB")
            if max(pixels.size) > TEXTURE_SIDE:
                pixels = pixels.resize((min(pixels.width, TEXTURE_SIDE), min(pixels.height, TEXTURE_SIDE)))
            return np.asarray(pixels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: not a readable texture: {error}") from None
