"""Metric depth as a walk along seven edges of the RGB cube: codec "cube-walk/1".

`f(d) = 1 - (1 - d / (lambda c)) ** (lambda + 1)` maps planar depth in [0, inf) to [0, 1); with lambda = -3 and
c = 10/3 that is `1 - (1 + d / 10) ** -2`. `round(1785 f)` is one of 1786 codes, and code `255 k + v` is the colour `v`
steps along edge `k` of the walk black, red, yellow, green, cyan, blue, magenta, white. White, the last code, is +inf.

Source: "Image Generators are Generalist Vision Learners", arXiv 2604.20329. Rounding (not truncating), the packed-key
decoder, the residual and the repair are ours; docs/codecs.md has the definition and the errors at every depth.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colors import check_picture, similar_neighbours
from cavendish.encoders.sample import InputError, UInt8Image

LAST_CODE = 1785
UNKNOWN_RGB = (128, 128, 128)
"""How NaN (unknown) is drawn: mid grey, farther from the walk (residual 0.70) than any blend of depths comes to lie."""

CONFIDENT_LEVELS = 24
"""Colours farther than this from the walk, in 8-bit levels, are blends or unknown. Ours: every 50/50 and 25/75 blend of
two distant codes that decodes outside their range lies farther off."""

_VERTICES = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 1, 1))
_UNKNOWN_CODE = LAST_CODE + 1
_BLOCK = 3 << 15  # pixels at a time: the scratch arrays stay in cache and peak memory does not grow with the picture
_CODE_BITS = 12
_MIRROR = 255 << (_CODE_BITS // 2)
_CODEC_ID = re.compile(r"cube-walk/1(?::lambda=(?P<lam>-[0-9.]+),c=(?P<c>[0-9.e+-]+))?")


@dataclass(frozen=True)
class DepthCodec:
    """The two parameters of the walk. `id` names the codec in shards and prompts; other parameters make another id."""

    lam: float = -3.0
    c_m: float = 10.0 / 3.0

    def __post_init__(self) -> None:
        if not (-64 <= self.lam < -1 and 0 < self.c_m < 1e6):
            raise InputError(
                f"depth codec lambda={self.lam}, c={self.c_m}: lambda must be in [-64, -1) and c in (0, 1e6) metres"
            )

    @property
    def id(self) -> str:
        """The codec id: "cube-walk/1", or "cube-walk/1:lambda=-2.0,c=10.0" when the parameters are others."""
        return "cube-walk/1" if self == CUBE_WALK else f"cube-walk/1:lambda={self.lam!r},c={self.c_m!r}"

    @property
    def scale_m(self) -> float:
        """Metres at which `1 + d / scale_m` doubles: -lambda c."""
        return -self.lam * self.c_m

    @property
    def power(self) -> float:
        """`f(d) = 1 - (1 + d / scale_m) ** -power`."""
        return -(self.lam + 1)


CUBE_WALK = DepthCodec()
"""The paper's parameters: below 1 % error from 0.146 to 69 m, best (0.09 %) at 5 m."""

CUBE_WALK_OUTDOOR = DepthCodec(-2.0, 10.0)
"""Streets: at most 0.18 % error from 5 to 80 m and 0.34 % at 200 m, but 1.2 % at 0.5 m."""

CUBE_WALK_FAR = DepthCodec(-4.0, 120.0)
"""Landscapes: 0.10 % at 80 m and 0.09 % at 200 m, but 9 % at 0.5 m."""


@dataclass(frozen=True)
class DecodedDepth:
    """A decoded depth picture.

    Args:
        depth_m: (H, W) float32 planar metres; +inf where the picture says "no surface", never NaN.
        squared_distance: (H, W) uint16, squared distance of each colour from the walk in 8-bit colour levels.
    """

    depth_m: NDArray[np.float32]
    squared_distance: NDArray[np.uint16]

    @cached_property
    def residual(self) -> NDArray[np.float32]:
        """(H, W) float32 distance of each colour from the walk; black to red is 1. At most sqrt(1/2)."""
        return np.sqrt(self.squared_distance, dtype=np.float32) / np.float32(255)

    @property
    def confident(self) -> NDArray[np.bool_]:
        """(H, W) bool: near the walk. Unknown pixels and blends across depth edges are not."""
        return self.squared_distance <= CONFIDENT_LEVELS**2


def depth_codec(codec_id: str) -> DepthCodec:
    """Return the codec that a codec id names.

    Raises:
        InputError: no cube walk has this id.
    """
    match = _CODEC_ID.fullmatch(codec_id)
    try:
        if match is None:
            raise ValueError
        return CUBE_WALK if match["lam"] is None else DepthCodec(float(match["lam"]), float(match["c"]))
    except ValueError as error:
        detail = f": {error}" if isinstance(error, InputError) else ""
        raise InputError(
            f"depth codec id {codec_id!r}: write 'cube-walk/1' or 'cube-walk/1:lambda=-2.0,c=10.0'{detail}"
        ) from None


def encode_depth(depth_m: NDArray[Any], codec: DepthCodec = CUBE_WALK) -> UInt8Image:
    """Draw planar depth as colours of the cube walk, each depth rounded to the nearest code.

    Depths past the last half step (587 m for the default codec) round to white, as +inf does. NaN becomes
    `UNKNOWN_RGB`.

    Args:
        depth_m: (H, W) or any shape, floating point, planar metres; +inf no surface, NaN unknown.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: a negative depth, or an array that is not floating point.

    Example:
        >>> import numpy as np
        >>> cavendish.encode_depth(np.array([[0.0, 1.0, np.inf]])).tolist()
        [[[0, 0, 0], [255, 55, 0], [255, 255, 255]]]
    """
    check_depth(depth_m)
    flat = depth_m.reshape(-1)
    # Every pixel is written as 4 bytes at a stride of 3, in ascending order, so that the next pixel overwrites the
    # spare byte: twice as fast as gathering 3 bytes a pixel. A last spare byte keeps the last write inside.
    buffer = np.empty(3 * flat.size + 1, np.uint8)
    words: NDArray[np.uint32] = np.ndarray((flat.size,), np.uint32, buffer, strides=(3,))
    position = np.empty(min(_BLOCK, flat.size), np.float64)
    code = np.empty(position.size, np.intp)
    color = np.empty(position.size, np.uint32)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        n = block.size
        _depth_codes(block, codec, position[:n], code[:n])
        np.take(_COLOR_WORDS, code[:n], out=color[:n], mode="clip")
        words[start : start + n] = color[:n]
    return buffer[:-1].reshape(*depth_m.shape, 3)


def check_depth(depth_m: NDArray[Any]) -> None:
    """Raise InputError unless `depth_m` is floating point and nowhere negative."""
    if not isinstance(depth_m, np.ndarray) or depth_m.dtype.kind != "f":
        kind = depth_m.dtype if isinstance(depth_m, np.ndarray) else type(depth_m).__name__
        raise InputError(f"depth is {kind}: give an array of floating point metres")
    lowest = np.fmin.reduce(depth_m, axis=None, initial=np.inf)
    if lowest < 0:
        raise InputError(f"depth has negative values (lowest {lowest:.6g} m): mark unknown NaN, no surface +inf")


def _depth_codes(
    depth_m: NDArray[Any], codec: DepthCodec, position: NDArray[np.float64], code: NDArray[np.intp]
) -> None:
    """Fill `code` with the codes of a block of depths; `position` is scratch."""
    position[...] = depth_m
    position += codec.scale_m
    np.divide(codec.scale_m, position, out=position)  # 0 at +inf, NaN stays NaN
    if codec.power == 2:
        position *= position
    elif codec.power != 1:
        np.power(position, codec.power, out=position)
    position *= -LAST_CODE
    position += LAST_CODE + 0.5
    unknown = np.isnan(position)
    if unknown.any():
        position[unknown] = _UNKNOWN_CODE
    code[...] = position  # truncates: with the half above this rounds


def decode_depth(rgb_u8: UInt8Image, repair: bool = False, codec: DepthCodec = CUBE_WALK) -> DecodedDepth:
    """Read depth from a picture: the nearest point of the walk for every pixel, whatever its colour.

    Args:
        rgb_u8: (H, W, 3) uint8.
        repair: give every pixel that is not `confident` the depth of the most colour-similar confident pixel in the
            7x7 window around it, if there is one. It removes most of the wrong depths that resampling and JPEG leave on
            depth edges. Residuals stay those of the picture.

    Returns:
        Depth and residual. Depth is finite or +inf for every one of the 2^24 colours; ties go to the nearer code.

    Raises:
        InputError: the picture is not (H, W, 3) uint8.

    Example:
        >>> import numpy as np
        >>> image = cavendish.encode_depth(np.array([[0.5, 5.0, np.inf]]))
        >>> cavendish.decode_depth(image).depth_m.round(2).tolist()
        [[0.5, 5.0, inf]]
    """
    check_picture(rgb_u8)
    shape = rgb_u8.shape[:2]
    depth_m, squared_distance = _decode_pixels(rgb_u8.reshape(-1, 3), _depth_table(codec))
    decoded = DecodedDepth(depth_m.reshape(shape), squared_distance.reshape(shape))
    if repair:
        _repair(decoded.depth_m, decoded.confident, rgb_u8)
    return decoded


def code_depths(codec: DepthCodec = CUBE_WALK) -> NDArray[np.float64]:
    """Return the (1786,) float64 metres of all codes, 0 to +inf."""
    f = np.arange(LAST_CODE) / LAST_CODE
    return np.append(codec.scale_m * ((1 - f) ** (-1 / codec.power) - 1), np.inf)


