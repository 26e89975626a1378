"""The tables of a run: loss.csv, ratios.csv and evaluation.csv, begun, continued after a break, and added to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from encoders.sample import InputError
from mixing.accounting import RatioRow
from mixing.storage import write_atomic

LOSS_COLUMNS = ("step", "source", "task", "loss", "examples")
EVALUATION_COLUMNS = ("step", "set", "task", "who", "metric", "value")
RATIO_COLUMNS = ("step", *(field.name for field in fields(RatioRow)))


def start_table(path: Path, columns: Sequence[str]) -> None:
    """Write the heading of a table, and nothing else."""
    write_atomic(path, (",".join(columns) + "\n").encode())


def keep_rows(path: Path, columns: Sequence[str], step: int) -> None:
    """Drop the rows that were logged after the checkpoint of `step`, the last of which may be half written.

    Raises:
        InputError: the table is not there, or damaged.
    """
    if not path.exists():
        raise InputError(f"{path}: not there, but its checkpoints are; choose another --out, or delete that folder")
    try:
        with path.open(newline="") as file:
            heading, *rows = [row for row in csv.reader(file) if len(row) == len(columns)]
        if heading != list(columns):
            raise ValueError(f"its heading is not {','.join(columns)}")
        rows = [heading, *(row for row in rows if int(row[0]) <= step)]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: damaged: {error}; choose another --out, or delete that folder") from None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, text.getvalue().encode())


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
