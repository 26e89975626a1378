"""One step: a batch is computed in passes of pictures of one size, whose gradients add up to those of the whole batch.

A batch is the items batch * b to batch * (b + 1) - 1 of the mixture whatever their sizes, so that nothing is left over,
read twice or held back for a fuller batch, and the state of a run is its number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.loss import Batch, draw_noise, draw_sigma, flow_matching_loss, make_batch
from cavendish.trainer.parallel import (
    Process,
    autocast,
    group_by_size,
    max_over_ranks,
    sync_gradients,
    to_device,
    to_full_cpu,
)
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.precompute import CachedItem, Item
from cavendish.trainer.training.run import Run


def rank_indices(b: int, batch: int, process: Process) -> range:
    """Return the global numbers of batch b that this process takes."""
    size = batch // process.world
    first = b * batch + process.rank * size
    return range(first, first + size)


def split_passes(sizes: Sequence[tuple[int, ...]], most: int) -> list[list[int]]:
    """Cut a batch into passes of at most `most` pictures of one size; return their places in the batch.

    Args:
        sizes: (H, W) of each picture.
    """
    return [alike[start : start + most] for alike in group_by_size(sizes) for start in range(0, len(alike), most)]


def train_step(run: Run, items: Sequence[Item], config: TrainConfig) -> list[float]:
    """Take one optimizer step; return the loss of each example of this process.

    A step whose loss or gradient is not finite changes nothing: it is counted, and its losses are NaN.

    Raises:
        RunStopped: too many steps in a row were not finite.
    """
    run.optimizer.zero_grad(set_to_none=True)
    draws = rank_indices(run.step, config.batch, run.process)
    passes = split_passes([item.example.target.shape[:2] for item in items], len(items) // config.accumulate)
    count = len(passes) if config.buckets is None else max_over_ranks(len(passes), run.process)
    losses = [0.0] * len(items)
    for number in range(count):
        idle = number >= len(passes)  # another process has more passes, and all gather and share the weights together
        rows = [0] if idle else passes[number]
        with sync_gradients(run.predict, last=number == count - 1):
            losses_B = _losses(run, [items[row] for row in rows], [draws[row] for row in rows], config)
            loss = losses_B.mean() * (0 if idle else len(rows) / len(items))
            loss.backward()  # type: ignore[no-untyped-call]
        if not idle:
            for row, value in zip(rows, losses_B.tolist()):
                losses[row] = value
    norm = to_full_cpu(torch.nn.utils.clip_grad_norm_(list(run.parameters.values()), config.clip_norm))
    finite = all(map(math.isfinite, (*losses, norm.item())))
    if max_over_ranks(int(not finite), run.process):
        run.skip_step([item.example.key for item in items])
        return [math.nan] * len(items)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate_at(run.step, config)
    run.optimizer.step()
    run.update_ema()
    run.skipped_in_a_row = 0
    return losses


def batch_of(generator: Generator, items: Sequence[Item], pixel_weights: bool = False) -> Batch:
    """Encode the examples of items of one size, with what was computed before of them."""
    cached = [item.cached for item in items if isinstance(item, CachedItem)]
    return make_batch(generator, [item.example for item in items], pixel_weights, cached)


def _losses(run: Run, items: Sequence[Item], draws: Sequence[int], config: TrainConfig) -> torch.Tensor:
    """Return the loss (B,) of each item, with the noise of its draw."""
    device = run.process.device
    batch = to_device(batch_of(run.generator, items, config.pixel_weights), device)
    sigma_B = sigma_of(items, draws, config).to(device)
    noise_BCHW = draw_noise(config.seed, draws, batch.clean_BCHW.shape[1:]).to(device)
    with autocast(config.precision, run.process.device):
        return flow_matching_loss(run.generator, batch, sigma_B, noise_BCHW, run.predict)


def sigma_of(items: Sequence[Item], draws: Sequence[int], config: TrainConfig) -> torch.Tensor:
    """Draw the noise level (B,) of each item."""
    means = [config.sigma.mean_of(item.kind) for item in items]
    at_one = [config.sigma.vision_at_one if item.kind == "vision" else 0.0 for item in items]
    return draw_sigma(config.seed, draws, means, config.sigma.std, at_one)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then a cosine down to its final share."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    share = config.final_learning_rate + (1 - config.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * share
