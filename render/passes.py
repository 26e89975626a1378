"""Exact ground truth by a ray cast at pixel centres: planar depth, shading normals, instance ids, silhouettes.

Every thing is cast alone, in its own space, inside its projected box, and the nearest hit wins. So a thing's whole
silhouette is known (what fraction of it is visible), and its search tree is built once however often it is placed.
Embree (float32) finds the triangle; depth and barycentric coordinates are then computed from its plane in float64.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from encoders.sample import Camera
from render.meshes import Mesh, Placed, is_pane
from render.recipe import pose_matrix

Box = tuple[int, int, int, int]
_trees: weakref.WeakKeyDictionary[Mesh, EmbreeScene] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Truth:
    """What is seen at each pixel centre.

    Args:
        depth_m: (H, W) float64 planar metres, +inf where nothing is hit.
        normals: (H, W, 3) float64 camera-space unit shading normals facing the viewer, (0, 0, 0) where nothing is hit.
        instance_ids: (H, W) uint16 thing ids, 0 where nothing is hit.
        slots: (H, W) uint16 which of the thing's surfaces, 0 where nothing is hit.
        silhouettes: id -> pixels the thing would cover were it alone in the picture.
    """

    depth_m: NDArray[np.float64]
    normals: NDArray[np.float64]
    instance_ids: NDArray[np.uint16]
    slots: NDArray[np.uint16]
    silhouettes: Mapping[int, int]


def camera_rays(camera: Camera) -> NDArray[np.float64]:
    """Return (H, W, 3) camera-space directions through pixel centres, with z = -1: ray length is then planar depth."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = -(np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    rays = np.empty((camera.height, camera.width, 3))
    rays[..., 0], rays[..., 1], rays[..., 2] = x[None], y[:, None], -1.0
    return rays


def cast_scene(scene: Sequence[Placed], camera: Camera) -> Truth:
    """Cast all things of a scene; things of the same id count as one."""
    pose = pose_matrix(camera)
    rays = camera_rays(camera) @ pose[:3, :3].T
    depth_m = np.full((camera.height, camera.width), np.inf)
    normals = np.zeros((camera.height, camera.width, 3))
    ids = np.zeros((camera.height, camera.width), np.uint16)
    slots = np.zeros((camera.height, camera.width), np.uint16)
    silhouettes: dict[int, int] = {}
    for placed in scene:
        x0, y0, x1, y1 = project_box(placed, camera)
        silhouettes[placed.thing.id] = 0
        if x1 <= x0 or y1 <= y0 or is_pane(placed):
            continue
        window = (slice(y0, y1), slice(x0, x1))
        hit, face, distance, normal = _cast_thing(placed, pose[:3, 3], rays[window].reshape(-1, 3))
        silhouettes[placed.thing.id] = len(hit)
        near = distance < depth_m[window].reshape(-1)[hit]
        row, column = np.divmod(hit[near], x1 - x0)
        at = (row + y0, column + x0)
        depth_m[at], normals[at], ids[at] = distance[near], normal[near], placed.thing.id
        slots[at] = placed.mesh.slot_of[face[near]]
    return Truth(depth_m, normals @ pose[:3, :3], ids, slots, silhouettes)


def project_box(placed: Placed, camera: Camera) -> Box:
    """Return a pixel box (x0, y0, x1, y1) that holds the silhouette; all of the picture if it crosses the eye."""
    low, high = placed.mesh.vertices.min(axis=0), placed.mesh.vertices.max(axis=0)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    to_camera = np.linalg.inv(pose_matrix(camera)) @ placed.matrix
    points = corners @ to_camera[:3, :3].T + to_camera[:3, 3]
    if points[:, 2].min() >= 0:
        return 0, 0, 0, 0
    if points[:, 2].max() > -1e-3:
        return 0, 0, camera.width, camera.height
    u = camera.cx - camera.fx * points[:, 0] / points[:, 2]
    v = camera.cy + camera.fy * points[:, 1] / points[:, 2]
    x0, x1 = np.clip([np.floor(u.min()) - 1, np.ceil(u.max()) + 1], 0, camera.width).astype(int)
    y0, y1 = np.clip([np.floor(v.min()) - 1, np.ceil(v.max()) + 1], 0, camera.height).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def _tree(mesh: Mesh) -> EmbreeScene:
    if mesh not in _trees:
        tree = EmbreeScene()
        TriangleMesh(tree, mesh.vertices[mesh.faces].astype(np.float32))
        _trees[mesh] = tree
    return _trees[mesh]


def _cast_thing(
    placed: Placed, eye: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return for the rays that hit: index, triangle, planar depth, and world-space normal facing the eye."""
    turn = placed.matrix[:3, :3]
    origin = (eye - placed.matrix[:3, 3]) @ turn
    local = rays @ turn
    mesh = placed.mesh
    found = _tree(mesh).run(
        np.broadcast_to(origin.astype(np.float32), local.shape).copy(), local.astype(np.float32), output=1
    )
    hit = np.flatnonzero(found["primID"] >= 0)
    face = found["primID"][hit]
    corners = mesh.vertices[mesh.faces[face]]
    ray = local[hit]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.cross(ab, ac)
    facing = (flat * ray).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = ((a - origin) * flat).sum(axis=1) / facing
    coarse = found["tfar"][hit].astype(np.float64)
    # edge-on triangles have no usable plane; there Embree's own distance stands
    distance = np.where(np.abs(distance - coarse) <= 1e-3 * coarse + 1e-5, distance, coarse)
    offset = origin + ray * distance[:, None] - a
    area = (flat * flat).sum(axis=1)
    second = (np.cross(offset, ac) * flat).sum(axis=1) / area
    third = (np.cross(ab, offset) * flat).sum(axis=1) / area
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1)
    smooth = (mesh.normals[mesh.faces[face]] * weights[..., None]).sum(axis=1)
    return hit, face, distance, _face_viewer(smooth, flat, ray) @ turn.T


def _face_viewer(
    smooth: NDArray[np.float64], flat: NDArray[np.float64], ray: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turn shading normals to the side of the triangle that is seen; where they still look away, use the triangle's."""
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.where((flat * ray).sum(axis=1, keepdims=True) > 0, -flat, flat)
    length = np.linalg.norm(smooth, axis=1, keepdims=True)
    smooth = np.divide(smooth, length, out=flat.copy(), where=length > 1e-6)
    smooth = np.where((smooth * flat).sum(axis=1, keepdims=True) < 0, -smooth, smooth)
    return np.where((smooth * ray).sum(axis=1, keepdims=True) >= 0, flat, smooth)
