"""Scans a shard, its metadata alone, or controls, with every signal; commits the result as one json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import cv2

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.controls import scan_clean_controls
from cavendish.mixing.audit.plan import SCAN_SCHEMA, ScanPlan, ScanTask
from cavendish.mixing.audit.signals.registry import METADATA_SIGNALS, SIGNALS
from cavendish.mixing.audit.signals.signal import DAMAGED, Record, ShardResults, Signal
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import Origin, Parts
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import (
    Place,
    file_sha256,
    join,
    local_copy,
    name_of,
    read_json,
    with_suffix,
    write_atomic,
)


def committed_result(plan: ScanPlan, index: int) -> dict[str, Any] | None:
    """Return the result of a task; None when there is none, or a damaged one, which the next scan makes again."""
    path = plan.tasks[index].result_path(plan.work)
    try:
        values = read_json(path, "a result of the scan")
    except InputError:
        return None
    if not isinstance(values, dict) or values.pop("digest", None) != digest(values):
        return None
    return values


def is_done(plan: ScanPlan, index: int) -> bool:
    """Tell whether a task's result is committed."""
    return committed_result(plan, index) is not None


def still_to_scan(plan: ScanPlan, indices: Iterable[int]) -> list[int]:
    """Return the tasks without a result; that of a shard which was damaged is deleted: it may have been restored."""
    pending = []
    for index in indices:
        task, result = plan.tasks[index], committed_result(plan, index)
        if result is not None and any(one["member"] == task.name for one in result.get("failures", ())):
            task.result_path(plan.work).unlink()
            result = None
        if result is None:
            pending.append(index)
    return pending


def scan_task(plan: ScanPlan, index: int) -> None:
    """Do one task and commit its result, with the digest by which a flipped bit in it is noticed."""
    cv2.setNumThreads(1)
    if is_done(plan, index):
        return
    task = plan.tasks[index]
    facts = {"schema": SCAN_SCHEMA, "plan": task.digest, "kind": task.kind, "name": task.name}
    values = {**facts, "directory": task.facts.get("directory"), **_do(plan, task)}
    write_atomic(task.result_path(plan.work), canonical_json({**values, "digest": digest(values)}))


def _do(plan: ScanPlan, task: ScanTask) -> dict[str, Any]:
    match task.kind:
        case "shard" | "metadata":
            signals = SIGNALS if task.kind == "shard" else METADATA_SIGNALS
            return scan_shard(plan, join(join(plan.data, task.facts["directory"]), task.name), signals)
        case "clean":
            return {"clean": scan_clean_controls(plan.packs, plan.config.controls, plan.config.thresholds, plan.data)}
        case _:
            (signal,) = (signal for signal in SIGNALS if signal.name == task.facts["signal"])
            (index,) = (index for index in plan.indexes if index.name == task.name)
            return {"signal": signal.name, "planted": signal.plant(plan, index)}


def scan_shard(plan: ScanPlan, path: Place, signals: Sequence[Signal] = SIGNALS) -> dict[str, Any]:
    """Scan every record of one committed shard.

    Returns:
        counts (records, failed, and those of the signals), members {kind of part: counts}, sources {name: facts},
        failures [{member, reason}], and findings: each a `Finding` as json with its key, sample (the key of the sample
        it is made of), member, pixel_sha256, text (the training text) and similarity.
    """
    row = read_row(with_suffix(path, ".json"))
    results = ShardResults(Counter({name: 0 for signal in signals for name in signal.counters}))
    results.counts["records"] = len(row.samples)
    with local_copy(path) as tar, open_file(tar) as file:
        if file_sha256(tar) != row.sha256:
            results.fail(name_of(path), "its sha256 is not the one it was committed with")
        for key in row.samples:
            try:
                parts = read_parts(file, row, key)
            except InputError as error:
                results.fail(key, error)
                continue
            scan_record(plan, key, parts, signals, results)
    results.counts["failed"] = len(results.failures)
    return {
        "sha256": row.sha256,
        "counts": results.counts,
        "sources": {name: facts.as_json() for name, facts in sorted(results.sources.items())},
        "members": {name: dict(counts) for name, counts in sorted(results.members.items())},
        "failures": results.failures,
        "findings": results.findings,
    }


def scan_record(plan: ScanPlan, key: str, parts: Parts, signals: Sequence[Signal], results: ShardResults) -> None:
    """Compare one record with every benchmark; metadata that cannot be read is a failure, its images are compared."""
    record = Record(key, parts, key)
    try:
        record.sample = sample_key(key, parts)
        for signal in signals:
            if signal.from_metadata:
                signal.compare(plan, record, results)
    except DAMAGED as error:
        results.fail(f"{key}.json", f"its metadata cannot be read: {error}")
    for signal in signals:
        if not signal.from_metadata:
            signal.compare(plan, record, results)


def sample_key(key: str, parts: Parts) -> str:
    """Return the key of the sample that a record is made of: the key used for exclusion."""
    if "instruction.json" not in parts:
        return key
    meta = json.loads(parts["instruction.json"])
    return Origin.of_spec(meta.get("spec")).sample_of(str(meta.get("key", key)))
