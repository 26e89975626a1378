"""The moving parts of a training run: what they are made of, and how they are kept and brought back."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.runners import JobFailed
from cavendish.mixing.lock import Lock
from cavendish.mixing.mixture.statistics import RatioRow, realised_ratios
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.generators.tiny import TinyGenerator
from cavendish.trainer.parallel import Process, all_gather, barrier, max_over_ranks, reshard, to_full_cpu, wrap_parallel
from cavendish.trainer.training.checkpoint import (
    State,
    check_identity,
    read_checkpoint,
    read_facts,
    read_sharded,
    write_checkpoint,
    write_sharded,
)
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.log import read_tables
from cavendish.trainer.training.trainable import choose_trainable, merge_lora

Seen = tuple[str, str, float, bool, int]
"""Source, task and loss of an example, whether it was read for this step, and how many records it stands in for."""


class RunStopped(JobFailed):
    """A run ends before its last step, or does not go on, as its configuration asks for; its state is kept."""


def start_generator(config: TrainConfig, data: Path) -> tuple[Generator, str]:
    """Make the generator that training starts from; also say how much of it is trained."""
    if config.base is not None:
        generator = load_generator(data / config.base, config.precision, config.needs_text_encoder)
    else:
        assert config.generator is not None
        generator = TinyGenerator(config.generator, config.seed)
    if generator.spec.distilled:
        raise InputError(f"base: {config.base} is a distilled model; tune the base model that it was distilled from")
    for height, width in config.buckets or ():
        if height % generator.spec.pixel_multiple or width % generator.spec.pixel_multiple:
            raise InputError(
                f"buckets: {height}x{width} (height x width): {generator.spec.name} draws multiples of "
                f"{generator.spec.pixel_multiple}"
            )
    return generator, choose_trainable(generator, config)


class Run:
    """A run at some step."""

    def __init__(self, config: TrainConfig, data: Path, process: Process) -> None:
        self.config, self.data, self.process = config, data, process
        self.generator, self.trained = start_generator(config, data)
        self.module = self.generator.module().train()
        self.predict = wrap_parallel(self.generator, process, config.parallel, config.compile)
        self.parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        decayed = [p for p in self.parameters.values() if p.ndim > 1]
        others = [p for p in self.parameters.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True if process.device.type == "cuda" else None,
        )
        self.step = 0
        self.skipped = self.skipped_in_a_row = 0  # steps whose gradient was not finite
        self.counts: dict[str, dict[str, int]] = {}
        self.replaced: dict[str, int] = {}
        self.told: set[str] = set()  # sources of which a damaged record was named
        self.seen: list[Seen] = []
        self.lock: Lock | None = None

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights; young averages move faster, so that they forget where they started."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - decay)

    def skip_step(self, keys: Sequence[str]) -> None:
        """Count a step that is skipped because its gradient is not finite.

        Raises:
            RunStopped: there were too many in a row.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        where = f"step {self.step + 1}: loss or gradient not finite (examples {', '.join(keys[:3])}, ...)"
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise RunStopped(
                f"{where}, and {self.skipped_in_a_row - 1} steps before it: the run stops. Checkpoints hold the state "
                "before; start again with a lower learning_rate or clip_norm"
            )
        if self.process.rank == 0:
            print(f"{where}; the step is skipped", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have the averaged weights in a block; afterwards every bit is as it was."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        reshard(self.module)
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.ema[name])
            self.ema[name].copy_(kept)

    def collect(self) -> dict[tuple[str, str], list[float]]:
        """Count what all processes have seen since the last time; return the finite losses by source and task."""
        losses: dict[tuple[str, str], list[float]] = {}
        for source, task, loss, read, replaced in (row for rows in all_gather(self.seen, self.process) for row in rows):
            if math.isfinite(loss):
                losses.setdefault((source, task), []).append(loss)
            if read:
                tasks = self.counts.setdefault(source, {})
                tasks[task] = tasks.get(task, 0) + 1
                if replaced:
                    self.replaced[source] = self.replaced.get(source, 0) + replaced
        self.seen.clear()
        return losses

    def ratios(self) -> list[RatioRow]:
        """Return what was read of each stream of the lock so far, beside what was asked for."""
        return [] if self.lock is None else realised_ratios(self.lock, self.lock.schedule(), self.counts, rank=0)

    def save(self, out: Path, identity: dict[str, Any]) -> None:
        """Write a checkpoint: a file when there is one process, else a folder to which each writes what it holds."""
        self._require_finite()
        facts: dict[str, Any] = {
            "identity": identity,
            "counts": self.counts,
            "replaced": self.replaced,
            "ratios": [asdict(row) for row in self.ratios()],
            "tables": read_tables(out) if self.process.rank == 0 else {},
            **({"skipped": self.skipped} if self.skipped else {}),
        }
        keep = self.config.keep_checkpoints
        if self.config.parallel == "none":
            model = {name: p.detach() for name, p in self.parameters.items()}
            state = State(step=self.step, **facts, model=model, ema=self.ema, optimizer=self.optimizer.state_dict())
            write_checkpoint(out, state, keep)
        else:
            write_sharded(out, self.step, dict(self._tensors()), facts, keep, self.process)

    @torch.no_grad()
    def _require_finite(self) -> None:
        """Raise RunStopped when a weight is NaN or infinite: it is never saved."""
        weights = [*self.parameters.values(), *self.ema.values()]
        held = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
        finite = bool(torch.stack([torch.isfinite(weight).all() for weight in held]).all())
        if max_over_ranks(int(not finite), self.process):
            raise RunStopped(
                f"step {self.step}: a weight is not finite, nothing is saved, the run stops. Checkpoints hold the "
                "state before; start again with a lower learning_rate"
            )

    def restore(self, path: Path, identity: dict[str, Any]) -> dict[str, str]:
        """Become what a checkpoint of either format holds, whatever number of processes wrote it; return its tables."""
        tensors = dict(self._tensors())
        if path.is_dir():
            facts = read_facts(path)
            check_identity(path, facts["identity"], identity)
            read_sharded(path, tensors)
        else:
            facts = vars(state := read_checkpoint(path))
            check_identity(path, state.identity, identity)
            self._fill(tensors, state)
        self.step, self.counts, self.replaced = facts["step"], facts["counts"], facts["replaced"]
        self.skipped = facts.get("skipped", 0)
        tables: dict[str, str] = facts["tables"]
        return tables

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor of the state under its name; a parameter that had no gradient yet gets its empty state."""
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            if not moments:
                empty = {key: torch.zeros_like(parameter).detach() for key in ("exp_avg", "exp_avg_sq")}
                moments.update({"step": torch.tensor(0.0), **empty})
            yield f"model.{name}", parameter.detach()
            yield f"ema.{name}", self.ema[name]
            for key in ("step", "exp_avg", "exp_avg_sq"):
                yield f"{key}.{name}", moments[key]

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor], state: State) -> None:
        """Copy the state of one process into tensors that may be sharded."""
        held = {f"model.{name}": value for name, value in state.model.items()}
        held |= {f"ema.{name}": value for name, value in state.ema.items()}
        names = {parameter: name for name, parameter in self.parameters.items()}
        ordered = [names[p] for group in self.optimizer.param_groups for p in group["params"]]
        for number, moments in state.optimizer["state"].items():
            held |= {f"{key}.{ordered[number]}": value for key, value in moments.items()}
        for name, value in held.items():
            mine = tensors[name]
            if isinstance(mine, DTensor):
                value = distribute_tensor(value.to(mine.device), mine.device_mesh, mine.placements)
            mine.copy_(value)

    def write_generator(self, folder: Path) -> None:
        """Write the generator with its averaged weights; what was sharded is put together on the first process."""
        self._require_finite()
        sharded = isinstance(self.module, FSDPModule)
        averages = {name: to_full_cpu(value) for name, value in self.ema.items()} if sharded else self.ema
        if self.process.rank == 0:
            generator = start_generator(self.config, self.data)[0] if sharded else self.generator
            parameters = dict(generator.module().named_parameters())
            with torch.no_grad():
                for name, value in averages.items():
                    parameters[name].copy_(value)
            if not hasattr(generator.module(), "add_adapter"):  # it has no format of its own for a LoRA
                merge_lora(generator.module())
            generator.save(folder)
        barrier(self.process)
