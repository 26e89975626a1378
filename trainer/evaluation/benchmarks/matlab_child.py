"""The child's side of `matlab`: reads MATLAB files where a crash costs nobody else, until its stdin closes.

It is run by its path, not as a module, so that it starts without the package's other readers.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

MEMORY_BYTES = 2 << 30
"""More than what the imports took."""
CPU_S = 20
"""Of one request; the masks and the depth of a 640x480 picture take 0.02 s."""
MAX_ARRAY_BYTES = 1 << 29


class Refused(Exception):
    """What is wrong with a file, in words for its owner."""


def main() -> None:
    """Answer each line of json by a line of json, and the bytes of the arrays that it lists."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)  # it has no business writing
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, used_bytes + MEMORY_BYTES)
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + CPU_S)
        arrays: list[NDArray[Any]] = []
        request = json.loads(line)
        try:
            arrays = _answer(**request)
            head: dict[str, Any] = {"arrays": [[array.dtype.str, array.shape] for array in arrays]}
        except Refused as error:
            head = {"error": str(error)}
        except Exception as error:  # scipy and h5py raise whatever the first wrong byte leads to
            version = "file before v7.3" if request["kind"] == "variables" else "v7.3 (HDF5) file"
            head = {"error": f"not a MATLAB {version}, or damaged: {type(error).__name__} {error}"}
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            sys.stdout.buffer.write(array.tobytes())
        sys.stdout.buffer.flush()


def _limit(what: int, value: int) -> None:
    """Lower a soft limit, within the hard one."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _answer(kind: str, path: str, names: Sequence[str], index: int) -> list[NDArray[Any]]:
    if kind == "variables":
        return _variables(path, names)
    with h5py.File(path, "r") as file:
        datasets = [_dataset(file, name) for name in names]
        if kind == "shapes":
            return [np.array(dataset.shape, np.int64) for dataset in datasets]
        return [_slice(dataset, index) for dataset in datasets]


def _variables(path: str, names: Sequence[str]) -> list[NDArray[Any]]:
    variables = [name.partition(".")[0] for name in names]
    values = scipy.io.loadmat(path, variable_names=variables, squeeze_me=True, struct_as_record=False)
    arrays = []
    for name, variable in zip(names, variables):
        if variable not in values:
            raise Refused(f"no variable {variable!r}")
        value = values[variable]
        for field in name.split(".")[1:]:
            value = getattr(value, field, None)
        array = np.asarray(value)
        _check(name, array.dtype, array.shape)
        arrays.append(array)
    return arrays


def _check(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    if dtype.kind not in "biuf":
        raise Refused(f"{name} is missing or not an array of numbers")
    if dtype.itemsize * math.prod(shape) > MAX_ARRAY_BYTES:
        raise Refused(f"{name}: {tuple(shape)} values of {dtype.itemsize} bytes are over {MAX_ARRAY_BYTES} bytes")


def _dataset(file: Any, name: str) -> Any:
    """Return a data set whose values are in the file itself: HDF5 follows links and storage to any other file."""
    if name not in file:
        raise Refused(f"no data set {name!r}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise Refused(f"{name} is a link; only data sets of the file itself are read")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise Refused(f"{name} is not a data set")
    if dataset.external or dataset.is_virtual:
        raise Refused(f"{name} is kept in another file; only data sets of the file itself are read")
    return dataset


def _slice(dataset: Any, index: int) -> NDArray[Any]:
    """Return one entry of the first axis, its size and kind checked before it is read."""
    if not dataset.shape or not 0 <= index < dataset.shape[0]:
        raise Refused(f"{dataset.name} has no entry {index}")
    _check(dataset.name, dataset.dtype, dataset.shape[1:])
    return np.asarray(dataset[index])


if __name__ == "__main__":
    main()
