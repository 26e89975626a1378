"""Reads a user's environment maps (Radiance HDR, OpenEXR) to the size and brightness that scenes use."""

from __future__ import annotations

import hashlib
import re

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.render.assets.folders import OwnFile, read_limited

MAX_MAP_PIXELS = 8192 * 4096
OWN_MAP_RADIANCE = 0.6
"""Mean over the sphere; that of the daylight maps of the bpy wheel is 0.5 to 0.8."""


def load_environment(file: OwnFile) -> tuple[NDArray[np.float32], str]:
    """Read an environment map to (512, 1024, 3) float32 linear radiance, and its sha256.

    The mean radiance is set to OWN_MAP_RADIANCE times `strength`: files of different makers have units of their own.

    Raises:
        InputError: damaged, too large, not twice as wide as high, not finite, or black.
    """
    data = read_limited(file.path, file.root)
    width, height = _exr_size(data) if file.path.suffix.lower() == ".exr" else _hdr_size(data)
    if not (0 < width * height <= MAX_MAP_PIXELS):
        raise InputError(f"{width}x{height} is no size for an environment map (at most {MAX_MAP_PIXELS} pixels)")
    if not 1.9 <= width / height <= 2.1:
        raise InputError(f"{width}x{height} is not equirectangular: twice as wide as high is expected")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] < 3:
        raise InputError("not readable as an HDR or EXR image with three colours")
    pixels = pixels[..., 2::-1].astype(np.float32)
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise InputError("it has values that are negative or not finite")
    small = cv2.resize(pixels, (1024, 512), interpolation=cv2.INTER_AREA if width > 1024 else cv2.INTER_LINEAR)
    around = np.cos(((np.arange(512) + 0.5) / 512 - 0.5) * np.pi)
    mean = float((small.mean(axis=(1, 2), dtype=np.float64) * around).sum() / around.sum())
    if mean <= 0:
        raise InputError("it is black")
    digest = hashlib.sha256(data).hexdigest()
    return np.ascontiguousarray(small * np.float32(OWN_MAP_RADIANCE * file.strength / mean)), digest


def _hdr_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of a Radiance file."""
    head = data[:4096]
    match = re.search(rb"\n-Y (\d{1,6}) \+X (\d{1,6})\n", head)
    if not head.startswith((b"#?RADIANCE", b"#?RGBE")) or match is None:
        raise InputError("not a Radiance picture (#?RADIANCE, -Y height +X width)")
    return int(match[2]), int(match[1])


def _exr_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of an OpenEXR file. Source: OpenEXR file layout, "dataWindow"."""
    at = data.find(b"dataWindow\0box2i\0\x10\0\0\0", 0, 65536)
    if not data.startswith(b"\x76\x2f\x31\x01") or at < 0:
        raise InputError("not an OpenEXR picture")
    x0, y0, x1, y1 = np.frombuffer(data, "<i4", 4, at + 21).astype(np.int64)
    return int(x1 - x0 + 1), int(y1 - y0 + 1)
