"""Semantic segmentation: one confusion matrix over all pixels of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.legends.parser import BACKGROUND
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.encoders.tasks.registry import decode_example
from cavendish.encoders.tasks.segmentation import Segmentation
from cavendish.encoders.voting import vote_semantic
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_ids
from cavendish.mixing.visualize import Panel
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.metrics.segmentation import semantic_confusion, semantic_set_metrics
from cavendish.trainer.evaluation.tasks.task import (
    OWN_SAMPLES,
    ROWS,
    UNKNOWN_RGB,
    Answer,
    Column,
    TaskEvaluation,
    bands_of,
    draw_verdict,
    resize_nearest,
    sample_item,
)

VOID = -1


@dataclass(frozen=True)
class SemanticTruth(Truth):
    """`labels` (H, W) integer ids; an id that is not a class of the benchmark is void."""

    labels: NDArray[np.integer[Any]]


@dataclass
class SemanticTally:
    """Semantic labels: one confusion matrix over all items. `quality` is the item's own mIoU."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    confusion: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.ids) + 1, len(self.ids) + 1), np.int64)

    def add(self, truth: SemanticTruth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W) ids of the benchmark's classes; others are void."""
        confusion = semantic_confusion(prediction, truth.labels, self.ids)
        self.confusion += confusion
        result = semantic_set_metrics(confusion, self.names)
        return {**result, "quality": result["miou"]}

    def metrics(self) -> dict[str, Any]:
        return semantic_set_metrics(self.confusion, self.names)


class SemanticEvaluation(TaskEvaluation):
    """Class ids of a benchmark; the background of our own samples is a class."""

    name = "semantic"
    title = "Semantic segmentation"
    columns = (Column("miou", "mIoU", ".3f"), Column("pixel_accuracy", "pixel accuracy", ".3f"))
    headline = "miou"
    words = "Random legends, one for each prompt; one confusion over all pixels."
    notes = (
        OWN_SAMPLES,
        "the background is a class; a class that is asked for and in no picture is none: painting it is a miss",
    )
    case_metrics = (("miou", "mIoU {:.3f}"),)
    prints_labels = True
    fits_guesses = True

    def benchmark(self, pairs: Sequence[tuple[Sample, Example]]) -> Benchmark:
        """Number the classes that any target shows."""
        ids = {name: number for number, name in enumerate([BACKGROUND, *_painted_names(e for _, e in pairs)])}
        items = []
        for sample, example in pairs:
            truth = SemanticTruth(_labels_of(_decode_target(example), ids))
            items.append(sample_item(sample, example, truth, classes=ids))
        classes = {number: name for name, number in ids.items()}
        return Benchmark(f"samples-{self.name}", self.name, tuple(items), classes=classes, notes=self.notes)

    def predict(self, item: Item, decoded: Segmentation, size: tuple[int, int]) -> NDArray[np.int64]:
        """Return (H, W) class ids, -1 void."""
        return resize_nearest(_labels_of(decoded, item.classes), size)

    def merge(self, passes: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Vote on each pixel; a tie goes to the earliest pass."""
        return vote_semantic(passes).labels

    def tally(self, benchmark: Benchmark) -> SemanticTally:
        return SemanticTally(tuple(benchmark.classes), tuple(benchmark.classes.values()))

    def fit_guesses(self, benchmark: Benchmark, truths: Iterable[SemanticTruth]) -> dict[str, NDArray[Any]]:
        classes = tuple(benchmark.classes)
        return class_profiles((class_row_counts(truth.labels, classes) for truth in truths), classes)

    def draw_truth(self, truth: SemanticTruth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        image = np.full((*truth.size, 3), spec["background"], np.uint8)
        for name, color in spec["legend"]:
            image[truth.labels == item.classes.get(name, -2)] = color
        image[~_is_class(truth, item)] = UNKNOWN_RGB
        return image

    def draw_error(self, truth: SemanticTruth, prediction: NDArray[Any], item: Item) -> Panel:
        return "right (green), wrong (red)", draw_verdict(prediction == truth.labels, _is_class(truth, item))

    def answer(self, spec: Mapping[str, Any], passes: Sequence[Segmentation]) -> Answer:
        return vote_answer(passes)

    def print_labels(self, truth: SemanticTruth) -> LabelPrint:
        return print_ids(truth.labels)


def vote_answer(passes: Sequence[Segmentation]) -> Answer:
    """Vote on the labels of all passes; a name's score is the share that agrees, over its pixels."""
    voted = vote_semantic([decoded.labels for decoded in passes])
    labels = voted.labels.astype(np.int32) + 1
    names = passes[0].names
    scores = tuple(
        float(voted.agreement[labels == n].mean()) if (labels == n).any() else 0.0 for n in range(1, len(names) + 1)
    )
    return Answer(labels=labels, names=names, scores=scores)


def _decode_target(example: Example) -> Segmentation:
    decoded = decode_example(example.spec, example.target)
    assert isinstance(decoded, Segmentation)
    return decoded


def _painted_names(examples: Iterable[Example]) -> list[str]:
    """Return the class names that any target shows, sorted."""
    names: set[str] = set()
    for example in examples:
        decoded = _decode_target(example)
        names.update(decoded.names[int(label)] for label in np.unique(decoded.labels) if label >= 0)
    return sorted(names)


def _labels_of(decoded: Segmentation, ids: Mapping[str, int]) -> NDArray[np.int64]:
    """Return (H, W) class ids; a name that has none is void, the background may have one."""
    table = np.array([ids.get(name, VOID) for name in (*decoded.names, BACKGROUND)], np.int64)  # -1 takes the last
    return table[decoded.labels]


def _is_class(truth: SemanticTruth, item: Item) -> NDArray[np.bool_]:
    return np.isin(truth.labels, list(item.classes.values()))


def class_row_counts(truth: NDArray[np.integer[Any]], classes: Sequence[int]) -> NDArray[np.float64]:
    """Return (ROWS, K): the share of the picture that each class has in each band."""
    bands = bands_of(truth.shape[0])
    counts = np.zeros((ROWS, len(classes)))
    for place, label in enumerate(classes):
        np.add.at(counts[:, place], bands, (truth == label).sum(axis=1))
    return counts / truth.size


def class_profiles(row_counts: Iterable[NDArray[np.float64]], classes: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """Fit the label guesses from `class_row_counts`; name to (ROWS,) ids.

    "most frequent class everywhere" and "most frequent class by height in the picture".
    """
    total = np.sum(list(row_counts), axis=0)
    ids = np.asarray(classes, np.int64)
    overall = int(np.argmax(total.sum(axis=0)))
    by_row = np.where(total.any(axis=1), np.argmax(total, axis=1), overall)
    return {
        "most frequent class everywhere": np.full(ROWS, ids[overall]),
        "most frequent class by height in the picture": ids[by_row],
    }


EVALUATION = SemanticEvaluation()
