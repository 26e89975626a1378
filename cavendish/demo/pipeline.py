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

from cavendish.demo import EXAMPLES
from cavendish.demo.photographs import motorcycle, write_photographs
from cavendish.mixing.config import ConfigType, read_config
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.shards.dataset import Plan, finish_dataset, is_committed, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import read_json, write_atomic

HELD_OUT = ("seed=2027", "scenes=48")
"""What makes the held-out scenes other scenes than those of examples/render_pyrender.yaml."""

ProgressBar = Callable[[str], AbstractContextManager[Progress]]
Say = Callable[[str], None]
Overrides = Mapping[str, Sequence[str]]
"""Settings to change, by the name of the configuration under examples/."""


@dataclass(frozen=True)
class Context:
    """What a stage runs with."""

    data: Path
    engine: Engine
    progress: Progress
    overrides: Overrides

    def settings(self, model: type[ConfigType], name: str, *more: str) -> ConfigType:
        """Read a configuration under examples/, with what was asked to be changed."""
        return read_config(model, EXAMPLES / name, (*self.overrides.get(name, ()), *more))


Run = Callable[[Context], str]
"""Does what is left of a stage, and says what is there."""


def run_demo(data: Path, workers: int, progress_bar: ProgressBar, say: Say, overrides: Overrides | None = None) -> Path:
    """Run all stages under `data` and write the report; return its path.

    Raises:
        InputError: a stage's input is bad.
    """
    data.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    records: dict[str, Any] = read_json(data / "stages.json", "stage times") if (data / "stages.json").exists() else {}
    for number, (name, run) in enumerate(STAGES.items(), 1):
        began = time.monotonic()
        with progress_bar(f"{number}/{len(STAGES)} {name}") as report:
            words = run(Context(data, Engine(workers=workers), report, overrides or {}))
        took_s = round(time.monotonic() - began, 1)
        # A stage that only found everything done keeps the time of the run that did it.
        if records.get(name, {}).get("words") != words:
            records[name] = {"words": words, "seconds": took_s}
        write_atomic(data / "stages.json", canonical_json(records))
        say(f"    {words}")
    from cavendish.demo.report import write_report

    report_path = write_report(data, [(name, records[name]) for name in STAGES])
    say(f"done in {time.monotonic() - started:.0f} s; the report:")
    say(f"{report_path}")
    return report_path


def _render(name: str, folder: str, *more: str) -> Run:
    def run(context: Context) -> str:
        from cavendish.render.job import RenderConfig, render

        config = context.settings(RenderConfig, name, *more)
        return _shards(render(config, context.data / folder, context.engine, context.progress), "scenes")

    return run


def _annotate(context: Context) -> str:
    from cavendish.annotate.config import AnnotateConfig
    from cavendish.annotate.job import annotate

    write_photographs(context.data)
    one_worker = Engine(workers=1)  # a handful of pictures: another worker would cost more than it brings
    config = context.settings(AnnotateConfig, "annotate.yaml")
    done = annotate(config, context.data / "raw/photos", one_worker, context.progress, context.data)
    return _shards(done, "photographs")


def _encode(context: Context) -> str:
    from cavendish.mixing.jobs.encode import EncodeConfig, encode

    config = context.settings(EncodeConfig, "encode.yaml")
    done = encode(config, context.data / "examples", context.engine, context.progress, context.data)
    return _shards(done, "examples")


def _audit(folder: str, *more: str) -> Run:
    def run(context: Context) -> str:
        from cavendish.mixing.audit.job import AuditConfig, audit

        config = context.settings(AuditConfig, "audit.yaml", *more)
        return audit(config, context.data / folder, context.engine, context.progress, context.data).words

    return run


def _mix(context: Context) -> str:
    said = []
    (context.data / "mixture").mkdir(exist_ok=True)
    for done, (name, lock_name) in enumerate((("mixture_base.yaml", "base"), ("mixture.yaml", "tune")), 1):
        lock = lock_mixture(context.settings(Mixture, name), context.data)
        write_lock(context.data / f"mixture/{lock_name}.lock.json", lock)
        said.append(f"{lock_name} {lock.digest[:12]}")
        context.progress(done, 2)
    return "locked: " + ", ".join(said)


def _train(name: str, folder: str) -> Run:
    def run(context: Context) -> str:
        from cavendish.trainer.training.config import TrainConfig
        from cavendish.trainer.training.train import train

        result = train(context.settings(TrainConfig, name), context.data / folder, context.data, context.progress)
        return f"{result.steps} steps, {result.examples} examples"

    return run


def _evaluate(context: Context) -> str:
    from cavendish.trainer.evaluation.generator import EvaluateConfig, evaluate_generator

    _write_real_depth(context.data / "raw/real_depth")
    config = context.settings(EvaluateConfig, "evaluate.yaml")
    summary = evaluate_generator(config, context.data / "evaluation", context.data, context.progress)
    asked = [(task, result["items"]) for tasks in summary["sets"].values() for task, result in tasks.items()]
    return "answers scored: " + ", ".join(f"{count} {task}" for task, count in asked)


STAGES: Mapping[str, Run] = {
    "render with Blender": _render("render_blender.yaml", "raw/blender"),
    "render with pyrender": _render("render_pyrender.yaml", "raw/pyrender"),
    "render held-out scenes": _render("render_pyrender.yaml", "raw/heldout", *HELD_OUT),
    "annotate photographs": _annotate,
    "encode instructions": _encode,
    "audit": _audit("audit/first"),
    "audit without the leak": _audit("audit/final", "exclude=[audit/first/exclude.json]"),
    "mix": _mix,
    "train the base": _train("train_base.yaml", "train/base"),
    "tune on the mixture": _train("train_tune.yaml", "train/tuned"),
    "evaluate": _evaluate,
}


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
