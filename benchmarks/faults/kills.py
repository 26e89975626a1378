"""SIGKILL at random points: the whole group, the driver alone, a worker, a renderer, a reader of training data."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.jobs import Job
from benchmarks.faults.outcomes import Outcome, Reference
from benchmarks.faults.runs import Ended, Started, leftovers, run

KILLS_PER_TRIAL = 8
ORPHANS_S = 20.0
HANG_S = 300.0


@dataclass(frozen=True)
class _Hit:
    target: str
    ended: Ended
    intact: bool


def kill_job(job: Job, inputs: Path, folder: Path, reference: Reference, kills: int, seed: int) -> Iterator[Outcome]:
    """Kill runs of a job at `kills` random points, a few in each trial, and let each trial finish undisturbed.

    A run is started at once after a kill, so that it meets the processes that the killed one may have left.

    Args:
        inputs: folder that `make_inputs` made.
        folder: where trials happen; emptied before each.
        reference: of the undisturbed job, with the seconds it takes.

    Yields:
        One Outcome for each kill that hit a running process; whether the re-run equals the reference is that of its
        trial.
    """
    done = trial = 0
    while done < kills:
        rng = np.random.default_rng([seed, trial, *job.name.encode()])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        workers = job.workers[trial % len(job.workers)] if job.workers else 1
        with ExitStack() as stack:
            started: list[Started] = []
            hits = list(_hits(job, folder, reference, min(KILLS_PER_TRIAL, kills - done), workers, rng, stack, started))
            ended = run(job.command(folder, workers))
            equal = ended.code == 0 and job.digest(folder) == reference.digest
            note = "" if equal else f"trial {trial}: exit code {ended.code}, {ended.message or 'another digest'}"
            alive = [process for one in started for process in one.orphans(ORPHANS_S)]
            if alive:
                note += f" {len(alive)} processes were there {ORPHANS_S:.0f} s after their driver"
            if leftovers(folder):
                note += f" left: {', '.join(leftovers(folder)[:3])}"
        for hit in hits:
            words, message, clear = _told(hit)
            seen = note.strip() if clear else f"{note} stderr: {hit.ended.stderr[-1500:]}".strip()
            yield Outcome(f"SIGKILL of {words}", job.name, message, clear, hit.intact, equal, note=seen)
        done += len(hits)
        trial += 1


def _hits(  # type: ignore[no-untyped-def]
    job: Job, folder: Path, reference: Reference, kills: int, workers: int, rng, stack: ExitStack, every: list[Started]
) -> Iterator[_Hit]:
    targets = ("group", "driver", *(target for target in job.targets if target != "worker" or workers > 1))
    for _ in range(kills):
        started = Started(job.command(folder, workers))
        stack.callback(started.end)
        every.append(started)
        target = str(rng.choice(targets))
        until = time.monotonic() + float(rng.uniform(0.02, 1.0)) * reference.seconds[workers]
        while time.monotonic() < until and started.is_running():
            time.sleep(0.02)
        before = job.finished(folder)
        killed = started.kill(target, int(rng.integers(8)))
        ended = started.wait(HANG_S)
        if killed:
            yield _Hit(killed, ended, reference.holds(before, job.finished(folder)))
        if job.digest(folder) == reference.digest:
            return


def _told(hit: _Hit) -> tuple[str, str, bool]:
    """Return the words for what was killed, what the user sees, and whether that is clear."""
    if hit.target in ("group", "driver"):
        return f"the {hit.target}", "Killed", True
    if hit.ended.code == 0:
        return f"a {hit.target}", "nothing; the job goes on", True
    return f"a {hit.target}", hit.ended.message, hit.ended.is_clear
