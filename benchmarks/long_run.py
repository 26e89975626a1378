"""A long render with kills: SIGKILLs the job, its workers, renderers and scheduler at random, restarts what does not
restart by itself, then verifies every byte and rebuilds a part undisturbed to compare.

    nice -n 12 python benchmarks/long_run.py --out /data/long --engine pyrender --scenes 180 --views 25 --kills 20
    nice -n 12 python benchmarks/long_run.py --out /data/long --engine blender --scenes 25 --views 20 --kills 8 --dask

Prints one line for each kill and, at the end, one json with the figures (also in OUT/ENGINE.json). An interrupted run
is continued by the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.beam import build_shard
from cavendish.mixing.shards.dataset import committed_rows, finished_plan
from cavendish.mixing.shards.reader import verify
from cavendish.render import job

ROOT = Path(__file__).parents[1]
SCHEDULER = "scheduler.json"


def main() -> None:
    """Run, kill, restart, verify, compare."""
    logging.basicConfig(level=logging.ERROR)  # Beam logs routine matters as warnings
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    options = _options()
    folder = options.out / options.engine
    folder.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.engine}.yaml").write_text(json.dumps(_config(options)))
    history = _run_with_kills(options, folder)
    rows = committed_rows(folder)
    figures = {
        "engine": options.engine,
        "runner": "DaskRunner, 2 workers" if options.dask else "FnApiRunner, 2 workers",
        "samples": sum(row.count for row in rows),
        "rejected": sum(len(row.rejected) for row in rows),
        "shards": len(rows),
        "bytes": sum(row.bytes for row in rows),
        "runs": [{name: run[name] for name in ("shards", "wall_s", "cpu_s")} for run in history],
        "kills": dict(Counter(kind for run in history for kind, _ in run["kills"])),
        "samples_made_again": sum(lost for run in history for _, lost in run["kills"]),
        "problems": verify(folder),
        "files_left": sorted(path.name for path in folder.glob("*.tmp-*")),
        "processes_left": history[-1]["left"],
    }
    figures |= _compare(options, folder)
    (options.out / f"{options.engine}.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))
    bad = figures["problems"] or figures["differing"] or figures["files_left"] or figures["processes_left"]
    sys.exit(1 if bad else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("pyrender", "blender"), required=True)
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--views", type=int, required=True, help="views of each scene")
    parser.add_argument("--scenes-per-shard", type=int, default=1)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rebuild", type=float, default=0.05, help="share of the shards made again to compare")
    parser.add_argument("--dask", action="store_true", help="on a dask scheduler with two workers")
    options = parser.parse_args()
    options.out = options.out.absolute()
    return options


def _config(options: argparse.Namespace) -> dict[str, object]:
    return {
        "engine": options.engine,
        "seed": 41,
        "scenes": options.scenes,
        "scenes_per_shard": options.scenes_per_shard,
        "views_per_scene": options.views,
        "width": options.pixels,
        "height": options.pixels,
        "samples": 1,
        "edits": 0.1,
        "max_model_kb": 400,
    }


class CpuClock:
    """CPU seconds of everything this process ever started, as far as it was seen alive."""

    def __init__(self) -> None:
        self._seen: dict[psutil.Process, float] = {}

    def look(self) -> None:
        """Note the CPU times of the processes that are there now."""
        found = set(psutil.Process().children(recursive=True)) | {one for one in self._seen if one.is_running()}
        for process in found:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._seen[process] = times.user + times.system

    def seconds(self) -> float:
        """Return the sum."""
        return sum(self._seen.values())

    def alive(self) -> list[psutil.Process]:
        """Return what is still running, after a while to end in."""
        _, alive = psutil.wait_procs(list(self._seen), timeout=10)
        return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def _run_with_kills(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run until the job says that all is done; return what this run and interrupted ones before it took."""
    path = options.out / f"{options.engine}.history.json"
    history = json.loads(path.read_text()) if path.exists() else []
    if _committed(folder) == _shards(options) and history:
        return history
    began, before, clock = time.monotonic(), _committed(folder), CpuClock()
    earlier = [kill for run in history for kill in run["kills"]]
    kills: list[tuple[str, int]] = []
    try:
        _kill_and_restart(options, folder, clock, len(earlier), kills)
    finally:
        took = {"shards": _committed(folder) - before, "wall_s": round(time.monotonic() - began)}
        left = [" ".join(one.cmdline()[:4]) for one in clock.alive()]
        history.append({**took, "cpu_s": round(clock.seconds()), "kills": kills, "left": left})
        path.write_text(json.dumps(history))
    return history


def _committed(folder: Path) -> int:
    return len(list(folder.glob("shard-*.json")))


