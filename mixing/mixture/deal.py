"""Which global indices a rank reads: one of each `world` indices in a row, with its part of every source.

Taking every world-th index would let a period of the schedule fall on one rank (a source at 1 % would go to a single
rank of 4). Here the stream is split by the prime factors of the world size; at each split, groups of p indices in a row
go one to each part.

A split in two is a two-colouring. Two draws of one group go to different parts, and so do draws 2j and 2j + 1 that a
source has in groups of several sources. Every draw is in one pair of each kind, so that the pairs make paths and even
cycles, which two colours always fit. Then a part has half of every source to within 1/2 at every group's end; with
the parent within e < 1 of its exact share, the part is within e/2 + 1/2 < 1 of its own: below 1 at every power of two,
for any number of sources.

A path may be long, so its colour is looked up one block ahead, and what is dealt is kept. Two kept ends whose paths
meet only after that may disagree; then one source leads by two for a block. That takes at least four sources that are
hardly drawn within a block (measured: 40 sources, several of them 1e-5, reach 1.5).

A split in p > 2 takes the assignment that keeps the counts closest (measured: docs/mixing.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cavendish.encoders.sample import InputError
from cavendish.mixing.mixture.schedule import Schedule

DEAL_SCHEMA = "cavendish-deal/2"  # /1 was another order of ranks: its states are refused
_MIN_ROWS, _MAX_ROWS = 512, 4096  # of each rank, dealt at a time when the world is even; as many are looked ahead
_BLOCK = 1 << 16  # global indices dealt at a time, about, between these
_ODD_BLOCK = 1 << 13  # when it is odd: nothing is looked ahead

Int64s = NDArray[np.int64]


class TwoWaySplit:
    """Splits a stream in two: `leads` is how many draws part 0 has had of each source beyond those of part 1."""

    parts = 2

    def __init__(self, sources: int) -> None:
        self.leads = np.zeros(sources, np.int64)

    def take(self, sources: Int64s, part: int, kept: int) -> Int64s:
        """Return the positions in `sources` (whole pairs) that go to `part`; the first `kept` of them are final."""
        pairs = sources.reshape(-1, 2)
        mixed = np.flatnonzero(pairs[:, 0] != pairs[:, 1])  # a pair of one source changes no lead, whichever way round
        swapped = np.zeros(len(pairs), np.int64)
        swapped[mixed] = two_colours(pairs[mixed].reshape(-1), self.leads)[::2]
        own = pairs[:kept]
        to_zero = np.take_along_axis(own, swapped[:kept, None], axis=1)[:, 0]
        self.leads += 2 * np.bincount(to_zero, minlength=len(self.leads))
        self.leads -= np.bincount(own.reshape(-1), minlength=len(self.leads))
        return np.arange(len(pairs)) * 2 + (swapped ^ part)

    def state(self) -> list[int]:
        """Return what `restore` takes, json-able."""
        return [int(lead) for lead in self.leads]

    def restore(self, state: list[int]) -> None:
        """Become what `state` was."""
        self.leads[:] = state


class Split:
    """Splits a stream into `parts` > 2: `excess` counts what each part has had more than the least served part."""

    def __init__(self, parts: int, sources: int) -> None:
        self.parts = parts
        self.excess = np.zeros((sources, parts), np.int64)

    def take(self, sources: Int64s, part: int, kept: int) -> Int64s:
        """Return the positions in the first `kept` groups of `sources` that go to `part`."""
        groups = sources.reshape(-1, self.parts)[:kept]
        chosen = np.full(len(groups), part)
        for row in np.flatnonzero((groups != groups[:, :1]).any(axis=1)):  # groups of one source change nothing
            members, places = linear_sum_assignment(self.excess[groups[row]])
            np.add.at(self.excess, (groups[row][members], places), 1)
            chosen[row] = members[places == part][0]
        self.excess -= self.excess.min(axis=1, keepdims=True)
        return np.arange(len(groups)) * self.parts + chosen

    def state(self) -> list[list[int]]:
        """Return what `restore` takes, json-able."""
        return [[int(value) for value in row] for row in self.excess]

    def restore(self, state: list[list[int]]) -> None:
        """Become what `state` was."""
        self.excess[:] = state


def two_colours(sources: Int64s, leads: Int64s) -> Int64s:
    """Give each draw part 0 or 1, such that pairs in a row differ and every source's draws are evened out in order.

    Args:
        sources: (2 n,) the source of each draw; draws 2m and 2m + 1 are a pair, of two sources.
        leads: (K,) what part 0 has had of each source beyond part 1; the next draws of a source undo its lead.

    Returns:
        (2 n,) of 0 and 1.
    """
    order = np.argsort(sources.astype(np.uint16), kind="stable")  # of 16 bits: a radix sort
    ordered = sources[order]
    number = np.arange(len(sources)) - np.searchsorted(ordered, np.arange(len(leads)))[ordered]  # of its source
    number -= np.abs(leads)[ordered]
    opens = np.flatnonzero((number[:-1] >= 0) & (number[:-1] % 2 == 0) & (ordered[:-1] == ordered[1:]))
    one = np.concatenate([np.arange(0, len(sources), 2), order[opens]])
    other = np.concatenate([np.arange(1, len(sources), 2), order[opens + 1]])
    # Nodes are (draw, part) and who differs is joined crosswise: each path makes two components, its two colourings.
    ends = np.concatenate([2 * one, 2 * one + 1]), np.concatenate([2 * other + 1, 2 * other])
    edges = coo_array((np.ones(len(ends[0]), bool), ends), shape=(2 * len(sources),) * 2)
    component = connected_components(edges, directed=False)[1].reshape(-1, 2)
    colour = (component[:, 1] < component[:, 0]).astype(np.int64)
    path = np.minimum(component[:, 0], component[:, 1])
    flips = np.zeros(int(path.max(initial=0)) + 1, np.int64)
    settles = np.sort(order[number < 0])[::-1]  # written from the latest to the earliest: the earliest is heeded
    flips[path[settles]] = colour[settles] ^ (leads[sources[settles]] > 0)
    return np.asarray(colour ^ flips[path], np.int64)


class Dealer:
    """The global indices of one rank, in order, without end; `state_dict` is small and its cost is the same anywhere.

    Args:
        schedule: the order of sources.
        rank, world: which rank of how many.
        start: global index to start at, a multiple of `world`.
    """

    def __init__(self, schedule: Schedule, rank: int = 0, world: int = 1, start: int = 0) -> None:
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} of {world}: ranks go from 0 to {world - 1}")
        if start % world or start < 0:
            raise InputError(f"start {start}: a stream for {world} ranks starts at a multiple of {world}")
        self._schedule, self._rank, self._world = schedule, rank, world
        self._splits: list[TwoWaySplit | Split] = [
            TwoWaySplit(schedule.size) if parts == 2 else Split(parts, schedule.size) for parts in _prime_factors(world)
        ]
        even = min(max(_BLOCK // world, _MIN_ROWS), _MAX_ROWS)
        self._rows = max(1, _ODD_BLOCK // world) if world % 2 else even
        self._ahead: tuple[int, Int64s] | None = None
        self._begin(start, 0)

    def _begin(self, start: int, used: int) -> None:
        """Stand `used` elements after global index `start`, at which the splits are as they are now."""
        self._start, self._used = start, used
        self._before = [split.state() for split in self._splits]
        sources = self._draw(start)
        positions = np.arange(len(sources))
        rank, kept = self._rank, self._rows * self._world
        for split in self._splits:
            rank, part = divmod(rank, split.parts)
            kept //= split.parts
            positions = positions[split.take(sources[positions], part, kept)]
        self._indices = start + positions[: self._rows]

    def _draw(self, start: int) -> Int64s:
        """Return the sources of the block at `start` and of the next one, which the splits look ahead into."""
        length = self._rows * self._world
        if self._world % 2:
            return self._schedule.draws(start, length)[0]
        known = self._ahead[1] if self._ahead is not None and self._ahead[0] == start else None
        block = self._schedule.draws(start, length)[0] if known is None else known
        following = self._schedule.draws(start + length, length)[0]
        self._ahead = start + length, following
        return np.concatenate([block, following])

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._used == self._rows:
            self._begin(self._start + self._rows * self._world, 0)
        self._used += 1
        return int(self._indices[self._used - 1])

    @property
    def position(self) -> int:
        """The global index up to which every rank that took as many elements as this one has read everything."""
        return self._start + self._used * self._world

    def state_dict(self) -> dict[str, Any]:
        """Return where this rank is, json-able."""
        return {
            "schema": DEAL_SCHEMA,
            "rank": self._rank,
            "world": self._world,
            "start": self._start,
            "used": self._used,
            "splits": self._before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            InputError: it is the state of another rank or world size, or of an older way of dealing.
        """
        if state.get("schema") != DEAL_SCHEMA:
            raise InputError(
                f"this state is of {state.get('schema', 'an older version')}, ranks are now dealt by {DEAL_SCHEMA}: "
                "start new streams at the global index the old run had reached"
            )
        if (state["rank"], state["world"]) != (self._rank, self._world):
            raise InputError(
                f"this state is of rank {state['rank']} of {state['world']}, this is {self._rank} of {self._world}; "
                "after a change of world size start new streams at the global index the old run had reached"
            )
        for split, before in zip(self._splits, state["splits"]):
            split.restore(before)
        self._begin(state["start"], state["used"])


def _prime_factors(number: int) -> list[int]:
    factors = []
    factor = 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors
