"""Makes the tables and plots of docs/proof.md from what benchmarks/proof.py measured.

    python -m benchmarks.proof_page RESULTS.json [--images docs/images] [--answers OUT]

Prints the tables. With --images it draws proof_ratios.png and proof_legends.png there; with --answers, the folder that
the proof ran in, proof_answers.png too: what the generators of the first seed drew for held-out scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.proof import FIXED, ProofConfig, kept_examples
from benchmarks.proof_data import all_questions, samples_of
from cavendish.encoders.sample import Example, UInt8Image
from cavendish.mixing.storage.place import read_json

Results = Mapping[str, Any]

METRICS: Mapping[tuple[str, str], tuple[str, str, bool]] = {
    ("depth", "abs_rel"): ("depth AbsRel", ".3f", False),
    ("depth", "delta1"): ("depth delta1", ".3f", True),
    ("normals", "mean_deg"): ("normals, mean degrees", ".1f", False),
    ("semantic, fixed legend", "miou"): ("mIoU, the fixed legend's colours", ".3f", True),
    ("semantic, other colours", "miou"): ("mIoU, other colours", ".3f", True),
}
"""(questions, metric) to its title, how it is written, and whether more is better."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 of a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def write_spread(values: Sequence[float], form: str) -> str:
    """Write mean and standard deviation."""
    mean, deviation = spread(values)
    return f"{mean:{form}} ± {deviation:{form}}"


def best_guess(results: Results, questions: str, metric: str) -> float:
    """Return the best that any blind guess reaches."""
    values = [metrics[metric] for metrics in results["guesses"][questions].values()]
    return float(max(values) if METRICS[questions, metric][2] else min(values))


def arms(results: Results) -> list[str]:
    """Return the tunings' names: the ratios from low to high, then the fixed legend."""
    return ratios(results) + ([FIXED] if any(run["arm"] == FIXED for run in results["tuned"]) else [])


def ratios(results: Results) -> list[str]:
    """Return the names of the tunings that differ in their ratio alone, from low to high."""
    return sorted({str(run["arm"]) for run in results["tuned"]} - {FIXED}, key=float)


def values_of(results: Results, arm: str, *path: str) -> list[float]:
    """Return a measured value of every seed of an arm, in the order of the seeds."""
    values = []
    for run in sorted((run for run in results["tuned"] if run["arm"] == arm), key=lambda run: run["seed"]):
        value: Any = run["measured"]
        for key in path:
            value = value[key]
        values.append(float(value))
    return values


def title(results: Results, arm: str) -> str:
    """Say in words what an arm is."""
    if arm == FIXED:
        return f"{results['config']['fixed_legend_ratio'] * 100:g} %, one legend"
    return {"0": "no vision", "1": "vision alone"}.get(arm, f"{float(arm) * 100:g} %")


def examples_seen(results: Results, arm: str) -> int:
    """Return how many vision examples the runs of an arm read (the mean over the seeds)."""
    counts = [
        sum(count for task, count in run["examples"].items() if task in ("depth", "normals", "semantic"))
        for run in results["tuned"]
        if run["arm"] == arm
    ]
    return round(float(np.mean(counts)))


