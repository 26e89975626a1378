"""Linear light to an 8-bit image: exposure, a filmic curve, and what a real camera adds.

In this order: shake, vignette, sensor noise, white balance, JPEG.
Labels never change. All steps but the last work on linear light before the film curve. Lens distortion and depth of
field are in lens.py: they belong to the geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image

Rng = np.random.Generator
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_MIX = np.array(
    [
        [0.842479062253094, 0.0784335999999992, 0.0792237451477643],
        [0.0423282422610123, 0.878468636469772, 0.0791661274605434],
        [0.0423756549057051, 0.0784336, 0.879142973793104],
    ]
)
"""Mixes the channels before the curve, so that bright colours turn pale instead of clipping; undone after it."""
_UNMIX = np.linalg.inv(_MIX)
_DARKEST_STOP, _BRIGHTEST_STOP = -12.47393, 4.026069
SATURATION = 1.22
CONTRAST = 1.15


@dataclass(frozen=True)
class Effects:
    """Strengths of the steps; the defaults do nothing.

    Args:
        shake: (x, y) length in pixels of the straight path the picture moves along while it is exposed.
        corner_light: share of the light that reaches the corners.
        electrons: electrons that exposed light of 1 frees in a pixel (0: no noise); their number is noisy (Poisson).
        read_electrons: standard deviation of the electronics' own noise.
        gains: red, green and blue factors of a wrong white balance.
        jpeg_quality: 1 to 100, or 0 for none.
        seed: of the noise.
    """

    shake: tuple[float, float] = (0.0, 0.0)
    corner_light: float = 1.0
    electrons: float = 0.0
    read_electrons: float = 0.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    jpeg_quality: int = 0
    seed: int = 0


def draw_effects(shares: Mapping[str, float], width: int, rng: Rng) -> Effects:
    """Draw which steps a picture gets, and how strong.

    Args:
        shares: step -> share of the pictures it is done to; steps that are missing are not done.
        width: of the picture in pixels; shake is 0.3 to 1.8 % of it.
    """
    # every number is drawn whatever the shares, so that switching one step on leaves the others as they were
    done = {
        step: bool(rng.random() < shares.get(step, 0.0))
        for step in ("motion_blur", "vignette", "sensor_noise", "white_balance", "jpeg")
    }
    length, angle = width * rng.uniform(0.003, 0.018), rng.uniform(0, np.pi)
    corner = rng.uniform(0.4, 0.85)
    electrons, read = float(np.exp(rng.uniform(np.log(250), np.log(6000)))), rng.uniform(1.5, 6.0)
    warm, green = rng.uniform(-0.14, 0.14), rng.uniform(-0.04, 0.04)
    quality, seed = int(rng.integers(35, 93)), int(rng.integers(2**31))
    none = Effects()
    return Effects(
        shake=(_digits(length * np.cos(angle)), _digits(length * np.sin(angle))) if done["motion_blur"] else none.shake,
        corner_light=_digits(corner) if done["vignette"] else 1.0,
        electrons=_digits(electrons) if done["sensor_noise"] else 0.0,
        read_electrons=_digits(read) if done["sensor_noise"] else 0.0,
        gains=(_digits(np.exp(warm)), _digits(np.exp(green)), _digits(np.exp(-warm)))
        if done["white_balance"]
        else none.gains,
        jpeg_quality=quality if done["jpeg"] else 0,
        seed=seed if done["sensor_noise"] else 0,
    )


def _digits(value: Any) -> float:
    return float(f"{value:.4g}")  # what is written down is exactly what was done


def take_picture(light: NDArray[Any], exposure: float, effects: Effects) -> UInt8Image:
    """Turn (H, W, 3) linear light into an 8-bit picture, as a camera with these faults would.

    Without effects it is `develop(light, exposure)`. The same effects give equal light equal pixels.
    """
    picture = develop(disturb(light, exposure, effects), exposure)
    return picture if effects.jpeg_quality == 0 else _through_jpeg(picture, effects.jpeg_quality)


def disturb(light: NDArray[Any], exposure: float, effects: Effects) -> NDArray[Any]:
    """Do all steps but JPEG to (H, W, 3) linear light; `exposure` times light is what the electrons are counted of."""
    if effects.shake != (0.0, 0.0):
        kernel = shake_kernel(effects.shake)
        light = cv2.filter2D(light.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REPLICATE)
    if effects.corner_light < 1:
        light = light * vignette(light.shape[0], light.shape[1], effects.corner_light)[..., None]
    if effects.electrons > 0:
        rng = np.random.default_rng(effects.seed)
        electrons = np.maximum(light.astype(np.float64), 0) * exposure * effects.electrons
        # normal draws, not Poisson's: two pictures that differ in one thing have the same noise everywhere else
        noise = np.sqrt(electrons + effects.read_electrons**2) * rng.standard_normal(light.shape)
        light = (electrons + noise) / (exposure * effects.electrons)
    if effects.gains != (1.0, 1.0, 1.0):
        light = light * np.array(effects.gains)
    return light


def shake_kernel(shake: tuple[float, float]) -> NDArray[np.float32]:
    """Return the odd-sided kernel, of sum 1, of a straight path of this (x, y) length, centred on the middle pixel."""
    reach = int(np.ceil(max(abs(shake[0]), abs(shake[1])) / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float64)
    for step in np.linspace(-0.5, 0.5, 64):
        x, y = reach + step * shake[0], reach + step * shake[1]
        left, top = int(np.floor(x)), int(np.floor(y))
        for row, tall in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, wide in ((left, 1 - (x - left)), (left + 1, x - left)):
                kernel[row, column] += tall * wide
    whole: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return whole


def vignette(height: int, width: int, corner_light: float) -> NDArray[np.float64]:
    """Return (H, W) factors, 1 in the middle and `corner_light` in the corners: the cos^4 law of a simple lens."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    squared = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / ((width / 2) ** 2 + (height / 2) ** 2)
    factors: NDArray[np.float64] = (1 + (corner_light**-0.5 - 1) * squared) ** -2.0
    return factors


