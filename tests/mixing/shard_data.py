"""Directories of tiny shards and mixture files, for the tests of mixtures and loaders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cavendish.encoders.sample import Sample
from cavendish.mixing.lock import Lock
from cavendish.mixing.mixture.config import load
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from tests.conftest import tiny_sample

MIXTURE = """
seed: 3
ratios: {generation: rest, editing: 0.3, vision: 0.05}
sources:
  renders:
    path: raw
    tasks: {generate: 1, edit: 1, depth: 2, normals: 1, referring: 1}
"""


def write_raw(directory: Path | str, shards: int = 3, each: int = 8, **changes: object) -> list[Sample]:
    """Write tiny samples scene-SHARD-NUMBER; `changes` are fields all of them get."""
    plan = Plan("test", shards, {"shards": shards, "each": each})
    start_dataset(directory, plan)
    samples = []
    for shard in range(shards):
        with ShardWriter(directory, shard, plan.digest) as writer:
            for number in range(each):
                sample = tiny_sample(f"scene-{shard}-{number}", seed=100 * shard + number)
                samples.append(dataclasses.replace(sample, **changes))
                writer.add(samples[-1])
    finish_dataset(directory, plan)
    return samples


def lock_text(data: Path, text: str = MIXTURE) -> Lock:
    """Write a mixture file, load it and lock it."""
    (data / "mixture.yaml").write_text(text)
    return lock_mixture(load(data / "mixture.yaml"), data)
