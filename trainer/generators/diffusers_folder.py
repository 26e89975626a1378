"""Generators in diffusers' folder layout: reading their parts without a hub, LoRA, and saving what was tuned.

What is saved is in the format of the library: a `transformer/` folder, or `pytorch_lora_weights.safetensors` with its
metadata, either of which a diffusers pipeline loads as it is; generator.json says which model they belong to.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import commit, write_atomic
from cavendish.trainer.generators.weights import layout_digest

LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Origin:
    """Which model a generator is: its folder, and a digest of its configuration and the sizes of its weights."""

    model: Path
    model_digest: str


def read_origin(model: Path) -> Origin:
    """Look at a model's folder.

    Raises:
        InputError: no model in diffusers' layout there.
    """
    if not (model / "model_index.json").is_file():
        raise InputError(f"{model}: no model_index.json; download the model in diffusers' layout to this folder")
    return Origin(model, layout_digest(model))


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


def read_transformer(kind: Any, model: Path, tuned: Path | None, dtype: torch.dtype) -> Any:
    """Load a model's transformer, or the tuned one of a folder that `save_tuned` wrote.

    Raises:
        InputError: it is missing or damaged.
    """
    if tuned is None or (tuned / LORA_FILE).exists():
        transformer = read_part(kind, model, "transformer", dtype)
        if tuned is not None:
            load_lora(transformer, tuned)
        return transformer
    return read_part(kind, tuned, "transformer", dtype)


def add_lora(transformer: Any, rank: int, alpha: float, targets: str | Iterable[str]) -> None:
    """Freeze a transformer and add trainable low-rank matrices to the linear layers that `targets` names.

    Raises:
        InputError: no layer has such a name.
    """
    transformer.requires_grad_(False)
    named = targets if isinstance(targets, str) else list(targets)
    try:
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=named), adapter_name="default")
    except ValueError as error:
        raise InputError(f"lora targets {named!r}: {one_line(error)}") from None


def has_lora(transformer: Any) -> bool:
    """Tell whether `add_lora` or `load_lora` was called."""
    return "default" in getattr(transformer, "peft_config", {})


def load_lora(transformer: Any, folder: Path) -> None:
    """Add the LoRA that `save_tuned` wrote, trainable.

    Raises:
        InputError: the file is damaged or of another model.
    """
    transformer.requires_grad_(False)
    try:
        transformer.load_lora_adapter(
            folder, weight_name=LORA_FILE, prefix="transformer", adapter_name="default", local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{folder / LORA_FILE}: cannot be loaded: {one_line(error)}") from None
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_("lora_" in name)


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


def save_tuned(folder: Path, name: str, origin: Origin, transformer: Any, pipeline: Any) -> None:
    """Write generator.json and the transformer, or only its LoRA when it has one; the folder is whole or not there.

    The metadata of a LoRA goes with it: without, diffusers reads it back with alpha = rank, silently.
    """
    staging = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if has_lora(transformer):
        pipeline.save_lora_weights(
            staging,
            transformer_lora_layers=get_peft_model_state_dict(transformer),
            transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
        )
        _sort_metadata(staging / LORA_FILE)
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
