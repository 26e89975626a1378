"""The paper's instance decoder: colour-seeded flood fill and the merging of what occluders cut (Appendix A).

Source: "Image Generators are Generalist Vision Learners", arXiv 2604.20329v3, Appendix A. The order of the seeds is not
stated there; here it is raster order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image

TAU = 14.0
"""RGB distance within which a pixel belongs to its seed, a pixel to the background, and two components together."""

MIN_AREA = 2e-4
"""Smallest component, as a share of the picture (theta_size)."""

MIN_CORE = 0.1
"""Smallest share of a component that survives a 3x3 erosion (theta_erosion); halos have less."""

MAX_SPREAD = 5.0
"""Two components merge when the box around both is at most this many times their area (gamma)."""


def paper_regions(rgb_u8: UInt8Image, background: NDArray[np.uint8], tau: float = TAU) -> NDArray[np.uint16]:
    """Return (H, W) uint16 regions, 0 background, by the five steps of Appendix A.

    Args:
        rgb_u8: (H, W, 3) uint8.
        background: (3,) uint8.
        tau: the paper's 14; 28 survives noise better.
    """
    components = _flood(rgb_u8, background, tau)
    count = int(components.max(initial=0)) + 1
    area = np.bincount(components.reshape(-1), minlength=count)
    core = np.bincount(components[_eroded(components)], minlength=count)
    keep = (area >= MIN_AREA * components.size) & (core >= MIN_CORE * area)
    keep[0] = False
    group = np.zeros(count, np.uint16)
    kept = np.flatnonzero(keep)
    group[kept] = _merge(components, rgb_u8, kept, area[kept], tau)
    return group[components]


def _flood(rgb_u8: UInt8Image, background: NDArray[np.uint8], tau: float) -> NDArray[np.int32]:
    """Label 8-connected pixels within `tau` of their seed's colour; the next seed is the first pixel not yet taken.

    Which pixels a seed reaches depends on what earlier seeds took, so this is a plain loop over bytes.
    """
    height, width = rgb_u8.shape[:2]
    stride = width + 2  # a border of taken pixels spares the bounds checks
    limit = tau * tau
    difference = rgb_u8.astype(np.int32) - background
    taken_map = np.ones((height + 2, stride), np.uint8)
    taken_map[1:-1, 1:-1] = (difference**2).sum(axis=-1) <= limit
    padded = np.pad(rgb_u8, ((1, 1), (1, 1), (0, 0)))
    red, green, blue = (padded[..., channel].tobytes() for channel in range(3))
    taken = bytearray(taken_map.tobytes())
    labels = np.zeros((height + 2) * stride, np.int32)
    around = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    square = [n * n for n in range(256)] + [n * n for n in range(255, 0, -1)]  # a negative index counts from the end
    label = 0
    seed = taken.find(0)
    while seed >= 0:
        label += 1
        r, g, b = red[seed], green[seed], blue[seed]
        taken[seed] = 1
        component = [seed]
        for pixel in component:  # grows while it is walked
            for step in around:
                other = pixel + step
                if not taken[other] and (
                    square[red[other] - r] + square[green[other] - g] + square[blue[other] - b] <= limit
                ):
                    taken[other] = 1
                    component.append(other)
        labels[component] = label
        seed = taken.find(0, seed)
    return labels.reshape(height + 2, stride)[1:-1, 1:-1]


def _eroded(components: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return (H, W) bool: the whole 3x3 window is in the same component; beyond the border is not."""
    padded = np.pad(components, 1, constant_values=-1)
    eroded = np.ones(components.shape, bool)
    height, width = components.shape
    for dy in range(3):
        for dx in range(3):
            eroded &= padded[dy : dy + height, dx : dx + width] == components
    return eroded


def _merge(
    components: NDArray[np.int32], rgb_u8: UInt8Image, kept: NDArray[np.intp], area: NDArray[np.intp], tau: float
) -> NDArray[np.uint16]:
    """Return a group number from 1 for every kept component: similar mean colours in a box they fill well are one."""
    position = np.full(int(components.max(initial=0)) + 1, -1)
    position[kept] = np.arange(len(kept))
    where = position[components]
    y, x = np.nonzero(where >= 0)
    index = where[y, x]
    box = np.empty((len(kept), 4), np.int64)
    box[:, :2], box[:, 2:] = np.iinfo(np.int64).max, -1
    for column, values, ufunc in (
        (0, x, np.minimum),
        (1, y, np.minimum),
        (2, x + 1, np.maximum),
        (3, y + 1, np.maximum),
    ):
        ufunc.at(box[:, column], index, values)
    total = np.stack([np.bincount(index, rgb_u8[y, x, c], minlength=len(kept)) for c in range(3)], 1)
    area = area.astype(np.int64)
    group = np.arange(len(kept))
    everyone = np.arange(len(kept))
    grew = True
    while grew:  # a group that has grown may now reach others
        grew = False
        for first in everyone:
            while group[first] == first:
                others = np.flatnonzero((group == everyone) & (everyone != first))
                mean = total[others] / area[others, None] - total[first] / area[first]
                low, high = np.minimum(box[others, :2], box[first, :2]), np.maximum(box[others, 2:], box[first, 2:])
                fills = (high - low).prod(axis=1) <= MAX_SPREAD * (area[others] + area[first])
                match = others[fills & ((mean**2).sum(axis=1) <= tau * tau)]
                if not len(match):
                    break
                into, gone = sorted((int(first), int(match[0])))
                group[group == gone] = into
                total[into] += total[gone]
                area[into] += area[gone]
                box[into, :2] = np.minimum(box[into, :2], box[gone, :2])
                box[into, 2:] = np.maximum(box[into, 2:], box[gone, 2:])
                grew = True
    return (np.unique(group, return_inverse=True)[1] + 1).astype(np.uint16)
