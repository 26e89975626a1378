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
from cavendish.mixing.shards.writer import ShardWriter

SHARDS_PER_DIRECTORY = 100_000
"""A mixture's lock of so many shards takes 39 MB of memory (docs/mixing.md)."""
MAX_SHARDS = 1_000_000
"""The names of shards have six digits."""
SHARD_BYTES = 256_000_000
"""What a shard should not exceed: it is written, hashed and copied in one piece."""
SHARD_S = 900.0
"""CPU seconds that a shard should take: what a kill loses."""
LONGEST_SHARD_S = 3600.0
LARGEST_SHARD_BYTES = 1_000_000_000
SHORTEST_SHARD_S = 10.0
FAN_OUT = (10**6, 10**7, 10**8, 10**9)


@dataclass(frozen=True)
class Stage:
    """A job as a plan sees it.

    Args:
        verb: of the command line.
        unit: what its cost is counted by.
        units: how many the configuration asks for.
        units_per_shard: as it is configured.
        shard_key: the key that sets the size of shards; "" where they are as large as those they are made from.
        per_key: units for each one of that key.
        trial: a small part of it to be done.
        more: what to do when one directory cannot hold it all.
        samples_per_unit: where no samples come of it; None: as many as came of the trial.
        start_once: what comes before the first unit is done once, not by each worker.
        divisible: it has no shards: its work is divided evenly among cores.
        fixed_units: work that is done once whatever the number of units, counted in units.
        fixed_bytes: that it writes once.
        warn: more warnings for a number of samples.
    """

    verb: str
    unit: str
    units: int
    units_per_shard: int
    shard_key: str
    trial: Trial
    more: str = ""
    per_key: int = 1
    samples_per_unit: float | None = None
    start_once: bool = False
    divisible: bool = False
    fixed_units: int = 0
    fixed_bytes: int = 0
    warn: Callable[[int], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Prices:
    """Prices in any one currency; 0: not counted."""

    cpu_hour: float = 0.0
    gb_month: float = 0.0
    months: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """What so many samples take.

    Args:
        samples: records that come out.
        cpu_hours, low, high: CPU time, and its range for the 95 % interval of the mean cost of a unit.
        bytes: of tars and rows.
        shard_bytes, shard_s: size of one shard, and the CPU seconds it takes.
        directories: how many the shards should be parted into.
        memory_bytes: of one worker.
        wall_hours: for each number of cores, when they do nothing else.
        cost: for CPU hours and storage together.
        settings: what to give to the command line for the largest number of cores.
        warnings: what is in the way.
    """

    samples: int
    shards: int
    units_per_shard: int
    cpu_hours: float
    low: float
    high: float
    bytes: int
    shard_bytes: int
    shard_s: float
    directories: int
    memory_bytes: int
    wall_hours: tuple[tuple[int, float], ...]
    cost: float
    settings: str
    warnings: tuple[str, ...]


def fan_out(
    stage: Stage, probe: Probe, prices: Prices, cores: Sequence[int], machine_cores: int
) -> tuple[Estimate, ...]:
    """Estimate 10^6 to 10^9 samples, each with the settings that suit it."""
    rows = []
    for samples in FAN_OUT:
        units = math.ceil(samples / max(_samples_per_unit(stage, probe), 1e-9))
        size = best_shard(stage, probe, units, max(cores))
        rows.append(estimate(stage, probe, units, size, prices, cores, machine_cores))
    return tuple(rows)


def _samples_per_unit(stage: Stage, probe: Probe) -> float:
    return probe.records_per_unit if stage.samples_per_unit is None else stage.samples_per_unit


def best_shard(stage: Stage, probe: Probe, units: int, cores: int) -> int:
    """Choose how many units a shard should have: for its size, its time, the number of shards, and even work."""
    if stage.divisible:
        return units
    unit_bytes = max(1.0, probe.bytes_per_record * probe.records_per_unit)
    fits = min(SHARD_BYTES / unit_bytes, SHARD_S / max(probe.mean_s, 1e-9))
    even = units / (8 * cores)  # eight shards for each core, so that the last ones do not keep many waiting
    size = max(1.0, min(fits, even))
    if units / size > SHARDS_PER_DIRECTORY:
        longest = min(LARGEST_SHARD_BYTES / unit_bytes, LONGEST_SHARD_S / max(probe.mean_s, 1e-9))
        size = max(size, min(longest, units / SHARDS_PER_DIRECTORY))
    return stage.per_key * max(1, _round_number(size / stage.per_key))


def _round_number(value: float) -> int:
    """Round to two digits: 1,234 is 1,200."""
    step = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return int(value // step * step)


def estimate(
    stage: Stage,
    probe: Probe,
    units: int,
    units_per_shard: int,
    prices: Prices,
    cores: Sequence[int],
    machine_cores: int,
) -> Estimate:
    """Apply the model to `units` units in shards of `units_per_shard`."""
    shards = math.ceil(units / units_per_shard)
    per_shard = min(units, units_per_shard)
    samples = round(units * _samples_per_unit(stage, probe))
    shard_s = probe.shard_s + per_shard * probe.mean_s
    unit_bytes = probe.bytes_per_record * probe.records_per_unit
    size = round(units * unit_bytes) if stage.samples_per_unit is None else stage.fixed_bytes
    most = max(cores)
    workers = 1 if stage.divisible else min(most, machine_cores if units == stage.units else most, shards)

    def cpu(unit_s: float, workers: int) -> float:
        fixed = stage.fixed_units * probe.mean_s
        return (
            (1 if stage.start_once else workers) * probe.start_s
            + fixed
            + shards * probe.shard_s
            + units * max(0.0, unit_s)
        ) / 3600

    error = probe.error_s if math.isfinite(probe.error_s) else probe.mean_s
    hours = cpu(probe.mean_s, workers)
    found = Estimate(
        samples=samples,
        shards=shards,
        units_per_shard=units_per_shard,
        cpu_hours=hours,
        low=cpu(probe.mean_s - error, workers),
        high=cpu(probe.mean_s + error, workers),
        bytes=size,
        shard_bytes=round(per_shard * unit_bytes) if stage.samples_per_unit is None else 0,
        shard_s=shard_s,
        directories=math.ceil(shards / SHARDS_PER_DIRECTORY),
        memory_bytes=probe.memory_bytes,
        wall_hours=tuple((count, _wall_hours(stage, probe, shards, shard_s, count)) for count in cores),
        cost=hours * prices.cpu_hour + size / 1e9 * prices.gb_month * prices.months,
        settings=_settings(stage, shards, units_per_shard, most, machine_cores),
        warnings=(),
    )
    return _with_warnings(stage, probe, found)


def _wall_hours(stage: Stage, probe: Probe, shards: int, shard_s: float, cores: int) -> float:
    """Shards are dealt whole: the core that gets one more than others keeps all waiting."""
    fixed = stage.fixed_units * probe.mean_s / cores
    if stage.divisible:
        return (probe.start_s + fixed + shard_s / cores) / 3600
    return (probe.start_s + fixed + math.ceil(shards / cores) * shard_s) / 3600


def _settings(stage: Stage, shards: int, units_per_shard: int, cores: int, machine_cores: int) -> str:
    if stage.divisible:
        return ""
    workers = min(machine_cores, cores, shards)
    machines = math.ceil(min(cores, shards) / workers)
    words = [f"--workers {workers}"] + ([f"--split I/{machines}"] if machines > 1 else [])
    if stage.shard_key:
        return " ".join([f"{stage.shard_key}={units_per_shard // stage.per_key}", *words])
    return f"{' '.join(words)}, from shards of {units_per_shard:,} {stage.unit}s"


def _with_warnings(stage: Stage, probe: Probe, found: Estimate) -> Estimate:
    told = list(stage.warn(found.samples)) if stage.warn is not None else []
    if stage.divisible:
        return Estimate(**{**vars(found), "warnings": tuple(told)})
    if stage.more and found.shards > MAX_SHARDS:
        told.append(f"{found.shards:,} shards: names have room for {MAX_SHARDS:,}; use {stage.more}")
    elif stage.more and found.directories > 1:
        told.append(
            f"{found.shards:,} shards: more than {SHARDS_PER_DIRECTORY:,} in a directory make slow listings and large "
            f"locks; use {found.directories} directories: {stage.more}"
        )
    if found.shard_bytes > LARGEST_SHARD_BYTES:
        told.append(f"a shard has {found.shard_bytes / 1e9:.1f} GB: over 1 GB it is slow to copy and to hash")
    if found.shard_s > LONGEST_SHARD_S:
        told.append(f"a shard takes {found.shard_s / 3600:.1f} CPU hours: a kill loses as much")
    if found.shard_s < SHORTEST_SHARD_S and found.shards > 1000:
        told.append(f"a shard takes {found.shard_s:.1f} s: the engine's own work for each shard begins to count")
    idle = [cores for cores, _ in found.wall_hours if found.shards < cores]
    if idle:
        told.append(f"{found.shards:,} shards keep {found.shards:,} cores busy, not {max(idle):,}")
    row_bytes = probe.row_bytes / max(1, probe.records) * found.samples / max(1, found.shards)
    if row_bytes > 64e6:
        told.append(f"the row of a shard has {row_bytes / 1e6:.0f} MB of json: readers hold it in memory")
    return Estimate(**{**vars(found), "warnings": tuple(told)})


Records = Iterable[Sample | Example | Rejection | None]
"""None: a unit of a job that writes no record."""


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
        command = [sys.executable, "-m", "cavendish.mixing.jobs.estimate", folder]
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
                elif record is not None:
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
