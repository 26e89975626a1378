"""Trains one base and tunes it at several ratios of vision tasks, on a CPU, and measures every result the same way.

    python -m benchmarks.proof examples/tiny.yaml --out proof [--processes 2] [KEY=VALUE ...]

Writes `OUT/results.json`; `python -m benchmarks.proof_page OUT/results.json` makes the tables and plots of
docs/proof.md from it. Each process computes on one thread. What is finished is not done again, and a killed training
goes on from its last checkpoint; the result is the same.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from benchmarks.proof_data import OBJECT, all_questions, freeze_legends, samples_of
from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.encoders.tasks.registry import make_example, tasks_of
from cavendish.mixing.config import Config, read_config
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import read_json, write_atomic
from cavendish.render.job import RenderConfig, render
from cavendish.trainer.evaluation.retention import compare_figures, measure_figures
from cavendish.trainer.evaluation.score import COPY, score
from cavendish.trainer.evaluation.sets import Questions
from cavendish.trainer.evaluation.tasks.task import find_evaluation
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.generators.tiny import TinyConfig
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.train import train

SCHEMA = "cavendish-proof/1"
FIXED = "fixed legend"


class Budget(Config):
    """Optimiser steps of so many examples; `repeats` steps are taken on one batch."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    repeats: int = Field(default=1, ge=1)


class ProofConfig(Config):
    """The proof: see examples/tiny.yaml for every key with a comment."""

    training_scenes: RenderConfig
    held_out_scenes: RenderConfig
    size: int = Field(ge=16)
    generator: TinyConfig
    base: Budget
    tuning: Budget
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    editing: float = Field(ge=0, lt=1)
    ratios: tuple[float, ...] = Field(min_length=1)
    tasks: dict[str, int]
    fixed_legend_ratio: float = Field(gt=0, le=1)
    classes: tuple[str, ...] = Field(min_length=1)
    fixed_legend: dict[str, tuple[int, int, int]]
    legends_per_scene: int = Field(ge=1)
    steps_per_answer: int = Field(ge=1)
    max_depth_m: float = Field(gt=0)
    seeds: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _other_scenes(self) -> ProofConfig:
        if self.training_scenes.seed == self.held_out_scenes.seed:
            raise ValueError("held_out_scenes.seed: give another seed than training_scenes, or they are the same rooms")
        if set(self.tasks) != {"depth", "normals", "semantic"}:
            raise ValueError("tasks: give weights of depth, normals and semantic")
        if OBJECT not in self.classes or set(self.classes) != set(self.fixed_legend):
            raise ValueError(
                f"fixed_legend: give a colour for each of classes, {OBJECT!r} (all that can be counted) among them"
            )
        return self

    @property
    def legend(self) -> dict[str, Color]:
        """The fixed legend in the order of `classes`."""
        return {name: self.fixed_legend[name] for name in self.classes}


@dataclass(frozen=True)
class Tuning:
    """One tuning of the base: `ratio` of vision tasks, whose semantic part has one legend or random ones."""

    arm: str
    ratio: float
    seed: int

    @property
    def folder(self) -> str:
        """Name its folder."""
        return f"tuned/{self.arm.replace(' ', '-')}-seed{self.seed}"


def tunings(config: ProofConfig) -> list[Tuning]:
    """List all tunings, one seed after the other."""
    arms = {**{f"{ratio:g}": ratio for ratio in config.ratios}, FIXED: config.fixed_legend_ratio}
    return [Tuning(arm, ratio, seed) for seed in config.seeds for arm, ratio in arms.items()]


def mixture_of(config: ProofConfig, ratio: float, fixed_legend: bool, seed: int) -> Mixture:
    """Return the mixture with so much vision; generation and editing share the rest as in the base."""
    vision = Fraction(str(ratio))
    editing = (1 - vision) * Fraction(str(config.editing))
    ratios = {"generation": "rest", "editing": str(editing), "vision": str(vision)}
    tasks: dict[str, int] = {}
    sources: dict[str, Any] = {}
    if vision < 1:
        tasks |= {"generate": 1, "edit": 1}
    else:
        ratios = {"vision": "1"}
    if vision > 0:
        tasks |= {task: config.tasks[task] for task in ("depth", "normals")}
        path = "legends/fixed" if fixed_legend else "legends/random"
        sources["legends"] = {"path": path, "tasks": {"semantic": config.tasks["semantic"]}}
    else:
        del ratios["vision"]
    sources["rooms"] = {"path": "raw/training", "tasks": tasks}
    # the cube walk alone: colour maps that come once in twenty answers cannot be learnt in so few
    return Mixture.model_validate({"seed": seed, "ratios": ratios, "colormaps": {}, "sources": sources})


