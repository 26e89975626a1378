"""A finished directory of shards, for tests and benchmarks that read one."""

from __future__ import annotations

from collections.abc import Iterable

from cavendish.encoders.sample import Example, Sample
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.place import Place


def write_shards(directory: Place, records: Iterable[Sample | Example], shards: int = 1) -> None:
    """Deal the records out to so many shards, and finish the directory."""
    plan = Plan("tests", shards, {})
    start_dataset(directory, plan)
    dealt = list(records)
    for index in range(shards):
        with ShardWriter(directory, index, plan.digest) as writer:
            for record in dealt[index::shards]:
                writer.add(record)
    assert finish_dataset(directory, plan) is not None
