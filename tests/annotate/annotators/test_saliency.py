"""The real weights on real photographs: facts that fail when the pre-processing is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cavendish.annotate.annotators.protocol import Failure
from cavendish.annotate.annotators.saliency import _MEAN, _STD, Saliency, U2NetSaliency, subject_mask
from cavendish.annotate.weights import U2NETP
from tests.annotate.conftest import Annotated
from tests.annotate.photographs import photo

Box = tuple[int, int, int, int]

# Read off the pictures with a ruler: (x0, y0, x1, y1) of the subject, pixels.
SUBJECTS: dict[str, Box] = {
    "coffee": (77, 18, 481, 386),  # cup, saucer and spoon
    "rocket": (308, 128, 336, 406),
    "flower": (169, 85, 446, 360),
    "china": (60, 30, 368, 420),  # the pavilion, without the trees
}
CAT_FACE: Box = (80, 60, 320, 230)
BEHIND_CAT: Box = (385, 90, 451, 300)


def box_of(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def share_inside(mask: np.ndarray, box: Box) -> float:
    return float(mask[box[1] : box[3], box[0] : box[2]].mean())


def facts_that_hold(mask_of: Callable[[str], np.ndarray]) -> dict[str, bool]:
    """Ask the masks everything a person sees at once in these pictures."""
    horse = photo("horse")[..., 0] < 128  # a silhouette is its own ground truth
    facts = {f"{name} in its box": is_in_box(mask_of(name), box) for name, box in SUBJECTS.items()}
    return facts | cat_facts(mask_of("chelsea")) | {"the horse is its silhouette": iou(mask_of("horse"), horse) > 0.975}


def is_in_box(mask: np.ndarray, box: Box) -> bool:
    return bool(mask.any()) and box_iou(box_of(mask), box) > 0.88


def cat_facts(mask: np.ndarray) -> dict[str, bool]:
    return {
        "the cat's face is the subject": share_inside(mask, CAT_FACE) > 0.97,
        "what is behind the cat is not": share_inside(mask, BEHIND_CAT) < 0.05,
    }


def test_subjects_are_where_a_person_sees_them(annotated: Annotated) -> None:
    assert [fact for fact, holds in facts_that_hold(annotated.mask).items() if not holds] == []


def normalised(image: np.ndarray) -> np.ndarray:
    return (image / np.float32(255) - _MEAN) / _STD


WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "channels in BGR order": lambda image: normalised(image[..., ::-1]),
    "no mean and deviation": lambda image: image / np.float32(255),
    "values from 0 to 255": lambda image: image.astype(np.float32),
    "values from -1 to 1": lambda image: image / np.float32(127.5) - 1,
    "rows and columns exchanged": lambda image: normalised(image).transpose(1, 0, 2),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_the_facts_notice_wrong_preprocessing(
    annotated: Annotated, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = annotated.model._session

    def predict(_: U2NetSaliency, image: np.ndarray) -> np.ndarray:
        x_NCHW = np.ascontiguousarray(WRONG[mistake](image).transpose(2, 0, 1)[None], np.float32)
        probability = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: x_NCHW})[0][0, 0]
        return probability.T.copy() if "exchanged" in mistake else probability

    monkeypatch.setattr(U2NetSaliency, "_predict", predict)

    def mask_of(name: str) -> np.ndarray:
        (result,) = annotated.model.annotate([photo(name)])
        assert isinstance(result, Saliency)
        return subject_mask(result.probability)

    rocket_found = is_in_box(mask_of("rocket"), SUBJECTS["rocket"])
    assert not (rocket_found and all(cat_facts(mask_of("chelsea")).values()))


def test_scores_of_clear_and_of_ambiguous_pictures(annotated: Annotated) -> None:
    """Clear subjects agree in every view; a page, tissue, coins and bricks have no one subject, and do not."""
    for name in ("coffee", "flower", "china", "horse"):
        assert min(annotated.saliency(name).flip_iou, annotated.saliency(name).scale_iou) > 0.95
    for name in ("page", "ihc", "coins", "brick"):
        assert annotated.saliency(name).scale_iou < 0.2


def test_a_texture_has_no_subject(annotated: Annotated) -> None:
    result = annotated.saliency("grass")
    assert not annotated.mask("grass").any()
    assert (result.flip_iou, result.scale_iou) == (0, 0)  # agreement on nothing is not agreement


def test_mirroring_the_picture_mirrors_the_result(annotated: Annotated) -> None:
    (mirrored,) = annotated.model.annotate([np.ascontiguousarray(photo("rocket")[:, ::-1])])
    assert isinstance(mirrored, Saliency)
    np.testing.assert_allclose(mirrored.probability[:, ::-1], annotated.saliency("rocket").probability, atol=0.02)


def test_a_dark_picture_is_brightened_first(annotated: Annotated) -> None:
    (dark,) = annotated.model.annotate([photo("chelsea") // 4])
    assert isinstance(dark, Saliency)
    assert iou(subject_mask(dark.probability), annotated.mask("chelsea")) > 0.95


def test_one_picture_that_fails_costs_only_itself(annotated: Annotated) -> None:
    empty = np.zeros((0, 10, 3), np.uint8)
    good, bad, also_good = annotated.model.annotate([photo("coffee"), empty, photo("coffee")])
    assert isinstance(bad, Failure)
    assert bad.reason
    for result in (good, also_good):
        assert isinstance(result, Saliency)
        np.testing.assert_array_equal(result.probability, annotated.saliency("coffee").probability)


def test_subject_mask_drops_specks_and_fills_pinholes() -> None:
    probability = np.zeros((200, 300), np.float32)
    probability[50:150, 50:150] = 1
    probability[90:94, 90:94] = 0  # a pinhole: 16 px, under 0.05 % of the picture
    probability[110:130, 110:130] = 0  # a real hole
    probability[10:20, 10:20] = 1  # a speck: 1 % of the subject
    probability[50:150, 200:210] = 1  # a second part: 10 %
    expected = np.zeros((200, 300), bool)
    expected[50:150, 50:150] = expected[50:150, 200:210] = True
    expected[110:130, 110:130] = False
    np.testing.assert_array_equal(subject_mask(probability), expected)
    assert not subject_mask(np.zeros((200, 300), np.float32)).any()


def test_the_spec_names_the_weights() -> None:
    spec = U2NetSaliency().spec
    assert (spec.licence, spec.weights_sha256) == ("Apache-2.0", U2NETP.sha256)
