"""Asks a tuned generator and its base the questions of held-out samples, scores the answers, measures retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from cavendish.encoders.sample import Example, UInt8Image
from cavendish.mixing.images import encode_png
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.mixture.draw import Buckets, Sizes
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import read_json, write_atomic
from cavendish.trainer.evaluation.evaluate import write_result
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.retention import measure_retention, retention_examples
from cavendish.trainer.evaluation.score import ReadAnswer, Result, score
from cavendish.trainer.evaluation.sets import ask, fit_priors, read_set
from cavendish.trainer.evaluation.settings import EvaluationSets
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Generator, check_prompts
from cavendish.trainer.generators.weights import model_digest
from cavendish.trainer.inference.sampler import predict_examples

SUMMARY_SCHEMA = "cavendish-evaluation/1"


class EvaluateConfig(EvaluationSets):
    """What to ask whom. Paths are relative to the data folder.

    Args:
        generator: folder of the tuned generator.
        base: folder of the generator it was tuned from: asked the same, and what retention is measured against.
        sets, priors, steps, passes: see `EvaluationSets`.
        retention: held-out samples whose captions and edits retention is measured on.
        size: side of the pictures the generators draw, in pixels.
        buckets: (height, width) sizes instead, as in training.
        edit_steps: Euler steps of an edited picture.
    """

    generator: Path
    base: Path
    retention: Path
    size: int = Field(default=64, ge=16)
    buckets: Buckets | None = None
    edit_steps: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def sizes(self) -> Sizes:
        """The sizes that pictures are brought to."""
        return self.size if self.buckets is None else self.buckets


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
    jobs = [
        (name, task, benchmark)
        for name, settings in config.sets.items()
        for task, benchmark in read_set(settings, data, config.seed).items()
    ]
    for generator in generators.values():
        check_prompts(generator, [item.prompt for _, _, benchmark in jobs for item in benchmark.items])
    results: dict[str, dict[str, Any]] = {name: {} for name in config.sets}
    for number, (name, task, benchmark) in enumerate(jobs):
        if progress is not None:
            progress(number, len(jobs) + 1)
        results[name][task] = _ask(config, name, benchmark, generators, out / name / task, data)
    if progress is not None:
        progress(len(jobs), len(jobs) + 1)
    examples = retention_examples(data / config.retention, config.sizes, config.seed)
    retention = measure_retention(generators["tuned"], generators["base"], examples, config.seed, config.edit_steps)
    summary = {"schema": SUMMARY_SCHEMA, "identity": identity, "sets": results, "retention": retention}
    write_atomic(path, canonical_json(summary))
    if progress is not None:
        progress(len(jobs) + 1, len(jobs) + 1)
    return dict(read_json(path, "the summary of an evaluation"))


def _identity(config: EvaluateConfig, data: Path) -> dict[str, Any]:
    """Name all that an evaluation is a function of."""
    folders = {settings.folder for settings in config.sets.values() if settings.benchmark is None}
    folders |= {config.retention} | ({config.priors} if config.priors is not None else set())
    return {
        "config": digest(config.model_dump(mode="json")),
        "generators": [model_digest(data / folder) for folder in (config.generator, config.base)],
        "samples": {
            folder.as_posix(): digest([row.sha256 for row in committed_rows(data / folder)])
            for folder in sorted(folders)
        },
    }


def _ask(
    config: EvaluateConfig,
    name: str,
    benchmark: Benchmark,
    generators: Mapping[str, Generator],
    out: Path,
    data: Path,
) -> dict[str, Any]:
    """Put one task's questions to all generators; return the rows of metrics: "tuned", "base" and the blind guesses."""
    passes = [ask(benchmark, config.sizes, number) for number in range(config.passes)]
    fitted = fit_priors(benchmark, None if config.priors is None else data / config.priors, config.seed)
    rows: dict[str, Any] = {}
    items = 0
    for who, generator in generators.items():
        drawn = predict_examples(generator, [e for one in passes for e in one], config.steps, config.seed)
        _write_pictures(passes, drawn, out / who)
        result = score_drawn(benchmark, passes, drawn, fitted)
        write_result(result, out / who, f"{name}: {benchmark.task}, {who}")
        items = result.values["items"]
        for row in result.values["rows"]:
            if row["kind"] != "published":
                rows[who if row["kind"] == "prediction" else row["name"]] = row["metrics"]
    return {"items": items, "rows": rows}


def score_drawn(
    benchmark: Benchmark,
    passes: Sequence[Sequence[Example]],
    drawn: Sequence[UInt8Image],
    fitted: Mapping[str, NDArray[Any]] | None,
) -> Result:
    """Score the pictures drawn for the examples of all passes, one pass after the other.

    Args:
        passes: for each pass what `ask` returns.
        fitted: what `fit_priors` returns.
    """
    pictures = iter(drawn)
    answers: list[tuple[ReadAnswer, Mapping[str, Any]]] = []
    for examples in passes:
        of_pass = {example.key: next(pictures) for example in examples}
        specs = {example.key: example.spec for example in examples}
        answers.append((partial(_drawn_for, of_pass), specs))
    return score(benchmark, answers[0][0], fitted=fitted, more=answers[1:])


def _drawn_for(pictures: Mapping[str, UInt8Image], item: Item) -> UInt8Image:
    return pictures[item.picture or item.name]


def _write_pictures(passes: Sequence[Sequence[Example]], drawn: Sequence[UInt8Image], folder: Path) -> None:
    """Write what was drawn under the names of the items; of further passes in folders of their own."""
    pictures = iter(drawn)
    for number, examples in enumerate(passes):
        inside = folder if number == 0 else folder.with_name(f"{folder.name}-pass-{number + 1}")
        for example in examples:
            path = inside / f"{example.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, encode_png(next(pictures)))
