"""Further cameras for a scene that stands: round something that the first one sees, with a free path from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Camera
from cavendish.render.geometry.mesh import Placed
from cavendish.render.labels.checks import ViewRejected
from cavendish.render.labels.passes import nearest_hit
from cavendish.render.scenes.recipe import Recipe, Vec3, look_at, pose_matrix, thing_matrix

CLEARANCE_M = 0.3
PLACES = 16
Rng = np.random.Generator


def draw_camera(recipe: Recipe, scene: Sequence[Placed], rng: Rng) -> Camera:
    """Draw a camera with the first one's intrinsics elsewhere in the scene.

    It goes 20 to 120 degrees round a thing that the first camera sees, 0.65 to 1.35 times as far away, higher or lower
    by up to a quarter, and looks at a point near it. Of `PLACES` draws the first with a free way from the first camera
    counts: so it stays on this side of walls, floors and window panes.

    Raises:
        ViewRejected: none has.
    """
    eye = pose_matrix(recipe.camera)[:3, 3]
    for _ in range(PLACES):
        place, target = _draw_place(recipe, eye, rng)
        path = np.array(place) - eye
        length = float(np.linalg.norm(path))
        if nearest_hit(scene, eye, path / max(length, 1e-9)) >= length + CLEARANCE_M:
            moved = look_at(place, target, 60.0, recipe.camera.width, recipe.camera.height)
            return replace(recipe.camera, camera_to_world=moved.camera_to_world)
    raise ViewRejected(f"camera blocked: something stands in the way to each of {PLACES} places")


def _draw_place(recipe: Recipe, eye: NDArray[np.float64], rng: Rng) -> tuple[Vec3, Vec3]:
    """Return where a camera could be, and what point it would look at."""
    target = _draw_target(recipe, rng)
    turn = math.radians(rng.uniform(20, 120)) * rng.choice([-1.0, 1.0])
    x, y = (eye - target)[:2] * rng.uniform(0.65, 1.35)
    cos, sin = math.cos(turn), math.sin(turn)
    place = np.array([target[0] + cos * x - sin * y, target[1] + sin * x + cos * y, eye[2] * rng.uniform(0.75, 1.25)])
    off = rng.uniform(-0.18, 0.18, 3) * np.array([1, 1, 0.5]) * np.linalg.norm(place - target)
    return tuple(place.tolist()), tuple((target + off).tolist())


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
    return one_of(centers, rng) if centers else pose[:3, 3] - 3 * pose[:3, 2]
