"""Lens distortion against OpenCV and closed formulas; depth of field's focus."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import Camera
from cavendish.render.camera.lens import (
    BentLens,
    Distortion,
    bend,
    distort,
    draw_aperture,
    draw_distortion,
    see_through_lens,
    undistort,
)
from cavendish.render.labels.checks import check_normals
from cavendish.render.labels.passes import camera_rays, cast_scene, lens_rays
from cavendish.render.scenes.recipe import look_at, pose_matrix
from tests.render.labels.test_passes import CAMERAS, plane_depth, quad

BARREL = Distortion(-0.21, 0.03)


@given(
    k1=st.floats(-0.25, 0.2),
    k2=st.floats(-0.05, 0.05),
    x=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    y=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
)
def test_undistorting_undoes_distorting(k1: float, k2: float, x: list[float], y: list[float]) -> None:
    ideal = np.array(x), np.array(y)
    found = undistort(*distort(*ideal, Distortion(k1, k2)), Distortion(k1, k2))
    assert np.allclose(found, ideal, atol=1e-9)


def test_a_distortion_that_folds_over_is_refused() -> None:
    with pytest.raises(ValueError, match="folds over"):
        undistort(np.array([0.9]), np.array([0.9]), Distortion(-0.6, 0.0))


@pytest.mark.parametrize("camera", CAMERAS)
def test_points_are_seen_where_opencv_projects_them(camera: Camera) -> None:
    """Cast rays through the lens, and have OpenCV project points on them with the same coefficients."""
    lens = bend(camera, BARREL)
    rays = lens_rays(lens)
    points = (rays * 3.0).reshape(-1, 3) * [1, -1, -1]  # OpenCV: y down, z forward
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array([BARREL.k1, BARREL.k2, 0, 0, 0]))
    v, u = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    assert np.abs(seen.reshape(camera.height, camera.width, 2) - np.stack([u, v], axis=-1)).max() < 1e-6


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("seed", range(4))
def test_the_source_picture_holds_all_that_the_lens_sees_and_little_more(camera: Camera, seed: int) -> None:
    lens = bend(camera, draw_distortion(camera, np.random.default_rng(seed)))
    for positions, side in ((lens.u, camera.width), (lens.v, camera.height)):
        assert positions.min() > 0.5 - 1e-6
        assert positions.max() < side - 0.5 + 1e-6
    reach = max(1 - lens.u.min() / camera.width * 2, 1 - lens.v.min() / camera.height * 2)
    assert reach > 0.9 - 3 / min(camera.width, camera.height)


# without the 110 degrees one, for which OpenCV's own inverse does not converge
@pytest.mark.parametrize("camera", [*CAMERAS[:3], CAMERAS[4]])
def test_a_tilted_plane_seen_through_a_bent_lens_has_its_analytic_depth_and_normal(camera: Camera) -> None:
    normal = np.array([0.0, -np.sin(0.35), np.cos(0.35)])
    plane = quad((0, 0, 0), (400, 0, 0), (0, 400 * np.cos(0.35), 400 * np.sin(0.35)))
    lens = bend(camera, BARREL)
    truth = cast_scene([plane], camera, lens)
    pose = pose_matrix(camera)
    # independent of the lens' own rays: pixel centre -> ideal direction by OpenCV's iterative inverse
    v, u = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    ideal = cv2.undistortPointsIter(pixels, matrix, np.array([BARREL.k1, BARREL.k2, 0, 0, 0]), None, None, criteria)
    x, y = ideal.reshape(camera.height, camera.width, 2).transpose(2, 0, 1)
    rays = np.stack([x, -y, -np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    expected = -(pose[:3, 3] @ normal) / (rays @ normal)
    seen = truth.instance_ids == 1
    near = seen & (expected < 300)
    assert near.mean() > 0.4
    assert np.abs(truth.depth_m[near] / expected[near] - 1).max() < 1e-5
    assert np.abs(truth.normals[seen] - normal @ pose[:3, :3]).max() < 1e-6
    check_normals(truth)


def test_labels_through_a_bent_lens_lie_under_the_bent_picture() -> None:
    """Bend a picture of the ids' own colours: away from edges it must show the ids that the rays find."""
    camera = look_at((0.3, -4.0, 1.7), (0.0, 0.0, 0.6), 60, 96, 64)
    scene = [quad((0, 0, 0), (40, 0, 0), (0, 40, 0), 1), quad((0, 0, 0.6), (0.5, 0, 0), (0, 0, 0.5), 2)]
    lens = bend(camera, Distortion(-0.3, 0.0))
    truth = cast_scene(scene, camera, lens)
    source = cast_scene(scene, lens.source)
    painted = np.eye(3)[source.instance_ids]
    bent = see_through_lens(painted, lens)
    pure = bent.max(axis=-1) > 0.999
    assert pure.mean() > 0.85
    assert (bent.argmax(axis=-1) == truth.instance_ids)[pure].all()
    assert (cast_scene(scene, camera).instance_ids != truth.instance_ids).mean() > 0.01  # it does bend


def test_without_distortion_the_lens_is_the_camera() -> None:
    camera = CAMERAS[2]
    lens = bend(camera, Distortion(0.0, 0.0))
    assert isinstance(lens, BentLens)
    assert np.abs(lens_rays(lens) - camera_rays(camera)).max() < 1e-12
    light = np.random.default_rng(0).random((camera.height, camera.width, 3))
    assert np.abs(see_through_lens(light, lens) - light).max() < 1e-4


def test_the_focus_is_on_one_of_the_things() -> None:
    camera = look_at((0, -4, 0), (0, 0, 0), 60, 64, 64)
    scene = [quad((0, 3, 0), (40, 0, 0), (0, 0, 40), 1), quad((0, -1, 0), (0.5, 0, 0), (0, 0, 0.5), 2)]
    truth = cast_scene(scene, camera)
    for seed in range(5):
        aperture = draw_aperture(truth.depth_m, truth.instance_ids, [2], np.random.default_rng(seed))
        assert aperture.focus_m == pytest.approx(3.0, abs=1e-3)
        assert 1.8 <= aperture.f_stop <= 8
    without = draw_aperture(truth.depth_m, truth.instance_ids, [], np.random.default_rng(0))
    assert without.focus_m == pytest.approx(np.median(plane_depth(camera, (0, 3, 0), np.array([0.0, 1, 0]))), rel=1e-3)
