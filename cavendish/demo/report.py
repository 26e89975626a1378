"""The demo's page: what was made and measured, read back from the files that the stages wrote."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.encoders.tasks.registry import find_task
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.lock import read_lock
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.storage.place import read_json, write_atomic
from cavendish.mixing.visualize import Panel, data_uri, fit, record_panels
from cavendish.trainer.evaluation.report.page import metrics_tables, retention_table, standing
from cavendish.trainer.evaluation.sets import read_sample_questions

CELL = 190
_KIND_COLORS = {"generation": "#8250df", "editing": "#bf5b04", "vision": "#0b6bcb"}
_SECTIONS = {
    "data": "Data",
    "instructions": "Instructions",
    "audit": "Audit",
    "mixture": "Mixture",
    "training": "Training",
    "predictions": "Predictions",
    "metrics": "Metrics",
    "run": "This run",
}


def write_report(data: Path, stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Path:
    """Write `report.html` under `data` from what the stages left there; return its path."""
    summary = read_json(data / "evaluation/summary.json", "the summary of the evaluation")
    template = Environment(loader=PackageLoader("cavendish.demo", "."), autoescape=True).get_template("report.html")
    page = template.render(
        sections=[{"id": name, "title": title} for name, title in _SECTIONS.items()],
        cell=CELL,
        tiles=_tiles(data, summary),
        data_groups=_data_groups(data),
        photographs=_photographs(data),
        examples=_cards(data),
        audits=_audits(data),
        mixture=_mixture(data),
        training=_training(data),
        predictions=_predictions(data),
        metrics=[*metrics_tables(summary), retention_table(summary)],
        standing=standing(summary, "held-out scenes"),
        stages=[{"name": name, "words": record["words"], "seconds": record["seconds"]} for name, record in stages],
        version=version("cavendish"),
    )
    path = data / "report.html"
    write_atomic(path, page.encode())
    return path


def _panels(panels: Iterable[Panel], cell: int = CELL) -> list[dict[str, str]]:
    return [{"name": name, "uri": data_uri(fit(picture, cell, cell))} for name, picture in panels]


def _tiles(data: Path, summary: Mapping[str, Any]) -> list[dict[str, str]]:
    scenes = sum(
        row.count for name in ("blender", "pyrender", "heldout") for row in committed_rows(data / "raw" / name)
    )
    photos = sum(row.count for row in committed_rows(data / "raw/photos"))
    examples = sum(row.count for row in committed_rows(data / "examples"))
    trained = read_json(data / "train/tuned/train.json", "the result of training")
    seen = sum(sum(tasks.values()) for tasks in trained["counts"].values())
    first = read_json(data / "audit/first/report.json", "the audit's report")
    depth = summary["sets"]["held-out scenes"]["depth"]["rows"]
    return [
        {"value": f"{scenes}", "label": "rendered scenes with exact labels"},
        {"value": f"{photos}", "label": "photographs annotated"},
        {"value": f"{examples}", "label": "frozen instruction examples"},
        {"value": f"{first['counts']['leaks']}", "label": "leaking pictures found, and excluded"},
        {"value": f"{seen:,}", "label": "examples drawn while tuning"},
        {"value": f"{depth['tuned']['delta1']:.2f}", "label": f"depth δ1 (base {depth['base']['delta1']:.2f})"},
    ]


def _data_groups(data: Path) -> list[dict[str, Any]]:
    groups = (
        ("Blender (Cycles)", "path traced", "raw/blender", 6),
        ("pyrender", "rasterised; the same kinds of scenes, for volume", "raw/pyrender", 4),
    )
    return [
        {
            "title": title,
            "note": f"{samples[0].image.shape[1]} px, {note}",
            "rows": [_data_row(sample) for sample in samples],
        }
        for title, note, folder, count in groups
        for samples in [_spread(data / folder, count)]
    ]


def _photographs(data: Path) -> list[dict[str, Any]]:
    """Show every annotated photograph with its mask, or with the reason why it has none."""
    cards = []
    for sample in _spread(data / "raw/photos", 12):
        scores = ", ".join(f"{name} {score:.2f}" for name, score in sorted(sample.quality.items()))
        masked = sample.instance_ids is not None
        words = f"{sample.captions[0] if sample.captions else sample.key} · {sample.licence}"
        verdict = f"kept: {scores}" if masked else f"mask dropped: {scores}"
        cards.append({"panels": _panels(record_panels(sample), 148), "words": words, "scores": verdict})
    return cards


def _spread(folder: Path, count: int) -> list[Sample]:
    """Take `count` samples spread evenly over a directory, those with an edit preferred."""
    samples = [record for record in read_dataset(folder) if isinstance(record, Sample)]
    edited = [sample for sample in samples if sample.edit is not None]
    chosen = edited if len(edited) >= count else samples
    return [chosen[index] for index in np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]


def _data_row(sample: Sample) -> dict[str, Any]:
    words = [sample.key, *sample.captions[:1]]
    if sample.edit is not None:
        words.append(f"edit: “{sample.edit.instruction}”")
    return {"panels": _panels(record_panels(sample)), "words": " · ".join([*words, sample.licence])}


def _cards(data: Path, per_task: int = 3) -> list[dict[str, Any]]:
    cards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    records = list(read_dataset(data / "examples"))
    for record in records[:: max(1, len(records) // 150)] + records:
        if isinstance(record, Example) and len(cards[record.task]) < per_task:
            card = {
                "task": record.task,
                "kind": find_task(record.task).kind,
                "panels": _panels(record_panels(record), 148),
                "prompt": _short(record.prompt),
            }
            if card not in cards[record.task]:
                cards[record.task].append(card)
    return [card for task in cards.values() for card in task]


def _audits(data: Path) -> list[dict[str, Any]]:
    runs = []
    for title, folder in (("Everything collected", "audit/first"), ("Without what was found", "audit/final")):
        report = read_json(data / folder / "report.json", "the audit's report")
        pictures = sum(row["images"] for row in report["shards"])
        images = sum(row.get("images", 0) for row in report["benchmarks"])
        recall = list(report["controls"]["recall"].values())
        found, planted = sum(row["hits"] for row in recall), sum(row["trials"] for row in recall)
        wrong = report["controls"]["false_positives"]
        words = (
            f"{pictures} pictures compared with {images} benchmark images. Planted controls in this run: "
            f"{found} of {planted} edited copies found, {wrong['hits']} of {wrong['trials']} clean pictures accused. "
            f"{report['counts']['excluded_keys']} keys excluded."
        )
        css = {"leak": "leak", "clean": "clean"}.get(report["verdict"], "other")
        open_leaks = [one for one in report["findings"] if one["status"] == "open" and one["level"] == "leak"]
        pairs = [_pair(data, finding) for finding in open_leaks[:3]]
        runs.append({"title": title, "verdict": report["verdict"], "css": css, "words": words, "pairs": pairs})
    return runs


def _pair(data: Path, finding: Mapping[str, Any]) -> dict[str, Any]:
    """Show a finding: the training picture with the benchmark image's outline on it, and the benchmark image."""
    record = next(one for one in read_dataset(data / finding["directory"]) if one.key == finding["key"])
    picture = record.image if isinstance(record, Sample) else record.source
    assert picture is not None
    benchmark_file = next((data / "benchmark").glob(f"{Path(finding['image']).stem}.*"))
    benchmark = decode_rgb(benchmark_file.read_bytes(), finding["image"])
    panels = [("in the training data", _outlined(picture, finding["affine"])), ("benchmark image", benchmark)]
    shown = [{"name": name, "uri": data_uri(fit(image, 280, 220))} for name, image in panels]
    words = f"{finding['directory']} {finding['key']} shows {finding['image']}: {finding['kind']}. {finding['reason']}"
    return {"panels": shown, "words": words}


