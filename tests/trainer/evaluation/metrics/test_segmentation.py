"""Semantic scores against cityscapesScripts' figures and torchmetrics, referring scores against the LISA rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks.cityscapes import CITYSCAPES
from cavendish.trainer.evaluation.metrics.segmentation import (
    MaskOverlap,
    mask_overlap,
    referring_metrics,
    semantic_confusion,
    semantic_set_metrics,
)


def _labels(seed: int, shape: tuple[int, int] = (64, 128)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 34, (shape[0] // 8, shape[1] // 8))
    return coarse.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)


def test_figures_of_cityscapes_scripts_void_included():
    """Printed by cityscapesScripts 2.3.0 (evaluateImgLists) on PNG files of exactly these labelIds."""
    matrices = []
    for index in range(3):
        truth, prediction = _labels(index), _labels(index + 10)
        prediction[:32] = truth[:32]
        matrices.append(semantic_confusion(prediction, truth, list(CITYSCAPES)))
    ours = semantic_set_metrics(np.sum(matrices, axis=0), list(CITYSCAPES.values()))
    assert ours["miou"] == pytest.approx(0.38174815810264734, abs=1e-12)
    expected = {
        "road": 0.2222222222222222,
        "sidewalk": 0.375,
        "building": 0.3333333333333333,
        "wall": 0.25,
        "fence": 0.5333333333333333,
        "pole": 0.4117647058823529,
        "traffic light": 0.35714285714285715,
        "traffic sign": 0.2,
        "vegetation": 0.3076923076923077,
        "terrain": 0.5833333333333334,
        "sky": 0.5,
        "person": 0.3125,
        "rider": 0.4,
        "car": 0.15,
        "truck": 0.4117647058823529,
        "bus": 0.3333333333333333,
        "train": 0.5,
        "motorcycle": 0.5333333333333333,
        "bicycle": 0.5384615384615384,
    }
    assert ours["iou"] == pytest.approx(expected, abs=1e-12)


def test_agrees_with_torchmetrics_without_void():
    rng = np.random.default_rng(5)
    truth, prediction = rng.integers(0, 6, (2, 40, 50))
    jaccard = torchmetrics.classification.MulticlassJaccardIndex(num_classes=6, average="none")
    expected = jaccard(torch.tensor(prediction), torch.tensor(truth)).numpy()
    result = semantic_set_metrics(semantic_confusion(prediction, truth, range(6)), list("abcdef"))
    assert list(result["iou"].values()) == pytest.approx(expected, abs=1e-6)


def test_void_rules_by_hand():
    truth = np.array([[1, 1, 1, 9, 9]])
    prediction = np.array([[1, 2, 9, 1, 2]])
    result = semantic_set_metrics(semantic_confusion(prediction, truth, [1, 2, 3]), ["road", "car", "sky"])
    # road: TP 1, FN 2 (one of them predicted void), no FP from the void truth; car: one FP on road truth.
    assert result["iou"] == {"road": pytest.approx(1 / 3), "car": 0.0, "sky": None}
    assert result["miou"] == pytest.approx(1 / 6)
    assert result["pixels"] == 3


def test_shapes_and_ids():
    truth = np.array([[1, 2]])
    with pytest.raises(InputError, match="use nearest"):
        semantic_confusion(np.ones((2, 2), int), truth, [1])
    with pytest.raises(InputError, match="twice"):
        semantic_confusion(truth, truth, [1, 1])


def test_ciou_favours_large_objects_giou_does_not():
    large, small = MaskOverlap(900, 1000), MaskOverlap(0, 10)
    result = referring_metrics([large, small])
    assert result["ciou"] == pytest.approx(900 / 1010)
    assert result["giou"] == pytest.approx(0.45, abs=1e-6)
    assert result["precision_at"] == {"0.5": 0.5, "0.6": 0.5, "0.7": 0.5, "0.8": 0.5, "0.9": 0.0}


def test_agrees_with_lisa_intersection_and_union():
    rng = np.random.default_rng(0)
    overlaps, shares, intersections, unions = [], [], 0.0, 0.0
    for _ in range(6):
        prediction, truth = rng.random((2, 16, 16)) > 0.6
        ignore = rng.random((16, 16)) > 0.9
        target = torch.tensor(np.where(ignore, 255, truth).astype(np.float32)).ravel()
        output = torch.tensor(prediction.astype(np.float32)).ravel()
        output[target == 255] = 255
        hits = torch.histc(output[output == target], 2, 0, 1)
        union = torch.histc(output, 2, 0, 1) + torch.histc(target, 2, 0, 1) - hits
        shares.append(float(hits[1] / (union[1] + 1e-5)))
        intersections, unions = intersections + float(hits[1]), unions + float(union[1])
        overlaps.append(mask_overlap(prediction, truth, ignore))
    result = referring_metrics(overlaps)
    assert result["giou"] == pytest.approx(np.mean(shares), abs=1e-7)
    assert result["ciou"] == pytest.approx(intersections / unions, abs=1e-9)


def test_an_absent_target_answered_with_nothing_is_right():
    empty = np.zeros((4, 4), bool)
    assert referring_metrics([mask_overlap(empty, empty)])["giou"] == 1
    assert referring_metrics([mask_overlap(~empty, empty)])["giou"] == 0
    assert referring_metrics([])["ciou"] is None
    with pytest.raises(InputError, match="use nearest"):
        mask_overlap(empty, np.zeros((4, 5), bool))
