"""Resize, crop and mirror a whole Sample so that every target stays right. Numpy only and exact to the last bit.

The picture is averaged; depth, normals and ids take the nearest pixel centre, since an average of two depths or ids is
neither. Metric geometry does not change: a resize or crop changes the camera's intrinsics, a mirror image negates x.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, Instance, Sample, UInt8Image

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, half open."""

_SIDE_WORD = re.compile(
    r"\b(?:(?:(counter|anti)-?)?(clockwise)|(left|right)((?:[ -]?most|[ -]?hand(?:ed)?|wards?)?))\b", re.IGNORECASE
)
_NOT_A_SIDE = re.compile(
    r"(?<!\bthe )(?<!\bfar )\bright (?:behind|above|below|beneath|under(?:neath)?|beside|next|near|in|at|on top|now"
    r"|away|here|there|after|before|up|down|through|into)\b"
    r"|\bright[ -](?:angled?|angles|triangles?)\b|\ball right\b"
    r"|\bleft[ -]?(?:overs?|behind|alone|open|out|empty|unattended)\b"
    r"|\b(?:has|have|had|been|be|what is|all that is) left\b|\b(?:is|are|was|were|one|some) left\b(?! of\b| to\b)",
    re.IGNORECASE,
)


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


def crop_sample(sample: Sample, box: Box) -> Sample:
    """Return the part of the sample inside a box.

    Instances that the box does not show are dropped. `visible_fraction` is kept where no visible pixel was lost or the
    object was whole, else it is no longer known (None). The edit is dropped when what it changes or names is cut away.
    Captions are dropped when an instance is: they may speak of it.

    Args:
        box: (x0, y0, x1, y1) in pixels, half open, inside the picture.

    Raises:
        InputError: an empty box or one that leaves the picture; instances without an id map.
    """
    x0, y0, x1, y1 = box
    height, width = sample.image.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"{sample.key}: crop box {box} is empty or leaves the {width} x {height} picture")
    rows, columns = slice(y0, y1), slice(x0, x1)
    cropped = replace(
        sample,
        image=sample.image[rows, columns].copy(),
        depth_m=_cut(sample.depth_m, rows, columns),
        normals=_cut(sample.normals, rows, columns),
        geometric_normals=_cut(sample.geometric_normals, rows, columns),
        albedo=_cut(sample.albedo, rows, columns),
        weight=_cut(sample.weight, rows, columns),
        instance_ids=_cut(sample.instance_ids, rows, columns),
        camera=sample.camera
        and replace(sample.camera, width=x1 - x0, height=y1 - y0, cx=sample.camera.cx - x0, cy=sample.camera.cy - y0),
    )
    before = {instance.id: instance for instance in sample.instances}
    instances = tuple(_after_cut(now, before[now.id]) for now in _visible_instances(cropped))
    lost = before.keys() - {instance.id for instance in instances}
    edit = None
    if sample.edit is not None and sample.edit.instance_id not in lost:
        image = sample.edit.image[rows, columns].copy()
        if not np.array_equal(image, cropped.image):
            edit = replace(sample.edit, image=image)
    return replace(cropped, instances=instances, edit=edit, captions=() if lost else sample.captions)


def flip_sample(sample: Sample) -> Sample:
    """Return the mirror image, left for right: x of normals and centres negated, sides in all texts swapped.

    The pose is dropped, since no rotation turns the old world into its mirror image. `facts` keep their numbers: only
    words for sides are swapped in them.

    Raises:
        InputError: a text where "left" or "right" may not mean a side ("right behind", "left open"), so that swapping
            could make it wrong.
    """
    width = sample.image.shape[1]
    instances = tuple(
        replace(
            instance,
            box=(width - instance.box[2], instance.box[1], width - instance.box[0], instance.box[3]),
            center_camera_m=instance.center_camera_m
            and (0.0 - instance.center_camera_m[0], *instance.center_camera_m[1:]),
            attributes=_mirror_text(instance.attributes, sample.key),
            category=_mirror_text(instance.category, sample.key),
        )
        for instance in sample.instances
    )
    return replace(
        sample,
        image=_mirror(sample.image),
        depth_m=_mirror(sample.depth_m),
        normals=_mirror_normals(sample.normals),
        geometric_normals=_mirror_normals(sample.geometric_normals),
        albedo=_mirror(sample.albedo),
        weight=_mirror(sample.weight),
        instance_ids=_mirror(sample.instance_ids),
        camera=sample.camera and replace(sample.camera, cx=width - sample.camera.cx, camera_to_world=None),
        instances=instances,
        captions=_mirror_text(sample.captions, sample.key),
        edit=sample.edit
        and replace(
            sample.edit,
            instruction=_mirror_text(sample.edit.instruction, sample.key),
            image=_mirror(sample.edit.image),
        ),
        facts=_mirror_text(sample.facts, sample.key),
    )


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


def _cut(array: NDArray[Any] | None, rows: slice, columns: slice) -> NDArray[Any] | None:
    return None if array is None else array[rows, columns].copy()


def _mirror(array: Any) -> Any:
    return None if array is None else array[:, ::-1].copy()


def _mirror_normals(normals: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    mirrored: NDArray[np.float32] | None = _mirror(normals)
    if mirrored is not None:
        mirrored[..., 0] = 0 - mirrored[..., 0]  # not -x: that makes negative zeros
    return mirrored


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


def _after_cut(now: Instance, before: Instance) -> Instance:
    whole = now.visible_pixels == before.visible_pixels or before.visible_fraction == 1
    return now if whole else replace(now, visible_fraction=None)


def _mirror_text(value: Any, key: str) -> Any:
    """Swap left and right in every string inside a json-able value."""
    if isinstance(value, str):
        doubt = _NOT_A_SIDE.search(value)
        if doubt:
            raise InputError(f"{key}: cannot mirror the text {value!r}: {doubt[0]!r} may not mean a side")
        return _SIDE_WORD.sub(_swap_side, value)
    if isinstance(value, Mapping):
        return {name: _mirror_text(item, key) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mirror_text(item, key) for item in value)
    return value


def _swap_side(match: re.Match[str]) -> str:
    against, clockwise, side, ending = match.groups()
    if clockwise:
        swapped = clockwise if against else "counter" + clockwise.lower()
        ending = ""
    else:
        swapped = {"left": "right", "right": "left"}[side.lower()]
    original = match[0]
    if len(original) > 1 and original.isupper():
        return (swapped + ending).upper()
    return (swapped.capitalize() if original[0].isupper() else swapped.lower()) + ending
