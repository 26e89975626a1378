"""Sampler: Euler steps from noise to image, batched, each example with its own noise.

Shape suffixes: B batch, C channels, H and W latent size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.trainer.generators.protocol import Generator, Precision
from cavendish.trainer.loss import Batch, draw_noise, make_batch
from cavendish.trainer.parallel import (
    SINGLE_PROCESS,
    Process,
    autocast,
    batches_by_size,
    device_of,
    gather_to_rank0,
    to_device,
)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: its scale, and the condition of an empty prompt for each row."""

    scale: float
    unconditional: Any


@torch.no_grad()
def sample(
    generator: Generator,
    batch: Batch,
    indices: Sequence[int],
    steps: int,
    seed: int,
    guidance: Guidance | None = None,
) -> Tensor:
    """Draw latents (B, C, H, W) for the prompts and references of `batch`; its targets give only the size.

    Args:
        indices: one number per row; with `seed` it decides the noise, whatever else is in the batch.
        steps: Euler steps, at least 1. One step of an x-model is its prediction from pure noise.
    """
    device = batch.clean_BCHW.device
    x = draw_noise(seed, indices, batch.clean_BCHW.shape[1:]).to(device)
    height, width = x.shape[2:]
    for level, following in itertools.pairwise(generator.noise_levels(height, width, steps)):
        sigma_B = torch.full((len(indices),), level, device=device)
        out = generator.predict(x, sigma_B, batch.reference_BCHW, batch.has_reference_B, batch.condition)
        if guidance is not None:
            empty = generator.predict(x, sigma_B, batch.reference_BCHW, batch.has_reference_B, guidance.unconditional)
            out = generator.guide(out, empty, guidance.scale)
        velocity = (x - out) / level if generator.spec.prediction == "x" else out
        x = x + (following - level) * velocity
    return x


def predict_examples(
    generator: Generator,
    examples: Sequence[Example],
    steps: int,
    seed: int,
    batch_size: int = 32,
    process: Process = SINGLE_PROCESS,
    *,
    indices: Sequence[int] | None = None,
    precision: Precision = "float32",
    guidance: float = 1.0,
) -> list[UInt8Image]:
    """Draw the answer to each example's prompt and source; the target is not looked at, only its size.

    Args:
        steps: Euler steps. 4 is a good value; 1 is fine for depth.
        seed: with the index of an example it decides the noise; the batch size does not matter beyond the rounding of
            sums (at most one grey level).
        process: of several processes, all of which must ask for the same: each draws a part.
        indices: one for each example; None: their positions.
        precision: of the network.
        guidance: scale of classifier-free guidance, which asks the network twice; 1: none.

    Returns:
        (H, W, 3) uint8 images in the order of `examples`; of several processes the first gets them, the others nothing.

    Raises:
        InputError: guidance of a distilled model.
    """
    if guidance != 1 and generator.spec.distilled:
        raise InputError(f"guidance {guidance:g}: this {generator.spec.name} is distilled, made for none; set it to 1")
    answers: dict[int, UInt8Image] = {}
    module, device = generator.module(), device_of(generator)
    training = module.training
    module.eval()
    for positions in batches_by_size([e.target.shape for e in examples], batch_size, process):
        batch = to_device(make_batch(generator, [examples[i] for i in positions]), device)
        draws = positions if indices is None else [indices[i] for i in positions]
        guided = None
        if guidance != 1:
            empty = generator.encode_text([""] * len(positions), [examples[i].source for i in positions])
            guided = Guidance(guidance, to_device(empty, device))
        with autocast(precision, device):
            latents = sample(generator, batch, draws, steps, seed, guided)
        answers |= zip(positions, generator.decode(latents))
    module.train(training)
    return gather_to_rank0(answers, process)
