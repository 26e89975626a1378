"""Tiny data sets written in exactly the public on-disk formats, with known content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

rng = np.random.default_rng(7)


def write_picture(path: Path, height: int, width: int) -> np.ndarray:
    """Write a smooth RGB picture (PNG exact, JPEG close) and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([rows * 255 // height, columns * 255 // width, 0 * rows + 40], axis=-1).astype(np.uint8)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return rgb


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an array as PNG in its own depth; (H, W, 3) is RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's compressed run lengths as annotation files hold them."""
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in runs["size"]], "counts": runs["counts"].decode()}


def box_mask(height: int, width: int, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask
