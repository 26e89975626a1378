"""Every image that some bytes may show: frames, transparency alone, arrays, maps of 16 bits, images inside of json."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.images import decode_png
from cavendish.mixing.sources.decode import FILE_LIMITS, decode_views, image_kind, jpeg_warning, unreadable

MAX_FRAMES = 100
_MAX_EMBEDDED = 50
_MAX_CHANNELS = 4
_PNG_EXTRAS = (b"eXIf", b"tRNS", b"acTL", b"iCCP", b"gAMA", b"cHRM")
_NPY = b"\x93NUMPY"
_BASE64_IMAGE = re.compile(
    r"(?:/9j/|_9j_|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9A-Za-z+/]{2}|SUkqA|TU0AK|AAAA[0-9A-Za-z+/]{2}Z0eX)"
    r"[A-Za-z0-9+/=_\s-]{80,}"
)
_SVG = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", re.DOTALL)
_NETPBM = re.compile(r"P[1-7]\s+[\d#]")
_NO_TEXT = re.compile("[\0-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class View:
    """One image that some bytes show; `name` is "" for what anybody sees, else "frame 3", "alpha 0", "base64 1", ..."""

    image: UInt8Image
    name: str = ""


@dataclass(frozen=True)
class Views:
    """What some bytes show, and why a part of them cannot be compared.

    Args:
        kind: "image", "array", "text", or "unknown".
        views: in a fixed order; empty for text without images in it.
        problems: what could not be decoded or compared, in words.
    """

    kind: str
    views: tuple[View, ...]
    problems: tuple[str, ...] = ()


def find_views(data: bytes) -> Views:
    """Return every image that some bytes may show; they are known by what they begin with, not by a name."""
    kind = image_kind(data[:64])
    if kind:
        return _image_views(data, kind)
    if data.startswith(_NPY):
        return _array_views(data)
    text = read_text(data)
    if text is None or _NETPBM.match(text[:20]) or _SVG.match(text[:2000]):
        return Views("unknown", (), ("neither text nor an image or array that is read",))
    return _text_views(text)


def read_text(data: bytes) -> str | None:
    """Decode bytes as UTF-8, or UTF-16 with a byte order mark; None when they are no text."""
    if image_kind(data[:64]) or data.startswith(_NPY):
        return None
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if _NO_TEXT.search(text) else text


def _image_views(data: bytes, kind: str) -> Views:
    if other := unreadable(kind):
        return Views("image", (), (other,))
    problems: list[str] = []
    if kind == "JPEG" and (warning := jpeg_warning(data)):
        problems.append(f"damaged: {warning}")
    views: list[View] = []
    frames = 1
    try:
        if _is_plain_png(data):
            return Views("image", (View(array_image(decode_png(data, "image"))),))
        for found in decode_views(data, FILE_LIMITS, MAX_FRAMES):
            frames = found.frames
            views.append(View(found.rgb_u8, found.view))
    except InputError as error:
        problems.append(str(error))
    if frames > MAX_FRAMES:
        problems.append(f"{frames - MAX_FRAMES} frames after the first {MAX_FRAMES}")
    return Views("image", tuple(views), tuple(problems))


def _is_plain_png(data: bytes) -> bool:
    """Tell a PNG of grey or RGB alone, such as shards hold: one frame, no transparency, orientation or profile."""
    head = data[: data.find(b"IDAT")] if data.startswith(b"\x89PNG") and data[25:26] in (b"\0", b"\2") else b""
    return bool(head) and data[24] >= 8 and not any(name in head for name in _PNG_EXTRAS)


def array_image(values: NDArray[Any]) -> UInt8Image:
    """Show an (H, W) array of numbers in grey, or (H, W, 3) in color, its values stretched to 0..255; 8 bits as is."""
    if values.dtype != np.uint8:
        numbers = values.astype(np.float32)
        known = numbers[np.isfinite(numbers)]
        low, high = np.percentile(known, (0.5, 99.5)) if known.size else (0.0, 0.0)
        scaled = (np.nan_to_num(numbers, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-12))
        values = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    return np.ascontiguousarray(values)


def _array_views(data: bytes) -> Views:
    try:
        values: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python and raises whatever it leads to
        return Views("array", (), (f"not a plain .npy array: {one_line(error, 120)}",))
    if values.dtype.kind not in "buif":
        return Views("array", (), (f"an array of {values.dtype}",))
    views = tuple(_array_images(values.astype(np.uint8) * 255 if values.dtype == bool else values))
    if not views:
        return Views("array", (), (f"an array of shape {values.shape} is no image",))
    problems = (f"{len(values) - MAX_FRAMES} images after the first {MAX_FRAMES}",) if len(views) > MAX_FRAMES else ()
    return Views("array", views[:MAX_FRAMES], problems)


def _array_images(values: NDArray[Any]) -> Iterator[View]:
    """Read an array as an image (H, W), (H, W, C), (C, H, W) or as a stack of such."""
    shape = values.shape
    if values.ndim == 4:
        for number in range(min(len(values), MAX_FRAMES + 1)):
            yield from (View(view.image, f"frame {number}") for view in _array_images(values[number]))
    elif values.ndim == 3 and shape[0] <= _MAX_CHANNELS < min(shape[1:]):
        yield from _array_images(np.moveaxis(values, 0, -1))
    elif values.ndim == 3 and shape[2] <= _MAX_CHANNELS < min(shape[:2]):
        if shape[2] in (2, 4):  # grey or color and alpha, or channels of their own
            yield View(array_image(values[..., -1]), "alpha 0")
        yield View(array_image(values[..., :3] if shape[2] >= 3 else values[..., 0]))
    elif values.ndim == 2 and min(shape) > _MAX_CHANNELS:
        yield View(array_image(values))


def _text_views(text: str) -> Views:
    views: list[View] = []
    problems: list[str] = []
    found = list(_embedded(text))
    for number, data in enumerate(found[:_MAX_EMBEDDED]):
        inner = _image_views(data, image_kind(data[:64]))
        views += [View(view.image, f"base64 {number}{' ' if view.name else ''}{view.name}") for view in inner.views]
        problems += [f"base64 {number}: {problem}" for problem in inner.problems]
    if len(found) > _MAX_EMBEDDED:
        problems.append(f"{len(found) - _MAX_EMBEDDED} images in base64 after the first {_MAX_EMBEDDED}")
    return Views("text", tuple(views), tuple(problems))


def _embedded(text: str) -> Iterator[bytes]:
    """Find images in base64, as json and html carry them."""
    texts: Iterable[str] = (text,)
    with contextlib.suppress(ValueError, RecursionError):  # no json: looked through as it stands
        texts = strings_of(json.loads(text))
    for match in (match for each in texts for match in _BASE64_IMAGE.finditer(each)):
        letters = re.sub(r"\s+", "", match[0]).translate(str.maketrans("-_", "+/")).partition("=")[0]
        with contextlib.suppress(binascii.Error):
            data = base64.b64decode(letters[: len(letters) // 4 * 4] + _rest(letters))
            if image_kind(data[:64]):
                yield data


def _rest(letters: str) -> str:
    rest = letters[len(letters) // 4 * 4 :]
    return rest.ljust(4, "=") if len(rest) > 1 else ""


def strings_of(value: Any) -> Iterator[str]:
    """Yield every text of a json value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_of(inner)
