"""Round shares to whole draws: which source global index i draws from, exact at every prefix, without replaying.

A source with share w_k(t) has the quota Q_k(i), the integral of w_k from 0 to i. The j-th draw of source k may not come
before its quota passes j - 1 (release) and must have come when its quota reaches j (deadline); serving the earliest
deadline first then keeps every count strictly within one of its quota, for any number of sources and any ramps, because
the fractional schedule itself shows that the unit jobs fit (a convex bipartite graph with a fractional perfect matching
has an integral one, and earliest deadline first finds it).

The state of that process at index T needs no replay. To the jobs of the m most urgent deadlines, the process is a
queue that is never idle, so that their number served by T is min over s <= T of (released by s) + T - s. Only
positions after the oldest open release matter: the cost is the longest open window (about one over the smallest
share), whatever T is.

All arithmetic is in integers: a quota is exact at index 1e12 as at 10. Source: ours (queue identity: Reich 1958).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

Points = Sequence[tuple[int, Fraction]]
"""A share over the stream: (index, share), linear between points, constant before the first and after the last."""

_CHUNK = 1 << 15
_INT64_SAFE = 1 << 62
_NEVER = 1 << 62  # the deadline of a draw that never becomes due


@dataclass(frozen=True)
class _Piece:
    """One source's quota on one segment: (constant + linear x + square x^2) / denominator, x = t - start."""

    start: int
    constant: int
    linear: int
    square: int
    denominator: int

    def numerator(self, t: int) -> int:
        x = t - self.start
        return self.constant + x * (self.linear + x * self.square)


def share_at(points: Points, t: int) -> Fraction:
    """Return the share at index `t`."""
    if t <= points[0][0]:
        return points[0][1]
    for (t0, w0), (t1, w1) in pairwise(points):
        if t <= t1:
            return w0 + (w1 - w0) * Fraction(t - t0, t1 - t0)
    return points[-1][1]


class _OpenDraw(NamedTuple):
    """A draw that may be served from index `release` on and must be before `deadline`."""

    source: int
    release: int
    deadline: int


class _Bounds(NamedTuple):
    """Floor and ceiling of a quota over a stretch of indices, less `base`."""

    floors: NDArray[np.int64]
    ceils: NDArray[np.int64]
    base: int


