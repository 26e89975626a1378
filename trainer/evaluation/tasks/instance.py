"""Instance segmentation: instances matched one by one, and COCO's AP where there is one annotator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.instances import DecodedInstances
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.encoders.voting import consensus_instances
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_masks
from cavendish.mixing.visualize import Panel, ids_picture
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.metrics.instances import (
    InstanceMatch,
    Masks,
    ScoredImage,
    average_precision,
    best_match,
    instance_set_metrics,
    masks_of,
    scored_image,
)
from cavendish.trainer.evaluation.tasks.task import (
    OWN_SAMPLES,
    Answer,
    Column,
    TaskEvaluation,
    mask_guesses,
    resize_nearest,
)


@dataclass(frozen=True)
class InstancesTruth(Truth):
    """`annotators`: for each annotator the (N, H, W) bool masks of all instances; none at all is a true answer too."""

    annotators: tuple[Masks, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.annotators[0].shape[1], self.annotators[0].shape[2]


@dataclass(frozen=True)
class Instances:
    """A decoded instance answer: (H, W) ids, 0 background, and a confidence from 0 to 1 for the ids 1..N."""

    ids: NDArray[np.integer[Any]]
    confidence: NDArray[np.floating[Any]]


@dataclass
class InstanceTally:
    """Instances: cgF1 per group, averaged over groups; COCO AP too where there is one annotator. `quality` is F1."""

    matches: dict[str, list[InstanceMatch]] = field(default_factory=dict)
    scored: list[ScoredImage] | None = field(default_factory=list)

    def add(self, truth: InstancesTruth, prediction: Any, group: str) -> dict[str, Any]:
        """Add `Instances`."""
        masks = masks_of(prediction.ids)
        match = best_match(masks, truth.annotators)
        self.matches.setdefault(group, []).append(match)
        if len(truth.annotators) > 1:
            self.scored = None
        elif self.scored is not None:
            self.scored.append(scored_image(masks, prediction.confidence.tolist(), truth.annotators[0]))
        agreed = match.predicted == match.expected == 0
        f1 = 1.0 if agreed else float(match.local_f1.mean())
        return {"f1": f1, "predicted": match.predicted, "expected": match.expected, "quality": f1}

    def metrics(self) -> dict[str, Any]:
        """Score each group, average over groups, add AP where it is defined."""
        groups = {group: instance_set_metrics(matches) for group, matches in sorted(self.matches.items())}
        everything = instance_set_metrics([match for matches in self.matches.values() for match in matches])
        if len(groups) > 1:
            for name in ("cgf1", "pmf1", "il_mcc", "f1", "il_recall", "il_precision", "pmf1_50", "pmf1_75"):
                everything[name] = float(np.mean([values[name] for values in groups.values()]))
            everything["protocol"] += f";mean over {len(groups)} subsets"
            everything["groups"] = groups
        return everything if not self.scored else {**everything, "coco": average_precision(self.scored)}


class InstanceEvaluation(TaskEvaluation):
    """Every instance of one class."""

    name = "instance"
    title = "Instance segmentation"
    columns = (
        Column("cgf1", "cgF1", ".3f"),
        Column("pmf1", "pmF1", ".3f"),
        Column("il_mcc", "IL_MCC", ".3f"),
        Column("f1", "F1", ".3f"),
        Column("pmf1_50", "pmF1@.50", ".3f"),
        Column("coco.ap", "COCO AP", ".3f"),
    )
    headline = "cgf1"
    words = "One class per prompt, a quarter of them for a class that is not there; masks by clustering colours."
    notes = (OWN_SAMPLES, "a quarter of the prompts ask for what is not there, where the sample is exhaustive")
    case_metrics = (("f1", "F1 {:.3f}"), ("predicted", "{} drawn"), ("expected", "{} there"))
    prints_labels = True
    negative_probability = 0.25  # without such prompts IL_MCC means nothing
    scores_input = False  # clustering a photograph takes long and finds nothing
    truth_words = "Truth and decoded instances are drawn in colours of their own; a model may choose any."

    def truth(self, sample: Sample, example: Example) -> InstancesTruth:
        """Take one mask for each color of the lossless target but the background's."""
        packed = example.target.astype(np.int64) @ np.array([65536, 256, 1])
        background = int(np.dot(example.spec["background"], [65536, 256, 1]))
        values = [value for value in np.unique(packed) if value != background]
        masks = np.stack([packed == value for value in values]) if values else np.zeros((0, *packed.shape), bool)
        return InstancesTruth((masks,))

    def predict(self, item: Item, decoded: DecodedInstances, size: tuple[int, int]) -> Instances:
        return Instances(resize_nearest(decoded.ids, size), decoded.confidence)

    def merge(self, passes: Sequence[Instances]) -> Instances:
        """Keep the instances that half of the passes found."""
        agreed = consensus_instances([prediction.ids for prediction in passes])
        return Instances(agreed.ids, agreed.support)

    def tally(self, benchmark: Benchmark) -> InstanceTally:
        return InstanceTally()

    def guesses(self, fitted: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> dict[str, Any]:
        one = np.ones(1)
        return {
            name: Instances(mask.astype(np.uint8), one if mask.any() else one[:0])
            for name, mask in mask_guesses(size).items()
        }

    def draw_truth(self, truth: InstancesTruth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        ids = np.zeros(truth.size, np.uint16)
        for number, mask in enumerate(truth.annotators[0], start=1):
            ids[mask] = number
        return ids_picture(ids)

    def draw_error(self, truth: InstancesTruth, prediction: Instances, item: Item) -> Panel:
        return "decoded instances", ids_picture(prediction.ids.astype(np.uint16))

    def answer(self, spec: Mapping[str, Any], passes: Sequence[DecodedInstances]) -> Answer:
        """Keep the instances that half of the passes found."""
        found = [Instances(decoded.ids, decoded.confidence) for decoded in passes]
        agreed = found[0] if len(found) == 1 else self.merge(found)
        names = (str(spec["category"]),) * len(agreed.confidence)
        return Answer(labels=agreed.ids, names=names, scores=tuple(float(score) for score in agreed.confidence))

    def texts(self, item: Item) -> tuple[str, ...]:
        return (item.spec["category"],)

    def print_labels(self, truth: InstancesTruth) -> LabelPrint:
        return print_masks(mask for masks in truth.annotators for mask in masks)


EVALUATION = InstanceEvaluation()
