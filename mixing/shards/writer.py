"""Shards: deterministic WebDataset tars, each committed by one json row that holds its hash, counts and index.

A directory of shards holds `dataset.json` (the plan, and totals when complete) and, for each shard, `shard-000000.tar`
beside `shard-000000.json`. The row is the commit: a tar without a row does not exist for any reader.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.accounting import Accounting, add_counts
from cavendish.mixing.shards.dataset import Row as Row
from cavendish.mixing.shards.dataset import is_row_name as is_row_name
from cavendish.mixing.shards.dataset import parse_row as parse_row
from cavendish.mixing.shards.dataset import row_bytes, row_of
from cavendish.mixing.shards.sample_format import Parts, parse_record, record_facts, record_key, record_parts
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.files import (
    canonical_json,
    commit,
    digest,
    file_sha256,
    read_json,
    temporary_name,
    write_atomic,
    writing,
)
from cavendish.mixing.storage.objects import RemoteBytes
from cavendish.mixing.storage.place import Place, exists, is_url, join, make_folder, name_of, with_suffix

DATASET_SCHEMA = "cavendish-dataset/1"
_BLOCK = tarfile.BLOCKSIZE


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
                f"{directory}: holds shards of another plan ({found.get('kind')}, {str(found.get('digest'))[:12]}); "
                f"this one is {plan.kind} {plan.digest[:12]}. Choose another --out, or delete the directory"
            )
        return
    _write_dataset(path, plan, None)


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


class ShardWriter:
    """Writes one shard; leaving the `with` block without an exception commits it, with one it leaves nothing.

    with ShardWriter(directory, 0, plan.digest) as writer:
        writer.add(sample)
        writer.reject("scene-000017", "camera inside a wall")
    """

    def __init__(self, directory: Place, index: int, plan_digest: str) -> None:
        self._path = shard_path(directory, index)
        self._plan_digest = plan_digest
        self._temporary = temporary_name(self._path)
        self._file: BinaryIO | None = None
        self._samples: dict[str, dict[str, tuple[int, int, int]]] = {}
        self._rejected: list[Rejection] = []
        self._left_aside: Counter[str] = Counter()
        self._licences: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ShardWriter:
        with writing(self._temporary, self._path):
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
            raise InputError(f"{name_of(self._path)}: key {key} twice in one shard")
        self._samples[key] = {name: self._append(f"{key}.{name}", data) for name, data in parts.items()}

    def reject(self, key: str, reason: str) -> None:
        """Note a sample that was not made, in the dead letters of this shard."""
        self._rejected.append(Rejection(key, reason))

    def leave_aside(self, reason: str, count: int = 1) -> None:
        """Count inputs of this shard that are none of its job's, by a reason without names."""
        self._left_aside[reason] += count

    def _append(self, name: str, data: bytes) -> tuple[int, int, int]:
        assert self._file is not None
        header = tarfile.TarInfo(name)  # fixed mode, owner and time, so that equal records give equal bytes
        header.size = len(data)
        header.mode = 0o644
        with writing(self._temporary, self._path):
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
            self._temporary.unlink(missing_ok=True)
            with suppress(OSError):  # what is still buffered, and a disk that is full
                self._file.close()
            return
        with writing(self._temporary, self._path), self._file:
            self._file.write(b"\0" * (2 * _BLOCK))
            self._file.flush()
            os.fsync(self._file.fileno())
        row = Row(
            shard=name_of(self._path),
            plan=self._plan_digest,
            count=len(self._samples),
            bytes=self._temporary.stat().st_size,
            sha256=file_sha256(self._temporary),
            samples=self._samples,
            rejected=tuple(self._rejected),
            licences=dict(sorted(self._licences.items())),
            tasks=dict(sorted(self._tasks.items())),
            facts=self._facts,
            left_aside=dict(sorted(self._left_aside.items())),
        )
        commit(self._temporary, self._path)
        write_atomic(with_suffix(self._path, ".json"), row_bytes(row))


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


