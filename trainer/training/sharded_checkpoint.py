"""Checkpoints of several processes: a folder in the format of torch.distributed.checkpoint, whole or not there.

Each process writes what it holds; any number of processes can read it back. The state is one flat dict of tensors, and
facts.json beside it holds the step, the counts, and what the run is.
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import canonical_json, commit, read_json, write_atomic
from cavendish.mixing.storage.place import join
from cavendish.trainer.training.checkpoint import delete_old
from cavendish.trainer.training.parallel import Process, wait_for_all

SCHEMA = "cavendish-sharded-checkpoint/1"
_METADATA = "ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorProperties TensorStorageMetadata"
_HARMLESS = {
    "torch.distributed.checkpoint.metadata": {*_METADATA.split(), "_MEM_FORMAT_ENCODING"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32", "bfloat16"},
    "pathlib": {"PosixPath"},
}


class _Index(pickle.Unpickler):
    """Reads the index of a checkpoint, which torch pickles, with the classes of such an index alone."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _HARMLESS.get(module, ()):
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
    wait_for_all(process)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", UserWarning)  # that a single process is one
        save(tensors, checkpoint_id=staging)
    if process.rank == 0:
        write_atomic(staging / "facts.json", canonical_json({"schema": SCHEMA, "step": step, **facts}))
        commit(staging, path)
        delete_old(folder, keep)
    wait_for_all(process)
    return path


def read_facts(path: Path | str) -> dict[str, Any]:
    """Read what a checkpoint, in a folder or at a URL, says of its run.

    Raises:
        InputError: not a checkpoint of this schema.
    """
    facts = read_json(join(path, "facts.json"), "the facts of a checkpoint")
    schema = facts.pop("schema", None) if isinstance(facts, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, this version reads {SCHEMA!r}")
    return dict(facts)


def load_sharded(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors`, whole or sharded in any way, from a checkpoint.

    Raises:
        InputError: damaged, or without one of the tensors.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", UserWarning)
            load(tensors, storage_reader=_Reader(path))
    except (CheckpointException, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        told = " ".join(str(error).split())[-200:]
        raise InputError(f"{path}: not a readable checkpoint: {type(error).__name__} {told}") from None
