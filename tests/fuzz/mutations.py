"""Breaks good files: bytes flipped, cut, doubled and spliced; values of json and YAML swapped for nasty ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np

NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 65536, 2**31, 2**32, 2**63, -(2**63), 10**30, 10**400, 1e308, -0.0, 0.5,
    1e-320, float("nan"), float("inf"), float("-inf"), "", "a", "1", "NaN", "../../etc/passwd", "/etc/passwd", "a\0b",
    "\u202e", "\ud800", "x" * 5000, [], [[]], {}, [None], [1, 2, 3], ["a"], {"a": 1}, {"": None}, [[1, 2], [3]],
    "all", "rest",
)  # fmt: skip
NASTY_BYTES = (
    b"\xff", b"\0", b"\x80\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0\0\0\0\0", b"-1",
    b"0", b"99999999999999999999", b"nan", b"inf", b"1e999", b"../../x", b"%s%n", b"\xed\xa0\x80", b"\r\n", b"'", b'"',
    b"[[[[[[", b"{", b"}", b"#", b"&a", b"*a",
)  # fmt: skip


def break_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with one to four wounds."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(broken) + 1))
        if rng.random() < 0.4:
            at = min(at, int(rng.integers(1, 200)))  # headers are at the front
        match int(rng.integers(7)):
            case 0 if broken:
                broken[min(at, len(broken) - 1)] = int(rng.integers(256))
            case 1 if broken:
                broken[min(at, len(broken) - 1)] ^= 1 << int(rng.integers(8))
            case 2:
                del broken[at:]
            case 3:
                del broken[at : at + int(rng.integers(1, 64))]
            case 4:
                chunk = broken[at : at + int(rng.integers(1, 256))]
                broken[at:at] = chunk
            case 5:
                word = NASTY_BYTES[int(rng.integers(len(NASTY_BYTES)))]
                broken[at : at + len(word)] = word
            case _:
                broken[at:at] = NASTY_BYTES[int(rng.integers(len(NASTY_BYTES)))]
    return bytes(broken)


def break_values(value: Any, rng: np.random.Generator) -> Any:
    """Return json-able `value` with one to three of its nodes swapped, dropped, doubled or added to."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(value))
        nasty = copy.deepcopy(NASTY_VALUES[int(rng.integers(len(NASTY_VALUES)))])
        if not places:
            return nasty
        holder, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 1:
                holder[f"{key}x"] = holder[key]
            case 2:
                other, name = places[int(rng.integers(len(places)))]
                try:
                    holder[key] = copy.deepcopy(other[name])
                except (KeyError, IndexError):
                    holder[key] = nasty
            case _:
                holder[key] = nasty
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _places(value[index])


def break_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Break a json file: mostly its values, sometimes its bytes or its depth."""
    fate = rng.random()
    if fate < 0.25:
        return break_bytes(data, rng)
    if fate < 0.28:
        depth = int(rng.choice([500, 3000, 200_000]))
        return b"[" * depth + b"]" * depth if rng.random() < 0.5 else b'{"a":' * depth + b"1" + b"}" * depth
    return to_json(break_values(json.loads(data), rng))


def to_json(value: Any) -> bytes:
    """Serialise, with NaN and lone surrogates as Python's own module would write them."""
    return json.dumps(value).encode()


Break = Callable[[bytes, np.random.Generator], bytes]
