"""A small ONNX model without the onnx package: a picture's mean colour in each of 8 x 8 cells, as one vector."""

from __future__ import annotations

import hashlib
from pathlib import Path

FLOAT = 1
INTS = 7


def write_model(path: Path, side_px: int = 64, cells: int = 8) -> str:
    """Write the model; return its sha256. Field numbers are those of onnx.proto3."""
    step = side_px // cells
    pool = _text(1, "picture") + _text(2, "pooled") + _text(4, "AveragePool")
    pool += _bytes(5, _ints("kernel_shape", (step, step))) + _bytes(5, _ints("strides", (step, step)))
    flatten = _text(1, "pooled") + _text(2, "vector") + _text(4, "Flatten")
    graph = _bytes(1, pool) + _bytes(1, flatten) + _text(2, "cells")
    graph += _bytes(11, _tensor("picture", (1, 3, side_px, side_px))) + _bytes(12, _tensor("vector", (1, 3 * cells**2)))
    data = _number(1, 8) + _bytes(8, _text(1, "") + _number(2, 13)) + _bytes(7, graph)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _ints(name: str, values: tuple[int, ...]) -> bytes:
    return _text(1, name) + b"".join(_number(8, value) for value in values) + _number(20, INTS)


def _tensor(name: str, shape: tuple[int, ...]) -> bytes:
    sides = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, sides)))
