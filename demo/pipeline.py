"""Every stage in turn, on the configurations under examples/: what `make demo` runs.

Each stage continues what an earlier run left and redoes nothing that is committed. `stages.json` keeps how long each
took when it really ran, and is what the report shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.photographs import motorcycle, write_photographs
from encoders.sample import InputError
from mixing.config import read_config
from mixing.engine import Engine, JobResult, Progress
from mixing.mixture import load, lock_mixture, write_lock
from mixing.shards import Plan, ShardWriter, finish_dataset, is_committed, start_dataset
from mixing.storage import canonical_json, read_json, write_atomic

EXAMPLES = Path(__file__).parents[1] / "examples"

HELD_OUT = ("seed=2027", "scenes=48")
"""What makes the held-out scenes other scenes than those of examples/render_pyrender.yaml."""

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """One stage of the demo: `run` does what is left of it and says what is there."""

    name: str
    run: Callable[[Path, Engine, Progress], str]


def run_demo(data: Path, workers: int, progress_bar: ProgressBar, say: Say) -> Path:
    """Run all stages under `data` and write the report; return its path.

    Raises:
        InputError: the examples are not beside the program (the demo runs from a checkout), or a stage's input is bad.
    """
    if not EXAMPLES.is_dir():
        raise InputError(f"{EXAMPLES}: not there; the demo runs from a checkout of the project")
    data.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    records: dict[str, Any] = read_json(data / "stages.json", "stage times") if (data / "stages.json").exists() else {}
    for number, stage in enumerate(STAGES, 1):
        began = time.monotonic()
        with progress_bar(f"{number}/{len(STAGES)} {stage.name}") as report:
            words = stage.run(data, Engine(workers=workers), report)
        took_s = round(time.monotonic() - began, 1)
        earlier = records.get(stage.name, {"seconds": 0.0, "words": None})
        # A stage that only found everything done keeps the time of the run that did it; an interrupted one adds up.
        seconds = earlier["seconds"] if earlier["words"] == words else round(earlier["seconds"] + took_s, 1)
        records[stage.name] = {"words": words, "seconds": seconds}
        write_atomic(data / "stages.json", canonical_json(records))
        say(f"    {words}")
    from demo.report import write_report

    report_path = write_report(data, [(stage.name, records[stage.name]) for stage in STAGES])
    say(f"done in {time.monotonic() - started:.0f} s; the report:")
    say(f"{report_path}")
    return report_path


def _shards(result: JobResult, what: str) -> str:
    totals = result.totals
    assert totals is not None
    tasks = ", ".join(f"{count} {task}" for task, count in totals["tasks"].items())
    parts = [f"{totals['records']} {what}" + (f" ({tasks})" if tasks else ""), f"{totals['bytes'] / 1e6:.1f} MB"]
    if totals["rejected"]:
        parts.append(f"{totals['rejected']} rejected, with reasons in the shards' rows")
    return ", ".join(parts)


def _render(config: str, folder: str, overrides: Sequence[str], what: str) -> Callable[[Path, Engine, Progress], str]:
    def stage(data: Path, engine: Engine, progress: Progress) -> str:
        from render.job import RenderConfig, render

        settings = read_config(RenderConfig, EXAMPLES / config, overrides)
        return _shards(render(settings, data / folder, engine, progress), what)

    return stage


def _annotate(data: Path, engine: Engine, progress: Progress) -> str:
    from annotate.job import AnnotateConfig, annotate

    write_photographs(data)
    settings = read_config(AnnotateConfig, EXAMPLES / "annotate.yaml")
    return _shards(annotate(settings, data / "raw/photos", engine, progress, data), "photographs")


def _encode(data: Path, engine: Engine, progress: Progress) -> str:
    from mixing.job import EncodeConfig, encode

    settings = read_config(EncodeConfig, EXAMPLES / "encode.yaml")
    return _shards(encode(settings, data / "examples", engine, progress, data), "examples")


def _audit(folder: str, overrides: Sequence[str]) -> Callable[[Path, Engine, Progress], str]:
    def stage(data: Path, engine: Engine, progress: Progress) -> str:
        from mixing.audit.job import AuditConfig, audit

        settings = read_config(AuditConfig, EXAMPLES / "audit.yaml", overrides)
        verdict = audit(settings, data / folder, engine, progress, data)
        return verdict.words

    return stage


def _mix(data: Path, engine: Engine, progress: Progress) -> str:
    locks = []
    for done, (config, name) in enumerate((("mixture_base.yaml", "base"), ("mixture.yaml", "tune")), 1):
        lock = lock_mixture(load(EXAMPLES / config), data)
        (data / "mixture").mkdir(exist_ok=True)
        write_lock(data / f"mixture/{name}.lock.json", lock)
        locks.append(f"{name} {lock.digest[:12]}")
        progress(done, 2)
    return "locked: " + ", ".join(locks)


def _train(config: str, folder: str) -> Callable[[Path, Engine, Progress], str]:
    def stage(data: Path, engine: Engine, progress: Progress) -> str:
        from trainer.config import TrainConfig
        from trainer.train import train

        settings = read_config(TrainConfig, EXAMPLES / config)
        result = train(settings, data / folder, data, progress)
        return f"{result.steps} steps, {result.examples} examples"

    return stage


def _evaluate(data: Path, engine: Engine, progress: Progress) -> str:
    from trainer.evaluate import EvaluateConfig, evaluate_generator

    _write_real_depth(data / "raw/real_depth")
    settings = read_config(EvaluateConfig, EXAMPLES / "evaluate.yaml")
    summary = evaluate_generator(settings, data / "evaluation", data, progress)
    asked = {task: result["items"] for tasks in summary["sets"].values() for task, result in tasks.items()}
    return "answers scored: " + ", ".join(f"{count} {task}" for task, count in asked.items())


def _write_real_depth(directory: Path) -> None:
    """Write the one real photograph with real depth as a shard of its own; it is in no mixture."""
    sample = motorcycle()
    plan = Plan("real-depth", 1, {"source": sample.source})
    start_dataset(directory, plan)
    if not is_committed(directory, 0, plan.digest):
        with ShardWriter(directory, 0, plan.digest) as writer:
            writer.add(sample)
    finish_dataset(directory, plan)


STAGES = (
    Stage("render with Blender", _render("render_blender.yaml", "raw/blender", (), "scenes")),
    Stage("render with pyrender", _render("render_pyrender.yaml", "raw/pyrender", (), "scenes")),
    Stage("render held-out scenes", _render("render_pyrender.yaml", "raw/heldout", HELD_OUT, "scenes")),
    Stage("annotate photographs", _annotate),
    Stage("encode instructions", _encode),
    Stage("audit", _audit("audit/first", ())),
    Stage("audit without the leak", _audit("audit/final", ("exclude=[audit/first/exclude.json]",))),
    Stage("mix", _mix),
    Stage("train the base", _train("train_base.yaml", "train/base")),
    Stage("tune on the mixture", _train("train_tune.yaml", "train/tuned")),
    Stage("evaluate", _evaluate),
)
