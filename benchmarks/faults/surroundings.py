"""A full disk, missing permissions, a clock that is wrong: what surrounds a job turns against it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.damage import forget_some
from benchmarks.faults.jobs import Job
from benchmarks.faults.outcomes import Outcome, Reference
from benchmarks.faults.runs import Ended, run
from cavendish.encoders.sample import InputError

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
REAL_SLEEP = Path(__file__).with_name("real_sleep.c")
CLOCKS = {
    "in 2001": "@2001-02-03 04:05:06",
    "in 2037": "@2037-12-31 23:59:50",
    "a day behind, running 50 times too fast": "-1d x50",
}
SHARES = (0.0, 0.4, 0.8)
"""Of the space that the finished job takes: how much is free."""
DISK_BYTES = 64 << 20


def fill_disk(job: Job, inputs: Path, done: Path, folder: Path, reference: Reference) -> Iterator[Outcome]:
    """Run a job whose output is on a tmpfs that is nearly full, then make room and run again.

    Raises:
        InputError: no tmpfs can be mounted: the kit is not run by root.
    """
    space = _space(done / job.out)
    for share in SHARES:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        out = folder / (job.out if job.counted else Path(job.out).parent)
        out.mkdir(exist_ok=True)
        _mount(out)
        try:
            (out / "filler").write_bytes(bytes(DISK_BYTES - int(space * share) // 4096 * 4096))
            ended = run(job.command(folder))
            before = job.finished(folder)
            (out / "filler").unlink()
            intact = reference.holds(before, before)
            again = run(job.command(folder))
            equal = again.code == 0 and job.digest(folder) == reference.digest
        finally:
            subprocess.run(["umount", str(out)], check=True)
        yield _outcome(
            f"a full disk: {share:.0%} of what it needs is free", job, folder, ended, intact, equal, "makes room"
        )


def _space(path: Path) -> int:
    """Return the bytes of whole pages that the files of a result take."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files)


def _mount(folder: Path) -> None:
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True)
    if done.returncode:
        raise InputError(f"{folder}: no tmpfs can be mounted; run the kit as root to fill a disk")


def take_permissions(job: Job, inputs: Path, done: Path, folder: Path, reference: Reference) -> Iterator[Outcome]:
    """Take the permission to read what a job reads, and to write where it writes."""
    prefix = _as_ordinary_user()
    reads = {"annotate": "photos/photo-1.png", "convert": "foreign/web.tar", "train": "lock.json"}
    reads |= dict.fromkeys(("encode", "audit", "mix"), "raw/shard-000001.json")
    cases = {"its configuration is not readable": job.config, "its output cannot be written": "out"}
    if job.name in reads:
        cases[f"{reads[job.name].partition('/')[2] or reads[job.name]} is not readable"] = reads[job.name]
    for what, name in cases.items():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(done, folder)
        forget_some(job, folder)
        path = folder / name
        mode = path.stat().st_mode
        path.chmod(0o555 if path.is_dir() else 0)
        before = job.finished(folder)
        ended = run(job.command(folder), prefix=prefix)
        path.chmod(mode)
        intact = reference.holds(before, job.finished(folder))
        again = run(job.command(folder), prefix=prefix)
        mended = "gives permission"
        if again.code == 2 and "another plan" in again.message:
            shutil.rmtree(folder / "out")
            mended = "gives permission, deletes the output"
            again = run(job.command(folder), prefix=prefix)
        equal = again.code == 0 and job.digest(folder) == reference.digest
        yield _outcome(what, job, folder, ended, intact, equal, mended)


def _as_ordinary_user() -> list[str]:
    """Return what takes from root the power to read and write everything."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


def set_clock(job: Job, inputs: Path, done: Path, folder: Path, reference: Reference) -> Iterator[Outcome]:
    """Run a job under a wrong clock and a far time zone, on files from 1971 and from 2037.

    Raises:
        InputError: libfaketime or a C compiler is not installed.
    """
    preloaded = f"{_real_sleep(done)} {FAKETIME}"
    for what, clock in CLOCKS.items():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        old = 0 if "2037" in what else 1
        for path in folder.rglob("*"):
            os.utime(path, (old * 2_000_000_000 + 40_000_000,) * 2)
        faked = {
            "LD_PRELOAD": preloaded,
            "FAKETIME": clock,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "Pacific/Kiritimati",
        }
        ended = run(job.command(folder), environment={**faked, "FAKETIME_DONT_RESET": "1"})
        equal = ended.code == 0 and job.digest(folder) == reference.digest
        message = "nothing" if equal else ended.message
        note = "" if equal else f"exit code {ended.code} stderr: {ended.stderr[-800:]}"
        yield Outcome(f"the clock {what}", job.name, message, equal or ended.is_clear, equal, equal, note=note)


def _real_sleep(folder: Path) -> Path:
    """Compile `real_sleep.c` into a folder."""
    compiler = shutil.which("cc")
    if not FAKETIME.exists() or compiler is None:
        raise InputError(f"{FAKETIME} or cc: not there; install the packages libfaketime and gcc")
    library = folder / "real_sleep.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(REAL_SLEEP)], check=True)
    return library


def _outcome(what: str, job: Job, folder: Path, ended: Ended, intact: bool, equal: bool, mended: str) -> Outcome:
    if ended.code == 0:
        clear, message, note = True, "nothing; it was not in the way", ""
    else:
        clear, message = ended.is_clear, ended.message.replace(str(folder), "DATA")
        note = "" if clear else f"stderr: {ended.stderr[-1500:]}"
    return Outcome(what, job.name, message, clear, intact, equal, mended, note)
