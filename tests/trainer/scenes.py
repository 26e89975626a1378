"""Analytic scenes with exact depth, normals and ids: a floor, a wall, spheres and boxes, cast with numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Camera, Edit, Instance, Sample

COLORS = {
    "red": (205, 40, 40),
    "green": (45, 160, 60),
    "blue": (45, 75, 205),
    "yellow": (225, 200, 45),
    "orange": (230, 125, 30),
    "purple": (130, 55, 165),
}
FOV_DEG = 55.0


@dataclass(frozen=True)
class Body:
    """A sphere (half side = radius) or an axis-aligned cube standing on the floor; centre in metres."""

    category: str
    color: str
    center: tuple[float, float, float]
    half_m: float


@dataclass(frozen=True)
class Scene:
    bodies: tuple[Body, ...]
    floor_rgb: NDArray[np.float64]
    wall_rgb: NDArray[np.float64]
    wall_z: float
    eye_height_m: float
    light: NDArray[np.float64]


def random_scene(rng: np.random.Generator) -> Scene:
    """Two or three bodies side by side on a grey floor before a wall."""
    names = rng.permutation(sorted(COLORS))
    count = int(rng.integers(2, 4))
    bodies = []
    for i in range(count):
        half = float(rng.uniform(0.35, 0.75))
        x = (i - (count - 1) / 2) * 1.7 + float(rng.uniform(-0.3, 0.3))
        z = -float(rng.uniform(3.5, 6.0))
        bodies.append(Body(("ball", "box")[int(rng.integers(2))], str(names[i]), (x, half, z), half))
    light = np.array([rng.uniform(-1, 1), rng.uniform(0.6, 1.2), rng.uniform(0.5, 1.2)])
    return Scene(
        bodies=tuple(bodies),
        floor_rgb=rng.uniform(90, 150) + rng.uniform(-15, 15, 3),
        wall_rgb=rng.uniform(130, 215) + rng.uniform(-25, 25, 3),
        wall_z=-float(rng.uniform(7, 10)),
        eye_height_m=float(rng.uniform(1.2, 2.0)),
        light=light / np.linalg.norm(light),
    )


def _hit_ball(
    eye: NDArray[np.float64], rays: NDArray[np.float64], body: Body
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    offset = eye - np.array(body.center)
    b = rays @ offset
    a = (rays**2).sum(-1)
    under = b**2 - a * (offset @ offset - body.half_m**2)
    t = np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / a, np.inf)
    normals = (offset + np.where(np.isfinite(t), t, 0)[..., None] * rays) / body.half_m
    return t, normals


def _hit_box(
    eye: NDArray[np.float64], rays: NDArray[np.float64], body: Body
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    safe = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    low = (np.array(body.center) - body.half_m - eye) / safe
    high = (np.array(body.center) + body.half_m - eye) / safe
    near = np.minimum(low, high)
    enter = near.max(-1)
    t = np.where((enter < np.maximum(low, high).min(-1)) & (enter > 0), enter, np.inf)
    axis = np.eye(3)[near.argmax(-1)]
    return t, -np.sign(rays) * axis


def _cast(scene: Scene, size: int) -> tuple[NDArray[np.float64], ...]:
    """Return image, depth, normals and ids; ids 1 floor, 2 wall, 3.. bodies. Rays have z = -1, so t is planar depth."""
    tangent = np.tan(np.radians(FOV_DEG / 2))
    grid = ((np.arange(size) + 0.5) / size * 2 - 1) * tangent
    x, y = np.meshgrid(grid, -grid)
    rays = np.stack([x, y, -np.ones_like(x)], -1)
    eye = np.array([0.0, scene.eye_height_m, 0.0])
    floor_t = np.where(rays[..., 1] < 0, -eye[1] / np.minimum(rays[..., 1], -1e-9), np.inf)
    surfaces = [
        (floor_t, np.broadcast_to((0.0, 1.0, 0.0), rays.shape), scene.floor_rgb),
        (np.full_like(x, -scene.wall_z), np.broadcast_to((0.0, 0.0, 1.0), rays.shape), scene.wall_rgb),
    ]
    for body in scene.bodies:
        t, normals = (_hit_ball if body.category == "ball" else _hit_box)(eye, rays, body)
        surfaces.append((t, normals, np.array(COLORS[body.color], float)))
    nearest = np.stack([t for t, _, _ in surfaces]).argmin(0)[None]
    depth = np.take_along_axis(np.stack([t for t, _, _ in surfaces]), nearest, 0)[0]
    normals = np.take_along_axis(np.stack([n for _, n, _ in surfaces]), nearest[..., None], 0)[0]
    color = np.stack([c for _, _, c in surfaces])[nearest[0]]
    image = color * (0.45 + 0.55 * np.clip(normals @ scene.light, 0, 1))[..., None]
    return np.clip(image, 0, 255), depth, normals, nearest[0] + 1


def _instances(scene: Scene, ids: NDArray[np.uint16]) -> tuple[Instance, ...]:
    names = [("floor", {}), ("wall", {}), *((body.category, {"color": body.color}) for body in scene.bodies)]
    found = []
    for i, (category, attributes) in enumerate(names, start=1):
        rows, columns = np.nonzero(ids == i)
        if rows.size:
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            found.append(Instance(i, category, int(rows.size), box, attributes, is_thing=i > 2))
    return tuple(found)


def analytic_sample(key: str, seed: int, size: int = 64) -> Sample:
    """Cast the scene of `seed` with all targets, a caption and a recolour or remove edit."""
    rng = np.random.default_rng([seed, 7])
    scene = random_scene(rng)
    image, depth, normals, ids = _cast(scene, size)
    body = scene.bodies[0]
    others = scene.bodies[1:]
    if rng.integers(2):
        free = sorted(set(COLORS) - {b.color for b in scene.bodies})
        new = str(rng.choice(free))
        others = (Body(body.category, new, body.center, body.half_m), *others)
        kind, text = "recolor", f"make the {body.color} {body.category} {new}"
    else:
        kind, text = "remove", f"remove the {body.color} {body.category}"
    edited = _cast(Scene(others, scene.floor_rgb, scene.wall_rgb, scene.wall_z, scene.eye_height_m, scene.light), size)
    words = " and ".join(f"a {b.color} {b.category}" for b in scene.bodies)
    focal = size / 2 / np.tan(np.radians(FOV_DEG / 2))
    ids_u16 = ids.astype(np.uint16)
    return Sample(
        key=key,
        image=np.rint(image).astype(np.uint8),
        source="analytic",
        licence="CC0-1.0",
        depth_m=depth.astype(np.float32),
        normals=normals.astype(np.float32),
        instance_ids=ids_u16,
        instances=_instances(scene, ids_u16),
        exhaustive=True,
        camera=Camera(size, size, focal, focal, size / 2, size / 2),
        captions=(f"{words} on a floor",),
        edit=Edit(kind, text, 3, np.rint(edited[0]).astype(np.uint8)),
    )
