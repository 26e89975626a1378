"""How a task is measured: truth, metrics, columns, blind guesses and drawings; and what of it several tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, InputError, Sample, UInt8Image
from cavendish.encoders.tasks.registry import VISION_TASKS
from cavendish.mixing.audit.matching.label_prints import LabelPrint
from cavendish.mixing.visualize import Panel, ids_picture
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth

UNKNOWN_RGB = (208, 215, 222)
_RIGHT_RGB, _WRONG_RGB = (46, 160, 67), (207, 34, 46)

OWN_SAMPLES = "our own held-out samples, not a public benchmark"

ROWS = 64
"""Vertical priors hold one value for each of so many equal bands of the image."""


@dataclass(frozen=True)
class Column:
    """A column of a result table: dotted path of a metric, heading, format, and whether more is better."""

    metric: str
    heading: str
    format: str
    more_is_better: bool = True


@dataclass(frozen=True)
class Answer:
    """What the passes of a question about one image agree on, at the size it was drawn in (h, w).

    Args:
        arrays: (h, w, ...) by name; `predict` writes each as NAME.<name>.npy.
        confident: (h, w) bool, where the drawn colors are near those that stand for a value.
        labels: (h, w) int, 0 background; n is `names[n - 1]`; `predict` writes masks.
        scores: for each name: the share of the passes that agree, over its pixels.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    confident: NDArray[np.bool_] | None = None
    labels: NDArray[Any] | None = None
    names: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


class Tally(Protocol):
    """One row of a result table."""

    def add(self, truth: Any, prediction: Any, group: str) -> dict[str, Any]:
        """Measure one item, keep what the set needs, return the item's own metrics and its `quality` in 0..1."""

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all items so far; "protocol" says how they were measured."""


class TaskEvaluation:
    """How one task is measured. A subclass is the `EVALUATION` of `evaluation/tasks/NAME.py`.

    Fields:
        title: heading of its tables.
        columns: of its tables.
        headline: the metric that stands for the task where there is room for one.
        words: what a reader of its tables must know.
        notes: what a reader of results on our own samples must know.
        case_metrics: metrics of one item, with a format each.
        negative_probability: how often an exhaustive sample is asked for what is not there.
        fits_guesses: blind guesses are fitted on truth; else they are the same for any set.
        guesses_transfer: they may be fitted on the truth of another set.
        scores_input: the input image, decoded as if it were the answer, is a row of its own.
        truth_words: how truth is drawn.
        prints_labels: the audit compares fingerprints of its labels.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    headline: ClassVar[str]
    words: ClassVar[str] = ""
    notes: ClassVar[tuple[str, ...]] = (OWN_SAMPLES,)
    case_metrics: ClassVar[tuple[tuple[str, str], ...]] = ()
    negative_probability: ClassVar[float] = 0.0
    fits_guesses: ClassVar[bool] = False
    guesses_transfer: ClassVar[bool] = False
    scores_input: ClassVar[bool] = True
    truth_words: ClassVar[str] = "Truth is drawn in the colours the prompt asks for; grey has no truth."
    prints_labels: ClassVar[bool] = False

    def accepts(self, example: Example) -> bool:
        """Tell whether an example drawn for a sample is one to measure on."""
        return True

    def truth(self, sample: Sample, example: Example) -> Truth:
        """Return what is true of an example of a sample."""
        raise NotImplementedError

    def benchmark(self, pairs: Sequence[tuple[Sample, Example]]) -> Benchmark:
        """Make a benchmark of our own samples, each with one example; pass 0 asks the example's prompt."""
        items = [item for sample, example in pairs for item in self.items(sample, example)]
        return Benchmark(f"samples-{self.name}", self.name, tuple(items), notes=self.notes)

    def items(self, sample: Sample, example: Example) -> list[Item]:
        """Return the items that one example asks for."""
        return [sample_item(sample, example, self.truth(sample, example))]

    def predict(self, item: Item, decoded: Any, size: tuple[int, int]) -> Any:
        """Bring a decoded answer to the truth's size (height, width) as the prediction that `tally` measures."""
        raise NotImplementedError

    def merge(self, passes: Sequence[Any]) -> Any:
        """Make one prediction of those of several passes over one image."""
        raise NotImplementedError

    def tally(self, benchmark: Benchmark) -> Tally:
        """Return an empty tally."""
        raise NotImplementedError

    def fit_guesses(self, benchmark: Benchmark, truths: Iterable[Any]) -> dict[str, NDArray[Any]]:
        """Fit the blind guesses on the truth of a whole set: name to (ROWS, ...) vertical profile.

        They never look at an image, and fitted on the very set they are scored on they are the best that guesses of
        their kind could be: a model that does not beat them has learnt nothing that a constant does not know.
        """
        return {}

    def guesses(self, fitted: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> dict[str, Any]:
        """Return every blind guess as a prediction of `size`, by name."""
        return {name: paint_profile(profile, size) for name, profile in fitted.items()}

    def draw_truth(self, truth: Any, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        """Draw the truth as the spec asks for it."""
        raise NotImplementedError

    def draw_error(self, truth: Any, prediction: Any, item: Item) -> Panel:
        """Draw where a prediction is wrong, with a caption."""
        raise NotImplementedError

    def answer(self, spec: Mapping[str, Any], passes: Sequence[Any]) -> Answer:
        """Make one answer of what was decoded in all passes of a question."""
        raise NotImplementedError

    def draw_answer(self, answer: Answer, image: UInt8Image) -> Panel:
        """Draw an answer at the image's size, with a caption; labels are laid over the image."""
        assert answer.labels is not None
        labels = resize_nearest(answer.labels, image.shape[:2]).astype(np.uint16)
        mixed = cv2.addWeighted(image, 0.45, ids_picture(labels), 0.55, 0)
        drawn = np.where((labels > 0)[..., None], mixed, image // 2).astype(np.uint8)
        return f"{len(answer.names)} masks", drawn

    def texts(self, item: Item) -> tuple[str, ...]:
        """Return what a benchmark itself says in an item, without the wording around it, for the audit."""
        return ()

    def print_labels(self, truth: Any) -> LabelPrint:
        """Fingerprint the labels of a truth for the audit; asked of tasks with `prints_labels` only."""
        raise NotImplementedError


def sample_item(sample: Sample, example: Example, truth: Truth, classes: Mapping[str, int] | None = None) -> Item:
    """Return the item that asks an example of a sample."""
    return Item(
        name=example.key,
        prompt=example.prompt,
        read_image=lambda: sample.image,
        read_truth=lambda: truth,
        spec=example.spec,
        classes=classes or {},
    )


def find_evaluation(name: str) -> TaskEvaluation:
    """Return how a task is measured: EVALUATION of `evaluation/tasks/NAME.py`.

    Raises:
        InputError: it is not a vision task: people or models judge it.
    """
    if name not in VISION_TASKS:
        raise InputError(f"task {name!r} is judged by people or models; see win_rate")
    evaluation: TaskEvaluation = import_module(f"cavendish.trainer.evaluation.tasks.{name}").EVALUATION
    return evaluation


def resize_nearest(array: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Resize (H, W, ...) to `size`, (height, width), by the nearest pixel center.

    Decoded depth resized this way has fewer wrong pixels than a resized picture: interpolated colours decode to depths
    that are nowhere near (measured: 0.89 % delta1 failures against 0.97 % bilinear RGB and 1.28 % bilinear depth).
    """
    if array.shape[:2] == size:
        return array
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, array.shape[:2])
    )
    return array[rows[:, None], columns[None, :]]


def bands_of(height: int) -> NDArray[np.int64]:
    """Return for each image row the band it lies in."""
    return ((np.arange(height) + 0.5) * ROWS / height).astype(np.int64)


def paint_profile(profile: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Paint a (ROWS, ...) profile on an image of `shape` (H, W)."""
    rows = profile[bands_of(shape[0])]
    return np.repeat(rows[:, None], shape[1], axis=1)


def mask_guesses(shape: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    """Return the guesses for a referred region or a single instance: nothing, everything, the middle of the image.

    "the middle quarter" is the centred rectangle of half the height and half the width.
    """
    height, width = shape
    middle = np.zeros(shape, bool)
    middle[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return {
        "nothing drawn": np.zeros(shape, bool),
        "everything drawn": np.ones(shape, bool),
        "the middle quarter": middle,
    }


def draw_heat(share: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> UInt8Image:
    """Draw 0 as white and 1 or more as dark red; what is not known light gray."""
    level = np.nan_to_num(np.clip(share, 0, 1), nan=1.0)[..., None]
    stops = np.array([[255, 255, 255], [253, 190, 110], [220, 60, 40], [110, 0, 20]], np.float64)
    position = level * (len(stops) - 1)
    low = np.minimum(position.astype(np.int64), len(stops) - 2)[..., 0]
    image = stops[low] + (stops[low + 1] - stops[low]) * (position - low[..., None])
    image[~known] = UNKNOWN_RGB
    return np.rint(image).astype(np.uint8)


def draw_verdict(right: NDArray[np.bool_], known: NDArray[np.bool_]) -> UInt8Image:
    """Draw right pixels green and wrong ones red; what is not known light gray."""
    image = np.where(right[..., None], np.array(_RIGHT_RGB, np.uint8), np.array(_WRONG_RGB, np.uint8))
    image[~known] = UNKNOWN_RGB
    return image
