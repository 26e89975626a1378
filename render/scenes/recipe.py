"""What is in a scene, as pure data. World space: metres, right-handed, +z up; nothing here knows an engine.

`position_m` of a thing is the centre of the bottom of its box; the box is `size_m` (width x, depth y, height z) before
a turn of `yaw_rad` about +z; its front looks along its own -y. A recipe is drawn by `scenes.draw_recipe`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Camera
from cavendish.mixing.storage.files import digest

Rgb = tuple[float, float, float]
"""sRGB, 0..1."""
Vec3 = tuple[float, float, float]


@dataclass(frozen=True)
class Texture:
    """A procedural image: `kind` is a function of textures.py; it repeats every `size_m` metres; `side` pixels."""

    kind: str
    colors: tuple[Rgb, ...]
    size_m: float
    seed: int
    side: int = 256


@dataclass(frozen=True)
class Material:
    """`word` is what a person would call it; `color` applies where there is no texture; `emission` in W/m2/sr.

    `transmission` 1 is clear solid glass of that colour; a `see_through` pane is so thin that labels show what lies
    behind it; `coat` 0..1 is a clear varnish; `relief_m` is how deep the light and dark of the texture are felt.
    """

    word: str
    color: Rgb
    roughness: float = 0.6
    metallic: float = 0.0
    texture: Texture | None = None
    emission: float = 0.0
    transmission: float = 0.0
    see_through: bool = False
    coat: float = 0.0
    relief_m: float = 0.0


@dataclass(frozen=True)
class Thing:
    """One object or structure. `shape` is "model" (then `model` names it) or a function of shapes.py.

    `numbers` are the shape's own parameters; `materials` fill its slots (for a model: none, it has its own);
    `paint` replaces the colour of its largest surface. `rests_on` is the id of what carries it, 0 for nothing.
    `leans_on` are the ids of what else holds it.
    `tilt` is a rotation vector (axis times angle) about the centre of its bottom, applied before the turn of `yaw_rad`.
    """

    id: int
    category: str
    shape: str
    position_m: Vec3
    size_m: Vec3
    yaw_rad: float = 0.0
    model: str = ""
    numbers: tuple[float, ...] = ()
    materials: tuple[Material, ...] = ()
    paint: Rgb | None = None
    seed: int = 0
    rests_on: int = 0
    is_thing: bool = True
    tilt: Vec3 = (0.0, 0.0, 0.0)
    leans_on: tuple[int, ...] = ()


@dataclass(frozen=True)
class Light:
    """`kind`: "sun" (power in W/m2, along `direction`, `size_m` its angle), "area" (a `size_m` square facing
    `direction`, in watts) or "point" (a ball of radius `size_m`, in watts)."""

    kind: str
    color: Rgb
    power: float
    direction: Vec3
    position_m: Vec3 = (0.0, 0.0, 0.0)
    size_m: float = 1.0


@dataclass(frozen=True)
class Sky:
    """The environment: an image of the bpy wheel ("map", by `name`) or a painted one ("painted", from `colors`).

    `colors` are zenith, horizon and cloud of a painted sky; `cloudiness` 0..1; `turn_rad` rotates either about +z: the
    painted one has its sun there, `lift_rad` above the horizon.
    At `haze_m` metres 63 % of what is seen is the air between; 0 is clear air.
    """

    kind: str
    strength: float
    name: str = ""
    turn_rad: float = 0.0
    colors: tuple[Rgb, ...] = ()
    cloudiness: float = 0.0
    seed: int = 0
    haze_m: float = 0.0
    lift_rad: float = 0.0


@dataclass(frozen=True)
class Aperture:
    """A lens opening on a 36 mm wide sensor: what lies off `focus_m` (planar metres) is blurred, the more the smaller
    `f_stop` is."""

    f_stop: float
    focus_m: float


@dataclass(frozen=True)
class Recipe:
    """One scene and one camera in it; `facts` are words and numbers that hold for the whole picture.

    Without an `aperture` everything is in focus.
    """

    kind: str
    things: tuple[Thing, ...]
    lights: tuple[Light, ...]
    sky: Sky
    camera: Camera
    facts: tuple[tuple[str, str], ...] = ()
    aperture: Aperture | None = None


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as json-able data."""
    return dataclasses.asdict(recipe)


def recipe_digest(recipe: Recipe) -> str:
    """Return the sha256 of the recipe's canonical json."""
    return digest(recipe_json(recipe))


def look_at(eye_m: Vec3, target_m: Vec3, fov_deg: float, width: int, height: int, roll_rad: float = 0.0) -> Camera:
    """Place a pinhole camera: `fov_deg` is the horizontal field of view, the principal point is the image's centre."""
    eye, target = np.array(eye_m), np.array(target_m)
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = cos * right + sin * up, cos * up - sin * right
    pose[:3, 2], pose[:3, 3] = back, eye
    focal = 0.5 * width / math.tan(math.radians(fov_deg) / 2)
    values = tuple(float(round(value, 9)) for value in pose.ravel())
    return Camera(width, height, focal, focal, width / 2, height / 2, values)


def pose_matrix(camera: Camera) -> NDArray[np.float64]:
    """Return the 4x4 camera-to-world matrix."""
    return np.array(camera.camera_to_world, np.float64).reshape(4, 4)


def rotation(vector: Vec3) -> NDArray[np.float64]:
    """Return the 3x3 matrix of a rotation vector (Rodrigues' formula)."""
    x, y, z = vector
    angle = math.sqrt(x * x + y * y + z * z)
    if angle == 0:
        return np.eye(3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / angle
    turned: NDArray[np.float64] = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return turned


def thing_matrix(thing: Thing) -> NDArray[np.float64]:
    """Return the 4x4 matrix from a thing's own space (origin: centre of its bottom) to the world."""
    cos, sin = math.cos(thing.yaw_rad), math.sin(thing.yaw_rad)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    if any(thing.tilt):
        matrix[:3, :3] = matrix[:3, :3] @ rotation(thing.tilt)
    matrix[:3, 3] = thing.position_m
    return matrix
