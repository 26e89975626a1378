"""Exact ground truth by a ray cast at pixel centres: planar depth, normals, instance ids, silhouettes, base colours.

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

from cavendish.encoders.sample import Camera, UInt8Image
from cavendish.render.camera.lens import BentLens
from cavendish.render.geometry.mesh import Mesh, Placed, base_colors, is_pane, is_there
from cavendish.render.geometry.triangles import cross
from cavendish.render.scenes.recipe import pose_matrix

Box = tuple[int, int, int, int]
MAX_CUT_LAYERS = 32
"""Cut-out surfaces that a ray goes through before it is lost."""
_trees: weakref.WeakKeyDictionary[Mesh, EmbreeScene] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Truth:
    """What is seen at each pixel centre.

    Args:
        depth_m: (H, W) float64 planar metres, +inf where nothing is hit.
        normals: (H, W, 3) float64 camera-space unit shading normals facing the viewer, (0, 0, 0) where nothing is hit.
        geometric_normals: (H, W, 3) float64, those of the triangles themselves, facing the viewer.
        instance_ids: (H, W) uint16 thing ids, 0 where nothing is hit.
        slots: (H, W) uint16 which of the thing's surfaces, 0 where nothing is hit.
        rays: (H, W, 3) float64 camera-space direction of each pixel, z = -1.
        silhouettes: id -> pixels the thing would cover were it alone in the picture.
        faces: (H, W) int32 which triangle of the thing's mesh; weights: (H, W, 3) float32 barycentric, where on it.
        albedo: (H, W, 3) uint8 sRGB base colour of the surface, 0 where nothing is hit; None unless asked for.
    """

    depth_m: NDArray[np.float64]
    normals: NDArray[np.float64]
    geometric_normals: NDArray[np.float64]
    instance_ids: NDArray[np.uint16]
    slots: NDArray[np.uint16]
    rays: NDArray[np.float64]
    silhouettes: Mapping[int, int]
    faces: NDArray[np.int32]
    weights: NDArray[np.float32]
    albedo: UInt8Image | None = None


@dataclass(frozen=True, eq=False)
class Hits:
    """The rays that hit a thing before anything else, N of them: which ray and triangle, planar depth, the (N, 3) rest.

    `count` is how many hit it at all. `weights` are barycentric; `smooth` and `flat` are the world-space shading and
    triangle normals facing the eye.
    """

    count: int
    ray: NDArray[np.int64]
    face: NDArray[np.int64]
    distance: NDArray[np.float64]
    weights: NDArray[np.float64]
    smooth: NDArray[np.float64]
    flat: NDArray[np.float64]


def camera_rays(camera: Camera) -> NDArray[np.float64]:
    """Return (H, W, 3) camera-space directions through pixel centres, with z = -1: ray length is then planar depth."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = -(np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    rays = np.empty((camera.height, camera.width, 3))
    rays[..., 0], rays[..., 1], rays[..., 2] = x[None], y[:, None], -1.0
    return rays


def lens_rays(lens: BentLens) -> NDArray[np.float64]:
    """Return (H, W, 3) camera-space directions that a bent lens sees at pixel centres, with z = -1."""
    source = lens.source
    x, y = (lens.u - source.cx) / source.fx, -(lens.v - source.cy) / source.fy
    return np.stack([x, y, np.full_like(x, -1.0)], axis=-1)


def cast_scene(scene: Sequence[Placed], camera: Camera, lens: BentLens | None = None, albedo: bool = False) -> Truth:
    """Cast all things of a scene, through a bent lens if there is one; look up the base colours if asked."""
    pose = pose_matrix(camera)
    rays = camera_rays(camera) if lens is None else lens_rays(lens)
    directions = rays @ pose[:3, :3].T
    depth_m = np.full((camera.height, camera.width), np.inf)
    normals, flat = np.zeros((2, camera.height, camera.width, 3))
    ids, slots = np.zeros((2, camera.height, camera.width), np.uint16)
    faces = np.zeros((camera.height, camera.width), np.int32)
    weights = np.zeros((camera.height, camera.width, 3), np.float32)
    colors = np.zeros((camera.height, camera.width, 3), np.uint8) if albedo else None
    silhouettes: dict[int, int] = {}
    for placed in scene:
        x0, y0, x1, y1 = project_box(placed, camera) if lens is None else _bent_box(placed, lens)
        silhouettes[placed.thing.id] = 0
        if x1 <= x0 or y1 <= y0 or is_pane(placed):
            continue
        window = (slice(y0, y1), slice(x0, x1))
        before = depth_m[window].reshape(-1)
        hits = _cast_thing(placed, pose[:3, 3], directions[window].reshape(-1, 3), before)
        silhouettes[placed.thing.id] = hits.count
        row, column = np.divmod(hits.ray, x1 - x0)
        at = (row + y0, column + x0)
        depth_m[at], ids[at] = hits.distance, placed.thing.id
        normals[at], flat[at] = hits.smooth, hits.flat
        slots[at], faces[at], weights[at] = placed.mesh.slot_of[hits.face], hits.face, hits.weights
        if colors is not None:
            colors[at] = base_colors(placed, hits.face, hits.weights)
    turn = pose[:3, :3]
    return Truth(depth_m, normals @ turn, flat @ turn, ids, slots, rays, silhouettes, faces, weights, colors)


