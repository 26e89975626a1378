"""Which weights of a generator are trained: all, a LoRA, a share nearest the output, or those a pattern finds."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from cavendish.encoders.sample import InputError, one_line
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
    elif config.trainable is not None:
        _freeze_all_but(module, config.trainable)
    if config.gradient_checkpointing:
        if not hasattr(module, "enable_gradient_checkpointing"):
            raise InputError(f"gradient_checkpointing: {generator.spec.name} has none; set it to false")
        module.enable_gradient_checkpointing()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return describe_trainable(module)


def describe_trainable(module: nn.Module) -> str:
    """Say how many parameters there are, and how many are trained."""
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"


def _add_lora(generator: Generator, lora: LoraSettings) -> None:
    module = generator.module()
    targets = lora.targets or generator.spec.lora_targets
    known = getattr(module, "peft_config", {}).get("default")
    if known is not None:  # the base is a LoRA: go on with it
        if (known.r, known.lora_alpha) != (lora.rank, lora.alpha):
            raise InputError(
                f"lora: the base has a LoRA of rank {known.r} and alpha {known.lora_alpha}, the configuration says "
                f"{lora.rank} and {lora.alpha}; give those of the base"
            )
        return
    if hasattr(module, "add_adapter"):
        from cavendish.trainer.generators.diffusers_folder import add_lora

        add_lora(module, lora.rank, lora.alpha, targets)
        return
    require_extra("generators", "peft")
    from peft import LoraConfig, inject_adapter_in_model

    module.requires_grad_(False)
    try:
        inject_adapter_in_model(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets), module)
    except ValueError as error:
        raise InputError(f"lora targets {targets!r}: {one_line(error)}") from None


def merge_lora(generator: Generator) -> None:
    """Add a LoRA to the weights beside it where the generator has no format of its own for LoRAs."""
    module = generator.module()
    if hasattr(module, "add_adapter"):
        return
    layers = [(name, layer) for name, layer in module.named_modules() if hasattr(layer, "lora_A")]
    for name, layer in layers:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, layer.get_base_layer())


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
