"""A few records of an audit's scan, for `cavendish plan`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import cv2

from cavendish.encoders.sample import Rejection
from cavendish.mixing.audit.benchmarks.contents import Reader
from cavendish.mixing.audit.config import AuditConfig
from cavendish.mixing.audit.plan import ScanPlan, make_plan
from cavendish.mixing.audit.scan import scan_shard
from cavendish.mixing.jobs.estimate import Stage
from cavendish.mixing.jobs.probe import Trial
from cavendish.mixing.shards.writer import ShardWriter, committed_rows, open_tar, read_parts, some_rows
from cavendish.mixing.storage.place import join

_folders: list[str] = []


def audit_stage(config: AuditConfig, data: Path, units: int, reader: Reader | None = None) -> Stage:
    """Return what an audit is, with a trial on records taken evenly from its shards.

    The benchmarks are indexed in full in the trial: that is done once in an audit, whatever is scanned.

    Raises:
        InputError: a directory of shards is not there.
    """
    keys = []
    shards = 0
    for directory in config.shards:
        rows = some_rows(join(data, directory))
        shards += len(rows)
        keys += [(directory, row.shard, key) for row in rows for key in row.samples]
    wanted = min(3 * units, len(keys))
    chosen = tuple(keys[i * len(keys) // wanted] for i in range(wanted))
    controls = config.controls.copies * len(config.benchmarks) + config.controls.clean
    return Stage(
        verb="audit",
        unit="record",
        units=len(keys),
        units_per_shard=max(1, round(len(keys) / shards)),
        shard_key="",
        trial=Trial(partial(scan_one, config, data, chosen, reader), wanted, 1, count_rejected=True, close=clear),
        samples_per_unit=1.0,
        start_once=True,
        fixed_units=controls,
    )


def scan_one(
    config: AuditConfig, data: Path, chosen: tuple[tuple[str, str, str], ...], reader: Reader | None, index: int
) -> Iterator[Rejection]:
    """Scan one record, in a shard of its own."""
    cv2.setNumThreads(1)
    plan, folder = _prepared(config.model_dump_json(), data, chosen, reader)
    scan_shard(plan, folder / "shards" / f"shard-{index:06d}.tar")
    yield Rejection(chosen[index][2], "scanned")


@cache
def _prepared(
    config: str, data: Path, chosen: tuple[tuple[str, str, str], ...], reader: Reader | None
) -> tuple[ScanPlan, Path]:
    """Copy the chosen records to a temporary folder, and index the benchmarks there."""
    folder = Path(tempfile.mkdtemp(prefix="cavendish-plan-"))
    _folders.append(str(folder))
    (folder / "shards").mkdir()
    for number, (directory, shard, key) in enumerate(chosen):
        row = next(row for row in committed_rows(join(data, directory)) if row.shard == shard)
        with (
            ShardWriter(folder / "shards", number, "probe") as writer,
            open_tar(join(join(data, directory), shard)) as f,
        ):
            writer.add_parts(key, read_parts(f, row, key))
    values = AuditConfig.model_validate_json(config).model_copy(
        update={"shards": (str(folder / "shards"),), "work": str(folder / "work")}
    )
    return make_plan(values, folder, data.absolute(), reader), folder


def clear() -> None:
    """Delete the temporary folders of this process."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
