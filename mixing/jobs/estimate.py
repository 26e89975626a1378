"""What a job will cost: CPU hours, bytes, money, time, from a few of its samples made in a process of its own.

CPU time counts the process and all its children. The model is linear: each worker pays the start (interpreter, imports,
models, a renderer's child), each shard its opening and commit, each unit its own cost. docs/scaling.md holds it against
measured runs.
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import psutil

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.accounting import LeftAside
from cavendish.mixing.shards.writer import ShardWriter

_T95 = (math.inf, math.inf, 12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.0)
"""Student's t for 95 %, by the number of values; the last one from 16 on, a little high."""


@dataclass(frozen=True)
class Probe:
    """A small part of a job, to be really done, and how large the whole job is. Picklable.

    Args:
        unit: what the cost is counted by.
        build: makes trial shard i as a worker would; None: a unit of which no record comes, such as a training step.
        trial_units: how many units of each trial shard are made.
        count_rejected: a rejection is a unit; else a unit is a record, and what was rejected before it is part of its
            cost.
        close: called at the end, in the process that built.
        samples_per_unit: where no records come of it; None: as many as came of the trial.
        start_once: what comes before the first unit is done once, not by each worker.
        divisible: it has no shards: its work is divided evenly among cores.
        fixed_units, fixed_bytes: work, counted in units, and bytes that do not grow with the number of units.
    """

    verb: str
    unit: str
    units: int
    units_per_shard: int
    build: Callable[[int], Iterable[Sample | Example | Rejection | LeftAside | None]]
    trial_shards: int = 3
    trial_units: int = 4
    count_rejected: bool = False
    close: Callable[[], None] | None = None
    samples_per_unit: float | None = None
    start_once: bool = False
    divisible: bool = False
    fixed_units: int = 0
    fixed_bytes: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a probe cost.

    Args:
        start_s: CPU seconds before the first unit, once for each worker process.
        shard_s: CPU seconds of opening and committing a shard.
        unit_s: CPU seconds of each unit, without those.
        records: records made, of `units` units.
        tar_bytes, row_bytes: size of the shards, and of their rows.
        memory_bytes: resident memory of a worker with its children.
        wall_s: how long the probe took on this machine, as busy as it was.
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
    wall_s: float = 0.0
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
    def bytes_per_record(self) -> float:
        """Bytes of a record in its shard and in the row."""
        return (self.tar_bytes + self.row_bytes) / max(1, self.records)


@dataclass(frozen=True)
class Prices:
    """Prices in any one currency; 0: not counted."""

    cpu_hour: float = 0.0
    gb_month: float = 0.0
    months: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """What a job takes: CPU time on the fewest cores, with its 95 % range, and wall hours for each number of cores."""

    samples: int
    shards: int
    units_per_shard: int
    cpu_hours: float
    low: float
    high: float
    bytes: int
    shard_bytes: int
    shard_s: float
    wall_hours: tuple[tuple[int, float], ...]
    cost: float


def estimate(probe: Probe, cost: Cost, prices: Prices, cores: Sequence[int]) -> Estimate:
    """Apply the model to the whole job."""
    shards = math.ceil(probe.units / probe.units_per_shard)
    units_per_shard = min(probe.units, probe.units_per_shard)
    if probe.samples_per_unit is None:
        samples = probe.units * cost.records / cost.units
        shard_bytes = round(units_per_shard * cost.records / cost.units * cost.bytes_per_record)
        size = round(samples * cost.bytes_per_record)
    else:
        samples, shard_bytes, size = probe.units * probe.samples_per_unit, 0, probe.fixed_bytes
    shard_s = cost.shard_s + units_per_shard * cost.mean_s
    workers = 1 if probe.divisible or probe.start_once else min(*cores, shards)
    once_s = workers * cost.start_s + probe.fixed_units * cost.mean_s + shards * cost.shard_s
    error_s = cost.error_s if math.isfinite(cost.error_s) else cost.mean_s
    low, hours, high = (
        (once_s + probe.units * max(0.0, cost.mean_s + error)) / 3600 for error in (-error_s, 0.0, error_s)
    )
    return Estimate(
        samples=round(samples),
        shards=shards,
        units_per_shard=probe.units_per_shard,
        cpu_hours=hours,
        low=low,
        high=high,
        bytes=size,
        shard_bytes=shard_bytes,
        shard_s=shard_s,
        wall_hours=tuple((count, _wall_hours(probe, cost, shards, shard_s, count)) for count in cores),
        cost=hours * prices.cpu_hour + size / 1e9 * prices.gb_month * prices.months,
    )


