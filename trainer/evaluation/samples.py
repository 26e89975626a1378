"""Held-out samples of our own as a benchmark: the same code scores them and the public sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.encoders.tasks.registry import VISION_TASKS, make_example, tasks_of
from cavendish.mixing.shards.reader import read_dataset
from cavendish.trainer.evaluation.items import Benchmark
from cavendish.trainer.evaluation.tasks.task import TaskEvaluation, find_evaluation

_MAX_DRAWS = 200


@dataclass(frozen=True)
class Questions:
    """A benchmark of our own samples and the Examples to ask a model with, one for each image to draw."""

    benchmark: Benchmark
    examples: tuple[Example, ...]


def sample_questions(samples: Iterable[Sample], task: str, seed: int) -> Questions:
    """Draw one question per sample that can serve `task`; a function of the samples and the seed alone.

    The image that answers an Example is called `Example.key`.

    Raises:
        InputError: an unknown task, or no sample that serves it.
    """
    if task not in VISION_TASKS:
        raise InputError(f"task {task!r} of samples cannot be scored; scored are {', '.join(VISION_TASKS)}")
    evaluation = find_evaluation(task)
    pairs = [
        (sample, _draw(sample, evaluation, seed, index))
        for index, sample in enumerate(samples)
        if task in tasks_of(sample)
    ]
    if not pairs:
        raise InputError(f"no sample can serve task {task!r}")
    return Questions(evaluation.benchmark(pairs), tuple(example for _, example in pairs))


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


def _draw(sample: Sample, evaluation: TaskEvaluation, seed: int, index: int) -> Example:
    for attempt in range(_MAX_DRAWS):
        rng = np.random.default_rng([seed, index, attempt])
        example = make_example(sample, evaluation.name, rng, evaluation.negative_probability)
        if evaluation.accepts(example):
            return dataclasses.replace(example, key=f"{sample.key}.{evaluation.name}")
    raise InputError(f"{sample.key}: no {evaluation.name} prompt that can be scored in {_MAX_DRAWS} draws")
