"""Depth drawn with the colour maps people know: plasma, inferno, viridis, turbo, grey, over a stated range.

A depth becomes entry `round(255 (d - near) / (far - near))` of a table of 256 colours. What the two ends stand for is
part of the prompt and of the codec id, for example "plasma/1:near=0.5,far=10.0". Depths outside the range take the
colour of its end, which therefore reads "this or beyond"; +inf does too. NaN (unknown) becomes magenta, which no map
comes near.

Source: the tables are matplotlib's, rounded to 8 bits; a test compares them. The rest is ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colors import check_picture, nearest_two
from cavendish.encoders.codecs.depth import DecodedDepth, check_depth
from cavendish.encoders.sample import InputError, UInt8Image

COLORMAPS = ("plasma", "inferno", "viridis", "turbo", "grey")
"""The maps, in the order of the stored tables."""

UNKNOWN_RGB = (255, 0, 255)
"""How NaN is drawn: of all corners of the colour cube the farthest from every map (at least 139 levels)."""

_CODEC_ID = re.compile(rf"({'|'.join(COLORMAPS)})/1:near=([0-9.e+-]+),far=([0-9.e+-]+)")


@dataclass(frozen=True)
class ColormapCodec:
    """A colour map and the depths of its first and last colour, in metres; `far_m` may be the smaller one."""

    name: str
    near_m: float
    far_m: float

    def __post_init__(self) -> None:
        if self.name not in COLORMAPS:
            raise InputError(f"colour map {self.name!r} is not known; known: {', '.join(COLORMAPS)}")
        if not (0 <= self.near_m < 1e6 and 0 <= self.far_m < 1e6 and self.near_m != self.far_m):
            raise InputError(f"colour map range {self.near_m} to {self.far_m} m: give two different depths, 0 to 1e6 m")

    @property
    def id(self) -> str:
        """The codec id, from which `colormap_codec` makes the codec again."""
        return f"{self.name}/1:near={float(self.near_m)!r},far={float(self.far_m)!r}"


def colormap_codec(codec_id: str) -> ColormapCodec:
    """Return the codec that a codec id names.

    Raises:
        InputError: no colour map codec has this id.
    """
    match = _CODEC_ID.fullmatch(codec_id)
    try:
        if match is None:
            raise ValueError
        return ColormapCodec(match[1], float(match[2]), float(match[3]))
    except ValueError as error:
        detail = f": {error}" if isinstance(error, InputError) else ""
        raise InputError(f"colour map codec id {codec_id!r}: write 'plasma/1:near=0.5,far=10.0'{detail}") from None


def encode_colormap(depth_m: NDArray[Any], codec: ColormapCodec) -> UInt8Image:
    """Draw planar depth with a colour map; depths outside the codec's range take the colour of its nearer end.

    Args:
        depth_m: (H, W) or any shape, floating point, planar metres; +inf no surface, NaN unknown.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: a negative depth, or an array that is not floating point.
    """
    check_depth(depth_m)
    unknown = np.isnan(depth_m)
    position = (depth_m.astype(np.float64) - codec.near_m) * (255 / (codec.far_m - codec.near_m))
    entry = np.floor(np.clip(np.where(unknown, 0, position), 0, 255) + 0.5).astype(np.intp)
    rgb_u8 = np.take(_tables()[COLORMAPS.index(codec.name)], entry, axis=0)
    rgb_u8[unknown] = UNKNOWN_RGB
    return rgb_u8


def decode_colormap(rgb_u8: UInt8Image, codec: ColormapCodec) -> DecodedDepth:
    """Read depth from a picture drawn with a colour map: the nearest of its 256 colours.

    Args:
        rgb_u8: (H, W, 3) uint8.

    Returns:
        Depth inside the codec's range, and the distance to the nearest colour of the map.

    Raises:
        InputError: the picture is not (H, W, 3) uint8.
    """
    check_picture(rgb_u8)
    table = _tables()[COLORMAPS.index(codec.name)]
    depths = codec.near_m + np.arange(256) * ((codec.far_m - codec.near_m) / 255)
    # Two pairs of neighbours in viridis are the same 8-bit colour: read them as the depth between.
    same = (table[:, None] == table).all(axis=-1)
    depths = (same @ depths / same.sum(axis=1)).astype(np.float32)
    index, squared_distance, _ = nearest_two(rgb_u8.reshape(-1, 3), table)
    shape = rgb_u8.shape[:2]
    return DecodedDepth(
        np.take(depths, index, mode="clip").reshape(shape),
        np.minimum(squared_distance, 65535).astype(np.uint16).reshape(shape),
    )


@lru_cache(maxsize=1)
def _tables() -> NDArray[np.uint8]:
    """Return the (5, 256, 3) uint8 tables in the order of `COLORMAPS`."""
    with files("cavendish.encoders.codecs").joinpath("colormaps.npy").open("rb") as file:
        tables: NDArray[np.uint8] = np.load(file, allow_pickle=False)
    return tables
