"""Score generated pictures on a benchmark: decode, measure, compare with blind guesses and published rows."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.encoders.tasks.registry import decode_example
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.evaluation.benchmarks.files import read_bytes
from cavendish.trainer.evaluation.items import Benchmark, Item, Truth
from cavendish.trainer.evaluation.report.published import CAVEAT, PUBLISHED
from cavendish.trainer.evaluation.tasks.task import Tally, TaskEvaluation, find_evaluation

RESULT_SCHEMA = "cavendish-score/1"
RESIZE_RULE = "were not of the truth's size: decoded first, then resized with nearest"
COPY = "the input picture handed back"
WORST = 8

ReadAnswer = Callable[[Item], UInt8Image]


@dataclass(frozen=True)
class Case:
    """One scored item with its pictures, for the page of worst cases."""

    item: Item
    spec: Mapping[str, Any]
    image: UInt8Image | None
    answer: UInt8Image
    truth: Truth
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """`values` is the json of the result; `worst` are the cases of the lowest quality, the lowest first."""

    values: Mapping[str, Any]
    worst: tuple[Case, ...]


def choose_items(benchmark: Benchmark, limit: int | None, seed: int) -> Benchmark:
    """Keep a random subset of `limit` items, a function of the seed; the result says so in its notes."""
    if limit is None or limit >= len(benchmark.items):
        return benchmark
    if limit < 1:
        raise InputError(f"limit {limit}: score at least one item")
    chosen = sorted(np.random.default_rng(seed).choice(len(benchmark.items), limit, replace=False).tolist())
    note = f"random subset: {limit} of {len(benchmark.items)} items, numpy default_rng({seed}).choice"
    return dataclasses.replace(
        benchmark, items=tuple(benchmark.items[i] for i in chosen), notes=(*benchmark.notes, note)
    )


def find_predictions(
    benchmark: Benchmark, folder: Path, known: Collection[str], partial: bool = False
) -> tuple[Benchmark, dict[str, Path]]:
    """Match the PNG files of a folder with the items of a benchmark.

    Args:
        known: files that may be there although `benchmark` does not ask for them (it may be a subset).

    Returns:
        the benchmark with the items that have a file (all of them unless `partial`), and item name to file.

    Raises:
        InputError: a file is missing (unless `partial`), a PNG belongs to no item, JPEGs, or nothing at all.
    """
    if not folder.is_dir():
        raise InputError(f"predictions: no folder {folder}")
    wanted = {item.file for item in benchmark.items}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    if not found & wanted:
        jpeg = next(folder.rglob("*.jp*g"), None)
        reason = f"; {jpeg.name} is a JPEG, whose colours do not decode: write PNG" if jpeg else ""
        example = min(wanted, default="one, but the benchmark has no items")
        raise InputError(f"predictions: no PNG in {folder} is named after an item, such as {example}{reason}")
    missing, extra = sorted(wanted - found), sorted(found - wanted - set(known))
    if missing and not partial:
        raise InputError(
            f"predictions: {len(missing)} of {len(wanted)} files are missing in {folder}, the first is {missing[0]}; "
            "score what is there with partial=true"
        )
    if extra:
        raise InputError(
            f"predictions: {len(extra)} PNG files in {folder} belong to no item of {benchmark.name}, the first is "
            f"{extra[0]}; remove them, or choose the benchmark they were made for"
        )
    items = tuple(item for item in benchmark.items if item.file in found)
    notes = benchmark.notes
    if missing:
        left = f"{len(items)} of {len(benchmark.items)} items have a prediction, the rest is left out"
        notes = (*notes, f"partial: {left}")
    files = {item.name: folder / item.file for item in items}
    return dataclasses.replace(benchmark, items=items, notes=notes), files


def read_specs(folder: Path) -> dict[str, Any]:
    """Read `specs.json` beside predictions: picture name without .png, or "*", to the decode spec it was asked with."""
    path = folder / "specs.json"
    if not path.is_file():
        return {}
    specs = read_json(path, "decode specifications")
    if not isinstance(specs, dict) or not all(isinstance(spec, dict) for spec in specs.values()):
        raise InputError(f"{path}: expected a map from prediction name (or '*') to a decode specification")
    return specs


def read_answers(files: Mapping[str, Path]) -> ReadAnswer:
    """Return the function that reads the picture of an item."""
    return lambda item: decode_rgb(read_bytes(files[item.name]), str(files[item.name]))


def score(
    benchmark: Benchmark,
    read_answer: ReadAnswer,
    specs: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    fitted: Mapping[str, NDArray[Any]] | None = None,
    more: Sequence[tuple[ReadAnswer, Mapping[str, Any]]] = (),
) -> Result:
    """Score generated pictures on a benchmark.

    Args:
        read_answer: returns the generated picture of an item, of any size.
        specs: decode specs by picture name, or for all as "*", that replace those of the items.
        progress: called with (done, total) after each item.
        fitted: the blind guesses (`TaskEvaluation.fit_guesses`) when fitted on other truth than the benchmark's own.
        more: further answers to the same questions, asked in other words and colours, each with the decode specs they
            were asked with by picture name: what is measured is what they agree on (`TaskEvaluation.merge`).

    Returns:
        The result: rows "prediction", the blind guesses, the input handed back, and published figures.

    Raises:
        InputError: a benchmark that is judged rather than measured, no items, or a bad file; the message names it.
    """
    if not benchmark.items:
        raise InputError(f"{benchmark.name}: no items to score")
    evaluation = evaluation_of(benchmark)
    tallies: dict[str, Tally] = defaultdict(partial(evaluation.tally, benchmark))
    if fitted is None:
        fitted = evaluation.fit_guesses(benchmark, (truth_of(item) for item in benchmark.items))
        fitted_on = "the truth they are scored on"
    else:
        fitted_on = "other truth than they are scored on"
    per_item: list[dict[str, Any]] = []
    worst: list[tuple[float, int, Case]] = []
    resized: dict[str, int] = {}
    for number, item in enumerate(benchmark.items):
        truth = truth_of(item)
        size = truth.size
        answer = read_answer(item)
        spec = _spec(item, specs or {})
        if answer.shape[:2] != size:
            key = f"{answer.shape[1]}x{answer.shape[0]} to {size[1]}x{size[0]}"
            resized[key] = resized.get(key, 0) + 1
        passes = [predict_item(evaluation, item, spec, answer, size)]
        passes += [predict_item(evaluation, item, _spec(item, others), read(item), size) for read, others in more]
        prediction = passes[0] if len(passes) == 1 else evaluation.merge(passes)
        metrics = _add(tallies["prediction"], item, truth, prediction)
        per_item.append({"name": item.name, **metrics})
        image = None if item.read_image is None else item.read_image()
        for name, guess in evaluation.guesses(fitted, size).items():
            _add(tallies[name], item, truth, guess)
        if image is not None and evaluation.scores_input:
            _add(tallies[COPY], item, truth, predict_item(evaluation, item, item.spec, image, size))
        if metrics["quality"] is not None:
            worst.append((metrics["quality"], number, Case(item, spec, image, answer, truth, metrics)))
            worst = sorted(worst, key=lambda entry: entry[:2])[:WORST]
        if progress is not None:
            progress(number + 1, len(benchmark.items))
    rows = [{"kind": _kind(name), "name": name, "metrics": tally.metrics()} for name, tally in tallies.items()]
    return Result(
        {**_values(benchmark, rows, per_item, resized), "guesses_fitted_on": fitted_on, "passes": 1 + len(more)},
        tuple(case for _, _, case in worst),
    )


def evaluation_of(benchmark: Benchmark) -> TaskEvaluation:
    """Return how the task of a benchmark is measured.

    Raises:
        InputError: it is judged by people or models.
    """
    try:
        return find_evaluation(benchmark.task)
    except InputError as error:
        raise InputError(f"{benchmark.name}: {error}") from None


def predict_item(
    evaluation: TaskEvaluation, item: Item, spec: Mapping[str, Any], rgb_u8: UInt8Image, size: tuple[int, int]
) -> Any:
    """Decode a generated image, then bring the prediction to the truth's size (never the other way round)."""
    return evaluation.predict(item, decode_example(spec, rgb_u8), size)


