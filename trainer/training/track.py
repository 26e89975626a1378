"""Losses for TensorBoard and Weights & Biases, when a configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import digest
from cavendish.trainer.training.config import TrainConfig

Tracker = Callable[[int, Mapping[str, float]], None]
"""Takes a step, and values by name."""


def open_trackers(config: TrainConfig, out: Path, step: int = 0) -> list[Tracker]:
    """Open what `config.track` names, to go on after `step`.

    Raises:
        InputError: it is not installed.
    """
    return [_tensorboard(out, step) if name == "tensorboard" else _wandb(config, out) for name in config.track]


def _tensorboard(out: Path, step: int) -> Tracker:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise InputError("track: tensorboard is not installed; pip install tensorboard, or leave it out") from None
    writer = SummaryWriter(out / "tensorboard", purge_step=step + 1)  # what a killed run wrote after its checkpoint

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
    name = digest(str(out.resolve()))[:16]  # a run that is continued is one curve, where the server is reached
    values = config.model_dump(mode="json")
    run = wandb.init(
        project="cavendish",
        name=out.name,
        id=name,
        resume="allow",
        reinit="finish_previous",  # when a process trains several times
        dir=out,
        config=values,
    )

    def track(step: int, values: Mapping[str, float]) -> None:
        run.log(dict(values), step=step)

    return track
