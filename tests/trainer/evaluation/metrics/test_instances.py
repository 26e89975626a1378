"""cgF1 and its parts against the figures the SA-Co reference code prints, and against its rules by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.instances import (
    average_precision,
    best_match,
    instance_set_metrics,
    masks_of,
    match_instances,
    scored_image,
)
from tests.trainer.evaluation.layouts import box_mask


def _box(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _stack(*masks: np.ndarray) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, 20, 20), bool)


def test_figures_of_the_reference_code():
    """Printed by facebookresearch/sam3 sam3/eval/cgf1_eval.py (CGF1Evaluator) on exactly these masks."""
    left, right = _box(0, 10, 0, 10), _box(10, 20, 10, 20)
    truth = [_stack(left, right), _stack(left), _stack(), _stack()]
    prediction = [_stack(left, _box(10, 20, 10, 18)), _stack(right), _stack(_box(0, 4, 0, 4)), _stack()]
    result = instance_set_metrics([match_instances(p, t) for p, t in zip(prediction, truth)])
    expected = {
        "cgf1": 0.3271252882671797,
        "pmf1": 0.5665977832820146,
        "il_mcc": 0.5773501025230072,
        "f1": 0.4856514343668234,
        "il_recall": 0.99999950000025,
        "il_precision": 0.6666664444445185,
        "pmf1_50": 0.6665944489350042,
        "pmf1_75": 0.6665944489350042,
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_perfect_and_empty():
    truth = _stack(_box(0, 5, 0, 5), _box(10, 15, 10, 15))
    pairs = [match_instances(truth, truth), match_instances(_stack(), _stack())]
    result = instance_set_metrics(pairs)
    assert result["pmf1"] == pytest.approx(1, abs=1e-3)
    assert result["il_mcc"] == pytest.approx(1, abs=1e-5)
    assert (result["positive"], result["negative"]) == (1, 1)
    assert instance_set_metrics([])["cgf1"] is None


def test_painting_on_every_negative_phrase_leaves_pmf1_and_kills_mcc():
    truth = _stack(_box(0, 5, 0, 5))
    pairs = [match_instances(truth, truth), match_instances(truth, _stack())]
    result = instance_set_metrics(pairs)
    assert result["pmf1"] == pytest.approx(1, abs=1e-3)
    assert result["il_mcc"] == 0
    assert result["cgf1"] == 0
    assert result["f1"] == pytest.approx(2 / 3, abs=1e-3)


def test_thresholds_count_separately():
    truth = _stack(_box(0, 10, 0, 10))
    match = match_instances(_stack(_box(0, 10, 0, 7)), truth)  # IoU exactly .7
    assert match.true_positives == (1, 1, 1, 1, 1, 0, 0, 0, 0, 0)


def test_matching_maximises_the_sum_not_the_first_hit():
    truth = _stack(_box(0, 10, 0, 10), _box(0, 10, 10, 20))
    greedy_trap = _stack(_box(0, 10, 0, 16), _box(0, 10, 0, 8))
    match = match_instances(greedy_trap, truth)
    # 16 wide: IoU .625 with the left, 6/20 = .3 with the right; 8 wide: .8 with the left. Best sum gives .8 + .3.
    assert match.true_positives[0] == 1
    assert match.true_positives[6] == 1


def test_oracle_annotator_is_the_most_favourable_one():
    prediction = _stack(_box(0, 5, 0, 5))
    poor, good = _stack(_box(0, 5, 0, 9)), _stack(_box(0, 5, 0, 5))
    assert best_match(prediction, [poor, good]).true_positives[9] == 1
    assert best_match(_stack(), [good, _stack()]).expected == 0
    assert best_match(_stack(), [_stack(), good]).expected == 0
    assert best_match(prediction, [_stack(), good]).expected == 1
    with pytest.raises(InputError, match="at least one annotator"):
        best_match(prediction, [])


def test_id_maps_split_by_id():
    ids = np.array([[0, 3, 3], [7, 0, 3]])
    masks = masks_of(ids)
    assert masks.shape == (2, 2, 3)
    assert masks[0].sum() == 3
    assert masks_of(np.zeros((2, 2), int)).shape == (0, 2, 2)


def test_mask_sizes_must_agree():
    with pytest.raises(InputError, match="one size"):
        match_instances(np.zeros((1, 2, 2), bool), np.zeros((1, 3, 3), bool))


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


def test_a_mask_without_a_score():
    truth = _boxes(A, B)
    with pytest.raises(InputError, match="2 masks have 1 scores"):
        scored_image(truth, [1.0], truth)