def training_config(config: ProofConfig, budget: Budget, lock: str, seed: int, base: str | None) -> TrainConfig:
    """Return the configuration of one training, on one thread."""
    start: dict[str, Any] = {"generator": config.generator.model_dump()} if base is None else {"base": base}
    return TrainConfig.model_validate(
        {
            **start,
            "lock": lock,
            "seed": seed,
            "size": config.size,
            "steps": budget.steps,
            "batch": budget.batch,
            "repeats": budget.repeats,
            "learning_rate": config.learning_rate,
            "warmup_steps": config.warmup_steps,
            "checkpoint_every": 200,
            "keep_checkpoints": 1,
            "threads": 1,
            "workers": 0,
        }
    )


def prepare(config: ProofConfig, out: Path) -> None:
    """Render the scenes and freeze the legends, unless they are there."""
    for name, scenes in (("training", config.training_scenes), ("heldout", config.held_out_scenes)):
        result = render(scenes, out / "raw" / name)
        say(f"{name} scenes: {result.totals['records'] if result.totals else 0}")
    names = list(config.classes)
    scenes_folder = out / "raw/training"
    freeze_legends(scenes_folder, out / "legends/random", names, config.legends_per_scene, None)
    freeze_legends(scenes_folder, out / "legends/fixed", names, config.legends_per_scene, config.legend)


def learn(config: ProofConfig, out: Path, folder: str, mixture: Mixture, budget: Budget, base: str | None) -> float:
    """Train under `out / folder`; return the CPU seconds of this process."""
    began = time.process_time()
    (out / folder).mkdir(parents=True, exist_ok=True)
    lock_path = f"{folder}/mixture.lock.json"
    write_lock(out / lock_path, lock_mixture(mixture, out))
    last = time.monotonic()

    def progress(done: int, planned: int) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            say(f"{folder}: step {done} of {planned}")

    train(training_config(config, budget, lock_path, mixture.seed, base), out / folder, out, progress)
    return time.process_time() - began


def ask(config: ProofConfig, out: Path, generator: Generator, base: Generator | None) -> dict[str, Any]:
    """Put every question to a generator; with its base, measure retention too."""
    held_out = list(samples_of(out / "raw/heldout"))
    questions = all_questions(held_out, config.legend, config.max_depth_m)
    result: dict[str, Any] = {}
    for name, asked in questions.items():
        pictures = predict_examples(generator, asked.examples, config.steps_per_answer, seed=0)
        result[name] = scored(asked, pictures, {})["prediction"]
    if base is not None:
        tuned, untuned = (measure_figures(each, kept_examples(held_out), 0, 4) for each in (generator, base))
        result["retention"] = {"seed": 0, "steps": 4, **compare_figures(tuned, untuned, 0)}
    return result


def kept_examples(samples: Sequence[Sample]) -> list[Example]:
    """Return the captions and edits that retention is measured on."""
    return [
        make_example(sample, task, np.random.default_rng([0, index]))
        for index, sample in enumerate(samples)
        for task in ("generate", "edit")
        if task in tasks_of(sample)
    ]


def scored(
    asked: Questions, pictures: Sequence[UInt8Image], fitted: Mapping[str, NDArray[Any]]
) -> dict[str, dict[str, float]]:
    """Score the pictures that answer the questions, and the blind guesses; name to figures."""
    answers = {example.key: picture for example, picture in zip(asked.examples, pictures, strict=True)}
    rows = score(asked.benchmark, lambda item: answers[item.name], fitted=fitted).values["rows"]
    return {row["name"]: headline(asked, row["metrics"]) for row in rows if row["name"] != COPY}


