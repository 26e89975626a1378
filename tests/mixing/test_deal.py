from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.sample import InputError
from mixing.deal import Dealer
from mixing.schedule import Points, Schedule


def constant(*weights: str) -> list[Points]:
    total = sum(map(Fraction, weights))
    return [((0, Fraction(weight) / total),) for weight in weights]


def take(dealer: Dealer, count: int) -> list[int]:
    return list(itertools.islice(dealer, count))


def worst_error(schedule: Schedule, world: int, count: int) -> float:
    """The largest distance of a rank's count of a source from its exact part, over all prefixes."""
    sources = schedule.draws(0, count * world)[0]
    quota = np.array([[float(schedule.quota(k, t * world)) for k in range(schedule.size)] for t in range(1, count + 1)])
    worst = 0.0
    for rank in range(world):
        mine = sources[take(Dealer(schedule, rank, world), count)]
        counts = np.cumsum(mine[:, None] == np.arange(schedule.size), axis=0)
        worst = max(worst, float(np.abs(counts - quota / world).max()))
    return worst


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(1, 30), st.integers(0, 10**9))
def test_the_ranks_together_read_each_index_once_and_keep_in_step(weights: list[int], world: int, at: int) -> None:
    schedule = Schedule(constant(*map(str, weights)))
    start = at // world * world
    ranks = np.array([take(Dealer(schedule, rank, world, start), 40) for rank in range(world)])
    np.testing.assert_array_equal(np.sort(ranks, axis=0), start + np.arange(40 * world).reshape(40, world).T)


@pytest.mark.parametrize("world", [2, 3, 4, 6, 8, 12, 24, 64])
@pytest.mark.parametrize("share", ["1/100", "1/64", "1/3", "1/1000"])
def test_with_two_sources_every_rank_has_its_part_within_one(share: str, world: int) -> None:
    """Taking every world-th index gives one rank of 4 all of a source at 1/100."""
    schedule = Schedule([((0, Fraction(share)),), ((0, 1 - Fraction(share)),)])
    assert worst_error(schedule, world, 12_000 // world) <= 1


@pytest.mark.parametrize("world", [2, 3, 4, 6, 8, 12, 24, 64])
@pytest.mark.parametrize(
    ("weights", "bound"),
    [
        (("9900", "40", "30", "20", "7", "3"), 2),  # one dominates
        (("70", "14", "14", "0.5", "0.5", "0.4", "0.3", "0.3"), 2),
        (("3", "3", "2", "1", "1"), 2),  # none does
        (tuple(str(1 + k**3) for k in range(40)), 3),
    ],
)
def test_with_many_sources_every_rank_stays_within_the_stated_bound(
    weights: tuple[str, ...], bound: float, world: int
) -> None:
    assert worst_error(Schedule(constant(*weights)), world, 12_000 // world) <= bound


@settings(max_examples=20, deadline=None)
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
    with pytest.raises(InputError, match="multiple of 4"):
        Dealer(schedule, 0, 4, start=6)
