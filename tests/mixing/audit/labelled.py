"""Label maps with shapes that tell: partitions and reliefs from smooth noise, and plain ones that must not accuse."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def partition(seed: int, height: int = 96, width: int = 128, parts: int = 6) -> NDArray[np.uint16]:
    """Ids 0 to parts - 1 of irregular regions."""
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 9) for _ in range(parts)]
    return np.argmax(fields, axis=0).astype(np.uint16)


def relief(seed: int, height: int = 96, width: int = 128) -> NDArray[np.float32]:
    """Metres: blocks and bumps in front of a slope."""
    rng = np.random.default_rng([seed, 1])
    field = sum(
        cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma) * sigma for sigma in (3.0, 7.0, 15.0)
    )
    slope = np.linspace(0, 0.4, height)[:, None]
    return np.exp(1.2 + 0.5 * field + slope + 0.3 * (partition(seed, height, width) % 2)).astype(np.float32)


def plain_shapes(height: int = 96, width: int = 128) -> dict[str, NDArray[np.uint16]]:
    """What chance repeats: nothing, a centred square, a disc, halves, a quarter, a road, a thin frame."""
    v, u = np.mgrid[:height, :width]
    x, y = u / width, v / height
    masks = {
        "empty": np.zeros_like(x, bool),
        "square": (abs(x - 0.5) < 0.2) & (abs(y - 0.5) < 0.2),
        "disc": (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09,
        "ellipse": ((x - 0.4) / 0.3) ** 2 + ((y - 0.6) / 0.15) ** 2 < 1,
        "sky": y < 0.4,
        "side": x + 0.3 * y < 0.5,
        "quarter": (x < 0.5) & (y < 0.5),
        "road": (y > 0.5) & (abs(x - 0.5) < (y - 0.4)),
        "everything": np.ones_like(x, bool),
    }
    return {name: mask.astype(np.uint16) for name, mask in masks.items()}
