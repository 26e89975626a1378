"""Holds `cavendish plan` against measured runs of the real jobs at three sizes, and draws the plot of docs/scaling.md.

    python benchmarks/scaling.py --out docs/images/scaling.png [--jobs pyrender,encode] [--figures FILE]

CPU seconds of the job's process and all its children, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.annotate.photographs import FILES, photo  # noqa: E402

RENDER = "{{engine: {0}, seed: 5, scenes: 1000, scenes_per_shard: 12, width: 64, height: 64, max_model_kb: 400}}\n"
ENCODE = "{sources: [pyrender-12-0], tasks: {depth: 1, normals: 1, semantic: 1, instance: 1, referring: 1}, size: 64}\n"
ANNOTATE = "sources: [{{name: photos, kind: folder, path: photos-{0}, licence: CC0-1.0}}]\nimages_per_shard: 12\n"
CONVERT = "{{name: web, path: web-{0}, licence: CC0-1.0, records_per_shard: 500}}\n"


@dataclass(frozen=True)
class Case:
    """A job to be planned and measured.

    Args:
        sizes: three, of what `configure` takes.
        samples: of the probe.
        configure: writes what a run of a size works on, and returns its configuration and settings to change.
        planned: the size whose configuration is planned.
    """

    verb: str
    sizes: tuple[int, int, int]
    samples: int
    configure: Callable[[Path, int, int], tuple[str, list[str]]]
    planned: int = 0


def scenes(engine: str) -> Callable[[Path, int, int], tuple[str, list[str]]]:
    """Return what configures a render job of so many scenes."""
    return lambda folder, size, turn: (RENDER.format(engine), [f"scenes={size}", f"seed={5 + turn}"])


def epochs(folder: Path, size: int, turn: int) -> tuple[str, list[str]]:
    """Configure an encode job: the smallest rendered set, so often."""
    return ENCODE, [f"epochs={size // 6}"]


def photographs(folder: Path, size: int, turn: int) -> tuple[str, list[str]]:
    """Configure an annotate job: real photographs, then crops of them, none twice."""
    path = folder / f"photos-{size}"
    path.mkdir(exist_ok=True)
    for number in range(size):
        pixels = photo(list(FILES)[number % len(FILES)])
        cut = number // len(FILES) * 24
        pixels = pixels[cut : pixels.shape[0] - cut, cut : pixels.shape[1] - cut]
        cv2.imwrite(str(path / f"{number:04d}.png"), pixels[..., ::-1])
    return ANNOTATE.format(size), []


def captioned(folder: Path, size: int, turn: int) -> tuple[str, list[str]]:
    """Configure a convert job: tars of 500 JPEGs of 256 x 256 pixels with captions, cut out of the photographs."""
    path = folder / f"web-{size}"
    path.mkdir(exist_ok=True)
    rng = np.random.default_rng(size)
    for first in range(0, size, 500):
        with tarfile.open(path / f"{first:06d}.tar", "w") as tar:
            for number in range(first, min(size, first + 500)):
                pixels = photo(("coffee", "china", "flower", "rocket")[number % 4])
                row, column = (int(rng.integers(side - 256)) for side in pixels.shape[:2])
                piece = pixels[row : row + 256, column : column + 256]
                data = cv2.imencode(".jpg", np.ascontiguousarray(piece[..., ::-1]))[1].tobytes()
                for suffix, content in (("jpg", data), ("txt", f"picture {number}".encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return CONVERT.format(size), []


CASES = {
    "pyrender": Case("render", (12, 36, 108), 6, scenes("pyrender"), 108),
    "blender": Case("render", (6, 12, 24), 4, scenes("blender"), 24),
    "encode": Case("encode", (12, 36, 108), 12, epochs, 108),
    "annotate": Case("annotate", (4, 12, 24), 4, photographs, 24),
    "convert": Case("convert", (500, 1500, 4500), 12, captioned, 4500),
}


def cpu_of(*words: str) -> tuple[float, str]:
    """Run a verb; return the CPU seconds of it and its children, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cavendish", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def measure(name: str, folder: Path, repeats: int) -> dict[str, object]:
    """Plan a job, then run it at three sizes, each in turn so often."""
    case = CASES[name]
    place = [] if case.verb == "render" else ["--data", str(folder)]

    def configured(size: int, turn: int) -> list[str]:
        text, changes = case.configure(folder, size, turn)
        path = folder / f"{name}-{size}.yaml"
        path.write_text(text)
        return [str(path), *changes, *place]

    probe_s, told = cpu_of("plan", case.verb, *configured(case.planned, 0), "--samples", f"{case.samples}", "--json")
    planned = json.loads(told)
    print(f"{name}: probe {probe_s:.1f} CPU s, {planned['probe']['wall_s']:.0f} s", flush=True)
    runs = []
    for turn in range(repeats):
        for size in case.sizes:
            out = folder / f"{name}-{size}-{turn}"
            seconds, _ = cpu_of(case.verb, *configured(size, turn), "--out", str(out), "--workers", "1")
            found = json.loads((out / "dataset.json").read_text())
            rows = sum(path.stat().st_size for path in out.glob("shard-*.json"))
            totals = found["totals"]
            units = totals["records"] + (totals["rejected"] if case.verb in ("annotate", "convert") else 0)
            made = {"units": units, "records": totals["records"], "shards": found["shards"], "cpu_s": seconds}
            runs.append({**made, "bytes": totals["bytes"] + rows})
            print(name, size, runs[-1], flush=True)
    return {"verb": case.verb, "probe": planned["probe"], "runs": runs}


