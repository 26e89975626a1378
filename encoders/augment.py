"""Resize a Sample with all its targets. Numpy only and exact to the last bit.

The image is averaged; depth, normals and ids take the nearest pixel center, since an average of two depths or ids is
neither. Metric geometry does not change, only the camera's intrinsics do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, Instance, Sample, UInt8Image


def resize_sample(sample: Sample, height: int, width: int) -> Sample:
    """Return the sample at another size.

    Going down the picture is averaged over areas, going up it is interpolated linearly; depth, normals and ids are
    those of the nearest pixel centre. Instances of which no pixel remains are dropped.

    Raises:
        InputError: a size below 1, or instances without an id map.
    """
    if height < 1 or width < 1:
        raise InputError(f"{sample.key}: cannot resize to {width} x {height}; both must be at least 1")
    old_height, old_width = sample.image.shape[:2]
    if (height, width) == (old_height, old_width):
        return sample
    rows, columns = _nearest_centers(old_height, height), _nearest_centers(old_width, width)
    x_scale, y_scale = width / old_width, height / old_height
    camera = sample.camera and replace(
        sample.camera,
        width=width,
        height=height,
        fx=sample.camera.fx * x_scale,
        fy=sample.camera.fy * y_scale,
        cx=sample.camera.cx * x_scale,
        cy=sample.camera.cy * y_scale,
    )
    resized = replace(
        sample,
        image=resize_image(sample.image, height, width),
        depth_m=_pick(sample.depth_m, rows, columns),
        normals=_pick(sample.normals, rows, columns),
        geometric_normals=_pick(sample.geometric_normals, rows, columns),
        albedo=None if sample.albedo is None else resize_image(sample.albedo, height, width),
        weight=_pick(sample.weight, rows, columns),
        instance_ids=_pick(sample.instance_ids, rows, columns),
        camera=camera,
        edit=sample.edit and replace(sample.edit, image=resize_image(sample.edit.image, height, width)),
    )
    return replace(resized, instances=_visible_instances(resized))


def resize_image(image: UInt8Image, height: int, width: int) -> UInt8Image:
    """Resize (H, W, C) uint8: area averages going down, linear interpolation between pixel centres going up.

    Sums are of integers and exact; the quotient is rounded once, half up. So the result is the same on any machine.

    Raises:
        InputError: the picture is so large that the sums would not be exact.
    """
    (down, row_scale), (across, column_scale) = (
        _resize_weights(old, new) for old, new in zip(image.shape[:2], (height, width), strict=True)
    )
    largest = 255 * row_scale * column_scale
    if largest >= 2**53:
        raise InputError(f"cannot resize {image.shape[1]} x {image.shape[0]} to {width} x {height} exactly: too large")
    total = _weighted(_weighted(image, down, 0, largest), across, 1, largest)
    return np.floor(total / (row_scale * column_scale) + 0.5).astype(np.uint8)


Taps = list[tuple[NDArray[np.intp], NDArray[np.int64]]]
"""For the first, second, ... input of every output: its position and its integer weight."""


def _resize_weights(old: int, new: int) -> tuple[Taps, int]:
    """Return the taps of every output pixel along one axis, and the sum of their weights."""
    target = np.arange(new)
    if new == old:
        return [(target, np.ones(new, np.int64))], 1
    if new > old:  # linear: centre (j + 1/2) old / new - 1/2, in units of 1 / (2 new)
        position = np.clip((2 * target + 1) * old - new, 0, 2 * new * (old - 1))
        first, rest = np.divmod(position, 2 * new)
        return [(first, 2 * new - rest), (np.minimum(first + 1, old - 1), rest)], 2 * new
    taps: Taps = []
    start, stop = target * old, (target + 1) * old  # the pixel's interval, in units of 1 / new of an input pixel
    for step in range(-(-old // new) + 1):
        source = start // new + step
        covered = np.minimum(stop, (source + 1) * new) - np.maximum(start, source * new)
        taps.append((np.minimum(source, old - 1), np.maximum(covered, 0)))
    return taps, old


def _weighted(values: NDArray[Any], taps: Taps, axis: int, largest: int) -> NDArray[Any]:
    """Return the weighted sums along an axis, in the narrowest type that holds `largest` exactly."""
    dtype = np.int32 if largest < 2**31 else np.float64
    total: NDArray[Any] | None = None
    for source, weight in taps:
        term = np.take(values, source, axis=axis).astype(dtype)
        term *= weight.astype(dtype).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        if total is None:
            total = term
        else:
            total += term
    assert total is not None
    return total


def _nearest_centers(old: int, new: int) -> NDArray[np.intp]:
    """Return for each of `new` pixels which of the `old` ones its centre falls in."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _pick(array: NDArray[Any] | None, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Any] | None:
    return None if array is None else array[rows[:, None], columns]


def _visible_instances(sample: Sample) -> tuple[Instance, ...]:
    """Return the instances that have pixels in the id map, measured anew."""
    if not sample.instances:
        return ()
    if sample.instance_ids is None:
        raise InputError(f"{sample.key}: has instances but no instance_ids, so their boxes cannot follow")
    ids = sample.instance_ids
    visible = []
    for instance in sample.instances:
        mask = ids == instance.id
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            visible.append(replace(instance, box=box, visible_pixels=int(mask.sum())))
    return tuple(visible)
