"""Trains a generator on a mixture: base training and instruction tuning are the same loop on different mixtures.

Everything random is a function of the seed and a global number (of an example, or of a draw of noise), so that the loss
curve does not depend on where a run was interrupted or how its data were read.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from encoders.sample import Example, InputError, Rejection
from mixing.accounting import RatioRow, realised_ratios
from mixing.engine import Progress
from mixing.loader import MixtureDataset
from mixing.lock import Lock, read_lock, verify_lock, write_lock
from mixing.mixture import Mixture, lock_mixture
from mixing.remote import is_url
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic
from trainer.checkpoint import State, check_identity, checkpoints, read_checkpoint, write_checkpoint
from trainer.config import HOW_NOT_WHAT, Kind, TrainConfig
from trainer.generators.folder import load_generator
from trainer.generators.protocol import Generator
from trainer.generators.tiny import TinyGenerator
from trainer.loss import draw_noise, draw_sigma, flow_matching_loss, make_batch

LOSS_COLUMNS = ("step", "source", "task", "loss", "examples")
RATIO_COLUMNS = ("step", *(field.name for field in fields(RatioRow)))


class Item(Protocol):
    """One element of a mixture: an example, the source it is from, its kind, and the records it stands in for."""

    @property
    def example(self) -> Example: ...
    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def replaced(self) -> Sequence[Rejection]: ...


class Items(Protocol):
    """A mixture as the trainer reads it: item i is a pure function of i, without end."""

    def __getitem__(self, index: int) -> Item: ...


@dataclass(frozen=True)
class TrainResult:
    """What a run made.

    Args:
        generator: folder of the trained generator (the moving average of its weights).
        loss_csv: mean loss by step, source and task.
        steps, examples: optimiser steps done, and examples read for them.
        counts: examples seen by source, then task.
        replaced: by source, records that were drawn but damaged or of no use, so that the next stood in.
        already: True when the run was finished before and nothing was done.
    """

    generator: Path
    loss_csv: Path
    steps: int
    examples: int
    counts: Mapping[str, Mapping[str, int]]
    replaced: Mapping[str, int]
    already: bool


def train(config: TrainConfig, out: Path, data: Path, progress: Progress | None = None) -> TrainResult:
    """Train on the mixture that `config.lock` names, from the last checkpoint in `out` when there is one.

    Args:
        out: folder for checkpoints, loss.csv, the resolved configuration and, at the end, `generator/`.
        data: folder that the paths in `config` and in the lock are relative to.
        progress: told (steps done, steps planned).

    Raises:
        InputError: the lock or the base cannot be read, shards are not as locked, or `out` holds another run.
    """
    lock = _locked(config, out, data)
    reading = config.reading
    if reading.cache is not None:
        reading = reading.model_copy(update={"cache": data / reading.cache})
    items = MixtureDataset(lock, config.shards or data, config.size, reading=reading)
    return train_on(items, lock.digest, config, out, data, progress, lock)


def _locked(config: TrainConfig, out: Path, data: Path) -> Lock:
    """Read the lock, and check that its shards are as they were; or lock the mixture again when `relock` says so."""
    lock = read_lock(data / config.lock)
    if is_url(config.shards) or config.reading.on_damage == "replace_shards":
        return lock  # the reader checks each shard when it opens it
    folder = data if config.shards is None else Path(config.shards)
    problems = verify_lock(lock, folder)
    if not problems:
        return lock
    if not config.relock:
        raise InputError(
            f"{data / config.lock}: {len(problems)} shards are not as locked ({problems[0]}): lock the mixture again, "
            "or set relock=true to train on what is there now"
        )
    lock = lock_mixture(Mixture.model_validate(lock.mixture), folder)
    out.mkdir(parents=True, exist_ok=True)
    write_lock(out / "mixture.lock.json", lock)
    return lock


def train_on(
    items: Items,
    lock_digest: str,
    config: TrainConfig,
    out: Path,
    data: Path,
    progress: Progress | None = None,
    lock: Lock | None = None,
) -> TrainResult:
    """Train on any endless sequence of items; `lock_digest` names it, and with its `lock` the ratios are logged."""
    out.mkdir(parents=True, exist_ok=True)
    identity = _identity(config, lock_digest, data)
    if (out / "train.json").exists():
        done = read_json(out / "train.json", "the result of a training run")
        check_identity(out / "train.json", done["identity"], identity)
        return _result(out, done, already=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        run = _resume_or_start(config, out, data, identity)
        run.lock = lock
        _loop(run, items, config, out, identity, progress)
    finally:
        torch.set_num_threads(threads)
    return _finish(run, out, identity)


def _identity(config: TrainConfig, lock_digest: str, data: Path) -> dict[str, Any]:
    """Say what a run is: every setting that decides what is learned, and digests of what it starts from and reads."""
    values = {name: value for name, value in config.model_dump(mode="json").items() if name not in HOW_NOT_WHAT}
    values["lock_digest"] = lock_digest
    if config.base is not None:
        folder = data / config.base
        if not (folder / "generator.json").exists():
            raise InputError(f"base {folder}: no trained generator there; run its training first")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        values["base_digest"] = digest({path.name: file_sha256(path) for path in files})
    return values


class _Run:
    """The moving parts of a run."""

    def __init__(self, generator: Generator, config: TrainConfig) -> None:
        self.generator = generator
        self.module = generator.module().train()
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.ema = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.counts: dict[str, dict[str, int]] = {}
        self.replaced: dict[str, int] = {}
        self.pending: dict[tuple[str, str], list[float]] = {}
        self.lock: Lock | None = None

    def ratios(self) -> list[RatioRow]:
        """Return what was read of each stream of the lock so far, beside what was asked for."""
        return [] if self.lock is None else realised_ratios(self.lock, self.lock.schedule(), self.counts, rank=0)

    def state(self, identity: dict[str, Any]) -> State:
        """Return everything that a checkpoint holds."""
        return State(
            step=self.step,
            identity=identity,
            counts=self.counts,
            replaced=self.replaced,
            ratios=[asdict(row) for row in self.ratios()],
            model=self.module.state_dict(),
            ema=self.ema,
            optimizer=self.optimizer.state_dict(),
        )

    def restore(self, state: State) -> None:
        """Become what `state` holds."""
        self.step, self.counts, self.replaced = state.step, state.counts, state.replaced
        self.module.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.ema = state.ema


def _resume_or_start(config: TrainConfig, out: Path, data: Path, identity: dict[str, Any]) -> _Run:
    if config.base is not None:
        generator = load_generator(data / config.base)
    else:
        assert config.generator is not None
        generator = TinyGenerator(config.generator, config.seed)
    run = _Run(generator, config)
    found = checkpoints(out)
    if found:
        state = read_checkpoint(found[-1])
        check_identity(found[-1], state.identity, identity)
        run.restore(state)
        _keep_rows(out / "loss.csv", LOSS_COLUMNS, run.step)
        _keep_rows(out / "ratios.csv", RATIO_COLUMNS, run.step)
    else:
        write_atomic(out / "loss.csv", (",".join(LOSS_COLUMNS) + "\n").encode())
        write_atomic(out / "ratios.csv", (",".join(RATIO_COLUMNS) + "\n").encode())
        write_atomic(out / "config.json", canonical_json(config.model_dump(mode="json")))
    return run


def _keep_rows(path: Path, columns: Sequence[str], step: int) -> None:
    """Drop the rows that were logged after the checkpoint of `step`, the last of which may be half written."""
    if not path.exists():
        raise InputError(f"{path}: not there, but its checkpoints are; choose another --out, or delete that folder")
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(columns)]
    rows = [rows[0], *(row for row in rows[1:] if int(row[0]) <= step)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(path, text.getvalue().encode())


class _Batches(torch.utils.data.Dataset[list[Item]]):
    """Batch b as a list of items: what one worker process reads in one go."""

    def __init__(self, items: Items, batch: int) -> None:
        self._items = items
        self._batch = batch

    def __getitem__(self, b: int) -> list[Item]:
        return [self._items[index] for index in range(b * self._batch, (b + 1) * self._batch)]


def _read_batches(items: Items, config: TrainConfig, first_step: int) -> Iterator[list[Item]]:
    """Yield the batch of every step from `first_step` on, read ahead by worker processes."""
    first = first_step // config.repeats
    last = (config.steps - 1) // config.repeats
    loader = DataLoader(
        _Batches(items, config.batch),
        batch_size=None,
        sampler=range(first, last + 1),
        num_workers=config.workers,
        collate_fn=_as_is,
        prefetch_factor=8 if config.workers else None,
        worker_init_fn=_leave_with_parent,
    )
    step = first_step
    for batch in loader:
        while step < config.steps and step // config.repeats == first:
            yield batch
            step += 1
        first += 1


def _as_is(items: list[Item]) -> list[Item]:
    return items


def _leave_with_parent(worker: int) -> None:
    """End this worker when the training process is gone: torch's own check waits forever on a full queue."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _loop(
    run: _Run, items: Items, config: TrainConfig, out: Path, identity: dict[str, Any], progress: Progress | None
) -> None:
    for batch in _read_batches(items, config, run.step):
        losses = _step(run, batch, config)
        _account(run, batch, losses, config)
        run.step += 1
        if run.step % config.log_every == 0 or run.step == config.steps:
            _log(run, out / "loss.csv")
            _log_ratios(run, out / "ratios.csv")
        if run.step % config.checkpoint_every == 0:
            write_checkpoint(out, run.state(identity), config.keep_checkpoints)
        if progress is not None:
            progress(run.step, config.steps)


