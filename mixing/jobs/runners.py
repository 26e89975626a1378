"""Where a job runs, which engines are refused and why, and what came of a job; importing this does not import Beam."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cavendish.encoders.sample import InputError


class JobFailed(RuntimeError):
    """A job ended before its plan was complete; the message names the shards that are missing."""


@dataclass(frozen=True)
class Engine:
    """Where a job runs.

    Args:
        workers: processes on this machine, for the embedded runner; 1 runs in this process.
        runner: a Beam runner; "FnApiRunner" is the embedded one.
        split: (i, n): do only the shards i, i + n, ... (a job array without an engine).
        stall_timeout_s: give up when no shard was committed for so long.
        options: further Beam options, as on its command line.
        scheduler: for DaskRunner: the scheduler's address, or the file that it wrote its address to.
    """

    workers: int = 1
    runner: str = "FnApiRunner"
    split: tuple[int, int] = (0, 1)
    stall_timeout_s: float = 1800.0
    options: tuple[str, ...] = ()
    scheduler: str = ""


@dataclass(frozen=True)
class JobResult:
    """What a run did: shards that were there already, shards it made, and the totals when the plan is complete."""

    already: int
    made: int
    totals: dict[str, Any] | None


Progress = Callable[[int, int], None]
"""Told (committed, planned) as shards are committed."""

RUNNERS = ("FnApiRunner", "DaskRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner")

_THREADS = "it runs elements in threads of one process, which wait for its one renderer or model in turn"
REFUSED_RUNNERS = {
    "DirectRunner": "it is a different engine online and offline; use FnApiRunner",
    "SwitchingDirectRunner": "it is a different engine online and offline; use FnApiRunner",
    "BundleBasedDirectRunner": f"{_THREADS}; use FnApiRunner",
    "InteractiveRunner": "it runs on the DirectRunner and keeps results for notebooks; use FnApiRunner",
    "PrismRunner": f"it downloads a binary, and {_THREADS}; use FnApiRunner",
    "RayRunner": "no Ray runner is kept up for this Beam (the last one is of 2022); use DaskRunner",
    "PySparkRunner": "it is made for Beam 2.48, and with a later one hands on elements that are none; use DaskRunner",
}
_RUNNER_OPTIONS = {"--runner": "--runner", "--direct_num_workers": "--workers"}
_SAFE_ENVIRONMENTS = ("DOCKER", "EXTERNAL", "PROCESS")


def check_engine(engine: Engine) -> None:
    """Refuse a runner, or a runner with options, that is known to lose data, to be wrong or to wait for ever.

    Raises:
        InputError: saying why, and what to use instead.
    """
    runner = engine.runner
    if runner not in RUNNERS:
        name = runner.rpartition(".")[2]
        reason = REFUSED_RUNNERS.get(name, f"unknown; the runners are {', '.join(RUNNERS)}")
        raise InputError(f"runner {runner}: {reason}")
    options = _options(engine)
    for option, flag in _RUNNER_OPTIONS.items():
        if option in options:
            raise InputError(f"--beam-option {option}: use {flag} instead; both could disagree")
    if "--streaming" in options:
        raise InputError("--beam-option --streaming: a plan has an end, and a streaming job never says that it is done")
    if runner == "FnApiRunner" and "--direct_running_mode" in options:
        mode = options["--direct_running_mode"]
        why = f"{_THREADS}; " if mode == "multi_threading" else ""
        raise InputError(f"--beam-option --direct_running_mode={mode}: {why}use --workers N: N processes")
    if runner in ("FlinkRunner", "SparkRunner", "PortableRunner"):
        environment = options.get("--environment_type", "DOCKER").upper()
        if environment not in _SAFE_ENVIRONMENTS:
            raise InputError(
                f"runner {runner} with --environment_type={environment}: {_THREADS}; "
                f"use one of {', '.join(_SAFE_ENVIRONMENTS)}"
            )
    if runner == "DataflowRunner" and options.get("--number_of_worker_harness_threads") != "1":
        raise InputError(f"runner {runner}: {_THREADS}; add --beam-option --number_of_worker_harness_threads=1")
    if runner == "DaskRunner" and not engine.scheduler:
        raise InputError(
            "runner DaskRunner without a scheduler would run in this process: give --scheduler tcp://host:8786, "
            "or the file of `dask scheduler --scheduler-file`"
        )
    if runner != "DaskRunner" and engine.scheduler:
        raise InputError(f"--scheduler is of DaskRunner, and the runner is {runner}: leave one of them out")
    if runner == "DaskRunner":
        for option in ("--dask_client_address", "--dask_scheduler_file"):
            if option in options:
                raise InputError(f"--beam-option {option}: use --scheduler instead, which is checked at the start")


def _options(engine: Engine) -> dict[str, str]:
    """Return the Beam options by name; one without a value has an empty one."""
    pairs = [option.partition("=") for option in engine.options]
    return {name: value for name, _, value in pairs}


@contextmanager
def hide_module(name: str) -> Iterator[None]:
    """Let imports inside the `with` block find no module `name`, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what makes `import name` an ImportError
    try:
        yield
    finally:
        del sys.modules[name]
