"""Hurts every job in every way it knows and writes the table: `python -m benchmarks.faults --out docs/reliability.md`.

What came of each fault is kept in the work folder, so that the campaign can be run in parts; the table shows all of it.
A full disk needs root (a small tmpfs), the clock libfaketime; without them those rows are left out, and said so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.damage import damage_job
from benchmarks.faults.jobs import JOBS, Job, make_inputs
from benchmarks.faults.kills import kill_job
from benchmarks.faults.outcomes import Outcome, Reference, append, make_reference, read, read_reference, write_reference
from benchmarks.faults.surroundings import fill_disk, set_clock, take_permissions
from benchmarks.faults.table import write_table
from cavendish.encoders.sample import InputError

FAULTS = ("kill", "damage", "disk", "permission", "clock")


def main() -> int:
    """Run the parts asked for; return 0 when every outcome is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("fault-kit"), help="folder of inputs, trials and outcomes")
    parser.add_argument("--out", type=Path, help="write the table into this page, between its two marks")
    parser.add_argument("--jobs", nargs="*", default=[job.name for job in JOBS], choices=[job.name for job in JOBS])
    parser.add_argument("--faults", nargs="*", default=FAULTS, choices=FAULTS)
    parser.add_argument("--only", default="", help="of damaged files those with this in their name")
    parser.add_argument("--kills", type=int, default=50, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    inputs, folder, outcomes = work / "inputs", work / "trial", work / "outcomes.jsonl"
    if args.faults and args.jobs and not (inputs / "lock.json").exists():
        make_inputs(inputs)
    for job in JOBS:
        if job.name in args.jobs and args.faults:
            done = work / f"done-{job.config.removesuffix('.yaml')}"
            reference = read_reference(done / "reference.json")
            if reference is None:
                reference = make_reference(job, inputs, folder)
                shutil.rmtree(done, ignore_errors=True)
                folder.rename(done)
                write_reference(done / "reference.json", reference)
            for fault in args.faults:
                try:
                    for outcome in _hurt(fault, job, inputs, done, folder, reference, args):
                        append(outcomes, outcome)
                        print(f"{outcome.job}, {outcome.fault}: {outcome.as_line()}", flush=True)
                except InputError as error:
                    print(f"{job.name}, {fault}: left out: {error}", file=sys.stderr)
    found = read(outcomes)
    if args.out is not None:
        write_table(found, args.out)
    return 0 if all(one.clear and one.intact and one.equal for one in found) else 1


def _hurt(
    fault: str, job: Job, inputs: Path, done: Path, folder: Path, reference: Reference, args: argparse.Namespace
) -> Iterator[Outcome]:
    match fault:
        case "kill":
            return kill_job(job, inputs, folder, reference, args.kills, args.seed)
        case "damage":
            return damage_job(job, inputs, done, folder, reference, args.seed, args.only)
        case "disk":
            return fill_disk(job, inputs, done, folder, reference)
        case "permission":
            return take_permissions(job, inputs, done, folder, reference)
    return set_clock(job, inputs, done, folder, reference)


if __name__ == "__main__":
    sys.exit(main())
