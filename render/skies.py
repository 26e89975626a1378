"""Environments as images: (H, W, 3) float32 linear radiance, equirectangular, top row is up; the mapping Blender uses.

A direction (x, y, z) of the world is at column (atan2(y, -x) / 2 pi + 1/2) W and row (1/2 - asin(z) / pi) H.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.assets import load_map
from render.recipe import Sky
from render.textures import cloud

MAX_RADIANCE = 40.0
"""Brighter points of an environment map are cut to this: they would cost samples as fireflies."""
HEIGHT, WIDTH = 256, 512


@lru_cache(maxsize=4)
def environment(sky: Sky) -> NDArray[np.float32]:
    """Return the environment image of a sky, turned and scaled."""
    pixels = np.minimum(load_map(sky.name), MAX_RADIANCE) if sky.kind == "map" else _painted(sky)
    if sky.kind == "map":
        columns = round(sky.turn_rad / (2 * np.pi) * pixels.shape[1])
        pixels = np.roll(pixels, columns, axis=1)
    return np.ascontiguousarray(pixels * np.float32(sky.strength), np.float32)


def srgb_to_linear(color: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _painted(sky: Sky) -> NDArray[np.float64]:
    """Paint a gradient from horizon to zenith, clouds on a plane overhead, haze low down, and a dim ground below."""
    zenith, horizon, cloud_color = (srgb_to_linear(np.array(color)) for color in sky.colors)
    directions = pixel_directions(HEIGHT, WIDTH)
    up = np.maximum(directions[..., 2], 0.0)
    image = horizon + (zenith - horizon) * (1 - np.exp(-4.0 * up))[..., None]
    noise = cloud(np.random.default_rng([sky.seed, 9]), 1.9)
    plane = directions[..., :2] / (up + 0.12)[..., None] * 0.12
    column, row = (np.floor(plane[..., axis] * 256).astype(int) % 256 for axis in range(2))
    cover = np.clip((noise[row, column] - (1 - 0.75 * sky.cloudiness)) * 5, 0, 1) * np.clip(up * 9, 0, 1)
    image = image + (cloud_color * 1.1 - image) * (0.85 * cover)[..., None]
    toward = directions @ np.array([np.cos(sky.turn_rad - np.pi / 2), -np.sin(sky.turn_rad - np.pi / 2), 0.0])
    image = image * (1 + 0.25 * np.clip(toward, 0, 1) * (1 - up))[..., None]
    below = directions[..., 2:] < -0.01
    return np.where(below, 0.3 * horizon + 0.02, image)


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
    directions = pixel_directions(*small.shape[:2])
    weight = np.sqrt(1 - directions[..., 2] ** 2)
    weight *= 4 * np.pi / weight.sum()
    coefficients = np.einsum("hwk,hwc,hw->kc", _harmonics(directions), small, weight, optimize=True)
    convolved: NDArray[np.float64] = coefficients * np.array([1.0, *[2 / 3] * 3, *[1 / 4] * 5])[:, None]
    return convolved


def _harmonics(d: NDArray[Any]) -> NDArray[Any]:
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    return np.stack(
        [
            np.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
            0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )  # fmt: skip
