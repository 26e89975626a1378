"""A few batches of a training run, for `cavendish plan`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.jobs.estimate import Stage, Trial
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.mixture.statistics import simulate
from cavendish.trainer.training.config import TrainConfig

_MANY_EPOCHS = 100


def train_stage(config: TrainConfig, data: Path, units: int) -> Stage:
    """Return what a training run is, with a trial of a few of its batches.

    Raises:
        InputError: the lock or the base is not there, or the run is to use a GPU, whose time a CPU clock does not tell.
    """
    if config.device != "cpu":
        raise InputError(
            f"device {config.device}: a plan counts CPU time; `cavendish train --dry-run` times a step on it"
        )
    lock = read_lock(data / config.lock)
    return Stage(
        verb="train",
        unit="batch",
        units=math.ceil(config.steps / config.repeats),
        units_per_shard=math.ceil(config.steps / config.repeats),
        shard_key="",
        trial=Trial(partial(train_batch, config, data), shards=3 * units, units=1, count_rejected=True),
        samples_per_unit=config.batch,
        divisible=True,
        fixed_bytes=(config.keep_checkpoints * 4 + 1) * parameter_bytes(config, data),
        warn=partial(worn_out, lock),
    )


def parameter_bytes(config: TrainConfig, data: Path) -> int:
    """Return the bytes of what is trained: a checkpoint holds it, its average and the optimiser's two moments."""
    from cavendish.trainer.training.run import start_generator

    generator, _ = start_generator(config, data)
    return sum(p.numel() * p.element_size() for p in generator.module().parameters() if p.requires_grad)


def worn_out(lock: Lock, examples: int) -> tuple[str, ...]:
    """Say which records would be drawn very often in a run of so many examples."""
    rows = [row for row in simulate(lock, max(1, examples)).streams if row.epochs > _MANY_EPOCHS]
    if not rows:
        return ()
    worst = max(rows, key=lambda row: row.epochs)
    return (
        f"{worst.stream.name}: each of its {worst.stream.pool:,} records is drawn {worst.epochs:,.0f} times, and of "
        f"{len(rows)} streams more than {_MANY_EPOCHS} times: add records, or lower their share",
    )


def train_batch(config: TrainConfig, data: Path, index: int) -> Iterator[Rejection]:
    """Read a batch and take the steps on it."""
    from cavendish.trainer.training.step import learn_from

    run, items = _prepared(config.model_dump_json(), data)
    batch = [items[number] for number in range(index * config.batch, (index + 1) * config.batch)]
    for _ in range(config.repeats):
        learn_from(run, batch, config)
        run.step += 1
    yield Rejection(f"batch {index}", "done")


@cache
def _prepared(config: str, data: Path):  # type: ignore[no-untyped-def]
    import torch

    from cavendish.trainer.training.parallel import joined
    from cavendish.trainer.training.run import Run
    from cavendish.trainer.training.train import open_mixture

    settings = TrainConfig.model_validate_json(config).model_copy(update={"parallel": "none", "relock": False})
    torch.set_num_threads(settings.threads)
    _, items = open_mixture(settings, Path("unused"), data)
    with joined(settings) as process:
        return Run(settings, data, process), items
