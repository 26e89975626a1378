"""Conventions of depth and normals: what agrees passes, each mistake of axes or direction is refused and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cavendish.annotate.annotators.protocol import AnnotatorSpec, Depth, DepthKind, Failure, Normals
from cavendish.annotate.labels.conventions import (
    FOCAL_PX,
    agreeing_share,
    check_conventions,
    check_models,
    check_normals,
    known_scene,
    normals_of_depth,
)
from cavendish.encoders.sample import InputError

SCENE_FOCAL_PX = 110.0


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth and normals by intersecting each pixel's ray with a plane and a sphere."""
    y, x = np.mgrid[:height, :width]
    x_px, y_px = x + 0.5 - width / 2, y + 0.5 - height / 2
    rays = np.stack([x_px / SCENE_FOCAL_PX, -y_px / SCENE_FOCAL_PX, -np.ones(x.shape)], axis=-1)
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
    assert check_conventions(depth, normals, SCENE_FOCAL_PX) > 0.8  # the rest is the outline of the sphere
    angles = np.degrees(np.arccos(np.clip((normals_of_depth(depth, SCENE_FOCAL_PX) * normals).sum(-1), -1, 1)))
    assert np.median(angles) < 0.5
    noisy = depth * (1 + np.random.default_rng(0).normal(0, 0.002, depth.shape).astype(np.float32))
    assert check_conventions(noisy, normals, SCENE_FOCAL_PX) > 0.6


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
        check_conventions(depth, normals, SCENE_FOCAL_PX)


def test_what_is_unknown_does_not_count() -> None:
    depth, normals = scene()
    depth[:40], normals[60:] = np.nan, 0
    assert check_conventions(depth, normals, SCENE_FOCAL_PX) > 0.8  # the rest is the outline of the sphere
    assert not normals_of_depth(depth, SCENE_FOCAL_PX)[:38].any()
    assert agreeing_share(np.zeros_like(normals), normals) == 0


class Knows:
    """An annotator that returns one result, or fails, whatever it sees."""

    def __init__(self, result: Any, kind: DepthKind | None = None) -> None:
        self.spec = AnnotatorSpec("knows/1", "depth", "CC0-1.0", "0" * 64, depth_kind=kind)
        self._result = result

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, queries: Sequence[Any]) -> list[Any]:
        return [self._result for _ in queries]


def depth_of(values: np.ndarray, kind: DepthKind, focal_px: float | None = None) -> Knows:
    return Knows(Depth(values.astype(np.float32), kind, np.isfinite(values), focal_px), kind)


def test_the_scenes_depth_and_normals_are_of_one_geometry() -> None:
    image, depth_m, normals = known_scene()
    assert (image.shape[:2], image.dtype) == (depth_m.shape, np.uint8)
    assert agreeing_share(normals_of_depth(depth_m, FOCAL_PX), normals) > 0.9
    np.testing.assert_allclose(np.linalg.norm(normals[np.isfinite(depth_m)], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "draw"),
    [
        ("metric", lambda d: d),
        ("scale", lambda d: d * 3),
        ("affine", lambda d: (d - 2) / 9),
        ("inverse", lambda d: 5 / d + 1),
    ],
)
def test_depth_must_run_the_way_its_kind_says(kind: DepthKind, draw: Callable[[Any], Any]) -> None:
    _, depth_m, _ = known_scene()
    check_models(depth_of(draw(depth_m), kind), None)
    with pytest.raises(InputError, match=r"knows/1: depth of kind .* with distance, its values (grow|fall)"):
        check_models(depth_of(-draw(depth_m), kind), None)
    with pytest.raises(InputError, match="its values do neither"):
        check_models(depth_of(np.ones_like(depth_m), kind), None)


def test_normals_are_compared_with_the_truth_and_with_metric_depth() -> None:
    _, depth_m, normals = known_scene()
    check_models(depth_of(depth_m, "metric", FOCAL_PX), Knows(Normals(normals)))
    with pytest.raises(InputError, match=r"signs \[1, -1, -1\]"):
        check_models(None, Knows(Normals(normals * np.float32([1, -1, -1]))))
    with pytest.raises(InputError, match="is the depth metric, and the focal length right"):
        check_models(depth_of(depth_m**3, "metric", FOCAL_PX), Knows(Normals(normals)))
    with pytest.raises(InputError, match=r"failed on the picture .*: out of memory"):
        check_models(None, Knows(Failure("out of memory")))


def plane() -> np.ndarray:
    normals = np.zeros((8, 8, 3), np.float32)
    normals[:4] = (0.48, 0.6, 0.64)
    normals[4:] = (-0.6, 0.0, 0.8)
    return normals


def test_the_convention_gate_names_the_signs_that_fit() -> None:
    truth = plane()
    assert check_normals(truth, truth, "model") == pytest.approx(1)
    with pytest.raises(InputError, match=r"signs \[1, -1, -1\]"):
        check_normals(truth * np.float32([1, -1, -1]), truth, "model")
    noise = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    with pytest.raises(InputError, match="mean cosine"):
        check_normals(noise, truth, "model")
