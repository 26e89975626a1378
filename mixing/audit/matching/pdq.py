"""PDQ, the 256-bit perceptual hash of ThreatExchange, with its eight dihedral variants.

Written here because the published binding is source only (it needs a C++ compiler on every machine); the tests hold the
two together bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image

MAX_SIDE_PX = 512
"""Hashing at 256 px instead loses 5 (flip) to 80 (half turn) of 100 turned copies at distance 31."""

_GRID = 64
_BITS = 16
_FREQUENCIES = np.arange(1, _BITS + 1)[:, None] * (2 * np.arange(_GRID)[None, :] + 1)
_DCT = (math.sqrt(2 / _GRID) * np.cos(math.pi / 2 / _GRID * _FREQUENCIES)).astype(np.float32)
_SIGNS = np.where(np.arange(1, _BITS + 1) % 2 == 1, -1.0, 1.0).astype(np.float32)
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)

DIHEDRAL = tuple((transpose, flip_x, flip_y) for transpose in (0, 1) for flip_x in (0, 1) for flip_y in (0, 1))
"""Variant v of `PdqHash.variants`: the picture flipped in x, then in y, then transposed, where its entries are 1."""


@dataclass(frozen=True)
class PdqHash:
    """`variants` (8, 32) uint8: packed bits of the picture and its turns, [0] as it is; `quality` 0 to 100."""

    variants: NDArray[np.uint8]
    quality: int


def pdq_hash(image: UInt8Image) -> PdqHash:
    """Hash a picture.

    Args:
        image: (H, W, 3) uint8 RGB of any size; sides over 512 px are reduced first by area averaging.

    Source: facebook/ThreatExchange, pdq/cpp/hashing (Jarosz filter, decimation, DCT, median); the variants follow from
        the signs of the DCT under reflection. Quality under 50 means too little structure for the hash to mean much.
    """
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE_PX:
        image = cv2.resize(image, (min(width, MAX_SIDE_PX), min(height, MAX_SIDE_PX)), interpolation=cv2.INTER_AREA)
    buffer = _decimate(cv2.transform(image.astype(np.float32), _LUMA))
    coefficients = _DCT @ buffer @ _DCT.T
    variants = [_pack(_turn(coefficients, *turn)) for turn in DIHEDRAL]
    return PdqHash(np.stack(variants), _quality(buffer))


def hamming(query: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Count differing bits of one (32,) code against (N, 32) codes; returns (N,)."""
    if not len(codes):
        return np.zeros(0, np.int32)
    # with K = 1 and one reference, OpenCV's brute-force matcher is a popcount in machine code
    distances, _ = cv2.batchDistance(codes, query[None], cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
    return distances[:, 0]


def _decimate(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur by two passes of a box as wide as 1/128 of the side, then take the centres of a 64 x 64 grid."""
    height, width = luma.shape
    blurred = luma
    for _ in range(2):
        blurred = _box(_box(blurred, width, 1), height, 0)
    rows = ((np.arange(_GRID) + 0.5) * height / _GRID).astype(np.intp)
    columns = ((np.arange(_GRID) + 0.5) * width / _GRID).astype(np.intp)
    return blurred[np.ix_(rows, columns)]


def _box(values: NDArray[np.float32], length: int, axis: int) -> NDArray[np.float32]:
    """Average along one axis over the window of the reference, which at the ends averages what is there."""
    window = min((length + 2 * _GRID - 1) // (2 * _GRID), length)
    if window == 1:
        return values
    half = (window + 2) // 2
    left, right = window - half, half - 1
    size, anchor = ((window, 1), (left, 0)) if axis == 1 else ((1, window), (0, left))
    total = np.asarray(
        cv2.boxFilter(values, cv2.CV_32F, size, anchor=anchor, normalize=False, borderType=cv2.BORDER_CONSTANT),
        np.float32,
    )
    position = np.arange(length)
    count = np.minimum(position + right, length - 1) - np.maximum(position - left, 0) + 1
    shape = (1, length) if axis == 1 else (length, 1)
    return total / count.astype(np.float32).reshape(shape)


def _turn(coefficients: NDArray[np.float32], transpose: int, flip_x: int, flip_y: int) -> NDArray[np.float32]:
    turned = coefficients * _SIGNS[None, :] if flip_x else coefficients
    turned = turned * _SIGNS[:, None] if flip_y else turned
    return turned.T if transpose else turned


def _pack(coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
    flat = coefficients.reshape(-1)
    median = np.partition(flat, flat.size // 2 - 1)[
        flat.size // 2 - 1
    ]  # the lower of the two, as Torben's method gives
    return np.packbits((flat > median)[::-1])  # bit 255 first, as the reference prints it


def _quality(buffer: NDArray[np.float32]) -> int:
    steps = [np.abs(np.trunc(np.diff(buffer, axis=axis) * 100 / 255)) for axis in (0, 1)]
    return min(int(sum(step.sum() for step in steps) / 90), 100)
