"""The ray cast against closed formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cavendish.encoders.sample import Camera
from cavendish.render.geometry.mesh import ImageMap, Mesh, Placed, Surface
from cavendish.render.geometry.meshes import place
from cavendish.render.labels.checks import check_normals
from cavendish.render.labels.passes import camera_rays, cast_scene, nearest_hit
from cavendish.render.scenes.recipe import Material, Thing, look_at, pose_matrix

CAMERAS = (
    look_at((0.3, -4.0, 1.7), (0.0, 0.0, 0.6), 60, 96, 64),
    look_at((-2.0, -3.0, 2.5), (0.2, 0.1, 0.2), 35, 64, 80, roll_rad=0.4),
    Camera(80, 60, 55.0, 71.0, 33.3, 22.7, look_at((1, -5, 2), (0, 0, 1), 60, 80, 60).camera_to_world),
    look_at((0.5, -3.0, 1.0), (0.0, 0.0, 0.5), 110, 90, 50, roll_rad=-0.2),
    look_at((3.0, -9.0, 4.0), (0.1, 0.0, 0.5), 12, 60, 60),
)


def placed(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], number: int = 1, normals: NDArray[np.float64] | None = None
) -> Placed:
    corners = vertices[faces]
    if normals is None:
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        vertices, normals = corners.reshape(-1, 3), np.repeat(flat, 3, axis=0)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    mesh = Mesh(
        vertices,
        normals.astype(np.float32),
        np.zeros((1, len(vertices), 2), np.float32),
        faces.astype(np.int32),
        np.zeros(len(faces), np.int32),
    )
    thing = Thing(number, "thing", "box", (0, 0, 0), (1, 1, 1))
    return Placed(thing, mesh, (), np.eye(4))


def quad(
    center: tuple[float, float, float], u: tuple[float, float, float], v: tuple[float, float, float], number: int = 1
):
    c, a, b = np.array(center, float), np.array(u, float), np.array(v, float)
    return placed(np.array([c - a - b, c + a - b, c + a + b, c - a + b]), np.array([[0, 1, 2], [0, 2, 3]]), number)


def plane_depth(camera: Camera, point: tuple[float, ...], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for the depth z of (eye + z ray) on a plane, per pixel."""
    pose = pose_matrix(camera)
    rays = camera_rays(camera) @ pose[:3, :3].T
    return (np.array(point) - pose[:3, 3]) @ normal / (rays @ normal)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_a_plane_has_its_analytic_planar_depth_and_normal(camera: Camera, tilt: float) -> None:
    normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    plane = quad((0, 0, 0), (400, 0, 0), (0, 400 * np.cos(tilt), 400 * np.sin(tilt)))
    truth = cast_scene([plane], camera)
    expected = plane_depth(camera, (0, 0, 0), normal)
    seen = truth.instance_ids == 1
    assert seen.mean() > 0.5
    near = seen & (expected < 300)
    assert np.abs(truth.depth_m[near] / expected[near] - 1).max() < 1e-5
    in_camera = normal @ pose_matrix(camera)[:3, :3]
    assert np.abs(truth.normals[seen] - in_camera).max() < 1e-6
    assert np.abs(truth.geometric_normals[seen] - in_camera).max() < 1e-6
    assert np.isposinf(truth.depth_m[~seen]).all()
    assert not truth.normals[~seen].any()
    check_normals(truth)


