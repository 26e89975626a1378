"""Further cameras for a scene that stands: round something that the first one sees, with a free path from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encoders.sample import Camera
from render.checks import ViewRejected
from render.meshes import Placed
from render.passes import nearest_hit
from render.recipe import Recipe, look_at, pose_matrix, thing_matrix

CLEARANCE_M = 0.3
Rng = np.random.Generator


def draw_camera(recipe: Recipe, scene: Sequence[Placed], rng: Rng) -> Camera:
    """Draw a camera with the first one's intrinsics elsewhere in the scene.

    It goes 20 to 120 degrees round a thing that the first camera sees, 0.65 to 1.35 times as far away, higher or lower
    by up to a quarter, and looks at a point near it.

    Raises:
        ViewRejected: something stands between the two cameras, or just behind the new one.
    """
    pose = pose_matrix(recipe.camera)
    eye = pose[:3, 3]
    target = _draw_target(recipe, rng)
    turn = math.radians(rng.uniform(20, 120)) * rng.choice([-1.0, 1.0])
    away = (eye - target)[:2] * rng.uniform(0.65, 1.35)
    rotated = [math.cos(turn) * away[0] - math.sin(turn) * away[1], math.sin(turn) * away[0] + math.cos(turn) * away[1]]
    new_eye = np.array([*(target[:2] + rotated), eye[2] * rng.uniform(0.75, 1.25)])
    distance = float(np.linalg.norm(new_eye - target))
    target = target + rng.uniform(-0.18, 0.18, 3) * distance * np.array([1, 1, 0.5])
    path = new_eye - eye
    length = float(np.linalg.norm(path))
    free = nearest_hit(scene, eye, path / max(length, 1e-9))
    if free < length + CLEARANCE_M:
        raise ViewRejected(f"camera blocked: the way to its place ends after {free:.2f} m of {length:.2f}")
    moved = look_at(
        (float(new_eye[0]), float(new_eye[1]), float(new_eye[2])),
        (float(target[0]), float(target[1]), float(target[2])),
        60.0, recipe.camera.width, recipe.camera.height,
    )  # fmt: skip
    return replace(recipe.camera, camera_to_world=moved.camera_to_world)


def _draw_target(recipe: Recipe, rng: Rng) -> NDArray[np.float64]:
    """Return the centre of a thing in front of the camera and inside the picture, or a point 3 m ahead."""
    camera = recipe.camera
    pose = pose_matrix(camera)
    to_camera = np.linalg.inv(pose)
    centers = []
    for thing in recipe.things:
        center = thing_matrix(thing) @ np.array([0, 0, thing.size_m[2] / 2, 1])
        x, y, z = (to_camera @ center)[:3]
        if not thing.is_thing or z > -0.3:
            continue
        u, v = camera.cx - camera.fx * x / z, camera.cy + camera.fy * y / z
        if 0 <= u <= camera.width and 0 <= v <= camera.height:
            centers.append(center[:3])
    return centers[rng.integers(len(centers))] if centers else pose[:3, 3] - 3 * pose[:3, 2]
