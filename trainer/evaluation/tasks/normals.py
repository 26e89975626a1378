"""Surface normals: angular errors, pooled over all pixels and averaged over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.mixing.visualize import Panel
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.metrics.normals import NormalsPool, angular_errors_deg
from cavendish.trainer.evaluation.tasks.task import (
    ROWS,
    Answer,
    Column,
    TaskEvaluation,
    bands_of,
    draw_heat,
    resize_nearest,
)


@dataclass(frozen=True)
class NormalsTruth(Truth):
    """`normals` (H, W, 3) in this project's frame (+x right, +y up, +z toward the viewer); (0, 0, 0) unknown."""

    normals: NDArray[np.floating[Any]]
    valid: NDArray[np.bool_] | None = None


@dataclass
class NormalsTally:
    """Normals, pooled and per image. `quality` falls from 1 at 0 degrees to 0 at 90."""

    pool: NormalsPool = field(default_factory=NormalsPool)

    def add(self, truth: NormalsTruth, prediction: Any, group: str) -> dict[str, Any]:
        """Add (H, W, 3) vectors."""
        summary = self.pool.add(angular_errors_deg(prediction, truth.normals, truth.valid))
        mean = summary["mean_deg"]
        return {**summary, "quality": None if mean is None else 1 - min(mean, 90.0) / 90}

    def metrics(self) -> dict[str, Any]:
        return self.pool.metrics()


class NormalsEvaluation(TaskEvaluation):
    """Degrees between predicted and true normals."""

    name = "normals"
    title = "Surface normals"
    columns = (
        Column("pooled.mean_deg", "mean°, pooled", ".2f", False),
        Column("pooled.median_deg", "median°, pooled", ".2f", False),
        Column("per_image.mean_deg", "mean°, per image", ".2f", False),
        Column("per_image.median_deg", "median°, per image", ".2f", False),
        Column("pooled.below_5_percent", "% < 5°", ".1f"),
        Column("pooled.below_11.25_percent", "% < 11.25°", ".1f"),
        Column("pooled.below_30_percent", "% < 30°", ".1f"),
    )
    headline = "pooled.mean_deg"
    words = "Degrees between predicted and true normals. The blind guesses are fitted on the training scenes."
    case_metrics = (("mean_deg", "mean {:.1f}°"), ("median_deg", "median {:.1f}°"))
    fits_guesses = True
    guesses_transfer = True

    def truth(self, sample: Sample, example: Example) -> NormalsTruth:
        assert sample.normals is not None
        return NormalsTruth(sample.normals)

    def predict(self, item: Item, decoded: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        return resize_nearest(decoded, size)

    def merge(self, passes: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return mean_normals(passes)

    def tally(self, benchmark: Benchmark) -> NormalsTally:
        return NormalsTally()

    def fit_guesses(self, benchmark: Benchmark, truths: Iterable[NormalsTruth]) -> dict[str, NDArray[Any]]:
        return normals_profiles(
            normals_row_sums(
                truth.normals, np.ones(truth.normals.shape[:2], bool) if truth.valid is None else truth.valid
            )
            for truth in truths
        )

    def draw_truth(self, truth: NormalsTruth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
        length = np.linalg.norm(truth.normals, axis=-1, keepdims=True)
        unit = np.divide(truth.normals, length, out=np.zeros(truth.normals.shape), where=length > 0)
        return encode_normals(unit.astype(np.float32))

    def draw_error(self, truth: NormalsTruth, prediction: NDArray[Any], item: Item) -> Panel:
        error = np.degrees(np.arccos(np.clip((prediction * truth.normals).sum(axis=-1), -1, 1)))
        known = truth.normals.any(axis=-1) & (True if truth.valid is None else truth.valid)
        return "angle, white 0° to red 60°", draw_heat(error / 60, known)

    def answer(self, spec: Mapping[str, Any], passes: Sequence[NDArray[np.float32]]) -> Answer:
        return Answer({"normals": mean_normals(passes)})

    def draw_answer(self, answer: Answer, image: UInt8Image) -> Panel:
        return "normals", encode_normals(resize_nearest(answer.arrays["normals"], image.shape[:2]))


def mean_normals(passes: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return the mean direction of (H, W, 3) normals; (0, 0, 0) where they cancel."""
    if len(passes) == 1:
        return np.asarray(passes[0], np.float32)
    total = np.sum(passes, axis=0, dtype=np.float64)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    mean: NDArray[np.float64] = np.divide(total, length, out=np.zeros_like(total), where=length > 1e-6)
    return mean.astype(np.float32)


def normals_row_sums(truth: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (ROWS, 3) sum of the unit normals of each band, weighing every image the same."""
    sums = np.zeros((ROWS, 3))
    length = np.linalg.norm(truth, axis=-1, keepdims=True)
    unit = np.divide(truth, length, out=np.zeros(truth.shape), where=length > 0) * valid[..., None]
    np.add.at(sums, bands_of(truth.shape[0]), unit.sum(axis=1))
    count = int((valid & (length[..., 0] > 0)).sum())
    return sums / count if count else sums


def normals_profiles(row_sums: Iterable[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Fit the normal guesses from `normals_row_sums`; name to (ROWS, 3) unit vectors.

    "facing the viewer" is (0, 0, 1) everywhere; "mean normal" and "normal by height in the picture" are fitted.
    """
    total = np.sum(list(row_sums), axis=0)
    viewer = np.array([0.0, 0.0, 1.0])
    mean = _unit(total.sum(axis=0), viewer)
    return {
        "facing the viewer": np.tile(viewer, (ROWS, 1)),
        "mean normal": np.tile(mean, (ROWS, 1)),
        "normal by height in the picture": np.stack([_unit(row, mean) for row in total]),
    }


def _unit(vector: NDArray[np.float64], fallback: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else fallback


EVALUATION = NormalsEvaluation()
