from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.mixture.deal import Dealer, two_colours
from cavendish.mixing.mixture.schedule import Points, Schedule


def constant(*weights: str) -> list[Points]:
    total = sum(map(Fraction, weights))
    return [((0, Fraction(weight) / total),) for weight in weights]


def take(dealer: Dealer, count: int) -> list[int]:
    return list(itertools.islice(dealer, count))


def worst_error(schedule: Schedule, world: int, count: int) -> float:
    """The largest distance of a rank's count of a source from its exact part: all prefixes, up to four ranks."""
    sources = schedule.draws(0, count * world)[0]
    quota = np.array([[float(schedule.quota(k, t * world)) for k in range(schedule.size)] for t in range(1, count + 1)])
    worst = 0.0
    for rank in sorted({0, 1, world // 2, world - 1}):
        mine = sources[take(Dealer(schedule, rank, world), count)]
        counts = np.cumsum(mine[:, None] == np.arange(schedule.size), axis=0)
        worst = max(worst, float(np.abs(counts - quota / world).max()))
    return worst


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(1, 13), st.integers(0, 10**9))
def test_the_ranks_together_read_each_index_once_and_keep_in_step(weights: list[int], world: int, at: int) -> None:
    schedule = Schedule(constant(*map(str, weights)))
    start = at // world * world
    ranks = np.array([take(Dealer(schedule, rank, world, start), 40) for rank in range(world)])
    np.testing.assert_array_equal(np.sort(ranks, axis=0), start + np.arange(40 * world).reshape(40, world).T)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=80))
def test_a_split_in_two_has_every_source_even_after_every_pair(pairs: list[tuple[int, int]]) -> None:
    """Whatever the order and the number of sources: this and |N - Q| < 1 of the whole are all the law needs."""
    sources = np.array([(a, (a + step) % 6) for a, step in pairs], np.int64).reshape(-1)
    parts = two_colours(sources, np.zeros(6, np.int64))
    assert (parts[::2] != parts[1::2]).all()
    leads = np.cumsum(np.where(parts == 0, 1, -1)[:, None] * (sources[:, None] == np.arange(6)), axis=0)[1::2]
    assert np.abs(leads).max(initial=0) <= 1


def test_a_split_in_two_undoes_the_leads_it_starts_with() -> None:
    parts = two_colours(np.array([0, 1, 2, 0, 1, 2]), np.array([1, -1, 0]))
    assert parts[:2].tolist() == [1, 0]


DOMINATED = [("1", "99"), ("1", "999"), ("9900", "40", "30", "20", "7", "3"), ("70", "14", "14", "1", "0.7", "0.3")]
LEVEL = [("1", "2"), ("3", "3", "2", "1", "1"), ("1",) * 12, ("5", "4", "4", "3", "0.02", "0.01", "0.01", "0.005")]
CUBES = tuple(str(1 + k**3) for k in range(40))


@pytest.mark.parametrize("world", [2, 8, 64])
@pytest.mark.parametrize("weights", DOMINATED + LEVEL)
def test_a_power_of_two_ranks_have_their_parts_within_one(weights: tuple[str, ...], world: int) -> None:
    """Taking every world-th index gives one rank of 4 all of a source at 1/100."""
    assert worst_error(Schedule(constant(*weights)), world, 24_000 // world) < 1


def test_a_power_of_two_ranks_have_their_parts_within_one_under_a_ramp() -> None:
    vision = ((1000, Fraction(0)), (30_000, Fraction(1, 50)))
    thirds = [tuple((t, (1 - share) * part) for t, share in vision) for part in (Fraction(2, 3), Fraction(1, 3))]
    halves = [tuple((t, share / 2) for t, share in vision)] * 2
    assert worst_error(Schedule([*halves, *thirds]), 8, 5000) < 1


@pytest.mark.parametrize("world", [3, 12])
@pytest.mark.parametrize(("weights", "bound"), [(DOMINATED[2], 2), (DOMINATED[3], 2), (LEVEL[1], 2), (CUBES, 2)])
def test_other_numbers_of_ranks_stay_within_the_stated_bound(
    weights: tuple[str, ...], bound: float, world: int
) -> None:
    assert worst_error(Schedule(constant(*weights)), world, 12_000 // world) <= bound


def test_very_rare_sources_among_many_stay_within_two() -> None:
    """Paths of sources that are hardly drawn within a block may meet at the wrong ends; the next block mends it."""
    assert worst_error(Schedule(constant(*CUBES)), 4, 30_000) < 2


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 20_000), st.sampled_from([1, 2, 3, 6, 16]))
def test_a_resumed_rank_goes_on_where_it_was(taken: int, world: int) -> None:
    schedule = Schedule(constant("70", "28", "1.5", "0.5"))
    dealer = Dealer(schedule, world - 1, world)
    take(dealer, taken)
    state = json.loads(json.dumps(dealer.state_dict()))
    resumed = Dealer(schedule, world - 1, world)
    resumed.load_state_dict(state)
    assert resumed.position == dealer.position == taken * world
    assert take(resumed, 300) == take(dealer, 300)
    assert len(json.dumps(state)) < 4096


def test_a_state_of_another_rank_is_refused() -> None:
    schedule = Schedule(constant("1", "2"))
    with pytest.raises(InputError, match="rank 0 of 2, this is 1 of 2"):
        Dealer(schedule, 1, 2).load_state_dict(Dealer(schedule, 0, 2).state_dict())
    old = {"rank": 0, "world": 2, "start": 0, "used": 7, "excess": [[[0, 0], [0, 0]]]}
    with pytest.raises(InputError, match="older version, ranks are now dealt by cavendish-deal/2"):
        Dealer(schedule, 0, 2).load_state_dict(old)
    with pytest.raises(InputError, match="multiple of 4"):
        Dealer(schedule, 0, 4, start=6)
