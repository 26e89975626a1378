"""Measures what a job costs by making a few of its samples in a process of its own and a temporary folder.

CPU time counts the process and all its children. The start (interpreter, imports, models, a renderer's child) is told
apart from the cost of each sample, since it is paid once for each worker and not for each sample.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import psutil

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.shards.writer import ShardWriter

Records = Iterable[Sample | Example | Rejection]


@dataclass(frozen=True)
class Trial:
    """A small part of a job, to be really done. Picklable.

    Args:
        build: makes the records of trial shard i; it stands for what the job's workers do.
        shards: how many; the first one pays the start.
        units: how many units of each shard are made.
        count_rejected: a unit is whatever comes out, made or rejected; else a unit is a record that is made, and what
            was rejected before it is part of its cost.
        close: called at the end, in the process that built.
    """

    build: Callable[[int], Records]
    shards: int = 3
    units: int = 4
    count_rejected: bool = False
    close: Callable[[], None] | None = None


@dataclass(frozen=True)
class Probe:
    """What a trial cost.

    Args:
        start_s: CPU seconds before the first unit, once for each worker process.
        shard_s: CPU seconds of opening and committing a shard.
        unit_s: CPU seconds of each unit, without those.
        records: records made, of `units` units.
        tar_bytes, row_bytes: size of the shards, and of their rows.
        memory_bytes: resident memory of a worker with its children.
        wall_s: how long the trial took on this machine, as busy as it was.
        rejection: the first thing that was rejected, and why; "" when nothing was.
    """

    start_s: float
    shard_s: float
    unit_s: tuple[float, ...]
    units: int
    records: int
    tar_bytes: int
    row_bytes: int
    memory_bytes: int
    wall_s: float
    rejection: str = ""

    @property
    def mean_s(self) -> float:
        """Mean CPU seconds of a unit."""
        return fmean(self.unit_s)

    @property
    def error_s(self) -> float:
        """Half the width of the 95 % interval of the mean, from the spread of the units that were made."""
        count = len(self.unit_s)
        return math.inf if count < 2 else _T95[min(count, len(_T95) - 1)] * stdev(self.unit_s) / math.sqrt(count)

    @property
    def records_per_unit(self) -> float:
        """Records that come of a unit."""
        return self.records / self.units

    @property
    def bytes_per_record(self) -> float:
        """Bytes of a record in its shard and in the row."""
        return (self.tar_bytes + self.row_bytes) / max(1, self.records)


_T95 = (math.inf, math.inf, 12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.0)
"""Student's t for 95 %, by the number of values; the last one from 16 on, a little high."""


def probe(trial: Trial) -> Probe:
    """Do a trial in a fresh process and a temporary folder, and say what it cost.

    Raises:
        InputError: the trial failed; with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="cavendish-plan-") as folder:
        # a pickle of our own, in a folder that only this user may read
        (Path(folder) / "trial.pickle").write_bytes(pickle.dumps(trial))
        started = time.monotonic()
        command = [sys.executable, "-m", "cavendish.mixing.jobs.probe", folder]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"the probe failed: {last.removeprefix('cavendish.encoders.sample.InputError: ')}")
        values = json.loads((Path(folder) / "probe.json").read_text())
    values["unit_s"] = tuple(values["unit_s"])
    return Probe(**values, wall_s=time.monotonic() - started)


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children, living and ended."""
    total = time.process_time()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total += ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])  # its own and those of children it has waited for
        except psutil.Error:
            continue
    return total


def _memory_bytes() -> int:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for child in psutil.Process().children(recursive=True):
        try:
            own += child.memory_info().rss
        except psutil.Error:
            continue
    return own


def measure(trial: Trial, folder: Path) -> dict[str, object]:
    """Do a trial in this process, and return the values of a `Probe` but for the wall time."""
    first: list[float] = []  # CPU seconds of the first unit of each shard, and what came before it
    others: list[float] = []
    commits: list[float] = []
    units = records = memory = 0
    rejection = ""
    mark = spent = 0.0  # CPU time counts from the start of the process

    def look() -> float:
        """Return the CPU seconds so far, without those that looking took: children are found among all processes."""
        nonlocal spent, memory
        begun = time.process_time()
        now = cpu_s() - spent
        memory = max(memory, _memory_bytes())
        spent += time.process_time() - begun
        return now

    for shard in range(trial.shards):
        done = 0
        with ShardWriter(folder, shard, "probe") as writer:
            for record in trial.build(shard):
                if isinstance(record, Rejection):
                    writer.reject(record.key, record.reason)
                    rejection = rejection or f"{record.key}: {record.reason}"
                else:
                    writer.add(record)
                    records += 1
                if isinstance(record, Rejection) and not trial.count_rejected:
                    continue
                now = look()
                (others if done else first).append(now - mark)
                mark, done = now, done + 1
                if done == trial.units:
                    break
        now = look()
        commits.append(now - mark)
        mark, units = now, units + done
    if trial.close is not None:
        trial.close()
    tars, rows = (sum(p.stat().st_size for p in folder.glob(f"shard-*.{end}")) for end in ("tar", "json"))
    if len(first) < 2:
        told = f"; rejected: {rejection}" if rejection else ""
        raise InputError(f"{len(first)} units came of the trial; two are needed to tell the start from the rest{told}")
    start_s, shard_s, unit_s = _separate(first, others, commits)
    found = Probe(start_s, shard_s, unit_s, units, records, tars, rows, memory, 0.0, rejection)
    values = asdict(found)
    del values["wall_s"]
    return values


def _separate(first: list[float], others: list[float], commits: list[float]) -> tuple[float, float, tuple[float, ...]]:
    """Tell the cost of the start, of a shard, and of units apart.

    The first unit of all pays the start; the first one of a later shard pays for opening it. With one unit a shard,
    what opening costs is part of the unit.
    """
    units = others or first[1:]
    mean = fmean(units)
    opening = max(0.0, fmean(first[1:]) - mean) if others else 0.0
    return max(0.0, first[0] - opening - mean), opening + fmean(commits), tuple(units)


def _main(folder: Path) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    values = measure(pickle.loads((folder / "trial.pickle").read_bytes()), folder)
    (folder / "probe.json").write_text(json.dumps(values))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
