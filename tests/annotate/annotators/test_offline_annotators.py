"""Detectors, faces, writing and the NSFW gate on real photographs: facts that fail when the pre-processing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from cavendish.annotate.annotators.detection import COCO_CLASSES, CenterNet, NanoDet, box_iou
from cavendish.annotate.annotators.faces import CenterFace, blur_faces
from cavendish.annotate.annotators.nsfw import OpenNsfw
from cavendish.annotate.annotators.protocol import Annotator, Detections, Failure, Scores, TextBoxes, load_once
from cavendish.annotate.annotators.saliency import BoxSaliency, U2NetSaliency
from cavendish.annotate.annotators.text import TextLines
from tests.annotate.photographs import photo

ASTRONAUT = (12.0, 8.0, 365.0, 511.0)  # read off the pictures with a ruler
ASTRONAUT_FACE = (185.0, 70.0, 268.0, 180.0)
MOTORCYCLE = (110.0, 75.0, 690.0, 460.0)
DETECTORS = (NanoDet, CenterNet)


def one(kind: Callable[[], Annotator[Any, Any]], image: np.ndarray) -> Any:
    (result,) = load_once(kind).annotate([image])
    assert not isinstance(result, Failure), result
    return result


def best(found: Detections, label: str, box: tuple[float, float, float, float]) -> float:
    """The score with which `label` is seen at `box`, 0 when it is not."""
    return max((b.score for b in found.boxes if b.label == label and box_iou(b.box, box) > 0.7), default=0.0)


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_see_what_is_there_where_it_is(kind: Any) -> None:
    assert best(one(kind, photo("astronaut")), "person", ASTRONAUT) > 0.5
    assert best(one(kind, photo("motorcycle")), "motorcycle", MOTORCYCLE) > 0.4
    assert all(detection.score < 0.4 for detection in one(kind, photo("grass")).boxes)
    scores = one(kind, photo("astronaut")).class_scores
    assert list(scores) == list(COCO_CLASSES)
    assert max(scores, key=scores.get) == "person"
    assert max(scores["zebra"], scores["pizza"]) < 0.1


@pytest.mark.parametrize("kind", DETECTORS)
def test_mirrored_pictures_have_mirrored_boxes(kind: Any) -> None:
    width = photo("astronaut").shape[1]
    x0, y0, x1, y1 = ASTRONAUT
    found = one(kind, np.ascontiguousarray(photo("astronaut")[:, ::-1]))
    assert best(found, "person", (width - x1, y0, width - x0, y1)) > 0.45


@pytest.mark.parametrize("kind", DETECTORS)
def test_each_detector_has_its_own_channel_order_and_range(kind: Any) -> None:
    """A red cup: with red and blue exchanged it is a toilet or a table; in values from 0 to 1 nothing is seen."""
    assert one(kind, photo("coffee")).boxes[0].label == "cup"
    assert one(kind, np.ascontiguousarray(photo("coffee")[..., ::-1])).boxes[0].label != "cup"
    assert all(detection.score < 0.2 for detection in one(kind, photo("astronaut") // 255).boxes)


def test_boxes_stay_inside_and_each_object_has_one_class() -> None:
    for kind in DETECTORS:
        for name in ("astronaut", "motorcycle", "coffee"):
            height, width = photo(name).shape[:2]
            boxes = one(kind, photo(name)).boxes
            assert all(0 <= b.box[0] < b.box[2] <= width and 0 <= b.box[1] < b.box[3] <= height for b in boxes)
            assert [b.score for b in boxes] == sorted((b.score for b in boxes), reverse=True)
            assert all(box_iou(a.box, b.box) < 0.6 for i, a in enumerate(boxes) for b in boxes[:i])


def test_faces_are_found_and_nothing_else() -> None:
    found = one(CenterFace, photo("astronaut")).boxes
    assert len(found) == 1
    assert box_iou(found[0].box, ASTRONAUT_FACE) > 0.7
    assert len(one(CenterFace, photo("hopper")).boxes) == 1
    for name in ("coffee", "chelsea", "motorcycle", "grass", "rocket", "china", "flower"):
        assert one(CenterFace, photo(name)).boxes == ()


def test_a_face_in_values_from_0_to_1_is_not_seen() -> None:
    """The net wants 0 to 255: what a usual scaling to 0..1 would give it holds no face."""
    assert one(CenterFace, photo("astronaut") // 255).boxes == ()


def test_a_blurred_face_is_no_face_any_more() -> None:
    image, faces = photo("astronaut"), one(CenterFace, photo("astronaut"))
    blurred = blur_faces(image, faces)
    assert one(CenterFace, blurred).boxes == ()
    changed = (blurred != image).any(axis=-1)
    x0, y0, x1, y1 = faces.boxes[0].box
    rows, columns = np.nonzero(changed)
    assert changed[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.95
    assert x0 - 20 < columns.min() < columns.max() < x1 + 20
    assert y0 - 30 < rows.min() < rows.max() < y1 + 30
    assert not np.shares_memory(blurred, image)


def written(text: str, size: tuple[int, int] = (300, 500)) -> np.ndarray:
    image = np.full((*size, 3), (235, 230, 220), np.uint8)
    cv2.putText(image, text, (60, 150), cv2.FONT_HERSHEY_SIMPLEX, 1.3, (30, 20, 40), 3, cv2.LINE_AA)
    return image


def test_writing_is_framed_whole() -> None:
    """The frame holds every dark pixel of the line: the kernels the net predicts alone would cut the letters."""
    image = written("Hello world 42")
    (line,) = one(TextLines, image).boxes
    rows, columns = np.nonzero(image[..., 0] < 128)
    xs, ys = zip(*line.corners)
    assert min(xs) <= columns.min() <= columns.max() <= max(xs)
    assert min(ys) <= rows.min() <= rows.max() <= max(ys)
    assert (max(xs) - min(xs)) * (max(ys) - min(ys)) < 1.9 * np.ptp(columns) * np.ptp(rows)
    assert line.corners[0] == min(line.corners, key=sum)  # from the top left, clockwise
    assert line.corners[2] == max(line.corners, key=sum)


def test_writing_is_found_on_paper_and_not_on_things() -> None:
    page: TextBoxes = one(TextLines, photo("page"))
    assert 3 <= len(page.boxes) <= 9
    tops = [box.corners[0][1] for box in page.boxes]
    assert tops == sorted(tops)
    for name in ("coffee", "chelsea", "flower", "rocket", "grass", "coins"):
        assert len(one(TextLines, photo(name)).boxes) == 0, name


def test_the_gate_lets_ordinary_photographs_through() -> None:
    for name in ("astronaut", "coffee", "chelsea", "motorcycle", "china", "flower", "hopper", "rocket"):
        assert one(OpenNsfw, photo(name)).values["nsfw"] < 0.1


def test_the_gate_computes_what_its_package_computes() -> None:
    """The package that ships the weights, with its own pre-processing (Pillow), gives 0.0130 and 0.0317."""
    assert one(OpenNsfw, photo("coffee")).values["nsfw"] == pytest.approx(0.0130, rel=0.35)
    assert one(OpenNsfw, photo("astronaut")).values["nsfw"] == pytest.approx(0.0317, rel=0.1)
    swapped: Scores = one(OpenNsfw, np.ascontiguousarray(photo("coffee")[..., ::-1]))
    assert swapped.values["nsfw"] < 0.003  # a tenth: the channels are in the right order


@pytest.mark.parametrize("kind", [NanoDet, CenterNet, CenterFace, TextLines, OpenNsfw, U2NetSaliency])
def test_one_picture_that_fails_costs_only_itself(kind: Any) -> None:
    small = np.ascontiguousarray(photo("coffee")[::4, ::4])
    good, bad, also_good = load_once(kind).annotate([small, np.zeros((0, 10, 3), np.uint8), small])
    assert isinstance(bad, Failure)
    assert bad.reason
    assert not isinstance(good, Failure)
    assert not isinstance(also_good, Failure)


def test_every_annotator_says_what_it_is_and_loads_once() -> None:
    kinds = (NanoDet, CenterNet, CenterFace, TextLines, OpenNsfw, U2NetSaliency, BoxSaliency)
    specs = [kind().spec for kind in kinds]
    assert len({spec.id for spec in specs}) == len(specs)
    assert all(len(spec.weights_sha256) == 64 and spec.licence and spec.task for spec in specs)
    assert load_once(NanoDet) is load_once(NanoDet)
