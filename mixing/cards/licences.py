"""What a licence asks of those who share what is under it, as far as its name tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CC = re.compile(r"CC-BY(?P<nc>-NC)?(?P<sa>-SA)?(?P<nd>-ND)?-(?P<version>\d\.\d)(-[A-Z]+)?")
_NOTICES = ("MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause")
_FREE = ("CC0-1.0", "PDDL-1.0", "Unlicense")


@dataclass(frozen=True)
class Licence:
    """One licence: how it is written, a link, and what it asks; `known` is False when only its own text can tell.

    Args:
        attribution: authors and licence must be named.
    """

    name: str
    url: str
    asks: tuple[str, ...]
    attribution: bool
    known: bool


def licence_of(name: str) -> Licence:
    """Say what a licence with an SPDX name asks; of any other name nothing is assumed."""
    url = f"https://spdx.org/licenses/{name}.html"
    if name in _FREE:
        return Licence(name, url, ("nothing",), False, True)
    if name in _NOTICES:
        return Licence(name, url, ("keep its text and the copyright notices",), True, True)
    if found := _CC.fullmatch(name):
        asks = ["name authors and licence, say what was changed"]
        asks += ["share what you make of it under the same licence"] if found["sa"] else []
        asks += ["no commercial use"] if found["nc"] else []
        asks += ["share it unchanged only, which shards are not"] if found["nd"] else []
        return Licence(name, url, tuple(asks), True, True)
    if name.lower().startswith("public domain"):
        return Licence(name, "", ("nothing, where it is in the public domain",), False, True)
    return Licence(name, "", ("not known by this name: read it before you share anything",), False, False)


def parts_of(expression: str) -> tuple[str, ...]:
    """Split `A AND B`: all of them hold."""
    return tuple(part.strip() for part in expression.split(" AND "))


def add_up(licences: Mapping[str, int]) -> dict[str, int]:
    """Count records by single licence: one under `A AND B` counts for both."""
    total: dict[str, int] = {}
    for expression, count in licences.items():
        for name in parts_of(expression):
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))
