"""Runs a plan as a Beam job: one element = one shard, pixels never leave the function that made them.

The pipeline is linear with a single leaf (Create -> Reshuffle -> Map), so that it is right on every runner; what is
finished is read from the rows on disk, so that progress, restarts and dead letters work the same on every runner.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.accounting import LeftAside
from cavendish.mixing.jobs.dask import Cluster, code_digest, connected, run_on_worker
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
from cavendish.mixing.storage.files import canonical_json, collect_dead, is_left
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

with hide_module("pandas"):  # Beam's BigQuery part would import it: a fifth of a CPU second a process
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

Build = Callable[[int], Iterable[Sample | Example | Rejection | LeftAside]]
"""Makes the records of one shard from its index. Picklable: a module's function, or `functools.partial` of one."""

MAX_PARTITIONS = 20_000
"""On dask: one element each up to here; beyond, the scheduler's work for each would begin to count."""

WORKER_DIED = "a worker process died (killed, out of memory, or crashed)"
DEATHS_IN_VAIN = 3
"""Fresh workers are given what is left until so many deaths in a row had nothing committed in between."""

_INPUTS = "inputs"
_IN_TURN = threading.Lock()
_SAFE = "What is committed is safe: run the same command again to continue"
_WORKER = """
import logging, os, sys, threading, time
logging.disable(logging.ERROR)  # its coming and going; an element's exception reaches the job, which tells its line
sys.stderr = open(os.devnull, "w")  # Beam prints tracebacks there too; a run with one worker shows those of bugs
from cavendish.mixing.storage.files import is_alive
def leave_with_driver():
    while is_alive({driver}):
        time.sleep(1)
    os._exit(1)  # Beam's own worker would finish its element first, beside the run that takes over
threading.Thread(target=leave_with_driver, daemon=True).start()
from cavendish.mixing.jobs.runners import hide_module
with hide_module("pandas"):
    from apache_beam.runners.worker.sdk_worker_main import main
main(sys.argv)
"""


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
    mine = range(engine.split[0], plan.shards, engine.split[1])
    committed = committed_among(directory, mine, plan.digest)
    pending = [index for index in mine if index not in committed]
    _collect_leftovers(directory, pending)
    if pending:
        run_elements(
            partial(build_shard, directory, plan.digest, build),
            pending,
            engine,
            done_among=lambda indices: committed_among(directory, indices, plan.digest),
            progress=None if progress is None else lambda done, _: progress(len(mine) - len(pending) + done, len(mine)),
        )
        _collect_leftovers(directory, pending)  # of workers that died in this run
    elif progress is not None:
        progress(len(mine), len(mine))
    return JobResult(len(mine) - len(pending), len(pending), finish_dataset(directory, plan, found, left_aside))


def run_elements(
    work: Callable[[int], Any],
    elements: Sequence[int],
    engine: Engine,
    done_among: Callable[[Collection[int]], set[int]],
    progress: Progress | None = None,
    called: str = "shards",
) -> None:
    """Run `work` on each element on the engine; `done_among` tells from disk which of some are finished.

    Jobs that make something other than shards (the audit's scan) use this directly; `work` commits its own result.
    `called` is what errors call the elements. When a worker process of the embedded runner dies, what is left is given
    to fresh workers, which a line on stderr says; an element that kills its workers is named in the end.

    Raises:
        JobFailed: see `run`.
    """
    check_engine(engine)
    if engine.runner == "DaskRunner":
        with connected(engine.scheduler) as cluster:
            there = partial(run_on_worker, Path.cwd(), code_digest(), work)
            left, fault = _run_pipeline(there, elements, engine, done_among, progress, cluster)
    else:
        left, fault = _run_pipeline(work, elements, engine, done_among, progress)
    order = np.random.default_rng(0)
    in_vain = 0
    while left and fault == WORKER_DIED and in_vain < DEATHS_IN_VAIN:
        print(f"{fault}; {len(left)} of {len(elements)} {called} are left, for fresh workers", file=sys.stderr)
        before = len(left)
        again = order.permutation(left).tolist()  # so that one that kills its workers does not always come first
        told = None if progress is None else lambda done, of: progress(len(elements) - of + done, len(elements))
        left, fault = _run_pipeline(work, again, engine, done_among, told)
        in_vain = in_vain + 1 if len(left) == before else 0
    if left:
        again_and_again = f", {in_vain} times with nothing done in between" if in_vain > 1 else ""
        raise JobFailed(
            f"{fault}{again_and_again}; {len(left)} of {len(elements)} {called} not done ({_some(left)}). {_SAFE}"
        )
    if progress is not None:
        progress(len(elements), len(elements))


def _run_pipeline(
    work: Callable[[int], Any],
    elements: Sequence[int],
    engine: Engine,
    done_among: Callable[[Collection[int]], set[int]],
    progress: Progress | None,
    cluster: Cluster | None = None,
) -> tuple[list[int], str]:
    """Run `work` on each element once; return the elements that were not done, and why."""
    logging.getLogger("apache_beam.runners.common").addFilter(_is_untold)
    runner, options = _runner_with_options(engine, len(elements), cluster)
    failures: list[BaseException] = []
    results: list[Any] = []

    def pipeline() -> None:
        try:
            root = beam.Pipeline(runner, options=PipelineOptions(options))
            created = root | "Plan" >> beam.Create(list(elements), reshuffle=False)
            shuffled = created | "Spread" >> beam.Reshuffle()
            shuffled | "Build" >> beam.Map(partial(_one_at_a_time, work))
            results.append(root.run())
            results[0].wait_until_finish()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=pipeline, name="beam-pipeline", daemon=True)
    thread.start()
    try:
        pending, fault = _watch(thread, elements, engine, done_among, progress, cluster)
    finally:
        if cluster is not None:
            _leave(results)
    left = sorted(pending - done_among(pending))
    if left and not fault:
        fault = _cause(failures[0]) if failures else "the runner reported success; does it see the same folders?"
        fault = (cluster and cluster.fault()) or fault.rstrip(".")
    return left, fault


def _one_at_a_time(work: Callable[[int], Any], element: int) -> None:
    """Do one element; another thread of this process waits, since renderer and models are one per process.

    Nothing is returned: results are on disk, and an engine would keep and move what is returned.
    """
    with _IN_TURN:
        work(element)


def _runner_with_options(engine: Engine, elements: int, cluster: Cluster | None) -> tuple[Any, list[str]]:
    options = list(engine.options)
    if engine.runner == "FnApiRunner":
        return _embedded_runner(engine.workers), [*options, f"--direct_num_workers={engine.workers}"]
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


def _embedded_runner(workers: int) -> FnApiRunner:
    """Return the embedded runner: this process for one worker, fresh interpreters for more."""
    if workers == 1:
        return FnApiRunner()
    threading.excepthook = _tell_of_other_threads
    logging.getLogger("apache_beam.runners.worker.data_plane").addFilter(_is_of_living_worker)
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER.format(driver=os.getpid()))}"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


def _is_untold(record: logging.LogRecord) -> bool:
    """Leave out Beam's traceback of an error that says itself what is wrong: the job tells it in its one line."""
    text = logging.Formatter().format(record)
    return not any(name in text for name in ("cavendish.encoders.sample.InputError: ", "Error: [Errno "))


def _is_of_living_worker(record: logging.LogRecord) -> bool:
    """Leave out the log of a connection to a worker that died, as `_tell_of_other_threads` does its traceback."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not _is_of_connection(kind)


def _is_of_connection(kind: type[BaseException]) -> bool:
    return kind.__module__.partition(".")[0] == "grpc"


def _tell_of_other_threads(args: threading.ExceptHookArgs) -> None:
    """Leave out the tracebacks of Beam's threads for a worker that died: the job names the fault in one line."""
    if args.thread is None or (args.thread.name != "run_worker" and not _is_of_connection(args.exc_type)):
        threading.__excepthook__(args)


def _watch(
    thread: threading.Thread,
    elements: Sequence[int],
    engine: Engine,
    done_among: Callable[[Collection[int]], set[int]],
    progress: Progress | None,
    cluster: Cluster | None,
) -> tuple[set[int], str]:
    """Wait for the pipeline, reporting progress; return what was not seen done, and why it was ended here, if it was.

    It is ended when a worker died (Beam itself would wait for ever), and when nothing is committed for too long.
    """
    pending = set(elements)
    workers: dict[int, psutil.Process] = {}
    last_commit = time.monotonic()
    pause_s = 0.5
    while True:
        thread.join(timeout=pause_s)
        looked = time.monotonic()
        done = done_among(pending)
        pending -= done
        if done:
            last_commit = time.monotonic()
        pause_s = max(0.5, 10 * (time.monotonic() - looked))  # a slow file system is not asked all the time
        if progress is not None:
            progress(len(elements) - len(pending), len(elements))
        if not thread.is_alive():
            return pending, ""
        fault = ""
        if engine.workers > 1 and engine.runner == "FnApiRunner":
            workers |= {process.pid: process for process in _sdk_workers()}
            if pending and any(not _is_alive(process) for process in workers.values()):
                thread.join(timeout=5)  # it may have ended them itself, for an error that it is about to tell
                if not thread.is_alive():
                    return pending, ""
                fault = WORKER_DIED
        if time.monotonic() - last_commit > engine.stall_timeout_s:
            fault = f"nothing was committed for {engine.stall_timeout_s:.0f} s"
            if cluster is not None:
                fault += f"; {cluster.describe_workers()}"
        if fault:
            for process in workers.values():
                _kill(process)
            return pending, fault


def _sdk_workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("sdk_worker_main" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


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


def _collect_leftovers(directory: Place, indices: Iterable[int]) -> None:
    """Delete temporary files that killed processes left for these shards; another run may be writing its own."""
    if is_url(directory):
        collect_leftovers(str(directory))
        return
    names = {name_of(shard_path(directory, index)).partition(".")[0] for index in indices}
    for path in Path(directory).glob("shard-*.tmp-*"):
        if path.name.partition(".")[0] in names and is_left(path):
            path.unlink(missing_ok=True)
    collect_dead(Path(directory))


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
