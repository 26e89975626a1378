"""Resize against analytic scenes: what is drawn afterwards must be what a camera would have seen."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.augment import resize_image, resize_sample
from cavendish.encoders.sample import Camera, InputError, Sample
from tests.conftest import tiny_sample

PLANE_NORMAL = np.array([0.48, 0.6, 0.64])  # the plane n . p = -3 in camera space, in front of the camera
PLANE_OFFSET = -3.0


def plane_sample(height: int = 48, width: int = 64) -> Sample:
    """A tilted plane, rendered exactly at pixel centres, with an off-centre principal point."""
    camera = Camera(width, height, fx=70.0, fy=65.0, cx=30.0, cy=26.0)
    depth_m = plane_depth(camera, PLANE_NORMAL)
    normals = np.broadcast_to(PLANE_NORMAL, (height, width, 3)).astype(np.float32)
    return replace(
        tiny_sample(size=8),
        image=np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8),
        depth_m=depth_m,
        normals=normals.copy(),
        geometric_normals=None,
        albedo=None,
        weight=None,
        instance_ids=None,
        instances=(),
        edit=None,
        camera=camera,
    )


def plane_depth(camera: Camera, normal: np.ndarray) -> np.ndarray:
    """Planar depth of the plane along the ray of every pixel centre: p = z (x, y, -1), n . p = offset."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = -(np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    along = normal[0] * x[None, :] + normal[1] * y[:, None] - normal[2]
    depth_m = PLANE_OFFSET / along
    return np.where(depth_m > 0, depth_m, np.inf).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(16, 64), (24, 32), (16, 21), (9, 7)])
def test_a_smaller_picture_is_what_its_camera_sees(height: int, width: int) -> None:
    sample = plane_sample()
    resized = resize_sample(sample, height, width)
    assert resized.camera is not None
    exact = plane_depth(resized.camera, PLANE_NORMAL)
    # The nearest old centre is at most half an old pixel away from the new one.
    low = np.stack([np.roll(sample.depth_m, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    slope = (low.max(0) - low.min(0))[1:-1, 1:-1].max() / 2
    assert np.abs(resized.depth_m - exact).max() <= slope
    if (48 // height) % 2 and (64 // width) % 2 and not (48 % height or 64 % width):  # odd factors: centres coincide
        np.testing.assert_allclose(resized.depth_m, exact, rtol=1e-6)


def test_growing_by_three_keeps_every_old_centre() -> None:
    sample = plane_sample()
    resized = resize_sample(sample, 144, 192)
    np.testing.assert_array_equal(resized.depth_m[1::3, 1::3], sample.depth_m)
    np.testing.assert_array_equal(resized.image[1::3, 1::3], sample.image)
    np.testing.assert_allclose(plane_depth(resized.camera, PLANE_NORMAL)[1::3, 1::3], sample.depth_m, rtol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_picture_resize_is_exact(old_h: int, old_w: int, new_h: int, new_w: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (old_h, old_w, 3), dtype=np.uint8)
    weights_y, weights_x = dense_weights(old_h, new_h), dense_weights(old_w, new_w)
    expected = np.einsum("yh,hwc,xw->yxc", weights_y, image.astype(float), weights_x)
    assert np.abs(resize_image(image, new_h, new_w) - expected).max() <= 0.5 + 1e-9


def dense_weights(old: int, new: int) -> np.ndarray:
    """Area overlap going down, hat functions at clamped centres going up; from the definitions, in floating point."""
    weights = np.zeros((new, old))
    for j in range(new):
        if new <= old:
            low, high = j * old / new, (j + 1) * old / new
            weights[j] = [max(0.0, min(high, i + 1) - max(low, i)) * new / old for i in range(old)]
        else:
            center = min(max((j + 0.5) * old / new - 0.5, 0), old - 1)
            weights[j] = [max(0.0, 1 - abs(center - i)) for i in range(old)]
    return weights


@pytest.mark.parametrize(("size", "how"), [((37, 48), cv2.INTER_AREA), ((203, 211), cv2.INTER_LINEAR)])
def test_picture_resize_agrees_with_opencv(size: tuple[int, int], how: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    theirs = cv2.resize(image, size[::-1], interpolation=how)
    assert np.abs(resize_image(image, *size).astype(int) - theirs).max() <= 1


def assert_instances_follow_ids(sample: Sample) -> None:
    assert sample.instance_ids is not None
    assert set(np.unique(sample.instance_ids)) - {0} == {instance.id for instance in sample.instances}
    for instance in sample.instances:
        rows, columns = np.nonzero(sample.instance_ids == instance.id)
        assert instance.visible_pixels == len(rows)
        assert instance.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: resize_sample(s, 17, 23),
        lambda s: resize_sample(s, 64, 40),
    ],
    ids=["smaller", "larger"],
)
def test_every_target_follows(sample: Sample, change: object) -> None:
    changed = change(sample)  # type: ignore[operator]
    size = changed.image.shape[:2]
    for name in ("depth_m", "instance_ids", "normals", "geometric_normals", "albedo", "weight"):
        assert getattr(changed, name).shape[:2] == size, name
    assert changed.edit.image.shape == changed.image.shape
    assert (changed.camera.height, changed.camera.width) == size
    assert_instances_follow_ids(changed)
    assert changed.depth_m.dtype == np.float32
    assert changed.instance_ids.dtype == np.uint16
    assert set(np.unique(changed.depth_m)) <= set(np.unique(sample.depth_m))  # nothing was averaged


def test_bad_sizes_and_missing_ids_are_refused(sample: Sample) -> None:
    with pytest.raises(InputError, match="at least 1"):
        resize_sample(sample, 0, 5)
    with pytest.raises(InputError, match="no instance_ids"):
        resize_sample(replace(sample, instance_ids=None), 5, 5)
