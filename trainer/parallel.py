"""One process or many: the same loop runs alone, with replicas (DDP) or with shards of the weights (FSDP2).

Every process computes an equal part of each batch. Nothing random depends on the process, so that the numbers of a run
do not depend on how many there are, beyond rounding.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.protocol import Generator, Precision

Predict = Callable[..., Tensor]
Parallel = Literal["none", "ddp", "fsdp"]


@dataclass(frozen=True)
class Process:
    """Which process this is, of how many, and the device it computes on."""

    rank: int
    world: int
    device: torch.device


SINGLE_PROCESS = Process(0, 1, torch.device("cpu"))
TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others, when joining them too, before it fails and torchrun starts all again."""
RANK0_TIMEOUT = timedelta(hours=24)
"""How long the others wait while the first scores answers; should it die they are told at once."""


@contextlib.contextmanager
def init_distributed(parallel: Parallel, device: str) -> Iterator[Process]:
    """Join the processes of torchrun for as long as the context lasts.

    Args:
        parallel: "none" for a single process.
        device: "cpu", "cuda" or "cuda:1"; with several processes each gets a GPU of its own.

    Raises:
        InputError: not started by torchrun, or started by it without `parallel`; there is no such GPU.
    """
    world = world_size()
    found = find_device(device)
    if parallel == "none":
        if world > 1:
            raise InputError(f"parallel: none, but there are {world} processes; set parallel=ddp or parallel=fsdp")
        yield Process(0, 1, found)
        return
    if not dist.is_initialized() and "RANK" not in os.environ:
        raise InputError(f"parallel: {parallel} is started by torchrun; docs/training.md has the command line")
    if found.type == "cuda":
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(found)
    initialized = dist.is_initialized()
    if not initialized:
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), found)
    finally:
        if not initialized:
            dist.destroy_process_group()


def world_size() -> int:
    """Return how many processes there are or will be."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def find_device(name: str) -> torch.device:
    """Return a device by name.

    Raises:
        InputError: there is no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device: {name}: cpu, cuda or cuda:NUMBER")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {name}, but torch sees {torch.cuda.device_count()} GPUs; set device=cpu")
    return device


def started_by_torchrun() -> Parallel:
    """Return how work that needs no gradients is shared: "ddp" among the processes of torchrun, else "none"."""
    return "ddp" if world_size() > 1 else "none"


def move_generator(generator: Generator, device: torch.device) -> Generator:
    """Move all parts of a generator to a device; return it."""
    for part in (generator.module(), *frozen_parts(generator)):
        part.to(device)
    return generator


def wrap_parallel(generator: Generator, process: Process, parallel: Parallel, compile: bool) -> Predict:
    """Move the generator to its device, compile it, replicate or shard it; return what predicts in training."""
    module = generator.module()
    for part in frozen_parts(generator):
        part.to(process.device)
    units = _units(module) if parallel == "fsdp" else [module]
    if compile:
        for unit in units:
            unit.compile()
    if parallel == "fsdp":
        mesh = init_device_mesh(process.device.type, (process.world,))
        for unit in (*units, module):
            fully_shard(unit, mesh=mesh)
        return generator.predict
    module.to(process.device)
    if parallel == "ddp":
        return DistributedDataParallel(_Predict(generator), forward_sync_buffers=False, find_unused_parameters=True)
    return generator.predict


def frozen_parts(generator: Generator) -> list[nn.Module]:
    """List the modules of a generator besides the trained network: text encoders, an autoencoder."""
    parts = [part for part in vars(generator).values() if isinstance(part, nn.Module)]
    return [part for part in parts if part is not generator.module()]


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


def sync_gradients(predict: Predict, last: bool) -> AbstractContextManager[Any]:
    """Sum the gradients of replicas in the last pass of a batch only; those of shards are always scattered.

    Shards that wait for the last pass would hold whole float32 gradients: 36 GB for 9 billion parameters.
    """
    if isinstance(predict, DistributedDataParallel) and not last:
        return predict.no_sync()
    return contextlib.nullcontext()


def reshard(module: nn.Module) -> None:
    """Let go of gathered weights, which a forward pass leaves that no backward pass followed; before changing them."""
    for unit in module.modules():
        if isinstance(unit, FSDPModule):
            unit.reshard()


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Compute in a precision: with "bfloat16" matrix products in it, sums and norms in float32.

    Without autocast's cache, which would keep a copy of every weight and so undo sharding.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def to_device(value: Any, device: torch.device) -> Any:
    """Move a tensor, or the tensors of a dataclass, to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: to_device(getattr(value, field.name), device) for field in fields(value)})
    return value


def device_of(generator: Generator) -> torch.device:
    """Return where the weights are; the CPU when there are none."""
    return next((p.device for p in generator.module().parameters()), torch.device("cpu"))


def all_gather(value: Any, process: Process) -> list[Any]:
    """Return the `value` of every process, in order of rank."""
    if process.world == 1:
        return [value]
    values: list[Any] = [None] * process.world
    dist.all_gather_object(values, value)
    return values


def gather_to_rank0(found: Mapping[int, Any], process: Process) -> list[Any]:
    """Return the values of all processes in order of position, on rank 0; an empty list on the others."""
    if process.world == 1:
        return [found[position] for position in sorted(found)]
    parts: list[Any] | None = [None] * process.world if process.rank == 0 else None
    dist.gather_object(found, parts)
    merged = {position: value for part in parts or () for position, value in part.items()}
    return [merged[position] for position in sorted(merged)]


def share_batches(count: int, batch_size: int, process: Process) -> list[list[int]]:
    """Share the positions 0..count - 1 in batches, as many for every process, since all gather shards together.

    A process without a position left at the end repeats the last one.
    """
    stride = batch_size * process.world
    first = process.rank * batch_size
    starts = range(first, first + -(-count // stride) * stride, stride)
    return [list(range(start, min(start + batch_size, count))) or [count - 1] for start in starts]


def group_by_size(sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Return the positions of each size, sizes in the order they first come in."""
    found: dict[tuple[int, ...], list[int]] = {}
    for position, size in enumerate(sizes):
        found.setdefault(size, []).append(position)
    return list(found.values())


def batches_by_size(sizes: Sequence[tuple[int, ...]], batch_size: int, process: Process) -> Iterator[list[int]]:
    """Share positions as `turns` does, in batches of one size."""
    for alike in group_by_size(sizes):
        for batch in share_batches(len(alike), batch_size, process):
            yield [alike[i] for i in batch]


@contextlib.contextmanager
def rank0_only(process: Process) -> Iterator[bool]:
    """Give True to rank 0, which may take hours; the others wait for it where the block ends."""
    if process.world == 1:
        yield True
        return
    group = dist.new_group(backend="gloo", timeout=RANK0_TIMEOUT)
    try:
        yield process.rank == 0
        dist.barrier(group)
    finally:
        dist.destroy_process_group(group)


def barrier(process: Process) -> None:
    """Wait until every process has come here."""
    if process.world > 1:
        dist.barrier()


def to_full_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor with all of its shards, on the CPU; a collective, called by every process."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def max_over_ranks(number: int, process: Process) -> int:
    """Return the largest `number` of all processes."""
    if process.world == 1:
        return number
    numbers = torch.tensor(number, device=process.device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)
