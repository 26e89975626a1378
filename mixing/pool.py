"""Which records of a source may be drawn, and for which tasks: limits and tasks read from rows and json, not pixels."""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from encoders.instructions import tasks_of

from encoders.sample import InputError, Sample
from mixing.lock import LockedShard, LockedSource, pack_bits
from mixing.records import parse_origin, parse_outline
from mixing.shards import Row, committed_rows, read_parts
from mixing.storage import file_sha256, read_json

HELD_OUT, EXCLUDED, LICENCE, FILTERED, UNFIT = (
    "held out",
    "excluded",
    "licence not allowed",
    "filtered",
    "serve no task",
)


@dataclass(frozen=True)
class Limits:
    """What may be drawn from a source; see `mixing.mixture.Source` for the fields."""

    tasks: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    licences: frozenset[str] | None = None
    held_out_share: Fraction = Fraction(0)
    held_out_shards: frozenset[int] = frozenset()
    min_side: int = 1
    max_side: int | None = None
    min_quality: Mapping[str, float] = field(default_factory=dict)
    max_quality: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Record:
    key: str
    tasks: tuple[str, ...]
    licence: str
    sample: Sample | None


def is_held_out(sample_key: str, share: Fraction) -> bool:
    """Tell whether a sample is kept for evaluation: a function of its key alone, nested in the share."""
    value = int.from_bytes(hashlib.sha256(f"hold-out/{sample_key}".encode()).digest()[:8], "big")
    return value < share * 2**64


def scan_source(name: str, data: Path, path: Path, limits: Limits) -> LockedSource:
    """Read the rows and the json parts of a directory of shards.

    Raises:
        InputError: the directory is not complete, holds both kinds of record, or a json part is damaged.
    """
    directory = data / path
    dataset = read_json(directory / "dataset.json", f"the shards of source {name}")
    rows = committed_rows(directory)
    if len(rows) < dataset["shards"] or not rows:
        raise InputError(f"{directory}: {len(rows)} of {dataset['shards']} shards are committed; finish the job first")
    licences: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    shards = []
    forms: set[bool] = set()
    for index, row in enumerate(rows):
        tar = directory / row.shard
        with tar.open("rb") as file:
            records = [_read_record(file, row, key) for key in sorted(row.samples)]
        forms |= {record.sample is not None for record in records}
        reasons = [_reason(record, index, limits) for record in records]
        left_out.update(reason for reason in reasons if reason is not None)
        licences.update(record.licence for record, reason in zip(records, reasons) if reason is None)
        tasks = sorted({task for record in records for task in _wanted(record, limits)})
        usable = {
            task: pack_bits(np.array([r is None and task in x.tasks for x, r in zip(records, reasons)], bool))
            for task in tasks
        }
        held_out = pack_bits(np.array([reason == HELD_OUT for reason in reasons], bool)) if records else "none"
        row_sha256 = file_sha256(tar.with_suffix(".json"))
        shards.append(LockedShard(row.shard, row.sha256, row_sha256, row.bytes, row.count, usable, held_out))
    if len(forms) > 1:
        raise InputError(f"{directory}: raw samples and instruction examples in one directory; keep them apart")
    if limits.tasks is None and True in forms:
        raise InputError(f"mixture: source {name} holds raw samples: say in `tasks` what is drawn from them")
    return LockedSource(
        name=name,
        path=path.as_posix(),
        form="raw" if True in forms else "instructions",
        plan=dataset["digest"],
        records=sum(row.count for row in rows),
        licences=dict(sorted(licences.items())),
        left_out=dict(sorted(left_out.items())),
        shards=tuple(shards),
    )


def _read_record(file: BinaryIO, row: Row, key: str) -> _Record:
    names = row.samples[key]
    if "instruction.json" in names:
        task, sample_key, licence = parse_origin(key, read_parts(file, row, key, ("instruction.json",)))
        return _Record(sample_key, (task,), licence, None)
    size = _png_size(file, *names["image.png"][:1]) if "image.png" in names else (0, 0)
    outline = parse_outline(key, read_parts(file, row, key, ("json",)), names, size)
    return _Record(key, tasks_of(outline), outline.licence, outline)


def _png_size(file: BinaryIO, offset: int) -> tuple[int, int]:
    """Read height and width from the header of a PNG."""
    width, height = struct.unpack(">II", os.pread(file.fileno(), 8, offset + 16))
    return height, width


def _wanted(record: _Record, limits: Limits) -> set[str]:
    return set(record.tasks) if limits.tasks is None else set(record.tasks) & set(limits.tasks)


def _reason(record: _Record, shard: int, limits: Limits) -> str | None:
    """Say why a record may not be drawn, or None."""
    if record.key in limits.excluded:
        return EXCLUDED
    if shard in limits.held_out_shards or is_held_out(record.key, limits.held_out_share):
        return HELD_OUT
    if limits.licences is not None and record.licence not in limits.licences:
        return LICENCE
    if record.sample is not None and not _passes(record.sample, limits):
        return FILTERED
    if not _wanted(record, limits):
        return UNFIT
    return None


def _passes(sample: Sample, limits: Limits) -> bool:
    sides = sample.image.shape[:2]
    if min(sides) < limits.min_side or (limits.max_side is not None and max(sides) > limits.max_side):
        return False
    if any(sample.quality.get(name, -np.inf) < least for name, least in limits.min_quality.items()):
        return False
    return all(sample.quality.get(name, np.inf) <= most for name, most in limits.max_quality.items())
