"""Pixels to bytes and back for shards: PNG only for targets, sizes checked before anything is decoded.

PNGs are read by imagecodecs (libpng on zlib-ng, every checksum verified), everything else by OpenCV; both let other
threads run meanwhile. docs/loader.md has what each costs.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cavendish.encoders.sample import InputError, UInt8Image, one_line

MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_PNG = b"\x89PNG\r\n\x1a\n"
_DEFLATE_RATIO = 1040  # deflate never does better than 1032 to 1
_RGB8 = b"\x08\x02"  # bit depth and colour type of a PNG header


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 or uint16 as PNG, without loss."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"PNG holds uint8 or uint16, not {pixels.dtype}")
    channels_last = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", np.ascontiguousarray(channels_last), (cv2.IMWRITE_PNG_COMPRESSION, 3))
    if not done:
        raise InputError(f"could not encode an array of shape {pixels.shape} as PNG")
    return data.tobytes()


def _check_header(data: bytes, name: str) -> bool:
    """Check the format and the size that the header tells; return whether it is a PNG."""
    is_png = data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) > 33
    if is_png:
        width, height = struct.unpack(">II", data[16:24])
    else:
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
                width, height = header.size
        except UnidentifiedImageError:
            raise InputError(f"{name}: not a PNG, JPEG or WebP image") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{name}: not a readable PNG, JPEG or WebP image: {error}") from None
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width}x{height} is over the limit of {MAX_PIXELS} pixels")
    if is_png and width * height * data[24] // 8 > _DEFLATE_RATIO * len(data):
        raise InputError(f"{name}: {width}x{height} pixels cannot be in {len(data)} bytes: damaged image")
    return is_png


def check_png(data: bytes, name: str) -> None:
    """Check that bytes are a PNG whose claims about its size can be true, before any decoder believes them.

    Raises:
        InputError: another format, cut, damaged, or larger than `MAX_PIXELS`.
    """
    if not data.startswith(_PNG) or not _check_header(data, name):
        raise InputError(f"{name}: not a PNG image")
    _check_chunks(data, name)


def _check_chunks(data: bytes, name: str) -> None:
    """Check that each chunk of a PNG is as long as it says: OpenCV takes memory for up to 2 GB before it looks."""
    at = len(_PNG)
    while at < len(data) and data[at - 8 : at - 4] != b"IEND":
        if at + 12 > len(data) or (at := at + 12 + int.from_bytes(data[at : at + 4], "big")) > len(data):
            raise InputError(f"{name}: damaged image: a chunk is longer than what is left of it")


def _decode_png(data: bytes, name: str) -> NDArray[Any]:
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except (RuntimeError, ValueError, MemoryError) as error:
        raise InputError(f"{name}: damaged image: {one_line(error, None)}") from None


def decode_png(data: bytes, name: str) -> NDArray[Any]:
    """Decode any PNG to the array it holds, (H, W) or (H, W, C), uint8 or uint16.

    Raises:
        InputError: not a PNG, damaged, or too large.
    """
    if not _check_header(data, name):
        raise InputError(f"{name}: not a PNG image")
    return _decode_png(data, name)


def decode_rgb(data: bytes, name: str) -> UInt8Image:
    """Decode a PNG, JPEG or WebP of a shard to (H, W, 3) uint8 RGB, turned upright where its Exif says so.

    Raises:
        InputError: not such an image, damaged, or larger than `MAX_PIXELS` (checked before decoding).
    """
    if _check_header(data, name) and data[24:26] == _RGB8 and b"eXIf" not in data:
        pixels = _decode_png(data, name)
        if pixels.dtype == np.uint8 and pixels.shape[2:] == (3,):  # four channels where tRNS makes a colour clear
            return pixels
    if data.startswith(_PNG):
        _check_chunks(data, name)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        raise InputError(f"{name}: damaged image")
    return np.asarray(decoded)


def decode_png16(data: bytes, name: str, channels: int) -> NDArray[np.uint16]:
    """Decode a 16-bit PNG to (H, W) or (H, W, 3) uint16.

    Raises:
        InputError: not a 16-bit PNG with that many channels, damaged, or too large.
    """
    pixels = _decode_png(data, name) if _check_header(data, name) else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[2:] != ((channels,) if channels > 1 else ()):
        found = "another format" if pixels is None else f"{pixels.dtype} of shape {pixels.shape}"
        raise InputError(f"{name}: expected a 16-bit PNG of {channels} channels, found {found}")
    return pixels


def decode_grey(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an 8-bit grey PNG to (H, W) uint8.

    Raises:
        InputError: not an 8-bit grey PNG, damaged, or too large.
    """
    pixels = _decode_png(data, name) if _check_header(data, name) else None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(f"{name}: expected an 8-bit grey PNG")
    return pixels
