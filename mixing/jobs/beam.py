"""Runs a plan as a Beam job: one element = one shard, pixels never leave the function that made them.

The pipeline is linear with a single leaf (Create -> Reshuffle -> FlatMap), so that it is right on every runner; what is
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.accounting import LeftAside, kind_of
from cavendish.mixing.jobs.dask import Cluster, code_digest, connected, run_on_worker
from cavendish.mixing.jobs.embedded import WORKER_DIED, WorkerProcesses, embedded_runner, is_news
from cavendish.mixing.jobs.runners import Engine, JobFailed, JobResult, Progress, check_engine, hide_module
from cavendish.mixing.shards.dataset import (
    Plan,
    committed_among,
    finish_dataset,
    is_committed,
    plan_of_shard,
    read_row,
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
    with_suffix,
    write_atomic,
)

with hide_module("pandas"):
    import apache_beam as beam
    from apache_beam.metrics import Metrics
    from apache_beam.options.pipeline_options import PipelineOptions

Build = Callable[[int], Iterable[Sample | Example | Rejection | LeftAside]]
"""Makes the records of one shard from its index. Picklable: a module's function, or `functools.partial` of one."""

MAX_PARTITIONS = 20_000
"""On dask: one element each up to here; beyond, the scheduler's work for each would begin to count."""

DEATHS_IN_VAIN = 3
"""Fresh workers are given what is left until so many deaths in a row had nothing committed in between."""

METRICS = "cavendish"
_INPUTS = "inputs"
_IN_TURN = threading.Lock()


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


@dataclass(frozen=True)
class ShardJob:
    """A job that makes shards.

    Args:
        inputs: what each shard is made from, json-able; they are written beside the shards (see `read_inputs`).
        found, left_aside: inputs that were listed, and those of them that are in no shard (`finish_dataset`).
    """

    plan: Plan
    build: Build
    directory: Place
    inputs: Iterable[Any] = ()
    found: int | None = None
    left_aside: Mapping[str, int] | None = None

    def start(self) -> None:
        """Write the plan and the inputs.

        Raises:
            InputError: the directory holds another plan.
        """
        start_dataset(self.directory, self.plan)
        if self.inputs:
            write_inputs(self.directory, self.inputs)

    def done_among(self, indices: Collection[int]) -> set[int]:
        """Return which of these shards are committed."""
        return committed_among(self.directory, indices, self.plan.made_by)

    def finish(self) -> dict[str, Any] | None:
        """Write the totals when every shard is committed, and return them."""
        return finish_dataset(self.directory, self.plan, self.found, self.left_aside)

    @property
    def work(self) -> Callable[[int], None]:
        """What makes and commits one shard."""
        return partial(_build_nth, self.directory, self.plan.made_by, self.build)


def _build_nth(directory: Place, made_by: Sequence[tuple[str, int]], build: Build, index: int) -> None:
    build_shard(directory, plan_of_shard(made_by, index), build, index)


def build_shard(directory: Place, plan_digest: str, build: Build, index: int) -> None:
    """Make and commit shard `index` unless it is committed already, and count what it gave in Beam's metrics."""
    if is_committed(directory, index, plan_digest):
        return
    started = time.monotonic()
    with ShardWriter(directory, index, plan_digest) as writer:
        for record in build(index):
            if isinstance(record, LeftAside):
                writer.leave_aside(record.reason, record.count)
            elif isinstance(record, Rejection):
                _reject(writer, record.key, record.reason)
            else:
                try:
                    writer.add(record)
                    Metrics.counter(METRICS, "records").inc()
                except InputError as error:
                    _reject(writer, record.key, str(error))
    Metrics.distribution(METRICS, "shard_ms").update(round(1000 * (time.monotonic() - started)))


def _reject(writer: ShardWriter, key: str, reason: str) -> None:
    writer.reject(key, reason)
    Metrics.counter(METRICS, f"rejected: {kind_of(reason)}").inc()


