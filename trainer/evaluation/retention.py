"""Does a tuned generator still generate? The same held-out examples, noise and levels for it and for its base.

What is measured of a generator is a function of it and the examples alone. So in training the base is measured once,
before the first step, and no copy of it has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cavendish.encoders.augment import resize_sample
from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.encoders.tasks.registry import TASK_NAMES, VISION_TASKS, make_example, tasks_of
from cavendish.mixing.mixture.draw import Sizes, nearest_size
from cavendish.trainer.evaluation.sets import read_samples
from cavendish.trainer.evaluation.settings import RetentionSettings
from cavendish.trainer.generators.protocol import Generator, Precision
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.loss import draw_noise, flow_matching_loss, make_batch
from cavendish.trainer.parallel import (
    SINGLE_PROCESS,
    Process,
    autocast,
    batches_by_size,
    device_of,
    gather_to_rank0,
    to_device,
)

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
TASKS = tuple(name for name in TASK_NAMES if name not in VISION_TASKS)
"""Generation and editing."""


def retention_examples(folder: Path, sizes: Sizes, seed: int, items: int | None = None) -> list[Example]:
    """Make the "generate" and "edit" examples of held-out raw shards.

    Args:
        sizes: side of the pictures in pixels, or buckets.
        items: take a random subset of so many samples; None: all.

    Raises:
        InputError: instruction shards, or samples with neither captions nor edits.
    """
    samples = [(index, sample) for index, sample in enumerate(read_samples(folder)) if {*TASKS} & {*tasks_of(sample)}]
    if not samples:
        raise InputError(f"{folder}: no sample there has a caption or an edit; retention cannot be measured on it")
    if items is not None and items < len(samples):
        chosen = np.random.default_rng(seed).choice(len(samples), items, replace=False)
        samples = [samples[i] for i in sorted(chosen.tolist())]
    examples: list[Example] = []
    for index, raw in samples:
        sample = resize_sample(raw, *nearest_size(raw.image.shape[0], raw.image.shape[1], sizes))
        examples += [
            make_example(sample, task, np.random.default_rng([seed, index]))
            for task in TASKS
            if task in tasks_of(sample)
        ]
    return examples


def measure_figures(
    generator: Generator,
    examples: Sequence[Example],
    seed: int,
    steps: int,
    batch_size: int = 32,
    process: Process = SINGLE_PROCESS,
    precision: Precision = "float32",
    guidance: float = 1.0,
) -> dict[str, Any]:
    """Measure what of one generator is compared; a function of it, the examples and the seed.

    Args:
        steps, guidance: of the images that are drawn; 0 steps: draw none, and measure losses only.
        process: of several processes, all of which must ask for the same; the first gets the figures.

    Returns:
        json-able: "losses", task to a row of losses at LEVELS for each example; with edits drawn "edit_psnr_db"; with
        at least two captions drawn "distances", from the pictures drawn to those the captions are of (see
        `trainer.evaluation.retention`).

    Raises:
        InputError: an example of another task, or none at all.
    """
    other = sorted({e.task for e in examples} - {*TASKS})
    if other or not examples:
        raise InputError(f"retention is measured on generate and edit examples; got {', '.join(other) or 'none'}")
    by_task = {task: part for task in TASKS if (part := [e for e in examples if e.task == task])}
    figures: dict[str, Any] = {
        "losses": {
            task: _losses(generator, part, seed, batch_size, process, precision) for task, part in by_task.items()
        }
    }
    drawn: dict[str, list[UInt8Image]] = {}
    if steps:
        for task, part in by_task.items():
            drawn[task] = predict_examples(
                generator, part, steps, seed, batch_size, process, precision=precision, guidance=guidance
            )
    if process.rank > 0:
        return {}
    if "edit" in drawn:
        edits = by_task["edit"]
        figures["edit_psnr_db"] = {
            "drawn": _edit_psnr(edits, drawn["edit"]),
            "identity": _edit_psnr(edits, [e.source for e in edits if e.source is not None]),
        }
    if len(drawn.get("generate", ())) > 1:
        figures["distances"] = picture_distances(drawn["generate"], [e.target for e in by_task["generate"]])
    return figures


@torch.no_grad()
def _losses(
    generator: Generator,
    examples: Sequence[Example],
    seed: int,
    batch_size: int,
    process: Process,
    precision: Precision,
) -> list[list[float]]:
    """Return the loss of each example at each level; on the first process."""
    rows: dict[int, list[float]] = {}
    device = device_of(generator)
    for positions in batches_by_size([e.target.shape for e in examples], batch_size, process):
        batch = to_device(make_batch(generator, [examples[i] for i in positions]), device)
        levels = []
        for k, level in enumerate(LEVELS):
            draws = [position * len(LEVELS) + k for position in positions]
            noise_BCHW = draw_noise(seed, draws, batch.clean_BCHW.shape[1:]).to(device)
            sigma_B = torch.full((len(positions),), level, device=device)
            with autocast(precision, device):
                levels.append(flow_matching_loss(generator, batch, sigma_B, noise_BCHW).tolist())
        rows |= {position: list(losses) for position, losses in zip(positions, zip(*levels, strict=True))}
    return gather_to_rank0(rows, process)


def compare_figures(tuned: Mapping[str, Any], base: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Set what was measured of a tuned generator beside what was measured of its base.

    The flow-matching loss is paired: each example meets the same noise at the same levels in both models, so that
    their ratio is not blurred by the draw. A ratio of 1 means that nothing was lost, above 1 that something was.

    Returns:
        json-able: "tasks" maps a task to its number of examples, "loss_ratio" (tuned over base, all levels together),
        "loss_ratio_interval" (95 %, bootstrap over examples) and "levels" (sigma, base, tuned, ratio); with edits
        drawn there is "edit_psnr_db": mean dB over all pixels and over the pixels the edit changes, for "tuned", "base"
        and "identity" (the source handed back unchanged); with pictures drawn from captions "distances" to the
        pictures the captions are of, for "tuned" and "base".

    Source: ours.
    """
    result: dict[str, Any] = {"tasks": {}}
    for task, losses in sorted(tuned["losses"].items()):
        result["tasks"][task] = _compare(np.array(base["losses"][task]), np.array(losses), seed)
    if "edit_psnr_db" in tuned:
        result["edit_psnr_db"] = {
            "tuned": tuned["edit_psnr_db"]["drawn"],
            "base": base["edit_psnr_db"]["drawn"],
            "identity": tuned["edit_psnr_db"]["identity"],
        }
    if "distances" in tuned:
        result["distances"] = {"tuned": tuned["distances"], "base": base["distances"]}
    return result


