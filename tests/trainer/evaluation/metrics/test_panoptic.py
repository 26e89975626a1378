"""Panoptic quality against the figures that panopticapi prints for the same id maps, and its void rules by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.panoptic import Panoptic, ids_from_rgb, panoptic_metrics


def _coarse(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 7, (6, 8)).repeat(8, axis=0).repeat(8, axis=1)


def _pair(seed: int) -> tuple[Panoptic, Panoptic]:
    truth, noise = _coarse(seed), _coarse(seed + 50)
    prediction = truth.copy()
    prediction[:24] = noise[:24]
    prediction[:, :10] = np.roll(prediction, 3, axis=0)[:, :10]
    categories = {i: 1 + i % 3 for i in range(1, 7)}
    return Panoptic(prediction, categories), Panoptic(truth, categories, frozenset({2}) if seed % 2 else frozenset())


def test_figures_of_panopticapi_with_void_and_crowd():
    result = panoptic_metrics(_pair(seed) for seed in range(4))
    expected = {"pq": 0.07848343333127152, "sq": 0.5749819591348632, "rq": 0.13739316239316238, "categories": 3}
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_match_needs_more_than_half_and_void_does_not_count():
    truth = np.array([[1, 1, 1, 1, 0, 0]])
    half = np.array([[5, 5, 0, 0, 0, 0]])
    assert panoptic_metrics([(Panoptic(half, {5: 9}), Panoptic(truth, {1: 9}))])["pq"] == 0
    generous = np.array([[5, 5, 5, 5, 5, 5]])
    assert panoptic_metrics([(Panoptic(generous, {5: 9}), Panoptic(truth, {1: 9}))])["pq"] == 1
    on_void = np.array([[0, 0, 0, 5, 5, 5]])  # unmatched, but more than half on void: dropped, only the miss counts
    result = panoptic_metrics([(Panoptic(on_void, {5: 9}), Panoptic(truth, {1: 9}))])
    assert result["per_category"][9] == {"pq": 0, "sq": 0, "rq": 0}
    assert panoptic_metrics([(Panoptic(on_void * 0, {}), Panoptic(truth * 0, {}))])["pq"] is None


def test_rgb_ids_and_bad_input():
    assert ids_from_rgb(np.array([[[1, 2, 3]]], np.uint8))[0, 0] == 1 + 2 * 256 + 3 * 65536
    with pytest.raises(InputError, match="segment 4"):
        panoptic_metrics([(Panoptic(np.array([[4]]), {}), Panoptic(np.array([[0]]), {}))])
    with pytest.raises(InputError, match="use nearest"):
        panoptic_metrics([(Panoptic(np.array([[4]]), {4: 1}), Panoptic(np.array([[0, 0]]), {}))])
