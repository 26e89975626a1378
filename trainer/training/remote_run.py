"""Training and evaluation where data and outputs are at URLs: fetched before, published on the way and at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.storage.place import Place
from cavendish.mixing.storage.sync import Published, fetched, paths_in, published
from cavendish.trainer.training.checkpoint import step_of_name
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.train import TrainResult, train


@contextmanager
def local_run(config: TrainConfig, out: Place, data: Place) -> Iterator[tuple[TrainConfig, Published, Path]]:
    """Give a configuration, a working folder and a data folder that are of this machine, wherever the run's are.

    Only the lock and the base are copied: shards are read where they are.

    Raises:
        InputError: see `mixing.storage.sync.published`.
    """
    old = partial(old_checkpoints, keep=config.keep_checkpoints)
    with (
        fetched(data, paths_in(config)) as folder,
        published(out, ("train.json",), without_old_checkpoints, old) as work,
    ):
        if folder != Path(data):  # a copy of what is at a URL
            reading = config.reading.model_copy(update={"cache": config.reading.cache or Path("blocks")})
            config = config.model_copy(update={"shards": config.shards or str(data), "reading": reading})
        yield config, work, folder


def train_remote(config: TrainConfig, out: Place, data: Place, progress: Progress | None = None) -> TrainResult:
    """Train as `trainer.training.train.train` does; `out` and `data` may be URLs.

    Whatever machine it runs on, a run goes on from the newest whole checkpoint at `out`. Every checkpoint, with all
    that was written before it, is published when it is made.

    Raises:
        InputError: see `train` and `local_run`.
    """
    with local_run(config, out, data) as (settings, work, folder):

        def told(done: int, planned: int) -> None:
            if done % config.checkpoint_every == 0:
                work.publish()
            if progress is not None:
                progress(done, planned)

        return train(settings, work.folder, folder, told)


def without_old_checkpoints(names: list[str]) -> list[str]:
    """Choose, of the names in the folder of a run, all but those of checkpoints older than the newest whole one."""
    newest = max(_whole_steps(names), default=-1)
    return [name for name in names if _step(name) in (None, newest)]


def old_checkpoints(names: list[str], keep: int) -> list[str]:
    """Choose the names that belong to checkpoints older than the newest `keep` whole ones."""
    kept = sorted(_whole_steps(names))[-keep:]
    return [name for name in names if kept and (step := _step(name)) is not None and step < kept[0]]


def _whole_steps(names: list[str]) -> set[int]:
    """Return the steps of whole checkpoints: a file of one process, a folder of several with its facts."""
    found = set()
    for name in names:
        step = _step(name)
        if step is not None and (name.endswith("/facts.json") or "/" not in name):
            found.add(step)
    return found


def _step(name: str) -> int | None:
    """Return the step of the checkpoint that a file belongs to, or None."""
    return step_of_name(name.partition("/")[0])
