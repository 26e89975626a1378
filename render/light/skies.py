"""Skies, suns and air by the hour; environment images, (H, W, 3) float32 linear radiance, equirectangular, top row up.

A direction (x, y, z) of the world is at column (atan2(y, -x) / 2 pi + 1/2) W and row (1/2 - asin(z) / pi) H.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.render.assets.catalogue import load_map
from cavendish.render.geometry.mesh import srgb_to_linear
from cavendish.render.geometry.textures import cloud
from cavendish.render.labels.passes import camera_rays
from cavendish.render.scenes.layout import rounded
from cavendish.render.scenes.recipe import Light, Recipe, Rgb, Sky

MAX_RADIANCE = 40.0
"""Brighter points of an environment map are cut to this: they would cost samples as fireflies."""
HEIGHT, WIDTH = 384, 768
CLOUD_SIDE = 512
Rng = np.random.Generator


@lru_cache(maxsize=4)
def environment(sky: Sky) -> NDArray[np.float32]:
    """Return the environment image of a sky, turned and scaled."""
    pixels = np.minimum(load_map(sky.name), MAX_RADIANCE) if sky.kind == "map" else _painted(sky)
    if sky.kind == "map":
        columns = round(sky.turn_rad / (2 * np.pi) * pixels.shape[1])
        pixels = np.roll(pixels, columns, axis=1)
    return np.ascontiguousarray(pixels * np.float32(sky.strength), np.float32)


def _painted(sky: Sky) -> NDArray[np.float32]:
    """Paint a gradient from horizon to zenith, a glow round the sun, lit clouds on a plane overhead, a dim ground."""
    zenith, horizon, cloud_color = (srgb_to_linear(np.array(color)).astype(np.float32) for color in sky.colors)
    directions = _upper_directions()
    up = directions[..., 2]
    image = horizon + (zenith - horizon) * (1 - np.exp(-3.2 * up))[..., None]
    flat = np.array([np.sin(sky.turn_rad), np.cos(sky.turn_rad)]) * np.cos(sky.lift_rad)
    toward = np.clip(directions @ np.array([*flat, np.sin(sky.lift_rad)], np.float32), 0, 1)
    glow = (0.5 * toward**12 + 1.2 * toward**120) * (1 - 0.7 * sky.cloudiness)
    image = image * (1 + 0.25 * toward * (1 - up))[..., None] + glow[..., None] * horizon
    cover, lit = _clouds(sky, directions, flat)
    white = cloud_color * (0.66 + 0.5 * lit + 0.35 * toward**6)[..., None]
    image = image + (white - image) * cover[..., None]
    ground = np.broadcast_to(0.3 * horizon + 0.02 * float(horizon.max()), image.shape)
    return np.concatenate([image, ground])


@cache
def _upper_directions() -> NDArray[np.float32]:
    return pixel_directions(HEIGHT, WIDTH)[: HEIGHT // 2].astype(np.float32)


def _clouds(
    sky: Sky, directions: NDArray[np.float32], toward_sun: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how much the clouds hide of each direction, and how brightly they are lit, 0..1."""
    rng = np.random.default_rng([sky.seed, 9])
    noise = (0.8 * cloud(rng, 2.0, side=CLOUD_SIDE) + 0.2 * cloud(rng, 1.3, side=CLOUD_SIDE)).astype(np.float32)
    threshold = np.float32(0.78 - 0.62 * sky.cloudiness)
    thickness = np.clip((noise - threshold) * 4, 0, 1)
    shift = np.rint(6 * toward_sun / max(float(np.linalg.norm(toward_sun)), 1e-6)).astype(int)
    shade = thickness - 0.7 * np.roll(cv2.blur(thickness, (9, 9)), (-shift[1], -shift[0]), axis=(0, 1))
    up = directions[..., 2]
    plane = directions[..., :2] / (up + 0.08)[..., None] * np.float32(0.13 * CLOUD_SIDE)
    x, y = (np.ascontiguousarray(plane[..., axis] % CLOUD_SIDE) for axis in range(2))
    cover, light = (
        cv2.remap(layer, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        for layer in (thickness, np.clip(0.5 + shade, 0, 1).astype(np.float32))
    )
    return (cover * np.clip(up * 14, 0, 1)).astype(np.float32), light.astype(np.float32)


def add_haze(light: NDArray[Any], depth_m: NDArray[np.float64], recipe: Recipe) -> NDArray[Any]:
    """Lay the air of the horizon's colour over what is far away; the sky itself has its own."""
    sky = recipe.sky
    if sky.haze_m == 0:
        return light
    distance = depth_m * np.linalg.norm(camera_rays(recipe.camera), axis=-1)
    passed = np.where(np.isfinite(depth_m), np.exp(-distance / sky.haze_m), 1.0)[..., None]
    air = srgb_to_linear(np.array(sky.colors[1])) * sky.strength * 0.9
    hazy: NDArray[Any] = light * passed + air * (1 - passed)
    return hazy


def pixel_directions(height: int, width: int) -> NDArray[np.float64]:
    """Return (H, W, 3) unit directions of the pixels of an equirectangular image."""
    around = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    lift = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    flat = np.cos(lift)[:, None]
    return np.stack(
        [-flat * np.cos(around), flat * np.sin(around), np.broadcast_to(np.sin(lift)[:, None], (height, width))],
        axis=-1,
    )


def radiance(image: NDArray[np.float32], directions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Look up (..., 3) world directions, bilinearly."""
    height, width = image.shape[:2]
    unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    column = (np.arctan2(unit[..., 1], -unit[..., 0]) / (2 * np.pi) + 0.5) * width - 0.5
    row = np.clip((0.5 - np.arcsin(np.clip(unit[..., 2], -1, 1)) / np.pi) * height - 0.5, 0, height - 1)
    x0, y0 = np.floor(column).astype(int), np.floor(row).astype(int)
    fx, fy = (column - x0)[..., None].astype(np.float32), (row - y0)[..., None].astype(np.float32)
    y1, x1 = np.minimum(y0 + 1, height - 1), (x0 + 1) % width
    x0 = x0 % width
    above = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    below = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    found: NDArray[np.float32] = above * (1 - fy) + below * fy
    return found


def irradiance(coefficients: NDArray[np.float64], normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (..., 3) irradiance / pi on surfaces with these world normals, from `harmonic_light`.

    Source: Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps".
    """
    return np.maximum(_harmonics(normals) @ coefficients.astype(normals.dtype), 0.0)


def harmonic_light(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the (9, 3) coefficients of an environment's irradiance / pi."""
    step = max(1, image.shape[0] // 64)
    small = image.reshape(image.shape[0] // step, step, image.shape[1] // step, step, 3).mean(
        axis=(1, 3), dtype=np.float64
    )
    weighted = _weighted_harmonics(*small.shape[:2])
    coefficients = weighted.reshape(-1, 9).T @ small.reshape(-1, 3)
    convolved: NDArray[np.float64] = coefficients * np.array([1.0, *[2 / 3] * 3, *[1 / 4] * 5])[:, None]
    return convolved


@lru_cache(maxsize=4)
def _weighted_harmonics(height: int, width: int) -> NDArray[np.float64]:
    """Return (H, W, 9): the harmonics at the pixels of an equirectangular image, times the solid angle of each."""
    directions = pixel_directions(height, width)
    weight = np.sqrt(1 - directions[..., 2] ** 2)
    weight *= 4 * np.pi / weight.sum()
    weighted: NDArray[np.float64] = _harmonics(directions) * weight[..., None]
    return weighted


def _harmonics(d: NDArray[Any]) -> NDArray[Any]:
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    return np.stack(
        [
            np.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
            0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )  # fmt: skip


@dataclass(frozen=True)
class Weather:
    """Zenith, horizon and cloud colour; sky strength; the sun's colour, range of heights in degrees and power."""

    colors: tuple[Rgb, Rgb, Rgb]
    strength: float
    sun: Rgb
    lift_deg: tuple[float, float]
    power: float
    cloudiness: tuple[float, float]
    haze_m: tuple[float, float]


WEATHERS: Mapping[str, Weather] = {
    "clear": Weather(
        ((0.22, 0.42, 0.74), (0.72, 0.82, 0.92), (0.98, 0.98, 0.98)), 0.9, (1.0, 0.94, 0.84), (26, 66), 4.4, (0.0, 0.6),
        (1500, 6000),
    ),
    "hazy": Weather(
        ((0.46, 0.60, 0.78), (0.84, 0.87, 0.89), (0.95, 0.95, 0.96)), 1.0, (1.0, 0.92, 0.80), (22, 55), 3.0, (0.1, 0.5),
        (350, 900),
    ),
    "overcast": Weather(
        ((0.62, 0.66, 0.71), (0.80, 0.82, 0.84), (0.88, 0.89, 0.90)), 1.1, (1.0, 1.0, 1.0), (40, 70), 0.35, (0.85, 1.0),
        (500, 2000),
    ),
    "low sun": Weather(
        ((0.30, 0.42, 0.66), (0.90, 0.78, 0.66), (0.98, 0.88, 0.80)), 0.7, (1.0, 0.76, 0.52), (9, 22), 3.6, (0.2, 0.75),
        (600, 2500),
    ),
    "dusk": Weather(
        ((0.14, 0.20, 0.40), (0.86, 0.56, 0.44), (0.50, 0.42, 0.50)), 0.25, (1.0, 0.5, 0.3), (1.5, 4), 0.16, (0.2, 0.6),
        (800, 2500),
    ),
    "night": Weather(
        ((0.05, 0.07, 0.14), (0.20, 0.18, 0.20), (0.22, 0.20, 0.22)), 0.16, (0.6, 0.7, 1.0), (20, 50), 0.012,
        (0.2, 0.8),
        (1500, 4000),
    ),
}  # fmt: skip


def weather_of(hour: str, rng: Rng) -> str:
    """Draw the weather of an hour."""
    return str(rng.choice(["clear", "clear", "hazy"])) if hour == "day" else hour


def draw_weather(rng: Rng, name: str) -> tuple[Light, Sky]:
    """Draw the sun and the sky of a weather."""
    weather = WEATHERS[name]
    lift = math.radians(float(rng.uniform(*weather.lift_deg)))
    turn = float(rng.uniform(-math.pi, math.pi))
    direction = rounded((-math.cos(lift) * math.sin(turn), -math.cos(lift) * math.cos(turn), -math.sin(lift)))
    sun = Light("sun", weather.sun, weather.power, direction, size_m=0.009 if weather.power > 1 else 0.3)
    cloudiness = round(float(rng.uniform(*weather.cloudiness)), 3)
    sky = Sky(
        "painted", weather.strength, "", round(turn, 4), weather.colors, cloudiness, int(rng.integers(1 << 30)),
        round(float(rng.uniform(*weather.haze_m)), 1), round(lift, 4),
    )  # fmt: skip
    return sun, sky