def test_depth_is_planar_not_along_the_ray() -> None:
    camera = look_at((0, -2, 0), (0, 0, 0), 90, 64, 64)
    truth = cast_scene([quad((0, 0, 0), (9, 0, 0), (0, 0, 9))], camera)
    assert np.abs(truth.depth_m - 2).max() < 1e-6  # a wall parallel to the picture: one depth everywhere


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_sphere_has_its_analytic_depth_and_normals(camera: Camera) -> None:
    pose = pose_matrix(camera)
    eye, center = pose[:3, 3], np.array([0.1, 0.0, 0.5])
    radius = 0.6
    toward = (eye - center) / np.linalg.norm(eye - center)
    side = np.cross(toward, (0, 0, 1.0))
    side /= np.linalg.norm(side)
    up = np.cross(side, toward)
    n = 420  # the cap that faces the camera, tessellated to a sagitta of 1e-6 of the radius
    angles = np.linspace(-0.6, 0.6, n)
    a, b = np.meshgrid(np.tan(angles), np.tan(angles))
    unit = toward + a[..., None] * side + b[..., None] * up
    unit = (unit / np.linalg.norm(unit, axis=-1, keepdims=True)).reshape(-1, 3)
    index = np.arange(n * n).reshape(n, n)
    p, q, r, s = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([p, q, r], 1), np.stack([p, r, s], 1)])
    truth = cast_scene([placed(center + radius * unit, faces, normals=unit)], camera)
    rays = camera_rays(camera) @ pose[:3, :3].T
    offset = eye - center
    half_b, c = rays @ offset, offset @ offset - radius**2
    squared = (rays**2).sum(-1)
    expected = (-half_b - np.sqrt(np.maximum(half_b**2 - squared * c, 0))) / squared
    seen = truth.instance_ids == 1
    assert seen.sum() > 50
    assert np.abs(truth.depth_m[seen] / expected[seen] - 1).max() < 1e-5
    normal = (eye + rays * expected[..., None] - center) / radius @ pose[:3, :3]
    assert np.degrees(np.arccos(np.clip((truth.normals * normal).sum(-1)[seen], -1, 1))).max() < 0.05
    angles = np.degrees(np.arccos(np.clip((truth.geometric_normals * normal).sum(-1)[seen], -1, 1)))
    assert 0.001 < angles.max() < 0.3  # those of the triangles: off by up to half the angle between two of them


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("bevel", [0.0, 0.05])
def test_a_turned_box_has_its_analytic_depth_and_normals(camera: Camera, bevel: float) -> None:
    size, yaw = (1.2, 0.7, 0.9), 0.6
    material = Material("painted", (0.5, 0.5, 0.5))
    thing = Thing(
        3, "box", "box", (0.1, 0.05, 0.0), size, yaw, numbers=(bevel,) if bevel else (), materials=(material,)
    )
    solid = place(thing)
    truth = cast_scene([solid], camera)
    pose = pose_matrix(camera)
    turn = solid.matrix[:3, :3]
    low = np.array([-0.6, -0.35, 0.0])
    origin = (pose[:3, 3] - solid.matrix[:3, 3]) @ turn
    rays = camera_rays(camera) @ pose[:3, :3].T @ turn
    near, far = np.sort(np.stack([(low - origin) / rays, (low + size - origin) / rays]), axis=0)
    entry, leave = near.max(axis=-1), far.min(axis=-1)
    hit = entry < leave
    at = origin + rays * entry[..., None]
    axis = near.argmax(axis=-1)
    # on the flat part of a face: the bevel is elsewhere
    inside = np.minimum(at - low, low + size - at)
    inside[np.arange(3) == axis[..., None]] = np.inf
    flat = hit & (inside.min(axis=-1) > bevel + 1e-4)
    assert flat.sum() > 100
    assert (truth.instance_ids[flat] == 3).all()
    assert (truth.instance_ids[~hit] == 0).all()
    assert np.abs(truth.depth_m[flat] / entry[flat] - 1).max() < 1e-5
    expected = -np.sign(rays) * (np.arange(3) == axis[..., None]) @ turn.T @ pose[:3, :3]
    for normals in (truth.normals, truth.geometric_normals):
        angles = np.degrees(np.arccos(np.clip((normals * expected).sum(axis=-1)[flat], -1, 1)))
        assert angles.max() < 0.05
    check_normals(truth)


def test_base_colours_are_the_texture_at_the_hit_between_texels() -> None:
    """A wall of 2 m, four texels wide: sampled at texel centres it shows them, half way it shows their mean."""
    texture = np.zeros((2, 4, 3), np.uint8)
    texture[..., 0] = [[0, 80, 160, 240], [10, 90, 170, 250]]
    wall = replace(
        quad((0, 0, 0), (1, 0, 0), (0, 0, 0.5)),
        surfaces=(Surface((1.0, 1.0, 1.0), 0.5, 0.0, ImageMap(texture)), Surface((0.2, 0.4, 0.6), 0.5, 0.0)),
    )
    x, _, z = wall.mesh.vertices.T
    wall = replace(wall, mesh=replace(wall.mesh, uv=np.stack([(x + 1) / 2, z + 0.5], axis=1)[None].astype(np.float32)))
    camera = Camera(8, 4, 4.0, 4.0, 4.0, 2.0, look_at((0, -1, 0), (0, 0, 0), 90, 8, 4).camera_to_world)
    truth = cast_scene([wall], camera, albedo=True)  # pixels of 0.25 m: two a texel, a quarter texel off its centre
    assert truth.albedo is not None
    rows = texture[:, [0, 0, 1, 1, 2, 2, 3, 3], 0].astype(float)  # v is up: the first row is the top one
    beside = texture[:, [3, 1, 0, 2, 1, 3, 2, 0], 0].astype(float)  # it repeats
    blend = 0.75 * rows + 0.25 * beside
    expected = [0.75 * blend[0] + 0.25 * blend[1], 0.75 * blend[0] + 0.25 * blend[1],
                0.75 * blend[1] + 0.25 * blend[0], 0.75 * blend[1] + 0.25 * blend[0]]  # fmt: skip
    assert np.abs(truth.albedo[..., 0] - np.array(expected)).max() <= 0.5
    plain = replace(wall, mesh=replace(wall.mesh, slot_of=np.ones(2, np.int32)))
    assert (cast_scene([plain], camera, albedo=True).albedo == [51, 102, 153]).all()
    assert cast_scene([plain], camera).albedo is None


