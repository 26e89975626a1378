"""Checkpoints: one file with the whole state of a run, written atomically, read without running pickled code.

Runs of several processes write folders instead: see sharded_checkpoint.py.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.files import write_atomic

SCHEMA = "cavendish-checkpoint/3"
_NAME = re.compile(r"checkpoint-(\d{6,})(?:\.pt)?")


@dataclass(frozen=True)
class State:
    """Everything a run is at a step.

    Args:
        step: optimiser steps done; with the configuration it gives the position in the data.
        identity: what the run is (configuration, lock, base), by name; json-able.
        counts: examples seen so far by source, then task.
        replaced: records so far, by source, that another stood in for.
        ratios: what each rank has read of each stream, its share, and the share asked for; see
            `mixing.mixture.statistics.RatioRow` for the fields.
        tables: text of loss.csv and its like up to this step, by name.
        model, ema: what is trained, and its moving average, by parameter name.
        optimizer: the state dict of the optimiser.
    """

    step: int
    identity: dict[str, Any]
    counts: dict[str, dict[str, int]]
    replaced: dict[str, int]
    ratios: list[dict[str, Any]]
    tables: dict[str, str]
    model: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the checkpoint of a step."""
    return folder / f"checkpoint-{step:06d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first: files of one process, folders (without .pt) of several."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := _NAME.fullmatch(path.name)) and path.is_dir() == (path.suffix == "")
    ]
    return [path for _, path in sorted(found)]


def step_of(path: Path) -> int:
    """Return the step of a checkpoint that `checkpoints` lists."""
    step = step_named(path.name)
    assert step is not None
    return step


def step_named(name: str) -> int | None:
    """Return the step of the checkpoint of that name, or None when it is no checkpoint's."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def delete_old(folder: Path, keep: int) -> None:
    """Delete all checkpoints but the newest `keep`."""
    for old in checkpoints(folder)[:-keep]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()


def write_checkpoint(folder: Path, state: State, keep: int) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`."""
    data = io.BytesIO()
    torch.save({"schema": SCHEMA, **vars(state)}, data)
    path = checkpoint_path(folder, state.step)
    write_atomic(path, data.getvalue())
    delete_old(folder, keep)
    return path


def read_checkpoint(path: Path) -> State:
    """Read a checkpoint.

    Raises:
        InputError: not a checkpoint of this schema, or damaged; no pickled code is ever run.
    """
    try:
        values = load_tensors(path)
    except Exception as error:  # zipfile and torch raise whatever the first wrong byte leads to
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {one_line(error)}); "
            "delete it to continue from the one before"
        ) from None
    schema = values.pop("schema", None) if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, this version reads {SCHEMA!r}")
    try:
        return State(**values)
    except TypeError as error:
        raise InputError(f"{path}: a field is missing or unknown: {error}") from None


def load_tensors(path: Path) -> Any:
    """Load what `torch.save` wrote, to the CPU; no pickled code is ever run.

    Raises:
        Exception: whatever the first wrong byte leads zipfile or torch to; ValueError where a hash is not right.
    """
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()  # torch does not look at the hashes
    if damaged is not None:
        raise ValueError(f"the hash of {damaged} is not that of its bytes")
    return torch.load(path, map_location="cpu", weights_only=True)


def check_identity(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        InputError: names every key that differs, with both values.
    """
    missing = object()
    differing = [name for name in sorted({*found, *wanted}) if found.get(name, missing) != wanted.get(name, missing)]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)!r}, is {wanted.get(name)!r}" for name in differing)
        raise InputError(f"{path}: belongs to another run ({told}). Choose another --out, or delete that folder")