def _bent_box(placed: Placed, lens: BentLens) -> Box:
    """Return a pixel box that holds what a bent lens sees of a thing."""
    x0, y0, x1, y1 = project_box(placed, lens.source)
    inside = (lens.u >= x0) & (lens.u <= x1) & (lens.v >= y0) & (lens.v <= y1)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if x1 <= x0 or y1 <= y0 or not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def nearest_hit(scene: Sequence[Placed], origin: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Return how far a world-space ray gets before it meets a surface, panes included, in lengths of `direction`."""
    found = [_cast_thing(placed, origin, direction[None], np.array([np.inf])).distance for placed in scene]
    return float(np.concatenate([*found, [np.inf]]).min())


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
        TriangleMesh(tree, mesh.vertices.astype(np.float32), mesh.faces)
        _trees[mesh] = tree
    return _trees[mesh]


def _cast_thing(
    placed: Placed, eye: NDArray[np.float64], rays: NDArray[np.float64], before: NDArray[np.float64]
) -> Hits:
    """Cast (N, 3) world-space rays, whose lengths are planar depth, onto one thing; `before` are (N,) depths so far."""
    turn = placed.matrix[:3, :3]
    origin = (eye - placed.matrix[:3, 3]) @ turn
    local = rays @ turn
    mesh = placed.mesh
    hit, face, distance = _first_hits(placed, origin, local)
    count, near = len(hit), distance < before[hit]
    if not near.all():
        hit, face, distance = hit[near], face[near], distance[near]
    ray, corners = local[hit], mesh.vertices[mesh.faces[face]]
    weights, flat = _barycentric(corners, origin + ray * distance[:, None])
    smooth = np.einsum("ijk,ij->ik", mesh.normals[mesh.faces[face]], weights)
    smooth, flat = _face_viewer(smooth, flat, ray)
    return Hits(count, hit, face, distance, weights, smooth @ turn.T, flat @ turn.T)


def _first_hits(
    placed: Placed, origin: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return which rays of a thing's own space hit it, the triangles they hit first, and the planar depths there.

    Rays go on through what is cut out, up to MAX_CUT_LAYERS times.
    """
    mesh = placed.mesh
    starts = np.broadcast_to(origin.astype(np.float32), rays.shape).copy()
    hit, face, distance = _hits_from(mesh, starts, origin, rays, np.arange(len(rays)), np.zeros(len(rays)))
    if all(surface.cutout is None for surface in placed.surfaces):
        return hit, face, distance
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for _ in range(MAX_CUT_LAYERS):
        weights, _ = _barycentric(mesh.vertices[mesh.faces[face]], origin + rays[hit] * distance[:, None])
        there = is_there(placed, face, weights)
        found.append((hit[there], face[there], distance[there]))
        through, passed = hit[~there], distance[~there]
        if not len(through):
            break
        # far enough on that single precision does not find the same triangle again
        passed = passed * (1 + 1e-5) + 1e-5
        starts = (origin + rays[through] * passed[:, None]).astype(np.float32)
        hit, face, distance = _hits_from(mesh, starts, origin, rays[through], through, passed)
    hit, face, distance = (np.concatenate(column) for column in zip(*found))
    order = np.argsort(hit)
    return hit[order], face[order], distance[order]


def _hits_from(
    mesh: Mesh,
    starts: NDArray[np.float32],
    origin: NDArray[np.float64],
    rays: NDArray[np.float64],
    numbers: NDArray[np.int64],
    passed: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the numbers of the rays that hit a mesh, the triangles, and the depths from `origin`.

    Args:
        starts: (N, 3) where the rays begin, `passed` (N,) beyond the origin; rays, numbers: (N, 3) and (N,).
    """
    found = _tree(mesh).run(starts, rays.astype(np.float32), output=1)
    hit = np.flatnonzero(found["primID"] >= 0)
    face = found["primID"][hit]
    corners = mesh.vertices[mesh.faces[face]]
    ray = rays[hit]
    flat = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = _dot(flat, ray)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = _dot(corners[:, 0] - origin, flat) / facing
    coarse = found["tfar"][hit].astype(np.float64) + passed[hit]
    # edge-on triangles have no usable plane; there Embree's own distance stands
    distance = np.where(np.abs(distance - coarse) <= 1e-3 * coarse + 1e-5, distance, coarse)
    return numbers[hit], face, distance


def _barycentric(
    corners: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (N, 3) weights of points on (N, 3, 3) triangles, and the triangles' normals, not of unit length."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = cross(ab, ac)
    offset, area = points - a, _dot(flat, flat)
    second = _dot(cross(offset, ac), flat) / area
    third = _dot(cross(ab, offset), flat) / area
    return np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1), flat


def _face_viewer(
    smooth: NDArray[np.float64], flat: NDArray[np.float64], ray: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn shading and triangle normals to the side that is seen; shading normals that still look away are replaced."""
    flat = flat / np.sqrt(_dot(flat, flat))[:, None]
    flat = np.where(_dot(flat, ray)[:, None] > 0, -flat, flat)
    length = np.sqrt(_dot(smooth, smooth))[:, None]
    smooth = np.divide(smooth, length, out=flat.copy(), where=length > 1e-6)
    smooth = np.where(_dot(smooth, flat)[:, None] < 0, -smooth, smooth)
    return np.where(_dot(smooth, ray)[:, None] >= 0, flat, smooth), flat


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) inner products of (N, 3) vectors."""
    product: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    return product
