"""Every stage in turn, on the configurations under examples/: what `make demo` runs.

Each stage continues what an earlier run left and redoes nothing that is committed. `stages.json` keeps how long each
took in the run that finished it, and is what the report shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.photographs import motorcycle, write_photographs
from encoders.sample import InputError
from mixing.config import ConfigType, read_config
from mixing.engine import Engine, JobResult, Progress
from mixing.lock import write_lock
from mixing.mixture import Mixture, lock_mixture
from mixing.shards import Plan, ShardWriter, finish_dataset, is_committed, start_dataset
from mixing.storage import canonical_json, read_json, write_atomic

EXAMPLES = Path(__file__).parents[1] / "examples"

HELD_OUT = ("seed=2027", "scenes=48")
"""What makes the held-out scenes other scenes than those of examples/render_pyrender.yaml."""

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
Say = Callable[[str], None]
Run = Callable[[Path, Engine, Progress], str]


@dataclass(frozen=True)
class Stage:
    """One stage of the demo: `run` does what is left of it and says what is there."""

    name: str
    run: Run


Overrides = Mapping[str, Sequence[str]]
"""Settings to change, by the name of the configuration under examples/."""


def run_demo(data: Path, workers: int, progress_bar: ProgressBar, say: Say, overrides: Overrides | None = None) -> Path:
    """Run all stages under `data` and write the report; return its path.

    Raises:
        InputError: the examples are not beside the program (the demo runs from a checkout), or a stage's input is bad.
    """
    if not EXAMPLES.is_dir():
        raise InputError(f"{EXAMPLES}: not there; the demo runs from a checkout of the project")
    data.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    records: dict[str, Any] = read_json(data / "stages.json", "stage times") if (data / "stages.json").exists() else {}
    stages = _stages(overrides or {})
    for number, stage in enumerate(stages, 1):
        began = time.monotonic()
        with progress_bar(f"{number}/{len(stages)} {stage.name}") as report:
            words = stage.run(data, Engine(workers=workers), report)
        took_s = round(time.monotonic() - began, 1)
        # A stage that only found everything done keeps the time of the run that did it.
        if records.get(stage.name, {}).get("words") != words:
            records[stage.name] = {"words": words, "seconds": took_s}
        write_atomic(data / "stages.json", canonical_json(records))
        say(f"    {words}")
    from demo.report import write_report

    report_path = write_report(data, [(stage.name, records[stage.name]) for stage in stages])
    say(f"done in {time.monotonic() - started:.0f} s; the report:")
    say(f"{report_path}")
    return report_path


def _stages(overrides: Overrides) -> tuple[Stage, ...]:
    def settings(model: type[ConfigType], name: str, *more: str) -> ConfigType:
        return read_config(model, EXAMPLES / name, (*overrides.get(name, ()), *more))

    def render(name: str, folder: str, *more: str) -> Run:
        def run(data: Path, engine: Engine, progress: Progress) -> str:
            from render.job import RenderConfig
            from render.job import render as job

            return _shards(job(settings(RenderConfig, name, *more), data / folder, engine, progress), "scenes")

        return run

    def annotate(data: Path, engine: Engine, progress: Progress) -> str:
        from annotate.job import AnnotateConfig
        from annotate.job import annotate as job

        write_photographs(data)
        one_worker = Engine(workers=1)  # a handful of pictures: another worker would cost more than it brings
        config = settings(AnnotateConfig, "annotate.yaml")
        return _shards(job(config, data / "raw/photos", one_worker, progress, data), "photographs")

    def encode(data: Path, engine: Engine, progress: Progress) -> str:
        from mixing.job import EncodeConfig
        from mixing.job import encode as job

        config = settings(EncodeConfig, "encode.yaml")
        return _shards(job(config, data / "examples", engine, progress, data), "examples")

    def audit(folder: str, *more: str) -> Run:
        def run(data: Path, engine: Engine, progress: Progress) -> str:
            from mixing.audit.job import AuditConfig
            from mixing.audit.job import audit as job

            return job(settings(AuditConfig, "audit.yaml", *more), data / folder, engine, progress, data).words

        return run

    def mix(data: Path, engine: Engine, progress: Progress) -> str:
        said = []
        (data / "mixture").mkdir(exist_ok=True)
        for done, (name, lock_name) in enumerate((("mixture_base.yaml", "base"), ("mixture.yaml", "tune")), 1):
            lock = lock_mixture(settings(Mixture, name), data)
            write_lock(data / f"mixture/{lock_name}.lock.json", lock)
            said.append(f"{lock_name} {lock.digest[:12]}")
            progress(done, 2)
        return "locked: " + ", ".join(said)

    def train(name: str, folder: str) -> Run:
        def run(data: Path, engine: Engine, progress: Progress) -> str:
            from trainer.config import TrainConfig
            from trainer.train import train as job

            result = job(settings(TrainConfig, name), data / folder, data, progress)
            return f"{result.steps} steps, {result.examples} examples"

        return run

    def evaluate(data: Path, engine: Engine, progress: Progress) -> str:
        from trainer.evaluate import EvaluateConfig, evaluate_generator

        _write_real_depth(data / "raw/real_depth")
        summary = evaluate_generator(settings(EvaluateConfig, "evaluate.yaml"), data / "evaluation", data, progress)
        asked = [(task, result["items"]) for tasks in summary["sets"].values() for task, result in tasks.items()]
        return "answers scored: " + ", ".join(f"{count} {task}" for task, count in asked)

    return (
        Stage("render with Blender", render("render_blender.yaml", "raw/blender")),
        Stage("render with pyrender", render("render_pyrender.yaml", "raw/pyrender")),
        Stage("render held-out scenes", render("render_pyrender.yaml", "raw/heldout", *HELD_OUT)),
        Stage("annotate photographs", annotate),
        Stage("encode instructions", encode),
        Stage("audit", audit("audit/first")),
        Stage("audit without the leak", audit("audit/final", "exclude=[audit/first/exclude.json]")),
        Stage("mix", mix),
        Stage("train the base", train("train_base.yaml", "train/base")),
        Stage("tune on the mixture", train("train_tune.yaml", "train/tuned")),
        Stage("evaluate", evaluate),
    )


def _shards(result: JobResult, what: str) -> str:
    totals = result.totals
    assert totals is not None
    tasks = ", ".join(f"{count} {task}" for task, count in totals["tasks"].items())
    parts = [f"{totals['records']} {what}" + (f" ({tasks})" if tasks else ""), f"{totals['bytes'] / 1e6:.1f} MB"]
    if totals["rejected"]:
        parts.append(f"{totals['rejected']} rejected, with reasons in the shards' rows")
    return ", ".join(parts)


def _write_real_depth(directory: Path) -> None:
    """Write the one real photograph with real depth as a shard of its own; it is in no mixture."""
    sample = motorcycle()
    plan = Plan("real-depth", 1, {"source": sample.source})
    start_dataset(directory, plan)
    if not is_committed(directory, 0, plan.digest):
        with ShardWriter(directory, 0, plan.digest) as writer:
            writer.add(sample)
    finish_dataset(directory, plan)
