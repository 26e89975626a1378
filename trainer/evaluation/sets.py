"""Sets to evaluate on, held-out samples of our own or a public benchmark, and the examples that ask a generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.encoders.tasks.registry import VISION_TASKS, ask_again, make_example, tasks_of
from cavendish.mixing.mixture.draw import Sizes, nearest_size
from cavendish.mixing.shards.reader import read_dataset
from cavendish.trainer.evaluation.items import Benchmark
from cavendish.trainer.evaluation.score import choose_items, evaluation_of, truth_of
from cavendish.trainer.evaluation.settings import EvaluationSet
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


def read_set(settings: EvaluationSet, data: Path, seed: int) -> dict[str, Benchmark]:
    """Read a set as one benchmark for each task.

    Args:
        data: a relative folder counts from here.
        seed: of the questions put to raw shards, and of the subset.

    Raises:
        InputError: nothing there that can serve, or a benchmark that people judge.
    """
    folder = data / settings.folder
    found: dict[str, Benchmark] = {}
    if settings.benchmark is None:
        samples = list(read_samples(folder))
        for task in settings.tasks:
            found[task] = sample_questions(samples, task, seed).benchmark
    else:
        from cavendish.trainer.evaluation.benchmarks import read_benchmark  # needs libraries that training does not

        benchmark = read_benchmark(settings.benchmark, folder)
        evaluation_of(benchmark)  # people or models judge the others
        found[benchmark.task] = benchmark
    return {task: choose_items(benchmark, settings.items, seed) for task, benchmark in found.items()}


def ask(benchmark: Benchmark, sizes: Sizes, pass_number: int = 0) -> list[Example]:
    """Return one example for each picture that a benchmark wants drawn, in order; keys are names without .png.

    Args:
        sizes: side of the pictures a generator draws, or buckets (see `mixing.mixture.draw.nearest_size`).
        pass_number: 0 asks as the benchmark does, others in other words and colors (see `ask_again`).

    The targets are blank: a generator is not shown them.
    """
    examples: dict[str, Example] = {}
    for item in benchmark.items:
        if item.file in examples:
            continue
        prompt, spec = item.prompt, item.spec
        if pass_number:
            question = ask_again(spec, pass_number)
            prompt, spec = question.prompt, question.spec
        picture = None if item.read_image is None else item.read_image()
        shape = (1, 1) if picture is None else picture.shape
        height, width = nearest_size(shape[0], shape[1], sizes)
        if picture is not None:
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        blank = np.zeros((height, width, 3), np.uint8)
        examples[item.file] = Example(item.picture or item.name, benchmark.task, prompt, picture, blank, spec)
    return list(examples.values())


def fit_priors(benchmark: Benchmark, priors: Path | None, seed: int) -> dict[str, NDArray[Any]] | None:
    """Fit the blind guesses that transfer (depth, normals) on the truth of other raw shards, such as those trained on.

    Returns:
        None where they are fitted on the set itself, the best that guesses of their kind could be: without `priors`,
        and for tasks whose classes are those of the set.
    """
    evaluation = evaluation_of(benchmark)
    if priors is None or not evaluation.guesses_transfer:
        return None
    prior = sample_questions(read_samples(priors), benchmark.task, seed).benchmark
    return evaluation.fit_guesses(benchmark, (truth_of(item) for item in prior.items))
