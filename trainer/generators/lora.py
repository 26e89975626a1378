"""LoRA of a network of diffusers: added, read whole from the file of any trainer or refused, merged into the weights.

Trainers name layers in their own ways: as diffusers does, with the prefixes of peft or of other trainers, with
underscores for dots, or by the original names of FLUX, whose fused layers are several of diffusers'. Every tensor of a
file finds its layer here, or the file is refused with counts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.place import read_json

LORA_FILE = "pytorch_lora_weights.safetensors"
_METADATA_KEY = "lora_adapter_metadata"  # of diffusers
_PREFIXES = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "module."),
    *("lora_unet_", "lora_transformer_", "lycoris_"),
)
_MATRIX = re.compile(
    r"(?P<layer>.+?)\.(?:(?P<down>lora_A|lora_down|lora\.down)|lora_B|lora_up|lora\.up)(?:\.default)?\.weight"
)
_STREAMS = {
    "img": ("to_q", "to_k", "to_v", "to_out.0", "ff"),
    "txt": ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff_context"),
}


@dataclass
class LoraLayer:
    """The matrices of one layer, (rank, in) and (out, rank), and what scales them: alpha / rank."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


def add_lora(network: Any, rank: int, alpha: float, targets: str | Iterable[str]) -> None:
    """Freeze a network and add trainable low-rank matrices to the linear layers that `targets` names.

    Raises:
        InputError: no layer has such a name.
    """
    network.requires_grad_(False)
    named = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=named)
    try:
        if hasattr(network, "add_adapter"):
            network.add_adapter(config, adapter_name="default")
        else:
            inject_adapter_in_model(config, network)
    except ValueError as error:
        raise InputError(f"lora targets {named!r}: {one_line(error)}") from None


