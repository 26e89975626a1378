"""Jobs on a real dask scheduler with worker processes over TCP: same bytes as embedded, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.jobs import dask as cluster
from cavendish.mixing.jobs.beam import ShardJob, run
from cavendish.mixing.jobs.runners import Engine, JobFailed
from cavendish.mixing.shards.dataset import Plan
from cavendish.mixing.shards.reader import verify
from tests.conftest import tiny_sample

ROOT = Path(__file__).parents[3]
PLAN = Plan("test-cluster", 12, {"seed": 3})


def build(index: int) -> Iterator[Sample | Rejection]:
    for number in range(3):
        yield tiny_sample(f"scene-{index}-{number}", seed=index * 3 + number)
    yield Rejection(f"scene-{index}-3", "too dark")


def build_slowly(index: int) -> Iterator[Sample | Rejection]:
    time.sleep(0.4)
    yield from build(index)


def shards_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class Dask:
    """A scheduler and two workers, as a user would start them in a shell; all of them end with the block."""

    def __init__(self, folder: Path, threads: int = 1, workers: int = 2, path: Path = ROOT) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(path)}
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.log = (folder / "dask.log").open("ab")
        self.file.unlink(missing_ok=True)
        where = ["--scheduler-file", str(self.file)]
        network = ["--host", "127.0.0.1", "--no-dashboard"]
        self.processes = [self._start("scheduler", *where, *network, "--port", "0")]
        if workers:
            counts = ["--nworkers", f"{workers}", "--nthreads", f"{threads}"]
            self.processes.append(self._start("worker", *where, *network, *counts, "--local-directory", str(folder)))
        wait_for(self.file.exists)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            env=self.environment,
            cwd=self.folder,
            stdout=self.log,
            stderr=self.log,
        )

    def __enter__(self) -> Dask:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.Error, OSError):
                    child.kill()
            process.wait()
        self.log.close()

    def kill_a_worker(self) -> None:
        nanny = psutil.Process(self.processes[1].pid)
        workers = [one for one in nanny.children() if "spawn_main" in " ".join(one.cmdline())]
        workers[0].kill()

    def kill_the_scheduler(self) -> None:
        self.processes[0].send_signal(signal.SIGKILL)


def wait_for(happened: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def on(dask: Dask) -> Engine:
    return Engine(runner="DaskRunner", scheduler=str(dask.file), stall_timeout_s=600)


def kill_when(committed: int, directory: Path, kill: Callable[[], None]) -> Callable[[int, int], None]:
    """Return a progress function that kills once, when so many shards are committed."""
    pending = [kill]

    def report(done: int, _: int) -> None:
        if done >= committed and pending:
            pending.pop()()

    return report


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_scheduler_cost_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ShardJob(PLAN, build, tmp_path / "embedded"))
    reference = shards_of(tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)  # relative folders mean the same on workers, which run elsewhere
    with Dask(tmp_path) as dask:
        result = run(ShardJob(PLAN, build_slowly, Path("one")), on(dask), kill_when(3, Path("one"), dask.kill_a_worker))
        assert (result.already, result.made) == (0, 12)
        assert shards_of(Path("one")) == reference

        with pytest.raises(JobFailed, match=r"scheduler .* is gone.*run the same command again"):
            run(ShardJob(PLAN, build_slowly, Path("two")), on(dask), kill_when(3, Path("two"), dask.kill_the_scheduler))
        committed = len(list(Path("two").glob("shard-*.json")))
        assert 3 <= committed < 12
    with Dask(tmp_path) as dask:
        result = run(ShardJob(PLAN, build_slowly, Path("two")), on(dask))
        assert result.already >= committed
        assert result.already + result.made == 12
        assert shards_of(Path("two")) == reference
        assert verify(Path("two")) == []


@pytest.mark.slow
def test_a_scheduler_without_the_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "shadow" / "cavendish").mkdir(parents=True)
    (tmp_path / "shadow" / "cavendish" / "__init__.py").write_text("raise ModuleNotFoundError('no cavendish')")
    message = r"the scheduler cannot run this package \(ModuleNotFoundError: no cavendish\): install cavendish"
    with Dask(tmp_path, workers=0, path=tmp_path / "shadow") as dask, pytest.raises(InputError, match=message):
        run(ShardJob(PLAN, build, tmp_path / "out"), on(dask))


@contextlib.contextmanager
def cluster_in_threads(workers: int, threads: int = 1) -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers, threads_per_worker=threads, processes=False, dashboard_address=":0", protocol="tcp"
    ) as local:
        yield local.scheduler_address


def test_workers_that_cannot_do_the_job_right_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WORKERS_TIMEOUT_S", 0.5)
    with (
        cluster_in_threads(workers=0) as address,
        pytest.raises(InputError, match=r"no worker joined it in 0.5 s; start some with: dask worker tcp://"),
    ):
        cluster.connected(address).__enter__()
    with cluster_in_threads(workers=1, threads=2) as address, pytest.raises(InputError, match=r"has 2 threads.*--nth"):
        cluster.connected(address).__enter__()
    with cluster_in_threads(workers=1) as address:
        monkeypatch.setattr(cluster, "code_digest", lambda: threading.current_thread().name == "MainThread")
        with pytest.raises(InputError, match="the scheduler runs other code of this package"):
            cluster.connected(address).__enter__()


def test_code_and_folder_are_compared_on_a_worker_that_joined_late(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="runs other code"):
        cluster.run_on_worker(tmp_path, "another", print, 0)
    with pytest.raises(JobFailed, match=r"has no folder .*absent: a job needs a file system that driver and workers"):
        cluster.run_on_worker(tmp_path / "absent", cluster.code_digest(), print, 0)


def test_an_address_where_nothing_answers_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 1)
    for scheduler, message in (
        ("tcp://127.0.0.1:9", "no dask scheduler answers there"),
        (str(tmp_path / "absent.json"), "neither an address .* nor the file"),
        ("nonsense://x", "no dask scheduler answers there"),
    ):
        with pytest.raises(InputError, match=message):
            run(ShardJob(PLAN, build, tmp_path / "out"), Engine(runner="DaskRunner", scheduler=scheduler))
