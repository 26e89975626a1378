"""Hostile bytes to safe RGB: every header is checked before any pixel is decoded, and every refusal has a reason."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from cavendish.encoders.sample import InputError, UInt8Image, one_line

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
# What these decoders hold at once is 15, 9 and 8 bytes a pixel, not 4: with these limits no picture takes over 300 MB.
MAX_PIXELS_WEBP = 18_000_000
MAX_PIXELS_AVIF = 30_000_000
MAX_PIXELS_CMYK = 36_000_000
MIN_SIDE_PX = 64
MAX_ASPECT = 8.0
MAX_PROFILE_BYTES = 4 * 2**20

# Only ids that are registered: an unregistered one (MPO) makes Image.open raise KeyError on unknown bytes. Never
# formats that interpret programs or documents (EPS, PDF, WMF).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_STRIP_PIXELS = 1_000_000
_TIFF_TILE_TAGS = (322, 323)
_ORIENTATION_TAG = 0x0112
_TURNS: dict[int, Callable[[UInt8Image], UInt8Image]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: rgb.transpose(1, 0, 2)[:, ::-1],
    7: lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2),
    8: lambda rgb: rgb.transpose(1, 0, 2)[::-1],
}

Profile = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class DecodedImage:
    """A picture as the pipeline uses it.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB, upright, no side over the asked maximum.
        width, height: of the upright picture in the file, before it was reduced.
        format: one of `FORMATS`, or "MPO" (a JPEG with several pictures).
        flags: what was done or could not be: animated, alpha, alpha_unusable, grey, grey16, cmyk, icc, icc_unusable,
            rotated, exif_unusable, reduced.
    """

    rgb_u8: UInt8Image
    width: int
    height: int
    format: str
    flags: tuple[str, ...]


def decode_image(data: bytes, max_side_px: int) -> DecodedImage:
    """Decode one untrusted picture to upright sRGB, its longer side reduced to `max_side_px` by area averaging.

    Transparency is laid over white. Only the first picture of an animation is read. 16-bit grey is scaled, not cut.

    Raises:
        InputError: not one of `FORMATS`, beyond the limits of this module, damaged, or of a colour mode whose
            meaning is unknown; the message is the reason.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{len(data)} bytes is over the limit of {MAX_BYTES}")
    flags: set[str] = set()
    with _refusals("cannot be read"), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_header(picture)
        width, height = picture.size
        kind = str(picture.format)
        orientation = _orientation(picture, flags)
        if getattr(picture, "is_animated", False):
            flags.add("animated")
            picture.seek(0)
        profile_bytes = picture.info.get("icc_profile")
        # JPEG only: decode at 1/2, 1/4 or 1/8 size when the result would be reduced below that anyway.
        picture.draft(None, (max_side_px, max_side_px))
        with _refusals("damaged or truncated"):
            picture.load()
        _check_pixels(picture)  # a GIF's first frame may be larger than its screen
        rgb_u8 = _reduce(picture, max_side_px, profile_bytes, flags)
    if max(width, height) > max_side_px:
        flags.add("reduced")
    if orientation in _TURNS:
        flags.add("rotated")
        rgb_u8 = _TURNS[orientation](rgb_u8)
        if orientation >= 5:
            width, height = height, width
    return DecodedImage(np.ascontiguousarray(rgb_u8), width, height, kind, tuple(sorted(flags)))