def _compare(base: NDArray[np.float64], tuned: NDArray[np.float64], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(base), size=(1000, len(base)))
    ratios = tuned.sum(1)[draws].sum(1) / base.sum(1)[draws].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "examples": len(base),
        "loss_ratio": float(tuned.sum() / base.sum()),
        "loss_ratio_interval": [float(low), float(high)],
        "levels": [
            {
                "sigma": level,
                "base": float(base[:, k].mean()),
                "tuned": float(tuned[:, k].mean()),
                "ratio": float(tuned[:, k].sum() / base[:, k].sum()),
            }
            for k, level in enumerate(LEVELS)
        ],
    }


def _edit_psnr(edits: Sequence[Example], pictures: Sequence[UInt8Image]) -> dict[str, float | None]:
    """Return the mean PSNR over whole pictures, and over the pixels that the edit changes."""
    whole, changed = [], []
    for edit, picture in zip(edits, pictures):
        assert edit.source is not None
        where = (edit.source != edit.target).any(axis=-1)
        squared = (picture.astype(np.float64) - edit.target) ** 2
        whole.append(_psnr(squared))
        if where.any():
            changed.append(_psnr(squared[where]))
    return {"all_pixels": float(np.mean(whole)), "changed_pixels": float(np.mean(changed)) if changed else None}


def _psnr(squared_error: NDArray[np.float64]) -> float:
    """Return dB for 8-bit pictures; an exact answer counts as half a grey level off (54 dB), so that means exist."""
    return float(10 * np.log10(255**2 / max(0.25, squared_error.mean())))


