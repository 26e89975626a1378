"""Pixels to bytes and back for shards: PNG only for targets, sizes checked before anything is decoded."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.sample import InputError, UInt8Image

MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 or uint16 as PNG, without loss."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"PNG holds uint8 or uint16, not {pixels.dtype}")
    channels_last = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", np.ascontiguousarray(channels_last), (cv2.IMWRITE_PNG_COMPRESSION, 3))
    if not done:
        raise InputError(f"could not encode an array of shape {pixels.shape} as PNG")
    return data.tobytes()


def _check_header(data: bytes, name: str) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            width, height = header.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: not a readable PNG, JPEG or WebP image: {error}") from None
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width}x{height} is over the limit of {MAX_PIXELS} pixels")


def decode_rgb(data: bytes, name: str) -> UInt8Image:
    """Decode a PNG, JPEG or WebP of a shard to (H, W, 3) uint8 RGB.

    Raises:
        InputError: not such an image, damaged, or larger than `MAX_PIXELS` (checked before decoding).
    """
    _check_header(data, name)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"{name}: damaged image")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def decode_png16(data: bytes, name: str, channels: int) -> NDArray[np.uint16]:
    """Decode a 16-bit PNG to (H, W) or (H, W, 3) uint16.

    Raises:
        InputError: not a 16-bit PNG with that many channels, damaged, or too large.
    """
    _check_header(data, name)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    found = None if pixels is None else (pixels.dtype, 1 if pixels.ndim == 2 else pixels.shape[2])
    if pixels is None or found != (np.uint16, channels):
        raise InputError(f"{name}: expected a 16-bit PNG of {channels} channels, found {found}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)) if channels == 3 else pixels


def decode_grey(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an 8-bit grey PNG to (H, W) uint8.

    Raises:
        InputError: not an 8-bit grey PNG, damaged, or too large.
    """
    _check_header(data, name)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(f"{name}: expected an 8-bit grey PNG")
    return np.asarray(pixels)
