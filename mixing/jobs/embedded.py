"""Beam's embedded runner with worker processes: started, watched, ended; what Beam logs of a death is left out."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import threading

import psutil

from cavendish.mixing.jobs.runners import hide_module

with hide_module("pandas"):  # Beam's BigQuery part would import it: a fifth of a CPU second a process
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

WORKER_DIED = "a worker process died (killed, out of memory, or crashed)"

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


def embedded_runner(workers: int) -> FnApiRunner:
    """Return the embedded runner: this process for one worker, fresh interpreters for more."""
    if workers == 1:
        return FnApiRunner()
    threading.excepthook = _report_of_other_threads
    logging.getLogger("apache_beam.runners.worker.data_plane").addFilter(_is_of_living_worker)
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER.format(driver=os.getpid()))}"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


def is_news(record: logging.LogRecord) -> bool:
    """Leave out Beam's traceback of an error that says itself what is wrong: the job reports it in its one line."""
    text = logging.Formatter().format(record)
    return not any(name in text for name in ("cavendish.encoders.sample.InputError: ", "Error: [Errno "))


def _is_of_living_worker(record: logging.LogRecord) -> bool:
    """Leave out the log of a connection to a worker that died, as `_report_of_other_threads` does its traceback."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not _is_of_connection(kind)


def _is_of_connection(kind: type[BaseException]) -> bool:
    return kind.__module__.partition(".")[0] == "grpc"


def _report_of_other_threads(args: threading.ExceptHookArgs) -> None:
    """Leave out the tracebacks of Beam's threads for a worker that died: the job names the fault in one line."""
    if args.thread is None or (args.thread.name != "run_worker" and not _is_of_connection(args.exc_type)):
        threading.__excepthook__(args)


class WorkerProcesses:
    """The worker processes that were seen below this one."""

    def __init__(self) -> None:
        self._seen: dict[int, psutil.Process] = {}

    def any_died(self) -> bool:
        """Look for new ones, and tell whether one of all that were seen has ended."""
        for process in psutil.Process().children(recursive=True):
            try:
                if any("sdk_worker_main" in word for word in process.cmdline()):
                    self._seen[process.pid] = process
            except psutil.Error:
                continue
        return not all(_is_alive(process) for process in self._seen.values())

    def kill(self) -> None:
        """End all of them."""
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                process.kill()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
