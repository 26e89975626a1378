"""Depth metrics against hand-worked numbers, torchmetrics, and exact recovery of known distortions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.depth import (
    METRIC,
    DepthProtocol,
    crop_mask,
    depth_metrics,
    depth_set_metrics,
    valid_pixels,
)


def _scene(seed: int = 0, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 9.5, shape).astype(np.float32)


def test_metrics_of_two_pixels_by_hand():
    result = depth_metrics(np.array([[2.0, 4.0]]), np.array([[1.0, 4.0]]))
    assert result["delta1"] == 0.5
    assert result["delta3"] == 0.5  # 2 > 1.25**3 = 1.953
    assert result["abs_rel"] == pytest.approx(0.5)
    assert result["sq_rel"] == pytest.approx(0.5)
    assert result["rmse_m"] == pytest.approx(np.sqrt(0.5))
    assert result["log10"] == pytest.approx(np.log10(2) / 2)
    log2 = np.log(2)
    assert result["silog_marigold"] == pytest.approx(100 * log2 / 2)
    assert result["silog_unik3d"] == pytest.approx(100 * log2 / np.sqrt(2))  # N - 1
    assert result["silog_depth_anything_v2"] == pytest.approx(np.sqrt(log2**2 / 2 - 0.5 * log2**2 / 4))


def test_delta_is_strict():
    assert depth_metrics(np.array([[1.25]]), np.array([[1.0]]))["delta1"] == 0
    assert depth_metrics(np.array([[1.2499]]), np.array([[1.0]]))["delta1"] == 1


def test_agrees_with_torchmetrics():
    truth = _scene()
    prediction = truth * np.random.default_rng(1).uniform(0.7, 1.4, truth.shape)
    result = depth_metrics(prediction, truth)
    p, t = torch.tensor(prediction).ravel(), torch.tensor(truth, dtype=torch.float64).ravel()
    abs_rel = torchmetrics.regression.MeanAbsolutePercentageError().to(torch.float64)
    rmse = torchmetrics.regression.MeanSquaredError(squared=False)
    rmse_log = torchmetrics.regression.MeanSquaredLogError()  # uses log(1 + x), hence the - 1
    assert result["abs_rel"] == pytest.approx(float(abs_rel(p, t)), rel=1e-6)
    assert result["rmse_m"] == pytest.approx(float(rmse(p, t)), rel=1e-6)
    assert result["rmse_log"] == pytest.approx(float(rmse_log(p - 1, t - 1)) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("alignment", "distort"),
    [
        ("scale_median", lambda d: 3.7 * d),
        ("scale_lsq", lambda d: 3.7 * d),
        ("log_shift", lambda d: 3.7 * d),
        ("affine_lsq", lambda d: 0.2 * d + 5),
        ("affine_disparity_lsq", lambda d: 1 / (0.3 / d + 0.7)),
        ("log_affine", lambda d: 2.5 * d**0.6),
    ],
)
def test_alignment_undoes_exactly_the_distortion_it_is_named_after(alignment, distort):
    truth = _scene()
    protocol = DepthProtocol(alignment=alignment)
    assert depth_metrics(distort(truth.astype(np.float64)), truth, protocol)["abs_rel"] < 1e-6
    assert depth_metrics(distort(truth.astype(np.float64)), truth)["abs_rel"] > 0.1


def test_affine_fit_is_numpys_least_squares():
    truth = _scene(2).astype(np.float64)
    prediction = np.random.default_rng(3).uniform(1, 5, truth.shape)
    matrix = np.stack([prediction.ravel(), np.ones(truth.size)], axis=1)
    scale, shift = np.linalg.lstsq(matrix, truth.ravel(), rcond=None)[0]
    expected = np.abs(prediction * scale + shift - truth) / truth
    assert depth_metrics(prediction, truth, DepthProtocol(alignment="affine_lsq"))["abs_rel"] == pytest.approx(
        expected.mean(), rel=1e-9
    )


def test_figures_of_marigold():
    """Printed by Marigold's src/util/alignment.py and metric.py (clip to 1e-3 .. 10 m between them) on these arrays."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 12, (120, 160))
    truth[:5] = 0
    prediction = np.abs(truth * rng.uniform(0.6, 1.6, truth.shape)) + 0.1
    result = depth_metrics(prediction, truth, DepthProtocol(max_m=10.0, alignment="affine_lsq"))
    exact = {
        "abs_rel": 0.3535850048350047,
        "sq_rel": 0.4505718941862924,
        "rmse_m": 1.3354198029547313,
        "rmse_log": 0.38852704932510224,
        "log10": 0.12224177991711337,
        "silog_marigold": 37.500841102252544,
    }
    assert {name: result[name] for name in exact} == pytest.approx(exact, rel=1e-12)
    shares = {"delta1": 0.52961171, "delta2": 0.81710029, "delta3": 0.92103541}  # single precision there
    assert {name: result[name] for name in shares} == pytest.approx(shares, abs=5e-8)


