"""Runs a plan as a Beam job: one element = one shard, pixels never leave the function that made them.

The pipeline is linear with a single leaf (Create -> Reshuffle -> Map), so that it is right on every runner; what is
finished is read from the rows on disk, so that progress, restarts and dead letters work the same on every runner.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.accounting import LeftAside
from cavendish.mixing.jobs.dask import Cluster, code_digest, connected, run_on_worker
from cavendish.mixing.jobs.embedded import WORKER_DIED, WorkerProcesses, embedded_runner, is_news
from cavendish.mixing.jobs.runners import Engine, JobFailed, JobResult, Progress, check_engine, hide_module
from cavendish.mixing.shards.dataset import (
    Plan,
    committed_among,
    finish_dataset,
    is_committed,
    shard_path,
    start_dataset,
)
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import (
    Place,
    collect_leftovers,
    files_below,
    is_url,
    join,
    make_folder,
    name_of,
    read_json,
    write_atomic,
)

with hide_module("pandas"):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

Build = Callable[[int], Iterable[Sample | Example | Rejection | LeftAside]]
"""Makes the records of one shard from its index. Picklable: a module's function, or `functools.partial` of one."""

MAX_PARTITIONS = 20_000
"""On dask: one element each up to here; beyond, the scheduler's work for each would begin to count."""

DEATHS_IN_VAIN = 3
"""Fresh workers are given what is left until so many deaths in a row had nothing committed in between."""

_INPUTS = "inputs"
_IN_TURN = threading.Lock()
_SAFE = "What is committed is safe: run the same command again to continue"


@dataclass(frozen=True)
class Tasks:
    """What a job does on an engine.

    Args:
        work: does one of the tasks and commits its own result. Picklable.
        numbers: of the tasks that are left to do.
        done_among: tells from disk which of some are finished.
        already: how many were finished before; progress counts them.
        name: what errors call the tasks.
    """

    work: Callable[[int], Any]
    numbers: Sequence[int]
    done_among: Callable[[Collection[int]], set[int]]
    already: int = 0
    name: str = "shards"


@dataclass(frozen=True)
class _Outcome:
    """What a pipeline left undone, and why."""

    left: list[int]
    fault: str


def build_shard(directory: Place, plan_digest: str, build: Build, index: int) -> int:
    """Make and commit shard `index` unless it is committed already; return the number of its records."""
    if is_committed(directory, index, plan_digest):
        return 0
    count = 0
    with ShardWriter(directory, index, plan_digest) as writer:
        for record in build(index):
            if isinstance(record, Rejection):
                writer.reject(record.key, record.reason)
                continue
            if isinstance(record, LeftAside):
                writer.leave_aside(record.reason, record.count)
                continue
            try:
                writer.add(record)
                count += 1
            except InputError as error:
                writer.reject(record.key, str(error))
    return count


def run(
    plan: Plan,
    build: Build,
    directory: Place,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    found: int | None = None,
    left_aside: Mapping[str, int] | None = None,
) -> JobResult:
    """Run the plan until every shard of this split is committed; what is committed already is not done again.

    Args:
        found, left_aside: inputs that were listed, and those of them that are in no shard (`finish_dataset`).

    Raises:
        InputError: the directory holds another plan, or the runner is one known to lose data.
        JobFailed: a shard's function raised, workers died again and again, or nothing was committed for too long.
    """
    check_engine(engine)
    start_dataset(directory, plan)
    split = range(engine.split[0], plan.shards, engine.split[1])
    done_among = lambda indices: committed_among(directory, indices, plan.digest)
    committed = done_among(split)
    pending = [index for index in split if index not in committed]
    stems = {name_of(shard_path(directory, index)).removesuffix(".tar") for index in pending}
    collect_leftovers(directory, stems)
    work = partial(build_shard, directory, plan.digest, build)
    run_tasks(Tasks(work, pending, done_among, already=len(committed)), engine, progress)
    collect_leftovers(directory, stems)  # of workers that died in this run
    return JobResult(len(committed), len(pending), finish_dataset(directory, plan, found, left_aside))