def test_rays_go_through_what_is_cut_out_and_every_label_with_them() -> None:
    """A wall whose left half is cut out, before another one: labels there are the other one's."""
    cutout = np.full((1, 2), 255, np.uint8)
    cutout[0, 0] = 0
    surface = Surface((1.0, 0.0, 0.0), 0.5, 0.0, cutout=ImageMap(cutout, wrap=("clamp", "clamp")))
    front = replace(quad((0, 0, 0), (1, 0, 0), (0, 0, 1), 1), surfaces=(surface,))
    x, _, z = front.mesh.vertices.T
    uv = np.stack([(x + 1) / 2, (z + 1) / 2], axis=1)[None].astype(np.float32)
    front = replace(front, mesh=replace(front.mesh, uv=uv))
    behind = replace(quad((0, 1, 0), (9, 0, 3), (0, 0, 9), 2), surfaces=(Surface((0.0, 0.0, 1.0), 0.5, 0.0),))
    camera = look_at((0, -3, 0), (0, 0, 0), 40, 96, 96)
    truth, alone, uncut = (
        cast_scene(scene, camera, albedo=True)
        for scene in ([front, behind], [behind], [replace(front, surfaces=behind.surfaces), behind])
    )
    x_seen, x_uncut = ((one.rays * one.depth_m[..., None])[..., 0] for one in (truth, uncut))
    was_front = uncut.instance_ids == 1
    # the texels' centers are at -0.5 and 0.5 m: half way between them, interpolated coverage is a half
    assert (truth.instance_ids[was_front & (x_uncut > 1e-3)] == 1).all()
    cut = was_front & (truth.instance_ids == 2)
    assert 0.48 < cut.sum() / was_front.sum() < 0.52
    assert np.array_equal(truth.depth_m[cut], alone.depth_m[cut])
    assert np.array_equal(truth.normals[cut], alone.normals[cut])
    assert truth.albedo is not None
    assert (truth.albedo[cut] == [0, 0, 255]).all()
    assert (x_seen[truth.instance_ids == 1] > -1e-3).all()
    assert truth.silhouettes[1] == (truth.instance_ids == 1).sum()
    check_normals(truth)


def test_the_nearest_hit_is_how_far_a_ray_gets() -> None:
    scene = [quad((0, 2, 0), (1, 0, 0), (0, 0, 1)), quad((0, 5, 0), (9, 0, 0), (0, 0, 9))]
    origin = np.array([0.0, -1.0, 0.0])
    assert nearest_hit(scene, origin, np.array([0.0, 1.0, 0.0])) == pytest.approx(3)
    assert nearest_hit(scene, origin, np.array([0.3, 0.5, 0.0])) == pytest.approx(12)
    assert nearest_hit(scene, origin, np.array([0.0, -1.0, 0.0])) == np.inf


def test_a_box_shows_the_nearest_face_of_the_nearest_object() -> None:
    camera = CAMERAS[0]
    front = quad((0, -1, 0.6), (0.5, 0, 0), (0, 0, 0.5), 2)
    behind = quad((0, 0, 0.6), (2, 0, 0), (0, 0, 2), 1)
    for scene in ([front, behind], [behind, front]):
        truth = cast_scene(scene, camera)
        depth = np.stack([plane_depth(camera, (0, y, 0), np.array([0.0, 1.0, 0.0])) for y in (0.0, -1.0)])
        assert set(np.unique(truth.instance_ids)) >= {1, 2}
        for number in (1, 2):
            mask = truth.instance_ids == number
            assert np.abs(truth.depth_m[mask] / depth[number - 1][mask] - 1).max() < 1e-6


def test_the_silhouette_counts_what_is_hidden_and_only_what_is_in_the_picture() -> None:
    camera = look_at((0, -4, 0), (0, 0, 0), 60, 100, 100)
    hidden = quad((0, 0, 0), (1, 0, 0), (0, 0, 1), 1)
    cover = quad((0.5, -1e-3, 0), (0.5, 0, 0), (0, 0, 1.0), 2)
    truth = cast_scene([hidden, cover], camera)
    visible = (truth.instance_ids == 1).sum()
    assert truth.silhouettes[1] == pytest.approx(2 * visible, rel=0.05)
    alone = cast_scene([hidden], camera)
    assert truth.silhouettes[1] == (alone.instance_ids == 1).sum()
    assert cast_scene([quad((0, -9, 0), (1, 0, 0), (0, 0, 1), 3)], camera).silhouettes[3] == 0  # behind the camera


def test_normals_face_the_viewer_from_either_side() -> None:
    for eye in ((0.4, -3, 0.2), (0.4, 3, 0.2)):
        camera = look_at(eye, (0, 0, 0), 50, 40, 40)
        truth = cast_scene([quad((0, 0, 0), (5, 0, 0), (0, 0, 5))], camera)
        assert ((truth.normals * camera_rays(camera)).sum(-1) < 0).all()
