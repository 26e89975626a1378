"""Lineage: what a source of the mixture declares to be made of, against what the benchmarks are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from encoders.sample import InputError


@dataclass(frozen=True)
class Entry:
    """What the registry knows of a benchmark or dataset.

    Args:
        name: as configurations write it.
        title: as papers write it.
        images: pictures in the evaluated split; None where the registry does not state a number.
        prompts: texts in the evaluated split; None likewise, or where there are none.
        made_of: names of datasets whose pictures it holds.
        licence: short name.
        citation: where it was published.
        download: what to get.
    """

    name: str
    title: str
    images: int | None = None
    prompts: int | None = None
    made_of: tuple[str, ...] = ()
    licence: str = "unknown"
    citation: str = ""
    download: str = ""


@lru_cache(maxsize=1)
def registry() -> Mapping[str, Entry]:
    """Read the registry that comes with the project, registry.yaml."""
    values: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "registry.yaml").read_text())
    return {
        name: Entry(name, **{**entry, "made_of": tuple(entry.get("made_of", ()))}) for name, entry in values.items()
    }


def ancestors(names: Iterable[str]) -> set[str]:
    """Return the datasets with all that they are made of.

    Raises:
        InputError: a name the registry does not know.
    """
    known = registry()
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in known:
            raise InputError(f"dataset {name!r} is not in the audit's registry; known: {', '.join(sorted(known))}")
        if name not in found:
            found.add(name)
            pending += known[name].made_of
    return found


def shared_datasets(source: Iterable[str], benchmark: str) -> list[str]:
    """Name the datasets that a source's declared parents and a benchmark have in common."""
    return sorted(ancestors(source) & ancestors([benchmark]))
