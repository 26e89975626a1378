"""Logs of a run: the tables loss.csv, ratios.csv and evaluation.csv, and TensorBoard and Weights & Biases."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from cavendish.encoders.sample import InputError
from cavendish.mixing.mixture.statistics import RatioRow
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import write_atomic
from cavendish.trainer.training.config import TrainConfig

LOSS_COLUMNS = ("step", "source", "task", "loss", "examples")
EVALUATION_COLUMNS = ("step", "set", "task", "who", "metric", "value")
RATIO_COLUMNS = ("step", *(field.name for field in fields(RatioRow)))
TABLES = {"loss.csv": LOSS_COLUMNS, "ratios.csv": RATIO_COLUMNS, "evaluation.csv": EVALUATION_COLUMNS}

Tracker = Callable[[int, Mapping[str, float]], None]
"""Takes a step, and values by name."""


def read_tables(out: Path) -> dict[str, str]:
    """Return the texts of the tables that are there, for a checkpoint."""
    return {name: (out / name).read_text() for name in TABLES if (out / name).exists()}


def set_tables(out: Path, texts: Mapping[str, str], evaluates: bool) -> None:
    """Make the tables what they were at a checkpoint, or begin them; that of evaluations when there will be any.

    Rows that were logged after the checkpoint go, and so does any damage.
    """
    for name, columns in TABLES.items():
        if name in texts or name != "evaluation.csv" or evaluates:
            write_atomic(out / name, texts.get(name, ",".join(columns) + "\n").encode())
        else:
            (out / name).unlink(missing_ok=True)


def log_losses(path: Path, step: int, losses_by: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """Add the mean loss of each source and task."""
    with path.open("a") as file:
        for (source, task), losses in sorted(losses_by.items()):
            file.write(f"{step},{source},{task},{math.fsum(losses) / len(losses):.6g},{len(losses)}\n")


def log_ratios(path: Path, step: int, rows: Sequence[RatioRow]) -> None:
    """Add what was read of each stream so far."""
    with path.open("a") as file:
        for row in rows:
            file.write(f"{step},{row.rank},{row.source},{row.task},{row.examples},{row.share:.9g},{row.asked:.9g}\n")


def log_evaluation(path: Path, step: int, rows: Sequence[tuple[str, str, str, str, float]]) -> None:
    """Add what an evaluation measured: set, task, who answered, metric, value."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((step, *names, f"{value:.9g}") for *names, value in rows)
    with path.open("a") as file:
        file.write(text.getvalue())


def mean_losses(losses_by: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, float]:
    """Return the mean loss, and that of each source and task, under the names that trackers show."""
    every = [loss for losses in losses_by.values() for loss in losses]
    means = {f"loss/{source}/{task}": math.fsum(losses) / len(losses) for (source, task), losses in losses_by.items()}
    return {"loss": math.fsum(every) / len(every), **means} if every else {}


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
