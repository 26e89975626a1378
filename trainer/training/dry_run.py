"""Before a run: what is trained, memory and time of a step, one batch as the model sees it, and the probe of a plan."""

from __future__ import annotations

import itertools
import math
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.mixture.statistics import simulate
from cavendish.trainer.generators.protocol import check_prompts
from cavendish.trainer.loss import draw_noise
from cavendish.trainer.parallel import frozen_parts, init_distributed, to_device
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.precompute import Item, Items, with_cached
from cavendish.trainer.training.run import Run, start_generator
from cavendish.trainer.training.step import batch_of, sigma_of, split_passes, train_step
from cavendish.trainer.training.train import open_mixture

_SHOWN = 8
_PROMPTS = 64  # whose length is looked at, spread over the run
_GIB = 2**30
_MANY_EPOCHS = 100
_STEPS, _STARVED = 4, 0.05


@dataclass(frozen=True)
class DryRun:
    """What was found.

    Args:
        trained: how many parameters there are, and how many are trained, in words.
        notes: how long the prompts are, and how many draws of noise lie round each level of sampling, in words.
        bytes_of: memory of one process that works alone, by what it is for.
        step_s: wall time of one step, after a first one.
        picture: PNG of the batch.
    """

    trained: str
    notes: tuple[str, ...]
    bytes_of: dict[str, int]
    step_s: float
    picture: Path

    def memory_bytes(self, processes: int, sharded: bool) -> int:
        """Estimate the memory of one process of several that share the batch, and the weights when `sharded`."""
        split = {"activations"} | ({"network", "gradients", "optimiser", "average"} if sharded else set())
        return sum(size // processes if name in split else size for name, size in self.bytes_of.items())

    def lines(self, config: TrainConfig) -> list[str]:
        """Say it in lines for people."""
        parts = [f"{name} {size / _GIB:.3f}" for name, size in self.bytes_of.items()]
        total = self.memory_bytes(1, False) / _GIB
        lines = [self.trained, f"memory alone, about {total:.3f} GiB: {', '.join(parts)}"]
        if config.parallel != "none":
            shares = [f"{n}: {self.memory_bytes(n, config.parallel == 'fsdp') / _GIB:.3f}" for n in (2, 4, 8)]
            lines.append(f"GiB for each of n processes ({config.parallel}): {', '.join(shares)}")
        lines.append(f"a step of {config.batch} on {config.device}, alone: {self.step_s:.3f} s")
        return [*lines, *self.notes, f"{self.picture}: the batch as the model sees it"]


def dry_run(items: Items, config: TrainConfig, out: Path, data: Path) -> DryRun:
    """Take two steps on the first batch, alone, and write nothing but a picture of it.

    Raises:
        InputError: whatever the run itself would refuse.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        single = config.model_copy(update={"parallel": "none"})
        with init_distributed("none", config.device) as process:
            run = Run(single, data, process)
            items = with_cached(items, run.generator.spec, config, data)
            prompts = _prompt_lengths(run, items, config)
            side = (config.size, config.size) if config.buckets is None else config.buckets[0]
            notes = (prompts, *_noise_shares(run, side))
            batch = [items[index] for index in range(config.batch)]
            activations = _activations(run, batch, single)
            start = time.perf_counter()
            train_step(run, batch, single)
            step_s = time.perf_counter() - start
            out.mkdir(parents=True, exist_ok=True)
            _picture(run, batch[:_SHOWN]).save(out / "batch.png")
    finally:
        torch.set_num_threads(threads)
    return DryRun(run.trained, notes, {**_held(run), "activations": activations}, step_s, out / "batch.png")


def _prompt_lengths(run: Run, items: Items, config: TrainConfig) -> str:
    """Measure the prompts of examples spread over the run.

    Raises:
        InputError: one is longer than the text encoder reads.
    """
    total = math.ceil(config.steps / config.repeats) * config.batch
    indices = sorted({total * number // _PROMPTS for number in range(_PROMPTS)})
    longest = check_prompts(run.generator, [items[index].example.prompt for index in indices])
    limit = run.generator.spec.max_text_tokens
    return f"the longest of {len(indices)} prompts has {longest} tokens of at most {limit}"


def _noise_shares(run: Run, side: tuple[int, int]) -> list[str]:
    """Say which share of the draws of noise lies round each level that four steps of sampling visit, by kind."""
    spec, sigma = run.generator.spec, run.config.sigma
    height, width = (pixels // spec.downsampling for pixels in side)
    levels = run.generator.noise_levels(height, width, _STEPS)[:-1]
    edges = [1.0, *((a + b) / 2 for a, b in itertools.pairwise(levels)), 1e-9]
    lines = []
    for kind in get_args(Kind):
        shares = [sigma.share_between(kind, low, high) for high, low in itertools.pairwise(edges)]
        told = ", ".join(f"{level:.3f}: {share:.1%}" for level, share in zip(levels, shares))
        starved = [f"{level:.3f}" for level, share in zip(levels, shares) if share < _STARVED]
        warning = f"; hardly any near {' and '.join(starved)}, raise its mean or vision_at_one" if starved else ""
        lines.append(f"draws of {kind} round the levels of {_STEPS} steps: {told}{warning}")
    return lines


def _held(run: Run) -> dict[str, int]:
    """Measure what is held between steps, in bytes."""
    trained = _bytes(run.parameters.values())
    moments = (value for state in run.optimizer.state.values() for value in state.values())
    return {
        "network": _bytes(run.module.parameters()),
        "other parts": sum(_bytes(part.parameters()) for part in frozen_parts(run.generator)),
        "gradients": trained,
        "optimiser": _bytes(moments),
        "average": _bytes(run.ema.values()),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _activations(run: Run, batch: list[Item], config: TrainConfig) -> int:
    """Take a step; return the bytes that its largest part kept for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in run.module.parameters()}
    kept: dict[int, int] = {}
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal largest
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            largest = max(largest, sum(kept.values()))
        return tensor

    for rows in _passes(batch, config.batch // config.accumulate):
        kept.clear()
        one_part = config.model_copy(update={"batch": len(rows), "accumulate": 1})
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            train_step(run, [batch[row] for row in rows], one_part)
        if config.buckets is None:
            break  # all are alike
    return largest


def _passes(items: Sequence[Item], most: int) -> list[list[int]]:
    return split_passes([item.example.target.shape[:2] for item in items], most)


def _picture(run: Run, items: Sequence[Item]) -> Image.Image:
    """Draw source, noisy and clean picture of each item after the way through the generator's latents."""
    config = run.config
    sigma_B = sigma_of(items, range(len(items)), config)
    shown = {
        row: seen for rows in _passes(items, len(items)) for row, seen in zip(rows, _seen(run, items, rows, sigma_B))
    }
    side = max(96, config.size if config.buckets is None else max(map(max, config.buckets)))
    sheet = Image.new("RGB", (3 * (side + 8) + 520, len(items) * (side + 8) + 26), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("source", "noisy", "target", "prompt")):
        draw.text((column * (side + 8) + 4, 8), title, "black")
    for row, item in enumerate(items):
        top = 26 + row * (side + 8)
        for column, picture in enumerate(shown[row]):
            if column or item.example.source is not None:
                sheet.paste(_scaled(picture, side), (column * (side + 8) + 4, top))
        text = f"{item.source} / {item.example.task}, sigma {sigma_B[row]:.2f}\n{_wrapped(item.example.prompt, side)}"
        draw.multiline_text((3 * (side + 8) + 4, top), text, "black", spacing=3)
    return sheet


def _seen(run: Run, items: Sequence[Item], rows: Sequence[int], sigma_B: Tensor) -> list[tuple[UInt8Image, ...]]:
    """Return source, noisy and clean picture of each row, all of one size."""
    batch = batch_of(run.generator, [items[row] for row in rows])
    sigma = sigma_B[list(rows), None, None, None]
    clean = to_device(batch.clean_BCHW, torch.device("cpu"))
    noisy = (1 - sigma) * clean + sigma * draw_noise(run.config.seed, rows, clean.shape[1:])
    with torch.no_grad():
        columns = [run.generator.decode(latents) for latents in (batch.reference_BCHW, noisy, clean)]
    return list(zip(*columns, strict=True))


def _scaled(picture: UInt8Image, side: int) -> Image.Image:
    """Return the picture with its longer side as given."""
    whole = Image.fromarray(np.ascontiguousarray(picture))
    share = side / max(whole.size)
    return whole.resize((round(whole.width * share), round(whole.height * share)), Image.Resampling.NEAREST)


def _wrapped(text: str, side: int) -> str:
    """Break a prompt into lines of 83 letters, and cut it where the row ends."""
    return textwrap.fill(text, 83, max_lines=side // 15 - 1, placeholder=" ...")


def train_probe(config: TrainConfig, data: Path, units: int) -> Probe:
    """Return a probe of a training run: a few of its batches.

    Raises:
        InputError: the lock or the base is not there, or the run is to use a GPU, whose time a CPU clock does not tell.
    """
    if config.device != "cpu":
        raise InputError(
            f"device {config.device}: a plan counts CPU time; `cavendish train --dry-run` times a step on it"
        )
    lock = read_lock(data / config.lock)
    return Probe(
        verb="train",
        unit="batch",
        units=math.ceil(config.steps / config.repeats),
        units_per_shard=math.ceil(config.steps / config.repeats),
        build=partial(_train_batch, config, data),
        trial_shards=3 * units,
        trial_units=1,
        samples_per_unit=config.batch,
        divisible=True,
        fixed_bytes=(config.keep_checkpoints * 4 + 1) * parameter_bytes(config, data),
        warnings=overused_streams(lock, math.ceil(config.steps / config.repeats) * config.batch),
    )


def parameter_bytes(config: TrainConfig, data: Path) -> int:
    """Return the bytes of what is trained: a checkpoint holds it, its average and the optimiser's two moments."""
    generator, _ = start_generator(config, data)
    return sum(p.numel() * p.element_size() for p in generator.module().parameters() if p.requires_grad)


def overused_streams(lock: Lock, examples: int) -> tuple[str, ...]:
    """Warn of streams whose records are drawn very often in a run of so many examples."""
    rows = [row for row in simulate(lock, max(1, examples)).streams if row.epochs > _MANY_EPOCHS]
    if not rows:
        return ()
    worst = max(rows, key=lambda row: row.epochs)
    return (
        f"{worst.stream.name}: each of its {worst.stream.pool:,} records is drawn {worst.epochs:,.0f} times, and of "
        f"{len(rows)} streams more than {_MANY_EPOCHS} times: add records, or lower their share",
    )


def _train_batch(config: TrainConfig, data: Path, index: int) -> Iterator[None]:
    """Read a batch and take the steps on it."""
    run, items = _prepared(config.model_dump_json(), data)
    batch = [items[number] for number in range(index * config.batch, (index + 1) * config.batch)]
    for _ in range(config.repeats):
        train_step(run, batch, config)
        run.step += 1
    yield None


@cache
def _prepared(config: str, data: Path) -> tuple[Run, Items]:
    settings = TrainConfig.model_validate_json(config).model_copy(update={"parallel": "none", "relock": False})
    torch.set_num_threads(settings.threads)
    _, items = open_mixture(settings, Path("unused"), data)
    with init_distributed("none", settings.device) as process:
        return Run(settings, data, process), items
