"""What the proof trains on and asks: rendered rooms, and semantic answers in four coarse classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.palettes import BLACK, Color, format_hex, random_colors
from cavendish.encoders.codecs.semantic import NO_CLASS, encode_semantic
from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.mixing.shards.dataset import Plan, committed_rows, finish_dataset, is_committed, start_dataset
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.files import digest
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol
from cavendish.trainer.evaluation.sets import Questions, sample_questions
from cavendish.trainer.evaluation.tasks.semantic import VOID, SemanticTruth

OBJECT = "object"


def coarse_labels(sample: Sample, names: Sequence[str]) -> NDArray[np.int16]:
    """Return (H, W) positions in `names`: surfaces by their name, everything countable as "object", -1 elsewhere."""
    assert sample.instance_ids is not None
    table = np.full(65536, NO_CLASS, np.int16)
    for instance in sample.instances:
        name = OBJECT if instance.is_thing else instance.category
        if name in names:
            table[instance.id] = names.index(name)
    return table[sample.instance_ids]


def semantic_example(
    sample: Sample, names: Sequence[str], number: int, rng: np.random.Generator, fixed: Mapping[str, Color] | None
) -> Example:
    """Ask for the coarse classes in the colours of `fixed`, or in random ones."""
    legend = dict(zip(names, random_colors(len(names), rng, BLACK))) if fixed is None else dict(fixed)
    entries = ", ".join(f"{name}: {format_hex(color)}" for name, color in legend.items())
    target = encode_semantic(coarse_labels(sample, names), legend, BLACK)
    rows = [[name, list(color)] for name, color in legend.items()]
    spec = {"task": "semantic", "codec": "legend/1", "legend": rows, "background": list(BLACK)}
    origin = {"key": sample.key, "source": sample.source, "licence": sample.licence}
    return Example(
        f"{sample.key}.semantic.{number}",
        "semantic",
        f"Label every pixel. {entries}",
        sample.image,
        target,
        {**spec, "origin": origin},
    )


def freeze_legends(
    scenes: Path, out: Path, names: Sequence[str], per_scene: int, fixed: Mapping[str, Color] | None
) -> None:
    """Write `per_scene` semantic examples of each sample under `scenes` as instruction shards."""
    inputs = digest([row.sha256 for row in committed_rows(scenes)])
    legend = None if fixed is None else {name: list(color) for name, color in fixed.items()}
    plan = Plan("proof-legends", 1, {"inputs": inputs, "names": list(names), "per_scene": per_scene, "legend": legend})
    start_dataset(out, plan)
    if not is_committed(out, 0, plan.digest):
        with ShardWriter(out, 0, plan.digest) as writer:
            for index, sample in enumerate(samples_of(scenes)):
                for number in range(per_scene):
                    writer.add(semantic_example(sample, names, number, np.random.default_rng([index, number]), fixed))
    finish_dataset(out, plan)


def samples_of(folder: Path) -> Iterator[Sample]:
    """Yield the samples of raw shards."""
    for record in read_dataset(folder):
        if not isinstance(record, Sample):
            raise InputError(f"{folder}: holds instruction shards; the proof reads raw shards")
        yield record


def semantic_questions(samples: Sequence[Sample], names: Sequence[str], fixed: Mapping[str, Color] | None) -> Questions:
    """Ask for the coarse classes of every sample; what is of no class (seen through a window) has no truth."""
    ids = {name: number for number, name in enumerate(names)}
    items, examples = [], []
    for index, sample in enumerate(samples):
        example = semantic_example(sample, names, 0, np.random.default_rng([index, 4711]), fixed)
        labels = coarse_labels(sample, names).astype(np.int64)
        items.append(
            Item(
                name=example.key,
                prompt=example.prompt,
                read_image=partial(_same, sample.image),
                read_truth=partial(_same, SemanticTruth(np.where(labels == NO_CLASS, VOID, labels))),
                spec=example.spec,
                classes=ids,
            )
        )
        examples.append(example)
    benchmark = Benchmark("proof-semantic", "semantic", tuple(items), classes={i: name for name, i in ids.items()})
    return Questions(benchmark, tuple(examples))


def _same(value: Any) -> Any:
    return value


def all_questions(
    samples: Sequence[Sample], legend: Mapping[str, Color], max_depth_m: float, seed: int = 0
) -> dict[str, Questions]:
    """Return the questions by name: depth, normals, and semantic in the fixed legend's colours and in others."""
    names = list(legend)
    depth = sample_questions(samples, "depth", seed)
    indoor = dataclasses.replace(depth.benchmark, depth=DepthProtocol(max_m=max_depth_m))
    return {
        "depth": dataclasses.replace(depth, benchmark=indoor),
        "normals": sample_questions(samples, "normals", seed),
        "semantic, fixed legend": semantic_questions(samples, names, legend),
        "semantic, other colours": semantic_questions(samples, names, None),
    }