def truth_of(item: Item) -> Truth:
    """Read the truth of an item.

    Raises:
        InputError: it has none.
    """
    if item.read_truth is None:
        raise InputError(f"{item.name}: has no truth; its benchmark is judged by people or models, see win_rate")
    return item.read_truth()


def _spec(item: Item, specs: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = specs.get(item.picture or item.name, specs.get("*", item.spec))
    if spec.get("task") != item.spec["task"]:
        raise InputError(
            f"{item.name}: its decode spec is for task {spec.get('task')!r}, the item's is {item.spec['task']!r}"
        )
    return spec


def _add(tally: Tally, item: Item, truth: Truth, prediction: Any) -> dict[str, Any]:
    try:
        return tally.add(truth, prediction, item.group)
    except InputError as error:
        raise InputError(f"{item.name}: {error}") from None


def _kind(name: str) -> str:
    return "prediction" if name == "prediction" else "baseline"


def _values(
    benchmark: Benchmark, rows: list[dict[str, Any]], per_item: Sequence[Mapping[str, Any]], resized: Mapping[str, int]
) -> dict[str, Any]:
    notes = list(benchmark.notes)
    if benchmark.expected is not None and len(benchmark.items) != benchmark.expected:
        notes.append(f"{len(benchmark.items)} items are scored, the published set has {benchmark.expected}")
    if resized:
        sizes = ", ".join(f"{count} from {key}" for key, count in sorted(resized.items()))
        notes.append(f"{sum(resized.values())} pictures {RESIZE_RULE} ({sizes})")
    published = [
        {"kind": "published", "name": row.source, "metrics": dict(row.metrics), "remark": row.remark}
        for row in PUBLISHED.get(benchmark.name, ())
    ]
    return {
        "schema": RESULT_SCHEMA,
        "benchmark": benchmark.name,
        "task": benchmark.task,
        "headline": benchmark.headline,
        "protocol": rows[0]["metrics"]["protocol"],
        "items": len(benchmark.items),
        "expected": benchmark.expected,
        "resized": dict(resized),
        "notes": notes,
        "caveat": CAVEAT if published else "",
        "rows": [*rows, *published],
        "per_item": list(per_item),
    }