def retention_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, float]]:
    """Return what `compare_figures` says as rows of evaluation.csv: task, who, metric, value."""
    rows: list[tuple[str, str, str, float]] = []
    for task, compared in result["tasks"].items():
        rows.append((task, "generator", "loss_ratio", compared["loss_ratio"]))
        for level in compared["levels"]:
            rows.append((task, "generator", f"loss_ratio at {level['sigma']:g}", level["ratio"]))
            rows.append((task, "generator", f"loss at {level['sigma']:g}", level["tuned"]))
            rows.append((task, "base", f"loss at {level['sigma']:g}", level["base"]))
    names = {"tuned": "generator", "base": "base", "identity": "the input picture handed back"}
    for who, psnr in result.get("edit_psnr_db", {}).items():
        rows += [("edit", names[who], f"psnr_db, {k.replace('_', ' ')}", v) for k, v in psnr.items() if v is not None]
    for who, distances in result.get("distances", {}).items():
        rows += [("generate", names[who], name, distances[name]) for name in ("frechet", "kernel")]
    return rows


def over_limit(ratios: Mapping[tuple[str, str], float], settings: RetentionSettings) -> str | None:
    """Say what is over its limit; None when nothing is.

    Args:
        ratios: task and metric ("loss_ratio", "loss_ratio at 0.9", ...) to value, of one step.
    """
    said = []
    for (task, metric), value in ratios.items():
        limit = settings.limit if metric == "loss_ratio" else settings.level_limit
        if metric.startswith("loss_ratio") and limit is not None and value > limit:
            where = "" if metric == "loss_ratio" else f", noise level {metric.rpartition(' ')[2]}"
            said.append(f"{task}{where}: {value:.3f} times the loss of the base, limit {limit:g}")
    return "; ".join(said) or None


def layout_features(pictures: Sequence[UInt8Image]) -> NDArray[np.float64]:
    """Return (N, 256) features without a network: Lab colour on an 8 x 8 grid, gradients in 4 directions on 4 x 4.

    Source: ours; named layout/1. It sees colour, layout and coarse texture, not what things are.
    """
    rows = []
    for picture in pictures:
        square = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(square, cv2.COLOR_RGB2LAB).astype(np.float64) / 255
        colors = lab.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
        dy, dx = np.gradient(lab[..., 0])
        direction = ((np.arctan2(dy, dx) % np.pi) / np.pi * 4).astype(int) % 4
        strength = np.hypot(dx, dy)
        edges = [(strength * (direction == k)).reshape(4, 16, 4, 16).mean(axis=(1, 3)) for k in range(4)]
        rows.append(np.concatenate([colors.ravel(), np.ravel(edges)]))
    return np.array(rows, np.float64)


def frechet_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the squared Frechet distance of the Gaussians through two sets of features.

    Args:
        one, other: (N, D) and (M, D); fewer rows than columns make the estimate too large.

    Raises:
        InputError: fewer than 2 rows, or different columns.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, equation 6.
    """
    _check(one, other)
    mean = one.mean(axis=0) - other.mean(axis=0)
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (one, other)]
    small: list[NDArray[np.float64]] = [  # R'R is the covariance, at most D rows
        np.asarray(np.linalg.qr(rows, mode="r"), np.float64) for rows in centred
    ]
    # tr sqrt(A'A B'B) is the sum of the singular values of AB': exact for singular covariances, where sqrtm is not
    root = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    trace = sum(float((rows**2).sum()) for rows in small) - 2 * root
    return float(max(0.0, mean @ mean + trace))


def kernel_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3; about 0 for equal sets.

    Raises:
        InputError: fewer than 2 rows, or different columns.

    Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    _check(one, other)
    width = one.shape[1]

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x @ y.T / width + 1) ** 3

    def within(x: NDArray[np.float64]) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(one) + within(other) - 2 * float(kernel(one, other).mean())


def picture_distances(one: Sequence[UInt8Image], other: Sequence[UInt8Image]) -> dict[str, Any]:
    """Return {"pictures": [N, M], "frechet", "kernel"} of two sets of images, in `layout_features`."""
    rows = [layout_features(images) for images in (one, other)]
    return {
        "pictures": [len(one), len(other)],
        "frechet": frechet_distance(rows[0], rows[1]),
        "kernel": kernel_distance(rows[0], rows[1]),
    }


def _check(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise InputError(f"features of shapes {one.shape} and {other.shape}: give (N, D) and (M, D), N and M from 2")
