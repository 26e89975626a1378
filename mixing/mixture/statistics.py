"""What a locked mixture deals: counts of a billion examples without drawing one, and of what was drawn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import Lock, Stream
from cavendish.mixing.mixture.round_ratios import Schedule


@dataclass(frozen=True)
class StreamAccount:
    """What the first examples of a mixture take from one stream.

    Args:
        asked: its exact share of them, a fraction of examples.
        drawn: how many the schedule gives it.
    """

    stream: Stream
    asked: Fraction
    drawn: int

    @property
    def epochs(self) -> float:
        """How often its pool is gone through."""
        return self.drawn / self.stream.pool

    @property
    def unseen(self) -> int:
        """How many of its records are not drawn."""
        return max(0, self.stream.pool - self.drawn)


@dataclass(frozen=True)
class Account:
    """What the first `count` examples of a mixture take from each stream."""

    count: int
    streams: tuple[StreamAccount, ...]

    def by(self, name: Callable[[Stream], str]) -> dict[str, tuple[Fraction, int]]:
        """Add (asked, drawn) up by a property of the streams, for example their kind."""
        totals: dict[str, tuple[Fraction, int]] = {}
        for row in self.streams:
            asked, drawn = totals.get(name(row.stream), (Fraction(0), 0))
            totals[name(row.stream)] = (asked + row.asked, drawn + row.drawn)
        return totals

    @property
    def largest_error(self) -> float:
        """The largest distance of a stream's count from its exact share, in examples."""
        return max(float(abs(row.drawn - row.asked)) for row in self.streams)


def read_count(text: str) -> int:
    """Read a number of examples: 1000, 1e9, 2.5e6.

    Raises:
        InputError: not a whole number above 0.
    """
    try:
        value = Fraction(text.replace("_", ""))
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value.denominator != 1 or not 0 < value <= 10**15:
        raise InputError(f"{text}: give a whole number of examples, up to 1e15; 1e9 is a billion")
    return int(value)


def simulate(lock: Lock, count: int) -> Account:
    """Account for the first `count` examples; a billion takes milliseconds."""
    schedule = lock.schedule()
    drawn = schedule.counts(count)
    rows = (
        StreamAccount(stream, schedule.quota(number, count), drawn[number])
        for number, stream in enumerate(lock.streams)
    )
    return Account(count, tuple(rows))


@dataclass(frozen=True)
class RatioRow:
    """What a rank of a run has read of one stream: `examples`, and their share beside the share asked for so far."""

    rank: int
    source: str
    task: str
    examples: int
    share: float
    asked: float


def realised_ratios(
    lock: Lock, schedule: Schedule, drawn: Mapping[str, Mapping[str, int]], rank: int
) -> list[RatioRow]:
    """Compare what a rank has read with what the mixture asks up to the same place.

    Args:
        schedule: that of the lock.
        drawn: examples by source, then task, of this rank.
    """
    count = sum(sum(tasks.values()) for tasks in drawn.values())
    rows = []
    for number, stream in enumerate(lock.streams):
        examples = drawn.get(stream.source, {}).get(stream.task, 0)
        asked = float(schedule.quota(number, count))
        rows.append(
            RatioRow(rank, stream.source, stream.task, examples, examples / max(1, count), asked / max(1, count))
        )
    return rows


def index_of(schedule: Schedule, stream: int, ordinal: int, count: int) -> int:
    """Return the global index at which a stream is drawn for the `ordinal`-th time (from 0), which is below `count`."""
    return bisect_right(range(count), ordinal, key=lambda index: schedule.counts(index + 1)[stream])
