"""Id maps and their pictures: every instance one solid colour over a stated background; two decoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colors import check_colors, check_picture, nearest_color, similar_neighbours
from cavendish.encoders.codecs.flood import paper_regions
from cavendish.encoders.codecs.palettes import BLACK, Color
from cavendish.encoders.sample import InputError, UInt8Image

Method = Literal["modes", "paper"]

FLAT_RANGE = 24
"""A pixel is flat when every channel's range over its 3x3 window is at most this."""

MODE_RADIUS = 34
"""Colours of flat pixels nearer than this are one mode."""

OWN_RADIUS = 8
"""Only a pixel nearer than this to a mode speaks for itself; of the others the 3x3 median does."""

SURE_RADIUS = 16
"""A pixel whose 3x3 median is nearer than this to a mode is that mode's, on flat ground or not."""

MIN_AREA = 2e-4
"""Instances with a smaller share of the picture are dropped (the paper's theta_size)."""

_MIN_CORE_PIXELS = 4
_BIN_BITS = 4  # the histogram has 16 x 16 x 16 bins


@dataclass(frozen=True)
class DecodedInstances:
    """A decoded id map; per-instance entries are in the order of the ids 1..N, largest instance first.

    Args:
        ids: (H, W) uint16, 0 background.
        colors: (N, 3) uint8, the colour each instance was drawn in.
        confidence: (N,) float32 from 0 to 1: of the instance's pixels whose eight neighbours are in it too, the share
            that is flat. An object that was drawn as one solid colour has 1, a halo or a gradient little.
    """

    ids: NDArray[np.uint16]
    colors: NDArray[np.uint8]
    confidence: NDArray[np.float32]


def encode_instances(ids: NDArray[Any], colors: Mapping[int, Color], background: Color = BLACK) -> UInt8Image:
    """Draw the instances named in `colors`, each in its colour, over the background.

    Args:
        ids: (H, W) unsigned integers. Ids that `colors` does not name are drawn as background.
        colors: id to (r, g, b).

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: ids that are not unsigned integers, an id below 1, two equal colours.
    """
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "u":
        raise InputError(f"instance ids are {getattr(ids, 'dtype', type(ids).__name__)}: give unsigned integers")
    check_colors({**colors, "background": background})
    if any(instance_id < 1 for instance_id in colors):
        raise InputError(f"instance id {min(colors)}: ids start at 1, 0 is the background")
    table = np.empty((1 + max(int(ids.max(initial=0)), *colors, 0), 3), np.uint8)
    table[:] = background
    for instance_id, color in colors.items():
        table[instance_id] = color
    return np.take(table, ids.astype(np.intp), axis=0)


def decode_instances(rgb_u8: UInt8Image, background: Color = BLACK, method: Method = "modes") -> NDArray[np.uint16]:
    """Return the (H, W) uint16 id map that `decode_instances_scored` finds."""
    return decode_instances_scored(rgb_u8, background, method).ids


def decode_instances_scored(
    rgb_u8: UInt8Image, background: Color = BLACK, method: Method = "modes"
) -> DecodedInstances:
    """Find the instances in a picture whose colours are not known, only that of the background.

    Args:
        rgb_u8: (H, W, 3) uint8.
        method: "modes" finds the colours of flat regions and gives every pixel the nearest; an object that an occluder
            cuts in two stays one instance. "paper" is the flood fill of the paper's Appendix A, for comparison.

    Raises:
        InputError: not a picture, or an unknown method.
    """
    check_picture(rgb_u8)
    check_colors({"background": background})
    flat = _window_range(rgb_u8) <= FLAT_RANGE
    if method == "modes":
        regions = _mode_regions(rgb_u8, np.array(background, np.uint8))
    elif method == "paper":
        regions = paper_regions(rgb_u8, np.array(background, np.uint8))
    else:
        raise InputError(f"instance decoder {method!r} is not known; use 'modes' or 'paper'")
    return _describe(regions, rgb_u8, flat)