def lora_layers(network: nn.Module) -> dict[str, Any]:
    """Return the layers that have a LoRA, by name."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, BaseTunerLayer)}


def matching_layers(network: nn.Module, targets: str | Iterable[str]) -> set[str]:
    """Return the names of the linear layers that `targets` names, by the rules of peft."""
    config = LoraConfig(target_modules=targets if isinstance(targets, str) else list(targets))
    return {name for name in _linear_layers(network) if check_target_module_exists(config, name)}


def merge_lora(network: Any) -> list[tuple[nn.Parameter, torch.dtype]]:
    """Add the LoRA of a network to the weights beside it, and remove it; return these weights, and their dtypes before.

    They are float32 afterwards: a tune is smaller than the steps of bfloat16.
    """
    merged = []
    for name, layer in lora_layers(network).items():
        base = layer.get_base_layer()
        merged.append((base.weight, base.weight.dtype))
        base.weight.data = base.weight.data.float()
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, base)
    if hasattr(network, "peft_config"):
        del network.peft_config
        network._hf_peft_config_loaded = False
    return merged


def load_lora(network: Any, folder: Path) -> None:
    """Add the LoRA of a folder to a network, trainable.

    Raises:
        InputError: the file is damaged, or holds a tensor that is no part of a LoRA of this network.
    """
    path = folder / LORA_FILE
    layers, config = read_lora(path, network)
    network.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]):
            network.add_adapter(config, adapter_name="default")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged configuration of a LoRA: {one_line(error)}") from None
    added = lora_layers(network)
    if set(added) != set(layers):
        raise InputError(f"{path}: its configuration is of {len(added)} layers, its tensors of {len(layers)}")
    for name, layer in layers.items():
        matrices = ((added[name].lora_A, layer.down), (added[name].lora_B, layer.up))
        for module, tensor in matrices:
            assert tensor is not None
            weight = module["default"].weight
            if weight.shape != tensor.shape:
                raise InputError(f"{path}: {name} has rank {len(tensor)}, its configuration says {len(weight)}")
            weight.data = tensor.float()
            weight.requires_grad_(True)


def _config(layers: Mapping[str, LoraLayer]) -> LoraConfig:
    """Return a configuration of the ranks and alphas that the tensors have."""
    ranks = {name: len(layer.down) for name, layer in layers.items() if layer.down is not None}
    alphas = {name: ranks[name] if layer.alpha is None else layer.alpha for name, layer in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return LoraConfig(
        r=int(rank),
        lora_alpha=alpha,
        rank_pattern={f"^{re.escape(name)}": value for name, value in ranks.items() if value != rank},
        alpha_pattern={f"^{re.escape(name)}": value for name, value in alphas.items() if value != alpha},
        target_modules=_exactly(ranks),
    )


def read_lora(path: Path, network: nn.Module) -> tuple[dict[str, LoraLayer], LoraConfig]:
    """Read the layers and the configuration of the LoRA file of any trainer, all of whose tensors `network` has.

    A file that states no alpha, in its tensors, its metadata or an adapter_config.json beside it, is not scaled.

    Raises:
        InputError: damaged, or some of its tensors are of something else; says how many.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            stored = json.loads((opened.metadata() or {}).get(_METADATA_KEY, "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: cannot be loaded: {one_line(error)}") from None
    if stored is not None and not isinstance(stored, dict):
        raise InputError(f"{path}: damaged configuration of a LoRA: {str(stored)[:40]}")
    layers, unknown = _assign(tensors, network)
    incomplete = [name for name, layer in layers.items() if layer.down is None or layer.up is None]
    for reason, names in (
        ("belong to no layer of this model, or are no LoRA matrices", unknown),
        ("have no counterpart, lora_A or lora_B", incomplete),
    ):
        if names or not layers:
            first = f"; the first is {names[0]}" if names else ""
            raise InputError(f"{path}: {len(names)} of {len(tensors)} tensors {reason}{first}; the file is not loaded")
    try:
        if stored is not None:
            return layers, LoraConfig(**{key.removeprefix("transformer."): value for key, value in stored.items()})
        config = _peft_config(path.with_name("adapter_config.json"), layers)
        return layers, _config(layers) if config is None else LoraConfig(**config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged configuration of a LoRA: {one_line(error)}") from None


def _peft_config(path: Path, layers: Iterable[str]) -> dict[str, Any] | None:
    """Return what the adapter_config.json of peft says of ranks and scales; None where there is none."""
    if not path.exists():
        return None
    values = read_json(path, "the configuration of a LoRA")
    if values.get("use_dora"):
        raise InputError(f"{path}: use_dora is not supported; the LoRA is not loaded")
    known = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
    return {"target_modules": _exactly(layers), **{key: values[key] for key in known if key in values}}


def _exactly(layers: Iterable[str]) -> str:
    """Return a regular expression for these names and no others."""
    return "|".join(re.escape(name) for name in sorted(layers))


def _assign(tensors: Mapping[str, Tensor], network: nn.Module) -> tuple[dict[str, LoraLayer], list[str]]:
    """Sort tensors by the layer they belong to; return the names of those that belong to none too."""
    shapes = _linear_layers(network)
    names = _layer_names(shapes)
    found: dict[str, LoraLayer] = {}
    unknown = []
    for key, tensor in tensors.items():
        match = _MATRIX.fullmatch(key)
        layers = _find(match["layer"] if match else key.removesuffix(".alpha"), names)
        entries = [found.setdefault(name, LoraLayer()) for name in layers]
        out_features = [shapes[name][0] for name in layers]
        if match and match["down"] and layers and tensor.shape[1:] == (shapes[layers[0]][1],):
            for entry in entries:
                entry.down = tensor
        elif match and not match["down"] and layers and tensor.ndim == 2 and len(tensor) == sum(out_features):
            for entry, part in zip(entries, torch.split(tensor, out_features), strict=True):
                entry.up = part
        elif key.endswith(".alpha") and layers and tensor.numel() == 1:
            for entry in entries:
                entry.alpha = tensor.item()
        else:
            unknown.append(key)
    return found, unknown


def _linear_layers(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every linear layer by name; one with a LoRA under the name it has without."""
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and "lora_" not in name:
            found[name.removesuffix(".base_layer")] = (layer.out_features, layer.in_features)
    return found


def _find(name: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the layers of a name, without the prefixes of trainers; none where there are none."""
    while name not in names:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return ()
        name = name.removeprefix(prefix)
    return names[name]


def _layer_names(layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return every name that trainers give the layers of a network, with dots and with underscores."""
    layers = set(layers)
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in layers}
    for name in layers:
        for pattern, originals in _ORIGINAL_NAMES.items():
            if match := re.fullmatch(pattern, name):
                for original, fused in originals.items():
                    parts = tuple(match.expand(part) for part in fused)
                    if layers.issuperset(parts):
                        names[match.expand(original)] = parts
    return names | {name.replace(".", "_"): found for name, found in names.items()}


def _original_names() -> dict[str, dict[str, tuple[str, ...]]]:
    r"""Return the original names of the layers of FLUX.1 and FLUX.2, by a pattern of diffusers' name.

    Values map an original name to the layers of diffusers that it fuses, in order of rows; \1 is the block. The final
    modulation is left out: diffusers swaps the halves of its rows.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}

    def add(original: str, *layers: str) -> None:
        pattern = re.escape(layers[0]).replace(r"\\1", r"(\d+)")
        found.setdefault(pattern, {})[original] = layers

    for stream, (query, key, value, out, mlp) in _STREAMS.items():
        block, double = r"transformer_blocks.\1.", rf"double_blocks.\1.{stream}"
        add(f"{double}_attn.qkv", *(f"{block}attn.{name}" for name in (query, key, value)))
        add(f"{double}_attn.proj", f"{block}attn.{out}")
        for first, last in (("net.0.proj", "net.2"), ("linear_in", "linear_out")):
            add(f"{double}_mlp.0", f"{block}{mlp}.{first}")
            add(f"{double}_mlp.2", f"{block}{mlp}.{last}")
        add(f"{double}_mod.lin", f"{block}norm1{'_context' if stream == 'txt' else ''}.linear")
        add(f"double_stream_modulation_{stream}.lin", f"double_stream_modulation_{stream}.linear")
    block, single = r"single_transformer_blocks.\1.", r"single_blocks.\1."
    add(f"{single}linear1", *(f"{block}{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")))
    add(f"{single}linear1", f"{block}attn.to_qkv_mlp_proj")
    add(f"{single}linear2", f"{block}proj_out")
    add(f"{single}linear2", f"{block}attn.to_out")
    add(f"{single}modulation.lin", f"{block}norm.linear")
    add("single_stream_modulation.lin", "single_stream_modulation.linear")
    add("img_in", "x_embedder")
    add("txt_in", "context_embedder")
    add("final_layer.linear", "proj_out")
    for original, embedder in (("time_in", "timestep"), ("guidance_in", "guidance"), ("vector_in", "text")):
        for group in ("time_text_embed", "time_guidance_embed"):
            add(f"{original}.in_layer", f"{group}.{embedder}_embedder.linear_1")
            add(f"{original}.out_layer", f"{group}.{embedder}_embedder.linear_2")
    return found


_ORIGINAL_NAMES = _original_names()
