"""A directory of shards: its plan (dataset.json) and the row of each shard, the json that commits it.

`dataset.json` holds the plan, and totals when every shard is committed; beside each `shard-000000.tar` lies its row,
`shard-000000.json`: hash, counts and index. A tar without a row does not exist for any reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.accounting import Accounting, add_counts
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import (
    Place,
    exists,
    is_url,
    join,
    make_folder,
    name_of,
    read_json,
    with_suffix,
    write_atomic,
)

SHARD_SCHEMA = "cavendish-shard/1"
DATASET_SCHEMA = "cavendish-dataset/1"
_ROW_NAME = re.compile(r"shard-\d{6}\.json")
_TAR_NAME = re.compile(r"shard-\d{6}\.tar")
_SHOWN_CHANGES, _SHOWN_CHARS = 5, 40  # of another plan: how many differences, and how much of a value


@dataclass(frozen=True)
class Plan:
    """What a directory of shards will hold: which job makes it, from what configuration, in how many shards.

    The shards are a function of this alone, so the digest of a plan names its data. `config` is json-able.
    """

    kind: str
    shards: int
    config: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 that every row of the directory carries."""
        return digest({"kind": self.kind, "shards": self.shards, "config": dict(self.config)})


@dataclass(frozen=True)
class Row:
    """The committed facts of one shard.

    `samples` maps a key to {part: (offset, size, crc32)}; `licences` and `tasks` count records; `facts`
    has what a mixture chooses by (see `mixing.shards.sample_format.record_facts`), for each key; `left_aside` counts
    inputs by the reason that made them none of the job's.
    """

    shard: str
    plan: str
    count: int
    bytes: int
    sha256: str
    samples: Mapping[str, Mapping[str, tuple[int, int, int]]]
    rejected: tuple[Rejection, ...] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_aside: Mapping[str, int] = field(default_factory=dict)


def is_row_name(name: str) -> bool:
    """Tell whether a file of that name is the row of a shard."""
    return _ROW_NAME.fullmatch(name) is not None


def shard_path(directory: Place, index: int) -> Place:
    """Name the tar of shard `index`."""
    return join(directory, f"shard-{index:06d}.tar")


def start_dataset(directory: Place, plan: Plan) -> None:
    """Make `directory` and write its plan, or check that the plan it has is this one.

    Raises:
        InputError: the directory holds shards of another plan; mixing two would make neither reproducible.
    """
    make_folder(directory)
    path = join(directory, "dataset.json")
    if exists(path):
        try:
            found = read_json(path, "the plan of a shard directory")
        except InputError as error:
            raise InputError(f"{error}; delete it and run again: what is committed stays") from None
        if not isinstance(found, dict):
            raise InputError(f"{path}: not the plan of a shard directory; delete it and run again")
        if found.get("digest") != plan.digest:
            raise InputError(
                f"{directory}: holds shards of another plan (there -> here): {_plan_changes(found, plan)}. "
                "Choose another --out, or delete the directory"
            )
        return
    _write_dataset(path, plan, None)


def _plan_changes(found: Mapping[str, Any], plan: Plan) -> str:
    """Return what differs between the dataset.json of a directory and a plan, the first few keys."""
    there, here = (
        {"kind": values.get("kind"), "shards": values.get("shards"), **values.get("config", {})}
        for values in (found, json.loads(canonical_json({**asdict(plan), "config": dict(plan.config)})))
    )
    changes = list(differences(there, here)) or ["its digest alone: dataset.json was edited"]
    more = [f"and {len(changes) - _SHOWN_CHANGES} more"] if len(changes) > _SHOWN_CHANGES else []
    return "; ".join([*changes[:_SHOWN_CHANGES], *more])


