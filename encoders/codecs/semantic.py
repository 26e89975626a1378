"""Label maps and their pictures: every class has one colour, stated in a legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colors import check_colors, check_picture, nearest_color
from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.sample import InputError, UInt8Image

Legend = Mapping[str, Color]
"""Class name to (r, g, b). Its order gives the labels: 0 is the first class."""

NO_CLASS = -1
"""The label of a pixel that belongs to no class of the legend."""


def encode_semantic(labels: NDArray[Any], legend: Legend, background: Color | None = None) -> UInt8Image:
    """Draw a label map in the colours of a legend.

    Args:
        labels: (H, W) integers: positions in the legend, or -1 for pixels of no class.
        background: the colour of pixels of no class; None when there are none.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: a label that is not in the legend, -1 without a background colour, two equal colours.

    Example:
        >>> import numpy as np
        >>> legend = {"road": (128, 64, 128), "car": (0, 0, 255)}
        >>> cavendish.encode_semantic(np.array([[0, 1]]), legend).tolist()
        [[[128, 64, 128], [0, 0, 255]]]
    """
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {getattr(labels, 'dtype', type(labels).__name__)}: give an array of integers")
    colors = _legend_colors(legend, background)
    lowest = 0 if background is None else NO_CLASS
    if labels.size and (labels.min() < lowest or labels.max() >= len(legend)):
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}, the legend has 0 to {len(legend) - 1}"
            + ("; give a background colour to draw -1" if background is None else "")
        )
    return np.take(colors, labels.astype(np.intp) % len(colors), axis=0)  # -1 is the last colour, the background


def decode_semantic(rgb_u8: UInt8Image, legend: Legend, background: Color | None = None) -> NDArray[np.int16]:
    """Read a label map: the nearest colour of the legend for every pixel; ties go to the class named first.

    Args:
        rgb_u8: (H, W, 3) uint8.
        background: a further colour, decoded as -1 (no class). None: every pixel gets a class.

    Returns:
        (H, W) int16 positions in the legend, -1 background.

    Raises:
        InputError: not a picture, an empty legend, two equal colours.

    Example:
        >>> import numpy as np
        >>> legend = {"road": (128, 64, 128), "car": (0, 0, 255)}
        >>> drawn = np.array([[[120, 70, 130], [10, 0, 240]]], np.uint8)
        >>> cavendish.decode_semantic(drawn, legend).tolist()
        [[0, 1]]
    """
    check_picture(rgb_u8)
    colors = _legend_colors(legend, background)
    index = nearest_color(rgb_u8, colors)
    labels = index.astype(np.int16)
    labels[index == len(legend)] = NO_CLASS
    return labels


def _legend_colors(legend: Legend, background: Color | None) -> NDArray[np.uint8]:
    """Return (K, 3) colours, the background last if there is one."""
    if not legend:
        raise InputError("the legend is empty: name at least one class and its colour")
    return check_colors(legend if background is None else {**legend, ("background",): background})
