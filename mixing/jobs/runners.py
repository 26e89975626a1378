"""Where a job runs, which engines are refused and why, and what came of a job; importing this does not import Beam."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra


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

_JOB_SERVER_RUNNERS = ("FlinkRunner", "SparkRunner", "PortableRunner")
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
        raise InputError("--beam-option --streaming: jobs are bounded; a streaming job never ends")
    if runner == "FnApiRunner" and "--direct_running_mode" in options:
        mode = options["--direct_running_mode"]
        why = f"{_THREADS}; " if mode == "multi_threading" else ""
        raise InputError(f"--beam-option --direct_running_mode={mode}: {why}use --workers N: N processes")
    if runner in _JOB_SERVER_RUNNERS:
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
    if engine.options:
        _check_beam_options(engine)


def _options(engine: Engine) -> dict[str, str]:
    """Return the Beam options by name, with underscores as in Beam's documentation; none has the value "".

    Raises:
        InputError: an option is not written as `--name=value` or `--name`.
    """
    options = {}
    for option in engine.options:
        name, _, value = option.partition("=")
        if not re.fullmatch(r"--\w[\w-]*", name):
            raise InputError(f"--beam-option {option}: write it as --name=value")
        options["--" + name[2:].replace("-", "_")] = value
    return options


def _check_beam_options(engine: Engine) -> None:
    """Refuse an option that Beam does not have, or a value that it does not take; Beam itself would leave it out.

    A job server has options that Beam's Python does not know: these are named on stderr.

    Raises:
        InputError: naming the option.
    """
    with hide_module("pandas"):
        from apache_beam.options.pipeline_options import PipelineOptions
    if engine.runner == "DaskRunner":
        require_extra("dask")
        importlib.import_module("apache_beam.runners.dask.dask_runner")  # Beam knows its options from then on
    parsers: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            _, unknown = parsers[0].parse_known_args(list(engine.options))
    except SystemExit:
        reason = messages.getvalue().strip().rpartition("error: argument ")[2]
        raise InputError(f"--beam-option {reason}") from None
    for option in unknown:
        name = option.partition("=")[0]
        if engine.runner in _JOB_SERVER_RUNNERS:
            _say_once(f"--beam-option {name}: not an option of Beam's Python; the job server may have it")
            continue
        close = difflib.get_close_matches(name, parsers[0]._option_string_actions, 1, cutoff=0.8)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"--beam-option {name}: Beam has no such option{hint}")


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
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
