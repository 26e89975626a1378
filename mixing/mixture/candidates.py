"""Which records of a source may be drawn, and for which tasks: told from the rows of its shards, not from pixels."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import LockedShard, LockedSource, pack_bits
from cavendish.mixing.shards.dataset import Row, is_row_name, parse_row
from cavendish.mixing.shards.reader import read_shard
from cavendish.mixing.shards.sample_format import record_facts, record_key
from cavendish.mixing.storage.place import Place, is_url, join, list_names, read_all, read_bytes

HELD_OUT, EXCLUDED, LICENCE, FILTERED, UNFIT = (
    "held out",
    "excluded",
    "licence not allowed",
    "filtered",
    "serve no task",
)


@dataclass(frozen=True)
class Limits:
    """What may be drawn from a source; see `mixing.mixture.make_lock.Source` for the fields."""

    tasks: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    licences: frozenset[str] | None = None
    held_out_share: Fraction = Fraction(0)
    held_out_shards: frozenset[int] = frozenset()
    min_side: int = 1
    max_side: int | None = None
    min_quality: Mapping[str, float] = field(default_factory=dict)
    max_quality: Mapping[str, float] = field(default_factory=dict)


def is_held_out(key: str, share: Fraction) -> bool:
    """Tell whether a sample, or a scene of samples, is kept for evaluation: by its key alone, nested in the share."""
    value = int.from_bytes(hashlib.sha256(f"hold-out/{key}".encode()).digest()[:8], "big")
    return value < share * 2**64


def size_range(height: int, width: int) -> str:
    """Name the range of pixels, a factor of two wide, that the shorter side of a picture is in."""
    low = 1 << min(height, width).bit_length() - 1
    return f"{low}-{2 * low - 1}"


def scan_source(
    name: str,
    data: Place,
    path: Place,
    limits: Limits,
    negatives: float = 0.1,
    colormaps: Mapping[str, float] | None = None,
) -> LockedSource:
    """Read the rows of a directory of shards.

    Args:
        data, path: `path` is relative to `data`, or a URL.
        negatives, colormaps: how its examples will be drawn; they go into the lock as they are.

    Raises:
        InputError: the directory is not complete, or holds both kinds of record.
    """
    directory = join(data, path)
    dataset = _dataset(name, directory)
    places = [join(directory, row_name) for row_name in list_names(directory) if is_row_name(row_name)]
    rows = [(hashlib.sha256(text).hexdigest(), parse_row(text, at)) for at, text in zip(places, read_all(places))]
    if len(rows) < dataset["shards"] or not rows:
        raise InputError(f"{directory}: {len(rows)} of {dataset['shards']} shards are committed; finish the job first")
    licences: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    shards = []
    forms: set[bool] = set()
    for index, (row_sha256, row) in enumerate(rows):
        tar = join(directory, row.shard)
        facts = row.facts or _facts_of(tar)
        records = [facts.get(key, {}) for key in sorted(row.samples)]
        forms |= {"instruction.json" not in parts for parts in row.samples.values()}
        try:
            reasons = [_reason(record, index, limits) for record in records]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{tar}: damaged facts in the row: {error}") from None
        drawn = [record for record, reason in zip(records, reasons) if reason is None]
        left_out.update(reason for reason in reasons if reason is not None)
        licences.update(record["licence"] for record in drawn)
        sizes.update(size_range(*record["size"]) for record in drawn)
        shards.append(_lock_shard(row, row_sha256, records, reasons, limits))
    if len(forms) > 1:
        raise InputError(f"{directory}: raw samples and instruction examples in one directory; keep them apart")
    if limits.tasks is None and True in forms:
        raise InputError(f"mixture: source {name} holds raw samples: say in `tasks` what is drawn from them")
    return LockedSource(
        name=name,
        path=str(path) if is_url(path) else Path(path).as_posix(),
        form="raw" if True in forms else "instructions",
        plan=dataset["digest"],
        records=sum(row.count for _, row in rows),
        licences=dict(sorted(licences.items())),
        left_out=dict(sorted(left_out.items())),
        sizes=dict(sorted(sizes.items())),
        negatives=negatives,
        colormaps=None if colormaps is None else dict(colormaps),
        shards=tuple(shards),
    )


def _lock_shard(
    row: Row,
    row_sha256: str,
    records: Sequence[Mapping[str, Any]],
    reasons: Sequence[str | None],
    limits: Limits,
) -> LockedShard:
    """Say which records of a shard may be drawn for what, given the reason against each."""
    tasks = sorted({task for record in records for task in _wanted(record, limits)})
    usable = {
        task: pack_bits(np.array([r is None and task in x["tasks"] for x, r in zip(records, reasons)], bool))
        for task in tasks
    }
    held_out = pack_bits(np.array([reason == HELD_OUT for reason in reasons], bool)) if records else "none"
    return LockedShard(row.shard, row.sha256, row_sha256, row.bytes, row.count, usable, held_out)


def _dataset(name: str, directory: Place) -> dict[str, Any]:
    at = join(directory, "dataset.json")
    try:
        values = json.loads(read_bytes(at))
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, InputError) else f"{at}: not valid json: {error}"
        raise InputError(f"{detail} (the shards of source {name})") from None
    if not isinstance(values, dict) or not isinstance(values.get("shards"), int) or "digest" not in values:
        raise InputError(f"{at}: does not say how many shards there are (the shards of source {name})")
    return values


def _facts_of(tar: Place) -> dict[str, dict[str, Any]]:
    """Return what is known of the records of a shard whose row does not say it: by reading them."""
    return {record_key(record): record_facts(record) for record in read_shard(tar)}


def _wanted(record: Mapping[str, Any], limits: Limits) -> set[str]:
    return set(record["tasks"]) if limits.tasks is None else set(record["tasks"]) & set(limits.tasks)


def _reason(record: Mapping[str, Any], shard: int, limits: Limits) -> str | None:
    """Say why a record may not be drawn, or None."""
    if record["sample"] in limits.excluded:
        return EXCLUDED
    if shard in limits.held_out_shards or is_held_out(_scene(record), limits.held_out_share):
        return HELD_OUT
    if limits.licences is not None and record["licence"] not in limits.licences:
        return LICENCE
    if not _passes(record, limits):
        return FILTERED
    return None if _wanted(record, limits) else UNFIT


def _scene(record: Mapping[str, Any]) -> str:
    """Return what is held out as one: views of a scene show the same things."""
    return str(record.get("scene", record["sample"]))


def _passes(record: Mapping[str, Any], limits: Limits) -> bool:
    if min(record["size"]) < limits.min_side or (limits.max_side is not None and max(record["size"]) > limits.max_side):
        return False
    quality = record["quality"]
    if any(quality.get(name, -math.inf) < least for name, least in limits.min_quality.items()):
        return False
    return all(quality.get(name, math.inf) <= most for name, most in limits.max_quality.items())
