"""Weights on disk: digests that identify a model, and tensors read without running pickled code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import Place, exists, file_sha256, files_below, join, size_of


def load_tensors(path: Path) -> Any:
    """Load what `torch.save` wrote, to the CPU; no pickled code is ever run.

    Raises:
        Exception: whatever the first wrong byte leads zipfile or torch to; ValueError where a hash is not right.
    """
    import torch  # not at the top: a lineage is traced without torch

    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()  # torch does not look at the hashes
    if damaged is not None:
        raise ValueError(f"the hash of {damaged} is not that of its bytes")
    return torch.load(path, map_location="cpu", weights_only=True)


def model_digest(folder: Place) -> str:
    """Digest a generator: by the bytes of its files; a model in diffusers' layout, by configurations and file sizes.

    Raises:
        InputError: neither is there.
    """
    if exists(join(folder, "generator.json")):
        return digest({name: file_sha256(join(folder, name)) for name in files_below(folder)})
    if not exists(join(folder, "model_index.json")):
        raise InputError(f"{folder}: no trained generator there; run its training first")
    return layout_digest(folder)


def layout_digest(folder: Place) -> str:
    """Digest a model in diffusers' layout, whose weights are too large to be hashed every time."""
    facts: dict[str, str | int] = {}
    for name in files_below(folder):
        if name.endswith(".json"):
            facts[name] = file_sha256(join(folder, name))
        elif name.endswith(".safetensors"):
            facts[name] = size_of(join(folder, name))
    return digest(facts)
