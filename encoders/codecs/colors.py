"""Pictures and sets of colours: the checks every codec makes, and the nearest colour of a set for every pixel."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image

MAX_COLORS = 1024

_INDEX_BITS = 10  # of a packed key; what is above holds |c|^2 - 2 p.c, at most 19 bits and a sign
_BLOCK = 1 << 15
_CELL_BITS = 5  # the colour cube in 32 x 32 x 32 cells of 8 levels
_WINDOW_RADIUS = 3
_AMBIGUOUS = np.uint16(0xFFFF)


def check_picture(rgb_u8: NDArray[Any]) -> None:
    """Raise InputError unless `rgb_u8` is an (H, W, 3) uint8 array."""
    if not isinstance(rgb_u8, np.ndarray) or rgb_u8.dtype != np.uint8 or rgb_u8.ndim != 3 or rgb_u8.shape[2] != 3:
        found = f"{rgb_u8.dtype} {rgb_u8.shape}" if isinstance(rgb_u8, np.ndarray) else type(rgb_u8).__name__
        raise InputError(f"picture is {found}: give (height, width, 3) uint8, 0 to 255")


def check_colors(colors: Mapping[Any, Sequence[int]]) -> NDArray[np.uint8]:
    """Return the (K, 3) uint8 colours of a mapping from names to colours, in its order.

    Raises:
        InputError: a colour is not three integers from 0 to 255, two are the same, or there are more than 1024.
    """
    if len(colors) > MAX_COLORS:
        raise InputError(f"{len(colors)} colours: at most {MAX_COLORS} can be decoded")
    names: dict[tuple[int, ...], Any] = {}
    for name, color in colors.items():
        values = tuple(color)
        if len(values) != 3 or not all(isinstance(v, int | np.integer) and 0 <= v <= 255 for v in values):
            raise InputError(f"colour of {name!r} is {values}: give three integers from 0 to 255")
        if values in names:
            raise InputError(f"{name!r} and {names[values]!r} have the same colour {values}: they cannot be told apart")
        names[values] = name
    return np.array(list(names), np.uint8).reshape(-1, 3)


def nearest_color(rgb_u8: UInt8Image, colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the index of the nearest of (K, 3) colours for every pixel, exactly; ties go to the lower index.

    A table over 32^3 cells of the colour cube answers for cells that lie wholly inside one colour's region; only pixels
    of the other cells are compared with every colour.
    """
    pixels = rgb_u8.reshape(-1, 3)
    if len(pixels) < 1 << 3 * _CELL_BITS:
        index = nearest_two(pixels, colors)[0]
    else:
        index = _nearest_by_cell(pixels, colors)
    return index.reshape(rgb_u8.shape[:-1])


def nearest_two(
    pixels: NDArray[np.uint8], colors: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.int32]]:
    """Compare every pixel with every colour.

    Args:
        pixels: (N, 3) uint8.
        colors: (K, 3) uint8, K from 1 to 1024.

    Returns:
        Per pixel the index of the nearest colour and the squared distances to the nearest and the second nearest
        (the largest int32 when there is only one colour).
    """
    count = len(pixels)
    index = np.empty(count, np.uint16)
    nearest = np.empty(count, np.int32)
    second = np.empty(count, np.int32)
    weights = _key_weights(colors)
    scratch = np.empty((7, min(_BLOCK, count)), np.int32)
    for start in range(0, count, _BLOCK):
        block = pixels[start : start + _BLOCK]
        stop = start + len(block)
        r, g, b, key, term, best, runner_up = scratch[:, : len(block)]
        r[...], g[...], b[...] = block[:, 0], block[:, 1], block[:, 2]
        best.fill(np.iinfo(np.int32).max)
        runner_up.fill(np.iinfo(np.int32).max)
        for weight_r, weight_g, weight_b, constant in weights:
            np.multiply(r, weight_r, out=key)
            key += np.multiply(g, weight_g, out=term)
            key += np.multiply(b, weight_b, out=term)
            key += constant
            np.maximum(best, key, out=term)
            np.minimum(runner_up, term, out=runner_up)
            np.minimum(best, key, out=best)
        index[start:stop] = best & (MAX_COLORS - 1)
        length = r * r + g * g + b * b
        nearest[start:stop] = (best >> _INDEX_BITS) + length
        second[start:stop] = (runner_up >> _INDEX_BITS) + length
    if len(colors) == 1:
        second.fill(np.iinfo(np.int32).max)
    return index, nearest, second


