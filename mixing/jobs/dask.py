"""A dask cluster as a job sees it: reached, checked before the job, watched during it; and what its workers run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra
from cavendish.mixing.jobs.runners import JobFailed

CONNECT_TIMEOUT_S = 15
WORKERS_TIMEOUT_S = 60
_PACKAGES = ("apache-beam", "cloudpickle", "dask", "distributed", "numpy")
_ROOMS = ("encoders", "mixing", "render", "annotate")
_LARGE_BLOCK_BYTES = 32 << 20  # the largest that glibc takes for M_MMAP_THRESHOLD


class Cluster:
    """A connection to a scheduler whose workers have been checked; `address` is what the runner connects to."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        self.address: str = client.scheduler.address

    def fault(self) -> str | None:
        """Say that the scheduler is gone, or nothing."""
        if self.client.status == "running":
            return None
        return f"the scheduler {self.name} is gone (ended, killed, or its machine cannot be reached)"

    def describe_workers(self) -> str:
        """Say how many workers there are now, for a job in which nothing happens."""
        try:
            found = self.client.sync(self.client.scheduler.identity, n_workers=0, callback_timeout=5)["n_workers"]
        except Exception as error:  # a scheduler that does not answer says as much as one that does
            return f"the scheduler {self.name} does not answer ({type(error).__name__})"
        return f"{found} workers are connected to {self.name}"


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Cluster]:
    """Connect to a scheduler and check that its workers can do a job; disconnect at the end.

    Args:
        scheduler: its address, such as tcp://host:8786, or the file `dask scheduler --scheduler-file` wrote.

    Raises:
        InputError: dask is not installed, nothing answers there, no worker joins, or one could not do the job right.
    """
    client = _connect(scheduler)
    try:
        _check(client, scheduler)
        yield Cluster(client, scheduler)
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone; the job reports it
            client.close(timeout=3)


def _connect(scheduler: str) -> Any:
    require_extra("dask")
    from distributed import Client

    for name in list(logging.root.manager.loggerDict):  # dask's configuration gives several of them levels of their own
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a lost scheduler is one line of ours
    where: dict[str, str] = {"address": scheduler}
    if "://" not in scheduler:
        if not Path(scheduler).is_file():
            raise InputError(
                f"--scheduler {scheduler}: neither an address (tcp://host:8786) nor the file of "
                "`dask scheduler --scheduler-file`"
            )
        where = {"scheduler_file": scheduler}
    try:
        return Client(**where, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--scheduler {scheduler}: no dask scheduler answers there ({type(error).__name__}); "
            "start one with `dask scheduler`, or check address, port and firewall"
        ) from None


def _check(client: Any, scheduler: str) -> None:
    # the scheduler too: it unpacks the graph of the job, which names this package's functions
    found = {"the scheduler": _ask("the scheduler", client.run_on_scheduler)}
    try:
        client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
    except TimeoutError:
        raise InputError(
            f"--scheduler {scheduler}: no worker joined it in {WORKERS_TIMEOUT_S} s; "
            f"start some with: dask worker {scheduler} --nworkers N --nthreads 1"
        ) from None
    found |= {f"worker {name}": facts for name, facts in _ask("a worker", client.run).items()}
    ours = read_facts(Path.cwd())
    for place, there in found.items():
        for name, value in ours.items():
            if there[name] != value and (place, name) != ("the scheduler", "folder"):
                raise InputError(f"{place} {_difference(name, there[name], value)}")
    for name, worker in client.scheduler_info()["workers"].items():
        if worker["nthreads"] != 1:
            raise InputError(
                f"worker {name} has {worker['nthreads']} threads, which would wait for its one renderer or model in "
                "turn: start it with --nworkers N --nthreads 1"
            )


def _ask(place: str, ask: Callable[..., Any]) -> Any:
    try:
        return ask(read_facts, Path.cwd())
    except Exception as error:  # whatever unpickling and importing there can raise
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise InputError(
            f"{place} cannot run this package ({type(error).__name__}: {reason[0]}): install cavendish where the "
            "scheduler and where every worker runs, and restart them"
        ) from None


def read_facts(folder: Path) -> dict[str, Any]:
    """Tell, on the driver, the scheduler or a worker, what must be the same everywhere for a job to be right.

    Args:
        folder: where the job was started; its relative paths begin there.
    """
    versions = {name: version(name) for name in _PACKAGES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **versions, "code": code_digest(), "folder": str(folder) if folder.is_dir() else None}


def _difference(name: str, there: Any, here: Any) -> str:
    if name == "folder":
        return f"has no folder {here}: a job needs a file system that driver and workers see under the same path"
    if name == "code":
        return f"runs other code of this package ({there}, here {here}): install the same and restart it"
    return f"has {name} {there}, here is {here}: install the same versions everywhere"


@functools.cache
def code_digest() -> str:
    """Digest the rooms that jobs run; cached, so that a worker started before a change tells the code it began with."""
    root = Path(__file__).parents[2]
    hashed = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            hashed.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()[:12]


def run_on_worker(folder: Path, code: str, work: Callable[[int], Any], element: int) -> None:
    """Do one element in a worker process as the driver would, in the driver's folder.

    A worker may have joined after the check at the start, so its code is compared once more.

    Raises:
        JobFailed: this worker runs other code, or does not see the folder.
    """
    if code_digest() != code:
        raise JobFailed(f"the worker on {platform.node()} {_difference('code', code_digest(), code)}")
    try:
        os.chdir(folder)
    except OSError:
        raise JobFailed(f"the worker on {platform.node()} {_difference('folder', None, folder)}") from None
    _keep_freed_memory()
    work(element)


@functools.cache
def _keep_freed_memory() -> None:
    """Undo the allocator setting of dask's nanny, under which arrays of some MB are mapped and unmapped every time.

    It sets MALLOC_TRIM_THRESHOLD_=65536, which stops glibc from adapting; numpy code then takes up to twice the CPU.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(_LARGE_BLOCK_BYTES)  # for children of this process
    os.environ["MALLOC_TRIM_THRESHOLD_"] = str(2 * _LARGE_BLOCK_BYTES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent outside glibc
    if mallopt is not None:
        for parameter, value in ((-3, _LARGE_BLOCK_BYTES), (-1, 2 * _LARGE_BLOCK_BYTES)):  # M_MMAP_, M_TRIM_THRESHOLD
            mallopt(parameter, value)