def headline(asked: Questions, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Pick the figures that are shown."""
    match asked.benchmark.task:
        case "depth":
            return {"abs_rel": metrics["abs_rel"], "delta1": metrics["delta1"]}
        case "normals":
            return {"mean_deg": metrics["pooled"]["mean_deg"]}
    return {"miou": metrics["miou"], "pixel_accuracy": metrics["pixel_accuracy"]}


def blind_guesses(config: ProofConfig, out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Score what one would answer without looking, fitted on the training scenes."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    training = all_questions(list(samples_of(out / "raw/training")), config.legend, config.max_depth_m)
    held_out = all_questions(list(samples_of(out / "raw/heldout")), config.legend, config.max_depth_m)
    for name, asked in held_out.items():
        truths = (item.read_truth() for item in training[name].benchmark.items if item.read_truth is not None)
        fitted = find_evaluation(name).fit_guesses(training[name].benchmark, truths)
        told[name] = scored(asked, [np.zeros_like(example.target) for example in asked.examples], fitted)
        del told[name]["prediction"]
    return told


def guessed(config: ProofConfig, out: Path, identity: str) -> dict[str, Any]:
    """Measure the blind guesses, or return what was measured before."""
    path = out / "guesses.json"
    if (found := finished(path, identity)) is None:
        found = {"identity": identity, "guesses": blind_guesses(config, out)}
        write_atomic(path, canonical_json(found))
    return dict(found["guesses"])


def run_base(config: ProofConfig, out: Path, identity: str) -> dict[str, Any]:
    """Train and measure the base, or return what was measured before."""
    path = out / "base/result.json"
    if (found := finished(path, identity)) is not None:
        return found
    cpu_s = learn(config, out, "base", mixture_of(config, 0, False, 0), config.base, None)
    measured = ask(config, out, load_generator(out / "base/generator"), None)
    return record(path, {"identity": identity, "cpu_s": cpu_s, "measured": measured})


def run_tuning(config: ProofConfig, out: Path, tuning: Tuning, identity: str) -> dict[str, Any]:
    """Tune the base and measure it, or return what was measured before."""
    torch.set_num_threads(1)
    path = out / tuning.folder / "result.json"
    if (found := finished(path, identity)) is not None:
        return found
    mixture = mixture_of(config, tuning.ratio, tuning.arm == FIXED, tuning.seed)
    cpu_s = learn(config, out, tuning.folder, mixture, config.tuning, "base/generator")
    generators = [load_generator(out / folder / "generator") for folder in (tuning.folder, "base")]
    seen = read_json(out / tuning.folder / "train.json", "the result of a training run")["counts"]
    result = {
        "identity": identity,
        "arm": tuning.arm,
        "seed": tuning.seed,
        "cpu_s": cpu_s,
        "examples": dict(sum((Counter(tasks) for tasks in seen.values()), Counter())),
        "measured": ask(config, out, *generators),
    }
    return record(path, result)


def finished(path: Path, identity: str) -> dict[str, Any] | None:
    """Return the result at `path` when it is there and of this configuration."""
    if not path.exists():
        return None
    found = read_json(path, "the result of a run of the proof")
    return dict(found) if found["identity"] == identity else None


def record(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write a result; return it as it will be read."""
    write_atomic(path, canonical_json(result))
    say(f"{path.parent.name}: {result['cpu_s']:.0f} CPU s, {summary_line(result['measured'])}")
    return dict(read_json(path, "the result of a run of the proof"))


def summary_line(measured: Mapping[str, Any]) -> str:
    """Say the headline figures in one line."""
    parts = [
        f"{name} " + " / ".join(f"{value:.3f}" for value in values.values())
        for name, values in measured.items()
        if name != "retention"
    ]
    if "retention" in measured:
        losses = measured["retention"]["tasks"].items()
        parts.append("loss against base " + ", ".join(f"{task} {row['loss_ratio']:.2f}" for task, row in losses))
    return "; ".join(parts)


def run_proof(config: ProofConfig, out: Path, processes: int) -> Path:
    """Do all that is left of the proof; return the path of results.json."""
    values = config.model_dump(mode="json")
    same = {key: value for key, value in values.items() if key not in ("ratios", "seeds")}
    prepare(config, out)
    guesses = guessed(config, out, digest(same))
    base = run_base(config, out, digest({key: value for key, value in same.items() if key not in _OF_TUNINGS}))
    todo = tunings(config)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run_tuning, config, out, tuning, digest(same)) for tuning in todo]
        for number, _ in enumerate(as_completed(running), 1):
            say(f"{number} of {len(todo)} tunings are there")
        tuned = [future.result() for future in running]
    told = {
        "schema": SCHEMA,
        "config": values,
        "guesses": guesses,
        "base": base,
        "tuned": tuned,
    }
    path = out / "results.json"
    write_atomic(path, canonical_json(told))
    return path


_OF_TUNINGS = ("tuning", "tasks", "fixed_legend_ratio", "legends_per_scene")
"""Keys that the base does not depend on, beside those that no single run depends on."""


def say(words: str) -> None:
    """Print a line with the time of day, at once."""
    print(time.strftime("%H:%M:%S"), words, flush=True)


def main() -> None:
    """Run the proof."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1, help="tunings at the same time, each on one thread")
    arguments = parser.parse_intermixed_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = read_config(ProofConfig, arguments.config, arguments.overrides)
    print(run_proof(config, arguments.out, arguments.processes))


if __name__ == "__main__":
    main()
