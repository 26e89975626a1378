"""A lens that is no pinhole: radial distortion after Brown and Conrady, as OpenCV's `distCoeffs` (k1, k2, 0, 0, 0).

An ideal point (x, y) = (X / -Z, Y / -Z) at distance r from the axis is seen at (x, y) (1 + k1 r^2 + k2 r^4), in units
of the focal length. Rays are cast along the bent directions themselves, so labels are exact at pixel centres; only
the picture is resampled, from a pinhole picture with a field of view just wide enough to hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Camera
from cavendish.render.scenes.recipe import Aperture

Floats = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Distortion:
    """Radial coefficients: negative k1 is a barrel, positive a pincushion."""

    k1: float
    k2: float


@dataclass(frozen=True, eq=False)
class BentLens:
    """A camera with distortion: the wider pinhole camera its picture comes from, and where each pixel lies in there.

    Args:
        distortion: of the camera the picture is for.
        source: pinhole camera of the same size and pose.
        u, v: (H, W) position of each pixel's centre in the source's picture, in pixels from its top left corner.
    """

    distortion: Distortion
    source: Camera
    u: Floats
    v: Floats


def draw_distortion(camera: Camera, rng: Rng) -> Distortion:
    """Draw a barrel (3 of 4 times) or a pincushion: what lies in the corner moves by up to 8 % of its distance."""
    corner = _corner(camera)
    shift = rng.uniform(0.015, 0.08) * (-1 if rng.random() < 0.75 else 0.5)
    fourth = rng.uniform(-0.2, 0.2)
    return Distortion(
        float(f"{shift * (1 - fourth) / corner**2:.6g}"), float(f"{shift * fourth / corner**4:.6g}")
    )  # rounded, so that what is written down is exactly what was done


def draw_aperture(depth_m: Floats, instance_ids: NDArray[np.uint16], things: Sequence[int], rng: Rng) -> Aperture:
    """Draw an opening, f/1.8 to f/8, with the focus on one of the things that cover at least 1 % of the picture.

    Args:
        depth_m: (H, W) planar metres; instance_ids: (H, W).
        things: ids of what may be in focus; without one of them in the picture it is the middle of all depths.
    """
    counts = np.bincount(instance_ids.ravel(), minlength=max(things, default=0) + 1)
    clear = [number for number in things if counts[number] >= 0.01 * instance_ids.size]
    chosen = int(rng.integers(len(clear))) if clear else 0
    mask = instance_ids == clear[chosen] if clear else np.isfinite(depth_m)
    f_stop = float(rng.choice([1.8, 2.8, 4.0, 5.6, 8.0]))
    return Aperture(f_stop, float(f"{np.median(depth_m[mask]):.4g}"))


def _corner(camera: Camera) -> float:
    """Return the largest distance from the axis of the picture's corners, in units of the focal length."""
    x = max(camera.cx, camera.width - camera.cx) / camera.fx
    y = max(camera.cy, camera.height - camera.cy) / camera.fy
    return float(np.hypot(x, y))


def distort(x: Floats, y: Floats, distortion: Distortion) -> tuple[Floats, Floats]:
    """Return where ideal points are seen, in units of the focal length."""
    squared = x * x + y * y
    factor = 1 + distortion.k1 * squared + distortion.k2 * squared * squared
    return x * factor, y * factor


def undistort(x: Floats, y: Floats, distortion: Distortion) -> tuple[Floats, Floats]:
    """Undo `distort`, by Newton's method on the distance from the axis, to 1e-12.

    Raises:
        ValueError: a point that no ray comes to: the distortion folds over before it.
    """
    seen = np.hypot(x, y)
    ideal = seen.copy()
    for _ in range(30):
        squared = ideal * ideal
        error = ideal * (1 + distortion.k1 * squared + distortion.k2 * squared * squared) - seen
        slope = 1 + 3 * distortion.k1 * squared + 5 * distortion.k2 * squared * squared
        if slope.min() <= 0.05:
            raise ValueError(f"distortion k1 {distortion.k1:g}, k2 {distortion.k2:g} folds over within the picture")
        ideal = ideal - error / slope
        if np.abs(error).max() < 1e-13:
            break
    factor = np.divide(ideal, seen, out=np.ones_like(seen), where=seen > 0)
    return x * factor, y * factor


def bend(camera: Camera, distortion: Distortion) -> BentLens:
    """Return the lens of `camera` with a distortion; its source is as wide as it has to be and no wider than that."""
    x = np.broadcast_to((np.arange(camera.width) + 0.5 - camera.cx) / camera.fx, (camera.height, camera.width))
    y = np.broadcast_to((np.arange(camera.height) + 0.5 - camera.cy)[:, None] / camera.fy, x.shape)
    x, y = undistort(x, y, distortion)
    # half a pixel of the source beyond the outermost point, so that interpolation has neighbours on both sides
    reach_x = max(-x.min() / (camera.cx - 0.5), x.max() / (camera.width - camera.cx - 0.5)) * camera.fx
    reach_y = max(-y.min() / (camera.cy - 0.5), y.max() / (camera.height - camera.cy - 0.5)) * camera.fy
    scale = 1 / max(reach_x, reach_y)
    source = replace(camera, fx=camera.fx * scale, fy=camera.fy * scale)
    return BentLens(distortion, source, source.cx + source.fx * x, source.cy + source.fy * y)


def see_through_lens(light: NDArray[Any], lens: BentLens) -> NDArray[Any]:
    """Return the (H, W, 3) picture that the lens makes of its source's picture, interpolated bilinearly."""
    u, v = (position.astype(np.float32) - np.float32(0.5) for position in (lens.u, lens.v))
    bent: NDArray[Any] = cv2.remap(light.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return bent
