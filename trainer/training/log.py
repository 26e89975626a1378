"""The tables of a run: loss.csv, ratios.csv and evaluation.csv, begun, continued after a break, and added to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from cavendish.mixing.mixture.statistics import RatioRow
from cavendish.mixing.storage.files import write_atomic

LOSS_COLUMNS = ("step", "source", "task", "loss", "examples")
EVALUATION_COLUMNS = ("step", "set", "task", "who", "metric", "value")
RATIO_COLUMNS = ("step", *(field.name for field in fields(RatioRow)))
TABLES = {"loss.csv": LOSS_COLUMNS, "ratios.csv": RATIO_COLUMNS, "evaluation.csv": EVALUATION_COLUMNS}


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
    return {"loss": math.fsum(every) / len(every), **means}
