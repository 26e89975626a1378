"""Lineage: what a source of the mixture declares or is named after, against what the benchmarks are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.signals.signal import Record, ShardResults, Signal, SourceFacts
from cavendish.mixing.shards.sample_format import Origin

if TYPE_CHECKING:
    from cavendish.mixing.audit.plan import ScanPlan

_ORIGIN_KEYS = frozenset(
    ("dataset", "datasets", "source", "collection", "parent", "parents", "origin", "derived_from", "made_of")
)
_RESTRICTED = re.compile(r"\bNC\b|non.?commercial|research|terms|licen[cs]e of|proprietary", re.IGNORECASE)
UNSTATED = ("", "unknown", "none", "other")


@dataclass(frozen=True)
class Entry:
    """What the registry knows of a benchmark or dataset; datasets.yaml explains the fields."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    images: int | None = None
    prompts: int | None = None
    counted_by: str = ""
    made_of: tuple[str, ...] = ()
    ids: str | None = None
    licence: str = "unknown"
    open: bool = False
    citation: str = ""
    download: str = ""
    reader: str | None = None


@lru_cache(maxsize=1)
def registry() -> Mapping[str, Entry]:
    """Read the registry that comes with the project, datasets.yaml."""
    values: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "datasets.yaml").read_text())
    lists = ("made_of", "aliases")
    return {
        name: Entry(name, **{**entry, **{key: tuple(entry.get(key, ())) for key in lists}})
        for name, entry in values.items()
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
    """Name the datasets that a source's parents and a benchmark have in common."""
    return sorted(ancestors(source) & ancestors([benchmark]))


def named_datasets(text: str) -> list[str]:
    """Name the datasets of the registry that a text names, the longest of overlapping names only."""
    words = _words(text)
    found = []
    for phrase, name in _phrases():
        if f" {phrase} " in f" {words} ":
            found.append(name)
            words = f" {words} ".replace(f" {phrase} ", " | ")
    return sorted(set(found))


def record_origin(parts: Mapping[str, bytes]) -> tuple[str | None, str, list[str]]:
    """Return what a record says of where it is from: its source, its licence, and the datasets it names."""
    if "instruction.json" in parts:
        origin = Origin.of_spec(json.loads(parts["instruction.json"]).get("spec"))
        return origin.source, origin.licence or "", named_datasets(origin.source or "")
    meta = json.loads(parts["json"]) if "json" in parts else {}
    source, licence = meta.get("source"), meta.get("licence")
    texts = [text for values in (meta.get("provenance"), meta.get("facts")) for text in _origins(values)]
    named = [name for text in (source, *texts) if isinstance(text, str) for name in named_datasets(text)]
    licence = licence if isinstance(licence, str) else ""
    return source if isinstance(source, str) else None, licence, sorted(set(named))


def lineage_row(
    source: str,
    facts: SourceFacts,
    declared: tuple[str, ...] | None,
    benchmarks: Iterable[tuple[str, str]],
    licences: tuple[str, ...] | None,
) -> dict[str, Any]:
    """Judge one source: what it shares with each benchmark, and what is odd about its licences.

    Args:
        declared: the datasets it is said to come from; None when nothing was said.
        benchmarks: (name, registry name) of each.
        licences: the allow-list; None: any.

    Returns:
        source, records, declared, named, licences, shared {benchmark: datasets}, same [benchmarks that it is made of
        itself], and problems [what is odd about its licences].
    """
    parents = tuple(declared or ()) + tuple(facts.named)
    shared = {name: common for name, entry in benchmarks if (common := shared_datasets(parents, entry))}
    same = [name for name, entry in benchmarks if entry in ancestors(parents)]
    problems = []
    foreign = sorted(name for name in facts.licences if licences is not None and name not in licences)
    if foreign:
        count = sum(facts.licences[name] for name in foreign)
        problems.append(f"{count} records are under {', '.join(foreign) or 'no licence'}, which is not allowed here.")
    bound = sorted(name for name in ancestors(parents) if not registry()[name].open)
    free = sorted(name for name in facts.licences if name.casefold() not in UNSTATED and not _RESTRICTED.search(name))
    if bound and free:
        terms = ", ".join(f"{name} ({registry()[name].licence})" for name in bound)
        problems.append(f"Its records say {', '.join(free)}, but it comes from {terms}.")
    return {
        "source": source,
        "declared": None if declared is None else list(declared),
        "shared": shared,
        "same": same,
        "problems": problems,
        **facts.as_json(),
    }


def _origins(values: Any) -> list[str]:
    """Collect the texts under keys that tell where something is from."""
    if isinstance(values, list):
        return [text for value in values for text in _origins(value)]
    if not isinstance(values, dict):
        return []
    found: list[str] = []
    for key, value in values.items():
        if key in _ORIGIN_KEYS:
            found += [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        found += _origins(value)
    return found


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9+]+", text.casefold()))


@lru_cache(maxsize=1)
def _phrases() -> tuple[tuple[str, str], ...]:
    """Pair every way of naming a dataset with its name, the longest first."""
    pairs = {
        _words(phrase): entry.name
        for entry in registry().values()
        for phrase in (*entry.aliases, entry.title, entry.name)
    }
    return tuple(sorted(pairs.items(), key=lambda pair: (-len(pair[0]), pair)))


class LineageSignal(Signal):
    """Counts what records say of their source; `lineage_row` judges whole sources afterwards."""

    name = "lineage"
    from_metadata = True

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Add a record to the facts of its source."""
        source, licence, named = record_origin(record.parts)
        facts = results.sources[source or ""]
        facts.records += 1
        facts.licences[licence] += 1
        facts.named.update(named)