@contextmanager
def open_tar(path: Place) -> Iterator[BinaryIO | RemoteBytes]:
    """Open the tar of a shard for `read_parts`."""
    if is_url(path):
        yield RemoteBytes(str(path))
        return
    with Path(path).open("rb") as file:
        yield file


def read_parts(file: BinaryIO | RemoteBytes, row: Row, key: str, names: Collection[str] | None = None) -> Parts:
    """Read the parts of one key from an open tar, checking the hash of each.

    Args:
        names: only these parts, as far as the key has them; None: all.

    Raises:
        InputError: a part's bytes are not those that were written, also when they are fetched a second time.
    """
    parts: Parts = {}
    for name, (offset, size, crc32) in row.samples[key].items():
        if names is not None and name not in names:
            continue
        if isinstance(file, RemoteBytes):
            data = file.read(offset, size, crc32)
        else:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size or zlib.crc32(data) != crc32:
            raise InputError(f"{row.shard}: {key}.{name} is damaged (its hash differs from the row's)")
        parts[name] = data
    return parts


def read_shard(path: Place) -> Iterator[Sample | Example]:
    """Yield the records of one committed shard, ordered by key, each part's hash checked.

    Raises:
        InputError: no row beside the tar, or a damaged part or record.
    """
    row = read_row(with_suffix(path, ".json"))
    with open_tar(path) as file:
        for key in row.samples:
            yield parse_record(key, read_parts(file, row, key))


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


def read_dataset(directory: Place) -> Iterator[Sample | Example]:
    """Yield the records of all committed shards of a directory.

    Raises:
        InputError: the directory has no committed shard.
    """
    for row in some_rows(directory):
        yield from read_shard(join(directory, row.shard))


def verify(directory: Place) -> list[str]:
    """Check every shard of a directory against its row and every record against the schema; return the problems.

    An empty list means: every planned shard is there, every byte is as committed, every record can be read.
    """
    dataset = read_json(join(directory, "dataset.json"), "the plan of a shard directory")
    try:
        planned, plan_digest = int(dataset["shards"]), str(dataset["digest"])
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{directory}/dataset.json: damaged plan: {error}") from None
    problems = []
    rows = []
    for name in row_names(directory):
        try:
            rows.append(read_row(join(directory, name)))
        except InputError as error:
            problems.append(str(error))
    missing = planned - len(rows)
    if missing:
        problems.append(f"{directory}: {missing} of {planned} planned shards are not committed")
    seen: set[str] = set()
    for row in rows:
        problems += _verify_shard(directory, row, plan_digest, seen)
    return problems


def _verify_shard(directory: Place, row: Row, plan_digest: str, seen: set[str]) -> list[str]:
    place = join(directory, row.shard)
    if row.plan != plan_digest:
        return [f"{place}: made by plan {row.plan[:12]}, the directory's is {plan_digest[:12]}"]
    if not exists(place):
        return [f"{place}: its row is here, the tar is not"]
    with local_copy(place) as path:
        if file_sha256(path) != row.sha256:
            return [f"{place}: sha256 differs from the row's"]
        problems = [f"{place}: key {key} is in another shard too" for key in row.samples if key in seen]
        seen.update(row.samples)
        if len(row.samples) != row.count or set(tar_members(path)) != {
            f"{key}.{name}" for key, parts in row.samples.items() for name in parts
        }:
            problems.append(f"{place}: its members are not those of its row")
        try:
            with open_tar(path) as file:
                for key in row.samples:
                    parse_record(key, read_parts(file, row, key))
        except InputError as error:
            problems.append(f"{place}: {error}")
    return problems


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Give a file of this machine: itself, or for as long as the context lasts a copy.

    Raises:
        MissingFile, Unreachable: it cannot be fetched.
    """
    if not is_url(place):
        yield Path(place)
        return
    temporary = temporary_name(place)
    try:
        objects.download(str(place), temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def tar_members(path: Path) -> list[str]:
    """List the member names of a tar with Python's own reader, as any other tool would see them."""
    with tarfile.open(path, mode="r:") as tar:
        return tar.getnames()
