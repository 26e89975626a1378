"""MATLAB files, read by a child process: the C code of scipy and of HDF5 can crash on a damaged file.

One child answers for all files that this process reads. It has limits of memory and time (`matlab_child`), and sends a
line of json and raw numbers. When it ends, that is one InputError, and the next file gets a new child.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra

MAX_FILE_BYTES = 1 << 30
"""Of a file before v7.3, which is read as a whole."""
_MAX_LINE_BYTES = 1 << 20
_MAX_ARRAY_BYTES = 1 << 30
_one_at_a_time = threading.Lock()


def read_mat(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read arrays of numbers from a MATLAB file before v7.3.

    Args:
        names: of variables, or of fields of structs ("data.rgb").

    Returns:
        The arrays in the order of `names`, without axes of length 1.

    Raises:
        InputError: no such file, too large, damaged, or without such an array.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes is over the limit of {MAX_FILE_BYTES}")
    return _ask("variables", path, names)


def mat73_shapes(path: Path, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the shapes of data sets of a MATLAB v7.3 (HDF5) file; MATLAB's axes are reversed.

    Raises:
        InputError: no such file, damaged, or without such a data set.
    """
    return [tuple(shape.tolist()) for shape in _ask("shapes", path, names)]


def read_mat73(path: Path, name: str, index: int) -> NDArray[Any]:
    """Read entry `index` along the first axis of a data set of a MATLAB v7.3 (HDF5) file.

    Raises:
        InputError: as `mat73_shapes`, or there is no such entry, or it is not of numbers.
    """
    return _ask("entry", path, [name], index)[0]


class _Refused(Exception):
    """The child's word on a file."""


def _ask(kind: str, path: Path, names: Sequence[str], index: int = 0) -> list[NDArray[Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    require_extra("evaluate", "h5py")
    request = json.dumps({"kind": kind, "path": str(path), "names": list(names), "index": index})
    with _one_at_a_time:
        child = _child(os.getpid())
        try:
            return _exchange(child, request.encode() + b"\n", len(names))
        except _Refused as error:
            raise InputError(f"{path}: {error}") from None
        except BaseException as error:  # an interrupt too: what is left of an answer must not be taken for the next one
            how = _end(child)
            if isinstance(error, (OSError, EOFError)):
                raise InputError(f"{path}: damaged: the process that read it {how}") from None
            raise


@functools.lru_cache(maxsize=1)
def _child(pid: int) -> subprocess.Popen[bytes]:
    """Start the child of this process; a process forked from this one has another pid, and starts its own."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("matlab_child.py"))]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread would take address space
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )


def _exchange(child: subprocess.Popen[bytes], request: bytes, count: int) -> list[NDArray[Any]]:
    """Send a request and return the arrays of its answer.

    Raises:
        _Refused: the child says what is wrong with the file.
        OSError, EOFError: it ended, or sent what it does not send while it is itself.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(request)
    child.stdin.flush()
    line = child.stdout.readline(_MAX_LINE_BYTES)
    try:
        head = json.loads(line)
        if "error" in head:
            raise _Refused(" ".join(head["error"].split())[:300])
        arrays = [_receive(child.stdout, np.dtype(dtype), shape) for dtype, shape in head["arrays"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise EOFError from None
    if len(arrays) != count:
        raise EOFError
    return arrays


def _receive(stream: IO[bytes], dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    assert isinstance(stream, io.BufferedReader)
    if dtype.itemsize * math.prod(shape) > _MAX_ARRAY_BYTES:
        raise EOFError
    array = np.empty(shape, dtype)
    if stream.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
        raise EOFError
    return array


def _end(child: subprocess.Popen[bytes]) -> str:
    """End the child if it has not ended by itself, and say how it ended."""
    _child.cache_clear()
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what was not sent
                continue
    if child.returncode == -signal.SIGXCPU:
        return "took too much time"
    return f"crashed ({signal.Signals(-child.returncode).name})" if child.returncode < 0 else "ended"
