"""What a card says, from the rows and records of shards and from a mixture's lock, and what its licences ask."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.accounting import add_counts
from cavendish.mixing.lock import Lock
from cavendish.mixing.provenance.lineage import inputs_of, shards_digest
from cavendish.mixing.shards.dataset import Plan, Row, committed_rows, complete_rows, dataset_path, load_dataset
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import Origin
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, exists, join, name_of

Credit = tuple[str, str, str]
"""What was used, by whom, under which licence."""
Model = tuple[str, ...]
"""Its id, task, licence and the sha256 of its weights."""


@dataclass(frozen=True)
class ShardSet:
    """What a directory of shards holds.

    Args:
        tars: (name, bytes, sha256) of each shard.
        digest: of the shards' sha256 in order, by which plans and locks know them.
        parts: how many records have a part, by its name.
        sizes: records by (height, width).
        credits: records that use an asset or file of somebody, by what it is.
        unnamed: records by licence that asks for an author's name, of which no author is known.
        faces: what was done to images with faces, where that was looked at.
    """

    name: str
    path: str
    plan: Plan
    tars: tuple[tuple[str, int, str], ...]
    digest: str
    records: int
    bytes: int
    rejected: int
    licences: Mapping[str, int]
    tasks: Mapping[str, int]
    sources: Mapping[str, int]
    parts: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    credits: Mapping[Credit, int]
    unnamed: Mapping[str, int]
    tools: Mapping[str, str]
    models: tuple[Model, ...]
    faces: str = ""


@dataclass
class _Tally:
    """What the records say of themselves, counted."""

    sources: Counter[str] = field(default_factory=Counter)
    credits: Counter[Credit] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)
    tools: dict[str, set[str]] = field(default_factory=dict)
    models: set[Model] = field(default_factory=set)


def read_shard_set(directory: Place, data: Place, name: str = "", path: str = "") -> ShardSet:
    """Collect what a finished directory of shards holds.

    The metadata of every record are read; of instruction shards those of the raw shards they were made from, where
    these are here: it is there that authors are named.

    Raises:
        InputError: not a directory of shards, not finished, or a damaged record.
    """
    plan, rows = load_dataset(directory).plan, complete_rows(directory)
    tally = _Tally()
    _count(directory, rows, tally)
    sources = dict(sorted(tally.sources.items()))
    for inner, _ in inputs_of(plan):
        if exists(dataset_path(join(data, inner))):
            _count(join(data, inner), committed_rows(join(data, inner)), tally)
    facts = [facts for row in rows for facts in row.facts.values()]
    config = plan.config.get("config") if plan.kind == "annotate" else None
    return ShardSet(
        name=name or name_of(directory),
        path=path,
        plan=plan,
        tars=tuple((row.shard, row.bytes, row.sha256) for row in rows),
        digest=shards_digest(rows),
        records=sum(row.count for row in rows),
        bytes=sum(row.bytes for row in rows),
        rejected=sum(len(row.rejected) for row in rows),
        licences=add_counts(row.licences for row in rows),
        tasks=_count_values(task for values in facts for task in values["tasks"]),
        sources=sources,
        parts=_count_values(part for row in rows for parts in row.samples.values() for part in parts),
        sizes=_count_values((int(values["size"][0]), int(values["size"][1])) for values in facts),
        credits=dict(sorted(tally.credits.items())),
        unnamed=dict(sorted(tally.unnamed.items())),
        tools={tool: ", ".join(sorted(versions)) for tool, versions in sorted(tally.tools.items())},
        models=tuple(sorted(tally.models)),
        faces=str(config.get("faces", "")) if isinstance(config, dict) else "",
    )


def _count_values(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def read_mixture(lock: Lock, data: Place) -> tuple[ShardSet, ...]:
    """Collect what the sources of a mixture hold.

    Raises:
        InputError: a source is not there, or its shards are not the locked ones.
    """
    sets = []
    for source in lock.sources:
        sets.append(read_shard_set(join(data, source.path), data, source.name, source.path))
        if [sha256 for _, _, sha256 in sets[-1].tars] != [shard.sha256 for shard in source.shards]:
            raise InputError(f"{join(data, source.path)}: its shards are not the locked ones; lock the mixture again")
    return tuple(sets)


def _count(directory: Place, rows: list[Row], tally: _Tally) -> None:
    for row in rows:
        with open_file(join(directory, row.shard)) as file:
            for key in row.samples:
                parts = read_parts(file, row, key, ("json", "instruction.json"))
                _count_record(key, parts, tally)


def _count_record(key: str, parts: Mapping[str, bytes], tally: _Tally) -> None:
    try:
        if "instruction.json" in parts:
            origin = Origin.of_spec(json.loads(parts["instruction.json"])["spec"])
            tally.sources[origin.source or "unknown"] += 1
            return
        meta = json.loads(parts["json"])
        tally.sources[str(meta["source"])] += 1
        made: Mapping[str, Any] = meta["provenance"]
        credits = {_credit(asset) for asset in made.get("assets", ())}
        file = made.get("file", made)
        if file.get("author") or file.get("url"):
            name = file.get("url") or file.get("name") or made.get("converted_from") or key
            credits.add((str(name), str(file.get("author") or ""), str(meta["licence"])))
        tally.credits.update(credits)
        if not any(author for _, author, _ in credits):
            tally.unnamed.update(name for name in parts_of(str(meta["licence"])) if licence_of(name).attribution)
        for tool, used in made.get("versions", {}).items():
            tally.tools.setdefault(str(tool), set()).add(str(used))
        for spec in made.get("annotators", ()):
            tally.models.add(tuple(str(spec.get(name)) for name in ("id", "task", "licence", "weights_sha256")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{key}: its metadata are damaged: {error}") from None


def _credit(asset: Mapping[str, Any]) -> Credit:
    return str(asset.get("name")), str(asset.get("author") or ""), str(asset.get("licence"))


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
    return add_counts({name: count} for expression, count in licences.items() for name in parts_of(expression))