def _through_jpeg(picture: UInt8Image, quality: int) -> UInt8Image:
    good, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def effects_record(effects: Effects) -> dict[str, Any]:
    """Return the steps that were done, json-able; empty when none was."""
    none = Effects()
    return {name: value for name, value in asdict(effects).items() if value != getattr(none, name)}


def find_exposure(light: NDArray[Any]) -> float:
    """Return the factor that puts a picture's middle tones at middle grey without burning its bright parts."""
    luma = light.astype(np.float64) @ _LUMA
    middle = float(np.exp(np.mean(np.log(np.maximum(luma, 1e-4)))))
    bright = float(np.percentile(luma, 95))
    return float(np.clip(min(0.28 / max(middle, 1e-4), 2.6 / max(bright, 1e-4)), 0.02, 60.0))


def develop(light: NDArray[Any], exposure: float) -> UInt8Image:
    """Expose (H, W, 3) linear light, bend it by a filmic curve and encode it for display (sRGB).

    Source: AgX (Sobotka), in the polynomial fit of Wrensch, 2023, "Minimal AgX Implementation".
    """
    mixed = np.maximum(light.astype(np.float64) * exposure, 0) @ _MIX.T
    stops = np.log2(np.maximum(mixed, 2.0**_DARKEST_STOP))
    x = np.clip((stops - _DARKEST_STOP) / (_BRIGHTEST_STOP - _DARKEST_STOP), 0, 1)
    curve = np.polyval((15.5, -40.14, 31.96, -6.868, 0.4298, 0.1191, -0.00232), x)
    toned = np.clip(curve, 0, 1) ** CONTRAST
    grey = (toned @ _LUMA)[..., None]
    shown = (grey + SATURATION * (toned - grey)) @ _UNMIX.T
    pixels: UInt8Image = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels
