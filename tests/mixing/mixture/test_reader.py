from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.mixing.mixture.reader import LocalOrder, Permutation


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_every_element_comes_exactly_once(size: int, seed: int) -> None:
    order = Permutation(size, (seed, "photos/depth", 0))
    assert sorted(order[index] for index in range(size)) == list(range(size))


def test_another_key_is_another_order() -> None:
    orders = [tuple(Permutation(50, (1, "a", epoch))[index] for index in range(50)) for epoch in range(3)]
    assert len(set(orders)) == 3


def test_it_shuffles() -> None:
    """Neighbours end up as far apart as in a random order, and no position prefers an element."""
    size = 1000
    order = np.array([[Permutation(size, (seed,))[index] for index in range(size)] for seed in range(40)])
    assert abs(np.abs(np.diff(order, axis=1)).mean() - size / 3) < 10
    assert np.abs(order.mean(axis=0) - size / 2).max() < 5 * size / np.sqrt(12 * 40)


def test_huge_sizes_cost_nothing() -> None:
    size = 10**15 + 7
    order = Permutation(size, (0,))
    assert len({order[index] for index in range(1000)}) == 1000
    assert all(0 <= order[index] < size for index in range(1000))


def test_it_has_ends() -> None:
    with pytest.raises(IndexError):
        Permutation(5, (0,))[5]
    with pytest.raises(ValueError, match="0 elements"):
        Permutation(0, (0,))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4000), st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_a_local_order_is_complete(size: int, chunk: int, window: int, seed: int) -> None:
    order = LocalOrder(size, (seed,), chunk, window)
    assert sorted(order[index] for index in range(size)) == list(range(size))


def test_a_local_order_touches_few_shards_at_a_time_and_mixes_them() -> None:
    size, shard = 1_000_000, 1000
    order = LocalOrder(size, (7, "web/depth", 0))
    shards = [[order[index] // shard for index in range(start, start + 4096)] for start in range(0, 8 * 4096, 4096)]
    assert all(40 < len(set(window)) <= 128 for window in shards)
    assert all(len(set(window[:64])) > 30 for window in shards)
    assert len({shard for window in shards for shard in window}) > 300


def test_a_local_order_asked_at_random_is_the_one_read_in_order() -> None:
    order, other = (LocalOrder(50_000, (1,)) for _ in range(2))
    indices = [49_999, 3, 20_000, 4, 19_999, 49_990]
    in_order = {index: other[index] for index in sorted(indices)}
    assert {index: order[index] for index in indices} == in_order
