"""Depth: metrics of each image, averaged over the set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.depth import DecodedDepth, encode_depth
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_depth
from cavendish.mixing.visualize import Panel
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol, depth_metrics, depth_set_metrics, valid_pixels
from cavendish.trainer.evaluation.tasks.task import (
    OWN_SAMPLES,
    ROWS,
    Answer,
    Column,
    TaskEvaluation,
    bands_of,
    draw_heat,
    resize_nearest,
)


@dataclass(frozen=True)
class DepthTruth(Truth):
    """`depth_m` (H, W) planar metres (NaN or 0 unknown, +inf no surface); `valid` (H, W) bool, the set's own mask."""

    depth_m: NDArray[np.floating[Any]]
    valid: NDArray[np.bool_] | None = None


@dataclass
class DepthTally:
    """Depth: the mean over items of each item's metrics. `quality` is delta1."""

    protocol: DepthProtocol
    results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, truth: DepthTruth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W) metres."""
        result = depth_metrics(prediction, truth.depth_m, self.protocol, truth.valid)
        self.results.append(result)
        return {**result, "quality": result["delta1"]}

    def metrics(self) -> dict[str, Any]:
        return depth_set_metrics(self.results)


class DepthEvaluation(TaskEvaluation):
    """Meters, without alignment to the truth unless the protocol says so."""

    name = "depth"
    title = "Metric depth"
    columns = (
        Column("delta1", "δ1", ".3f"),
        Column("delta2", "δ2", ".3f"),
        Column("delta3", "δ3", ".3f"),
        Column("abs_rel", "AbsRel", ".3f", False),
        Column("rmse_m", "RMSE m", ".3f", False),
        Column("log10", "log10", ".3f", False),
        Column("silog_marigold", "SILog ×100", ".1f", False),
    )
    headline = "delta1"
    words = "Planar metres, no alignment to the truth. The blind guesses are fitted on the training scenes."
    notes = (OWN_SAMPLES, "asked in the cube-walk codec; pixels without a surface have no truth")
    case_metrics = (("delta1", "δ1 {:.3f}"), ("abs_rel", "AbsRel {:.3f}"))
    prints_labels = True
    fits_guesses = True
    guesses_transfer = True

    def accepts(self, example: Example) -> bool:
        """Ask in the cube-walk codec only."""
        return str(example.spec["codec"]).startswith("cube-walk/1")

    def truth(self, sample: Sample, example: Example) -> DepthTruth:
        assert sample.depth_m is not None
        return DepthTruth(sample.depth_m)

    def predict(self, item: Item, decoded: DecodedDepth, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return (H, W) meters."""
        return resize_nearest(decoded.depth_m, size)

    def merge(self, passes: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return median_depth(passes)

    def tally(self, benchmark: Benchmark) -> DepthTally:
        return DepthTally(benchmark.depth)

    def fit_guesses(self, benchmark: Benchmark, truths: Iterable[DepthTruth]) -> dict[str, NDArray[Any]]:
        return depth_profiles(
            depth_row_medians(truth.depth_m, valid_pixels(truth.depth_m, benchmark.depth, truth.valid))
            for truth in truths
        )

    def draw_truth(self, truth: DepthTruth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        return encode_depth(np.where(truth.depth_m > 0, truth.depth_m, np.nan).astype(np.float32))

    def draw_error(self, truth: DepthTruth, prediction: NDArray[Any], item: Item) -> Panel:
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.abs(np.clip(prediction, 1e-3, 412.5) - truth.depth_m) / truth.depth_m
        known = np.isfinite(truth.depth_m) & (truth.depth_m > 0)
        known &= True if truth.valid is None else truth.valid
        return "relative error, white 0 to red 50 %", draw_heat(error / 0.5, known)

    def answer(self, spec: Mapping[str, Any], passes: Sequence[DecodedDepth]) -> Answer:
        """Take the middle of each pixel; half of the passes must be confident."""
        confident = np.mean([decoded.confident for decoded in passes], axis=0) >= 0.5
        return Answer({"depth": median_depth([decoded.depth_m for decoded in passes])}, confident)

    def draw_answer(self, answer: Answer, image: UInt8Image) -> Panel:
        depth_m = answer.arrays["depth"]
        finite = depth_m[np.isfinite(depth_m)]
        caption = f"depth {finite.min():.3g} to {finite.max():.3g} m" if finite.size else "depth: no surface"
        return caption, encode_depth(resize_nearest(depth_m, image.shape[:2]))

    def print_labels(self, truth: DepthTruth) -> LabelPrint:
        return print_depth(truth.depth_m)


def median_depth(passes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the middle of (H, W) depths at each pixel; of an even number the lower of the two."""
    middle: NDArray[Any] = np.sort(np.stack(passes), axis=0)[(len(passes) - 1) // 2]
    return middle


def depth_row_medians(truth_m: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (ROWS,) median depth of the valid pixels of each band, NaN where there are none."""
    bands = bands_of(truth_m.shape[0])
    medians = np.full(ROWS, np.nan)
    for band in np.unique(bands):
        values = truth_m[bands == band][valid[bands == band]]
        if values.size:
            medians[band] = np.median(values)
    return medians


def depth_profiles(row_medians: Iterable[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Fit the depth guesses from `depth_row_medians` of the images of a set.

    Returns:
        name to (ROWS,) metres: "one depth everywhere" (the median) and "depth by height in the picture" (the median
        of each band; a band no image has truth in takes its neighbours').
    """
    rows = np.stack(list(row_medians))
    middle = float(np.nanmedian(rows)) if np.isfinite(rows).any() else 1.0
    profile = np.full(ROWS, np.nan)
    known = np.isfinite(rows).any(axis=0)
    profile[known] = np.nanmedian(rows[:, known], axis=0)
    if known.any():
        profile = np.interp(np.arange(ROWS), np.flatnonzero(known), profile[known])
    else:
        profile[:] = middle
    return {"one depth everywhere": np.full(ROWS, middle), "depth by height in the picture": profile}


EVALUATION = DepthEvaluation()
