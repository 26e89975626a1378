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
from typing import Annotated, Any, ClassVar, NotRequired

from annotated_types import Len
from pydantic import (
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.accounting import Accounting, add_counts
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.objects import Unreachable
from cavendish.mixing.storage.place import (
    Place,
    exists,
    join,
    list_sizes,
    make_folder,
    read_all,
    read_json,
    size_of,
    with_suffix,
    write_atomic,
)

SHARD_SCHEMA = "cavendish-shard/1"
DATASET_SCHEMA = "cavendish-dataset/1"
_ROW_NAME = re.compile(r"shard-\d{6}\.json")
_SHOWN_CHANGES, _SHOWN_CHARS = 5, 40  # of another plan: how many differences, and how much of a value

Count = Annotated[int, Field(strict=True, ge=0)]
Span = tuple[Count, Count, Annotated[int, Field(strict=True, ge=0, lt=1 << 32)]]
"""Where a part is in the tar of its shard: offset, size, crc32."""


@dataclass(frozen=True)
class Plan:
    """What a directory of shards will hold: which job makes it, from what configuration, in how many shards.

    The shards are a function of this alone, so the digest of a plan names its data. `config` is json-able.

    Args:
        earlier: plans that the directory grew from, oldest first: their digests, and how many shards there then were.
    """

    kind: str
    shards: int
    config: Mapping[str, Any]
    earlier: tuple[tuple[str, int], ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 that the row of every shard carries which this plan made, and no earlier one."""
        earlier = {"earlier": self.earlier} if self.earlier else {}
        return digest({"kind": self.kind, "shards": self.shards, "config": dict(self.config), **earlier})

    @property
    def made_by(self) -> tuple[tuple[str, int], ...]:
        """The digest of each plan that makes shards here, oldest first, and the number of shards up to its last."""
        return (*self.earlier, (self.digest, self.shards))


def plan_of_shard(made_by: Sequence[tuple[str, int]], index: int) -> str:
    """Return the digest of the plan that makes shard `index`; see `Plan.made_by`."""
    return next((found for found, shards in made_by if index < shards), made_by[-1][0])


@dataclass(frozen=True)
class Dataset:
    """What dataset.json says.

    Args:
        kind, shards, config, earlier: see `Plan`.
        digest: of the plan, when it was written.
        totals: of all shards; None until each is committed.
    """

    kind: StrictStr
    shards: Count
    config: dict[str, Any]
    digest: StrictStr
    totals: dict[str, Any] | None
    earlier: tuple[tuple[StrictStr, Count], ...] = ()

    @property
    def plan(self) -> Plan:
        """The plan that the shards are made by."""
        return Plan(self.kind, self.shards, self.config, self.earlier)

    def plan_of(self, row: Row) -> str:
        """Return the digest that the row of a shard here has to carry."""
        made_by = (*self.earlier, (self.digest, self.shards))
        return plan_of_shard(made_by, int(row.shard.removesuffix(".tar").rpartition("-")[2]))


@with_config(ConfigDict(extra="allow"))
class Facts(TypedDict):
    """What a mixture chooses a record by; see `mixing.shards.sample_format.record_facts`."""

    sample: StrictStr
    scene: NotRequired[StrictStr]
    licence: StrictStr
    tasks: list[StrictStr]
    size: Annotated[list[Annotated[int, Field(strict=True, gt=0)]], Len(2, 2)]
    quality: dict[str, StrictInt | StrictFloat]


@dataclass(frozen=True)
class Row:
    """The committed facts of one shard.

    `samples` maps a key to {part: span}; `licences` and `tasks` count records; `facts` has what a mixture chooses by,
    for each key; `left_aside` counts inputs by the reason that made them none of the job's.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    shard: Annotated[str, StringConstraints(pattern=r"^shard-\d{6}\.tar$")]
    plan: StrictStr
    count: Count
    bytes: Count
    sha256: StrictStr
    samples: dict[str, dict[str, Span]]
    rejected: tuple[Rejection, ...] = ()
    licences: dict[str, Count] = field(default_factory=dict)
    tasks: dict[str, Count] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    left_aside: dict[str, Count] = field(default_factory=dict)


_DATASET, _ROW = TypeAdapter(Dataset), TypeAdapter(Row)


def shard_path(directory: Place, index: int) -> Place:
    """Name the tar of shard `index`."""
    return join(directory, f"shard-{index:06d}.tar")


def dataset_path(directory: Place) -> Place:
    """Name the plan of a directory of shards: where it is not, there are no shards."""
    return join(directory, "dataset.json")


def load_dataset(directory: Place) -> Dataset:
    """Read the plan of a directory of shards, finished or not.

    Raises:
        InputError: no plan there, or a damaged one.
    """
    path = dataset_path(directory)
    values = read_json(path, "the plan of a shard directory")
    if not isinstance(values, dict) or values.pop("schema", None) != DATASET_SCHEMA:
        raise InputError(f"{path}: not a {DATASET_SCHEMA} plan")
    try:
        return _DATASET.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{path}: damaged plan: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic found, on one line: field and reason."""
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def start_dataset(directory: Place, plan: Plan) -> None:
    """Make `directory` and write its plan, or check that the plan it has is this one, or the one that this grew from.

    Raises:
        InputError: the directory holds shards of another plan; mixing two would make neither reproducible.
    """
    make_folder(directory)
    found = find_dataset(directory)
    if found is None or plan.earlier[-1:] == ((found.digest, found.shards),):
        _write_dataset(directory, plan, None)
    elif found.digest != plan.digest:
        raise InputError(
            f"{directory}: holds shards of another plan (there -> here): {_plan_changes(found.plan, plan)}. "
            "Choose another --out, or delete the directory"
        )


def find_dataset(directory: Place) -> Dataset | None:
    """Read the plan of a directory that a job is to go on with; None: it has none.

    Raises:
        InputError: it is damaged.
    """
    if not exists(dataset_path(directory)):
        return None
    try:
        return load_dataset(directory)
    except InputError as error:
        raise InputError(f"{error}; delete it and run again: what is committed stays") from None


def _plan_changes(found: Plan, plan: Plan) -> str:
    """Return what differs between the plan of a directory and another, the first few keys."""
    there, here = (
        {"kind": each.kind, "shards": each.shards, **json.loads(canonical_json(dict(each.config)))}
        for each in (found, plan)
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
    _write_dataset(directory, plan, totals)
    return totals


def _write_dataset(directory: Place, plan: Plan, totals: dict[str, Any] | None) -> None:
    values = {"schema": DATASET_SCHEMA, **asdict(plan), "config": dict(plan.config), "digest": plan.digest}
    if not plan.earlier:
        del values["earlier"]
    write_atomic(dataset_path(directory), canonical_json({**values, "totals": totals}))


def finished_plan(directory: Place) -> Plan:
    """Return the plan of a directory whose shards are all committed.

    Raises:
        InputError: no shards there, or not all of them.
    """
    dataset = load_dataset(directory)
    if dataset.totals is None:
        raise InputError(f"{directory}: not every shard is committed; finish the job first")
    return dataset.plan


def row_names(directory: Place) -> list[str]:
    """List the names of the rows in a directory, in shard order."""
    return [name for name in list_sizes(directory) if _ROW_NAME.fullmatch(name)]


def committed_rows(directory: Place) -> list[Row]:
    """Read the rows of all committed shards, in shard order."""
    places = [join(directory, name) for name in row_names(directory)]
    return [_row_again(data, place) for place, data in zip(places, read_all(places), strict=True)]


def complete_rows(directory: Place) -> list[Row]:
    """Read the rows of a directory whose shards are all committed.

    Raises:
        InputError: no plan there, not every shard, or none at all.
    """
    planned = load_dataset(directory).shards
    rows = committed_rows(directory)
    if len(rows) < planned or not rows:
        raise InputError(f"{directory}: {len(rows)} of {planned} shards are committed; finish the job first")
    return rows


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
        told = "no such shard or directory"
    elif isinstance(directory, Path) and directory.is_file():
        told = "a file; name the directory that its shards are in"
    elif isinstance(directory, Path):
        below = sorted(str(plan.parent) for depth in ("*", "*/*") for plan in directory.glob(f"{depth}/dataset.json"))
        told += f"; there are in {', '.join(below[:8])}" if below else ""
    raise InputError(f"{directory}: {told}")


def is_committed(directory: Place, index: int, plan_digest: str) -> bool:
    """Tell whether shard `index` of this plan is finished; restarts ask nothing else.

    One whose row is damaged, or whose tar is gone or not as long as its row says, is not: it is made again.

    Raises:
        Unreachable: its server does not say.
    """
    tar = shard_path(directory, index)
    try:
        row = read_row(with_suffix(tar, ".json"))
        return row.plan == plan_digest and size_of(tar) == row.bytes
    except Unreachable:
        raise
    except InputError:
        return False


def committed_among(directory: Place, indices: Collection[int], made_by: Sequence[tuple[str, int]]) -> set[int]:
    """Return which of these shards are finished, as `is_committed` does, with one listing for all.

    Args:
        made_by: see `Plan.made_by`.
    """
    sizes = list_sizes(directory) if indices else {}
    rows = {f"shard-{index:06d}.json": index for index in indices}
    places = {join(directory, name): index for name, index in rows.items() if name in sizes}
    finished = set()
    for (place, index), data in zip(places.items(), read_all(list(places)), strict=True):
        try:
            row = _row_again(data, place)
        except Unreachable:
            raise
        except InputError:
            continue
        if row.plan == plan_of_shard(made_by, index) and sizes.get(row.shard) == row.bytes:
            finished.add(index)
    return finished


def read_row(path: Place) -> Row:
    """Read the row (json) of a shard.

    Raises:
        InputError: missing, not json, or not a row of this schema.
    """
    return _row_of(read_json(path, "the row of a shard"), path)


def _row_again(data: bytes, path: Place) -> Row:
    """Parse a row that was read among many; a damaged one is read again, alone: its reply may have been cut short."""
    try:
        return parse_row(data, path)
    except InputError:
        return read_row(path)


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
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid json (the row of a shard): {error}") from None
    return _row_of(values, path)


def _row_of(values: Any, path: Place) -> Row:
    if not isinstance(values, dict) or values.pop("schema", None) != SHARD_SCHEMA:
        raise InputError(f"{path}: not a {SHARD_SCHEMA} row")
    written = values.pop("digest", None)
    try:
        if written is not None and written != digest(values):
            raise ValueError("its digest is not that of its content")
        row = _ROW.validate_python(values)
        if row.count != len(row.samples):
            raise ValueError(f"it counts {row.count} records and lists {len(row.samples)}")
        spans = (span for parts in row.samples.values() for span in parts.values())
        if any(offset + size > row.bytes for offset, size, _ in spans):
            raise ValueError("a part that lies outside of the shard")
    except ValidationError as error:
        raise InputError(f"{path}: damaged shard row: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged shard row: {error}") from None
    return row
