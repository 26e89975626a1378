"""Referring segmentation: the overlap of each expression's mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.encoders.tasks.registry import decode_example
from cavendish.encoders.tasks.segmentation import Segmentation
from cavendish.encoders.voting import vote_semantic
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_masks
from cavendish.mixing.visualize import Panel
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.metrics.segmentation import MaskOverlap, mask_overlap, referring_metrics
from cavendish.trainer.evaluation.tasks.semantic import vote_answer
from cavendish.trainer.evaluation.tasks.task import (
    OWN_SAMPLES,
    UNKNOWN_RGB,
    Answer,
    Column,
    TaskEvaluation,
    draw_verdict,
    mask_guesses,
    resize_nearest,
)


@dataclass(frozen=True)
class MaskTruth(Truth):
    """`mask` (H, W) bool of what the expression refers to; pixels of `ignore` count for nothing."""

    mask: NDArray[np.bool_]
    ignore: NDArray[np.bool_] | None = None


@dataclass
class ReferringTally:
    """Referred masks. `quality` is the IoU."""

    overlaps: list[MaskOverlap] = field(default_factory=list)

    def add(self, truth: MaskTruth, prediction: Any, group: str) -> dict[str, Any]:
        """Add an (H, W) bool mask."""
        overlap = mask_overlap(prediction, truth.mask, truth.ignore)
        self.overlaps.append(overlap)
        return {"iou": overlap.iou, "quality": overlap.iou}

    def metrics(self) -> dict[str, Any]:
        return referring_metrics(self.overlaps)


class ReferringEvaluation(TaskEvaluation):
    """Bool masks, one for each expression."""

    name = "referring"
    title = "Referring segmentation"
    columns = (
        Column("giou", "gIoU", ".3f"),
        Column("ciou", "cIoU", ".3f"),
        Column("precision_at.0.5", "P@0.5", ".3f"),
        Column("precision_at.0.7", "P@0.7", ".3f"),
        Column("precision_at.0.9", "P@0.9", ".3f"),
    )
    headline = "ciou"
    words = "Expressions proved unique on the scene's facts; a tenth of them name what is not there."
    notes = (OWN_SAMPLES, "a prompt with several expressions is several items that share one picture")
    case_metrics = (("iou", "IoU {:.3f}"),)
    prints_labels = True
    negative_probability = 0.1

    def items(self, sample: Sample, example: Example) -> list[Item]:
        decoded = decode_example(example.spec, example.target)
        assert isinstance(decoded, Segmentation)
        several = len(decoded.names) > 1
        return [
            Item(
                name=f"{example.key}.{position}" if several else example.key,
                prompt=example.prompt,
                read_image=lambda: sample.image,
                read_truth=partial(MaskTruth, decoded.labels == position),
                spec=example.spec,
                picture=example.key,
                position=position,
            )
            for position in range(len(decoded.names))
        ]

    def predict(self, item: Item, decoded: Segmentation, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the (H, W) mask of the item's expression."""
        return resize_nearest(decoded.labels == item.position, size)

    def merge(self, passes: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Vote on each pixel; a tie goes to the earliest pass."""
        return vote_semantic([mask.astype(np.uint8) for mask in passes]).labels.astype(bool)

    def tally(self, benchmark: Benchmark) -> ReferringTally:
        return ReferringTally()

    def guesses(self, fitted: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> dict[str, Any]:
        return dict(mask_guesses(size))

    def draw_truth(self, truth: MaskTruth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        image = np.full((*truth.size, 3), spec["background"], np.uint8)
        image[truth.mask] = spec["legend"][item.position][1]
        if truth.ignore is not None:
            image[truth.ignore] = UNKNOWN_RGB
        return image

    def draw_error(self, truth: MaskTruth, prediction: NDArray[np.bool_], item: Item) -> Panel:
        known = prediction | truth.mask
        if truth.ignore is not None:
            known &= ~truth.ignore
        return "shared (green), not shared (red)", draw_verdict(prediction == truth.mask, known)

    def answer(self, spec: Mapping[str, Any], passes: Sequence[Segmentation]) -> Answer:
        return vote_answer(passes)

    def texts(self, item: Item) -> tuple[str, ...]:
        return tuple(row[0] for row in item.spec["legend"])

    def print_labels(self, truth: MaskTruth) -> LabelPrint:
        return print_masks([truth.mask])


EVALUATION = ReferringEvaluation()
