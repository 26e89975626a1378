"""Linear light to an 8-bit picture: exposure and a filmic curve, the same for both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image

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