def _mode_regions(rgb_u8: UInt8Image, background: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return a map from 0 (background) to N by the nearest mode of the colours of flat pixels."""
    smooth = _median3(rgb_u8)
    flat = _window_range(smooth) <= FLAT_RANGE  # of the median: strong noise must not hide an object
    modes = _color_modes(smooth.reshape(-1, 3)[np.flatnonzero(flat)], background)
    min_pixels = max(1, MIN_AREA * flat.size)
    while True:
        regions = _assign(rgb_u8, smooth, modes, flat)
        area = np.bincount(regions.reshape(-1), minlength=len(modes))
        tiny = (area < min_pixels) & (np.arange(len(modes)) > 0)
        if not tiny.any():
            return regions
        modes = modes[~tiny]


def _assign(
    rgb_u8: UInt8Image, smooth: UInt8Image, modes: NDArray[np.uint8], flat: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Return the index of every pixel's mode: the nearest one, but on blends, where any colour may happen to be near.

    A blend takes the mode of the sure pixel around it whose mode is most like its colour. Ours: on pictures of 24
    instances blurred by 1 px this lifts F1 from 0.78, where knowing the palette ends as well, to 0.98.
    """
    regions = nearest_color(rgb_u8, modes)
    unlike = _squared_distance(rgb_u8, modes, regions) > OWN_RADIUS**2
    regions[unlike] = nearest_color(smooth, modes)[unlike]
    distance = _squared_distance(smooth, modes, regions)
    sure = ~unlike | (distance <= SURE_RADIUS**2) | (flat & (distance <= MODE_RADIUS**2))
    pixels, sources = similar_neighbours(smooth, modes[regions], ~sure, sure)
    regions.reshape(-1)[pixels] = regions.reshape(-1)[sources]
    return regions


def _squared_distance(rgb_u8: UInt8Image, colors: NDArray[np.uint8], index: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Return (H, W) int32: squared distance of every pixel from the colour it is assigned to."""
    total = np.zeros(index.shape, np.int32)
    for channel in range(3):
        difference = np.take(colors[:, channel].astype(np.int32), index, mode="clip")
        difference -= rgb_u8[..., channel]
        difference *= difference
        total += difference
    return total


def _color_modes(pixels: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (1 + N, 3) colours, the background first: peaks of the colour histogram, merged within `MODE_RADIUS`."""
    bins = (pixels >> (8 - _BIN_BITS)).astype(np.intp)
    key = (bins[:, 0] << 2 * _BIN_BITS) | (bins[:, 1] << _BIN_BITS) | bins[:, 2]
    count = np.bincount(key, minlength=1 << 3 * _BIN_BITS)
    mean = np.stack([np.bincount(key, pixels[:, c], minlength=len(count)) for c in range(3)], 1) / np.maximum(
        count, 1
    ).reshape(-1, 1)
    peaks = [background.astype(np.float64)]
    members: list[list[int]] = [[]]
    for peak in np.argsort(-count, kind="stable"):
        if count[peak] < _MIN_CORE_PIXELS:
            break
        distance = np.linalg.norm(np.array(peaks) - mean[peak], axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] <= MODE_RADIUS:
            members[nearest].append(peak)
        else:
            peaks.append(mean[peak])
            members.append([peak])
    colors = [np.average(mean[bins_of], axis=0, weights=count[bins_of]) for bins_of in members[1:]]
    return np.rint(np.array([background, *colors])).astype(np.uint8)


def _describe(regions: NDArray[Any], rgb_u8: UInt8Image, flat: NDArray[np.bool_]) -> DecodedInstances:
    """Number the regions by area and measure them."""
    count = int(regions.max(initial=0)) + 1
    area = np.bincount(regions.reshape(-1), minlength=count)
    area[0] = 0
    order = [region for region in np.argsort(-area, kind="stable") if area[region]]
    number = np.zeros(count, np.uint16)
    number[order] = np.arange(1, len(order) + 1)
    ids = number[regions]
    inner = interior(ids)
    inside = np.bincount(ids[inner], minlength=len(order) + 1)[1:]
    solid = np.bincount(ids[inner & flat], minlength=len(order) + 1)[1:]
    colors = _median_colors(rgb_u8, ids, len(order))
    confidence = (solid / np.maximum(inside, 1)).astype(np.float32)
    return DecodedInstances(ids, colors, confidence)


def _median_colors(rgb_u8: UInt8Image, ids: NDArray[np.uint16], count: int) -> NDArray[np.uint8]:
    """Return the (N, 3) per-channel median colour of every id."""
    colors = np.zeros((count, 3), np.uint8)
    for channel in range(3):
        key = ids.astype(np.intp) * 256 + rgb_u8[..., channel]
        histogram = np.bincount(key.reshape(-1), minlength=256 * (count + 1)).reshape(-1, 256)[1:]
        cumulative = histogram.cumsum(axis=1)
        colors[:, channel] = (cumulative * 2 >= cumulative[:, -1:]).argmax(axis=1)
    return colors


def interior(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (H, W) bool: all eight neighbours have the pixel's own id; beyond the border counts as the same."""
    same_row = np.ones(ids.shape, bool)
    same_row[:, 1:] &= ids[:, 1:] == ids[:, :-1]
    same_row[:, :-1] &= ids[:, :-1] == ids[:, 1:]
    inner = same_row.copy()
    same_column = ids[1:] == ids[:-1]
    inner[1:] &= same_column & same_row[:-1]
    inner[:-1] &= same_column & same_row[1:]
    return inner


def _window_range(rgb_u8: UInt8Image) -> NDArray[np.uint8]:
    """Return (H, W) uint8: the largest range of a channel over the 3x3 window."""
    padded = np.pad(rgb_u8, ((1, 1), (1, 1), (0, 0)), mode="edge")
    highest = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    lowest = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    highest = np.maximum(np.maximum(highest[:, :-2], highest[:, 1:-1]), highest[:, 2:])
    lowest = np.minimum(np.minimum(lowest[:, :-2], lowest[:, 1:-1]), lowest[:, 2:])
    span = highest - lowest
    return np.maximum(np.maximum(span[..., 0], span[..., 1]), span[..., 2])


def _median3(rgb_u8: UInt8Image) -> UInt8Image:
    """Return the 3x3 median of every channel: with sorted columns, that of (max low, median middle, min high)."""
    padded = np.pad(rgb_u8, ((1, 1), (1, 1), (0, 0)), mode="edge")
    low, mid, high = _sort3(padded[:-2], padded[1:-1], padded[2:])
    lows = np.maximum(np.maximum(low[:, :-2], low[:, 1:-1]), low[:, 2:])
    mids = _sort3(mid[:, :-2], mid[:, 1:-1], mid[:, 2:])[1]
    highs = np.minimum(np.minimum(high[:, :-2], high[:, 1:-1]), high[:, 2:])
    return _sort3(lows, mids, highs)[1]


def _sort3(
    a: NDArray[np.uint8], b: NDArray[np.uint8], c: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    middle = np.minimum(high, c)
    return np.minimum(low, middle), np.maximum(low, middle), np.maximum(high, c)