def predicted(probe: dict[str, float], units: int, shards: int) -> float:
    """Return the CPU seconds that the plan's model gives one worker."""
    return probe["start_s"] + shards * probe["shard_s"] + units * probe["mean_s"]


def fit(runs: list[dict[str, float]]) -> tuple[float, float, float]:
    """Fit seconds = a + b units; return a, b and R^2."""
    x, y = (np.array([run[name] for run in runs], float) for name in ("units", "cpu_s"))
    slope, start = np.polyfit(x, y, 1)
    rest = y - start - slope * x
    return float(start), float(slope), float(1 - (rest**2).sum() / ((y - y.mean()) ** 2).sum())


def table(found: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """Write the figures as the table of docs/scaling.md."""
    lines = [
        "| job | units | records | shards | CPU s measured | planned | measured / planned | MB measured | planned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for job, values in found.items():
        probe = values["probe"]
        per_unit = (probe["tar_bytes"] + probe["row_bytes"]) / probe["units"]
        for run in values["runs"]:
            plan = predicted(probe, run["units"], run["shards"])
            megabytes = f"{run['bytes'] / 1e6:.2f} | {run['units'] * per_unit / 1e6:.2f}"
            seconds = f"{run['cpu_s']:.1f} | {plan:.1f} | {run['cpu_s'] / plan:.2f}"
            lines.append(f"| {job} | {run['units']} | {run['records']} | {run['shards']} | {seconds} | {megabytes} |")
    for job, values in found.items():
        start, slope, r2 = fit(values["runs"])
        probe = values["probe"]
        lines.append(
            f"\n{job}: measured {start:.2f} s + {slope:.4f} s a unit, R² {r2:.4f}; "
            f"probe: start {probe['start_s']:.2f}, shard {probe['shard_s']:.3f}, "
            f"unit {probe['mean_s']:.4f} ± {probe['error_s']:.4f} s"
        )
    return "\n".join(lines)


def plot(found: dict[str, dict], out: Path) -> None:  # type: ignore[type-arg]
    """Draw measured runs, the line fitted to them and what the plan said, for each job."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.8 * columns, 3.9 * lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, (job, values) in zip(axes.flat, found.items()):
        runs, probe = values["runs"], values["probe"]
        start, slope, r2 = fit(runs)
        most = max(run["units"] for run in runs)
        x = np.linspace(0, 1.05 * most, 50)
        per_shard = most / max(run["shards"] for run in runs)
        low, middle, high = (
            probe["start_s"] + x / per_shard * probe["shard_s"]
            + x * max(0.0, probe["mean_s"] + sign * probe["error_s"])
            for sign in (-1, 0, 1)
        )  # fmt: skip
        axis.fill_between(x, low, high, color="#f0b429", alpha=0.25, lw=0, label="plan, 95 %")
        axis.plot(x, middle, color="#c98a00", lw=1.5, label="plan, from its probe")
        axis.plot(x, start + slope * x, color="#2563a8", lw=1.2, ls="--", label=f"line through the runs, R² {r2:.4f}")
        axis.plot(
            [r["units"] for r in runs], [r["cpu_s"] for r in runs], "o", ms=5, color="#2563a8", label="measured runs"
        )
        title = f"cavendish {values['verb']}" + (f", {job}" if job != values["verb"] else "")
        axis.set(
            title=title,
            xlabel="pictures" if job == "annotate" else "records",
            ylabel="CPU seconds",
            xlim=(0, None),
            ylim=(0, None),
        )
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.savefig(out, dpi=130)


def main() -> None:
    """Measure, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scaling.png"))
    parser.add_argument("--jobs", default=",".join(CASES), help="which; encode works on what pyrender made")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each size")
    parser.add_argument("--figures", type=Path, help="json of figures: what is in it is not measured again")
    options = parser.parse_args()
    found = json.loads(options.figures.read_text()) if options.figures and options.figures.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        for job in options.jobs.split(","):
            if job in found:
                continue
            found[job] = measure(job, Path(name), options.repeats)
            if options.figures is not None:
                options.figures.write_text(json.dumps(found))
    print(table(found))
    plot(found, options.out)


if __name__ == "__main__":
    main()
