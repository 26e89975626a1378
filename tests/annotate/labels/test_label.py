"""What becomes of a picture, with annotators that are quick and say what the test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cavendish.annotate.annotators.detection import COCO_CLASSES
from cavendish.annotate.annotators.protocol import (
    AnnotatorSpec,
    Detection,
    Detections,
    Failure,
    Prompted,
    Scores,
    TextBox,
    TextBoxes,
)
from cavendish.annotate.annotators.saliency import CropSaliency, Saliency
from cavendish.annotate.config import LabelConfig
from cavendish.annotate.labels.label import Annotators, Picture, label_pictures
from cavendish.encoders.sample import Rejection, Sample
from cavendish.mixing.sources.decode import DecodedImage
from cavendish.mixing.sources.listing import FoundImage, SourceConfig

LEFT, RIGHT = (10.0, 20.0, 60.0, 90.0), (100.0, 20.0, 150.0, 90.0)


class Fixed:
    """Answers every query with the same result, or, for an image that starts with a white pixel, with a failure."""

    def __init__(self, task: str, result: Any, fails: bool = False) -> None:
        self.spec = AnnotatorSpec(f"{task}/1", task, "MIT", "0" * 64)
        self._result, self._fails = result, fails

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, queries: Sequence[Any]) -> list[Any]:
        return [
            Failure("OSError: white") if self._fails and query[0, 0, 0] == 255 else self._result for query in queries
        ]


class Sees:
    """A detector that finds these, in a mirrored picture at mirrored places (told by the red half)."""

    def __init__(self, *boxes: tuple[str, float, tuple[float, ...]]) -> None:
        self.spec = AnnotatorSpec("sees/1", "detection", "MIT", "0" * 64)
        self._boxes = boxes

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, queries: Sequence[np.ndarray]) -> list[Detections]:
        return [self._one(image) for image in queries]

    def _one(self, image: np.ndarray) -> Detections:
        turned = image[50, 30, 0] != 200
        width = image.shape[1]
        found = [
            Detection(label, score, (width - b[2], b[1], width - b[0], b[3]) if turned else b)
            for label, score, b in self._boxes
        ]
        scores = {name: max((d.score for d in found if d.label == name), default=0.01) for name in COCO_CLASSES}
        return Detections(tuple(found), scores)


class Cuts:
    """Fills each box, surely in the middle, undecided on its rim of 3 px."""

    spec = AnnotatorSpec("cuts/1", "masks", "MIT", "0" * 64)

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, queries: Sequence[Prompted]) -> list[tuple[CropSaliency, ...]]:
        return [tuple(self._cut(box) for box in query.boxes) for query in queries]

    def _cut(self, box: tuple[float, ...]) -> CropSaliency:
        x0, y0, x1, y1 = (round(value) for value in box)
        probability = np.full((y1 - y0, x1 - x0), 0.6, np.float32)
        probability[3:-3, 3:-3] = 0.95
        return CropSaliency((x0, y0, x1, y1), probability, 0.95, 0.9)


def picture(key: str = "web-a", text: str = "a dog and a cat", corner: int = 0) -> Picture:
    image = np.full((100, 160, 3), (40, 90, 60), np.uint8)
    image[20:90, 10:60], image[20:90, 100:150] = (200, 20, 20), (20, 20, 200)
    image[0, 0] = corner
    source = SourceConfig.model_validate({"name": "web", "kind": "folder", "path": Path("web"), "licence": "CC0-1.0"})
    found = FoundImage(key, b"bytes", text, {"licence": "CC0-1.0"}, ())
    return Picture(source, f"{key}.png", found, DecodedImage(image, "PNG", 160, 100, ()))


def subject(mask_box: tuple[float, ...] = LEFT, flip_iou: float = 0.95) -> Fixed:
    x0, y0, x1, y1 = (int(value) for value in mask_box)
    probability = np.zeros((100, 160), np.float32)
    probability[y0:y1, x0:x1] = 0.9
    return Fixed("saliency", Saliency(probability, flip_iou, 0.95))


def label(annotators: Annotators, *pictures: Picture, **settings: Any) -> list[Sample | Rejection]:
    return label_pictures(LabelConfig.model_validate(settings), pictures or (picture(),), annotators)


def sample(annotators: Annotators, **settings: Any) -> Sample:
    (made,) = label(annotators, **settings)
    assert isinstance(made, Sample), made
    return made


def objects(*boxes: tuple[str, float, tuple[float, ...]], flip_iou: float = 0.95) -> Annotators:
    return Annotators(subject(flip_iou=flip_iou), Cuts(), (Sees(*boxes), Sees(*boxes)))


def test_objects_become_instances_with_colour_facts_and_weight() -> None:
    made = sample(objects(("dog", 0.8, LEFT), ("cat", 0.7, RIGHT)))
    assert made.instance_ids is not None
    assert made.weight is not None
    dog, cat = made.instances
    assert (dog.category, dog.attributes, dog.box) == ("dog", {"color": "red"}, (10, 20, 60, 90))
    assert (cat.category, cat.attributes, cat.box) == ("cat", {"color": "blue"}, (100, 20, 150, 90))
    assert dog.visible_pixels == (made.instance_ids == 1).sum() == 50 * 70
    assert made.facts["complete"] == ["cat", "dog"]
    assert made.facts["main_subject"] == 1
    assert set(made.facts["absent"]) == set(COCO_CLASSES) - {"dog", "cat"}
    assert made.exhaustive is False
    assert made.quality["agreed"] == pytest.approx(0.7)
    unsure = np.zeros((100, 160), bool)
    for x0, x1 in ((10, 60), (100, 150)):
        unsure[20:90, x0:x1] = True
        unsure[23:87, x0 + 3 : x1 - 3] = False
    np.testing.assert_array_equal(made.weight == 0, unsure)


def test_a_lost_object_takes_its_class_with_it() -> None:
    """The second dog's mask is wrong (its box is far too tall for what is cut): no dog is said to be complete."""
    tall = (100.0, 0.0, 150.0, 95.0)
    made = sample(objects(("dog", 0.8, LEFT), ("dog", 0.7, tall), ("cup", 0.9, RIGHT)), objects={"max_overlap": 0.05})
    assert [instance.category for instance in made.instances] == ["main subject"]
    assert {row["category"] for row in made.facts["objects"]["dropped"]} == {"dog", "cup"}
    assert "complete" not in made.facts