def run(job: ShardJob, engine: Engine = Engine(), progress: Progress | None = None) -> JobResult:
    """Run a job until every shard of this split is committed; what is committed already is not done again.

    Raises:
        InputError: the directory holds another plan, or the runner is one known to lose data.
        JobFailed: a shard's function raised, workers died again and again, or nothing was committed for too long.
    """
    check_engine(engine)
    job.start()
    split = range(engine.split[0], job.plan.shards, engine.split[1])
    committed = job.done_among(split)
    pending = [index for index in split if index not in committed]
    stems = {name_of(shard_path(job.directory, index)).removesuffix(".tar") for index in pending}
    collect_leftovers(job.directory, stems)
    run_tasks(Tasks(job.work, pending, job.done_among, already=len(committed)), engine, progress)
    collect_leftovers(job.directory, stems)  # of workers that died in this run
    return JobResult(len(committed), len(pending), job.finish())


class RunTasks(beam.PTransform):
    """Does tasks once each, wherever the runner likes; a collection of what they return, but for None."""

    def __init__(self, work: Callable[[int], Any], numbers: Sequence[int]) -> None:
        super().__init__()
        self._work, self._numbers = work, numbers

    def expand(self, begin: Any) -> Any:
        """Make one element of each number, and part them among the workers."""
        created = begin | "Plan" >> beam.Create(list(self._numbers), reshuffle=False)
        shuffled = created | "Spread" >> beam.Reshuffle()
        return shuffled | "Build" >> beam.FlatMap(partial(_one_at_a_time, self._work))


class CommittedShard(NamedTuple):
    """What the row of a committed shard says, but for its index; `shard` is the place of its tar."""

    shard: Place
    records: int
    rejected: int
    bytes: int
    sha256: str


class CommitShards(beam.PTransform):
    """Makes the shards of a job in a pipeline of yours; a collection of `CommittedShard`, once all are committed.

    Metrics, in the namespace `cavendish`: counters `records` and `rejected: REASON`, and a distribution `shard_ms`.
    """

    def __init__(self, job: ShardJob) -> None:
        super().__init__()
        self._job = job

    def expand(self, begin: Any) -> Any:
        """Commit each shard, then write the totals: one after the other, so that no runner makes a shard twice."""
        job = self._job
        job.start()
        finish = partial(_finish_shards, replace(job, inputs=()))
        shards = begin | "Commit" >> RunTasks(partial(_commit_shard, job.directory, job.work), range(job.plan.shards))
        return (
            shards
            | "Key" >> beam.Map(lambda shard: (None, shard))
            | "Gather" >> beam.GroupByKey()
            | "Finish" >> beam.FlatMap(finish)
        )


def _commit_shard(directory: Place, work: Callable[[int], None], index: int) -> CommittedShard:
    work(index)
    shard = shard_path(directory, index)
    row = read_row(with_suffix(shard, ".json"))
    return CommittedShard(shard, row.count, len(row.rejected), row.bytes, row.sha256)


def _finish_shards(job: ShardJob, keyed: tuple[None, Iterable[CommittedShard]]) -> Iterable[CommittedShard]:
    job.finish()
    return sorted(keyed[1], key=lambda shard: shard.shard)


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
        first = ", ".join(map(str, outcome.left[:5])) + (", ..." if len(outcome.left) > 5 else "")
        undone = f"{len(outcome.left)} of {len(tasks.numbers)} {tasks.name} not done ({first})"
        safe = "What is committed is safe: run the same command again to continue"
        raise JobFailed(f"{outcome.fault}{in_vain}; {undone}. {safe}")


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
            root | "Tasks" >> RunTasks(work, numbers)
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


def _one_at_a_time(work: Callable[[int], Any], number: int) -> tuple[Any, ...]:
    """Do one task; another thread of this process waits, since renderer and models are one per process."""
    with _IN_TURN:
        result = work(number)
    return () if result is None else (result,)


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