@contextmanager
def _refusals(stage: str) -> Iterator[None]:
    """Turn whatever a decoder raises into InputError: on hostile bytes Pillow raises nearly every type there is."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"not one of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise InputError(f"the header claims far over the limit of {MAX_PIXELS} pixels") from None
    except Exception as error:
        detail = one_line(error, 120)
        raise InputError(f"{stage}: {type(error).__name__}{': ' if detail else ''}{detail}") from None


def _check_header(picture: Image.Image) -> None:
    width, height = picture.size
    _check_pixels(picture)
    if min(width, height) < MIN_SIDE_PX:
        raise InputError(f"{width}x{height} has a side under {MIN_SIDE_PX} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{width}x{height} is more than {MAX_ASPECT:g} times as long as wide")
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        tile_width, tile_height = (int(tags.get(tag, 0)) for tag in _TIFF_TILE_TAGS)
        if tile_width * tile_height > MAX_PIXELS:
            raise InputError(f"TIFF tiles of {tile_width}x{tile_height} are over the limit of {MAX_PIXELS} pixels")


def _check_pixels(picture: Image.Image) -> None:
    limit = {"WEBP": MAX_PIXELS_WEBP, "AVIF": MAX_PIXELS_AVIF}.get(str(picture.format), MAX_PIXELS)
    if picture.mode == "CMYK":
        limit = min(limit, MAX_PIXELS_CMYK)
    width, height = picture.size
    if width * height > limit:
        raise InputError(f"{width}x{height} is over the limit of {limit} pixels")


def _orientation(picture: Image.Image, flags: set[str]) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the Exif parser raises many types on damaged blocks; the pixels are still good
        flags.add("exif_unusable")
        return 1
    return value if isinstance(value, int) else 1


def _reduce(picture: Image.Image, max_side_px: int, profile_bytes: object, flags: set[str]) -> UInt8Image:
    """Convert to sRGB in strips (a large picture is never held twice), then reduce by area averaging."""
    width, height = picture.size
    factor = max(1, max(width, height) // max_side_px)
    to_rgb = _to_rgb(picture, profile_bytes, flags)
    rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
    strips = []
    for top in range(0, height, rows):
        rgb_u8 = to_rgb(picture.crop((0, top, width, min(top + rows, height))))
        if factor > 1:
            size = math.ceil(width / factor), math.ceil(rgb_u8.shape[0] / factor)
            rgb_u8 = cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA)
        strips.append(rgb_u8)
    rgb_u8 = np.concatenate(strips)
    scale = max_side_px / max(width, height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        rgb_u8 = cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA)
    return rgb_u8


def _to_rgb(picture: Image.Image, profile_bytes: object, flags: set[str]) -> Callable[[Image.Image], UInt8Image]:
    """Choose, once for a picture, how its strips become sRGB."""
    mode = picture.mode
    if mode.startswith("I;16"):
        flags.update(("grey", "grey16"))
        if "transparency" in picture.info:
            flags.add("alpha_unusable")
        return _grey16_to_rgb
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        flags.add("alpha")
        profile = _profile(profile_bytes, "RGB", flags)
        return lambda strip: _composite(strip.convert("RGBA"), profile)
    if mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        raise InputError(f"colour mode {mode}: its range or colour space is not known")
    if mode == "CMYK":
        flags.add("cmyk")
    if mode in ("1", "L"):
        flags.add("grey")
    profile = _profile(profile_bytes, mode if mode in ("L", "CMYK") else "RGB", flags)
    if profile is not None:
        ready = profile
        return lambda strip: np.asarray(ready(strip if strip.mode in ("L", "CMYK") else strip.convert("RGB")))
    return lambda strip: np.asarray(strip.convert("RGB"))


def _grey16_to_rgb(strip: Image.Image) -> UInt8Image:
    grey: NDArray[np.uint16] = np.asarray(strip).astype(np.uint16)
    grey_u8 = ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey_u8[..., None], 3, axis=-1)


def _composite(strip: Image.Image, profile: Profile | None) -> UInt8Image:
    """Lay RGBA over white. Colours under full transparency are not what anybody saw."""
    alpha = np.asarray(strip.getchannel("A"), np.uint16)[..., None]
    colors = strip.convert("RGB")
    rgb = np.asarray(colors if profile is None else profile(colors), np.uint16)
    over_white: UInt8Image = ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return over_white


def _profile(profile_bytes: object, mode: str, flags: set[str]) -> Profile | None:
    """Build the transform from the picture's own colour profile to sRGB, or None when it has none that works."""
    if not profile_bytes:
        return None
    if not isinstance(profile_bytes, bytes) or len(profile_bytes) > MAX_PROFILE_BYTES:
        flags.add("icc_unusable")
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        flags.add("icc_unusable")
        return None
    flags.add("icc")

    def apply(strip: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(strip, transform)
        assert converted is not None
        return converted

    return apply