def differences(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Yield where two json values differ, as `key.key: before -> after`; entries of a list go by their names."""
    lists = isinstance(before, list | tuple) and isinstance(after, list | tuple)
    if lists and max(len(str(before)), len(str(after))) > _SHOWN_CHARS:
        before, after = _by_name(before), _by_name(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key), after.get(key), f"{name}.{key}" if name else key)
    elif before != after:
        yield f"{name}: {_short(before)} -> {_short(after)}"


def _by_name(entries: Sequence[Any]) -> Mapping[str, Any]:
    """Return the entries of a list by name, path or first value where they have one, else by number."""
    named = {}
    for number, entry in enumerate(entries):
        match entry:
            case {"path": str(name)} | {"name": str(name)} | {"source": str(name)}:
                named[name] = entry
            case [str(name), value]:
                named[name] = value
            case _:
                named[f"{number}"] = entry
    return named


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_short(item)}" for key, item in value.items() if item is not None)
    else:
        text = "" if value is None else str(value)
    return "none" if not text else text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def finish_dataset(
    directory: Place, plan: Plan, found: int | None = None, left_aside: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """Write the totals into `dataset.json` when every shard is committed; return them, or None when some are not.

    Args:
        found: inputs that the job listed (see `mixing.accounting`); None: those that its shards account for.
        left_aside: inputs that were left aside when they were listed, counted by reason.

    Raises:
        ValueError: an input that was found is neither written nor rejected nor left aside.
    """
    rows = committed_rows(directory)
    if len(rows) < plan.shards:
        return None
    totals: dict[str, Any] = {
        "records": sum(row.count for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "rejected": sum(len(row.rejected) for row in rows),
        "left_aside": add_counts((left_aside or {}, *(row.left_aside for row in rows))),
        "licences": add_counts(row.licences for row in rows),
        "tasks": add_counts(row.tasks for row in rows),
        "digest": digest([row.sha256 for row in rows]),
    }
    accounted = totals["records"] + totals["rejected"] + sum(totals["left_aside"].values())
    totals["found"] = accounted if found is None else found
    Accounting.of_totals(totals)
    _write_dataset(join(directory, "dataset.json"), plan, totals)
    return totals


def _write_dataset(path: Place, plan: Plan, totals: dict[str, Any] | None) -> None:
    values = {"schema": DATASET_SCHEMA, **asdict(plan), "config": dict(plan.config), "digest": plan.digest}
    write_atomic(path, canonical_json({**values, "totals": totals}))


def read_plan(directory: Place) -> tuple[Plan, str]:
    """Read the plan of a directory of shards, finished or not, and the digest it was given.

    Raises:
        InputError: no plan there, or a damaged one.
    """
    values = read_json(join(directory, "dataset.json"), "the plan of a shard directory")
    try:
        return Plan(str(values["kind"]), int(values["shards"]), dict(values["config"])), str(values["digest"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{directory}/dataset.json: damaged plan: {error}") from None


def finished_plan(directory: Place) -> Plan:
    """Return the plan of a directory whose shards are all committed.

    Raises:
        InputError: no shards there, or not all of them.
    """
    values = read_json(join(directory, "dataset.json"), "the plan of a shard directory")
    try:
        plan = Plan(values["kind"], int(values["shards"]), dict(values["config"]))
        finished = values["totals"] is not None
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{directory}/dataset.json: damaged plan: {error}") from None
    if not finished:
        raise InputError(f"{directory}: not every shard is committed; finish the job first")
    return plan


def row_names(directory: Place) -> list[str]:
    """List the names of the rows in a directory, in shard order."""
    if is_url(directory):
        return [name for name in objects.names(str(directory)) if is_row_name(name)]
    return sorted(path.name for path in Path(directory).glob("shard-*.json") if is_row_name(path.name))


def committed_rows(directory: Place) -> list[Row]:
    """Read the rows of all committed shards, in shard order."""
    return [row for _, row in _read_rows(directory, row_names(directory))]


def some_rows(directory: Place) -> list[Row]:
    """Read the rows of a directory's committed shards, of which there has to be one.

    Raises:
        InputError: there is none; it names what is there instead.
    """
    rows = committed_rows(directory)
    if rows:
        return rows
    told = "no committed shards here"
    if isinstance(directory, Path) and not directory.exists():
        told = "no such directory"
    elif isinstance(directory, Path) and directory.is_file():
        told = "a file; name the directory that its shards are in"
    elif isinstance(directory, Path):
        below = sorted(str(plan.parent) for depth in ("*", "*/*") for plan in directory.glob(f"{depth}/dataset.json"))
        told += f"; there are in {', '.join(below[:8])}" if below else ""
    raise InputError(f"{directory}: {told}")


def is_committed(directory: Place, index: int, plan_digest: str) -> bool:
    """Tell whether shard `index` of this plan is finished; restarts ask nothing else.

    One whose row cannot be read, or whose tar is gone or not as long as its row says, is not: it is made again.
    """
    path = with_suffix(shard_path(directory, index), ".json")
    if is_url(path):
        try:
            return read_row(path).plan == plan_digest
        except objects.MissingFile:
            return False
    try:
        row = read_row(path)
        return row.plan == plan_digest and Path(shard_path(directory, index)).stat().st_size == row.bytes
    except (InputError, FileNotFoundError):
        return False


def committed_among(directory: Place, indices: Collection[int], plan_digest: str) -> set[int]:
    """Return which of these shards of this plan are finished; at a URL with one listing and the rows that are there."""
    if not is_url(directory):
        return {index for index in indices if is_committed(directory, index, plan_digest)}
    there = set(objects.names(str(directory))) if indices else set()
    rows = {f"shard-{index:06d}.json": index for index in indices}
    found = _read_rows(directory, sorted(there & rows.keys()))
    return {rows[name] for name, row in found if row.plan == plan_digest}


def read_row(path: Place) -> Row:
    """Read the row (json) of a shard.

    Raises:
        InputError: missing, not json, or not a row of this schema.
    """
    return row_of(read_json(path, "the row of a shard"), path)


def _read_rows(directory: Place, names: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield rows by name; those at a URL are asked for many at a time."""
    if not is_url(directory):
        yield from ((name, read_row(join(directory, name))) for name in names)
        return
    urls = [str(join(directory, name)) for name in names]
    for url, data in objects.read_many(urls):
        try:
            row = None if data is None else parse_row(data, url)
        except InputError:
            row = None
        yield name_of(url), read_row(url) if row is None else row  # alone, what failed is asked for again


def row_bytes(row: Row) -> bytes:
    """Serialise a row to canonical json with its digest, by which a flipped bit in it is noticed."""
    values = asdict(row)
    if not row.left_aside:
        del values["left_aside"]
    return canonical_json({"schema": SHARD_SCHEMA, **values, "digest": digest(values)})


def parse_row(data: bytes, path: Place) -> Row:
    """Read a row out of its bytes; `path` says where they are from.

    Raises:
        InputError: not json, or not a row of this schema.
    """
    try:
        return row_of(json.loads(data), path)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid json (the row of a shard): {error}") from None


def row_of(values: Any, path: Place) -> Row:
    """Return the row that parsed json holds; `path` says where it is from.

    Raises:
        InputError: not a row of this schema.
    """
    if not isinstance(values, dict) or values.pop("schema", None) != SHARD_SCHEMA:
        raise InputError(f"{path}: not a {SHARD_SCHEMA} row")
    written = values.pop("digest", None)
    try:
        if written is not None and written != digest(values):
            raise ValueError("its digest is not that of its content")
        values["rejected"] = tuple(Rejection(**item) for item in values["rejected"])
        values["samples"] = {
            key: {name: (int(at[0]), int(at[1]), int(at[2])) for name, at in parts.items()}
            for key, parts in values["samples"].items()
        }
        row = Row(**values)
        _check_row(row)
        return row
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: damaged shard row: {error}") from None


def _check_row(row: Row) -> None:
    """Check the kinds of what a row says, so that nothing after this has to: a row may be anybody's.

    Raises:
        ValueError: naming what is wrong.
    """
    texts = (row.plan, row.sha256)
    counts = (row.licences, row.tasks, row.left_aside)
    numbers = (row.count, row.bytes, *(number for each in counts for number in each.values()))
    if not isinstance(row.shard, str) or _TAR_NAME.fullmatch(row.shard) is None:
        raise ValueError(f"shard {row.shard!r:.60} is no name of a shard")
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a hash or a count of another kind")
    if row.count != len(row.samples):
        raise ValueError(f"it counts {row.count} records and lists {len(row.samples)}")
    spans = (at for parts in row.samples.values() for at in parts.values())
    if any(min(at) < 0 or at[0] + at[1] > row.bytes or at[2] >= 1 << 32 for at in spans):
        raise ValueError("a part that lies outside of the shard")
    if not all(isinstance(text, str) for item in row.rejected for text in (item.key, item.reason)):
        raise ValueError("a rejection of another kind")
    for key, fact in row.facts.items():
        tasks, size, quality = fact["tasks"], fact["size"], fact["quality"]
        sound = (
            isinstance(fact["sample"], str)
            and isinstance(fact["licence"], str)
            and isinstance(tasks, list)
            and all(isinstance(task, str) for task in tasks)
            and isinstance(size, list)
            and len(size) == 2
            and all(type(side) is int and side > 0 for side in size)
            and isinstance(quality, dict)
            and all(type(score) in (int, float) for score in quality.values())
        )
        if not sound:
            raise ValueError(f"facts of {key} of another kind")
