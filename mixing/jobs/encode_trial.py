"""A few examples of an encode job, for `cavendish plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cavendish.encoders.sample import Example, Rejection
from cavendish.mixing.jobs.encode import EncodeConfig, encode_shard, read_excluded
from cavendish.mixing.jobs.estimate import Stage
from cavendish.mixing.jobs.probe import Trial
from cavendish.mixing.shards.writer import some_rows
from cavendish.mixing.storage.place import Place, join

_EXAMPLES = 5  # of a raw sample; a trial makes so many times `units` of a shard


def encode_stage(config: EncodeConfig, data: Path, units: int) -> Stage:
    """Return what an encode job is, with a trial on three of its raw shards.

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
    return Stage(
        verb="encode",
        unit="example",
        units=max(1, round(examples)),
        units_per_shard=max(1, round(examples / len(shards))),
        shard_key="",
        trial=Trial(partial(_encode_one, config, chosen, excluded), shards=wanted, units=_EXAMPLES * units),
        more="several configurations, each with a part of the sources and a directory of its own",
    )


def _encode_one(
    config: EncodeConfig, chosen: tuple[Place, ...], excluded: frozenset[str], index: int
) -> Iterator[Example | Rejection]:
    return encode_shard(config, chosen[index], excluded)
