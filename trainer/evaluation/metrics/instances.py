"""Instance metrics: pmF1, IL_MCC and cgF1 of SA-Co, which need no scores, and COCO mask AP through pycocotools.

Generated pictures carry no scores, so every decoded instance counts fully. pmF1 asks how well the instances are drawn
where there are some, IL_MCC whether anything is drawn exactly when something is there; cgF1 is their product. With
equal scores AP depends on the input's order (a stable sort on -score): score instances by a decoder's confidence where
there is one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment

from cavendish.encoders.sample import InputError

PROTOCOL = "instances/1;SA-Co cgF1;Hungarian on mask IoU;thresholds .50:.05:.95"
THRESHOLDS = np.linspace(0.5, 0.95, 10)
_EPS = 1e-4  # the reference adds it to the denominator of every ratio of instances
_IMAGE_EPS = 1e-6  # and this to every ratio of images

Masks = NDArray[np.bool_]
"""(N, H, W) bool, one mask per instance; masks may overlap."""


@dataclass(frozen=True)
class InstanceMatch:
    """One (image, phrase) pair, matched at each of the ten IoU thresholds.

    Args:
        true_positives: per threshold, how many instances were found.
        predicted, expected: how many there are.
    """

    true_positives: tuple[int, ...]
    predicted: int
    expected: int

    @property
    def local_f1(self) -> NDArray[np.float64]:
        """F1 of this pair at each threshold, as the reference rounds it (eps 1e-4)."""
        hits = np.array(self.true_positives, np.float64)
        return _f1(hits / (self.predicted + _EPS), hits / (self.expected + _EPS))


def masks_of(ids: NDArray[np.integer[Any]]) -> Masks:
    """Split an id map (H, W), 0 background, into (N, H, W) masks by ascending id."""
    values = np.unique(ids)
    return np.stack([ids == value for value in values if value]) if values.any() else np.zeros((0, *ids.shape), bool)


def encode_masks(masks: Masks) -> list[Any]:
    """Encode (N, H, W) masks as COCO run lengths."""
    return [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]


def match_instances(prediction: Masks, truth: Masks) -> InstanceMatch:
    """Match predicted to true masks one to one so that the sum of IoU is largest, then count at each threshold.

    Raises:
        InputError: the masks are of different sizes.
    """
    if prediction.ndim != 3 or prediction.shape[1:] != truth.shape[1:]:
        raise InputError(f"masks predicted {prediction.shape}, true {truth.shape}: both must be (N, H, W) of one size")
    found, expected = len(prediction), len(truth)
    if not found or not expected:
        return InstanceMatch((0,) * len(THRESHOLDS), found, expected)
    ious = coco_mask.iou(encode_masks(prediction), encode_masks(truth), [0] * expected)
    scores = ious[linear_sum_assignment(-ious)]
    return InstanceMatch(tuple(int((scores >= threshold).sum()) for threshold in THRESHOLDS), found, expected)


def best_match(prediction: Masks, truths: Sequence[Masks]) -> InstanceMatch:
    """Match against several annotators and keep the most favourable (the oracle rule of SA-Co/Gold).

    A pair that one annotator left empty counts as agreed when the prediction is empty too; otherwise the annotator
    with the highest mean local F1 counts, the first among equals.
    """
    if not truths:
        raise InputError("an (image, phrase) pair needs the masks of at least one annotator")
    best = match_instances(prediction, truths[0])
    for truth in truths[1:]:
        match = match_instances(prediction, truth)
        if match.predicted == match.expected == 0:
            best = match
        elif best.predicted or best.expected:
            best = match if match.local_f1.mean() > best.local_f1.mean() else best
    return best


def instance_metrics(prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Measure the instances of one image: F1 and its kin, matched one to one on mask IoU.

    Args:
        prediction, truth: (H, W) instance ids, 0 background, as `decode_instances` returns them.

    Returns:
        See `instance_set_metrics`.

    Raises:
        InputError: shapes differ.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[1, 1, 0, 2, 2]])
        >>> round(cavendish.instance_metrics(np.array([[1, 1, 0, 0, 0]]), truth)["pmf1"], 3)
        0.667
    """
    return instance_set_metrics([match_instances(masks_of(prediction), masks_of(truth))])


