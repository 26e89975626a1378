"""The evaluate stage: a folder of generated pictures and a benchmark in; result.json and report.html out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import VISION_TASKS
from cavendish.mixing.config import Config
from cavendish.mixing.images import encode_png
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import write_atomic
from cavendish.trainer.evaluation.benchmarks import READERS, read_benchmark
from cavendish.trainer.evaluation.items import Benchmark
from cavendish.trainer.evaluation.metrics.depth import Alignment
from cavendish.trainer.evaluation.report.page import render_report
from cavendish.trainer.evaluation.score import Result, choose_items, find_predictions, read_answers, read_specs, score
from cavendish.trainer.evaluation.sets import read_sample_questions
from cavendish.trainer.evaluation.settings import SampleTask


class ScoreConfig(Config):
    """What to score.

    Args:
        benchmark: a name of `benchmarks.READERS`, or "samples" for raw shards of our own.
        folder: the benchmark as downloaded, or the directory of raw shards.
        task: for samples, which task to ask.
        alignment: for depth, how predictions are fitted to the truth first; "none" is metric depth.
        limit: score a random subset of so many items; None is all.
        seed: of that subset, and of the questions asked of samples.
        partial: leave out items without a prediction instead of refusing the folder.
        title: heading of the page.
    """

    benchmark: str
    folder: Path
    task: SampleTask | None = None
    alignment: Alignment = "none"
    limit: int | None = None
    seed: int = 0
    partial: bool = False
    title: str = "Evaluation"


def load_benchmark(config: ScoreConfig, data: Path) -> Benchmark:
    """Read the benchmark a configuration names; relative folders count from `data`.

    Raises:
        InputError: unknown name, missing folder, a task for a public benchmark or none for samples.
    """
    folder = data / config.folder
    if config.benchmark == "samples":
        if config.task is None:
            raise InputError(f"evaluate: benchmark 'samples' needs task: one of {', '.join(VISION_TASKS)}")
        benchmark = read_sample_questions(folder, config.task, config.seed).benchmark
    elif config.benchmark not in READERS:
        raise InputError(f"benchmark {config.benchmark!r} is not known; known: samples, {', '.join(READERS)}")
    elif config.task is not None:
        raise InputError(f"evaluate: task is for benchmark 'samples' only; {config.benchmark} has its own")
    else:
        benchmark = read_benchmark(config.benchmark, folder)
    if config.alignment != "none":
        if benchmark.task != "depth":
            raise InputError(f"evaluate: alignment is for depth; {benchmark.name} is {benchmark.task}")
        protocol = dataclasses.replace(benchmark.depth, alignment=config.alignment)
        note = f"not metric: predictions were fitted to the truth of each picture ({config.alignment})"
        benchmark = dataclasses.replace(benchmark, depth=protocol, notes=(*benchmark.notes, note))
    return benchmark


def evaluate(
    config: ScoreConfig, predictions: Path, out: Path, data: Path = Path(), progress: Progress | None = None
) -> dict[str, Any]:
    """Score a folder of generated pictures and write `result.json` and `report.html` to `out`.

    Args:
        predictions: PNG files named after the items (see `write_requests`), and `specs.json` when the model was asked
            in another legend or codec than the requests'.
        data: relative folders of the configuration count from here.
        progress: called with (done, total).

    Returns:
        the content of result.json.

    Raises:
        InputError: one line about what is wrong with the configuration, the benchmark or the predictions.
    """
    everything = load_benchmark(config, data)
    chosen = choose_items(everything, config.limit, config.seed)
    known = {item.file for item in everything.items}
    benchmark, files = find_predictions(chosen, predictions, known, config.partial)
    result = score(benchmark, read_answers(files), read_specs(predictions), progress)
    write_result(result, out, config.title)
    return dict(result.values)


def write_result(result: Result, out: Path, title: str) -> None:
    """Write `result.json` and `report.html`."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "result.json", json.dumps(result.values, indent=1, sort_keys=True, allow_nan=False).encode())
    write_atomic(out / "report.html", render_report(result, title).encode())


def write_requests(benchmark: Benchmark, out: Path) -> int:
    """Write what any model needs to answer a benchmark: `requests.jsonl`, `images/`; return the number of pictures.

    Each line holds `file` (the prediction's name), `prompt`, `spec` and `image` (the input picture as the protocol
    crops it, relative to `out`; null for generation from text).
    """
    lines: dict[str, bytes] = {}
    for item in benchmark.items:
        if item.file in lines:
            continue
        image = None
        if item.read_image is not None:
            image = f"images/{item.file}"
            (out / image).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out / image, encode_png(item.read_image()))
        line = {"file": item.file, "prompt": item.prompt, "spec": dict(item.spec), "image": image}
        lines[item.file] = canonical_json(line)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "requests.jsonl", b"".join(line + b"\n" for line in lines.values()))
    return len(lines)


def summary_lines(values: dict[str, Any]) -> list[str]:
    """Return a result in two lines for a terminal: what was scored, and the metrics of the predictions."""
    metrics = values["rows"][0]["metrics"]
    metrics = metrics.get("pooled", metrics)
    numbers = [f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float)]
    return [f"{values['benchmark']}: {values['items']} items, {values['protocol']}", "  " + ", ".join(numbers)]
