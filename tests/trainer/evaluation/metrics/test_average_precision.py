"""COCO AP: what pycocotools says of sets whose precision and recall are known."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.average_precision import average_precision, scored_image
from tests.trainer.evaluation.layouts import box_mask


def _boxes(*bounds: tuple[int, int, int, int]) -> np.ndarray:
    return np.stack([box_mask(200, 200, *b) for b in bounds]) if bounds else np.zeros((0, 200, 200), bool)


A, B, C = (0, 100, 0, 100), (100, 200, 100, 200), (0, 100, 120, 200)


def test_perfect_and_nothing():
    truth = _boxes(A, B)
    assert average_precision([scored_image(truth, [0.9, 0.8], truth)])["ap"] == pytest.approx(1)
    assert average_precision([scored_image(_boxes(), [], truth)])["ap"] == 0
    assert average_precision([scored_image(_boxes(), [], _boxes())])["ap"] is None


def test_a_false_positive_costs_nothing_when_ranked_last_and_half_when_ranked_first():
    truth = _boxes(A)
    drawn = _boxes(A, C)
    assert average_precision([scored_image(drawn, [0.9, 0.1], truth)])["ap"] == pytest.approx(1)
    assert average_precision([scored_image(drawn, [0.1, 0.9], truth)])["ap"] == pytest.approx(0.5)


def test_equal_scores_depend_on_order():
    truth = _boxes(A)
    first = average_precision([scored_image(_boxes(A, C), [1.0, 1.0], truth)])["ap"]
    last = average_precision([scored_image(_boxes(C, A), [1.0, 1.0], truth)])["ap"]
    assert (first, last) == (pytest.approx(1), pytest.approx(0.5))


def test_iou_of_three_quarters_counts_up_to_the_075_threshold():
    truth = _boxes((0, 100, 0, 100))
    result = average_precision([scored_image(_boxes((0, 100, 0, 77)), [1.0], truth)])
    assert result["ap50"] == result["ap75"] == pytest.approx(1)
    assert result["ap"] == pytest.approx(0.6)  # .50 .. .75 of ten thresholds
    assert result["ap_large"] == pytest.approx(0.6)
    assert result["ap_small"] is None


def test_categories_and_crowd():
    truth = _boxes(A, B)
    wrong = average_precision([scored_image(truth, [1, 1], truth, [1, 1], [1, 2])])
    assert wrong["ap"] == pytest.approx(0.5)
    crowd = average_precision(
        [scored_image(_boxes(A, C), [0.5, 0.9], _boxes(A, (0, 200, 110, 200)), crowd=[False, True])]
    )
    assert crowd["ap"] == pytest.approx(1)  # C lies in the crowd and is ignored
    with pytest.raises(InputError, match="long"):
        scored_image(truth, [1.0], truth)
