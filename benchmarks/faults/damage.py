"""Damaged files: emptied, cut in half, a byte flipped, noise; inputs, configurations, finished work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.jobs import Job
from benchmarks.faults.outcomes import Outcome, Reference
from benchmarks.faults.runs import Ended, run
from cavendish.mixing.shards.dataset import committed_rows

Hurt = Callable[[bytes, np.random.Generator], bytes]

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in range(ord("b"), ord("k"))
)
"""The YAML of a billion laughs: a few hundred bytes that are 9 to the power of 10 values."""


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(7))]) + data[at + 1 :]


KINDS: dict[str, Hurt] = {
    "emptied": lambda data, rng: b"",
    "cut in half": lambda data, rng: data[: len(data) // 2],
    "a byte flipped": _flip,
    "overwritten with noise": lambda data, rng: rng.bytes(min(len(data), 4096)),
}
CONFIG_KINDS: dict[str, Hurt] = {
    "emptied": KINDS["emptied"],
    "not UTF-8": lambda data, rng: data + b"\xff\xfe",
    "with an unknown key": lambda data, rng: data + b"\ncolour: red\n",
    "a YAML bomb": lambda data, rng: BOMB,
    "nested 5,000 deep": lambda data, rng: b"a: " + b"[" * 5000 + b"]" * 5000,
}


@dataclass(frozen=True)
class Target:
    """A file that is damaged.

    Args:
        what: in the table.
        jobs: names of the jobs that read it.
        path: pattern, relative to a trial's folder; the last that fits is damaged.
        state: "fresh" (nothing made yet), or "partial" (some of the work is finished).
        mend: what the user does: "nothing", "restores it", "deletes it", or "restores it, deletes the output".
        kinds: how it is damaged.
        looks: the damage is found by `cavendish show OUT --verify`.
    """

    what: str
    jobs: tuple[str, ...]
    path: str
    state: str
    mend: str
    kinds: dict[str, Hurt]
    looks: bool = False


_SHARDS = ("render (pyrender)", "render (Blender)", "annotate", "convert", "encode")
_EVERY = (*_SHARDS, "audit", "mix", "train")
_READERS = ("encode", "audit", "mix", "train")
TARGETS = (
    Target("its configuration", _EVERY, "{config}", "partial", "restores it", CONFIG_KINDS),
    Target("the row of a finished shard", _SHARDS, "out/shard-000000.json", "partial", "nothing", KINDS),
    Target(
        "the tar of a finished shard",
        _SHARDS,
        "out/shard-000000.tar",
        "partial",
        "nothing",
        {name: KINDS[name] for name in ("emptied", "cut in half", "overwritten with noise")},
    ),
    Target(
        "the tar of a finished shard",
        _SHARDS,
        "out/shard-000000.tar",
        "partial",
        "deletes it",
        {"a byte flipped": _flip},
        looks=True,
    ),
    Target("dataset.json of its output", _SHARDS, "out/dataset.json", "partial", "deletes it", KINDS),
    Target("the list of a shard's inputs", ("annotate", "convert"), "out/inputs/*.json", "partial", "nothing", KINDS),
    Target(
        "the tar of a shard it reads", ("encode", "audit", "mix"), "raw/shard-000001.tar", "fresh", "restores it", KINDS
    ),
    Target(
        "the tar of a shard it reads",
        ("train",),
        "raw/shard-000001.tar",
        "fresh",
        "restores it, deletes the output",
        KINDS,
    ),
    Target("the row of a shard it reads", _READERS, "raw/shard-000001.json", "fresh", "restores it", KINDS),
    Target("dataset.json of what it reads", _READERS, "raw/dataset.json", "fresh", "restores it", KINDS),
    Target("a picture", ("annotate",), "photos/photo-1.png", "fresh", "restores it, deletes the output", KINDS),
    Target(
        "a picture's json",  # a flipped letter in it is another text, which nobody could tell
        ("annotate",),
        "photos/photo-1.json",
        "fresh",
        "restores it, deletes the output",
        {name: KINDS[name] for name in ("emptied", "cut in half", "overwritten with noise")},
    ),
    Target("a benchmark's picture", ("audit",), "benchmark/held-out.png", "fresh", "restores it", KINDS),
    Target("the tar it converts", ("convert",), "foreign/web.tar", "fresh", "restores it, deletes the output", KINDS),
    Target("a result of its scan", ("audit",), "out/scan/*.json", "partial", "nothing", KINDS),
    Target("its lock", ("train",), "lock.json", "partial", "restores it", KINDS),
    Target("its newest checkpoint", ("train",), "out/checkpoint-*.pt", "partial", "deletes it", KINDS),
    Target("its loss.csv", ("train",), "out/loss.csv", "partial", "nothing", KINDS),
)


def damage_job(
    job: Job, inputs: Path, done: Path, folder: Path, reference: Reference, seed: int, only: str = ""
) -> Iterator[Outcome]:
    """Damage every file this job depends on, in every way, one at a time.

    Args:
        inputs: folder that `make_inputs` made.
        done: the same after the job.
        folder: where it happens; emptied before.
        only: of targets with this in their name.
    """
    for number, target in enumerate(TARGETS):
        if job.name not in target.jobs or only not in target.what:
            continue
        for kind, hurt in target.kinds.items():
            rng = np.random.default_rng([seed, number, *kind.encode()])
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(inputs if target.state == "fresh" else done, folder)
            if target.state == "partial":
                forget_some(job, folder)
            path = sorted(folder.glob(target.path.format(config=job.config)))[-1]
            yield _one(job, target, kind, hurt, path, folder, reference, rng)


def _one(  # type: ignore[no-untyped-def]
    job: Job, target: Target, kind: str, hurt: Hurt, path: Path, folder: Path, reference: Reference, rng
) -> Outcome:
    before = {name: value for name, value in job.finished(folder).items() if name != path.name}
    if path.name.endswith(".tar"):
        before.pop(path.with_suffix(".json").name, None)
    good = path.read_bytes()
    path.write_bytes(hurt(good, rng))
    ended = run(job.command(folder))
    shown = ended
    if target.looks:
        shown = run([*job.command(folder)[:3], "show", str(folder / job.out), "--verify"])
    intact = reference.holds(before, {name: value for name, value in job.finished(folder).items() if name in before})
    equal = ended.code == 0 and job.digest(folder) == reference.digest
    mended = "nothing"
    clear, message = _told(job, folder, shown, equal)
    if not equal or target.looks:
        mended = _mend(target, path, good, folder / job.out)
        again = run(job.command(folder))
        equal = again.code == 0 and job.digest(folder) == reference.digest
        note = "" if equal else f"after mending: exit code {again.code}, {again.message or 'another digest'}"
    else:
        note = ""
    note += "" if clear else f" stderr: {shown.stderr[-1500:]}"
    message = message.replace(str(folder), "DATA")
    return Outcome(f"{target.what}: {kind}", job.name, message, clear, intact, equal, mended, note.strip())


def _told(job: Job, folder: Path, ended: Ended, equal: bool) -> tuple[bool, str]:
    """Return whether what the user sees is clear, and what it is."""
    if ended.code == 0 and equal:
        return True, "nothing; what was damaged is made again, or does not matter"
    if ended.code == 0:
        out = folder / job.out
        reasons = [one.reason for row in committed_rows(out) for one in row.rejected] if out.is_dir() else []
        told = f"rejected: {reasons[0]}" if reasons else ended.message
        return bool(told), told or "NOTHING, with another result"
    if (
        ended.code == 1
        and ended.stderr.strip()
        and "cavendish: " not in ended.stderr
        and "Traceback" not in ended.stderr
    ):
        return True, ended.message  # of `show --verify`
    return ended.is_clear, ended.message


def _mend(target: Target, path: Path, good: bytes, out: Path) -> str:
    if "deletes it" in target.mend:
        path.unlink()
    else:
        path.write_bytes(good)
    words, _, output = target.mend.partition(", ")
    if not output or not out.exists():  # a job that refused its input has none
        return words
    shutil.rmtree(out)
    return target.mend


def forget_some(job: Job, folder: Path) -> None:
    """Take the last part of the work of a finished job away, as if it had been stopped there."""
    out = folder / job.out
    if job.name == "train":
        for name in ("train.json", "generator"):
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
        for path in sorted(out.glob("checkpoint-*.pt"))[3:]:
            path.unlink()
    elif job.name == "audit":
        for name in ("report.json", "report.html", "exclude.json"):
            (out / name).unlink()
        sorted(out.glob("scan/*.json"))[-1].unlink()
    elif job.name == "mix":
        out.unlink()
    else:
        last = sorted(out.glob("shard-*.tar"))[-1]
        last.unlink()
        last.with_suffix(".json").unlink()
