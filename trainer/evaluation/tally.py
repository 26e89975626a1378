"""Adds up one row of a result table: a tally per task takes (truth, prediction) pairs and gives the set's metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks.items import (
    Benchmark,
    DepthTruth,
    InstancesTruth,
    MaskTruth,
    NormalsTruth,
    SemanticTruth,
    Truth,
)
from cavendish.trainer.evaluation.metrics.average_precision import ScoredImage, average_precision, scored_image
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol, depth_metrics, depth_set_metrics
from cavendish.trainer.evaluation.metrics.instances import InstanceMatch, best_match, instance_metrics, masks_of
from cavendish.trainer.evaluation.metrics.normals import NormalsPool, angular_errors_deg
from cavendish.trainer.evaluation.metrics.segmentation import (
    MaskOverlap,
    mask_overlap,
    referring_metrics,
    semantic_confusion,
    semantic_metrics,
)


@dataclass(frozen=True)
class Instances:
    """A decoded instance answer: (H, W) ids, 0 background, and a confidence from 0 to 1 for the ids 1..N."""

    ids: NDArray[np.integer[Any]]
    confidence: NDArray[np.floating[Any]]


class Tally(Protocol):
    """One row of a result table."""

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Measure one item, keep what the set needs, return the item's own metrics and its `quality` in 0..1."""

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all items so far."""


@dataclass
class DepthTally:
    """Depth: the mean over items of each item's metrics. `quality` is delta1."""

    protocol: DepthProtocol
    results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W) metres."""
        assert isinstance(truth, DepthTruth)
        result = depth_metrics(prediction, truth.depth_m, self.protocol, truth.valid)
        self.results.append(result)
        return {**result, "quality": result["delta1"]}

    def metrics(self) -> dict[str, Any]:
        """Average over items."""
        return depth_set_metrics(self.results)


@dataclass
class NormalsTally:
    """Normals, pooled and per image. `quality` falls from 1 at 0 degrees to 0 at 90."""

    pool: NormalsPool = field(default_factory=NormalsPool)

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W, 3) vectors."""
        assert isinstance(truth, NormalsTruth)
        summary = self.pool.add(angular_errors_deg(prediction, truth.normals, truth.valid))
        mean = summary["mean_deg"]
        return {**summary, "quality": None if mean is None else 1 - min(mean, 90.0) / 90}

    def metrics(self) -> dict[str, Any]:
        """Return both meanings of a set's normals metrics."""
        return self.pool.metrics()


@dataclass
class SemanticTally:
    """Semantic labels: one confusion matrix over all items. `quality` is the item's own mIoU."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    confusion: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.ids) + 1, len(self.ids) + 1), np.int64)

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W) ids of the benchmark's classes; others are void."""
        assert isinstance(truth, SemanticTruth)
        confusion = semantic_confusion(prediction, truth.labels, self.ids)
        self.confusion += confusion
        result = semantic_metrics(confusion, self.names)
        return {**result, "quality": result["miou"]}

    def metrics(self) -> dict[str, Any]:
        """Score the summed confusion."""
        return semantic_metrics(self.confusion, self.names)


@dataclass
class ReferringTally:
    """Referred masks. `quality` is the IoU."""

    overlaps: list[MaskOverlap] = field(default_factory=list)

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Add an (H, W) bool mask."""
        assert isinstance(truth, MaskTruth)
        overlap = mask_overlap(prediction, truth.mask, truth.ignore)
        self.overlaps.append(overlap)
        return {"iou": overlap.iou, "quality": overlap.iou}

    def metrics(self) -> dict[str, Any]:
        """Score all expressions."""
        return referring_metrics(self.overlaps)


@dataclass
class InstanceTally:
    """Instances: cgF1 per group, averaged over groups; COCO AP too where there is one annotator. `quality` is F1."""

    matches: dict[str, list[InstanceMatch]] = field(default_factory=dict)
    scored: list[ScoredImage] | None = field(default_factory=list)

    def add(self, truth: Truth, prediction: Any, group: str) -> dict[str, Any]:
        """Add `Instances`."""
        assert isinstance(truth, InstancesTruth)
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
        groups = {group: instance_metrics(matches) for group, matches in sorted(self.matches.items())}
        everything = instance_metrics([match for matches in self.matches.values() for match in matches])
        if len(groups) > 1:
            for name in ("cgf1", "pmf1", "il_mcc", "f1", "il_recall", "il_precision", "pmf1_50", "pmf1_75"):
                everything[name] = float(np.mean([values[name] for values in groups.values()]))
            everything["protocol"] += f";mean over {len(groups)} subsets"
            everything["groups"] = groups
        return everything if not self.scored else {**everything, "coco": average_precision(self.scored)}


def new_tally(benchmark: Benchmark) -> Tally:
    """Return an empty tally for the task of a benchmark.

    Raises:
        InputError: a generation benchmark: it is judged, not measured.
    """
    match benchmark.task:
        case "depth":
            return DepthTally(benchmark.depth)
        case "normals":
            return NormalsTally()
        case "semantic":
            return SemanticTally(tuple(benchmark.classes), tuple(benchmark.classes.values()))
        case "referring":
            return ReferringTally()
        case "instance":
            return InstanceTally()
    raise InputError(f"{benchmark.name}: task {benchmark.task!r} is judged by people or models; see win_rate")
