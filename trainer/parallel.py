"""One process or many: the same loop runs alone, with replicas (DDP) or with shards of the weights (FSDP2).

Every process computes an equal part of each batch. Nothing random depends on the process, so that the numbers of a run
do not depend on how many there are, beyond rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from encoders.sample import InputError
from trainer.config import TrainConfig
from trainer.generators.protocol import Generator

Predict = Callable[..., Tensor]


@dataclass(frozen=True)
class Place:
    """Which process this is, of how many, and the device it computes on."""

    rank: int
    world: int
    device: torch.device


ALONE = Place(0, 1, torch.device("cpu"))
TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others, when joining them too, before it fails and torchrun starts all again."""
PATIENCE = timedelta(hours=24)
"""How long the others wait while the first scores answers; should it die they are told at once."""


@contextlib.contextmanager
def joined(config: TrainConfig) -> Iterator[Place]:
    """Join the processes of torchrun, when `config.parallel` says so, for as long as the context lasts.

    Raises:
        InputError: not started by torchrun, or started by it without `parallel`; a batch that cannot be shared equally.
    """
    world = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but torch sees no GPU; set device=cpu")
    if config.parallel == "none":
        if world > 1:
            raise InputError(f"parallel: none, but there are {world} processes; set parallel=ddp or parallel=fsdp")
        yield Place(0, 1, torch.device(config.device))
        return
    if not dist.is_initialized() and "RANK" not in os.environ:
        raise InputError(f"parallel: {config.parallel} is started by torchrun; docs/training.md has the command line")
    if config.batch % (world * config.accumulate):
        raise InputError(
            f"batch {config.batch} cannot be cut into {world} processes x {config.accumulate} (accumulate) equal parts"
        )
    device = torch.device(config.device)
    if config.device == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if config.device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if mine:
            dist.destroy_process_group()


def spread(generator: Generator, config: TrainConfig, place: Place) -> Predict:
    """Move the generator to its device, compile it and share it as `config` says; return what predicts in training."""
    module = generator.module()
    for part in vars(generator).values():
        if isinstance(part, nn.Module) and part is not module:
            part.to(place.device)
    units = _units(module) if config.parallel == "fsdp" else [module]
    if config.compile:
        for unit in units:
            unit.compile()
    if config.parallel == "fsdp":
        mesh = init_device_mesh(place.device.type, (place.world,))
        for unit in (*units, module):
            fully_shard(unit, mesh=mesh)
        return generator.predict
    module.to(place.device)
    if config.parallel == "ddp":
        return DistributedDataParallel(_Predict(generator), forward_sync_buffers=False, find_unused_parameters=True)
    return generator.predict


class _Predict(nn.Module):
    """`Generator.predict` as the forward pass of a module, for DDP to see where it begins and ends."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.network = generator.module()
        self._predict = generator.predict

    def forward(self, *values: Any) -> Tensor:
        return self._predict(*values)


def _units(module: nn.Module) -> list[nn.Module]:
    """List the blocks whose weights are gathered together: the elements of the outermost lists of modules."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _units(child)
    return found


def sharing_gradients(predict: Predict, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Let the processes add up their gradients in the last part of a batch only."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if isinstance(predict, DistributedDataParallel) and not last:
        return predict.no_sync()
    return contextlib.nullcontext()


def reshard(module: nn.Module) -> None:
    """Let go of gathered weights, which a forward pass leaves that no backward pass followed; before changing them."""
    for unit in module.modules():
        if isinstance(unit, FSDPModule):
            unit.reshard()


def computing(config: TrainConfig, place: Place) -> AbstractContextManager[Any]:
    """Compute in `config.precision`: matrix products in bfloat16, sums and norms in float32."""
    return torch.autocast(place.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


def moved(value: Any, device: torch.device) -> Any:
    """Move a tensor, or the tensors of a dataclass, to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: moved(getattr(value, field.name), device) for field in fields(value)})
    return value


def device_of(generator: Generator) -> torch.device:
    """Return where the weights are; the CPU when there are none."""
    return next((p.device for p in generator.module().parameters()), torch.device("cpu"))


def gathered(value: Any, place: Place) -> list[Any]:
    """Return the `value` of every process, in order of rank."""
    if place.world == 1:
        return [value]
    values: list[Any] = [None] * place.world
    dist.all_gather_object(values, value)
    return values


def gathered_by_first(value: Any, place: Place) -> list[Any]:
    """Return the `value` of every process on the first, in order of rank; nothing on the others."""
    if place.world == 1:
        return [value]
    values: list[Any] | None = [None] * place.world if place.rank == 0 else None
    dist.gather_object(value, values)
    return values or []


def turns(count: int, batch_size: int, place: Place) -> list[list[int]]:
    """Share the positions 0..count - 1 in batches, as many for every process, since shards are gathered by all or none.

    A process that has none left at the end takes the last position once more.
    """
    stride = batch_size * place.world
    first = place.rank * batch_size
    starts = range(first, first + -(-count // stride) * stride, stride)
    return [list(range(start, min(start + batch_size, count))) or [count - 1] for start in starts]


@contextlib.contextmanager
def first_alone(place: Place) -> Iterator[bool]:
    """Give True to the first process, which may take hours; the others wait for it where the block ends."""
    if place.world == 1:
        yield True
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield place.rank == 0
        dist.barrier(group)
    finally:
        dist.destroy_process_group(group)


def wait_for_all(place: Place) -> None:
    """Go on when every process has come here."""
    if place.world > 1:
        dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU with all of its shards; every process must ask."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def largest(number: int, place: Place) -> int:
    """Return the largest `number` of all processes."""
    if place.world == 1:
        return number
    numbers = torch.tensor(number, device=place.device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)
