"""The laws of the schedule, against a plain replay from index 0 in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.mixture.round_ratios import Points, Schedule, share_at


def constant(*weights: str) -> list[Points]:
    total = sum(map(Fraction, weights))
    return [((0, Fraction(weight) / total),) for weight in weights]


@st.composite
def shares(draw: st.DrawFn, most: int = 7, heaviest: int = 10**6) -> list[Points]:
    """Constant shares and ramps over common points, from a millionth up, zeros included."""
    count = draw(st.integers(1, most))
    starts = sorted(draw(st.sets(st.integers(1, 700), max_size=3)) | {0})
    weight = st.one_of(st.just(0), st.integers(1, 9), st.integers(1, heaviest))
    columns = []
    for _ in starts:
        weights = draw(st.lists(weight, min_size=count, max_size=count).filter(any))
        columns.append([Fraction(w, sum(weights)) for w in weights])
    return [tuple((start, column[k]) for start, column in zip(starts, columns)) for k in range(count)]


def first_reach(schedule: Schedule, source: int, amount: int) -> int:
    """The first index at which a quota reaches an amount, by trying them all."""
    return next((t for t in range(6000) if schedule.quota(source, t) >= amount), 10**9)


def replay(schedule: Schedule, count: int) -> list[int]:
    """Earliest deadline first from index 0, one draw at a time: the definition, without any of the shortcuts."""
    done = [0] * schedule.size
    order = []
    for t in range(1, count + 1):
        released = [k for k in range(schedule.size) if schedule.quota(k, t) > done[k]]
        due = {k: first_reach(schedule, k, done[k] + 1) for k in released}
        best = min(released, key=lambda k: (due[k], k))
        done[best] += 1
        order.append(best)
    return order


@settings(max_examples=60, deadline=None)
@given(shares(), st.integers(0, 1200))
def test_counts_are_within_one_of_the_exact_share_at_every_prefix(points: list[Points], start: int) -> None:
    schedule = Schedule(points)
    sources, _ = schedule.draws(start, 300)
    done = schedule.counts(start)
    for t, source in enumerate(sources.tolist(), start):
        done[source] += 1
        for k in range(schedule.size):
            assert abs(done[k] - schedule.quota(k, t + 1)) < 1


@settings(max_examples=60, deadline=None)
@given(shares(), st.integers(0, 2000), st.integers(0, 500))
def test_any_position_is_where_a_replay_from_the_start_would_be(points: list[Points], start: int, count: int) -> None:
    schedule = Schedule(points)
    whole, ordinals = schedule.draws(0, start + count)
    assert schedule.counts(start) == [int((whole[:start] == k).sum()) for k in range(schedule.size)]
    part, part_ordinals = schedule.draws(start, count)
    np.testing.assert_array_equal(part, whole[start:])
    np.testing.assert_array_equal(part_ordinals, ordinals[start:])


@settings(max_examples=12, deadline=None)
@given(shares(most=4, heaviest=1000))
def test_the_order_is_earliest_deadline_first(points: list[Points]) -> None:
    schedule = Schedule(points)
    assert schedule.draws(0, 60)[0].tolist() == replay(schedule, 60)


@settings(max_examples=30, deadline=None)
@given(shares())
def test_ordinals_count_the_draws_of_each_source(points: list[Points]) -> None:
    sources, ordinals = Schedule(points).draws(0, 500)
    for k in range(len(points)):
        np.testing.assert_array_equal(ordinals[sources == k], np.arange((sources == k).sum()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.integers(10**9, 10**12))
def test_far_positions_obey_the_law_too(weights: list[int], start: int) -> None:
    schedule = Schedule(constant(*map(str, weights)))
    done = schedule.counts(start)
    assert sum(done) == start
    for k in range(schedule.size):
        assert abs(done[k] - schedule.quota(k, start)) < 1


@pytest.mark.parametrize("share", ["0.000001", "0.001", "0.01", "0.5"])
def test_a_rare_source_comes_once_in_each_period(share: str) -> None:
    period = int(1 / Fraction(share))
    start = 7 * 10**9 // period * period
    sources, _ = Schedule([((0, Fraction(share)),), ((0, 1 - Fraction(share)),)]).draws(start, 3 * period)
    assert np.add.reduceat(sources == 0, [0, period, 2 * period]).tolist() == [1, 1, 1]


def test_a_ramp_follows_its_integral() -> None:
    vision = ((0, Fraction(0)), (100_000, Fraction(1, 50)))
    schedule = Schedule([vision, tuple((t, 1 - share) for t, share in vision)])
    assert schedule.quota(0, 100_000) == 1000
    assert schedule.counts(100_000)[0] == 1000
    assert schedule.counts(200_000)[0] == 3000
    assert share_at(vision, 25_000) == Fraction(1, 200)


def test_a_source_that_fades_out_is_not_drawn_again() -> None:
    fading = ((0, Fraction(1, 3)), (90, Fraction(0)))
    schedule = Schedule([fading, *(tuple((t, (1 - share) / 2) for t, share in fading) for _ in range(2))])
    assert schedule.counts(10_000)[0] == 15


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least one"),
        ([((0, Fraction(1, 2)),)], "add up to 1/2"),
        ([((5, Fraction(1)), (5, Fraction(1)))], "rising"),
        ([((0, Fraction(3, 2)),), ((0, Fraction(-1, 2)),)], "between 0 and 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(points: list[Points], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(points)


def test_an_index_before_the_start_is_refused() -> None:
    with pytest.raises(InputError, match="before"):
        Schedule(constant("1")).counts(-1)
