"""COCO segmentations (polygons, compressed and uncompressed run lengths) to masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import MAX_PIXELS
from cavendish.trainer.evaluation.benchmarks.files import ODD


def decode_segmentation(segmentation: Any, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """Return the (height, width) bool mask of one COCO segmentation; several polygons are joined.

    Raises:
        InputError: not a COCO segmentation, or of another size; the message starts with `where`.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"{where}: size {width}x{height} is not between 1 and {MAX_PIXELS} pixels")
    if not segmentation:
        return np.zeros((height, width), bool)
    try:
        if isinstance(segmentation, dict):
            if [int(v) for v in segmentation["size"]] != [height, width]:
                raise InputError(f"{where}: run lengths of {segmentation['size']}, the picture is [{height}, {width}]")
            runs = _checked_runs(segmentation, height, width, where)
        elif isinstance(segmentation[0], dict):
            masks = [decode_segmentation(part, height, width, where) for part in segmentation]
            return np.logical_or.reduce(masks)
        else:
            polygons = [_checked_polygon(polygon, height, width) for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                return np.zeros((height, width), bool)
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return coco_mask.decode(runs).astype(bool)
    except InputError:
        raise
    except ODD as error:
        raise InputError(f"{where}: not a COCO segmentation: {error}") from None


def _checked_polygon(polygon: Any, height: int, width: int) -> list[float]:
    """Return the numbers of a polygon near the picture: pycocotools' C code allocates by its outline's length."""
    numbers = np.array([float(v) for v in polygon], np.float64)
    if len(numbers) % 2 or not np.isfinite(numbers).all() or np.abs(numbers).max() > 3 * max(height, width) + 100:
        raise ValueError("a polygon that is not x, y pairs in or near the picture")
    corners = numbers.reshape(-1, 2)
    if np.abs(corners - np.roll(corners, 1, axis=0)).sum() > MAX_PIXELS:
        raise ValueError(f"a polygon with an outline of over {MAX_PIXELS} pixels")
    return numbers.tolist()


def _checked_runs(segmentation: dict[str, Any], height: int, width: int, where: str) -> dict[str, Any]:
    """Return compressed run lengths whose lengths add up to the picture: pycocotools' C code trusts them blindly."""
    counts = segmentation["counts"]
    if not isinstance(counts, list | str | bytes):
        raise ValueError(f"counts of kind {type(counts).__name__}")
    lengths = (
        [int(v) for v in counts]
        if isinstance(counts, list)
        else _unpack(counts.encode("ascii") if isinstance(counts, str) else counts)
    )
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise InputError(f"{where}: run lengths add up to {sum(lengths)}, the picture has {height * width} pixels")
    if isinstance(counts, list):
        return dict(coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width))
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def _unpack(counts: bytes) -> list[int]:
    """Decode COCO's LEB128-like string of run lengths; from the fourth on each is a difference to two before it."""
    lengths: list[int] = []
    position = 0
    while position < len(counts):
        value, shift, more = 0, 0, True
        while more:
            code = counts[position] - 48
            if not 0 <= code < 64:
                raise ValueError(f"byte {counts[position]} in run lengths")
            value |= (code & 0x1F) << (5 * shift)
            more = bool(code & 0x20)
            position, shift = position + 1, shift + 1
            if not more and code & 0x10:
                value |= -1 << (5 * shift)
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
    return lengths
