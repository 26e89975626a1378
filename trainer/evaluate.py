"""Asks a tuned generator and its base the questions of held-out samples, scores the answers, measures retention."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from encoders.augment import resize_sample
from encoders.instructions import make_example, tasks_of
from encoders.sample import Example, InputError, Sample
from mixing.config import Config
from mixing.engine import Progress
from mixing.images import encode_png
from mixing.shards import committed_rows, read_dataset
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic
from trainer.evaluation.answers import fit_guesses
from trainer.evaluation.evaluate import SampleTask, write_result
from trainer.evaluation.samples import Questions, read_sample_questions
from trainer.evaluation.score import read_answers, score
from trainer.generators.folder import load_generator
from trainer.generators.protocol import Generator
from trainer.predict import predict_examples
from trainer.retention import measure_retention

SUMMARY_SCHEMA = "cavendish-evaluation/1"


class SampleSet(Config):
    """A directory of raw shards that no mixture holds, and what to ask of it."""

    folder: Path
    tasks: tuple[SampleTask, ...] = Field(min_length=1)


class EvaluateConfig(Config):
    """What to ask whom. Paths are relative to the data folder.

    Args:
        generator: folder of the tuned generator.
        base: folder of the generator it was tuned from: asked the same, and what retention is measured against.
        sets: held-out samples by name.
        priors: raw shards whose truth the blind guesses are fitted on (what one would answer without looking).
        retention: held-out samples whose captions and edits retention is measured on.
        size: side of the pictures the generators draw, in pixels.
        steps: Euler steps of an answer to a vision task.
        edit_steps: Euler steps of an edited picture.
    """

    generator: Path
    base: Path
    sets: dict[str, SampleSet] = Field(min_length=1)
    priors: Path
    retention: Path
    size: int = Field(default=64, ge=16)
    steps: int = Field(default=4, ge=1)
    edit_steps: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)


def evaluate_generator(
    config: EvaluateConfig, out: Path, data: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Evaluate as the configuration says; an evaluation of the same weights and samples is not done again.

    Writes, for each set and task, `SET/TASK/tuned` and `SET/TASK/base` (the drawn answers) and `result.json` with
    `report.html` for each, then `summary.json`.

    Returns:
        The content of summary.json: "sets" (set, then task, then rows of metrics by name), "retention", "identity".

    Raises:
        InputError: a generator or samples are missing, or a set has no sample for a task.
    """
    identity = _identity(config, data)
    path = out / "summary.json"
    if path.exists():
        done = read_json(path, "the summary of an evaluation")
        if done.get("identity") == identity:
            return dict(done)
    generators = {
        name: load_generator(data / folder) for name, folder in (("tuned", config.generator), ("base", config.base))
    }
    jobs = [(name, task) for name, samples in config.sets.items() for task in samples.tasks]
    results: dict[str, dict[str, Any]] = {name: {} for name in config.sets}
    for number, (name, task) in enumerate(jobs):
        if progress is not None:
            progress(number, len(jobs) + 1)
        results[name][task] = _ask(config, name, task, generators, out / name / task, data)
    if progress is not None:
        progress(len(jobs), len(jobs) + 1)
    retention = _retention(config, generators, data)
    summary = {"schema": SUMMARY_SCHEMA, "identity": identity, "sets": results, "retention": retention}
    write_atomic(path, canonical_json(summary))
    if progress is not None:
        progress(len(jobs) + 1, len(jobs) + 1)
    return dict(read_json(path, "the summary of an evaluation"))


def _identity(config: EvaluateConfig, data: Path) -> dict[str, Any]:
    """Name all that an evaluation is a function of."""
    folders = {samples.folder for samples in config.sets.values()} | {config.priors, config.retention}
    return {
        "config": digest(config.model_dump(mode="json")),
        "generators": [file_sha256(_weights(data / folder)) for folder in (config.generator, config.base)],
        "samples": {
            folder.as_posix(): digest([row.sha256 for row in committed_rows(data / folder)])
            for folder in sorted(folders)
        },
    }


def _weights(folder: Path) -> Path:
    path = folder / "weights.pt"
    if not path.exists():
        raise InputError(f"{folder}: no trained generator there; run its training first")
    return path


def _ask(
    config: EvaluateConfig, name: str, task: SampleTask, generators: Mapping[str, Generator], out: Path, data: Path
) -> dict[str, Any]:
    """Put one task's questions to all generators; return the rows of metrics: "tuned", "base" and the blind guesses."""
    questions = read_sample_questions(data / config.sets[name].folder, task, config.seed)
    fitted = _fit_priors(config, task, questions, data)
    rows: dict[str, Any] = {}
    items = 0
    for who, generator in generators.items():
        files = _answer(config, questions, generator, out / who)
        item_files = {item.name: files[item.file] for item in questions.benchmark.items}
        result = score(questions.benchmark, read_answers(item_files), fitted=fitted)
        write_result(result, out / who, f"{name}: {task}, {who}")
        items = result.values["items"]
        for row in result.values["rows"]:
            if row["kind"] != "published":
                rows[who if row["kind"] == "prediction" else row["name"]] = row["metrics"]
    return {"items": items, "rows": rows}


def _answer(config: EvaluateConfig, questions: Questions, generator: Generator, folder: Path) -> dict[str, Path]:
    """Draw and write the answer to every question; return the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    small = [_at_size(example, config.size) for example in questions.examples]
    files: dict[str, Path] = {}
    for example, picture in zip(small, predict_examples(generator, small, config.steps, config.seed), strict=True):
        name = f"{example.key}.png"
        files[name] = folder / name
        write_atomic(files[name], encode_png(picture))
    return files


def _at_size(example: Example, size: int) -> Example:
    """Return the question with its picture at the generator's size; a model is not shown the target."""
    source = example.source
    if source is not None:
        source = cv2.resize(source, (size, size), interpolation=cv2.INTER_AREA)
    return dataclasses.replace(example, source=source, target=np.zeros((size, size, 3), np.uint8))


def _fit_priors(
    config: EvaluateConfig, task: SampleTask, questions: Questions, data: Path
) -> dict[str, NDArray[Any]] | None:
    """Fit the blind guesses on training truth; None where they are fitted on the classes of the set itself."""
    if task not in ("depth", "normals"):
        return None
    prior = read_sample_questions(data / config.priors, task, config.seed).benchmark
    truths = (item.read_truth() for item in prior.items if item.read_truth is not None)
    return fit_guesses(questions.benchmark, truths)


def _retention(config: EvaluateConfig, generators: Mapping[str, Generator], data: Path) -> dict[str, Any]:
    """Measure what the tuned generator kept of generating and editing."""
    examples: list[Example] = []
    for index, record in enumerate(_raw_samples(data / config.retention)):
        sample = resize_sample(record, config.size, config.size)
        examples += [
            make_example(sample, task, np.random.default_rng([config.seed, index]))
            for task in ("generate", "edit")
            if task in tasks_of(sample)
        ]
    return measure_retention(generators["tuned"], generators["base"], examples, config.seed, config.edit_steps)


def _raw_samples(folder: Path) -> Sequence[Sample]:
    records = list(read_dataset(folder))
    samples = [record for record in records if isinstance(record, Sample)]
    if len(samples) < len(records):
        raise InputError(f"{folder}: holds instruction shards; retention is measured on raw shards")
    return samples
