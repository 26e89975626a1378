"""Frechet and kernel distances against closed forms and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.distances import (
    frechet_distance,
    kernel_distance,
    layout_features,
    picture_distances,
)


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (300, 12)), rng.normal(0.3, 1.4, (260, 12)) @ rng.normal(0, 0.5, (12, 12))


def test_frechet_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    moments = [torch.from_numpy(value) for rows in features for value in (rows.mean(0), np.cov(rows, rowvar=False))]
    assert frechet_distance(*features) == pytest.approx(float(_compute_fid(*moments)), rel=1e-6)


def test_frechet_of_one_column_is_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(2, 3, (50_000, 1)), rng.normal(-1, 0.5, (50_000, 1))
    assert frechet_distance(one, other) == pytest.approx(3**2 + 2.5**2, rel=0.03)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_kernel_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (torch.from_numpy(rows) for rows in features)
    gamma = 1 / one.shape[1]
    k = [(gamma * a @ b.T + 1) ** 3 for a, b in ((one[:260], one[:260]), (one[:260], other), (other, other))]
    from torchmetrics.image.kid import maximum_mean_discrepancy

    assert kernel_distance(features[0][:260], features[1]) == pytest.approx(
        float(maximum_mean_discrepancy(*k)), rel=1e-9
    )
    assert poly_mmd(one[:260], other) > 0


def test_equal_sets_are_near_and_others_far() -> None:
    rng = np.random.default_rng(0)
    dark, dark_too = (rng.integers(0, 90, (60, 40, 50, 3), dtype=np.uint8) for _ in range(2))
    light = rng.integers(150, 255, (60, 40, 50, 3), dtype=np.uint8)
    assert layout_features(dark).shape == (60, 256)
    near, far = picture_distances(dark, dark_too), picture_distances(dark, light)
    assert far["frechet"] > 100 * near["frechet"]
    assert abs(near["kernel"]) < 1e-3 < far["kernel"]
    with pytest.raises(InputError, match="shapes"):
        kernel_distance(np.zeros((1, 3)), np.zeros((4, 3)))