def vision_table(results: Results) -> str:
    """Return the table of decoded metrics: the best blind guess, the base, and every tuning."""
    lines = [
        "| tuning | vision examples | " + " | ".join(name for name, _, _ in METRICS.values()) + " |",
        "|---|---|" + "---|" * len(METRICS),
        "| best blind guess | | " + " | ".join(f"{best_guess(results, *k):{v[1]}}" for k, v in METRICS.items()) + " |",
        "| the base | 0 | "
        + " | ".join(f"{results['base']['measured'][q][m]:{v[1]}}" for (q, m), v in METRICS.items())
        + " |",
    ]
    for arm in arms(results):
        cells = [write_spread(values_of(results, arm, *key), value[1]) for key, value in METRICS.items()]
        lines.append(f"| {title(results, arm)} | {examples_seen(results, arm)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def retention_table(results: Results) -> str:
    """Return the table of what was kept of generating and editing."""
    psnr = results["tuned"][0]["measured"]["retention"]["edit_psnr_db"]
    still = [f"{psnr[who]['all_pixels']:.1f} | {psnr[who]['changed_pixels']:.1f}" for who in ("identity", "base")]
    lines = [
        "| tuning | loss of generation / base | loss of editing / base | edits, dB | edits, dB where they change |",
        "|---|---|---|---|---|",
        f"| the source handed back | | | {still[0]} |",
        f"| the base | 1 | 1 | {still[1]} |",
    ]
    for arm in arms(results):
        kept = [
            *(
                write_spread(values_of(results, arm, *_LOSS, task, "loss_ratio"), ".2f")
                for task in ("generate", "edit")
            ),
            *(
                write_spread(values_of(results, arm, "retention", "edit_psnr_db", "tuned", pixels), ".1f")
                for pixels in ("all_pixels", "changed_pixels")
            ),
        ]
        lines.append(f"| {title(results, arm)} | " + " | ".join(kept) + " |")
    return "\n".join(lines)


_LOSS = ("retention", "tasks")


def cpu_hours(results: Results) -> float:
    """Return the CPU time of all trainings."""
    return float(results["base"]["cpu_s"] + sum(run["cpu_s"] for run in results["tuned"])) / 3600


_BLUE, _ORANGE, _GREY = "#2b6cb0", "#d9730d", "#666666"


def draw_ratios(results: Results, path: Path) -> None:
    """Draw every figure over the ratio of vision tasks: a dot for each seed, a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    named = ratios(results)
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for axis, (key, (name, _, more)) in zip(axes.flat[:4], [i for i in METRICS.items() if i[0][0] != _OWN]):
        _dots(axis, [values_of(results, arm, *key) for arm in named], _BLUE, "tuned")
        axis.axhline(best_guess(results, *key), color=_GREY, linestyle="--", linewidth=1, label="best blind guess")
        axis.axhline(results["base"]["measured"][key[0]][key[1]], color=_ORANGE, linestyle=":", label="the base")
        axis.set_title(f"{name} ({'higher' if more else 'lower'} is better)", fontsize=10)
    for axis, task in zip(axes.flat[4:], ("generate", "edit")):
        _dots(axis, [values_of(results, arm, *_LOSS, task, "loss_ratio") for arm in named], _BLUE, "tuned")
        axis.axhline(1, color=_ORANGE, linestyle=":", label="the base")
        axis.set_yscale("log")
        ticks = [1, 1.25, 1.5, 1.75] if axis.get_ylim()[1] < 2.5 else [1, 2, 5, 10]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_yticks([], minor=True)
        kind = {"generate": "generation", "edit": "editing"}[task]
        axis.set_title(f"held-out {kind} loss / base (lower is better)", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks(range(len(named)), [title(results, arm) for arm in named], fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.supxlabel("share of vision tasks in the tuning mixture (same base, same steps)", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


_OWN = "semantic, fixed legend"


def _dots(axis: Any, groups: Sequence[Sequence[float]], color: str, label: str) -> None:
    axis.plot(range(len(groups)), [np.mean(group) for group in groups], color=color, linewidth=1.2, label=label)
    for x, group in enumerate(groups):
        axis.plot([x] * len(group), group, "o", color=color, markersize=4, alpha=0.7)


def draw_legends(results: Results, path: Path) -> None:
    """Draw the contrast: tuned on random legends or on one, asked in that one's colours and in others."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratio = f"{results['config']['fixed_legend_ratio']:g}"
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    keys = [_OWN, "semantic, other colours"]
    for shift, arm, color, name in ((-0.18, ratio, _BLUE, "random legends"), (0.18, FIXED, _ORANGE, "one legend")):
        groups = [values_of(results, arm, key, "miou") for key in keys]
        places = np.arange(len(keys)) + shift
        axis.bar(places, [np.mean(group) for group in groups], 0.34, color=color, alpha=0.8, label=f"tuned on {name}")
        for place, group in zip(places, groups):
            axis.plot([place] * len(group), group, "o", color="black", markersize=3.5)
    guess = best_guess(results, keys[0], "miou")
    axis.axhline(guess, color=_GREY, linestyle="--", linewidth=1, label="best blind guess")
    axis.set_xticks(range(2), ["asked in that legend's colours", "asked in other colours"])
    axis.set_ylabel("mIoU, four classes")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_answers(results: Results, out: Path, path: Path, scenes: Sequence[int] = (0, 5)) -> None:
    """Draw what each generator of the first seed answers for held-out scenes, beside picture and truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from cavendish.trainer.generators.folder import load_generator
    from cavendish.trainer.inference.sampler import predict_examples

    config = ProofConfig.model_validate(results["config"])
    examples, names = _shown(config, out, scenes)
    named = arms(results)
    folders = ["base", *(f"tuned/{arm.replace(' ', '-')}-seed{config.seeds[0]}" for arm in named)]
    steps = [4 if example.task in ("edit", "generate") else config.steps_per_answer for example in examples]
    columns: list[list[UInt8Image]] = [
        [np.full_like(e.target, 255) if e.source is None else e.source for e in examples],
        [example.target for example in examples],
    ]
    for folder in folders:
        generator = load_generator(out / folder / "generator")
        columns.append([predict_examples(generator, [e], s, seed=0)[0] for e, s in zip(examples, steps)])
    titles = ["picture", "truth", "the base", *(title(results, arm) for arm in named)]
    figure, axes = plt.subplots(
        len(examples),
        len(columns),
        figsize=(0.86 * len(columns) + 0.5, 0.86 * len(examples) + 0.3),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for x, (column, head) in enumerate(zip(columns, titles)):
        axes[0, x].set_title(head.replace(", ", ",\n"), fontsize=7)
        for y, picture in enumerate(column):
            axes[y, x].imshow(picture, interpolation="nearest")
    for y, name in enumerate(names):
        axes[y, 0].set_ylabel(name, fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _shown(config: ProofConfig, out: Path, scenes: Sequence[int]) -> tuple[list[Example], list[str]]:
    """Return the examples to show, and a label of each."""
    held_out = list(samples_of(out / "raw/heldout"))
    asked = all_questions(held_out, config.legend, config.max_depth_m)
    labels = {
        "depth": "depth",
        "normals": "normals",
        _OWN: "labels",
        "semantic, other colours": "labels, other\ncolours",
    }
    examples = [asked[name].examples[scene] for scene in scenes for name in labels]
    names = [label for _ in scenes for label in labels.values()]
    kept = kept_examples(held_out)
    edits = [example for example in kept if example.task == "edit"]
    edits.sort(key=lambda e: -float((e.source != e.target).any(axis=-1).mean()) if e.source is not None else 0.0)
    generated = [example for example in kept if example.task == "generate"]
    return [*examples, edits[0], generated[scenes[0]]], [*names, "edit", "generate"]


def main() -> None:
    """Print the tables; draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--answers", type=Path)
    arguments = parser.parse_args()
    results = read_json(arguments.results, "the results of the proof")
    print(vision_table(results), retention_table(results), sep="\n\n")
    print(f"\n{cpu_hours(results):.2f} CPU hours of training")
    if arguments.images is not None:
        draw_ratios(results, arguments.images / "proof_ratios.png")
        draw_legends(results, arguments.images / "proof_legends.png")
        if arguments.answers is not None:
            draw_answers(results, arguments.answers, arguments.images / "proof_answers.png")


if __name__ == "__main__":
    main()
