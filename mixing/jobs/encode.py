"""The encode job: raw shards -> instruction shards, one for one; every example as the trainer would draw it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.encoders.tasks.registry import TASK_NAMES, tasks_of
from cavendish.mixing.accounting import LeftAside
from cavendish.mixing.config import Config
from cavendish.mixing.jobs.beam import CommitShards, ShardJob, run
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.mixture.config import Positive, Task
from cavendish.mixing.mixture.draw import draw_example
from cavendish.mixing.mixture.make_lock import read_exclusions
from cavendish.mixing.shards.dataset import Plan, complete_rows, shard_path, some_rows
from cavendish.mixing.shards.reader import read_shard
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import Place, join, name_of

_EXAMPLES = 5  # of a raw sample; a probe makes so many times `units` of a shard


class EncodeConfig(Config):
    """What to freeze. Paths are relative to the data folder."""

    sources: tuple[Path, ...] = Field(min_length=1, description="directories of raw shards")
    tasks: dict[Task, Positive] = Field(
        min_length=1,
        description="examples per sample, task and epoch: 2 makes two, 0.25 makes one of every fourth sample",
    )
    epochs: Annotated[int, Field(ge=1)] = 1
    size: int = Field(512, ge=16, description="side of the images in pixels; samples are resized before encoding")
    seed: int = Field(0, ge=0)
    negatives: float = Field(default=0.1, ge=0, le=1, description="how often a prompt asks for what is not there")
    exclude: tuple[Path, ...] = Field((), description='lists of sample keys to leave out, json {"keys": [...]}')


def encode(
    config: EncodeConfig, out: Place, engine: Engine = Engine(), progress: Progress | None = None, data: Place = Path()
) -> JobResult:
    """Freeze raw shards into instruction shards; see `encode_job`.

    Raises:
        InputError: a source is not a finished directory of shards, or two sources share a key.
        JobFailed: see `mixing.jobs.beam.run`.
    """
    return run(encode_job(config, out, data), engine, progress)


class EncodeShards(CommitShards):
    """Freezes raw shards into instruction shards, in a Beam pipeline; see `encode_job`."""

    def __init__(self, config: EncodeConfig, out: Place, data: Place = Path()) -> None:
        super().__init__(encode_job(config, out, data))


def encode_job(config: EncodeConfig, out: Place, data: Place) -> ShardJob:
    """Return the job of freezing raw shards into instruction shards.

    Tasks that a sample cannot serve are not tried; one that is tried and fails is a rejection with its reason. The n-th
    example of a sample for a task is the one that a mixture with the same seed draws in epoch n.

    Raises:
        InputError: a source is not a finished directory of shards, or two sources share a key.
    """
    counts = []
    inputs = []
    seen: dict[str, Path] = {}
    for source in config.sources:
        rows = complete_rows(join(data, source))
        counts.append(len(rows))
        for number, row in enumerate(rows):
            if row.shard != name_of(shard_path("", number)):
                raise InputError(f"{join(data, source)}: holds {row.shard} where shard {number} was to be; verify it")
            for key in row.samples:
                if key in seen:
                    raise InputError(f"key {key} is in {seen[key]} and in {source}: keys must differ between sources")
                seen[key] = source
        inputs.append({"path": source.as_posix(), "sha256": digest([row.sha256 for row in rows])})
    excluded = digest(sorted(read_excluded(config.exclude, data)))
    made_from = {**config.model_dump(mode="json"), "inputs": inputs, "excluded": excluded}
    plan = Plan("encode", sum(counts), made_from)
    return ShardJob(plan, partial(encode_nth, config, data, tuple(counts), excluded), out)


def read_excluded(exclude: tuple[Path, ...], data: Place) -> frozenset[str]:
    """Read the keys of the samples to leave out."""
    return frozenset(key for path in exclude for key in read_exclusions(join(data, path)))


def encode_nth(
    config: EncodeConfig, data: Place, counts: Sequence[int], excluded: str, index: int
) -> Iterator[Example | Rejection | LeftAside]:
    """Make the examples of raw shard `index`, counted through all sources.

    What a job sends to its workers: its size does not grow with the number of shards or of keys to leave out.

    Args:
        counts: shards of each source.
        excluded: digest of the keys to leave out.
    """
    source = 0
    while index >= counts[source]:
        index -= counts[source]
        source += 1
    shard = shard_path(join(data, config.sources[source]), index)
    return encode_shard(config, shard, _same_excluded(config.exclude, data, excluded))


@lru_cache(maxsize=1)
def _same_excluded(exclude: tuple[Path, ...], data: Place, recorded: str) -> frozenset[str]:
    """Read the keys to leave out, once in a process."""
    excluded = read_excluded(exclude, data)
    if digest(sorted(excluded)) != recorded:
        raise InputError(f"{', '.join(map(str, exclude))}: changed since the job was started; run it again")
    return excluded


def encode_shard(
    config: EncodeConfig, shard: Place, excluded: frozenset[str]
) -> Iterator[Example | Rejection | LeftAside]:
    """Make the examples of a raw shard; those that were asked for and that a sample has nothing for are counted."""
    for sample in read_shard(shard):
        if not isinstance(sample, Sample):
            raise InputError(f"{shard}: holds instruction examples; encode starts from raw samples")
        if sample.key in excluded:
            yield Rejection(sample.key, "excluded by a list of keys")
            continue
        able = tasks_of(sample)
        for task in sorted(config.tasks, key=TASK_NAMES.index):  # not as in the file: the plan's digest has no order
            count = _count_examples(config, sample, task)
            if task in able:
                yield from _examples(config, sample, task, count)
            elif count:
                yield LeftAside(f"{task}: not in the sample", count)


def _count_examples(config: EncodeConfig, sample: Sample, task: Task) -> int:
    """Return how many examples of a sample are asked for, over all epochs."""
    whole, part = divmod(config.tasks[task], 1)
    count = 0
    for epoch in range(config.epochs):
        name = f"encode/{config.seed}/{sample.key}/{task}/{epoch}"
        extra = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < part * 2**64
        count += int(whole) + extra
    return count


def _examples(config: EncodeConfig, sample: Sample, task: Task, count: int) -> Iterator[Example | Rejection]:
    for number in range(count):
        try:
            yield draw_example(sample, task, config.seed, number, config.size, config.negatives)
        except InputError as error:
            yield Rejection(f"{sample.key}.{task}.{number}", str(error))


def encode_probe(config: EncodeConfig, data: Path, units: int) -> Probe:
    """Return a probe of an encode job: the first examples of three of its raw shards.

    Raises:
        InputError: a source has no shards.
    """
    shards = []
    examples = 0.0
    for source in config.sources:
        rows = some_rows(join(data, source))
        shards += [join(join(data, source), row.shard) for row in rows]
        able = Counter(task for row in rows for facts in row.facts.values() for task in facts["tasks"])
        examples += config.epochs * float(sum(count * able[task] for task, count in config.tasks.items()))
    excluded = read_excluded(config.exclude, data)
    wanted = max(2, min(3, len(shards)))
    chosen = tuple(shards[i * len(shards) // wanted] for i in range(wanted))
    return Probe(
        verb="encode",
        unit="example",
        units=max(1, round(examples)),
        units_per_shard=max(1, round(examples / len(shards))),
        build=partial(_encode_chosen, config, chosen, excluded),
        trial_shards=wanted,
        trial_units=_EXAMPLES * units,
    )


def _encode_chosen(
    config: EncodeConfig, chosen: tuple[Place, ...], excluded: frozenset[str], index: int
) -> Iterator[Example | Rejection | LeftAside]:
    return encode_shard(config, chosen[index], excluded)
