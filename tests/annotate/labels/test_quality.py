from __future__ import annotations

import cv2
import numpy as np
import pytest

from cavendish.annotate.config import MaskThresholds
from cavendish.annotate.labels.quality import colour_separation, edge_align, outline_of, uncertain_share, verdict
from tests.annotate.conftest import Annotated
from tests.annotate.photographs import photo

GOOD = ("coffee", "flower", "china", "horse", "camera", "rocket")
SCORES = {"area": 0.3, "edge_align": 0.9, "colour_sep": 1.0, "flip_iou": 0.9, "scale_iou": 0.9, "uncertain": 0.1}


def disc(height: int = 200, width: int = 300, radius: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.hypot(x - width / 2, y - height / 2) < radius


def painted(mask: np.ndarray, noise: float = 6.0) -> np.ndarray:
    """An orange shape on a blue ground, with a little noise."""
    image = np.where(mask[..., None], (230, 120, 30), (30, 60, 160)) + np.random.default_rng(0).normal(
        0, noise, (*mask.shape, 3)
    )
    return np.clip(image, 0, 255).astype(np.uint8)


def test_a_mask_on_its_object_scores_high_and_on_noise_as_a_random_line() -> None:
    mask = disc()
    assert edge_align(painted(mask), mask) > 0.95
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert edge_align(noise, mask) == pytest.approx(0.5, abs=0.08)
    flat = np.full((200, 300, 3), 90, np.uint8)
    assert edge_align(flat, mask) == pytest.approx(0.5, abs=0.01)


def test_colour_separation_against_its_definition() -> None:
    """Two flat colours with known noise: distance of the means over the pooled deviation, computed by hand."""
    mask = disc()
    image = painted(mask)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64)
    spread = np.sqrt((lab[mask].var(axis=0).sum() + lab[~mask].var(axis=0).sum()) / 2)
    expected = np.linalg.norm(lab[mask].mean(axis=0) - lab[~mask].mean(axis=0)) / spread
    assert colour_separation(image, mask) == pytest.approx(expected, rel=0.05)


def test_empty_and_full_masks_have_no_score() -> None:
    image = painted(disc())
    for mask in (np.zeros((200, 300), bool), np.ones((200, 300), bool)):
        assert (edge_align(image, mask), colour_separation(image, mask)) == (0, 0)
    assert uncertain_share(np.zeros((200, 300), np.float32), np.zeros((200, 300), bool)) == 0


def test_the_border_of_the_picture_is_not_outline() -> None:
    mask = np.zeros((50, 60), bool)
    mask[:, :20] = True
    expected = np.zeros((50, 60), bool)
    expected[:, 19] = True
    np.testing.assert_array_equal(outline_of(mask), expected)


def corrupted(mask: np.ndarray, other: np.ndarray, kind: str) -> np.ndarray:
    height, width = mask.shape
    if kind == "shifted":
        return np.roll(mask, (height // 20, width // 20), axis=(0, 1))
    if kind == "another picture's":
        return cv2.resize(other.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    if kind == "its box":
        box = np.zeros_like(mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        return box
    square = np.ones((25, 25), np.uint8)
    change = cv2.dilate if kind == "too large" else cv2.erode
    return change(mask.astype(np.uint8), square) > 0


@pytest.mark.parametrize("kind", ["shifted", "another picture's", "its box", "too large", "too small"])
def test_both_scores_fall_when_a_good_mask_is_spoiled(annotated: Annotated, kind: str) -> None:
    good, bad = [], []
    for number, name in enumerate(GOOD):
        other = annotated.mask(GOOD[number - 1])
        good.append(scores(name, annotated.mask(name)))
        bad.append(scores(name, corrupted(annotated.mask(name), other, kind)))
    for score in (0, 1):
        better = sum(one[score] > two[score] for one, two in zip(good, bad))
        assert better >= len(GOOD) - 1, f"score {score}: {good} against {bad}"


def scores(name: str, mask: np.ndarray) -> tuple[float, float]:
    return edge_align(photo(name), mask), colour_separation(photo(name), mask)


@pytest.mark.parametrize(
    ("score", "value", "reason"),
    [
        ("area", 0.001, "area 0.001 is under 0.01"),
        ("area", 0.99, "area 0.990 is over 0.85"),
        ("edge_align", 0.2, "edge_align 0.200 is under 0.6"),
        ("colour_sep", 0.1, "colour_sep 0.100 is under 0.25"),
        ("flip_iou", 0.5, "flip_iou 0.500 is under 0.7"),
        ("scale_iou", 0.5, "scale_iou 0.500 is under 0.55"),
        ("uncertain", 2.0, "uncertain 2.000 is over 0.8"),
    ],
)
def test_each_threshold_drops_with_its_reason(score: str, value: float, reason: str) -> None:
    assert verdict(SCORES, MaskThresholds()) == ""
    assert verdict(SCORES | {score: value}, MaskThresholds()).startswith(f"{reason} (area ")
