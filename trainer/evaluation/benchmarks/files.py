"""Files of public data sets: size checked before decoding, one clear line when something is missing or odd."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.images import check_png, decode_png16, decode_rgb
from cavendish.mixing.sources.arrays import decode_exr, decode_npy

MAX_FILE_BYTES = 1 << 30

ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What values of another shape or kind than a data set's lead to."""


def read_bytes(path: Path) -> bytes:
    """Read a file of at most 1 GiB.

    Raises:
        InputError: not there, not readable, or larger.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes is over the limit of {MAX_FILE_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}".replace("\0", "\\0")) from None


def read_rgb(path: Path) -> UInt8Image:
    """Read a PNG, JPEG or WebP as (H, W, 3) uint8 RGB."""
    return decode_rgb(read_bytes(path), str(path))


def read_png16(path: Path, channels: int = 1) -> NDArray[np.uint16]:
    """Read a 16-bit PNG as (H, W) or (H, W, 3) uint16."""
    return decode_png16(read_bytes(path), str(path), channels)


def read_gray(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit, palette-free or 1-bit one-channel PNG as (H, W) uint8.

    Raises:
        InputError: not a one-channel image.
    """
    data = read_bytes(path)
    check_png(data, str(path))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(f"{path}: expected an 8-bit one-channel PNG")
    return np.asarray(pixels)


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy array without pickles."""
    return decode_npy(read_bytes(path), str(path))


def read_float32(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Read a headerless file of little-endian float32 values, row by row (ETH3D's depth format)."""
    data = read_bytes(path)
    if len(data) != 4 * math.prod(shape):
        raise InputError(f"{path}: {len(data)} bytes, expected {4 * math.prod(shape)} (float32, {shape[1]}x{shape[0]})")
    return np.frombuffer(data, "<f4").reshape(shape)


def read_exr(path: Path) -> NDArray[np.float32]:
    """Read the R, G, B channels of an OpenEXR file as (H, W, 3) float32."""
    return decode_exr(read_bytes(path), str(path), [("R", "G", "B")])


def need_folder(folder: Path, *choices: str, what: str) -> Path:
    """Return the first of `folder / choice` that exists.

    Raises:
        InputError: none does; the message says what was looked for.
    """
    for choice in choices:
        if (folder / choice).is_dir():
            return folder / choice
    places = " or ".join(str(folder / choice) for choice in choices)
    raise InputError(f"{what}: no folder {places}")


def need_files(paths: Sequence[Path], folder: Path, pattern: str, what: str) -> tuple[Path, ...]:
    """Return `paths` sorted, or raise InputError when there are none."""
    if not paths:
        raise InputError(f"{what}: no file {pattern} in {folder}")
    return tuple(sorted(paths))


def safe_name(*parts: str) -> str:
    """Join parts of a prediction's name, each reduced to letters, digits, '.', '-' and '_'."""
    cleaned = ["".join(c if c.isalnum() or c in "-_." else "_" for c in part).strip(".") for part in parts]
    return "/".join(part or "_" for part in cleaned)


def same_size(path: Path, image: NDArray[Any], truth: NDArray[Any]) -> None:
    """Raise InputError when picture and truth are of different sizes."""
    if image.shape[:2] != truth.shape[:2]:
        raise InputError(f"{path}: its truth is {truth.shape[:2]}, the picture is {image.shape[:2]} (rows, columns)")


_CALLING = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX",
    "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip

_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("holds a persistent id")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, dicts, tuples, strings, bytes, numbers, booleans and None.

    Raises:
        InputError: it names a class or function, or is damaged; the line tells how to convert it to json.
    """
    data = read_bytes(path)
    advice = "if you trust it, convert it to json (json.dump(pickle.load(...))) beside it with the name ending in .json"
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _CALLING:
                raise InputError(f"{path}: the pickle holds more than plain data ({opcode.name} {argument}); {advice}")
            if opcode.name in _MEMO and int(argument or 0) > len(data):  # the unpickler allocates a table of this size
                raise InputError(f"{path}: damaged pickle (memo {argument} in {len(data)} bytes); {advice}")
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()
    except (pickle.UnpicklingError, EOFError, MemoryError, RecursionError, *ODD) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged pickle ({' '.join(str(error).split())}); {advice}") from None
