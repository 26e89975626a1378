"""The audit as a job: index the benchmarks, scan every shard (one task = one shard), judge, write the report."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.benchmark_index import Reader, index_benchmarks
from cavendish.mixing.audit.config import AuditConfig
from cavendish.mixing.audit.plan import ScanPlan, make_plan, metadata_plan
from cavendish.mixing.audit.report.evidence import Evidence, read_decisions
from cavendish.mixing.audit.report.write import Verdict, WordsVerdict, recheck_report, write_report, write_words_report
from cavendish.mixing.audit.scan import committed_result, is_done, scan_shard, scan_task, still_to_scan
from cavendish.mixing.jobs.beam import RunTasks, Tasks, run_tasks
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, Progress
from cavendish.mixing.shards.dataset import committed_rows, load_dataset, some_rows
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, collect_leftovers, join, read_json

__all__ = ["AuditConfig", "audit", "audit_words", "index_benchmarks", "report", "scan", "verify_report"]


def audit(
    config: AuditConfig,
    out: Path,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
    reader: Reader | None = None,
) -> Verdict:
    """Run the whole audit: index, scan, report. What an earlier run finished is not done again.

    Args:
        reader: reads the benchmarks that name a reader; see `benchmark_index.Reader`.

    Returns:
        The verdict; `out` holds report.json, report.html, exclude.json, the packs and the scan's results.

    Raises:
        InputError: an input that must be there is not, or is damaged.
        JobFailed: the engine lost workers; run again to continue.
    """
    plan = make_plan(config, out, data, reader)
    _scan(plan, engine, progress)
    return write_report(_evidence(plan), out, plan.data)


def scan(
    config: AuditConfig,
    out: Path,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
    reader: Reader | None = None,
) -> None:
    """Compare every shard, and the controls, with the indexed benchmarks, and commit one json per task.

    With `engine.split` only a part of them; the parts may run on different machines that share the work folder.
    """
    _scan(make_plan(config, out, data, reader), engine, progress)


def report(config: AuditConfig, out: Path, data: Path = Path(), reader: Reader | None = None) -> Verdict:
    """Judge what the scan found and write report.json, report.html and exclude.json.

    Raises:
        InputError: the scan of these inputs is not finished.
    """
    plan = make_plan(config, out, data, reader)
    return write_report(_evidence(plan), out, plan.data)


def audit_words(
    config: AuditConfig,
    out: Path,
    kinds: Sequence[str],
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
    reader: Reader | None = None,
) -> WordsVerdict:
    """Compare only what records say, are named and come from; no picture is read, so the answer is never "clean".

    Args:
        kinds: which findings are asked for: "text" and "identity", or "lineage" and "licence".
    """
    plan = metadata_plan(config, out, data, reader)
    _scan(plan, engine, progress)
    return write_words_report(_evidence(plan), kinds, out)


def verify_report(config: AuditConfig, out: Path, data: Path = Path(), reader: Reader | None = None) -> list[str]:
    """Check a report again from its inputs; return the problems (none: it stands). See `recheck_report`."""
    plan = make_plan(config, out, data, reader)
    return recheck_report(plan, partial(_evidence, plan), out)


class AuditShards(RunTasks):
    """Compares every shard, and the controls, with the benchmarks, in a Beam pipeline: a collection of scan results.

    `report` judges them once the pipeline is done.
    """

    def __init__(self, config: AuditConfig, out: Path, data: Path = Path(), reader: Reader | None = None) -> None:
        plan = make_plan(config, out, data, reader)
        (plan.work / "scan").mkdir(parents=True, exist_ok=True)
        super().__init__(partial(_scan_and_read, plan), range(len(plan.tasks)))


def _scan_and_read(plan: ScanPlan, index: int) -> dict[str, Any] | None:
    scan_task(plan, index)
    return committed_result(plan, index)


def _scan(plan: ScanPlan, engine: Engine, progress: Progress | None) -> None:
    (plan.work / "scan").mkdir(parents=True, exist_ok=True)
    collect_leftovers(plan.work / "scan")
    indices = range(engine.split[0], len(plan.tasks), engine.split[1])
    pending = still_to_scan(plan, indices)
    done_among = lambda some: {index for index in some if is_done(plan, index)}
    already = len(indices) - len(pending)
    run_tasks(Tasks(partial(scan_task, plan), pending, done_among, already, "parts of the scan"), engine, progress)


def _evidence(plan: ScanPlan) -> Evidence:
    """Collect everything a report is a function of."""
    results = []
    for number, task in enumerate(plan.tasks):
        result = committed_result(plan, number)
        if result is None:
            raise InputError(f"{plan.work}: {task.kind} {task.name} is not scanned yet; run the scan first")
        results.append(result)
    return Evidence(
        plan=plan,
        results=tuple(results),
        uncommitted={name: _uncommitted(join(plan.data, name)) for name in plan.config.shards},
        excluded=_excluded_keys(plan.config, plan.data),
        decisions=read_decisions(plan.config.decisions, plan.data),
    )


def _excluded_keys(config: AuditConfig, data: Path) -> frozenset[str]:
    keys: set[str] = set()
    for name in config.exclude:
        values: Any = read_json(data / name, "an exclusion list")
        if not isinstance(values, dict) or not isinstance(values.get("keys"), list):
            raise InputError(f"{data / name}: an exclusion list is a json map with a list `keys`")
        keys.update(values["keys"])
    return frozenset(keys)


def _uncommitted(directory: Place) -> int:
    return load_dataset(directory).shards - len(committed_rows(directory))


_folders: list[str] = []


def audit_probe(config: AuditConfig, data: Path, units: int, reader: Reader | None = None) -> Probe:
    """Return a probe of an audit: records taken evenly from its shards.

    The benchmarks are indexed in full: that is done once in an audit, whatever is scanned.

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
    return Probe(
        verb="audit",
        unit="record",
        units=len(keys),
        units_per_shard=max(1, round(len(keys) / shards)),
        build=partial(_scan_chosen, config, data, chosen, reader),
        trial_shards=wanted,
        trial_units=1,
        close=_clear,
        samples_per_unit=1.0,
        start_once=True,
        fixed_units=controls,
    )


def _scan_chosen(
    config: AuditConfig, data: Path, chosen: tuple[tuple[str, str, str], ...], reader: Reader | None, index: int
) -> Iterator[None]:
    """Scan one record, in a shard of its own."""
    cv2.setNumThreads(1)
    plan, folder = _prepared(config.model_dump_json(), data, chosen, reader)
    scan_shard(plan, folder / "shards" / f"shard-{index:06d}.tar")
    yield None


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
            open_file(join(join(data, directory), shard)) as f,
        ):
            writer.add_parts(key, read_parts(f, row, key))
    values = AuditConfig.model_validate_json(config).model_copy(
        update={"shards": (str(folder / "shards"),), "work": str(folder / "work")}
    )
    return make_plan(values, folder, data.absolute(), reader), folder


def _clear() -> None:
    """Delete the temporary folders of this process."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
