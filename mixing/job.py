"""The encode job: raw shards -> instruction shards, one for one; every example as the trainer would draw it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from encoders.instructions import tasks_of
from encoders.sample import TASKS, Example, InputError, Rejection, Sample
from mixing.beam import run
from mixing.config import Config
from mixing.draw import draw_example
from mixing.engine import Engine, JobResult, Progress
from mixing.mixture import Positive, Task, read_exclusions
from mixing.places import Place, join
from mixing.shards import Plan, committed_rows, read_shard
from mixing.storage import digest, read_json


class EncodeConfig(Config):
    """What to freeze. Paths are relative to the data folder."""

    sources: tuple[Path, ...] = Field(min_length=1, description="directories of raw shards")
    tasks: dict[Task, Positive] = Field(
        min_length=1,
        description="examples per sample, task and epoch: 2 makes two, 0.25 makes one of every fourth sample",
    )
    epochs: Annotated[int, Field(ge=1)] = 1
    size: int = Field(512, ge=16, description="side of the pictures in pixels; samples are resized before encoding")
    seed: int = Field(0, ge=0)
    negatives: float = Field(default=0.1, ge=0, le=1, description="how often a prompt asks for what is not there")
    exclude: tuple[Path, ...] = Field((), description='lists of sample keys to leave out, json {"keys": [...]}')


def encode(
    config: EncodeConfig, out: Place, engine: Engine = Engine(), progress: Progress | None = None, data: Place = Path()
) -> JobResult:
    """Freeze raw shards into instruction shards.

    Tasks that a sample cannot serve are not tried; one that is tried and fails is a rejection with its reason. The n-th
    example of a sample for a task is the one that a mixture with the same seed draws in epoch n.

    Raises:
        InputError: a source is not a finished directory of shards, or two sources share a key.
        JobFailed: see `mixing.beam.run`.
    """
    shards = []
    inputs = []
    seen: dict[str, Path] = {}
    for source in config.sources:
        dataset = read_json(join(join(data, source), "dataset.json"), "the plan of a directory of raw shards")
        rows = committed_rows(join(data, source))
        if len(rows) < dataset["shards"]:
            raise InputError(
                f"{join(data, source)}: {len(rows)} of {dataset['shards']} shards are committed; finish it first"
            )
        for row in rows:
            shards.append(join(join(data, source), row.shard))
            for key in row.samples:
                if key in seen:
                    raise InputError(f"key {key} is in {seen[key]} and in {source}: keys must differ between sources")
                seen[key] = source
        inputs.append({"path": source.as_posix(), "sha256": digest([row.sha256 for row in rows])})
    excluded = frozenset(key for path in config.exclude for key in read_exclusions(join(data, path)))
    made_from = {**config.model_dump(mode="json"), "inputs": inputs, "excluded": digest(sorted(excluded))}
    plan = Plan("encode", len(shards), made_from)
    return run(plan, partial(encode_shard, config, tuple(shards), excluded), out, engine, progress)


def encode_shard(
    config: EncodeConfig, shards: tuple[Place, ...], excluded: frozenset[str], index: int
) -> Iterator[Example | Rejection]:
    """Make the examples of raw shard `index`."""
    for sample in read_shard(shards[index]):
        if not isinstance(sample, Sample):
            raise InputError(f"{shards[index]}: holds instruction examples; encode starts from raw samples")
        if sample.key in excluded:
            yield Rejection(sample.key, "excluded by a list of keys")
            continue
        able = tasks_of(sample)
        for task in sorted(config.tasks, key=TASKS.index):  # not as in the file: the plan's digest has no order
            if task in able:
                yield from _examples(config, sample, task)


def _examples(config: EncodeConfig, sample: Sample, task: Task) -> Iterator[Example | Rejection]:
    whole, part = divmod(config.tasks[task], 1)
    number = 0
    for epoch in range(config.epochs):
        name = f"encode/{config.seed}/{sample.key}/{task}/{epoch}"
        extra = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < part * 2**64
        for _ in range(int(whole) + extra):
            try:
                yield draw_example(sample, task, config.seed, number, config.size, config.negatives)
            except InputError as error:
                yield Rejection(f"{sample.key}.{task}.{number}", str(error))
            number += 1
