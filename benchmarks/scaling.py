"""Holds `cavendish plan` against measured runs of the real jobs at three sizes, and draws the plot of docs/scaling.md.

    python benchmarks/scaling.py --out docs/images/scaling.png

CPU seconds of the job's process and all its children, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZES = (12, 36, 108)
RENDER = "{engine: pyrender, seed: 5, scenes: 1000, scenes_per_shard: 12, width: 64, height: 64, max_model_kb: 400}\n"
ENCODE = "{sources: [render-12-0], tasks: {depth: 1, normals: 1, semantic: 1, instance: 1, referring: 1}, size: 64}\n"


def cpu_of(*words: str) -> tuple[float, str]:
    """Run a verb; return the CPU seconds of it and its children, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["cavendish", *words], env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def measure(verb: str, folder: Path, repeats: int) -> dict[str, object]:
    """Plan a job, then run it at three sizes, each in turn so often; encode works on the smallest rendered set."""
    config, samples = folder / f"{verb}.yaml", {"render": "6", "encode": "12"}[verb]
    planned = json.loads(cpu_of("plan", verb, str(config), "--data", str(folder), "--samples", samples, "--json")[1])
    runs = []
    for turn in range(repeats):
        for size in SIZES:
            out = folder / f"{verb}-{size}-{turn}"
            sized = {"render": [f"scenes={size}", f"seed={5 + turn}"], "encode": [f"epochs={size // 6}"]}[verb]
            place = [] if verb == "render" else ["--data", str(folder)]
            seconds, _ = cpu_of(verb, str(config), *sized, *place, "--out", str(out), "--workers", "1")
            told = json.loads((out / "dataset.json").read_text())
            rows = sum(path.stat().st_size for path in out.glob("shard-*.json"))
            made = {"records": told["totals"]["records"], "shards": told["shards"], "cpu_s": seconds}
            runs.append({**made, "bytes": told["totals"]["bytes"] + rows})
            print(verb, size, runs[-1], flush=True)
    return {"probe": planned["probe"], "runs": runs}


def predicted(probe: dict[str, float], records: int, shards: int) -> float:
    """Return the CPU seconds that the plan's model gives one worker."""
    return probe["start_s"] + shards * probe["shard_s"] + records * probe["units"] / probe["records"] * probe["mean_s"]


def fit(runs: list[dict[str, float]]) -> tuple[float, float, float]:
    """Fit seconds = a + b records; return a, b and R^2."""
    x, y = (np.array([run[name] for run in runs], float) for name in ("records", "cpu_s"))
    slope, start = np.polyfit(x, y, 1)
    rest = y - start - slope * x
    return float(start), float(slope), float(1 - (rest**2).sum() / ((y - y.mean()) ** 2).sum())


def table(found: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """Write the figures as the table of docs/scaling.md."""
    lines = [
        "| job | records | shards | CPU s measured | planned | measured / planned | MB | planned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for verb, values in found.items():
        probe = values["probe"]
        per_record = (probe["tar_bytes"] + probe["row_bytes"]) / probe["records"]
        for run in values["runs"]:
            plan = predicted(probe, run["records"], run["shards"])
            megabytes = f"{run['bytes'] / 1e6:.2f} | {run['records'] * per_record / 1e6:.2f}"
            seconds = f"{run['cpu_s']:.1f} | {plan:.1f} | {run['cpu_s'] / plan:.2f}"
            lines.append(f"| {verb} | {run['records']} | {run['shards']} | {seconds} | {megabytes} |")
    for verb, values in found.items():
        start, slope, r2 = fit(values["runs"])
        probe = values["probe"]
        per = probe["mean_s"] * probe["units"] / probe["records"]
        lines.append(
            f"\n{verb}: measured {start:.2f} s + {slope:.4f} s a record, R² {r2:.4f}; "
            f"probe: start {probe['start_s']:.2f}, "
            f"shard {probe['shard_s']:.3f}, record {per:.4f} ± {probe['error_s']:.4f} s"
        )
    return "\n".join(lines)


def plot(found: dict[str, dict], out: Path) -> None:  # type: ignore[type-arg]
    """Draw measured runs, the line fitted to them and what the plan said, for each job."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(9.6, 3.9), layout="constrained")
    for axis, (verb, values) in zip(np.atleast_1d(axes), found.items()):
        runs, probe = values["runs"], values["probe"]
        start, slope, r2 = fit(runs)
        most = max(run["records"] for run in runs)
        x = np.linspace(0, 1.05 * most, 50)
        per_shard = most / max(run["shards"] for run in runs)
        low, middle, high = (
            probe["start_s"] + x / per_shard * probe["shard_s"]
            + x * probe["units"] / probe["records"] * max(0.0, probe["mean_s"] + sign * probe["error_s"])
            for sign in (-1, 0, 1)
        )  # fmt: skip
        axis.fill_between(x, low, high, color="#f0b429", alpha=0.25, lw=0, label="plan, 95 %")
        axis.plot(x, middle, color="#c98a00", lw=1.5, label="plan, from its probe")
        axis.plot(x, start + slope * x, color="#2563a8", lw=1.2, ls="--", label=f"line through the runs, R² {r2:.4f}")
        axis.plot(
            [r["records"] for r in runs], [r["cpu_s"] for r in runs], "o", ms=5, color="#2563a8", label="measured runs"
        )
        axis.set(title=f"cavendish {verb}", xlabel="records made", ylabel="CPU seconds", xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.savefig(out, dpi=130)


def main() -> None:
    """Measure, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scaling.png"))
    parser.add_argument("--repeats", type=int, default=1, help="runs of each size")
    parser.add_argument("--figures", type=Path, help="json to write the figures to, or to draw again when it is there")
    options = parser.parse_args()
    if options.figures is not None and options.figures.exists():
        found = json.loads(options.figures.read_text())
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "render.yaml").write_text(RENDER)
            (folder / "encode.yaml").write_text(ENCODE)
            found = {verb: measure(verb, folder, options.repeats) for verb in ("render", "encode")}
        if options.figures is not None:
            options.figures.write_text(json.dumps(found))
    print(table(found))
    plot(found, options.out)


if __name__ == "__main__":
    main()