def run_tasks(tasks: Tasks, engine: Engine, progress: Progress | None = None) -> None:
    """Run tasks on an engine. Jobs that make something other than shards (the audit's scan) use this directly.

    When a worker process of the embedded runner dies, what is left is given to fresh workers, which a line on stderr
    says; a task that kills its workers is named in the end.

    Raises:
        InputError: the engine is refused.
        JobFailed: see `run`.
    """
    check_engine(engine)
    count = len(tasks.numbers)

    def report(left: int) -> None:
        if progress is not None:
            progress(tasks.already + count - left, tasks.already + count)

    if count:
        on_cluster = engine.runner == "DaskRunner"
        with connected(engine.scheduler) if on_cluster else contextlib.nullcontext() as cluster:
            _run_until_done(tasks, engine, report, cluster)
    report(0)


def _run_until_done(tasks: Tasks, engine: Engine, report: Callable[[int], None], cluster: Cluster | None) -> None:
    order = np.random.default_rng(0)
    outcome = _run_pipeline(tasks, tasks.numbers, engine, report, cluster)
    deaths_in_vain = 0
    while outcome.left and outcome.fault == WORKER_DIED and deaths_in_vain < DEATHS_IN_VAIN:
        left = f"{len(outcome.left)} of {len(tasks.numbers)} {tasks.name} are left"
        print(f"{outcome.fault}; {left}, for fresh workers", file=sys.stderr)
        before = len(outcome.left)
        shuffled = order.permutation(outcome.left).tolist()  # so that one that kills its workers is not always first
        outcome = _run_pipeline(tasks, shuffled, engine, report, cluster)
        deaths_in_vain = deaths_in_vain + 1 if len(outcome.left) == before else 0
    if outcome.left:
        in_vain = f", {deaths_in_vain} times with nothing done in between" if deaths_in_vain > 1 else ""
        undone = f"{len(outcome.left)} of {len(tasks.numbers)} {tasks.name} not done ({_some(outcome.left)})"
        raise JobFailed(f"{outcome.fault}{in_vain}; {undone}. {_SAFE}")


def _run_pipeline(
    tasks: Tasks, numbers: Sequence[int], engine: Engine, report: Callable[[int], None], cluster: Cluster | None
) -> _Outcome:
    """Run some of the tasks once."""
    logging.getLogger("apache_beam.runners.common").addFilter(is_news)
    runner, options = _runner_with_options(engine, len(numbers), cluster)
    work = tasks.work if cluster is None else partial(run_on_worker, Path.cwd(), code_digest(), tasks.work)
    failures: list[BaseException] = []
    results: list[Any] = []

    def pipeline() -> None:
        try:
            root = beam.Pipeline(runner, options=PipelineOptions(options))
            created = root | "Plan" >> beam.Create(list(numbers), reshuffle=False)
            shuffled = created | "Spread" >> beam.Reshuffle()
            shuffled | "Build" >> beam.Map(partial(_one_at_a_time, work))
            results.append(root.run())
            results[0].wait_until_finish()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=pipeline, name="beam-pipeline", daemon=True)
    thread.start()
    pending = set(numbers)
    try:
        fault = _watch(thread, tasks, pending, engine, report, cluster)
    finally:
        if cluster is not None:
            _leave(results)
    left = sorted(pending - tasks.done_among(pending))
    if left and not fault:
        fault = _cause(failures[0]) if failures else "the runner reported success; does it see the same folders?"
        fault = (cluster and cluster.fault()) or fault.rstrip(".")
    return _Outcome(left, fault)


def _one_at_a_time(work: Callable[[int], Any], element: int) -> None:
    """Do one task; another thread of this process waits, since renderer and models are one per process.

    Nothing is returned: results are on disk, and an engine would keep and move what is returned.
    """
    with _IN_TURN:
        work(element)


