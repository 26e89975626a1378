"""Trains a generator on a mixture: base training and instruction tuning are the same loop on different mixtures.

Everything random is a function of the seed and a global number (of an example, or of a draw of noise), so that the loss
curve does not depend on where a run was interrupted or how its data were read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.runners import JobFailed, Progress
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.lock import Lock, read_lock, verify_lock, write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.mixture.reader import DAMAGED
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import collect_leftovers, is_url, read_json, write_atomic
from cavendish.trainer.generators.weights import model_digest
from cavendish.trainer.parallel import Process, barrier, init_distributed, max_over_ranks, world_size
from cavendish.trainer.training.checkpoint import check_identity, checkpoints
from cavendish.trainer.training.config import RESUMABLE_KEYS, TrainConfig
from cavendish.trainer.training.curves import write_curves
from cavendish.trainer.training.lineage import write_lineage
from cavendish.trainer.training.log import Tracker, log_losses, log_ratios, mean_losses, open_trackers, set_tables
from cavendish.trainer.training.precompute import Item, Items, with_cached
from cavendish.trainer.training.run import Run, RunStopped
from cavendish.trainer.training.step import rank_indices, train_step

Evaluate = Callable[[Sequence[Tracker]], str | None]
"""Asks a run questions, tells trackers, and returns what the run must be stopped for; see `training.in_loop`."""


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
        skipped: steps that changed nothing, since their gradient was not finite.
    """

    generator: Path
    loss_csv: Path
    steps: int
    examples: int
    counts: Mapping[str, Mapping[str, int]]
    replaced: Mapping[str, int]
    already: bool
    skipped: int = 0


def train(config: TrainConfig, out: Path, data: Path, progress: Progress | None = None) -> TrainResult:
    """Train on the mixture that `config.lock` names, from the last checkpoint in `out` when there is one.

    Args:
        out: folder for checkpoints, loss.csv, the resolved configuration and, at the end, `generator/`.
        data: folder that the paths in `config` and in the lock are relative to.
        progress: told (steps done, steps planned).

    Raises:
        InputError: the lock or the base cannot be read, shards are not as locked, or `out` holds another run.
        RunStopped: `config.retention` or `config.max_skipped_steps` says so; the state is kept.
    """
    lock, items = open_mixture(config, out, data)
    return train_on(items, lock.digest, config, out, data, progress, lock)


def open_mixture(config: TrainConfig, out: Path, data: Path) -> tuple[Lock, MixtureDataset]:
    """Open the mixture that `config.lock` names."""
    lock = _locked(config, out, data)
    reading = config.reading
    if reading.cache is not None:
        reading = reading.model_copy(update={"cache": data / reading.cache})
    return lock, MixtureDataset(lock, config.shards or data, config.sizes, reading=reading)


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
    collect_leftovers(out)
    identity = _identity(config, lock_digest, data)
    if (out / "train.json").exists():
        done = read_json(out / "train.json", "the result of a training run")
        check_identity(out / "train.json", done["identity"], identity)
        return _result(out, done, already=True)
    if config.parallel != "none" and config.batch % (world_size() * config.accumulate):
        parts = f"{world_size()} processes x {config.accumulate} (accumulate) equal parts"
        raise InputError(f"batch {config.batch} cannot be cut into {parts}")
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with init_distributed(config.parallel, config.device) as process:
            run = Run(config, data, process)
            run.lock = lock
            evaluate = _prepare_evaluation(run, out, identity)
            _resume_or_start(run, out, identity)
            items = with_cached(items, run.generator.spec, config, data)
            with _readers_watched(), _sigterm() as terminated:
                _loop(run, items, config, out, identity, progress, evaluate, terminated)
            done = _finish(run, out, identity)
    finally:
        torch.set_num_threads(threads)
    return _result(out, done, already=False)


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """Set an event when the process is asked to end, as schedulers do a while before they kill it."""
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # others cannot be asked
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _readers_watched() -> Iterator[None]:
    """Say in one line that a process that reads examples died; torch raises that wherever the training is just then."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise JobFailed(
            "a process that reads examples died (killed, out of memory, or crashed). "
            "What is saved is safe: run the same command again to continue"
        ) from None


def _identity(config: TrainConfig, lock_digest: str, data: Path) -> dict[str, Any]:
    """Say what a run is: every setting that decides what is learned, and digests of what it starts from and reads."""
    values = {name: value for name, value in config.model_dump(mode="json").items() if name not in RESUMABLE_KEYS}
    values["lock_digest"] = lock_digest
    if config.base is not None:
        values["base_digest"] = model_digest(data / config.base)
    return values


def _prepare_evaluation(run: Run, out: Path, identity: Mapping[str, Any]) -> Evaluate | None:
    """Read what is evaluated on, while the network still is the base."""
    if run.config.evaluate_every is None:
        return None
    from cavendish.trainer.training.in_loop import prepare  # scoring needs libraries that training alone does not

    return prepare(run, out, str(identity.get("base_digest")))


def _resume_or_start(run: Run, out: Path, identity: dict[str, Any]) -> None:
    """Go on from the newest checkpoint, or begin the tables."""
    found = checkpoints(out)
    tables = run.restore(found[-1], identity) if found else {}
    if run.process.rank > 0:
        return
    set_tables(out, tables, evaluates=run.config.evaluate_every is not None)
    if not found:
        write_atomic(out / "config.json", canonical_json(run.config.model_dump(mode="json")))


class _Batches(torch.utils.data.Dataset[list[Item]]):
    """This process's part of batch b as a list of items: what one worker process reads in one go."""

    def __init__(self, items: Items, batch: int, process: Process) -> None:
        self._items = items
        self._batch = batch
        self._process = process

    def __getitem__(self, b: int) -> list[Item]:
        return [self._items[index] for index in rank_indices(b, self._batch, self._process)]