@pytest.mark.parametrize("alignment", ["none", "scale_median", "affine_lsq", "affine_disparity_lsq", "log_affine"])
def test_sky_code_is_clipped_and_never_makes_a_mean_infinite(alignment):
    truth = _scene()
    prediction = truth.copy()
    prediction[0, :3] = np.inf
    capped = depth_metrics(prediction, truth, DepthProtocol(max_m=10.0, alignment=alignment))
    assert capped["rmse_m"] < 1
    assert np.isfinite([v for k, v in capped.items() if k != "protocol"]).all()
    if alignment == "none":
        wrong = np.array([10.0 / truth[0, i] - 1 for i in range(3)]).sum() / truth.size
        assert capped["abs_rel"] == pytest.approx(wrong, rel=1e-6)
        assert depth_metrics(np.full((1, 1), np.inf), np.ones((1, 1)))["rmse_m"] == pytest.approx(411.5)


@pytest.mark.parametrize(
    "alignment",
    ["none", "scale_median", "scale_lsq", "affine_lsq", "affine_disparity_lsq", "log_shift", "log_affine"],
)
def test_black_decodes_to_0_m_which_no_fit_may_trip_over(alignment):
    truth = _scene()
    prediction = truth.copy()
    prediction[0, :3] = 0
    result = depth_metrics(prediction, truth, DepthProtocol(max_m=10.0, alignment=alignment))
    assert np.isfinite([v for k, v in result.items() if k != "protocol"]).all()
    assert result["delta1"] > 0.99


def test_truth_range_is_strict_and_unknown_truth_does_not_count():
    truth = np.array([[np.nan, np.inf, 10.0, 0.0, 5.0, 1e-3, 9.999]])
    mask = valid_pixels(truth, DepthProtocol(max_m=10.0))
    assert mask.tolist() == [[False, False, False, False, True, False, True]]
    assert depth_metrics(np.ones((1, 7)), truth, valid=np.zeros((1, 7), bool))["pixels"] == 0
    assert depth_metrics(np.ones((1, 7)), truth, valid=np.zeros((1, 7), bool))["delta1"] is None


def test_crops_have_the_published_rectangles():
    rows, columns = np.nonzero(crop_mask((480, 640), "eigen_nyu"))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (45, 471, 41, 601)
    # On the 352x1216 crop, the numbers that evaluation codes print for KITTI.
    rows, columns = np.nonzero(crop_mask((352, 1216), "garg"))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (143, 349, 43, 1172)
    rows, columns = np.nonzero(crop_mask((352, 1216), "eigen_kitti"))
    assert (rows.min(), rows.max() + 1) == (117, 321)
    with pytest.raises(InputError, match="480x640"):
        crop_mask((240, 320), "eigen_nyu")


def test_set_is_the_mean_over_images_not_over_pixels():
    near = depth_metrics(np.full((10, 10), 2.0), np.ones((10, 10)))
    far = depth_metrics(np.ones((1, 1)), np.ones((1, 1)))
    empty = depth_metrics(np.ones((1, 1)), np.full((1, 1), np.nan))
    total = depth_set_metrics([near, far, empty])
    assert total["abs_rel"] == pytest.approx(0.5)
    assert (total["images"], total["empty"], total["pixels"]) == (2, 1, 101)


def test_ids_tell_protocols_apart_and_sets_do_not_mix_them():
    protocols = [METRIC, DepthProtocol(max_m=10), DepthProtocol(crop="garg"), DepthProtocol(alignment="scale_lsq")]
    protocols += [DepthProtocol(min_m=0.1), DepthProtocol(clip_m=(0.6, 350)), DepthProtocol(fit_max_side=1024)]
    assert len({protocol.id for protocol in protocols}) == len(protocols)
    results = [depth_metrics(np.ones((1, 1)), np.ones((1, 1)), protocol) for protocol in protocols[:2]]
    with pytest.raises(InputError, match="different protocols"):
        depth_set_metrics(results)


def test_bad_input_is_said_in_one_line():
    with pytest.raises(InputError, match="shapes must agree"):
        depth_metrics(np.ones((2, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="NaN at 1"):
        depth_metrics(np.array([[np.nan, 1.0]]), np.ones((1, 2)))
    with pytest.raises(InputError, match="alignment 'median'"):
        DepthProtocol(alignment="median")
    with pytest.raises(InputError, match="min_m < max_m"):
        DepthProtocol(min_m=3, max_m=2)


def test_fit_on_a_coarse_grid_uses_nearest_pixels():
    truth = _scene(shape=(64, 96)).astype(np.float64)
    prediction = truth / 2
    prediction[1::2] = 1e3  # rows off the grid of every second pixel
    fitted = DepthProtocol(alignment="scale_median", fit_max_side=48)
    aligned = depth_metrics(prediction[::2, ::2], truth[::2, ::2], DepthProtocol(alignment="scale_median"))
    assert aligned["abs_rel"] < 1e-9
    assert depth_metrics(prediction, truth, fitted, valid=np.arange(64)[:, None] % 2 == np.zeros((1, 96)))[
        "abs_rel"
    ] == pytest.approx(0, abs=1e-9)
    assert depth_metrics(prediction, truth, fitted)["delta1"] == pytest.approx(0.5, abs=0.01)
