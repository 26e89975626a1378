"""Which weights of a generator are trained: all, a LoRA, a share nearest the output, or those a pattern finds."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.training.config import LoraSettings, TrainConfig


def choose_trainable(generator: Generator, config: TrainConfig) -> str:
    """Freeze what `config` does not train, add its LoRA, and make what is trained float32.

    Returns:
        one line: how many parameters there are, and how many of them are trained.

    Raises:
        InputError: nothing would be trained, or the base has a LoRA of another shape.
    """
    module: Any = generator.module()
    if config.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            _add_lora(generator, config.lora)
    else:
        merged = merge_lora(module)
        module.requires_grad_(True)
        if config.trainable is not None:
            _freeze_all_but(module, config.trainable)
        for weight, dtype in merged:
            if not weight.requires_grad:
                weight.data = weight.data.to(dtype)
    if config.gradient_checkpointing:
        if not hasattr(module, "enable_gradient_checkpointing"):
            raise InputError(f"gradient_checkpointing: {generator.spec.name} has none; set it to false")
        module.enable_gradient_checkpointing()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"


def _add_lora(generator: Generator, lora: LoraSettings) -> None:
    module = generator.module()
    targets = lora.targets or generator.spec.lora_targets
    if hasattr(module, "peft_config"):  # the base is a LoRA: go on with it
        _check_same_lora(module, lora)
        return
    require_extra("generators", "peft")
    from cavendish.trainer.generators.lora import add_lora

    add_lora(module, lora.rank, lora.alpha, targets)


def _check_same_lora(module: nn.Module, lora: LoraSettings) -> None:
    """Refuse settings that the LoRA of the base does not have."""
    from cavendish.trainer.generators.lora import lora_layers, matching_layers

    layers = lora_layers(module)
    shapes = {(layer.r["default"], layer.lora_alpha["default"]) for layer in layers.values()}
    if shapes != {(lora.rank, lora.alpha)}:
        found = " and ".join(f"rank {rank}, alpha {alpha:g}" for rank, alpha in sorted(shapes))
        raise InputError(
            f"lora: the base has a LoRA of {found}, the configuration says rank {lora.rank}, alpha {lora.alpha:g}; "
            "give those of the base"
        )
    if lora.targets is not None and (wanted := matching_layers(module, lora.targets)) != set(layers):
        raise InputError(
            f"lora.targets: names {len(wanted)} layers, the LoRA of the base has {len(layers)}, and "
            f"{len(wanted & {*layers})} are in both; leave targets out to go on with those of the base"
        )


def merge_lora(module: nn.Module) -> list[tuple[nn.Parameter, torch.dtype]]:
    """Merge a LoRA as `generators.lora.merge_lora` does; without one nothing is done, and peft is not needed."""
    if not any(hasattr(layer, "lora_A") for layer in module.modules()):
        return []
    from cavendish.trainer.generators.lora import merge_lora as merge

    return merge(module)


def _freeze_all_but(module: nn.Module, trainable: float | str) -> None:
    named = list(module.named_parameters())
    if isinstance(trainable, str):
        kept = {name for name, _ in named if re.search(trainable, name)}
        if not kept:
            raise InputError(f"trainable: no parameter has {trainable!r} in its name; there is {named[0][0]}, for one")
    else:
        kept, wanted = set(), trainable * sum(p.numel() for _, p in named)
        for name, parameter in reversed(named):
            if wanted <= 0:
                break
            kept.add(name)
            wanted -= parameter.numel()
    for name, parameter in named:
        parameter.requires_grad_(name in kept)
