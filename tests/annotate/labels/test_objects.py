from __future__ import annotations

import numpy as np
import pytest

from cavendish.annotate.annotators.protocol import Box, Detection, Detections
from cavendish.annotate.annotators.saliency import CropSaliency
from cavendish.annotate.config import ObjectThresholds
from cavendish.annotate.labels.objects import (
    absent_classes,
    agreed_objects,
    contested_boxes,
    contested_classes,
    cut_out,
    doubts,
    mirrored,
)

LIMITS = ObjectThresholds()
DOG: Box = (10.0, 20.0, 60.0, 90.0)
SECOND: Box = (100.0, 20.0, 150.0, 90.0)


def view(*boxes: tuple[str, float, Box], **scores: float) -> Detections:
    return Detections(tuple(Detection(*box) for box in boxes), {"dog": 0.7, "cat": 0.02, **scores})


def moved(box: Box, by: float) -> Box:
    return (box[0] + by, box[1], box[2] + by, box[3])


def test_an_object_must_be_seen_in_every_view_with_one_class() -> None:
    seen = [view(("dog", 0.8, moved(DOG, shift))) for shift in (0, 2, -2, 4)]
    (found,) = agreed_objects(seen, LIMITS)
    assert (found.label, found.score) == ("dog", pytest.approx(0.8))
    np.testing.assert_allclose(found.box, moved(DOG, 1))
    assert agreed_objects([*seen[:3], view(("cat", 0.9, DOG))], LIMITS) == []
    assert agreed_objects([*seen[:3], view()], LIMITS) == []
    assert agreed_objects([*seen[:3], view(("dog", 0.8, moved(DOG, 30)))], LIMITS) == []
    assert agreed_objects([*seen[:3], view(("dog", 0.05, DOG))], LIMITS) == []  # the geometric mean is 0.40


def test_parts_of_an_object_are_not_objects() -> None:
    head: Box = (20.0, 20.0, 50.0, 45.0)
    seen = [view(("dog", 0.8, DOG), ("dog", 0.6, head)) for _ in range(4)]
    assert [found.box for found in agreed_objects(seen, LIMITS)] == [DOG]
    contested = contested_boxes(seen, agreed_objects(seen, LIMITS), LIMITS)
    assert contested == []


@pytest.mark.parametrize(
    ("scores", "doubtful"),
    [
        ((0.0, 0.0, 0.0, 0.0), False),
        ((0.32, 0.0, 0.0, 0.0), False),  # one view, unsure
        ((0.32, 0.0, 0.31, 0.0), True),  # two views
        ((0.0, 0.5, 0.0, 0.0), True),  # one view, sure
        ((0.2, 0.2, 0.2, 0.2), False),
    ],
)
def test_a_class_of_which_more_is_seen_is_not_trusted(scores: tuple[float, ...], doubtful: bool) -> None:
    seen = [view(("dog", 0.8, DOG), ("dog", score, SECOND)) for score in scores]
    agreed = agreed_objects(seen, LIMITS)
    contested = contested_boxes(seen, agreed, LIMITS)
    assert contested_classes(contested, agreed) == (frozenset({"dog"}) if doubtful else frozenset())
    others = [view(("dog", 0.8, DOG), ("pizza", 0.9, SECOND)) for _ in range(4)]
    assert contested_boxes(others, agreed, LIMITS) == []  # another class says nothing about dogs


def test_absent_is_what_no_view_gives_a_chance() -> None:
    assert absent_classes([view(), view(cat=0.05)], LIMITS) == ("cat",)
    assert absent_classes([view(), view(cat=0.07)], LIMITS) == ()


def test_mirrored_boxes_come_back() -> None:
    there = mirrored(view(("dog", 0.8, DOG)), 200)
    assert there.boxes[0].box == (140.0, 20.0, 190.0, 90.0)
    assert mirrored(there, 200).boxes[0].box == DOG


def picture() -> np.ndarray:
    image = np.full((100, 160, 3), (40, 90, 60), np.uint8)
    image[20:90, 10:60], image[20:90, 100:150] = (200, 60, 40), (220, 200, 40)
    return image


def crop(box: Box, flip_iou: float = 0.95, scale_iou: float = 0.95) -> CropSaliency:
    x0, y0, x1, y1 = (int(value) for value in box)
    window = (x0 - 4, y0 - 4, x1 + 4, y1 + 4)
    probability = np.zeros((window[3] - window[1], window[2] - window[0]), np.float32)
    probability[4:-4, 4:-4] = 0.9
    return CropSaliency(window, probability, flip_iou, scale_iou)


def test_masks_are_laid_in_place_and_judged() -> None:
    seen = [view(("dog", 0.8, DOG), ("cat", 0.7, SECOND)) for _ in range(4)]
    dog, cat = agreed_objects(seen, LIMITS)
    cuts = [cut_out(picture(), dog, crop(DOG)), cut_out(picture(), cat, crop(SECOND, scale_iou=0.5))]
    expected = np.zeros((100, 160), bool)
    expected[20:90, 10:60] = True
    np.testing.assert_array_equal(cuts[0].mask, expected)
    assert cuts[0].scores["box_iou"] == pytest.approx(1)
    assert doubts(cuts, LIMITS) == ["", "scale_iou 0.500 is under 0.8"]
    wrong = cut_out(picture(), dog, crop((70.0, 20.0, 95.0, 90.0)))
    assert doubts([wrong], LIMITS)[0].startswith("box_iou 0.000 is under 0.7")
    twice = [cuts[0], cut_out(picture(), cat, crop(moved(DOG, 5)))]
    assert all("of it or of the" in reason for reason in doubts(twice, LIMITS))


def test_what_lies_on_a_table_is_not_the_table() -> None:
    seen = [view(("dining table", 0.9, DOG), ("dog", 0.8, DOG)) for _ in range(4)]
    (dog,) = agreed_objects(seen, LIMITS)
    assert dog.label == "dog"
    coins = crop(DOG)
    coins.probability[:, 25:30] = 0  # the box falls into two halves
    reason = doubts([cut_out(picture(), dog, coins)], LIMITS)[0]
    assert reason.startswith("main_part 0.5")
