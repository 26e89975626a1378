"""The jobs that are hurt: tiny real runs through the command line, on inputs made once for all of them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import file_sha256

ROOT = Path(__file__).parents[2]

RENDER = """
seed: 5
scenes: 3
scenes_per_shard: 1
kinds: {room: 0.5, table top: 0.5}
edits: 0.5
"""
CONFIGS = {
    "pyrender.yaml": f"engine: pyrender\nwidth: 48\nheight: 48\nmax_model_kb: 100{RENDER}",
    "blender.yaml": f"engine: blender\nwidth: 32\nheight: 32\nsamples: 1{RENDER}",
    "annotate.yaml": """
sources: [{name: photos, kind: folder, path: photos, licence: CC0-1.0}]
images_per_shard: 2
""",
    "encode.yaml": """
sources: [raw]
tasks: {depth: 1, normals: 1, semantic: 1}
size: 48
seed: 7
""",
    "audit.yaml": """
benchmarks: [{name: photographs, folder: benchmark}]
shards: [raw]
controls: {copies: 4, clean: 4}
""",
    "convert.yaml": """
name: web
path: foreign
licence: CC0-1.0
records_per_shard: 2
""",
    "mixture.yaml": """
seed: 3
ratios: {generation: rest, vision: 0.5}
sources:
  renders: {path: raw, tasks: {generate: 1, depth: 1, normals: 1}}
""",
    "train.yaml": """
lock: lock.json
generator: {kind: tiny, width: 16}
size: 32
steps: 24
batch: 4
checkpoint_every: 4
keep_checkpoints: 20
log_every: 2
threads: 1
workers: 1
seed: 11
""",
}


@dataclass(frozen=True)
class Job:
    """One job of the kit.

    Args:
        name: as in the table.
        verb: of the command line.
        config: its configuration, one of `CONFIGS`.
        workers: numbers of worker processes it is run with; none where the verb has no such option.
        targets: which processes can be killed one by one, beside the whole group and the driver.
        out: what it makes, relative to the folder of a trial.
        counted: patterns of the files that make up the result; empty: the file `out` itself.
        commits: patterns of the files that are finished work as soon as they have their names.
    """

    name: str
    verb: str
    config: str
    workers: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    out: str = "out"
    counted: tuple[str, ...] = ("dataset.json", "shard-*.json", "shard-*.tar")
    commits: tuple[str, ...] = ("shard-*.json",)

    def command(self, folder: Path, workers: int = 1) -> list[str]:
        """Return argv of a run in `folder`, which holds configurations and inputs."""
        options = ["--workers", str(workers)] if self.workers else []
        words = [self.verb, str(folder / self.config), "--out", str(folder / self.out)]
        if self.verb != "render":
            words += ["--data", str(folder)]
        return [sys.executable, "-m", "cavendish", *words, *options]

    def digest(self, folder: Path) -> str:
        """Return the sha256 over the names and bytes of the result in `folder`; "" when there is none."""
        files = self._files(folder, self.counted)
        if not files:
            return ""
        text = "".join(f"{path.relative_to(folder)} {file_sha256(path)}\n" for path in files)
        return hashlib.sha256(text.encode()).hexdigest()

    def finished(self, folder: Path) -> dict[str, str]:
        """Return the sha256 of every file that is finished work, a row's together with its tar's."""
        found = {}
        for path in self._files(folder, self.commits):
            tar = path.with_suffix(".tar")
            try:
                if path.suffix == ".pt":
                    found[path.name] = _checkpoint_sha256(path)
                else:
                    found[path.name] = file_sha256(path) + (file_sha256(tar) if path.name.startswith("shard-") else "")
            except FileNotFoundError:
                found[path.name] = f"{tar.name} is not there"
            except InputError as error:
                found[path.name] = str(error)
        return found

    def _files(self, folder: Path, patterns: tuple[str, ...]) -> list[Path]:
        if not patterns:
            return [folder / self.out] if (folder / self.out).exists() else []
        return sorted(path for pattern in patterns for path in (folder / self.out).glob(pattern) if path.is_file())


_RENDER = ("worker", "renderer")
JOBS = (
    Job("render (pyrender)", "render", "pyrender.yaml", (1, 2), _RENDER),
    Job("render (Blender)", "render", "blender.yaml", (1, 2), _RENDER),
    Job("annotate", "annotate", "annotate.yaml", (1, 2), ("worker",)),
    Job("convert", "convert", "convert.yaml", (1, 2), ("worker",)),
    Job("encode", "encode", "encode.yaml", (1, 2), ("worker",)),
    Job(
        "audit",
        "audit",
        "audit.yaml",
        (1, 2),
        ("worker",),
        counted=("report.json", "exclude.json"),
        commits=("scan/*.json",),
    ),
    Job("mix", "mix", "mixture.yaml", out="out/lock.json", counted=(), commits=()),
    Job(
        "train",
        "train",
        "train.yaml",
        targets=("reader",),
        counted=("generator/*", "loss.csv", "ratios.csv", "train.json"),
        commits=("checkpoint-*.pt",),
    ),
)


def _checkpoint_sha256(path: Path) -> str:
    """Hash what a checkpoint says: equal states of a run that was resumed are pickled in another order."""
    from cavendish.trainer.training.checkpoint import read_checkpoint

    def walk(value: object) -> object:
        if isinstance(value, dict):
            return sorted((str(key), walk(inner)) for key, inner in value.items())
        if isinstance(value, list | tuple):
            return [walk(inner) for inner in value]
        return hashlib.sha256(value.numpy().tobytes()).hexdigest() if hasattr(value, "numpy") else repr(value)

    return hashlib.sha256(repr(walk(vars(read_checkpoint(path)))).encode()).hexdigest()


def job_named(name: str) -> Job:
    """Return the job of that name."""
    return next(job for job in JOBS if job.name == name)


def make_inputs(folder: Path) -> None:
    """Write the configurations and the inputs of all jobs: pictures, a tar, rendered shards, a lock.

    Raises:
        InputError: one of the undisturbed runs that make inputs failed.
    """
    folder.mkdir(parents=True)
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    pictures = {f"photo-{number}": _picture(number) for number in range(4)}
    for directory in ("photos", "benchmark", "foreign"):
        (folder / directory).mkdir()
    for name, png in pictures.items():
        (folder / "photos" / f"{name}.png").write_bytes(png)
        (folder / "photos" / f"{name}.json").write_text(json.dumps({"author": "the kit"}))
    (folder / "benchmark/held-out.png").write_bytes(_picture(99))
    with tarfile.open(folder / "foreign/web.tar", "w") as tar:
        for name, png in pictures.items():
            for suffix, data in ((".png", png), (".txt", f"a picture called {name}".encode())):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    _run(job_named("render (pyrender)").command(folder, 1))
    (folder / "out").rename(folder / "raw")
    _run(job_named("mix").command(folder))
    (folder / "out/lock.json").rename(folder / "lock.json")
    shutil.rmtree(folder / "out")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")


def _picture(number: int) -> bytes:
    """Draw a picture with texture and a bright object in it."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 200, (8, 10, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (200, 160), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
    centre = (int(rng.integers(60, 140)), int(rng.integers(50, 110)))
    cv2.circle(pixels, centre, 36, tuple(int(level) for level in rng.integers(150, 255, 3)), -1)
    return cv2.imencode(".png", pixels)[1].tobytes()
