"""The decoder of strangers' images: untrusted bytes to upright sRGB, limits first, every refusal with a reason.

`mixing.images.decode_rgb` is for the bytes of our own shards alone.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from cavendish.encoders.sample import InputError, UInt8Image, one_line

MAX_BYTES = 32 * 2**20
MAX_PROFILE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Limits:
    """What an image may be before any pixel of it is decoded.

    What the decoders of WebP, AVIF and CMYK hold at once is 15, 9 and 8 bytes a pixel, not 4: with the limits that
    are set here no image takes over 300 MB.
    """

    max_bytes: int = MAX_BYTES
    max_pixels: int = 50_000_000
    webp: int = 18_000_000
    avif: int = 30_000_000
    cmyk: int = 36_000_000
    min_side_px: int = 64
    max_aspect: float = 8.0


PHOTO_LIMITS = Limits()
FILE_LIMITS = Limits(1 << 28, 64_000_000, 64_000_000, 64_000_000, 64_000_000, 1, math.inf)
"""Of files that somebody chose: any shape, up to what shards hold."""

# Only ids that are registered: an unregistered one (MPO) makes Image.open raise KeyError on unknown bytes. Never
# formats that interpret programs or documents (EPS, PDF, WMF).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif"}
"""The usual ending of each format that is read."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

_STRIP_PIXELS = 1_000_000
_TIFF_TILE_TAGS = (322, 323)
_TIFF_KIND_TAG, _TIFF_SUB_IFDS_TAG, _DNG_TAG = 254, 330, 50706
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
Show = Literal["composite", "alpha", "colors"]
"""Of transparency: laid over white, alone as grey, or left out."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as the pipeline uses it.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB, upright, no side over the asked maximum.
        width, height: of the upright image in the file, before it was reduced.
        format: one of `FORMATS`, "HEIF", or "MPO" (a JPEG with several images).
        flags: what was done or could not be: animated, alpha, alpha_unusable, grey, grey16, cmyk, icc, icc_unusable,
            rotated, exif_unusable, reduced.
        mode: of the pixels in the file, as Pillow calls it: RGB, L, P, RGBA, CMYK, ...
        frames: how many the file has.
        view: which part of it this is: "" for the first frame, "frame 3", "alpha 0" or "colors 0".
    """

    rgb_u8: UInt8Image
    width: int
    height: int
    format: str
    flags: tuple[str, ...]
    mode: str = ""
    frames: int = 1
    view: str = ""