def _read_batches(items: Items, config: TrainConfig, first_step: int, process: Process) -> Iterator[list[Item]]:
    """Yield this process's part of the batch of every step from `first_step` on, read ahead by worker processes."""
    first = first_step // config.repeats
    last = (config.steps - 1) // config.repeats
    loader = DataLoader(
        _Batches(items, config.batch, process),
        batch_size=None,
        sampler=range(first, last + 1),
        num_workers=config.workers,
        collate_fn=_as_is,
        prefetch_factor=(8 if config.precomputed is None else 2) if config.workers else None,  # embeddings are large
        worker_init_fn=_exit_with_parent,
    )
    step = first_step
    for batch in loader:
        while step < config.steps and step // config.repeats == first:
            yield batch
            step += 1
        first += 1


def _as_is(items: list[Item]) -> list[Item]:
    return items


def _exit_with_parent(worker: int) -> None:
    """End this worker when the training process is gone: torch's own check waits forever on a full queue."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not that of the process it was forked from
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _loop(
    run: Run,
    items: Items,
    config: TrainConfig,
    out: Path,
    identity: dict[str, Any],
    progress: Progress | None,
    evaluate: Evaluate | None,
    terminated: threading.Event,
) -> None:
    first = run.process.rank == 0
    trackers = open_trackers(config, out, run.step) if first else []
    if evaluate is not None and run.step == 0 and config.base is not None:
        evaluate(trackers)  # what the base can do is where the curves begin
    for batch in _read_batches(items, config, run.step, run.process):
        losses = train_step(run, batch, config)
        read = run.step % config.repeats == 0
        run.seen += [(i.source, i.example.task, loss, read, len(i.replaced)) for i, loss in zip(batch, losses)]
        _tell_damaged(run, batch)
        run.step += 1
        if run.step % config.log_every == 0 or run.step == config.steps:
            collected = run.collect()
            if first:
                log_losses(out / "loss.csv", run.step, collected)
                log_ratios(out / "ratios.csv", run.step, run.ratios())
                for track in trackers:
                    track(run.step, mean_losses(collected))
        evaluated = evaluate is not None and _is_due(run.step, config)
        complaint = evaluate(trackers) if evaluate is not None and evaluated else None
        if run.step % config.log_every == 0 and max_over_ranks(int(terminated.is_set()), run.process):
            complaint = f"stopped by SIGTERM; step {run.step} is saved: run the same command again to continue"
        if run.step % config.checkpoint_every == 0 or complaint is not None:
            run.save(out, identity)
        if first and (run.step % config.checkpoint_every == 0 or evaluated):
            _draw_curves(run, out)
        if complaint is not None:
            raise RunStopped(complaint)
        if progress is not None and first:
            progress(run.step, config.steps)


def _draw_curves(run: Run, out: Path) -> None:
    retention = run.config.retention
    write_curves(out, run.config.steps, None if retention is None else retention.limit)


def _tell_damaged(run: Run, batch: Sequence[Item]) -> None:
    """Name the first damaged record of each source on stderr; how many there were is in train.json."""
    for item in batch:
        damaged = [one for one in item.replaced if one.reason.startswith(DAMAGED)]
        if damaged and item.source not in run.told:
            run.told.add(item.source)
            first = f"{damaged[0].key}: {damaged[0].reason.removeprefix(DAMAGED)}"
            print(f"{item.source}: {first}; another record stands in for it, and for others like it", file=sys.stderr)


def _is_due(step: int, config: TrainConfig) -> bool:
    return config.evaluate_every is not None and (step % config.evaluate_every == 0 or step == config.steps)


def _finish(run: Run, out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    run.write_generator(out / "generator")
    if run.process.rank == 0:
        collect_leftovers(out / "generator")
        base = None if run.config.base is None else run.data / run.config.base
        write_lineage(out / "generator", run.step, identity, run.lock, base)
    done = {"steps": run.step, "counts": run.counts, "replaced": run.replaced, "identity": identity}
    done["ratios"] = [asdict(row) for row in run.ratios()]
    if run.skipped:
        done["skipped"] = run.skipped
    if run.process.rank == 0:
        _draw_curves(run, out)
        write_atomic(out / "train.json", json.dumps(done, indent=1, sort_keys=True).encode())
    barrier(run.process)
    return done


def _result(out: Path, done: Mapping[str, Any], already: bool) -> TrainResult:
    examples = sum(sum(tasks.values()) for tasks in done["counts"].values())
    return TrainResult(
        generator=out / "generator",
        loss_csv=out / "loss.csv",
        steps=done["steps"],
        examples=examples,
        counts=done["counts"],
        replaced=done["replaced"],
        already=already,
        skipped=done.get("skipped", 0),
    )
