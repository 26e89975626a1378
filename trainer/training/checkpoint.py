"""Checkpoints: the state of a run at a step, written atomically, read without running pickled code.

A single process writes one file. Several processes write a folder in the format of torch.distributed.checkpoint, to
which each writes what it holds; any number of processes can read it back. That state is one flat dict of tensors, and
facts.json beside it holds the step, the counts, and what the run is.
"""

from __future__ import annotations

import io
import pickle
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import commit, join, read_json, write_atomic
from cavendish.trainer.generators.weights import load_tensors
from cavendish.trainer.parallel import Process, barrier

SCHEMA = "cavendish-checkpoint/3"
SHARDED_SCHEMA = "cavendish-sharded-checkpoint/1"
_METADATA_CLASSES = "ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorProperties TensorStorageMetadata"
_ALLOWED_CLASSES = {
    "torch.distributed.checkpoint.metadata": {*_METADATA_CLASSES.split(), "_MEM_FORMAT_ENCODING"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32", "bfloat16"},
    "pathlib": {"PosixPath"},
}
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
        optimizer: the state dict of the optimizer.
        skipped: steps so far whose gradient was not finite; a file without it has none.
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
    skipped: int = 0


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


def step_of_name(name: str) -> int | None:
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
    values = {name: value for name, value in vars(state).items() if name != "skipped" or value}
    torch.save({"schema": SCHEMA, **values}, data)
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


def check_identity(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        InputError: names every key that differs, with both values.
    """
    missing = object()
    differing = [name for name in sorted({*found, *wanted}) if found.get(name, missing) != wanted.get(name, missing)]
    if differing:
        changes = "; ".join(f"{name} was {found.get(name)!r}, is {wanted.get(name)!r}" for name in differing)
        raise InputError(f"{path}: belongs to another run ({changes}). Choose another --out, or delete that folder")


class _Index(pickle.Unpickler):
    """Reads the index of a checkpoint, which torch pickles, with the classes of such an index alone."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED_CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """torch's reader, but nothing pickled in the folder is run."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata: Metadata = _Index(file).load()
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]
        return metadata


def write_sharded(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], keep: int, process: Process
) -> Path:
    """Write a checkpoint together with all other processes, then delete all but the newest `keep`."""
    path = folder / f"checkpoint-{step:06d}"
    staging = folder / f"{path.name}.tmp"
    if process.rank == 0:
        shutil.rmtree(staging, ignore_errors=True)
    barrier(process)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", UserWarning)  # that a single process is one
        save(tensors, checkpoint_id=staging)
    if process.rank == 0:
        write_atomic(staging / "facts.json", canonical_json({"schema": SHARDED_SCHEMA, "step": step, **facts}))
        commit(staging, path)
        delete_old(folder, keep)
    barrier(process)
    return path


def read_facts(path: Path | str) -> dict[str, Any]:
    """Read what a checkpoint, in a folder or at a URL, says of its run.

    Raises:
        InputError: not a checkpoint of this schema.
    """
    facts = read_json(join(path, "facts.json"), "the facts of a checkpoint")
    schema = facts.pop("schema", None) if isinstance(facts, dict) else None
    if schema != SHARDED_SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, this version reads {SHARDED_SCHEMA!r}")
    return dict(facts)


def read_sharded(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors`, whole or sharded in any way, from a checkpoint.

    Raises:
        InputError: damaged, or without one of the tensors.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", UserWarning)
            load(tensors, storage_reader=_Reader(path))
    except (CheckpointException, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        message = " ".join(str(error).split())[-200:]
        raise InputError(f"{path}: not a readable checkpoint: {type(error).__name__} {message}") from None