class Schedule:
    """The order of sources over global indices 0, 1, 2, ...

    Args:
        shares: for each source its share over the stream; they add up to 1 at every index.

    Raises:
        InputError: no source, a share outside 0..1, points out of order, or shares that do not add up to 1.
    """

    def __init__(self, shares: Sequence[Points]) -> None:
        if not shares:
            raise InputError("a schedule needs at least one source")
        self.shares = tuple(tuple(points) for points in shares)
        self._starts = sorted({0, *(t for points in self.shares for t, _ in points)})
        _check(self.shares, self._starts)
        self._pieces = [_pieces(points, self._starts) for points in self.shares]
        self._last: tuple[int, list[int]] = (0, [0] * self.size)  # where `draws` ended: going on needs no seek

    @property
    def size(self) -> int:
        """The number of sources."""
        return len(self.shares)

    def quota(self, source: int, t: int) -> Fraction:
        """Return the exact number of draws that `source` is due in the first `t` indices."""
        piece = self._piece(source, t)
        return Fraction(piece.numerator(t), piece.denominator)

    def counts(self, t: int) -> list[int]:
        """Return how often each source was drawn in the first `t` indices, at a cost that does not grow with `t`."""
        if t < 0:
            raise InputError(f"index {t} is before the stream's start")
        if t == self._last[0]:
            return list(self._last[1])
        counts = [self._floor(source, t) for source in range(self.size)]  # draws whose deadline has passed
        if sum(counts) == t:
            return counts
        open_draws = sorted(self._open_draws(counts, t), key=lambda draw: (draw.deadline, draw.source))
        marks = sorted({draw.release for draw in open_draws})
        least_idle = self._lowest_load(counts, marks, t)
        served_before = sum(counts)
        released = np.zeros(len(marks), np.int64)  # at each mark: of the draws that are at least as urgent
        for draw in open_draws:  # how many more are served by t once the queue holds this one too
            released[bisect_right(marks, draw.release) - 1 :] += 1
            served = t + min(0, int((least_idle + released).min()))
            counts[draw.source] += served - served_before
            served_before = served
        return counts

    def _open_draws(self, counts: Sequence[int], t: int) -> Iterator[_OpenDraw]:
        """Yield the next draw of each source that may be served by `t` and need not be."""
        for source, count in enumerate(counts):
            if self.quota(source, t) > count:
                release = self._first(source, count, strict=True)
                yield _OpenDraw(source, release, deadline=self._first(source, count + 1, strict=False))

    def draws(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for indices start .. start + count - 1 the source, and which draw of that source it is (from 0).

        Returns:
            (count,) int64 sources and (count,) int64 ordinals.
        """
        sources = np.empty(count, np.int64)
        ordinals = np.empty(count, np.int64)
        done = self.counts(start)
        for at in range(0, count, _CHUNK):
            length = min(_CHUNK, count - at)
            part = sources[at : at + length]
            part[:] = self._serve(start + at, length, done)
            for k in range(self.size):
                slots = np.flatnonzero(part == k)
                ordinals[at + slots] = done[k] + np.arange(len(slots))
                done[k] += len(slots)
        self._last = (start + count, done)
        return sources, ordinals

    def _serve(self, start: int, length: int, done: list[int]) -> NDArray[np.int64]:
        """Serve `length` slots, earliest deadline first; equal deadlines in the order of the sources."""
        release_slots, urgencies = [], []
        for k in range(self.size):
            floors, ceils, base = self._bounds(k, start + 1, start + 1 + length)
            jobs = np.arange(done[k] - base + 1, int(ceils[-1]) + 1)
            deadlines = np.searchsorted(floors, jobs)
            beyond = np.flatnonzero(deadlines == length)
            due = deadlines.astype(object) if len(beyond) else deadlines
            for job in beyond:
                due[job] = self._first(k, base + int(jobs[job]), strict=False) - start - 1
            release_slots.append(np.searchsorted(ceils, jobs))
            urgencies.append(due * self.size + k)
        slots = np.concatenate(release_slots)
        order = np.argsort(slots, kind="stable")
        ends = np.searchsorted(slots[order], np.arange(length), side="right").tolist()
        urgency = np.concatenate(urgencies)[order].tolist()
        waiting: list[int] = []
        served = []
        at = 0
        for end in ends:
            while at < end:
                heapq.heappush(waiting, urgency[at])
                at += 1
            served.append(heapq.heappop(waiting) % self.size)
        return np.array(served, np.int64)

    def _lowest_load(self, floors: list[int], marks: list[int], t: int) -> NDArray[np.int64]:
        """Return, for each interval between marks, the least of (jobs due by t that are released by s) - s."""
        lows = np.full(len(marks), _NEVER, np.int64)
        for low in range(marks[0], t + 1, _CHUNK):
            high = min(low + _CHUNK, t + 1)
            load = -np.arange(low, high)
            for k in range(self.size):
                _, ceils, base = self._bounds(k, low, high)
                load += np.minimum(ceils.astype(np.int64), floors[k] - base) + base
            first = bisect_right(marks, low) - 1
            inside = [mark for mark in marks[first + 1 :] if mark < high]
            cuts = [0, *(mark - low for mark in inside)]
            lows[first : first + len(cuts)] = np.minimum(
                lows[first : first + len(cuts)], np.minimum.reduceat(load, cuts)
            )
        return lows

    def _bounds(self, source: int, low: int, high: int) -> _Bounds:
        """Return floor and ceiling of the quota at low .. high - 1, less the floor at `low`."""
        base = self._floor(source, low)
        floors, ceils = [], []
        while low < high:
            at = bisect_right(self._starts, low) - 1
            end = high if at + 1 == len(self._starts) else min(high, self._starts[at + 1])
            piece = self._pieces[source][at]
            x0 = low - piece.start
            constant = piece.numerator(low) - base * piece.denominator
            slope = piece.linear + 2 * piece.square * x0
            x = np.arange(end - low)
            if (piece.denominator + abs(slope) + abs(piece.square) * len(x)) * (len(x) + 1) + constant > _INT64_SAFE:
                x = x.astype(object)
            numerators = constant + x * (slope + x * piece.square)
            floors.append((numerators // piece.denominator).astype(np.int64))
            ceils.append((-(-numerators // piece.denominator)).astype(np.int64))
            low = end
        return _Bounds(np.concatenate(floors), np.concatenate(ceils), base)

    def _piece(self, source: int, t: int) -> _Piece:
        return self._pieces[source][bisect_right(self._starts, t) - 1]

    def _floor(self, source: int, t: int) -> int:
        piece = self._piece(source, t)
        return piece.numerator(t) // piece.denominator

    def _first(self, source: int, amount: int, strict: bool) -> int:
        """Return the first index at which the quota is at least (strict: above) `amount`."""

        def reached(t: int) -> bool:
            piece = self._piece(source, t)
            value = piece.numerator(t) - amount * piece.denominator
            return value > 0 if strict else value >= 0

        last = self._pieces[source][-1]
        if last.linear == 0 and not reached(last.start):
            return _NEVER
        high = max(1, last.start)
        while not reached(high):
            high *= 2
        low = -1
        while high - low > 1:
            middle = (low + high) // 2
            if middle >= 0 and reached(middle):
                high = middle
            else:
                low = middle
        return high


def _check(shares: Sequence[Points], starts: Sequence[int]) -> None:
    for points in shares:
        if not points or any(t1 <= t0 for (t0, _), (t1, _) in pairwise(points)) or points[0][0] < 0:
            raise InputError(f"points of a share must have rising indices from 0 on: {list(points)}")
        if any(not 0 <= share <= 1 for _, share in points):
            raise InputError(f"a share must be between 0 and 1: {[str(share) for _, share in points]}")
    for t in starts:
        total = sum(share_at(points, t) for points in shares)
        if total != 1:
            raise InputError(f"shares add up to {total} at index {t}, not to 1")


def _pieces(points: Points, starts: Sequence[int]) -> list[_Piece]:
    pieces = []
    quota = Fraction(0)
    for at, start in enumerate(starts):
        share = share_at(points, start)
        square = Fraction(0)
        if at + 1 < len(starts):
            length = starts[at + 1] - start
            square = (share_at(points, starts[at + 1]) - share) / (2 * length)
        denominator = lcm(quota.denominator, share.denominator, square.denominator)
        pieces.append(
            _Piece(start, int(quota * denominator), int(share * denominator), int(square * denominator), denominator)
        )
        if at + 1 < len(starts):
            quota += share * length + square * length**2
    return pieces
