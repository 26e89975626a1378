"""Generators in diffusers' folder layout: reading their parts without a hub, LoRA, and saving what was tuned.

What is saved is in the format of the library: a `transformer/` folder, or `pytorch_lora_weights.safetensors` with its
metadata, either of which a diffusers pipeline loads as it is; generator.json says which model they belong to.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import commit, read_json, write_atomic
from cavendish.trainer.generators.lora import LORA_FILE, load_lora, lora_layers
from cavendish.trainer.generators.weights import layout_digest


@dataclass(frozen=True)
class Origin:
    """Which model a generator is.

    Args:
        model: folder of the model in diffusers' layout.
        model_digest: of its configuration and the sizes of its weights.
        distilled: whether its model_index.json says so.
        tuned: folder that `save_tuned` wrote: its transformer replaces that of the model, its LoRA is added.
    """

    model: Path
    model_digest: str
    distilled: bool = False
    tuned: Path | None = None

    @property
    def transformer(self) -> Path:
        """The folder of the transformer's weights."""
        if self.tuned is not None and (self.tuned / "transformer").exists():
            return self.tuned / "transformer"
        return self.model / "transformer"


def read_origin(model: Path, tuned: Path | None = None) -> Origin:
    """Look at a model's folder.

    Raises:
        InputError: no model in diffusers' layout there, or a tuned folder without weights.
    """
    if not (model / "model_index.json").is_file():
        raise InputError(f"{model}: no model_index.json; download the model in diffusers' layout to this folder")
    if tuned is not None and not any((tuned / name).exists() for name in ("transformer", LORA_FILE)):
        raise InputError(f"{tuned}: no weights there: neither transformer/ nor {LORA_FILE}")
    index = read_json(model / "model_index.json", "a model in diffusers' layout")
    return Origin(model, layout_digest(model), bool(index.get("is_distilled")), tuned)


def read_part(kind: Any, folder: Path, part: str, dtype: torch.dtype | None = None) -> Any:
    """Load one part of a model from disk: safetensors only, no remote code, no network.

    Args:
        kind: a class with `from_pretrained`.
        dtype: of the weights; None for parts without any.

    Raises:
        InputError: the part is missing or damaged.
    """
    settings: dict[str, Any] = {} if dtype is None else {"torch_dtype": dtype, "use_safetensors": True}
    try:
        return kind.from_pretrained(folder / part, local_files_only=True, **settings)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{folder / part}: cannot be loaded as {kind.__name__}: {one_line(error)}") from None


def read_transformer(kind: Any, origin: Origin, dtype: torch.dtype) -> Any:
    """Load a model's transformer, or the tuned one of a folder that `save_tuned` wrote, with its LoRA if it has one.

    Raises:
        InputError: it is missing or damaged.
    """
    transformer = read_part(kind, origin.transformer.parent, "transformer", dtype)
    if origin.tuned is not None and (origin.tuned / LORA_FILE).exists():
        load_lora(transformer, origin.tuned)
    return transformer


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file: its order changes between runs, and equal LoRAs are to be equal bytes.

    Source: https://huggingface.co/docs/safetensors: 8 bytes little endian, the length of the json that follows.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def _link_or_copy(source: str, target: str) -> None:
    """Let two folders share a file of gigabytes, which is replaced and never written to; where they cannot, copy it."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def save_tuned(folder: Path, name: str, origin: Origin, transformer: Any, pipeline: Any) -> None:
    """Write generator.json and the transformer, or its LoRA when it has one; atomically.

    A LoRA over a tuned transformer is saved with that transformer: on the model alone it would be another generator.
    The metadata of a LoRA goes with it: without, diffusers reads it back with alpha = rank, silently.
    """
    staging = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if lora_layers(transformer):
        pipeline.save_lora_weights(
            staging,
            transformer_lora_layers=get_peft_model_state_dict(transformer),
            transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
        )
        _sort_metadata(staging / LORA_FILE)
        if origin.transformer.parent == origin.tuned:
            shutil.copytree(origin.transformer, staging / "transformer", copy_function=_link_or_copy)
    else:
        transformer.save_pretrained(staging / "transformer")
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    values = {"name": name, "model": str(origin.model), "model_digest": origin.model_digest}
    write_atomic(staging / "generator.json", canonical_json(values))
    if folder.exists():
        shutil.rmtree(folder)
    commit(staging, folder)
