"""Losses for TensorBoard and Weights & Biases, when a configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from encoders.sample import InputError
from trainer.config import TrainConfig

Tracker = Callable[[int, Mapping[str, float]], None]
"""Takes a step, and values by name."""


def open_trackers(config: TrainConfig, out: Path) -> list[Tracker]:
    """Open what `config.track` names.

    Raises:
        InputError: it is not installed.
    """
    return [_tensorboard(out) if name == "tensorboard" else _wandb(config, out) for name in config.track]


def _tensorboard(out: Path) -> Tracker:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise InputError("track: tensorboard is not installed; pip install tensorboard, or leave it out") from None
    writer = SummaryWriter(out / "tensorboard")

    def track(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track


def _wandb(config: TrainConfig, out: Path) -> Tracker:
    try:
        import wandb  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise InputError("track: wandb is not installed; pip install wandb, or leave it out") from None
    run = wandb.init(project="cavendish", name=out.name, dir=out, config=config.model_dump(mode="json"))

    def track(step: int, values: Mapping[str, float]) -> None:
        run.log(dict(values), step=step)

    return track