@lru_cache(maxsize=16)
def _depth_table(codec: DepthCodec) -> NDArray[np.float32]:
    return code_depths(codec).astype(np.float32)


def _decode_pixels(
    pixels: NDArray[np.uint8], depth_table: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return (N,) depths and squared distances of (N, 3) colours, a block at a time."""
    count = len(pixels)
    depth_m = np.empty(count, np.float32)
    squared_distance = np.empty(count, np.uint16)
    scratch = np.empty((7, min(_BLOCK, count)), np.int32)
    code = np.empty(scratch.shape[1], np.intp)
    for start in range(0, count, _BLOCK):
        block = pixels[start : start + _BLOCK]
        n = len(block)
        key = _nearest_keys(block, scratch[:, :n], code[:n])
        np.bitwise_and(key, (1 << _CODE_BITS) - 1, out=code[:n])
        np.take(depth_table, code[:n], out=depth_m[start : start + n], mode="clip")
        key >>= _CODE_BITS
        squared_distance[start : start + n] = key
    return depth_m, squared_distance


def _nearest_keys(
    pixels: NDArray[np.uint8], scratch: NDArray[np.int32], scratch_wide: NDArray[np.intp]
) -> NDArray[np.int32]:
    """Return `squared distance << 12 | code` of the nearest point of the walk, in one of the scratch arrays.

    Inside the cube no projection is needed: on edge k one channel is free and gives the code, and the squared distance
    is the sum of the squares of the two others' distances to 0 or 255. The smallest key is the nearest code, ties going
    to the lower one. With r0 = r^2 << 12, r1 = (255 - r)^2 << 12 and so on, the seven keys are

        edge 0: g0 + b0 + r          edge 4: r0 + b1 + 1275 - g
        edge 1: r1 + b0 + 255 + g    edge 5: g0 + b1 + 1275 + r
        edge 2: g1 + b0 + 765 - r    edge 6: r1 + b1 + 1530 + g
        edge 3: g1 + r0 + 765 + b

    of which 0 and 5, 1 and 6, 2 and 3 share terms.
    """
    r, g, b, r_shifted, g_shifted, b_shifted, key = scratch
    n = len(pixels)
    spare, spare_too = scratch_wide.view(np.int32)[:n], scratch_wide.view(np.int32)[n : 2 * n]
    for channel, (value, shifted) in enumerate(((r, r_shifted), (g, g_shifted), (b, b_shifted))):
        value[...] = pixels[:, channel]
        np.left_shift(value, _CODE_BITS // 2, out=shifted)  # its square is already shifted by 12
    r1_g = np.subtract(_MIRROR, r_shifted, out=key)
    r1_g *= r1_g
    r1_g += g
    r1_g += 255
    r0 = np.multiply(r_shifted, r_shifted, out=r_shifted)
    g0_r = np.multiply(g_shifted, g_shifted, out=spare)
    g0_r += r
    np.minimum(r1_g, g0_r, out=key)
    b1 = np.subtract(_MIRROR, b_shifted, out=spare)
    b1 *= b1
    b1 += 1275
    b0 = np.multiply(b_shifted, b_shifted, out=b_shifted)
    key += np.minimum(b0, b1, out=spare_too)  # edges 0, 5, 1, 6
    b1 += r0
    b1 -= g
    np.minimum(key, b1, out=key)  # edge 4
    b0 -= r
    r0 += b
    nearer = np.minimum(b0, r0, out=b0)
    g1 = np.subtract(_MIRROR, g_shifted, out=g_shifted)
    g1 *= g1
    g1 += 765
    g1 += nearer
    return np.minimum(key, g1, out=key)  # edges 2, 3


def _repair(depth_m: NDArray[np.float32], confident: NDArray[np.bool_], rgb_u8: UInt8Image) -> None:
    """Overwrite depths that are not confident with that of the most similar confident pixel of the 7x7 window."""
    pixels, sources = similar_neighbours(rgb_u8, rgb_u8, ~confident, confident)
    depth_m.reshape(-1)[pixels] = depth_m.reshape(-1)[sources]


def _color_bytes() -> NDArray[np.uint8]:
    """Return (1787, 4) uint8: the colour of every code and of "unknown", and a spare byte."""
    table = np.zeros((LAST_CODE + 2, 4), np.uint8)
    for edge, (here, there) in enumerate(itertools.pairwise(_VERTICES)):
        steps = np.arange(256)[:, None]
        table[255 * edge : 255 * edge + 256, :3] = 255 * np.array(here) + steps * (np.array(there) - here)
    table[_UNKNOWN_CODE, :3] = UNKNOWN_RGB
    return table


_COLOR_BYTES = _color_bytes()
_COLOR_WORDS = _COLOR_BYTES.view(np.uint32)[:, 0]
