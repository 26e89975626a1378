"""Cost of the schedule: per index in bulk, of a seek at any position, of resuming, of large locks.

python benchmarks/schedule.py        two minutes on one core; process CPU time, as machines are busy
"""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil

from cavendish.mixing.lock import Lock, LockedShard, LockedSource, Stream, read_lock, write_lock
from cavendish.mixing.mixture.reader import BLOCK, MixtureReader, Permutation
from cavendish.mixing.mixture.round_ratios import Points, Schedule, share_at
from cavendish.mixing.shards.dataset import SHARD_SCHEMA
from cavendish.mixing.storage.files import canonical_json


def constant(*weights: str) -> list[Points]:
    total = sum(map(Fraction, weights))
    return [((0, Fraction(weight) / total),) for weight in weights]


def ramped() -> list[Points]:
    """Six sources: two vision tasks from nothing to 1 % each over a million examples, the rest in proportion."""
    starts = (0, 1_000_000)
    rare: list[Points] = [((0, Fraction(0)), (1_000_000, Fraction(1, 100)))] * 2
    left = {t: 1 - sum((share_at(points, t) for points in rare), Fraction(0)) for t in starts}
    parts = (Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8))
    return [*rare, *(tuple((t, left[t] * part) for t in starts) for part in parts)]


CASES = {
    "2 sources, 1 %": constant("99", "1"),
    "8 sources, 0.3 to 70 %": constant("70", "14", "14", "0.5", "0.5", "0.4", "0.3", "0.3"),
    "6 sources, ramp": ramped(),
    "40 sources": constant(*(str(1 + k**3) for k in range(40))),
    "200 sources": constant(*(str(1 + k * k) for k in range(200))),
    "3 sources, one at 1e-6": constant("999999", "500000", "1"),
}


def cpu_s(work: Callable[[], object], repeats: int = 3) -> float:
    """The least process CPU time of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def go_on(schedule: Schedule) -> None:
    """Schedule the next 2^17 indices from where the schedule last ended."""
    schedule.draws(schedule._last[0], 1 << 17)


def main() -> None:
    print(f"{'':26}{'us/index':>10}{'seek 1e3 ms':>13}{'seek 1e9 ms':>13}{'seek 1e12 ms':>14}")
    for name, points in CASES.items():
        schedule = Schedule(points)
        schedule.draws(10**9 - 1, 1)  # the seek is measured apart
        bulk = cpu_s(lambda s=schedule: go_on(s)) / (1 << 17) * 1e6
        seeks = [cpu_s(lambda s=schedule, t=t: s.counts(t)) * 1e3 for t in (10**3, 10**9 + 7, 10**12 + 7)]
        print(f"{name:26}{bulk:10.2f}{seeks[0]:13.2f}{seeks[1]:13.2f}{seeks[2]:14.2f}")
    order = Permutation(10**7, ("benchmark",))
    print(f"permutation: {cpu_s(lambda: [order[i] for i in range(10**4)]) / 1e4 * 1e6:.2f} us per index of 1e7")
    resume()
    print(f"{'shards in the lock':>20}{'lock file MB':>14}{'read s':>8}{'RSS MB':>9}{'us from index to record':>25}")
    for shards in (1000, 10_000, 100_000):
        in_a_process(many_shards, shards)
    in_a_process(open_many)


def resume() -> None:
    """Time from a lock to the draws of a block, at two positions: what a resumed run pays once."""
    for position in (10**3, 10**9):
        cost = cpu_s(lambda at=position: Schedule(CASES["8 sources, 0.3 to 70 %"]).draws(at, BLOCK))
        print(f"resume at {position:.0e}, 8 sources: {cost * 1e3:.1f} ms")


def in_a_process(work: Callable[..., None], *args: int) -> None:
    """Run in a process of its own, so that the resident memory is that of this alone."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    process.join()


def rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def made_up_lock(shards: int, records: int, hashes: list[tuple[str, int]] | None = None) -> Lock:
    """A lock of one source; `hashes` are the row's sha256 and the bytes of each shard."""
    locked = tuple(
        LockedShard(
            f"shard-{number:06d}.tar",
            f"{number:064x}",
            hashes[number][0] if hashes else f"{number:064x}",
            hashes[number][1] if hashes else 10**9,
            records,
            {"depth": "all"},
            "none",
        )
        for number in range(shards)
    )
    source = LockedSource("web", "raw", "raw", "0" * 64, shards * records, {}, {}, {}, 0.1, None, locked)
    stream = Stream("web", "depth", "vision", shards * records, ((0, "1"),))
    return Lock({}, "", 0, "1/100", (source,), (stream,), {})


def many_shards(shards: int, records: int = 1000) -> None:
    """Time to read a lock, memory of the process that did, and time from an index to its record."""
    before = rss_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock.json"
        in_a_process(write_made_up_lock, str(path), shards, records)  # type: ignore[arg-type]
        size = path.stat().st_size
        start = time.process_time()
        lock = read_lock(path)
        read_s = time.process_time() - start
    reader = MixtureReader(lock, Path(), 64)

    def locate(indices: list[int]) -> None:
        for index in indices:
            reader._locate(*reader.draw(index), 0)

    locate(np.random.default_rng(0).integers(0, 10**11, 2000).tolist())
    cost = cpu_s(lambda: locate(list(range(10**9, 10**9 + 20_000))), 1) / 20_000 * 1e6
    print(f"{shards:20}{size / 1e6:14.1f}{read_s:8.2f}{rss_mb() - before:9.0f}{cost:25.1f}")


def write_made_up_lock(path: str, shards: int, records: int) -> None:
    write_lock(Path(path), made_up_lock(shards, records))


def open_many(shards: int = 400, records: int = 1000) -> None:
    """Memory of a reader as it comes to more and more shards: rows are read when needed, 128 indexes are kept."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "raw"
        directory.mkdir()
        hashes = []
        for shard in range(shards):
            parts = {
                name: [512 * number, 300, number] for number, name in enumerate(("json", "image.png", "depth.png"))
            }
            samples = {f"scene-{shard:06d}-{number:06d}": parts for number in range(records)}
            row = canonical_json({"schema": SHARD_SCHEMA, "samples": samples})
            (directory / f"shard-{shard:06d}.json").write_bytes(row)
            (directory / f"shard-{shard:06d}.tar").write_bytes(bytes(10))
            hashes.append((hashlib.sha256(row).hexdigest(), 10))
        reader = MixtureReader(made_up_lock(shards, records, hashes), Path(folder), 64)
        before, told = rss_mb(), []
        start = time.process_time()
        for number in range(shards):
            reader._shard(("web", number))
            if number + 1 in (128, 200, 300, 400):
                told.append(f"{rss_mb() - before:.0f} MB after {number + 1}")
        each = (time.process_time() - start) / shards * 1e3
    print(f"opened shards of {records} records: {', '.join(told)}; {each:.1f} ms to open one")


if __name__ == "__main__":
    main()