def image_kind(head: bytes) -> str:
    """Return the format of an image by its first 64 bytes, whatever its name ends in; "" for what is no image.

    Also formats that are not read have a name: "JPEG XL", "camera raw", ...; TGA has none, it begins like anything.
    """
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return "camera raw"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[at : at + 4] for at in range(8, end, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else "camera raw" if b"crx " in brands else ""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Return the formats that are read: `FORMATS`, and those whose optional decoder is installed."""
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        return (*FORMATS, "HEIF")
    return FORMATS


def unreadable(kind: str) -> str:
    """Say that a format of `image_kind` is not read here, and what would help; "" for one that is."""
    if not kind or kind in readable_formats():
        return ""
    return f"{kind} is not read here; {'pip install pillow-heif' if kind == 'HEIF' else 'convert it to PNG or JPEG'}"


def decode_image(data: bytes, max_side_px: int | None = None, limits: Limits = PHOTO_LIMITS) -> DecodedImage:
    """Decode one untrusted image to upright sRGB, its longer side reduced to `max_side_px` by area averaging.

    The orientation of its Exif is applied and its color profile converted, in every format. Transparency is laid over
    white. Only the first image of an animation is read. 16-bit grey is scaled, not cut.

    Raises:
        InputError: not one of `FORMATS`, beyond the limits, damaged, or of a color mode whose meaning is unknown; the
            message is the reason.
    """
    with _open(data, limits) as picture:
        return _decode_frame(picture, data, max_side_px, limits)


def decode_views(data: bytes, limits: Limits = FILE_LIMITS, max_frames: int = 100) -> Iterator[DecodedImage]:
    """Decode everything that an untrusted image may show, at full size: what `decode_image` gives of it, and more.

    Every frame of an animation or page of a file, up to `max_frames`; and of one with transparency also the alpha
    channel alone, as grey, and the colors without it. `DecodedImage.view` says which it is.

    Raises:
        InputError: as of `decode_image`, also after some frames.
    """
    with _open(data, limits) as picture:
        for frame in range(min(getattr(picture, "n_frames", 1), max_frames)):
            found = _decode_frame(picture, data, None, limits, frame)
            yield found
            if "alpha" in found.flags and picture.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                yield _decode_frame(picture, data, None, limits, frame, "alpha")
                yield _decode_frame(picture, data, None, limits, frame, "colors")


@contextmanager
def _open(data: bytes, limits: Limits) -> Iterator[Image.Image]:
    if len(data) > limits.max_bytes:
        raise InputError(f"{len(data)} bytes is over the limit of {limits.max_bytes}")
    with _refusals("cannot be read", data, limits), Image.open(io.BytesIO(data), formats=readable_formats()) as picture:
        _check_header(picture, limits)
        yield picture


def _decode_frame(
    picture: Image.Image, data: bytes, max_side_px: int | None, limits: Limits, frame: int = 0, show: Show = "composite"
) -> DecodedImage:
    flags: set[str] = set()
    width, height = picture.size
    kind = str(picture.format)
    if _orientation(picture, flags) in _TURNS:
        flags.add("rotated")
    frames = int(getattr(picture, "n_frames", 1))
    with _refusals("damaged or truncated", data, limits):
        if frames > 1:
            flags.add("animated")
            picture.seek(frame)
            width, height = picture.size  # pages of a TIFF differ
        profile_bytes = picture.info.get("icc_profile")
        reduced_px = max(width, height) if max_side_px is None else max_side_px
        # JPEG only: decode at 1/2, 1/4 or 1/8 size when the result would be reduced below that anyway.
        picture.draft(None, (reduced_px, reduced_px))
        picture.load()
    _check_pixels(picture, limits)  # a GIF's first frame may be larger than its screen
    mode = picture.mode
    orientation = _orientation(picture, flags)  # what is left to do: Pillow turns a TIFF when it loads it
    rgb_u8 = _reduce(picture, reduced_px, profile_bytes, flags, show)
    if max(width, height) > reduced_px:
        flags.add("reduced")
    if orientation in _TURNS:
        rgb_u8 = _TURNS[orientation](rgb_u8)
        if orientation >= 5:
            width, height = height, width
    view = "" if (frame, show) == (0, "composite") else f"frame {frame}" if show == "composite" else f"{show} {frame}"
    return DecodedImage(
        np.ascontiguousarray(rgb_u8), width, height, kind, tuple(sorted(flags)), mode, frames=frames, view=view
    )


@contextmanager
def _refusals(stage: str, data: bytes, limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder raises into InputError: on hostile bytes Pillow raises nearly every type there is."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        other = unreadable(image_kind(data[:64]))
        raise InputError(f"{other}: " * bool(other) + f"not one of {', '.join(readable_formats())}") from None
    except Image.DecompressionBombError:
        raise InputError(f"the header claims far over the limit of {limits.max_pixels} pixels") from None
    except Exception as error:
        detail = one_line(error, 120)
        raise InputError(f"{stage}: {type(error).__name__}{': ' if detail else ''}{detail}") from None


def _check_header(picture: Image.Image, limits: Limits) -> None:
    width, height = picture.size
    _check_pixels(picture, limits)
    if min(width, height) < limits.min_side_px:
        raise InputError(f"{width}x{height} has a side under {limits.min_side_px} pixels")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise InputError(f"{width}x{height} is more than {limits.max_aspect:g} times as long as wide")
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        tile_width, tile_height = (int(tags.get(tag, 0)) for tag in _TIFF_TILE_TAGS)
        if tile_width * tile_height > limits.max_pixels:
            raise InputError(
                f"TIFF tiles of {tile_width}x{tile_height} are over the limit of {limits.max_pixels} pixels"
            )
        if _DNG_TAG in tags or (int(tags.get(_TIFF_KIND_TAG, 0)) & 1 and _TIFF_SUB_IFDS_TAG in tags):
            raise InputError("camera raw, of which only a preview could be read; develop it to JPEG or TIFF")


def _check_pixels(picture: Image.Image, limits: Limits) -> None:
    limit = {"WEBP": limits.webp, "AVIF": limits.avif}.get(str(picture.format), limits.max_pixels)
    if picture.mode == "CMYK":
        limit = min(limit, limits.cmyk)
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


def _reduce(picture: Image.Image, max_side_px: int, profile_bytes: object, flags: set[str], show: Show) -> UInt8Image:
    """Convert to sRGB in strips (a large picture is never held twice), then reduce by area averaging."""
    width, height = picture.size
    factor = max(1, max(width, height) // max_side_px)
    to_rgb = _to_rgb(picture, profile_bytes, flags, show)
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


def _to_rgb(
    picture: Image.Image, profile_bytes: object, flags: set[str], show: Show
) -> Callable[[Image.Image], UInt8Image]:
    """Choose, once for a picture, how its strips become sRGB."""
    mode = picture.mode
    if mode.startswith("I;16"):
        flags.update(("grey", "grey16"))
        if "transparency" in picture.info:
            flags.add("alpha_unusable")
        return _grey16_to_rgb
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        flags.add("alpha")
        if show == "alpha":
            return lambda strip: np.asarray(strip.convert("RGBA").getchannel("A").convert("RGB"))
        if show == "colors":
            return lambda strip: np.asarray(strip.convert("RGBA").convert("RGB"))
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


def jpeg_warning(data: bytes) -> str:
    """Return what a decoder conceals when it decodes a damaged JPEG: a warning of libjpeg, "" where it has none."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return one_line(error, 120)
    return ""