def _step(run: _Run, items: list[Item], config: TrainConfig) -> list[float]:
    """Take one optimiser step; return the loss of each example."""
    batch = make_batch(run.generator, [item.example for item in items])
    draws = range(run.step * config.batch, (run.step + 1) * config.batch)
    means = [config.sigma.mean_of(item.kind) for item in items]
    sigma_B = draw_sigma(config.seed, draws, means, config.sigma.std)
    noise_BCHW = draw_noise(config.seed, draws, batch.clean_BCHW.shape[1:])
    losses_B = flow_matching_loss(run.generator, batch, sigma_B, noise_BCHW)
    loss = losses_B.mean()
    if not torch.isfinite(loss):
        keys = ", ".join(item.example.key for item in items[:3])
        raise FloatingPointError(
            f"loss is {loss.item()} at step {run.step} (examples {keys}, ...): lower learning_rate"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.parameters, config.clip_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate_at(run.step, config)
    run.optimizer.step()
    _follow(run, config)
    return losses_B.detach().tolist()


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then a cosine down to its final share."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    share = config.final_learning_rate + (1 - config.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * share


@torch.no_grad()
def _follow(run: _Run, config: TrainConfig) -> None:
    """Move the averaged weights; young averages move faster, so that they forget where they started."""
    decay = min(config.ema_decay, (1 + run.step) / (10 + run.step))
    names = list(run.ema)
    state = run.module.state_dict()
    torch._foreach_lerp_([run.ema[name] for name in names], [state[name] for name in names], 1 - decay)


def _account(run: _Run, items: list[Item], losses: list[float], config: TrainConfig) -> None:
    for item, loss in zip(items, losses):
        task = item.example.task
        run.pending.setdefault((item.source, task), []).append(loss)
        if run.step % config.repeats == 0:
            tasks = run.counts.setdefault(item.source, {})
            tasks[task] = tasks.get(task, 0) + 1
            if item.replaced:
                run.replaced[item.source] = run.replaced.get(item.source, 0) + len(item.replaced)


def _log(run: _Run, path: Path) -> None:
    with path.open("a") as file:
        for (source, task), losses in sorted(run.pending.items()):
            file.write(f"{run.step},{source},{task},{math.fsum(losses) / len(losses):.6g},{len(losses)}\n")
    run.pending.clear()


def _log_ratios(run: _Run, path: Path) -> None:
    with path.open("a") as file:
        for row in run.ratios():
            file.write(
                f"{run.step},{row.rank},{row.source},{row.task},{row.examples},{row.share:.9g},{row.asked:.9g}\n"
            )


def _finish(run: _Run, out: Path, identity: dict[str, Any]) -> TrainResult:
    run.module.load_state_dict(run.ema)
    run.generator.save(out / "generator")
    told = {"steps": run.step, "counts": run.counts, "replaced": run.replaced, "identity": identity}
    told["ratios"] = [asdict(row) for row in run.ratios()]
    write_atomic(out / "train.json", json.dumps(told, indent=1, sort_keys=True).encode())
    return _result(out, told, already=False)


def _result(out: Path, told: Mapping[str, Any], already: bool) -> TrainResult:
    examples = sum(sum(tasks.values()) for tasks in told["counts"].values())
    return TrainResult(
        generator=out / "generator",
        loss_csv=out / "loss.csv",
        steps=told["steps"],
        examples=examples,
        counts=told["counts"],
        replaced=told["replaced"],
        already=already,
    )