def _shards(options: argparse.Namespace) -> int:
    return -(-options.scenes // options.scenes_per_shard)


def _kill_and_restart(
    options: argparse.Namespace, folder: Path, clock: CpuClock, earlier: int, done: list[tuple[str, int]]
) -> None:
    rng = np.random.default_rng(options.seed)
    kinds = ["group", "driver", "worker", "renderer", *(["scheduler"] if options.dask else [])]
    order = [kinds[i] for i in np.concatenate([rng.permutation(len(kinds)) for _ in range(options.kills)])]
    # at random numbers of committed shards, so that kills are spread over the run however fast the machine is
    when = sorted(rng.integers(0, _shards(options), options.kills).tolist())
    order, when = order[earlier:], when[earlier:]
    cluster: list[subprocess.Popen[bytes]] = []
    process: subprocess.Popen[bytes] | None = None
    try:
        while True:
            if options.dask and (not cluster or any(one.poll() is not None for one in cluster)):
                _end(cluster)
                cluster = _start_cluster(options)
            if process is None:
                process = _start_job(options, folder)
            time.sleep(0.5)
            clock.look()
            code = process.poll()
            if code is not None:
                process = None
                if code == 0:
                    return
                continue
            committed = _committed(folder)
            if len(done) < len(when) and committed >= when[len(done)]:
                time.sleep(float(rng.uniform(0, 5)))
                kind = order[len(done)]
                begun = _records_in_progress(folder)
                victim = _kill(kind, process, cluster)
                if victim is not None:
                    # on dask a worker costs its own shard; a renderer costs one view, which is asked for again
                    lost = {"renderer": 0, "worker": begun.get(victim, 0) if options.dask else sum(begun.values())}
                    done.append((kind, lost.get(kind, sum(begun.values()))))
                    print(
                        f"kill {earlier + len(done)} ({kind}) at {committed} shards: {done[-1][1]} samples",
                        flush=True,
                    )
    finally:
        _end([*cluster, *([process] if process is not None else [])])


def _start_job(options: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    words = ["render", str(options.out / f"{options.engine}.yaml"), "--out", str(folder)]
    words += ["--scheduler", str(options.out / SCHEDULER)] if options.dask else ["--workers", "2"]
    return _start(["-m", "cavendish", *words], options.out)


def _start_cluster(options: argparse.Namespace) -> list[subprocess.Popen[bytes]]:
    file = options.out / SCHEDULER
    file.unlink(missing_ok=True)
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    return [
        _start(["-m", "dask", "scheduler", *common, "--port", "0"], options.out),
        _start(["-m", "dask", "worker", *common, "--nworkers", "2", "--nthreads", "1"], options.out),
    ]


def _start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *words], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )


def _kill(kind: str, job_process: subprocess.Popen[bytes], cluster: list[subprocess.Popen[bytes]]) -> int | None:
    """SIGKILL something of this kind, if there is one now; return its process id."""
    if kind == "group":
        os.killpg(job_process.pid, signal.SIGKILL)
        return job_process.pid
    if kind in ("driver", "scheduler"):
        one = job_process if kind == "driver" else cluster[0]
        one.kill()
        return one.pid
    word = {"renderer": "cavendish.render.engines.child", "worker": "spawn_main" if cluster else "sdk_worker_main"}[
        kind
    ]
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if word in " ".join(child.cmdline()):
                child.kill()
                return child.pid
    return None


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _records_in_progress(folder: Path) -> dict[int, int]:
    """Count the samples in shards that are being written, by process: what its death throws away."""
    begun: dict[int, int] = {}
    for path in folder.glob("shard-*.tar.tmp-*"):
        count = 0
        with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(path, mode="r:") as tar:
            for member in tar:  # until it ends in the middle of one
                count += member.name.endswith(".json")
        process = int(path.name.rpartition("-")[2])
        begun[process] = begun.get(process, 0) + count
    return begun


def _compare(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Make some shards again, undisturbed, and compare tar and row byte for byte."""
    config = read_config(job.RenderConfig, options.out / f"{options.engine}.yaml", [])
    plan = finished_plan(folder)
    count = max(1, round(options.rebuild * plan.shards))
    chosen = np.random.default_rng(options.seed + 1).choice(plan.shards, count, replace=False).tolist()
    again = options.out / f"{options.engine}-again"
    again.mkdir(exist_ok=True)
    differing = []
    for index in sorted(chosen):
        build_shard(again, plan.digest, partial(job.build_shard, config), index)
        for name in (f"shard-{index:06d}.tar", f"shard-{index:06d}.json"):
            if (again / name).read_bytes() != (folder / name).read_bytes():
                differing.append(name)
    job.close_workers()
    return {"rebuilt": sorted(chosen), "differing": differing}


if __name__ == "__main__":
    main()
