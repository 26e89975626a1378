"""The canonical form of an asset: what every format is imported to, and all that engines and labels read of it.

One .npz file (no pickle): arrays, images as uint8 arrays, and `record`, the rest as json text.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

SCHEMA = "cavendish-asset/1"
Wrap = Literal["repeat", "clamp", "mirror"]
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class ImageUse:
    """An image of the asset on a surface, by one of its sets of texture coordinates (v up), interpolated or nearest."""

    image: int
    uv: int = 0
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    nearest: bool = False


@dataclass(frozen=True)
class AssetMaterial:
    """How a surface looks; where there is a map, the factor beside it does not count but for emission.

    Args:
        color: linear 0..1; color_map: (H, W, 3) sRGB; corner_colors: the corners' colors multiply either.
        roughness, metallic: 0..1; their maps: (H, W), 255 is 1.
        normal_map: (H, W, 3) tangent space, +y up; normal_strength scales x and y.
        emission: linear, what a surface of the map's full value sends out; emission_map: (H, W, 3) sRGB.
        opacity: of the whole surface, 0..1; cutout_map: (H, W), where it is under 128 there is no surface.
        transmission: 0..1, of clear solid glass; coat: 0..1, of clear varnish.
        phong: the format knows shininess only (MTL), from which roughness was guessed.
    """

    name: str = ""
    color: Rgb = (0.8, 0.8, 0.8)
    color_map: ImageUse | None = None
    corner_colors: bool = False
    roughness: float = 0.8
    roughness_map: ImageUse | None = None
    metallic: float = 0.0
    metallic_map: ImageUse | None = None
    normal_map: ImageUse | None = None
    normal_strength: float = 1.0
    emission: Rgb = (0.0, 0.0, 0.0)
    emission_map: ImageUse | None = None
    opacity: float = 1.0
    cutout_map: ImageUse | None = None
    transmission: float = 0.0
    coat: float = 0.0
    phong: bool = False

    def maps(self) -> Iterable[ImageUse]:
        """Yield the images in use."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, ImageUse):
                yield value


@dataclass(frozen=True, eq=False)
class Asset:
    """Triangles of a whole asset, +z up, its front along -y, in the units of the file.

    Args:
        positions: (V, 3) float32; faces: (F, 3) int32 into positions.
        normals: (F, 3, 3) float32 of the corners, NaN where the file has none and they follow from the triangles.
        uv: (K, F, 3, 2) float32 sets of texture coordinates of the corners, transforms applied.
        colors: (F, 3, 3) uint8 sRGB of the corners, or None.
        material_of: (F,) int32 into `materials`.
        images: (H, W) or (H, W, 3) uint8.
        unit: what the format says of the unit: "meters", or "" for nothing.
        flat: without normals of its own it is drawn with flat triangles (glTF), not smoothed.
        warnings: what of the file is not drawn, one line each.
        files: what the import read, path below the folder -> sha256.
    """

    positions: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    colors: NDArray[np.uint8] | None
    material_of: NDArray[np.int32]
    materials: tuple[AssetMaterial, ...]
    images: tuple[NDArray[np.uint8], ...]
    unit: str = ""
    flat: bool = False
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def extent(self) -> NDArray[np.float64]:
        """(3,) width, depth and height in units of the file."""
        used = self.positions[np.unique(self.faces)].astype(np.float64)
        return np.asarray(np.ptp(used, axis=0), np.float64)


_ARRAYS = ("positions", "faces", "normals", "uv", "material_of")
_RECORD = ("unit", "flat", "warnings", "files")


def encode_asset(asset: Asset) -> bytes:
    """Return the bytes of the .npz file of an asset; equal assets give equal bytes."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(asset, name) for name in _ARRAYS}
    if asset.colors is not None:
        arrays["colors"] = asset.colors
    for number, image in enumerate(asset.images):
        arrays[f"image{number}"] = image
    record = {name: getattr(asset, name) for name in _RECORD}
    record |= {"schema": SCHEMA, "materials": [asdict(material) for material in asset.materials]}
    record["images"] = len(asset.images)
    text = json.dumps(record, sort_keys=True, default=dict).encode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, record=np.frombuffer(text, np.uint8), **arrays)
    return buffer.getvalue()


def decode_asset(data: bytes) -> Asset:
    """Undo `encode_asset`.

    Raises:
        InputError: not such a file, or its arrays do not fit together.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            record = json.loads(stored["record"].tobytes())
            if record["schema"] != SCHEMA:
                raise ValueError(f"schema {record['schema']!r}")
            asset = Asset(
                **{name: stored[name] for name in _ARRAYS},
                colors=stored.get("colors"),
                images=tuple(stored[f"image{number}"] for number in range(record["images"])),
                materials=tuple(_material(values) for values in record["materials"]),
                unit=record["unit"],
                flat=record["flat"],
                warnings=tuple(record["warnings"]),
                files=record["files"],
            )
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"not an imported asset: {error}") from None
    check_asset(asset)
    return asset


def _material(values: dict[str, Any]) -> AssetMaterial:
    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return ImageUse(**{**value, "wrap": tuple(value["wrap"])})
        return tuple(value) if isinstance(value, list) else value

    return AssetMaterial(**{name: read(value) for name, value in values.items()})


def check_asset(asset: Asset) -> None:
    """Check that arrays, materials and images fit together.

    Raises:
        InputError: they do not, or there is no triangle, or a vertex is not finite.
    """
    count = len(asset.faces)
    if count == 0:
        raise InputError("it has no triangles")
    if not np.isfinite(asset.positions).all():
        raise InputError("a vertex is not finite")
    if not np.isfinite(asset.uv).all():
        raise InputError("a texture coordinate is not finite")
    shapes = asset.faces.shape, asset.normals.shape, asset.uv.shape[1:], asset.material_of.shape
    fits = shapes == ((count, 3), (count, 3, 3), (count, 3, 2), (count,))
    fits &= asset.colors is None or asset.colors.shape == (count, 3, 3)
    fits &= asset.faces.min() >= 0 and asset.faces.max() < len(asset.positions)
    fits &= asset.material_of.min() >= 0 and asset.material_of.max() < len(asset.materials)
    uses = [use for material in asset.materials for use in material.maps()]
    fits &= all(0 <= use.image < len(asset.images) and 0 <= use.uv < len(asset.uv) for use in uses)
    fits &= all(image.dtype == np.uint8 and image.ndim in (2, 3) and image.size > 0 for image in asset.images)
    if not fits:
        raise InputError("not an imported asset: its arrays do not fit together")
