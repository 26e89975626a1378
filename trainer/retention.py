"""Does a tuned generator still generate? The same held-out examples, noise and levels for it and for its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.sample import Example, InputError, UInt8Image
from trainer.generators.protocol import Generator
from trainer.loss import draw_noise, flow_matching_loss, make_batch
from trainer.predict import predict_examples

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def measure_retention(
    tuned: Generator,
    base: Generator,
    examples: Sequence[Example],
    seed: int = 0,
    steps: int = 4,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Compare a tuned generator with its base on held-out "generate" and "edit" examples.

    The flow-matching loss is paired: each example meets the same noise at the same levels in both models, so that
    their ratio is not blurred by the draw. A ratio of 1 means that nothing was lost, above 1 that something was.

    Returns:
        json-able: "tasks" maps a task to its number of examples, "loss_ratio" (tuned over base, all levels together),
        "loss_ratio_interval" (95 %, bootstrap over examples) and "levels" (sigma, base, tuned, ratio); with edits
        there is "edit_psnr_db": mean dB over all pixels and over the pixels the edit changes, for "tuned", "base" and
        "identity" (the source handed back unchanged).

    Raises:
        InputError: an example of another task, or none at all.

    Source: ours.
    """
    other = sorted({e.task for e in examples} - {"generate", "edit"})
    if other or not examples:
        raise InputError(f"retention is measured on generate and edit examples; got {', '.join(other) or 'none'}")
    result: dict[str, Any] = {"seed": seed, "steps": steps, "tasks": {}}
    for task in sorted({e.task for e in examples}):
        part = [e for e in examples if e.task == task]
        losses = [_losses(generator, part, seed, batch_size) for generator in (base, tuned)]
        result["tasks"][task] = _compare(losses[0], losses[1], seed)
    edits = [e for e in examples if e.task == "edit"]
    if edits:
        answers = {
            "tuned": predict_examples(tuned, edits, steps, seed, batch_size),
            "base": predict_examples(base, edits, steps, seed, batch_size),
            "identity": [e.source for e in edits if e.source is not None],
        }
        result["edit_psnr_db"] = {name: _edit_psnr(edits, pictures) for name, pictures in answers.items()}
    return result


@torch.no_grad()
def _losses(generator: Generator, examples: Sequence[Example], seed: int, batch_size: int) -> NDArray[np.float64]:
    """Return the loss (examples, levels)."""
    rows = np.zeros((len(examples), len(LEVELS)))
    for start in range(0, len(examples), batch_size):
        batch = make_batch(generator, examples[start : start + batch_size])
        count = len(batch.clean_BCHW)
        for k, level in enumerate(LEVELS):
            draws = [(start + i) * len(LEVELS) + k for i in range(count)]
            noise_BCHW = draw_noise(seed, draws, batch.clean_BCHW.shape[1:])
            losses_B = flow_matching_loss(generator, batch, torch.full((count,), level), noise_BCHW)
            rows[start : start + count, k] = losses_B.numpy()
    return rows


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
