"""What a locked mixture deals: counts of a billion examples without drawing one, and of what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from mixing.lock import Lock, Stream
from mixing.reader import MixtureItem
from mixing.schedule import Schedule


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


def simulate(lock: Lock, count: int) -> Account:
    """Account for the first `count` examples; a billion takes milliseconds."""
    schedule = lock.schedule()
    drawn = schedule.counts(count)
    rows = (
        StreamAccount(stream, schedule.quota(number, count), drawn[number])
        for number, stream in enumerate(lock.streams)
    )
    return Account(count, tuple(rows))


def index_of(schedule: Schedule, stream: int, ordinal: int, count: int) -> int:
    """Return the global index at which a stream is drawn for the `ordinal`-th time (from 0), which is below `count`."""
    low, high = 0, count  # drawn at most `ordinal` times before low, more often before high
    while high - low > 1:
        middle = (low + high) // 2
        if schedule.counts(middle)[stream] <= ordinal:
            low = middle
        else:
            high = middle
    return low


def count_items(items: Iterable[MixtureItem]) -> Mapping[str, int]:
    """Count drawn items by `source/task`, for the log of a training run; add the maps of all ranks."""
    counts: dict[str, int] = {}
    for item in items:
        name = f"{item.source}/{item.example.task}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
