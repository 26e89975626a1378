"""What a job will cost, from a probe of it: CPU hours, bytes, money, time; as configured, and for 10^6 to 10^9 samples.

The model is linear: each worker pays the start, each shard its opening and commit, each unit its own cost.
docs/scaling.md holds it against measured runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cavendish.mixing.jobs.probe import Probe, Trial

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
