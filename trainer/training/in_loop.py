"""Evaluation while training: held-out sets decoded and scored, and what is left of the base, at intervals.

It is the averaged weights that are asked. Nothing that training depends on is touched: the weights are put back bit by
bit, no random state is moved, and the positions in the data and in the noise are functions of the step.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, UInt8Image
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import read_json, write_atomic
from cavendish.trainer.evaluation.evaluate import write_result
from cavendish.trainer.evaluation.generator import score_drawn
from cavendish.trainer.evaluation.items import Benchmark
from cavendish.trainer.evaluation.report.page import look_up
from cavendish.trainer.evaluation.retention import (
    compare_figures,
    measure_figures,
    over_limit,
    retention_examples,
    retention_rows,
)
from cavendish.trainer.evaluation.score import truth_of
from cavendish.trainer.evaluation.sets import ask, fit_priors, read_set
from cavendish.trainer.evaluation.tasks.task import find_evaluation
from cavendish.trainer.generators.protocol import check_prompts
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.parallel import all_gather, autocast, rank0_only, reshard
from cavendish.trainer.training.checkpoint import checkpoints, step_of_name
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.log import Tracker, log_evaluation
from cavendish.trainer.training.run import Run, RunStopped

Row = tuple[str, str, str, str, float]
"""Set, task, who answered, metric, value."""


@dataclass(frozen=True)
class Asked:
    """One task of one set: the examples of each pass; on the first process also what scores the answers."""

    name: str
    passes: tuple[tuple[Example, ...], ...]
    benchmark: Benchmark | None
    fitted: Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True)
class HeldOut:
    """All that is asked in a run, read once, before its first step."""

    asked: tuple[Asked, ...]
    kept: tuple[Example, ...]
    base: Mapping[str, Any]


def prepare(run: Run, out: Path, base_digest: str) -> Callable[[Sequence[Tracker]], str | None]:
    """Read what is asked in a run, while its network still is the base; return what asks it.

    Args:
        base_digest: names the base.

    Raises:
        RunStopped: the run was stopped before for what it has lost.
        InputError: a set cannot be read, lacks a file, or has nothing to ask.
    """
    kept = checkpoints(out)
    complaint = retention_complaint(run.config, out, step_of_name(kept[-1].name) or 0) if kept else None
    refused = all_gather(complaint, run.process)[0]
    if refused is not None and _stops(run.config):
        raise RunStopped(_stop_message(refused, out))
    if run.process.rank == 0:
        _warn_of_shards_trained_on(run)
    return partial(evaluate_run, run, _read_held_out(run, out, base_digest), out)


def _warn_of_shards_trained_on(run: Run) -> None:
    """Say on stderr which sets hold shards that the mixture draws from too."""
    config = run.config
    sets = {} if config.evaluate is None else config.evaluate.sets
    folders = {name: one.folder for name, one in sets.items() if one.benchmark is None}
    if config.retention is not None:
        folders["retention"] = config.retention.samples
    locked = () if run.lock is None else (shard for source in run.lock.sources for shard in source.shards)
    trained = {shard.sha256 for shard in locked}
    for name, folder in folders.items():
        both = sum(row.sha256 in trained for row in committed_rows(run.data / folder)) if trained else 0
        if both:
            told = f"{both} shards of {folder} are in the mixture too: its figures say little about other pictures"
            print(f"evaluation: {name}: {told}", file=sys.stderr, flush=True)


def _read_held_out(run: Run, out: Path, base_digest: str) -> HeldOut:
    config, data = run.config, run.data
    asked: list[Asked] = []
    if config.evaluate is not None:
        for name, settings in config.evaluate.sets.items():
            for benchmark in read_set(settings, data, config.seed).values():
                asked.append(_asked(run, name, benchmark))
    kept: list[Example] = []
    base: Mapping[str, Any] = {}
    if config.retention is not None:
        kept = retention_examples(data / config.retention.samples, config.sizes, config.seed, config.retention.items)
        check_prompts(run.generator, [example.prompt for example in kept])
        base = _base_figures(run, kept, out, base_digest)
    return HeldOut(tuple(asked), tuple(kept), base)


def _asked(run: Run, name: str, benchmark: Benchmark) -> Asked:
    settings = run.config.evaluate
    assert settings is not None
    passes = tuple(tuple(ask(benchmark, run.config.sizes, number)) for number in range(settings.passes))
    check_prompts(run.generator, [example.prompt for examples in passes for example in examples])
    if run.process.rank > 0:
        return Asked(name, passes, None, None)
    priors = None if settings.priors is None else run.data / settings.priors
    for item in benchmark.items:
        truth_of(item)  # a file that cannot be read is told before the first step
    return Asked(name, passes, benchmark, fit_priors(benchmark, priors, run.config.seed))


def _base_figures(run: Run, kept: Sequence[Example], out: Path, base_digest: str) -> Mapping[str, Any]:
    """Measure the generator that the run starts from, or read what was measured of it before an interruption."""
    settings = run.config.retention
    assert settings is not None
    asked = digest([[e.key, e.prompt, *(_sha256(p) for p in (e.source, e.target))] for e in kept])
    of = {"base": base_digest, "examples": asked, "steps": settings.steps, "seed": run.config.seed}
    path = out / "retention_base.json"
    found = read_json(path, "what was measured of the base") if path.exists() else None
    known = found["figures"] if isinstance(found, dict) and found.get("of") == of else None
    if all_gather(known is not None, run.process)[0]:
        return known or {}
    with _undisturbed(run):
        figures = _figures(run, kept)
    if run.process.rank == 0:
        write_atomic(path, json.dumps({"of": of, "figures": figures}, indent=1, sort_keys=True).encode())
    return figures


def _sha256(picture: UInt8Image | None) -> str | None:
    return None if picture is None else hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


def _figures(run: Run, kept: Sequence[Example]) -> dict[str, Any]:
    config = run.config
    assert config.retention is not None
    return measure_figures(run.generator, kept, config.seed, config.retention.steps, config.evaluate_batch, run.process)


@contextlib.contextmanager
def _undisturbed(run: Run) -> Iterator[None]:
    """Compute as in training, with random states of its own; not compiled, since that depends on all shapes seen."""
    module, device = run.module, run.process.device
    training = module.training
    module.eval()
    with (
        autocast(run.config.precision, run.process.device),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager") if run.config.compile else contextlib.nullcontext(),
    ):
        yield
    reshard(module)
    module.train(training)


def evaluate_run(run: Run, held_out: HeldOut, out: Path, trackers: Sequence[Tracker]) -> str | None:
    """Ask the averaged weights of a run all questions; add to evaluation.csv, and write pages to `out/evaluation`.

    Every process draws its part; the first scores, and the others wait for it.

    Returns:
        what the run must be stopped for, on every process; None when it may go on. What is only worth a warning is
        printed on stderr.
    """
    config = run.config
    with run.averaged(), _undisturbed(run):
        drawn = [_draw(run, asked) for asked in held_out.asked]
        figures = _figures(run, held_out.kept) if held_out.kept else {}
    complaint = None
    with rank0_only(run.process) as first:
        if first:
            rows = [row for asked, pictures in zip(held_out.asked, drawn) for row in _score(run, asked, pictures, out)]
            if figures:
                compared = compare_figures(figures, held_out.base, config.seed)
                rows += [("retention", *row) for row in retention_rows(compared)]
            log_evaluation(out / "evaluation.csv", run.step, rows)
            for track in trackers:
                track(run.step, {f"{name}/{task}/{metric}/{who}": value for name, task, who, metric, value in rows})
            complaint = retention_complaint(config, out, run.step)
            if complaint is not None and not _stops(config):
                print(complaint, file=sys.stderr, flush=True)
    complaint = all_gather(complaint, run.process)[0]
    return _stop_message(complaint, out) if complaint is not None and _stops(config) else None


def _stops(config: TrainConfig) -> bool:
    return config.retention is not None and config.retention.action == "stop"


def _draw(run: Run, asked: Asked) -> list[UInt8Image]:
    config = run.config
    assert config.evaluate is not None
    examples = [example for one in asked.passes for example in one]
    return predict_examples(
        run.generator,
        examples,
        config.evaluate.steps,
        config.seed,
        config.evaluate_batch,
        run.process,
        guidance=config.evaluate.guidance,
    )


def _score(run: Run, asked: Asked, drawn: Sequence[UInt8Image], out: Path) -> list[Row]:
    """Write the page of a set and task; return its rows, those of the blind guesses among them."""
    assert asked.benchmark is not None
    task = asked.benchmark.task
    result = score_drawn(asked.benchmark, asked.passes, drawn, asked.fitted)
    write_result(result, out / "evaluation" / asked.name / task, f"{asked.name}: {task}, step {run.step}")
    rows: list[Row] = []
    for row in result.values["rows"]:
        if row["kind"] == "published":
            continue
        who = "generator" if row["kind"] == "prediction" else row["name"]
        for column in find_evaluation(task).columns:
            value = look_up(row, column.metric)
            if value is not None:
                rows.append((asked.name, task, who, column.metric, value))
    return rows


def retention_complaint(config: TrainConfig, out: Path, step: int) -> str | None:
    """Say what has passed which limit of retention, by the last evaluation in `out` until `step`; None: nothing has."""
    path = out / "evaluation.csv"
    if config.retention is None or not path.exists():
        return None
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "retention" and row["who"] == "generator"]
    rows = [row for row in rows if int(row["step"]) <= step]
    last = rows[-1]["step"] if rows else ""
    ratios = {(row["task"], row["metric"]): float(row["value"]) for row in rows if row["step"] == last}
    said = over_limit(ratios, config.retention)
    return None if said is None else f"retention at step {last}: {said}"


def _stop_message(complaint: str, out: Path) -> str:
    return (
        f"stopped: {complaint}. The state at the last step is kept in {out}. Start again from the base with a lower "
        "learning_rate or less vision, or go on with retention.action=warn or a higher limit"
    )