def _key_weights(colors: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Return per colour c the four integers that make `(|c|^2 - 2 p.c) << 10 | index` of a pixel p."""
    wide = colors.astype(np.int64)
    scale = 1 << _INDEX_BITS
    return [(*(-2 * scale * color).tolist(), int((color**2).sum()) * scale + index) for index, color in enumerate(wide)]


def _nearest_by_cell(pixels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
    cells = _cell_table(colors)
    index = np.empty(len(pixels), np.uint16)
    shift = 8 - _CELL_BITS
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start : start + _BLOCK]
        part = index[start : start + len(block)]
        cell = (block[:, 0] >> shift).astype(np.intp)
        for channel in (1, 2):
            cell <<= _CELL_BITS
            cell += block[:, channel] >> shift
        np.take(cells, cell, out=part, mode="clip")
        unsure = np.flatnonzero(part == _AMBIGUOUS)
        if len(unsure):
            part[unsure] = nearest_two(block[unsure], colors)[0]
    return index


def _cell_table(colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return per cell the index of the colour nearest to all of its points, `_AMBIGUOUS` where that is not sure.

    A point moves at most `radius` from the cell's centre, so no distance changes by more than that.
    """
    size = 1 << (8 - _CELL_BITS)
    center = np.arange(size // 2, 256, size, dtype=np.uint8)
    centers = np.stack(np.meshgrid(center, center, center, indexing="ij"), -1).reshape(-1, 3)
    table, nearest, second = nearest_two(centers, colors)
    radius = np.sqrt(3) * size / 2
    table[np.sqrt(second) - np.sqrt(nearest) <= 2 * radius] = _AMBIGUOUS
    return table


def similar_neighbours(
    rgb_u8: UInt8Image, reference_u8: UInt8Image, asking: NDArray[np.bool_], answering: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find for pixels the pixel of the 7x7 window around them whose reference colour is most like their own.

    Args:
        rgb_u8: (H, W, 3) uint8, the colours of the pixels that ask.
        reference_u8: (H, W, 3) uint8, the colours of the pixels that answer.
        asking: (H, W) bool, the pixels to find one for.
        answering: (H, W) bool, the pixels that may be found. Of equally similar ones the nearest is.

    Returns:
        Flat positions of the asking pixels for which there is an answer, and of the answers.
    """
    width = asking.shape[1]
    margin = _WINDOW_RADIUS
    stride = width + 2 * margin
    frame = ((margin, margin), (margin, margin))
    answers = np.pad(answering, frame).reshape(-1)
    reference = np.pad(reference_u8, (*frame, (0, 0))).reshape(-1, 3)
    all_pixels = np.flatnonzero(asking)
    all_sources = np.empty(len(all_pixels), np.intp)
    offsets = sorted(itertools.product(range(-margin, margin + 1), repeat=2), key=lambda o: (o[0] ** 2 + o[1] ** 2, o))
    for start in range(0, len(all_pixels), _BLOCK):
        pixels = all_pixels[start : start + _BLOCK]
        own = rgb_u8.reshape(-1, 3)[pixels].astype(np.int32)
        padded = (pixels // width + margin) * stride + pixels % width + margin
        best = np.full(len(pixels), np.iinfo(np.int32).max, np.int32)
        source = np.full(len(pixels), -1, np.intp)
        for dy, dx in offsets[1:]:
            neighbour = padded + (dy * stride + dx)
            usable = np.flatnonzero(answers[neighbour])
            difference = ((reference[neighbour[usable]] - own[usable]) ** 2).sum(axis=1, dtype=np.int32)
            better = difference < best[usable]
            best[usable[better]] = difference[better]
            source[usable[better]] = pixels[usable[better]] + (dy * width + dx)
        all_sources[start : start + len(pixels)] = source
    found = all_sources >= 0
    return all_pixels[found], all_sources[found]
