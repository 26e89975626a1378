"""What a fault did to a job, one line of json each, so that a long campaign can be continued and shown as a table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.faults.jobs import Job
from benchmarks.faults.runs import run
from cavendish.encoders.sample import InputError


@dataclass(frozen=True)
class Outcome:
    """What came of one fault.

    Args:
        fault, job: what was done to what.
        message: what the user sees.
        clear: a failure was said in one line with exit code 1 or 2 and without a traceback (or there was none).
        intact: everything that was finished before is there, byte for byte, and equals the reference's.
        equal: the same command, run again after `mended`, gave the reference's digest.
        mended: what the user did before running again.
        note: anything else that was seen.
    """

    fault: str
    job: str
    message: str
    clear: bool
    intact: bool
    equal: bool
    mended: str = "nothing"
    note: str = ""

    def as_line(self) -> str:
        """Return it as a line for a log."""
        flags = [name if getattr(self, name) else f"NOT {name}" for name in ("clear", "intact", "equal")]
        return f"{', '.join(flags)}; user: {self.mended}; {self.message[:300]} {self.note}".rstrip()


@dataclass(frozen=True)
class Reference:
    """The undisturbed job: the digest of its result, its finished files, and how long it takes by number of workers."""

    digest: str
    finished: Mapping[str, str]
    seconds: Mapping[int, float]

    def holds(self, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """Tell whether what was finished before is there after, and all that is finished equals the reference's."""
        kept = all(after.get(name) == value for name, value in before.items())
        return kept and all(self.finished.get(name, value) == value for name, value in after.items())


def make_reference(job: Job, inputs: Path, folder: Path) -> Reference:
    """Run a job undisturbed, with each number of workers it is tried with; the results must be equal.

    Raises:
        InputError: it failed, or its result depends on the number of workers.
    """
    seconds, digests, finished = {}, set(), {}
    for workers in job.workers or (1,):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        ended = run(job.command(folder, workers))
        if ended.code != 0:
            raise InputError(f"{job.name} fails undisturbed: exit code {ended.code}: {ended.message}")
        seconds[workers] = ended.seconds
        digests.add(job.digest(folder))
        finished = job.finished(folder)
    if len(digests) > 1:
        raise InputError(f"{job.name}: the result depends on the number of workers")
    return Reference(digests.pop(), finished, seconds)


def write_reference(path: Path, reference: Reference) -> None:
    """Keep a reference, for the next part of the campaign."""
    path.write_text(json.dumps(asdict(reference)))


def read_reference(path: Path) -> Reference | None:
    """Read a reference that was kept; None when there is none."""
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    return Reference(**{**values, "seconds": {int(workers): s for workers, s in values["seconds"].items()}})


def append(path: Path, outcome: Outcome) -> None:
    """Add an outcome to a file of them."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    """Read a file of outcomes; none when it is not there."""
    if not path.exists():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]
