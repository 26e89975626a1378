"""The one loss: flow matching, measured where the generator predicts, with noise drawn per global index.

Shape suffixes: B batch, C channels, H and W latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.trainer.generators.frozen import CachedEncoding, from_arrays, stack_rows
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.parallel import to_device

_NOISE = 0x4E01  # keeps these random streams apart from those that draw the data


Latent = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Examples as tensors: clean targets, references (zero where there is none), and the encoded prompts.

    `weight_B1HW` says how much each latent position counts in the loss of its example; None: all of them alike.
    """

    clean_BCHW: Tensor
    reference_BCHW: Tensor
    has_reference_B: Tensor
    condition: Any
    weight_B1HW: Tensor | None = None


def make_batch(
    generator: Generator,
    examples: Sequence[Example],
    pixel_weights: bool = False,
    cached: Sequence[CachedEncoding] = (),
) -> Batch:
    """Encode examples of one size.

    Args:
        pixel_weights: let the loss count pixels by the `weight` of the examples.
        cached: precomputed encodings of each example; what is missing is computed.

    Raises:
        InputError: the examples differ in size.
    """
    shapes = {picture.shape for e in examples for picture in (e.target, e.source) if picture is not None}
    if len(shapes) != 1:
        raise InputError(f"one batch holds pictures of sizes {sorted(shapes)}; resize them to one size first")
    cached = cached or [CachedEncoding()] * len(examples)
    blank = np.zeros_like(examples[0].target)
    clean = _encode_images(generator, [e.target for e in examples], [k.target for k in cached])
    if any(k.source is not None for k in cached):
        none = np.zeros(clean.shape[1:], np.float32)
        cached = [replace(k, source=none) if e.source is None else k for e, k in zip(examples, cached)]
    sources = [blank if e.source is None else e.source for e in examples]
    reference = _encode_images(generator, sources, [k.source for k in cached])
    has_reference_B = torch.tensor([e.source is not None for e in examples], device=reference.device)
    return Batch(
        clean_BCHW=clean,
        reference_BCHW=reference * has_reference_B[:, None, None, None],
        has_reference_B=has_reference_B,
        condition=_encode_text(generator, examples, cached),
        weight_B1HW=pool_weights(examples, generator.spec.downsampling) if pixel_weights else None,
    )


def _encode_images(generator: Generator, pictures: Sequence[UInt8Image], cached: Sequence[Latent | None]) -> Tensor:
    """Return the latents of pictures, computing those that are not cached."""
    missing = [picture for picture, latent in zip(pictures, cached) if latent is None]
    if len(missing) == len(pictures):
        return generator.encode_image(np.stack(pictures))
    fresh = iter(generator.encode_image(np.stack(missing)) if missing else ())
    return torch.stack([next(fresh).cpu() if latent is None else torch.from_numpy(latent) for latent in cached])


def _encode_text(generator: Generator, examples: Sequence[Example], cached: Sequence[CachedEncoding]) -> Any:
    """Return the condition of the prompts, computing those that are not cached."""
    if all(k.condition is None for k in cached):
        return generator.encode_text([e.prompt for e in examples], [e.source for e in examples])
    frozen = generator.spec.frozen
    assert frozen is not None
    rows = [
        generator.encode_text([e.prompt], [e.source])
        if k.condition is None
        else from_arrays(k.condition, frozen.condition)
        for e, k in zip(examples, cached)
    ]
    return stack_rows([to_device(row, torch.device("cpu")) for row in rows])


def pool_weights(examples: Sequence[Example], downsampling: int) -> Tensor:
    """Return the weight (B, 1, H, W) of each latent position: the mean over its pixels; 1 where nothing is said."""
    ones = np.ones(examples[0].target.shape[:2], np.float32)
    weights = np.stack([ones if e.weight is None else e.weight for e in examples])
    return torch.nn.functional.avg_pool2d(torch.from_numpy(weights)[:, None], downsampling)


def draw_noise(seed: int, indices: Sequence[int], shape_CHW: Sequence[int]) -> Tensor:
    """Draw standard normal noise (B, C, H, W), each row a function of (seed, its global index) alone."""
    rows = [
        np.random.default_rng([_NOISE, seed, index]).standard_normal(tuple(shape_CHW), np.float32) for index in indices
    ]
    return torch.from_numpy(np.stack(rows))


def draw_sigma(
    seed: int, indices: Sequence[int], means: Sequence[float], std: float, at_one: Sequence[float] = ()
) -> Tensor:
    """Draw noise levels (B,) in (0, 1]: logit-normal, each a function of (seed, its global index) alone.

    Args:
        at_one: for each, the probability that the level is 1 instead.

    Source: logit-normal levels of SD3, arXiv 2403.03206; a mean per kind of task is ours: dense answers are decided at
    high noise (with mean 0 the same model stayed at AbsRel 1.3 where mean +1.2 reached 0.2).
    """
    generators = [np.random.default_rng([_NOISE + 1, seed, index]) for index in indices]
    logits = np.asarray(means) + std * np.asarray([generator.standard_normal() for generator in generators])
    levels = 1 / (1 + np.exp(-logits))
    for row, share in enumerate(at_one):
        if share and generators[row].random() < share:
            levels[row] = 1.0
    return torch.from_numpy(levels.astype(np.float32))


def flow_matching_loss(
    generator: Generator,
    batch: Batch,
    sigma_B: Tensor,
    noise_BCHW: Tensor,
    predict: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return the mean squared error (B,) of each example, in x for x-models and in v for v-models.

    With weights it is their weighted mean; an example without a pixel that counts has no loss.

    Args:
        predict: in place of `generator.predict`: the same, wrapped for training on several processes.
    """
    sigma = sigma_B[:, None, None, None]
    noisy = (1 - sigma) * batch.clean_BCHW + sigma * noise_BCHW
    predicted = (predict or generator.predict)(
        noisy, sigma_B, batch.reference_BCHW, batch.has_reference_B, batch.condition
    )
    truth = batch.clean_BCHW if generator.spec.prediction == "x" else noise_BCHW - batch.clean_BCHW
    squared = (predicted - truth).square()
    if batch.weight_B1HW is None:
        return squared.mean(dim=(1, 2, 3))
    total = batch.weight_B1HW.sum(dim=(1, 2, 3)) * squared.shape[1]
    return (squared * batch.weight_B1HW).sum(dim=(1, 2, 3)) / total.clamp(min=torch.finfo(total.dtype).tiny)
