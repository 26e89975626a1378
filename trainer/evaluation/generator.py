"""Asks a tuned generator and its base the questions of held-out samples, scores the answers, measures retention."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from cavendish.trainer.evaluation.retention import compare_figures, measure_figures, retention_examples
from cavendish.trainer.evaluation.score import ReadAnswer, Result, score
from cavendish.trainer.evaluation.sets import ask, fit_priors, read_set
from cavendish.trainer.evaluation.settings import EvaluationSets
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Generator, Precision, check_prompts
from cavendish.trainer.generators.weights import model_digest
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.parallel import Process, init_distributed, move_generator, rank0_only, started_by_torchrun

SUMMARY_SCHEMA = "cavendish-evaluation/1"


class EvaluateConfig(EvaluationSets):
    """What to ask whom. Paths are relative to the data folder.

    Args:
        generator: folder of the tuned generator.
        base: folder of the generator it was tuned from: asked the same, and what retention is measured against.
        sets, priors, steps, guidance, passes: see `EvaluationSets`.
        retention: held-out samples whose captions and edits retention is measured on.
        size: side of the pictures the generators draw, in pixels.
        buckets: (height, width) sizes instead, as in training.
        edit_steps: Euler steps of an edited picture.
        device, precision, batch: where, how exactly and how many answers are drawn at a time.
    """

    generator: Path
    base: Path
    retention: Path
    size: int = Field(default=64, ge=16)
    buckets: Buckets | None = None
    edit_steps: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    precision: Precision = "float32"
    batch: int = Field(default=32, ge=1)

    @property
    def sizes(self) -> Sizes:
        """The sizes that pictures are brought to."""
        return self.size if self.buckets is None else self.buckets


@dataclass(frozen=True)
class _Question:
    """One task of one set, as a benchmark, and the fitted blind guesses."""

    set_name: str
    task: str
    benchmark: Benchmark
    fitted: Mapping[str, NDArray[Any]] | None


def evaluate_generator(
    config: EvaluateConfig, out: Path, data: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Evaluate as the configuration says; an evaluation of the same weights and samples is not done again.

    Writes, for each set and task, `SET/TASK/tuned` and `SET/TASK/base` (the drawn answers) and `result.json` with
    `report.html` for each, then `summary.json`. One generator is in memory at a time; the processes of torchrun share
    the drawing, and the first one scores and writes.

    Returns:
        The content of summary.json: "sets" (set, then task, then rows of metrics by name), "retention", "identity";
        an empty dict on all processes but the first.

    Raises:
        InputError: a generator or samples are missing, or a set has no sample for a task.
    """
    identity = _identity(config, data)
    path = out / "summary.json"
    if path.exists():
        done = read_json(path, "the summary of an evaluation")
        if done.get("identity") == identity:
            return dict(done)
    with init_distributed(started_by_torchrun(), config.device) as process:
        summary = _evaluate_all(config, out, data, progress, process)
        if process.rank > 0:
            return {}
    write_atomic(path, canonical_json({**summary, "identity": identity}))
    return dict(read_json(path, "the summary of an evaluation"))


def _evaluate_all(
    config: EvaluateConfig, out: Path, data: Path, progress: Progress | None, process: Process
) -> dict[str, Any]:
    """Ask one generator after the other all questions; return the summary without its identity."""
    questions = [
        _Question(name, task, benchmark, _fit(benchmark, config, data) if process.rank == 0 else None)
        for name, settings in config.sets.items()
        for task, benchmark in read_set(settings, data, config.seed).items()
    ]
    examples = retention_examples(data / config.retention, config.sizes, config.seed)
    results: dict[str, dict[str, Any]] = {name: {} for name in config.sets}
    figures = {}
    total, done = 2 * (len(questions) + 1), itertools.count(1)
    for who, folder in (("tuned", config.generator), ("base", config.base)):
        generator = move_generator(load_generator(data / folder, config.precision), process.device)
        check_prompts(generator, [item.prompt for question in questions for item in question.benchmark.items])
        for question in questions:
            rows, items = _ask(config, question, generator, who, out, process)
            if process.rank == 0:
                result = results[question.set_name].setdefault(question.task, {"items": items, "rows": {}})
                result["rows"] |= rows
            if progress is not None:
                progress(next(done), total)
        figures[who] = measure_figures(
            generator,
            examples,
            config.seed,
            config.edit_steps,
            config.batch,
            process,
            precision=config.precision,
            guidance=config.guidance,
        )
        if progress is not None:
            progress(next(done), total)
        del generator  # before the next one is loaded
    if process.rank > 0:
        return {}
    compared = compare_figures(figures["tuned"], figures["base"], config.seed)
    retention = {"seed": config.seed, "steps": config.edit_steps, **compared}
    return {"schema": SUMMARY_SCHEMA, "sets": results, "retention": retention}


def _fit(benchmark: Benchmark, config: EvaluateConfig, data: Path) -> Mapping[str, NDArray[Any]] | None:
    return fit_priors(benchmark, None if config.priors is None else data / config.priors, config.seed)


def _identity(config: EvaluateConfig, data: Path) -> dict[str, Any]:
    """Name all that an evaluation is a function of."""
    folders = {settings.folder for settings in config.sets.values() if settings.benchmark is None}
    folders |= {config.retention} | ({config.priors} if config.priors is not None else set())
    return {
        "config": digest(_settings(config)),
        "generators": [model_digest(data / folder) for folder in (config.generator, config.base)],
        "samples": {
            folder.as_posix(): digest([row.sha256 for row in committed_rows(data / folder)])
            for folder in sorted(folders)
        },
    }


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """Return what decides the figures; the device and the batch do not, beyond rounding."""
    values = config.model_dump(mode="json", exclude={"device", "batch"})
    defaults = {"precision": "float32", "guidance": 1}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def _ask(
    config: EvaluateConfig, question: _Question, generator: Generator, who: str, out: Path, process: Process
) -> tuple[dict[str, Any], int]:
    """Put one task's questions to a generator; return rows of metrics, blind guesses too, and the number of items."""
    passes = [ask(question.benchmark, config.sizes, number) for number in range(config.passes)]
    examples = [example for examples in passes for example in examples]
    drawn = predict_examples(
        generator,
        examples,
        config.steps,
        config.seed,
        config.batch,
        process,
        precision=config.precision,
        guidance=config.guidance,
    )
    rows: dict[str, Any] = {}
    with rank0_only(process) as first:
        if not first:
            return {}, 0
        folder = out / question.set_name / question.task / who
        _write_pictures(passes, drawn, folder)
        result = score_drawn(question.benchmark, passes, drawn, question.fitted)
        write_result(result, folder, f"{question.set_name}: {question.task}, {who}")
        for row in result.values["rows"]:
            if row["kind"] != "published":
                rows[who if row["kind"] == "prediction" else row["name"]] = row["metrics"]
        return rows, int(result.values["items"])


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