def _runner_with_options(engine: Engine, elements: int, cluster: Cluster | None) -> tuple[Any, list[str]]:
    options = list(engine.options)
    if engine.runner == "FnApiRunner":
        return embedded_runner(engine.workers), [*options, f"--direct_num_workers={engine.workers}"]
    if cluster is not None:
        from apache_beam.runners.dask.dask_runner import DaskRunner  # needs the extra [dask]

        options.append(f"--dask_client_address={cluster.address}")
        if not any(option.startswith(("--dask_npartitions", "--dask_partition_size")) for option in options):
            options.append(f"--dask_npartitions={min(elements, MAX_PARTITIONS)}")
        return DaskRunner(), options
    return engine.runner, options


def _leave(results: Sequence[Any]) -> None:
    """Give back what is still queued on the cluster, and close the runner's own connection."""
    for result in results:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            if result.client.status == "running":
                result.cancel()
            result.client.close(timeout=1)


def _watch(
    thread: threading.Thread,
    tasks: Tasks,
    pending: set[int],
    engine: Engine,
    report: Callable[[int], None],
    cluster: Cluster | None,
) -> str:
    """Wait for the pipeline, taking what is done out of `pending`; return why it was ended here, or "".

    It is ended when a worker died (Beam itself would wait for ever), and when nothing is committed for too long.
    """
    workers = WorkerProcesses() if engine.workers > 1 and engine.runner == "FnApiRunner" else None
    last_commit = time.monotonic()
    pause_s = 0.5
    while True:
        thread.join(timeout=pause_s)
        looked = time.monotonic()
        done = tasks.done_among(pending)
        pending -= done
        if done:
            last_commit = time.monotonic()
        pause_s = max(0.5, 10 * (time.monotonic() - looked))  # a slow file system is not asked all the time
        report(len(pending))
        if thread.is_alive() and workers is not None and workers.any_died() and pending:
            thread.join(timeout=5)  # it may have ended them itself, for an error that it is about to raise
            if thread.is_alive():
                workers.kill()
                return WORKER_DIED
        if not thread.is_alive():
            return ""
        if time.monotonic() - last_commit > engine.stall_timeout_s:
            if workers is not None:
                workers.kill()
            where = f"; {cluster.describe_workers()}" if cluster is not None else ""
            return f"nothing was committed for {engine.stall_timeout_s:.0f} s{where}"


def _some(indices: Sequence[int]) -> str:
    names = [f"{index}" for index in indices[:5]]
    return ", ".join(names) + (", ..." if len(indices) > 5 else "")


def _cause(error: BaseException) -> str:
    """Return the line that says what is wrong, as a run with one worker would say it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Beam appends the stage to the message and, from worker processes, sends a traceback whose last line is the cause.
    cause = next((line for line in reversed(lines) if "Error" in line or "Failed" in line), lines[0] if lines else "")
    cause = re.sub(r" \[while running '[^']*'\]", "", cause).removeprefix("RuntimeError: ")
    if isinstance(error, InputError) or "InputError: " in cause:
        return cause.rpartition("InputError: ")[2]
    if of_system := re.search(r"\[Errno \d+\] ([^:]+)(?:: '([^']+)')?", cause):
        what, path = of_system.groups()
        return f"{path}: {what}" if path else what
    return cause if re.match(r"[\w.]*(Error|Failed|Exception)\b", cause) else f"{type(error).__name__}: {cause}"


def write_inputs(out: Place, shards: Iterable[Any]) -> None:
    """Write what each shard is made from, json-able, each in a file of its own, once the plan has been started.

    A worker reads its part there: an element of the job carries no listing. A damaged file is written again. At a URL
    what is there is not read again: it is of this plan.
    """
    folder = join(out, _INPUTS)
    make_folder(folder)
    there = set(files_below(folder))
    for index, listed in enumerate(shards):
        place, data = join(folder, _inputs_name(index)), canonical_json(listed)
        if _inputs_name(index) not in there or not (is_url(place) or Path(place).read_bytes() == data):
            write_atomic(place, data)


def read_inputs(out: Place, index: int) -> Any:
    """Read what a shard is made from.

    Raises:
        InputError: it was not written, or is not json.
    """
    return read_json(join(join(out, _INPUTS), _inputs_name(index)), "the inputs of a shard")


def _inputs_name(index: int) -> str:
    return f"inputs-{index:06d}.json"
