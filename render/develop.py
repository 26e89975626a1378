"""Linear light to an 8-bit picture: exposure and a filmic curve, the same for both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.sample import UInt8Image
from render.skies import linear_to_srgb

_LUMA = np.array([0.2126, 0.7152, 0.0722])


def find_exposure(light: NDArray[Any]) -> float:
    """Return the factor that puts a picture's middle tones at middle grey without burning its bright parts."""
    luma = light.astype(np.float64) @ _LUMA
    middle = float(np.exp(np.mean(np.log(np.maximum(luma, 1e-4)))))
    bright = float(np.percentile(luma, 95))
    return float(np.clip(min(0.32 / max(middle, 1e-4), 1.5 / max(bright, 1e-4)), 0.02, 60.0))


def develop(light: NDArray[Any], exposure: float) -> UInt8Image:
    """Expose (H, W, 3) linear light, bend it by a filmic curve and encode it as sRGB.

    Source: the curve is the fit of the ACES reference transform by Narkowicz, 2015.
    """
    x = np.maximum(light.astype(np.float64) * (exposure * 0.62), 0)
    toned = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    return (np.clip(linear_to_srgb(toned), 0, 1) * 255 + 0.5).astype(np.uint8)
