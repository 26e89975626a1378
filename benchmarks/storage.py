"""Every verb with all its data on an S3 server on loopback: requests, bytes and CPU seconds of each.

python benchmarks/storage.py SCRATCH [--faults]

With --faults every tenth request fails; what comes out has the same digests. Training is killed once with SIGKILL and
goes on from the URL; every command has an empty TMPDIR.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cavendish.mixing.storage import objects  # noqa: E402
from tests.mixing.storage.s3_server import Proxy, every_tenth, s3_server  # noqa: E402

DATA = "s3://bucket/data"
TRAIN = {
    "size": 32,
    "steps": 30,
    "batch": 8,
    "log_every": 5,
    "checkpoint_every": 10,
    "warmup_steps": 5,
    "threads": 1,
    "workers": 0,
}
CONFIGS = {
    "encode": {"sources": ["raw"], "tasks": {"depth": 1, "normals": 1, "semantic": 1}, "size": 64},
    "mix_base": {
        "seed": 1,
        "ratios": {"generation": "rest", "editing": 0.4},
        "sources": {"pyrender": {"path": "raw", "tasks": {"generate": 1, "edit": 1}}},
    },
    "mix_tune": {
        "seed": 1,
        "ratios": {"generation": "rest", "editing": 0.3, "vision": 0.3},
        "sources": {"pyrender": {"path": "raw", "tasks": {"generate": 1, "edit": 1, "depth": 3, "normals": 3}}},
    },
    "train": {"lock": "base.lock.json", "generator": {"kind": "tiny", "width": 16}, **TRAIN},
    "tune": {"lock": "tune.lock.json", "base": "base/generator", **TRAIN},
    "evaluate": {
        "generator": "tuned/generator",
        "base": "base/generator",
        "sets": {"held out": {"folder": "heldout", "tasks": ["depth", "normals"]}},
        "priors": "raw",
        "retention": "heldout",
        "size": 32,
        "edit_steps": 1,
    },
}


def step(proxy: Proxy, scratch: Path, name: str, *words: str, until: Callable[[], bool] | None = None) -> None:
    """Run one command, or kill it as soon as `until` says so, and print what it cost."""
    for counts in (proxy.asked, proxy.bytes, proxy.faults):
        counts.clear()
    machine = tempfile.mkdtemp(dir=scratch)
    environment = {**os.environ, "TMPDIR": machine, "OMP_NUM_THREADS": "1"}
    before, command = os.times(), [sys.executable, "-W", "ignore", "-m", "cavendish", *words]
    process = subprocess.Popen(command, env=environment, cwd=scratch, stdout=subprocess.DEVNULL)
    while until is not None and process.poll() is None and not until():
        time.sleep(0.2)
    if until is not None:
        process.kill()
    process.wait()
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    asked = ", ".join(f"{count} {method}" for method, count in sorted(proxy.asked.items()))
    print(
        f"{name}: exit code {process.returncode}, {proxy.asked.total()} requests ({asked}), "
        f"{proxy.bytes['PUT'] / 1e6:.2f} MB sent, {proxy.bytes['answers'] / 1e6:.2f} MB got, {cpu_s:.1f} CPU s, "
        f"{proxy.faults.total()} faults; left in TMPDIR: {', '.join(sorted(os.listdir(machine))) or 'nothing'}",
        flush=True,
    )


def main(scratch: Path, faults: bool) -> None:
    """Run the verbs one after the other."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name, values in CONFIGS.items():
        (scratch / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as proxy:
        proxy.choose = every_tenth() if faults else proxy.choose

        def run(name: str, *words: str, until: Callable[[], bool] | None = None) -> None:
            step(proxy, scratch, name, *words, until=until)

        example = str(ROOT / "examples" / "render_pyrender.yaml")
        render = ("render", example, "scenes_per_shard=4", "--workers", "1")
        run("render", *render, "scenes=8", "--out", f"{DATA}/raw")
        run("render again", *render, "scenes=8", "--out", f"{DATA}/raw")
        run("render, held out", *render, "scenes=4", "seed=9", "--out", f"{DATA}/heldout")
        run("encode", "encode", "encode.yaml", "--out", f"{DATA}/frozen", "--data", DATA)
        run("mix", "mix", "mix_base.yaml", "--out", f"{DATA}/base.lock.json", "--data", DATA)
        page = ("--preview", f"{DATA}/preview.html", "--size", "32")
        run("mix, with a page", "mix", "mix_tune.yaml", "--out", f"{DATA}/tune.lock.json", "--data", DATA, *page)
        run("train", "train", "train.yaml", "--out", f"{DATA}/base", "--data", DATA)
        tune = ("train", "tune.yaml", "--out", f"{DATA}/tuned", "--data", DATA)
        run("tune, killed", *tune, until=lambda: "checkpoint-000010.pt" in objects.tree(f"{DATA}/tuned"))
        run("tune, resumed", *tune)
        run("evaluate", "evaluate", "evaluate.yaml", "--out", f"{DATA}/evaluation", "--data", DATA)
        run("show --verify", "show", f"{DATA}/frozen", "--verify")
        for name in ("raw", "frozen"):
            print(name, json.loads(objects.read(f"{DATA}/{name}/dataset.json"))["totals"]["digest"])
        print("weights", hashlib.sha256(objects.read(f"{DATA}/tuned/generator/weights.pt")).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--faults" in sys.argv)
