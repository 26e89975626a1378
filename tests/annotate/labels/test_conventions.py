"""The convention gate on a sphere over a slanted plane, whose depth and normals are known exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cavendish.annotate.labels.conventions import agreeing_share, check_conventions, normals_of_depth
from cavendish.encoders.sample import InputError

FOCAL_PX = 110.0


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth and normals by intersecting each pixel's ray with a plane and a sphere."""
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x + 0.5 - width / 2) / FOCAL_PX, -(y + 0.5 - height / 2) / FOCAL_PX, -np.ones(x.shape)], axis=-1)
    plane = np.array([0.1, 0.75, 0.65]) / np.linalg.norm([0.1, 0.75, 0.65])
    along = (plane @ np.array([0.0, -1.2, -4.0])) / (rays @ plane)
    centre, radius = np.array([0.1, -0.1, -3.0]), 0.9
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    disc = b**2 - a * c
    near = np.where(disc > 0, (b - np.sqrt(np.maximum(disc, 0))) / a, np.inf)
    depth = np.minimum(near, np.where(along > 0, along, np.inf))
    points = rays * depth[..., None]
    normals = np.where((near <= depth)[..., None], (points - centre) / radius, plane)
    return depth.astype(np.float32), normals.astype(np.float32)


def test_true_depth_and_normals_agree() -> None:
    depth, normals = scene()
    assert check_conventions(depth, normals, FOCAL_PX) > 0.8  # the rest is the outline of the sphere
    angles = np.degrees(np.arccos(np.clip((normals_of_depth(depth, FOCAL_PX) * normals).sum(-1), -1, 1)))
    assert np.median(angles) < 0.5
    noisy = depth * (1 + np.random.default_rng(0).normal(0, 0.002, depth.shape).astype(np.float32))
    assert check_conventions(noisy, normals, FOCAL_PX) > 0.6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d, n: (d, n * np.float32([-1, 1, 1])), "x points left"),
        (lambda d, n: (d, n * np.float32([1, -1, 1])), "y points down"),
        (lambda d, n: (d, n * np.float32([1, 1, -1])), "z points away"),
        (lambda d, n: (d, n * np.float32([1, -1, -1])), r"OpenCV"),
        (lambda d, n: (1 / d, n), "the depth is inverse"),
        (lambda d, n: (d, np.roll(n, 1, axis=-1)), "no usual mistake"),
        (lambda d, n: ((d - d.min()) / (d.max() - d.min()) + 0.1, n), "is the depth metric"),
    ],
)
def test_each_mistake_is_refused_and_named(
    spoil: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], message: str
) -> None:
    depth, normals = spoil(*scene())
    with pytest.raises(InputError, match=message):
        check_conventions(depth, normals, FOCAL_PX)


def test_what_is_unknown_does_not_count() -> None:
    depth, normals = scene()
    depth[:40], normals[60:] = np.nan, 0
    assert check_conventions(depth, normals, FOCAL_PX) > 0.8  # the rest is the outline of the sphere
    assert not normals_of_depth(depth, FOCAL_PX)[:38].any()
    assert agreeing_share(np.zeros_like(normals), normals) == 0
