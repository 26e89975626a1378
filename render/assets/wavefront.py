"""Reads Wavefront OBJ and MTL text into arrays; nothing here touches files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

MAX_TRIANGLES = 400_000


@dataclass(frozen=True)
class Phong:
    """One MTL material; colours as written (sRGB 0..1), `image` the name of its colour texture or "".

    `roughness` and `metallic` (0..1) are None where the file says nothing of them.
    """

    diffuse: tuple[float, float, float] = (0.8, 0.8, 0.8)
    specular: float = 0.0
    shininess: float = 0.0
    opacity: float = 1.0
    image: str = ""
    roughness: float | None = None
    metallic: float | None = None


@dataclass(frozen=True)
class Wavefront:
    """Triangles of an OBJ file; corners index `positions` (V, 3), `uv` (T, 2), `normals` (N, 3); -1 where absent.

    `corners` is (F, 3, 3) int64: triangle, corner, (position, uv, normal). `material_of` (F,) indexes `materials`.
    """

    positions: NDArray[np.float64]
    uv: NDArray[np.float64]
    normals: NDArray[np.float64]
    corners: NDArray[np.int64]
    material_of: NDArray[np.int64]
    materials: tuple[str, ...]
    library: str


def parse_obj(data: bytes, name: str) -> Wavefront:
    """Parse OBJ text: v, vt, vn, f (any polygon, as a fan), usemtl, mtllib; the rest is skipped.

    Raises:
        InputError: no faces, an index out of range, a number that is none, or over `MAX_TRIANGLES` triangles.
    """
    rows: dict[bytes, list[bytes]] = {b"v": [], b"vt": [], b"vn": []}
    faces: list[list[bytes]] = []
    material_of_face: list[int] = []
    materials: dict[str, int] = {}
    current, library = -1, ""
    for line in data.replace(b"\\\n", b" ").split(b"\n"):
        words = line.split()
        if not words:
            continue
        word = words[0]
        if word == b"f":
            if current < 0:
                current = materials.setdefault("", 0)
            faces.append(words[1:])
            material_of_face.append(current)
        elif word in rows:
            rows[word].append(line[len(word) + 1 :])
        elif word == b"usemtl":
            current = materials.setdefault(line[7:].strip().decode("latin-1"), len(materials))
        elif word == b"mtllib":
            library = line[7:].strip().decode("latin-1")
    try:
        positions = _numbers(rows[b"v"], 3)
        uv = _numbers(rows[b"vt"], 2)
        normals = _numbers(rows[b"vn"], 3)
        corners, parents = _triangles(faces, (len(positions), len(uv), len(normals)))
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{name}: not a readable OBJ model: {error}") from None
    material_of = np.array(material_of_face, np.int64)[parents]
    return Wavefront(positions, uv, normals, corners, material_of, tuple(materials), library)


def _numbers(lines: list[bytes], width: int) -> NDArray[np.float64]:
    if not lines:
        return np.zeros((0, width))
    values = np.array(b" ".join(lines).split(), dtype=np.float64)
    if len(values) != len(lines) * (len(values) // len(lines)):
        raise ValueError("rows of different lengths")
    table = values.reshape(len(lines), -1)
    if table.shape[1] < width or not np.isfinite(table).all():
        raise ValueError(f"rows of {table.shape[1]} numbers where {width} finite ones are needed")
    return table[:, :width]


def _triangles(faces: list[list[bytes]], counts: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = np.array([len(face) for face in faces], np.int64)
    if not len(sizes) or sizes.min() < 1:
        raise ValueError("no faces, or a face without corners")
    if (sizes - 2).clip(0).sum() > MAX_TRIANGLES:
        raise ValueError(f"more than {MAX_TRIANGLES} triangles")
    text = b" ".join(b" ".join(face) for face in faces).replace(b"//", b"/0/")
    fields = 1 + faces[0][0].replace(b"//", b"/0/").count(b"/")
    table = np.array(text.replace(b"/", b" ").split(), np.int64)
    if len(table) != sizes.sum() * fields or text.count(b"/") != sizes.sum() * (fields - 1):
        # some corners carry a texture coordinate or a normal and others do not
        fields = 3
        words = ([*corner.split(b"/"), b"0", b"0"][:3] for corner in text.split())
        table = np.array([[word or b"0" for word in corner] for corner in words], np.int64)
    table = table.reshape(-1, fields)
    corners = np.full((len(table), 3), -1, np.int64)
    for column in range(fields):
        index = table[:, column]
        # 1-based; negative counts from the end; 0 stands for "absent" where `//` was written
        resolved = np.where(index > 0, index - 1, np.where(index < 0, counts[column] + index, -1))
        if resolved.max() >= counts[column] or (column == 0 and resolved.min() < 0):
            raise ValueError("a face refers to a vertex that is not there")
        corners[:, column] = resolved
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    fans = (sizes - 2).clip(0)
    parents = np.repeat(np.arange(len(sizes)), fans)
    step = np.arange(len(parents)) - np.repeat(np.cumsum(fans) - fans, fans)
    first = starts[parents]
    return corners[np.stack([first, first + step + 1, first + step + 2], axis=1)], parents


def parse_mtl(data: bytes, name: str) -> dict[str, Phong]:
    """Parse MTL text to materials by name: Kd, Ks, Ns, d, Pr, Pm, map_Kd.

    Raises:
        InputError: a number that is none.
    """
    found: dict[str, dict[str, object]] = {}
    fields: dict[str, object] = {}
    try:
        for line in data.decode("latin-1").splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "newmtl":
                fields = found.setdefault(line.strip()[7:].strip(), {})
            elif words[0] == "Kd" and len(words) >= 4:
                fields["diffuse"] = tuple(min(max(_finite(word), 0.0), 1.0) for word in words[1:4])
            elif words[0] == "Ks" and len(words) >= 4:
                fields["specular"] = sum(_finite(word) for word in words[1:4]) / 3
            elif words[0] == "Ns":
                fields["shininess"] = _finite(words[1])
            elif words[0] == "d":
                fields["opacity"] = _finite(words[-1])
            elif words[0] in ("Pr", "Pm"):
                fields["roughness" if words[0] == "Pr" else "metallic"] = min(max(_finite(words[1]), 0.0), 1.0)
            elif words[0] == "map_Kd":
                fields["image"] = line.strip()[6:].strip().replace("\\", "/")
    except (ValueError, IndexError) as error:
        raise InputError(f"{name}: not a readable MTL file: {error}") from None
    return {material: Phong(**values) for material, values in found.items()}  # type: ignore[arg-type]


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is not a finite number")
    return value