def _outlined(picture: UInt8Image, affine: Sequence[float] | None) -> UInt8Image:
    if affine is None:
        return picture
    matrix = np.array(affine).reshape(2, 3)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ matrix[:, :2].T + matrix[:, 2]
    points = np.rint(corners * (picture.shape[1], picture.shape[0])).astype(np.int32)
    outlined = picture.copy()
    cv2.polylines(outlined, [points], True, (255, 64, 32), 4, cv2.LINE_AA)
    return outlined


def _mixture(data: Path) -> dict[str, Any]:
    bars = []
    for title, name in (("Base: generation and editing only", "base"), ("Tuning: vision at a low ratio", "tune")):
        lock = read_lock(data / f"mixture/{name}.lock.json")
        shares: dict[str, float] = defaultdict(float)
        for stream in lock.streams:
            shares[stream.kind] += float(stream.points[0][1])
        parts = [
            {"name": kind, "percent": round(100 * shares[kind]), "color": color}
            for kind, color in _KIND_COLORS.items()
            if shares[kind]
        ]
        bars.append({"title": title, "parts": parts})
    lock = read_lock(data / "mixture/tune.lock.json")
    counts = read_json(data / "train/tuned/train.json", "the result of training")["counts"]
    total = sum(sum(tasks.values()) for tasks in counts.values())
    rows = []
    for stream in lock.streams:
        drawn = counts.get(stream.source, {}).get(stream.task, 0)
        asked = float(stream.points[0][1])
        rows.append((f"{stream.source} / {stream.task}", stream.kind, f"{stream.pool}", f"{100 * asked:.3f} %",
                     f"{drawn}", f"{100 * drawn / total:.3f} %", f"{drawn - asked * total:+.2f}"))  # fmt: skip
    left_out = {reason: number for source in lock.sources for reason, number in source.left_out.items()}
    reasons = ", ".join(f"{number} ({reason})" for reason, number in left_out.items()) or "nothing"
    words = (
        f"Lock {lock.digest[:16]} names every shard by its sha256 and carries the audit's verdict "
        f"({'none' if lock.audit is None else lock.audit['verdict']}). At every prefix each stream is within one "
        f"example of its share. Left out: {reasons}."
    )
    head = ("source / task", "kind", "records", "asked", "drawn", "realised", "examples off")
    return {"words": words, "bars": bars, "head": head, "rows": rows}


