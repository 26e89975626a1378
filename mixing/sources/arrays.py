"""Depth and normals as other tools store them: 16-bit PNG, OpenEXR, .npy. Every header is checked before decoding."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.normals import decode_normals, normals_from
from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.extras import require_extra
from cavendish.mixing.images import MAX_PIXELS, decode_png16, decode_rgb

_PNG, _EXR, _NPY = b"\x89PNG\r\n\x1a\n", b"\x76\x2f\x31\x01", b"\x93NUMPY"
_UNITS_M = {"png": 0.001}  # as a rule; an EXR or a .npy may hold anything
_DEPTH_CHANNELS = (("Z",), ("depth",), ("Y",), ("V",), ("R",))
_NORMAL_CHANNELS = (("X", "Y", "Z"), ("R", "G", "B"))


def decode_depth_file(
    data: bytes,
    name: str,
    unit_m: float | Mapping[Any, float] | None,
    sky_from_m: float | None,
    no_data: Sequence[float] = (),
) -> NDArray[np.float32]:
    """Decode planar depth, a 16-bit PNG, an EXR or a .npy, to (H, W) float32 metres: +inf no surface, NaN unknown.

    Zero, negative values and NaN are unknown, and so is the largest value of a format of integers: 65535.

    Args:
        name: for messages.
        unit_m: metres that one unit of the file stands for, of each format ("png", "exr", "npy") or of all; a PNG
            without one is in millimetres.
        sky_from_m: from this depth on there is no surface; None: only where the file says infinity.
        no_data: further values of the file that are unknown.

    Raises:
        InputError: not such a file, damaged, or too large; or a format without a unit of its own, and none is stated.
    """
    kind, values = _decode_array(data, name, _DEPTH_CHANNELS)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.ndim != 2:
        raise InputError(f"{name}: an array of shape {values.shape}; depth is (H, W) or (H, W, 1)")
    stated = unit_m.get(kind) if isinstance(unit_m, Mapping) else unit_m
    unit = _UNITS_M.get(kind) if stated is None else stated
    if unit is None:
        raise InputError(f"{name}: the file does not say the unit of its depth; state depth_unit_m (1 for metres)")
    unknown = np.isin(values, np.asarray(no_data, np.float64)) if no_data else np.zeros(values.shape, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        depth_m = (values.astype(np.float64) * unit).astype(np.float32)
        if values.dtype.kind in "iu" and (sky_from_m is None or depth_m.max(initial=0) < sky_from_m):
            unknown |= values == np.iinfo(values.dtype).max
        depth_m[unknown | ~(depth_m > 0)] = np.nan
        if sky_from_m is not None:
            depth_m[depth_m >= sky_from_m] = np.inf
    return depth_m


def decode_normals_file(data: bytes, name: str, convention: str) -> NDArray[np.float32]:
    """Decode normals to (H, W, 3) float32 camera-space unit vectors, (0, 0, 0) unknown.

    Args:
        name: for messages. A PNG has 8 bits a channel, `(n + 1) / 2`; an EXR or a .npy has the vectors themselves.
        convention: whose axes they have, one of `encoders.codecs.normals.CONVENTIONS`.

    Raises:
        InputError: not such a file, damaged, too large, or no unit vectors.
    """
    if data.startswith(_PNG):
        return decode_normals(decode_rgb(data, name), convention)
    _, values = _decode_array(data, name, _NORMAL_CHANNELS)
    if values.ndim != 3 or values.shape[2] != 3:
        raise InputError(f"{name}: an array of shape {values.shape}; normals are (H, W, 3)")
    vectors = np.nan_to_num(values.astype(np.float32), nan=0, posinf=0, neginf=0)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    known = length > 0.5
    if known.any() and abs(float(np.median(length[known])) - 1) > 0.05:
        raise InputError(f"{name}: vectors of length {float(np.median(length[known])):.3g}; normals have length 1")
    return normals_from(np.divide(vectors, length, out=np.zeros_like(vectors), where=known), convention)


def _decode_array(data: bytes, name: str, channels: Sequence[tuple[str, ...]]) -> tuple[str, NDArray[Any]]:
    """Decode a file by its first bytes; return its format and its values."""
    if data.startswith(_PNG):
        return "png", decode_png16(data, name, 1)
    if data.startswith(_EXR):
        return "exr", decode_exr(data, name, channels)
    if data.startswith(_NPY):
        return "npy", decode_npy(data, name)
    raise InputError(f"{name}: does not begin like a PNG, an EXR or a .npy")


def decode_npy(data: bytes, name: str) -> NDArray[Any]:
    """Decode a plain .npy file; nothing is unpickled, and no more is made than the bytes that are there."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        size = math.prod(shape)
    except Exception as error:  # numpy parses the header as Python and raises whatever the first wrong byte leads to
        raise InputError(f"{name}: not a plain .npy array: {one_line(error)}") from None
    left = len(data) - file.tell()
    if dtype.hasobject or dtype.kind not in "fiub" or min(shape, default=1) < 0 or size * dtype.itemsize != left:
        raise InputError(f"{name}: {dtype} of shape {shape} in {left} bytes; not a plain .npy array")
    if size > 3 * MAX_PIXELS:
        raise InputError(f"{name}: {shape} is over the limit of {MAX_PIXELS} pixels")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def decode_exr(data: bytes, name: str, choices: Sequence[tuple[str, ...]]) -> NDArray[np.float32]:
    """Decode the first of `choices` of channels that an OpenEXR file has, to (H, W, channels)."""
    require_extra("evaluate", "OpenEXR")
    import OpenEXR

    with tempfile.NamedTemporaryFile(suffix=".exr") as file:  # the library reads files only
        Path(file.name).write_bytes(data)
        try:
            low, high = OpenEXR.File(file.name, header_only=True).header()["dataWindow"]
            if math.prod(int(v) for v in high - low + 1) > MAX_PIXELS:
                raise InputError(f"{name}: over the limit of {MAX_PIXELS} pixels")
            channels = OpenEXR.File(file.name, separate_channels=True).channels()
            found = next((names for names in choices if all(channel in channels for channel in names)), None)
            if found is None:
                raise InputError(f"{name}: channels {', '.join(channels)}; expected one of {choices}")
            return np.stack([channels[channel].pixels for channel in found], axis=-1).astype(np.float32)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name}: not an OpenEXR file that can be read: {one_line(error)}") from None
