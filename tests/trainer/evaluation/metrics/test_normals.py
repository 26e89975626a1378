"""Angular errors against known rotations and torch's cosine similarity; pooled is not per image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.normals import NormalsPool, angular_errors_deg, normals_metrics


def _normals(seed: int = 0, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_rotation_about_x_is_measured_exactly():
    truth = np.zeros((1, 4, 3))
    truth[..., 2] = 1
    angles = np.array([0.0, 5.0, 22.5, 180.0])
    rotated = Rotation.from_rotvec(np.outer(angles, (1, 0, 0)), degrees=True).apply(truth[0])[None]
    assert angular_errors_deg(rotated, truth) == pytest.approx(angles, abs=1e-5)
    result = normals_metrics(rotated, truth)
    assert result["mean_deg"] == pytest.approx(51.875, abs=1e-4)
    assert result["median_deg"] == pytest.approx(13.75, abs=1e-4)
    assert result["below_7.5_percent"] == 50
    assert result["below_11.25_percent"] == 50


def test_agrees_with_torch_cosine_similarity():
    truth, prediction = _normals(0), _normals(1) * 0.3
    cosine = torch.cosine_similarity(torch.tensor(prediction), torch.tensor(truth), dim=-1)
    expected = torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).numpy().ravel()
    assert angular_errors_deg(prediction, truth) == pytest.approx(expected, abs=1e-6)


def test_unknown_truth_and_mask_do_not_count_and_a_zero_prediction_is_90_degrees():
    truth = _normals()
    truth[0] = 0
    valid = np.ones(truth.shape[:2], bool)
    valid[1] = False
    errors = angular_errors_deg(np.zeros_like(truth), truth, valid)
    assert errors.size == 18 * 30
    assert (errors == 90).all()
    assert normals_metrics(truth, np.zeros_like(truth))["mean_deg"] is None


def normals_set_metrics(errors_deg: list[np.ndarray]) -> dict:
    pool = NormalsPool()
    for errors in errors_deg:
        pool.add(errors)
    return pool.metrics()


def test_pooled_and_per_image_are_different_numbers_by_name():
    small, large = np.full(1, 40.0), np.concatenate([np.full(600, 2.0), np.full(399, 10.0)])
    result = normals_set_metrics([small, large, np.zeros(0)])
    assert (result["images"], result["empty"]) == (2, 1)
    assert result["pooled"]["median_deg"] == pytest.approx(2.0, abs=1e-4)
    assert result["per_image"]["median_deg"] == pytest.approx(21.0)
    assert result["pooled"]["mean_deg"] == pytest.approx((40 + 1200 + 3990) / 1000)
    assert result["pooled"]["below_5_percent"] == pytest.approx(60.0)
    assert result["per_image"]["below_5_percent"] == pytest.approx(100 * 600 / 999 / 2)


@pytest.mark.parametrize("count", [1, 2, 999, 1000])
def test_pooled_median_is_numpys(count):
    parts = np.array_split(np.random.default_rng(count).uniform(0, 180, count), min(count, 3))
    pooled = normals_set_metrics(parts)["pooled"]
    values = np.concatenate(parts)
    assert pooled["median_deg"] == pytest.approx(np.median(values), abs=6e-5)
    assert pooled["rmse_deg"] == pytest.approx(np.sqrt((values**2).mean()))


def test_wrong_axis_signs_cost_what_they_should():
    truth = _normals(shape=(300, 300))
    truth[..., 2] = np.abs(truth[..., 2])
    flipped = truth * (-1, 1, 1)
    assert normals_metrics(flipped, truth)["mean_deg"] == pytest.approx(np.degrees(np.pi - 2), abs=0.5)  # E 2 asin|x|


def test_bad_input_is_said_in_one_line():
    with pytest.raises(InputError, match=r"\(H, W, 3\)"):
        angular_errors_deg(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(InputError, match="not finite"):
        angular_errors_deg(np.full((1, 1, 3), np.nan), np.ones((1, 1, 3)))
