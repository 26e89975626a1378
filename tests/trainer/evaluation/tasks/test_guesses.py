"""Blind guesses: right where the truth depends only on the row, and never better than their fit allows."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.trainer.evaluation.metrics.depth import depth_metrics
from cavendish.trainer.evaluation.metrics.normals import normals_metrics
from cavendish.trainer.evaluation.metrics.segmentation import semantic_confusion, semantic_set_metrics
from cavendish.trainer.evaluation.tasks.depth import depth_profiles, depth_row_medians
from cavendish.trainer.evaluation.tasks.normals import normals_profiles, normals_row_sums
from cavendish.trainer.evaluation.tasks.semantic import class_profiles, class_row_counts
from cavendish.trainer.evaluation.tasks.task import ROWS, mask_guesses, paint_profile


def test_depth_by_height_knows_a_floor_that_one_depth_does_not():
    floor = np.geomspace(20, 1, 2 * ROWS)[:, None].repeat(40, axis=1)
    profiles = depth_profiles([depth_row_medians(floor, np.ones(floor.shape, bool))])
    constant, by_height = (depth_metrics(paint_profile(p, floor.shape), floor) for p in profiles.values())
    assert by_height["delta1"] == 1
    assert constant["delta1"] < 0.3


def test_bands_without_truth_are_interpolated():
    truth = np.full((ROWS, 4), 2.0)
    truth[ROWS // 2 :] = 4.0
    valid = np.zeros(truth.shape, bool)
    valid[[0, -1]] = True
    profiles = depth_profiles([depth_row_medians(truth, valid)])
    assert profiles["depth by height in the picture"][[0, -1]].tolist() == [2, 4]
    assert np.isfinite(profiles["depth by height in the picture"]).all()
    assert profiles["one depth everywhere"][0] == 3


def test_normals_by_height_knows_floor_and_ceiling():
    truth = np.zeros((100, 10, 3))
    truth[:50, :, 1], truth[50:, :, 1] = -1, 1
    valid = np.ones((100, 10), bool)
    guesses = normals_profiles([normals_row_sums(truth, valid)])
    scores = {name: normals_metrics(paint_profile(g, (100, 10)), truth)["mean_deg"] for name, g in guesses.items()}
    assert scores["facing the viewer"] == pytest.approx(90)
    assert scores["normal by height in the picture"] == pytest.approx(0, abs=1e-6)


def test_classes_by_height_know_sky_above_road():
    truth = np.full((90, 10), 7)
    truth[:30] = 23
    guesses = class_profiles([class_row_counts(truth, [7, 23])], [7, 23])
    scores = [
        semantic_set_metrics(semantic_confusion(paint_profile(g, truth.shape), truth, [7, 23]), ["road", "sky"])["miou"]
        for g in guesses.values()
    ]
    assert scores[0] == pytest.approx(1 / 3)
    assert scores[1] > 0.95


def test_mask_guesses_cover_what_they_say():
    guesses = mask_guesses((40, 60))
    assert [int(mask.sum()) for mask in guesses.values()] == [0, 2400, 600]