def instance_set_metrics(matches: Iterable[InstanceMatch]) -> dict[str, Any]:
    """Score a set of (image, phrase) pairs (one pair is a set of one).

    Returns:
        protocol, pairs, positive and negative (pairs with and without a true instance), and in 0..1 (times 100 they
        are the published figures): cgf1 = mean over thresholds of pmf1 * il_mcc, pmf1 (micro F1 over positive pairs:
        its precision leaves out what was drawn on negative pairs), il_mcc (Matthews of "anything drawn" against
        "anything there"), f1 (micro F1 with those false positives), il_recall, il_precision, pmf1_50 and pmf1_75.
        Everything is None for an empty set; il_mcc is 0 when all pairs are of one kind.

    Source: facebookresearch/sam3 sam3/eval/cgf1_eval.py.
    """
    items = list(matches)
    positive = [item for item in items if item.expected]
    counts = {
        "protocol": PROTOCOL,
        "pairs": len(items),
        "positive": len(positive),
        "negative": len(items) - len(positive),
    }
    names = ("cgf1", "pmf1", "il_mcc", "f1", "il_recall", "il_precision", "pmf1_50", "pmf1_75")
    if not items:
        return {**counts, **dict.fromkeys(names)}
    hits = np.sum([item.true_positives for item in items], axis=0).astype(np.float64)
    expected = sum(item.expected for item in items)
    recall = hits / (expected + _EPS)
    # On a positive pair without any prediction there are no false positives to leave out or in.
    pmf1 = _f1(hits / (sum(item.predicted for item in positive) + _EPS), recall)
    f1 = _f1(hits / (sum(item.predicted for item in items) + _EPS), recall)
    presence = _presence(items)
    values = (
        float((pmf1 * presence["il_mcc"]).mean()),
        float(pmf1.mean()),
        presence["il_mcc"],
        float(f1.mean()),
        presence["il_recall"],
        presence["il_precision"],
        float(pmf1[0]),
        float(pmf1[5]),
    )
    return {**counts, **dict(zip(names, values))}


def _f1(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * precision * recall / (precision + recall + _EPS)


def _presence(items: Sequence[InstanceMatch]) -> dict[str, float]:
    drawn = np.array([item.predicted > 0 for item in items])
    there = np.array([item.expected > 0 for item in items])
    tp, fp = float((drawn & there).sum()), float((drawn & ~there).sum())
    fn, tn = float((~drawn & there).sum()), float((~drawn & ~there).sum())
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "il_mcc": (tp * tn - fp * fn) / (product**0.5 + _IMAGE_EPS),
        "il_recall": tp / (tp + fn + _IMAGE_EPS),
        "il_precision": tp / (tp + fp + _IMAGE_EPS),
    }


AP_PROTOCOL = "coco/1;segm AP .50:.05:.95;maxDets 100"
_AP_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")


@dataclass(frozen=True)
class ScoredImage:
    """Instances of one picture as COCO run lengths; made by `scored_image`."""

    size: tuple[int, int]
    predicted: tuple[tuple[Any, float], ...]
    expected: tuple[Any, ...]


def scored_image(prediction: Masks, scores: Sequence[float], truth: Masks) -> ScoredImage:
    """Pack one image's instances for `average_precision`: (N, H, W) masks with N scores, and (M, H, W) true masks.

    Raises:
        InputError: not as many scores as masks.
    """
    if len(prediction) != len(scores):
        raise InputError(f"{len(prediction)} masks have {len(scores)} scores: give one for each")
    predicted = tuple((run, float(score)) for run, score in zip(encode_masks(prediction), scores))
    return ScoredImage((truth.shape[1], truth.shape[2]), predicted, tuple(encode_masks(truth)))


def average_precision(images: Iterable[ScoredImage]) -> dict[str, Any]:
    """Score a set with COCO's mask AP.

    Returns:
        protocol, images, instances, ap, ap50, ap75, ap_small (area < 32^2), ap_medium, ap_large (> 96^2), ar1, ar10,
        ar100. A value is None where COCO prints -1 (no true instance of that size).
    """
    truth: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": []}
    results: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        truth["images"].append({"id": image_id, "height": image.size[0], "width": image.size[1]})
        truth["annotations"] += [
            {
                "image_id": image_id,
                "category_id": 1,
                "segmentation": run,
                "area": int(coco_mask.area(run)),
                "bbox": [float(v) for v in coco_mask.toBbox(run)],
                "iscrowd": 0,
            }
            for run in image.expected
        ]
        results += [
            {"image_id": image_id, "category_id": 1, "segmentation": run, "score": score}
            for run, score in image.predicted
        ]
    for number, annotation in enumerate(truth["annotations"], start=1):
        annotation["id"] = number
    truth["categories"] = [{"id": 1, "name": "1"}]
    counts = {"protocol": AP_PROTOCOL, "images": len(truth["images"]), "instances": len(truth["annotations"])}
    if not truth["annotations"]:
        return {**counts, **dict.fromkeys(_AP_NAMES)}
    return {**counts, **_run(truth, results)}


def _run(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float | None]:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) if value >= 0 else None for name, value in zip(_AP_NAMES, evaluation.stats)}
