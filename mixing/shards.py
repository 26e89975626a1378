"""Shards: deterministic WebDataset tars, each committed by one json row that holds its hash, counts and index.

A directory of shards holds `dataset.json` (the plan, and totals when complete) and, for each shard, `shard-000000.tar`
beside `shard-000000.json`. The row is the commit: a tar without a row does not exist for any reader.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoders.sample import Example, InputError, Rejection, Sample
from mixing.records import Parts, parse_record, record_facts, record_key, record_parts
from mixing.storage import (
    canonical_json,
    commit,
    digest,
    file_sha256,
    read_json,
    temporary_name,
    write_atomic,
)

SHARD_SCHEMA = "cavendish-shard/1"
DATASET_SCHEMA = "cavendish-dataset/1"
_BLOCK = tarfile.BLOCKSIZE
_ROW_NAME = re.compile(r"shard-\d{6}\.json")


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
    has what a mixture chooses by (see `mixing.records.record_facts`), for each key.
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


def shard_path(directory: Path, index: int) -> Path:
    """Name the tar of shard `index`."""
    return directory / f"shard-{index:06d}.tar"


def start_dataset(directory: Path, plan: Plan) -> None:
    """Make `directory` and write its plan, or check that the plan it has is this one.

    Raises:
        InputError: the directory holds shards of another plan; mixing two would make neither reproducible.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "dataset.json"
    if path.exists():
        found = read_json(path, "the plan of a shard directory")
        if found.get("digest") != plan.digest:
            raise InputError(
                f"{directory}: holds shards of another plan ({found.get('kind')}, {str(found.get('digest'))[:12]}); "
                f"this one is {plan.kind} {plan.digest[:12]}. Choose another --out, or delete the directory"
            )
        return
    _write_dataset(path, plan, None)


