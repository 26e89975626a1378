"""The arrays of a pack: plain `.npy` files in its folder, whose hashes its header holds, mapped into memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.files import file_sha256, write_atomic


def write_array(path: Path, array: NDArray[Any]) -> str:
    """Write an array as `.npy`; return the sha256 of the file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Write arrays by name; return the sha256 of each file."""
    return {name: write_array(folder / f"{name}.npy", array) for name, array in arrays.items()}


def open_array(path: Path) -> NDArray[Any]:
    """Map a `.npy` file into memory: a size that is not true takes none.

    Raises:
        InputError: not an array, pickled, or cut.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python and raises whatever it leads to
        told = one_line(f"{type(error).__name__} {error}", 300)
        raise InputError(f"{path}: not a plain .npy array: {told}") from None


def open_arrays(
    folder: Path, hashes: Mapping[str, str], wanted: Mapping[str, tuple[type, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    """Map the arrays of a pack into memory, each checked against its hash.

    Args:
        hashes: what `write_arrays` returned.
        wanted: dtype, and the shape of a row, of each array.

    Raises:
        InputError: a file of another hash, dtype or shape.
        OSError, KeyError: a file or a hash is not there.
    """
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        path = folder / f"{name}.npy"
        if file_sha256(path) != hashes[name]:
            raise InputError(f"{path}: its sha256 is not the header's; index the benchmark again")
        array = open_array(path)
        if array.dtype != dtype or array.shape[1:] != shape:
            raise InputError(f"{path}: {array.dtype} {array.shape} where {np.dtype(dtype)} (N, *{shape}) is expected")
        arrays[name] = array
    return arrays
