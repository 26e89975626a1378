"""Held-out samples of our own as a benchmark: the same code scores them and the public sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.encoders.tasks.instructions import make_example, tasks_of
from cavendish.encoders.tasks.specs import Segmentation, decode_example
from cavendish.mixing.shards.reader import read_dataset
from cavendish.trainer.evaluation.answers import BACKGROUND, VOID
from cavendish.trainer.evaluation.benchmarks.items import (
    Benchmark,
    DepthTruth,
    InstancesTruth,
    Item,
    MaskTruth,
    NormalsTruth,
    SemanticTruth,
)
from cavendish.trainer.evaluation.settings import SampleTask

TASKS: tuple[str, ...] = get_args(SampleTask)
NEGATIVE_PROBABILITY = {"instance": 0.25, "referring": 0.1}
"""How often an exhaustive sample is asked for what is not there; without such pairs IL_MCC means nothing."""

_OWN = "our own held-out samples, not a public benchmark"
_NOTES = {
    "depth": (_OWN, "asked in the cube-walk codec; pixels without a surface have no truth"),
    "normals": (_OWN,),
    "semantic": (
        _OWN,
        "the background is a class; a class that is asked for and in no picture is none: painting it is a miss",
    ),
    "instance": (_OWN, "a quarter of the prompts ask for what is not there, where the sample is exhaustive"),
    "referring": (_OWN, "a prompt with several expressions is several items that share one picture"),
}
_MAX_DRAWS = 200


@dataclass(frozen=True)
class Questions:
    """A benchmark of our own samples and the Examples to ask a model with, one for each picture to draw."""

    benchmark: Benchmark
    examples: tuple[Example, ...]


def sample_questions(samples: Iterable[Sample], task: str, seed: int) -> Questions:
    """Draw one question per sample that can serve `task`; a function of the samples and the seed alone.

    Depth is asked in the cube-walk codec only. The picture that answers an Example is called `Example.key`.

    Raises:
        InputError: an unknown task, or no sample that serves it.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} of samples cannot be scored; scored are {', '.join(TASKS)}")
    pairs = [
        (sample, _draw(sample, task, seed, index)) for index, sample in enumerate(samples) if task in tasks_of(sample)
    ]
    if not pairs:
        raise InputError(f"no sample can serve task {task!r}")
    names = _painted_names(example for _, example in pairs) if task == "semantic" else []
    ids = {name: number for number, name in enumerate([BACKGROUND, *names])}
    items = [item for sample, example in pairs for item in _items(sample, example, ids)]
    benchmark = Benchmark(
        name=f"samples-{task}",
        task=task,
        items=tuple(items),
        classes={number: name for name, number in ids.items()} if task == "semantic" else {},
        notes=_NOTES[task],
    )
    return Questions(benchmark, tuple(example for _, example in pairs))


def read_sample_questions(directory: Path, task: str, seed: int) -> Questions:
    """Draw the questions of the raw shards in a directory.

    Raises:
        InputError: instruction shards, or no shards.
    """
    return sample_questions(read_samples(directory), task, seed)


def read_samples(directory: Path) -> Iterable[Sample]:
    """Yield the samples of the raw shards in a directory.

    Raises:
        InputError: instruction shards, or no shards.
    """
    for record in read_dataset(directory):
        if not isinstance(record, Sample):
            raise InputError(f"{directory}: holds instruction shards; samples are scored from raw shards")
        yield record


def _draw(sample: Sample, task: str, seed: int, index: int) -> Example:
    for attempt in range(_MAX_DRAWS):
        rng = np.random.default_rng([seed, index, attempt])
        example = make_example(sample, task, rng, NEGATIVE_PROBABILITY.get(task, 0.0))
        if task != "depth" or str(example.spec["codec"]).startswith("cube-walk/1"):
            return dataclasses.replace(example, key=f"{sample.key}.{task}")
    raise InputError(f"{sample.key}: no depth prompt in the cube-walk codec in {_MAX_DRAWS} draws")


def _painted_names(examples: Iterable[Example]) -> list[str]:
    """Return the class names that any target shows, sorted."""
    names: set[str] = set()
    for example in examples:
        decoded = decode_example(example.spec, example.target)
        assert isinstance(decoded, Segmentation)
        names.update(decoded.names[int(label)] for label in np.unique(decoded.labels) if label >= 0)
    return sorted(names)


def _items(sample: Sample, example: Example, ids: dict[str, int]) -> list[Item]:
    common = Item(
        name=example.key,
        prompt=example.prompt,
        read_image=lambda: sample.image,
        read_truth=None,
        spec=example.spec,
    )
    match example.task:
        case "depth":
            assert sample.depth_m is not None
            truth: Any = DepthTruth(sample.depth_m)
        case "normals":
            assert sample.normals is not None
            truth = NormalsTruth(sample.normals)
        case "instance":
            truth = InstancesTruth((_drawn_masks(example.target, example.spec["background"]),))
        case "semantic":
            truth = SemanticTruth(_drawn_labels(example, ids))
            common = dataclasses.replace(common, classes=ids)
        case _:
            return _referring_items(common, example)
    return [dataclasses.replace(common, read_truth=lambda: truth)]


def _referring_items(common: Item, example: Example) -> list[Item]:
    decoded = decode_example(example.spec, example.target)
    assert isinstance(decoded, Segmentation)
    several = len(decoded.names) > 1
    return [
        dataclasses.replace(
            common,
            name=f"{common.name}.{position}" if several else common.name,
            picture=common.name,
            position=position,
            read_truth=partial(MaskTruth, decoded.labels == position),
        )
        for position in range(len(decoded.names))
    ]


def _drawn_labels(example: Example, ids: dict[str, int]) -> NDArray[np.int64]:
    """Read the labels back from the lossless target, as ids of the whole benchmark; background is a class."""
    decoded = decode_example(example.spec, example.target)
    assert isinstance(decoded, Segmentation)
    table = np.array([ids.get(name, VOID) for name in (*decoded.names, BACKGROUND)], np.int64)
    return table[decoded.labels]


def _drawn_masks(target: NDArray[np.uint8], background: Sequence[int]) -> NDArray[np.bool_]:
    """Return one mask for each colour of the lossless target but the background's."""
    packed = target.astype(np.int64) @ np.array([65536, 256, 1])
    ground = int(np.dot(background, [65536, 256, 1]))
    values = [value for value in np.unique(packed) if value != ground]
    return np.stack([packed == value for value in values]) if values else np.zeros((0, *packed.shape), bool)
