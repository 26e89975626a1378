"""Votes and consensus over passes with known mistakes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.dead_leaves import dead_leaves, mean_f1
from cavendish.encoders.sample import InputError
from cavendish.encoders.voting import consensus_instances, vote_semantic


def test_majority_and_ties_by_counting() -> None:
    rng = np.random.default_rng(0)
    passes = [rng.integers(-1, 4, (20, 30)).astype(np.int16) for _ in range(6)]
    voted = vote_semantic(passes)
    for y, x in np.ndindex(20, 30):
        votes = Counter(int(one[y, x]) for one in passes)  # most_common keeps the order of first appearance
        label, count = votes.most_common(1)[0]
        assert voted.labels[y, x] == label
        assert voted.agreement[y, x] == pytest.approx(count / 6)
    assert voted.labels.dtype == np.int16


def test_votes_of_independent_mistakes_beat_every_pass() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 19, (100, 100))
    passes = [np.where(rng.random(truth.shape) < 0.35, rng.integers(0, 19, truth.shape), truth) for _ in range(9)]
    assert max((one == truth).mean() for one in passes) < 0.7
    assert (vote_semantic(passes).labels == truth).mean() > 0.99


def noisy_passes(rng: np.random.Generator, truth: np.ndarray, count: int) -> list[np.ndarray]:
    """Each pass shuffles the ids, misses a fifth of the instances, invents a blob, and shifts by up to a pixel."""
    passes = []
    for _ in range(count):
        numbers = np.arange(truth.max() + 1)
        numbers[1:] = rng.permutation(numbers[1:])
        numbers[1:][rng.random(len(numbers) - 1) < 0.2] = 0
        one = np.roll(numbers[truth], rng.integers(-1, 2, 2), (0, 1))
        y, x = rng.integers(0, truth.shape[0] - 25, 2)
        one[y : y + 25, x : x + 25] = truth.max() + 1
        passes.append(one.astype(np.uint16))
    return passes


def test_consensus_finds_what_most_passes_have_and_nothing_invented() -> None:
    rng = np.random.default_rng(3)
    truth = dead_leaves(rng, 12)
    passes = noisy_passes(rng, truth, 11)
    consensus = consensus_instances(passes)
    single = [mean_f1(one, truth) for one in passes]
    assert mean_f1(consensus.ids, truth) > max(single)
    assert consensus.ids.max() == len(consensus.support) == len(np.unique(truth)) - 1
    assert (np.diff(consensus.support) <= 0).all()
    assert (consensus.support >= 0.5).all()


def test_identical_passes_are_returned_whatever_their_numbers() -> None:
    truth = dead_leaves(np.random.default_rng(1), 8)
    shuffled = np.where(truth > 0, 9 - truth, 0).astype(np.uint16)
    consensus = consensus_instances([truth, shuffled, truth])
    assert mean_f1(consensus.ids, truth) == 1.0
    assert (consensus.support == 1).all()


def test_support_decides_presence() -> None:
    empty, full = np.zeros((20, 20), np.uint16), np.zeros((20, 20), np.uint16)
    full[5:15, 5:15] = 3
    assert consensus_instances([empty, empty, full]).ids.max() == 0
    assert consensus_instances([empty, full, full]).ids.max() == 1
    assert consensus_instances([empty, full, full]).support == pytest.approx(2 / 3)
    assert consensus_instances([empty]).support.shape == (0,)


def test_full_pictures_without_background() -> None:
    full = np.ones((6, 8), np.uint16)
    np.testing.assert_array_equal(consensus_instances([full, full]).ids, full)


@pytest.mark.parametrize(
    "passes", [[], [np.zeros((2, 2), int), np.zeros((2, 3), int)], [np.zeros((2, 2))]], ids=["none", "sizes", "float"]
)
def test_bad_passes_are_refused(passes: list) -> None:
    for combine in (vote_semantic, consensus_instances):
        with pytest.raises(InputError, match="passes"):
            combine(passes)
