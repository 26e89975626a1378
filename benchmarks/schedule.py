"""Cost of the schedule: per index in bulk, of a seek at any position, of dealing to ranks, of a billion in account.

python benchmarks/schedule.py        about 20 s on one core; process CPU time, so that a busy machine does not matter
"""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from mixing.deal import Dealer
from mixing.lock import Lock, LockedShard, LockedSource, Stream
from mixing.permutation import Permutation
from mixing.reader import MixtureReader
from mixing.schedule import Points, Schedule, share_at


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
    print(
        f"{'':26}{'us/index':>10}{'seek 1e3 ms':>13}{'seek 1e9 ms':>13}{'seek 1e12 ms':>14}{'us/index, rank of 64':>22}"
    )
    for name, points in CASES.items():
        schedule = Schedule(points)
        schedule.draws(10**9 - 1, 1)  # the seek is measured apart
        bulk = cpu_s(lambda s=schedule: go_on(s)) / (1 << 17) * 1e6
        seeks = [cpu_s(lambda s=schedule, t=t: s.counts(t)) * 1e3 for t in (10**3, 10**9 + 7, 10**12 + 7)]
        dealer = Dealer(schedule, 5, 64)
        dealt = cpu_s(lambda d=dealer: list(itertools.islice(d, 1024)), 1) / (1024 * 64) * 1e6
        print(f"{name:26}{bulk:10.2f}{seeks[0]:13.2f}{seeks[1]:13.2f}{seeks[2]:14.2f}{dealt:22.2f}")
    order = Permutation(10**7, ("benchmark",))
    print(f"permutation: {cpu_s(lambda: [order[i] for i in range(10**4)]) / 1e4 * 1e6:.2f} us per index of 1e7")
    state = len(json.dumps(Dealer(Schedule(CASES["8 sources, 0.3 to 70 %"]), 5, 64).state_dict()))
    print(f"resume state of a rank of 64, 8 sources: {state} bytes")
    many_shards()


def many_shards(shards: int = 100_000, records: int = 1000) -> None:
    """Memory and time per index of a lock with 1e5 shards."""
    tracemalloc.start()
    locked = tuple(
        LockedShard(f"shard-{number:06d}.tar", "0" * 64, "1" * 64, 10**9, records, {"depth": "all"}, "none")
        for number in range(shards)
    )
    source = LockedSource("web", "raw/web", "raw", "0" * 64, shards * records, {}, {}, {}, 0.1, None, locked)
    stream = Stream("web", "depth", "vision", shards * records, ((0, "1"),))
    lock = Lock({}, "", 0, "1/100", (source,), (stream,), {})
    of_lock = tracemalloc.get_traced_memory()[0]
    reader = MixtureReader(lock, Path(), 64)
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 10**11, 2000).tolist()

    def locate() -> None:
        for index in indices:
            drawn, ordinal = reader.draw(index)
            epoch, at = divmod(ordinal, drawn.pool)
            reader._pool(drawn).locate(reader._order(drawn, epoch)[at])

    locate()
    peak = tracemalloc.get_traced_memory()[0] - of_lock
    tracemalloc.stop()
    in_order = range(10**9, 10**9 + 20_000)
    indices[:] = list(in_order)
    cost = cpu_s(locate, 1) / len(indices) * 1e6
    print(
        f"lock of {shards} shards, {shards * records:.0e} records: {of_lock / 1e6:.0f} MB, reader {peak / 1e6:.1f} MB, "
        f"{cost:.1f} us from an index to its record"
    )


if __name__ == "__main__":
    main()