def _training(data: Path) -> dict[str, Any]:
    base, tuned = _losses(data / "train/base/loss.csv"), _losses(data / "train/tuned/loss.csv")
    settings = read_json(data / "train/tuned/train.json", "the result of training")["identity"]
    first = read_json(data / "train/base/train.json", "the result of training")
    words = (
        f"The embedded generator draws {settings['size']}-pixel pictures and predicts the clean picture. It learned "
        f"generation and editing for {first['steps']} steps, then was tuned for {settings['steps']} steps with vision "
        "tasks in the mixture. Loss by task, averaged over 50 steps; the levels of two tasks are not comparable."
    )
    charts = [
        {"title": "Base", "svg": Markup(line_chart(base, "step", "loss"))},
        {"title": "Tuning", "svg": Markup(line_chart(tuned, "step", "loss"))},
    ]
    return {"words": words, "charts": charts}


def _losses(path: Path) -> dict[str, Series]:
    """Read loss.csv into one curve per task, weighted over its sources."""
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            entry = sums[row["task"]][int(row["step"])]
            count = float(row["examples"])
            entry[0] += float(row["loss"]) * count
            entry[1] += count
    return {
        task: smooth([(float(step), total / count) for step, (total, count) in sorted(steps.items())], 5)
        for task, steps in sorted(sums.items())
    }


def _predictions(data: Path) -> dict[str, Any]:
    """Show held-out questions beside what the tuned generator and its base drew."""
    rows = []
    for task in ("depth", "normals", "semantic", "referring"):
        questions = read_sample_questions(data / "raw/heldout", task, 0)
        for example in islice(questions.examples, 1, None, max(1, len(questions.examples) // 3)):
            rows.append(_prediction_row(data / "evaluation/held-out scenes" / task, example))
    photograph = read_sample_questions(data / "raw/real_depth", "depth", 0).examples[0]
    rows.append(_prediction_row(data / "evaluation/real photograph/depth", photograph, "a real photograph: "))
    words = (
        "Scenes of other seeds than any in the mixture. What the generators drew is shown as it came, before decoding. "
        "The generator is tiny and had minutes: look for the right layout, not for detail."
    )
    return {"words": words, "rows": rows}


def _prediction_row(folder: Path, example: Example, before: str = "") -> dict[str, Any]:
    assert example.source is not None
    name = f"{example.key}.png"
    drawn = {who: decode_rgb((folder / who / name).read_bytes(), name) for who in ("tuned", "base")}
    panels = [
        ("picture", example.source),
        ("the right answer", example.target),
        ("tuned generator", drawn["tuned"]),
        ("its base", drawn["base"]),
    ]
    return {"panels": _panels(panels), "words": f"{before}{example.task}: “{_short(example.prompt)}”"}


def _short(prompt: str, limit: int = 320) -> str:
    text = re.sub(r"[ \t]+", " ", prompt).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


Series = Sequence[tuple[float, float]]
"""(x, y) points, x increasing."""

_COLORS = ("#0b6bcb", "#8250df", "#bf5b04", "#1a7f37", "#b42318", "#57606a", "#d4a72c", "#0a7ea4")


def line_chart(series: Mapping[str, Series], x_label: str, y_label: str) -> str:
    """Draw named curves on a logarithmic y axis; return an `<svg>` element without times or random ids."""
    with mpl.rc_context({"svg.hashsalt": "cavendish", "font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(5.4, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for (name, points), color in zip(series.items(), _COLORS * 3, strict=False):
            axes.plot([x for x, _ in points], [y for _, y in points], label=name, color=color, linewidth=1.4)
        axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=True, which="both", color="#e4e8ec", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def smooth(points: Series, window: int) -> list[tuple[float, float]]:
    """Average y over `window` neighbouring points, so that a curve can be read; x is the middle of each window."""
    return [
        (
            sum(x for x, _ in points[start : start + window]) / len(points[start : start + window]),
            sum(y for _, y in points[start : start + window]) / len(points[start : start + window]),
        )
        for start in range(0, len(points), window)
    ]