def finish_dataset(directory: Path, plan: Plan) -> dict[str, Any] | None:
    """Write the totals into `dataset.json` when every shard is committed; return them, or None when some are not."""
    rows = committed_rows(directory)
    if len(rows) < plan.shards:
        return None
    totals: dict[str, Any] = {
        "records": sum(row.count for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "rejected": sum(len(row.rejected) for row in rows),
        "licences": _add_up(row.licences for row in rows),
        "tasks": _add_up(row.tasks for row in rows),
        "digest": digest([row.sha256 for row in rows]),
    }
    _write_dataset(directory / "dataset.json", plan, totals)
    return totals


def _write_dataset(path: Path, plan: Plan, totals: dict[str, Any] | None) -> None:
    values = {"schema": DATASET_SCHEMA, **asdict(plan), "config": dict(plan.config), "digest": plan.digest}
    write_atomic(path, canonical_json({**values, "totals": totals}))


def _add_up(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


class ShardWriter:
    """Writes one shard; leaving the `with` block without an exception commits it, with one it leaves nothing.

    with ShardWriter(directory, 0, plan.digest) as writer:
        writer.add(sample)
        writer.reject("scene-000017", "camera inside a wall")
    """

    def __init__(self, directory: Path, index: int, plan_digest: str) -> None:
        self._path = shard_path(directory, index)
        self._plan_digest = plan_digest
        self._temporary = temporary_name(self._path)
        self._file: BinaryIO | None = None
        self._samples: dict[str, dict[str, tuple[int, int, int]]] = {}
        self._rejected: list[Rejection] = []
        self._licences: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ShardWriter:
        self._file = self._temporary.open("wb")
        return self

    def add(self, record: Sample | Example) -> None:
        """Append one record.

        Raises:
            InputError: its key is already in the shard, or a field cannot be stored without loss.
        """
        key = record_key(record)
        self.add_parts(key, record_parts(record))
        facts = self._facts[key] = record_facts(record)
        self._licences[facts["licence"]] = self._licences.get(facts["licence"], 0) + 1
        if isinstance(record, Example):
            self._tasks[record.task] = self._tasks.get(record.task, 0) + 1

    def add_parts(self, key: str, parts: Parts) -> None:
        """Append bytes that are no record, such as arrays computed from one.

        Raises:
            InputError: its key is already in the shard.
        """
        if key in self._samples:
            raise InputError(f"{self._path.name}: key {key} twice in one shard")
        self._samples[key] = {name: self._append(f"{key}.{name}", data) for name, data in parts.items()}

    def reject(self, key: str, reason: str) -> None:
        """Note a sample that was not made, in the dead letters of this shard."""
        self._rejected.append(Rejection(key, reason))

    def _append(self, name: str, data: bytes) -> tuple[int, int, int]:
        assert self._file is not None
        header = tarfile.TarInfo(name)  # fixed mode, owner and time, so that equal records give equal bytes
        header.size = len(data)
        header.mode = 0o644
        self._file.write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self._file.tell()
        self._file.write(data)
        self._file.write(b"\0" * (-len(data) % _BLOCK))
        return offset, len(data), zlib.crc32(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        if kind is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            return
        self._file.write(b"\0" * (2 * _BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        row = Row(
            shard=self._path.name,
            plan=self._plan_digest,
            count=len(self._samples),
            bytes=self._temporary.stat().st_size,
            sha256=file_sha256(self._temporary),
            samples=self._samples,
            rejected=tuple(self._rejected),
            licences=dict(sorted(self._licences.items())),
            tasks=dict(sorted(self._tasks.items())),
            facts=self._facts,
        )
        commit(self._temporary, self._path)
        write_atomic(self._path.with_suffix(".json"), canonical_json({"schema": SHARD_SCHEMA, **asdict(row)}))


def is_committed(directory: Path, index: int, plan_digest: str) -> bool:
    """Tell whether shard `index` of this plan is finished; readers and restarts ask nothing else."""
    path = shard_path(directory, index).with_suffix(".json")
    return path.exists() and read_row(path).plan == plan_digest


def read_row(path: Path) -> Row:
    """Read the row (json) of a shard.

    Raises:
        InputError: missing, not json, or not a row of this schema.
    """
    return _row(read_json(path, "the row of a shard"), path)


def parse_row(data: bytes, path: Path | str) -> Row:
    """Read a row out of its bytes; `path` says where they are from.

    Raises:
        InputError: not json, or not a row of this schema.
    """
    try:
        return _row(json.loads(data), path)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid json (the row of a shard): {error}") from None


def _row(values: Any, path: Path | str) -> Row:
    if not isinstance(values, dict) or values.pop("schema", None) != SHARD_SCHEMA:
        raise InputError(f"{path}: not a {SHARD_SCHEMA} row")
    try:
        values["rejected"] = tuple(Rejection(**item) for item in values["rejected"])
        values["samples"] = {
            key: {name: (int(at[0]), int(at[1]), int(at[2])) for name, at in parts.items()}
            for key, parts in values["samples"].items()
        }
        return Row(**values)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: damaged shard row: {error}") from None


@dataclass(frozen=True)
class ShardIndex:
    """Where the parts of a shard's records are: what a reader keeps of a row, a tenth of its memory.

    Args:
        keys: in sorted order; a place is a number in it.
        names: of the parts that occur.
        parts: (records, names, 3) int64: offset, size and crc32 of each part; offset -1 where a record has none.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    parts: NDArray[np.int64]

    def ranges(self, place: int, names: Collection[str] | None = None) -> Iterator[tuple[str, int, int, int]]:
        """Yield name, offset, size and crc32 of the parts of a record, or of those among `names`."""
        for name, (offset, size, crc32) in zip(self.names, self.parts[place].tolist()):
            if offset >= 0 and (names is None or name in names):
                yield name, offset, size, crc32


def read_index(data: bytes, name: str) -> ShardIndex:
    """Read the index out of the bytes of a shard's row.

    Raises:
        InputError: not a row of this schema.
    """
    try:
        values = json.loads(data)
        if values["schema"] != SHARD_SCHEMA:
            raise InputError(f"{name}: not a {SHARD_SCHEMA} row")
        samples = values["samples"]
        keys = tuple(sorted(samples))
        names = tuple(sorted({part for parts in samples.values() for part in parts}))
        none = (-1, 0, 0)
        table = [[samples[key].get(part, none) for part in names] for key in keys]
        parts = np.array(table, np.int64).reshape(len(keys), len(names), 3)
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{name}: damaged shard row: {error}") from None
    return ShardIndex(keys, names, parts)


def finished_plan(directory: Path) -> Plan:
    """Return the plan of a directory whose shards are all committed.

    Raises:
        InputError: no shards there, or not all of them.
    """
    values = read_json(directory / "dataset.json", "the plan of a shard directory")
    try:
        plan = Plan(values["kind"], int(values["shards"]), dict(values["config"]))
        finished = values["totals"] is not None
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{directory}/dataset.json: damaged plan: {error}") from None
    if not finished:
        raise InputError(f"{directory}: not every shard is committed; finish the job first")
    return plan


def is_row_name(name: str) -> bool:
    """Tell whether a file of that name is the row of a shard."""
    return _ROW_NAME.fullmatch(name) is not None


def committed_rows(directory: Path) -> list[Row]:
    """Read the rows of all committed shards, in shard order."""
    return [read_row(path) for path in sorted(directory.glob("shard-*.json")) if _ROW_NAME.fullmatch(path.name)]


def read_parts(file: BinaryIO, row: Row, key: str, names: Collection[str] | None = None) -> Parts:
    """Read the parts of one key from an open tar, checking the hash of each.

    Args:
        names: only these parts, as far as the key has them; None: all.

    Raises:
        InputError: a part's bytes are not those that were written.
    """
    parts: Parts = {}
    for name, (offset, size, crc32) in row.samples[key].items():
        if names is not None and name not in names:
            continue
        data = os.pread(file.fileno(), size, offset)
        if len(data) != size or zlib.crc32(data) != crc32:
            raise InputError(f"{row.shard}: {key}.{name} is damaged (its hash differs from the row's)")
        parts[name] = data
    return parts


def read_shard(path: Path) -> Iterator[Sample | Example]:
    """Yield the records of one committed shard, ordered by key, each part's hash checked.

    Raises:
        InputError: no row beside the tar, or a damaged part or record.
    """
    row = read_row(path.with_suffix(".json"))
    with path.open("rb") as file:
        for key in row.samples:
            yield parse_record(key, read_parts(file, row, key))


def read_dataset(directory: Path) -> Iterator[Sample | Example]:
    """Yield the records of all committed shards of a directory.

    Raises:
        InputError: the directory has no committed shard.
    """
    rows = committed_rows(directory)
    if not rows:
        raise InputError(f"{directory}: no committed shards here")
    for row in rows:
        yield from read_shard(directory / row.shard)


def verify(directory: Path) -> list[str]:
    """Check every shard of a directory against its row and every record against the schema; return the problems.

    An empty list means: every planned shard is there, every byte is as committed, every record can be read.
    """
    dataset = read_json(directory / "dataset.json", "the plan of a shard directory")
    problems = []
    rows = []
    for path in sorted(directory.glob("shard-*.json")):
        try:
            rows.append(read_row(path))
        except InputError as error:
            problems.append(str(error))
    missing = dataset["shards"] - len(rows)
    if missing:
        problems.append(f"{directory}: {missing} of {dataset['shards']} planned shards are not committed")
    seen: set[str] = set()
    for row in rows:
        problems += _verify_shard(directory / row.shard, row, dataset["digest"], seen)
    return problems


def _verify_shard(path: Path, row: Row, plan_digest: str, seen: set[str]) -> list[str]:
    if row.plan != plan_digest:
        return [f"{path}: made by plan {row.plan[:12]}, the directory's is {plan_digest[:12]}"]
    if not path.exists():
        return [f"{path}: its row is here, the tar is not"]
    if file_sha256(path) != row.sha256:
        return [f"{path}: sha256 differs from the row's"]
    problems = [f"{path}: key {key} is in another shard too" for key in row.samples if key in seen]
    seen.update(row.samples)
    if len(row.samples) != row.count or set(tar_members(path)) != {
        f"{key}.{name}" for key, parts in row.samples.items() for name in parts
    }:
        problems.append(f"{path}: its members are not those of its row")
    try:
        for _ in read_shard(path):
            pass
    except InputError as error:
        problems.append(f"{path}: {error}")
    return problems


def tar_members(path: Path) -> list[str]:
    """List the member names of a tar with Python's own reader, as any other tool would see them."""
    with tarfile.open(path, mode="r:") as tar:
        return tar.getnames()