def test_a_contested_class_is_left_out_and_its_boxes_do_not_count() -> None:
    also = ("dog", 0.4, (100.0, 20.0, 150.0, 90.0))
    made = sample(objects(("dog", 0.8, LEFT), also))
    assert [instance.category for instance in made.instances] == ["main subject"]
    assert made.facts["objects"]["dropped"] == [{"category": "dog", "reason": "more of it was seen than agreed on"}]


def test_without_objects_the_main_subject_is_what_is_known() -> None:
    made = sample(objects())
    assert [instance.category for instance in made.instances] == ["main subject"]
    assert "main_subject" not in made.facts
    assert len(made.facts["absent"]) == len(COCO_CLASSES)
    (rejected,) = label(objects(flip_iou=0.2))
    assert isinstance(rejected, Rejection)
    assert "flip_iou 0.200 is under" in rejected.reason
    kept = sample(objects(flip_iou=0.2), dropped_masks="keep_picture")
    assert (kept.instance_ids, kept.weight, kept.instances) == (None, None, ())


FACE = Fixed("faces", Detections((Detection("face", 0.9, (20.0, 30.0, 50.0, 60.0)),), {"face": 0.9}))


def test_faces_are_blurred_dropped_or_kept_as_asked() -> None:
    annotators = Annotators(subject(), faces=FACE)
    before = picture().image.copy()
    before[30:60, 20:50] = np.random.default_rng(0).integers(0, 255, (30, 30, 3))
    noisy = Picture(picture().source, "a.png", picture().found, DecodedImage(before, "PNG", 160, 100, ()))
    (blurred,) = label(annotators, noisy, faces="blur")
    (kept,) = label(annotators, noisy, faces="keep")
    (dropped,) = label(annotators, noisy, faces="drop")
    assert isinstance(blurred, Sample)
    assert isinstance(kept, Sample)
    assert blurred.image[30:60, 20:50].std() < 0.5 * before[30:60, 20:50].std()
    np.testing.assert_array_equal(kept.image, before)
    np.testing.assert_array_equal(blurred.instance_ids, kept.instance_ids)
    assert (blurred.facts["faces"], kept.facts["faces"]) == (
        {"count": 1, "blurred": True},
        {"count": 1, "blurred": False},
    )
    assert dropped == Rejection("web-a", "a.png: 1 face (faces: drop)")


def test_the_gates_reject_with_their_reason() -> None:
    (unsafe,) = label(Annotators(subject(), nsfw=Fixed("nsfw", Scores({"nsfw": 0.9}))))
    assert unsafe == Rejection("web-a", "web-a.png: nsfw 0.900 is over 0.5")
    page = TextBoxes((TextBox(((0.0, 0.0), (160.0, 0.0), (160.0, 30.0), (0.0, 30.0)), 0.9),))
    (written,) = label(Annotators(subject(), text=Fixed("text", page)))
    assert written == Rejection("web-a", "web-a.png: writing over 0.300 of the picture, the limit is 0.25")
    made = sample(Annotators(subject(), text=Fixed("text", page)), max_text=0.5)
    assert made.facts["text"] == [{"corners": [[0, 0], [160, 0], [160, 30], [0, 30]], "score": 0.9}]


@pytest.mark.parametrize("which", ["saliency", "faces", "text", "nsfw", "detectors"])
def test_whatever_annotator_fails_costs_one_picture(which: str) -> None:
    results = {
        "saliency": subject()._result,
        "faces": Detections((), {"face": 0.0}),
        "text": TextBoxes(()),
        "nsfw": Scores({"nsfw": 0.0}),
        "detectors": Detections((), dict.fromkeys(COCO_CLASSES, 0.0)),
    }
    parts: dict[str, Any] = {name: Fixed(name, result, name == which) for name, result in results.items()}
    annotators = Annotators(**{**parts, "detectors": (parts["detectors"],) * 2, "boxes": Cuts()})
    good, bad, last = label(annotators, picture("web-a"), picture("web-b", corner=255), picture("web-c"))
    assert isinstance(good, Sample)
    assert bad == Rejection("web-b", f"web-b.png: {which}/1 failed: OSError: white")
    assert isinstance(last, Sample)
    assert (good.key, last.key) == ("web-a", "web-c")