def _wall_hours(probe: Probe, cost: Cost, shards: int, shard_s: float, cores: int) -> float:
    """Return the wall time; shards are not divided: the core that gets one more than others keeps all waiting."""
    rounds = shards / cores if probe.divisible else math.ceil(shards / cores)
    return (cost.start_s + probe.fixed_units * cost.mean_s / cores + rounds * shard_s) / 3600


def run_probe(probe: Probe) -> Cost:
    """Do a probe in a fresh process and a temporary folder, and return what it cost.

    Raises:
        InputError: the probe failed; with the last line it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="cavendish-plan-") as folder:
        # a pickle of our own, in a folder that only this user may read
        (Path(folder) / "probe.pickle").write_bytes(pickle.dumps(probe))
        started = time.monotonic()
        program = f"from {__name__} import main; main()"
        command = [sys.executable, "-c", program, folder]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"the probe failed: {last.removeprefix('cavendish.encoders.sample.InputError: ')}")
        values = json.loads((Path(folder) / "cost.json").read_text())
    return Cost(**{**values, "unit_s": tuple(values["unit_s"]), "wall_s": time.monotonic() - started})


def main() -> None:
    """Do the probe that lies in the folder named on the command line."""
    folder = Path(sys.argv[1])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cost = measure(pickle.loads((folder / "probe.pickle").read_bytes()), folder)
    (folder / "cost.json").write_text(json.dumps(asdict(cost)))


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


class _Clock:
    """CPU seconds between laps from the start of the process on, and the most memory seen."""

    def __init__(self) -> None:
        self.memory_bytes = 0
        self._last = self._spent = 0.0

    def lap(self) -> float:
        """Return the CPU seconds since the last lap, without those of measuring: children are found among all."""
        begun = time.process_time()
        now = cpu_s() - self._spent
        self.memory_bytes = max(self.memory_bytes, _memory_bytes())
        self._spent += time.process_time() - begun
        since, self._last = now - self._last, now
        return since


def measure(probe: Probe, folder: Path) -> Cost:
    """Do a probe in this process; the shards go into `folder`.

    Raises:
        InputError: fewer than two units came of it, with the first rejection.
    """
    clock = _Clock()
    first: list[float] = []  # CPU seconds of the first unit of each shard, and of what came before it
    others: list[float] = []
    commits: list[float] = []
    records, rejection = 0, ""
    for shard in range(probe.trial_shards):
        laps: list[float] = []
        with ShardWriter(folder, shard, "probe") as writer:
            for record in probe.build(shard):
                if isinstance(record, LeftAside):
                    continue
                if isinstance(record, Rejection):
                    writer.reject(record.key, record.reason)
                    rejection = rejection or f"{record.key}: {record.reason}"
                    if not probe.count_rejected:
                        continue
                elif record is not None:
                    writer.add(record)
                    records += 1
                laps.append(clock.lap())
                if len(laps) == probe.trial_units:
                    break
        commits.append(clock.lap())
        first += laps[:1]
        others += laps[1:]
    if probe.close is not None:
        probe.close()
    if len(first) < 2:
        reason = f"; rejected: {rejection}" if rejection else ""
        raise InputError(
            f"{len(first)} units came of the probe; two are needed to tell the start from the rest{reason}"
        )
    tar_bytes, row_bytes = (sum(p.stat().st_size for p in folder.glob(f"shard-*.{end}")) for end in ("tar", "json"))
    start_s, shard_s, unit_s = _separate(first, others, commits)
    return Cost(
        start_s=start_s,
        shard_s=shard_s,
        unit_s=unit_s,
        units=len(first) + len(others),
        records=records,
        tar_bytes=tar_bytes,
        row_bytes=row_bytes,
        memory_bytes=clock.memory_bytes,
        rejection=rejection,
    )


def _separate(first: list[float], others: list[float], commits: list[float]) -> tuple[float, float, tuple[float, ...]]:
    """Tell the cost of the start, of a shard, and of units apart.

    The first unit of all pays the start; the first one of a later shard pays for opening it. With one unit a shard,
    what opening costs is part of the unit.
    """
    units = others or first[1:]
    mean = fmean(units)
    opening = max(0.0, fmean(first[1:]) - mean) if others else 0.0
    return max(0.0, first[0] - opening - mean), opening + fmean(commits), tuple(units)
