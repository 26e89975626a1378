"""Surface normals as colours: codec "normals-left-red/1", and the axis conventions of other tools.

Camera space here is x right, y up, z toward the viewer. The codec draws `R = (1 - x) / 2, G = (1 + y) / 2,
B = (1 + z) / 2`: red is LEFT.

Source: "Image Generators are Generalist Vision Learners", arXiv 2604.20329. Rounding is ours: worst error 0.39 degrees,
where truncation has 0.77.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colors import check_picture
from cavendish.encoders.sample import InputError, UInt8Image

CODEC_ID = "normals-left-red/1"

UNKNOWN_LENGTH = 0.25
"""A colour whose vector is shorter than this (32 levels from mid grey) decodes to unknown. A real normal has length 1;
the 50/50 blend of two normals comes below it only when they are more than 151 degrees apart."""

_AXES = {"R": (0, 1), "L": (0, -1), "U": (1, 1), "D": (1, -1), "B": (2, 1), "F": (2, -1)}


@dataclass(frozen=True)
class NormalConvention:
    """Where the three components point: R right, L left, U up, D down, B back toward the viewer, F forward.

    Args:
        vector: axes of the stored vectors, for example "RDF" for OpenCV.
        colour: axes of the picture whose channels are `(component + 1) / 2`; None when the tool makes no pictures.
    """

    vector: str
    colour: str | None


CONVENTIONS: Mapping[str, NormalConvention] = MappingProxyType(
    {
        "vision-banana": NormalConvention("RUB", "LUB"),
        "opengl": NormalConvention("RUB", "RUB"),
        "blender": NormalConvention("RUB", "RUB"),
        "hypersim": NormalConvention("RUB", "RUB"),
        "marigold": NormalConvention("RUB", "RUB"),
        "diffusers": NormalConvention("RUB", "RUB"),
        "dsine": NormalConvention("LUB", "LUB"),
        "geonet-nyu": NormalConvention("LUB", "LUB"),
        "framenet-scannet": NormalConvention("LUB", "LUB"),
        "stablenormal": NormalConvention("LUB", "LUB"),
        "lotus": NormalConvention("LUB", "LUB"),
        "moge-2": NormalConvention("RDF", "RUB"),
        "opencv": NormalConvention("RDF", None),
        "omnidata": NormalConvention("RDB", "RDB"),
        "2d-3d-s": NormalConvention("RDB", "RDB"),
        "oasis": NormalConvention("RDB", None),
    }
)
"""Axes by tool. A normal always points out of the surface, toward the viewer's side."""


def encode_normals(normals: NDArray[Any], convention: str = "vision-banana") -> UInt8Image:
    """Draw camera-space unit normals as colours; by default codec "normals-left-red/1".

    (0, 0, 0), unknown, becomes mid grey (128, 128, 128), which `decode_normals` returns as (0, 0, 0).

    Args:
        normals: (H, W, 3) floating point, +x right, +y up, +z toward the viewer; length 1 or 0.
        convention: the colours of which tool, a name of `CONVENTIONS`.

    Returns:
        (H, W, 3) uint8, rounded.

    Raises:
        InputError: vectors that are neither unit nor zero, NaN, or an unknown convention.

    Example:
        >>> import numpy as np
        >>> left_up_toward_the_viewer = np.eye(3)[None] * (-1, 1, 1)
        >>> cavendish.encode_normals(left_up_toward_the_viewer).tolist()
        [[[255, 128, 128], [128, 255, 128], [128, 128, 255]]]
    """
    _check_unit(normals)
    colors = _reorder(normals, "RUB", _colour_axes(convention)).astype(np.float32)
    colors *= np.float32(127.5)
    colors += np.float32(128)  # 127.5, and the half that makes the cast round
    np.minimum(colors, np.float32(255), out=colors)  # vectors a rounding error longer than 1
    np.maximum(colors, np.float32(0), out=colors)
    return colors.astype(np.uint8)


def decode_normals(rgb_u8: UInt8Image, convention: str = "vision-banana") -> NDArray[np.float32]:
    """Read unit normals from a picture; by default codec "normals-left-red/1".

    Args:
        rgb_u8: (H, W, 3) uint8.
        convention: the colours of which tool, a name of `CONVENTIONS`.

    Returns:
        (H, W, 3) float32 camera-space unit vectors, (0, 0, 0) for colours within 32 levels of mid grey.

    Raises:
        InputError: not a picture, or an unknown convention.

    Example:
        >>> import numpy as np
        >>> cavendish.decode_normals(np.array([[[255, 128, 128]]], np.uint8)).round().tolist()
        [[[-1.0, 0.0, 0.0]]]
    """
    check_picture(rgb_u8)
    vectors = _reorder(rgb_u8, _colour_axes(convention), "RUB", center=127.5)
    length = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
    length[length < 127.5 * UNKNOWN_LENGTH] = np.inf
    vectors /= length[..., None]
    return vectors + np.float32(0)  # no negative zeros


def normals_from(vectors: NDArray[Any], convention: str) -> NDArray[np.float32]:
    """Convert another tool's (H, W, 3) normal vectors to camera space here (+x right, +y up, +z toward the viewer)."""
    return _reorder(vectors, _convention(convention).vector, "RUB")


def _convention(name: str) -> NormalConvention:
    if name not in CONVENTIONS:
        raise InputError(f"normal convention {name!r} is not known; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def _colour_axes(name: str) -> str:
    axes = _convention(name).colour
    if axes is None:
        raise InputError(f"normal convention {name!r} has vectors only, no colours: use normals_from")
    return axes


def _reorder(vectors: NDArray[Any], source: str, target: str, center: float = 0) -> NDArray[np.float32]:
    """Return `vectors - center` with axes `source` as float32 with axes `target`."""
    out = np.empty(vectors.shape, np.float32)
    for component, letter in enumerate(target):
        axis, sign = _AXES[letter]
        position = next(i for i, other in enumerate(source) if _AXES[other][0] == axis)
        sign *= _AXES[source[position]][1]
        np.subtract(vectors[..., position], np.float32(center), out=out[..., component], casting="unsafe")
        if sign < 0:
            np.subtract(0, out[..., component], out=out[..., component])  # not -x: that makes negative zeros
    return out


def _check_unit(normals: NDArray[Any]) -> None:
    if not isinstance(normals, np.ndarray) or normals.dtype.kind != "f" or normals.shape[-1:] != (3,):
        found = f"{normals.dtype} {normals.shape}" if isinstance(normals, np.ndarray) else type(normals).__name__
        raise InputError(f"normals are {found}: give (height, width, 3) floating point unit vectors")
    squared = np.einsum("...c,...c->...", normals, normals)
    if not np.all((abs(squared - 1) < 0.02) | (squared == 0)):  # False for NaN too
        bad = squared[~((abs(squared - 1) < 0.02) | (squared == 0))].flat[0]
        raise InputError(
            f"normals have a vector of length {np.sqrt(bad):.4g}: give unit vectors, or (0, 0, 0) for unknown"
        )
