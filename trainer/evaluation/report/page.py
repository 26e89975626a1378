"""The HTML page of a scored benchmark, and the tables of a tuned generator beside its base and the blind guesses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.visualize import data_uri, fit
from cavendish.trainer.evaluation.score import Case, Result, predict_item
from cavendish.trainer.evaluation.tasks.task import Column, find_evaluation

CELL = 246

# The metrics of a published row for normals do not say whether they are pooled; they are shown under "pooled".
_PUBLISHED_PLACES = {"mean_deg": "pooled.mean_deg", "median_deg": "pooled.median_deg"}
_NAMES = {"tuned": "tuned generator", "base": "base, before tuning"}
_ORDER = {"tuned": 0, "base": 1}


def render_report(result: Result, title: str) -> str:
    """Return the page of a result as HTML."""
    values = result.values
    columns = _columns(values)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        title=title,
        evaluation=find_evaluation(values["task"]),
        values=values,
        columns=columns,
        rows=[_row(row, columns) for row in values["rows"]],
        classes=_classes(values),
        groups=values["rows"][0]["metrics"].get("groups", {}),
        cases=[_case(case) for case in result.worst],
        cell=CELL,
    )


def _columns(values: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the task's columns that any row has a value for, the headline of a referring set first."""
    columns = sorted(find_evaluation(values["task"]).columns, key=lambda column: column.metric != values["headline"])
    return tuple(c for c in columns if any(look_up(row, c.metric) is not None for row in values["rows"]))


def look_up(row: Mapping[str, Any], metric: str) -> Any:
    """Return the value of a column's metric in a row of a result; None where it has none."""
    metrics = row["metrics"]
    if row["kind"] == "published":
        return {_PUBLISHED_PLACES.get(name, name): value for name, value in metrics.items()}.get(metric)
    first, _, rest = metric.partition(".")
    value = metrics.get(first)
    return value.get(rest) if rest and isinstance(value, Mapping) else value


def _row(row: Mapping[str, Any], columns: tuple[Column, ...]) -> dict[str, Any]:
    found = [look_up(row, column.metric) for column in columns]
    cells = ["" if value is None else format(value, column.format) for value, column in zip(found, columns)]
    return {"kind": row["kind"], "name": row["name"], "remark": row.get("remark", ""), "cells": cells}


def _classes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    ious = values["rows"][0]["metrics"].get("iou")
    if not isinstance(ious, Mapping):
        return []
    found = [{"name": name, "iou": iou} for name, iou in ious.items() if iou is not None]
    return sorted(found, key=lambda row: -row["iou"])


def _case(case: Case) -> dict[str, Any]:
    evaluation = find_evaluation(case.spec["task"])
    prediction = predict_item(evaluation, case.item, case.spec, case.answer, case.truth.size)
    panels: list[tuple[str, UInt8Image]] = [] if case.image is None else [("input", case.image)]
    panels.append(("truth", evaluation.draw_truth(case.truth, case.item, case.spec)))
    panels.append(("generated", case.answer))
    panels.append(evaluation.draw_error(case.truth, prediction, case.item))
    words = [form.format(case.metrics[name]) for name, form in evaluation.case_metrics]
    return {
        "name": case.item.name,
        "prompt": case.item.prompt,
        "words": " · ".join(words),
        "panels": [{"name": name, "uri": data_uri(fit(picture, *_cell(picture)))} for name, picture in panels],
    }


def _cell(picture: UInt8Image) -> tuple[int, int]:
    """Return the width and height of a panel CELL pixels wide, at most 4:3 upright."""
    return CELL, min(round(CELL * picture.shape[0] / picture.shape[1]), CELL * 4 // 3)


def metrics_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a table for each set and task of an evaluation's summary: ours first, then the blind guesses."""
    tables = []
    for set_name, tasks in summary["sets"].items():
        for task, result in tasks.items():
            evaluation = find_evaluation(task)
            columns = [
                column
                for column in evaluation.columns
                if any(look_up(_measured(metrics), column.metric) is not None for metrics in result["rows"].values())
            ]
            rows = [
                {
                    "css": "ours" if name == "tuned" else "",
                    "cells": [_NAMES.get(name, name), *(_metric_cell(metrics, column) for column in columns)],
                }
                for name, metrics in sorted(result["rows"].items(), key=lambda row: _ORDER.get(row[0], len(_ORDER)))
            ]
            protocol = next(iter(result["rows"].values()))["protocol"]
            tables.append(
                {
                    "title": f"{evaluation.title}: {set_name} ({result['items']})",
                    "words": f"{evaluation.words} Protocol {protocol}.",
                    "head": ["", *(column.heading for column in columns)],
                    "rows": rows,
                }
            )
    return tables


def headline(task: str) -> Column:
    """Return the column that stands for a task where there is room for one."""
    evaluation = find_evaluation(task)
    return next(column for column in evaluation.columns if column.metric == evaluation.headline)


def standing(summary: Mapping[str, Any], set_name: str) -> str:
    """Say in words where the tuned generator is ahead of every blind guess on a set, and where it is not."""
    said: dict[bool, list[str]] = {True: [], False: []}
    for task, result in summary["sets"][set_name].items():
        column = headline(task)
        values = {name: look_up(_measured(metrics), column.metric) for name, metrics in result["rows"].items()}
        tuned, base = values.pop("tuned"), values["base"]
        blind = [value for name, value in values.items() if name != "base" and value is not None]
        if tuned is None or not blind:
            continue
        best = max(blind) if column.more_is_better else min(blind)
        ahead = tuned > best if column.more_is_better else tuned < best
        numbers = ", ".join(format(value, column.format) for value in (tuned, best) if value is not None)
        before = "" if base is None else f", base {format(base, column.format)}"
        said[ahead].append(
            f"{find_evaluation(task).title.lower()} ({column.heading} {numbers.replace(', ', ' against ')}{before})"
        )
    ahead_words = "; ".join(said[True]) or "nothing"
    behind_words = "; ".join(said[False]) or "nothing"
    return f"Ahead of every blind guess in: {ahead_words}. Not ahead in: {behind_words}."


def retention_table(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of what tuning left of generating and editing."""
    retention = summary["retention"]
    rows: list[dict[str, Any]] = []
    for task, result in retention["tasks"].items():
        low, high = result["loss_ratio_interval"]
        cells = [f"{task}: loss, tuned over base", f"{result['loss_ratio']:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append({"css": "ours", "cells": [*cells, f"{result['examples']}"]})
    for name, psnr in retention.get("edit_psnr_db", {}).items():
        changed = "-" if psnr["changed_pixels"] is None else f"{psnr['changed_pixels']:.1f} dB where the edit is"
        title = {"tuned": "edit PSNR: tuned", "base": "edit PSNR: base", "identity": "edit PSNR: picture handed back"}[
            name
        ]
        rows.append({"css": "", "cells": [title, f"{psnr['all_pixels']:.1f} dB", changed, ""]})
    for name, distances in retention.get("distances", {}).items():
        cells = [f"pictures from captions, Frechet distance: {name}", f"{distances['frechet']:.3f}"]
        rows.append(
            {"css": "", "cells": [*cells, f"kernel distance {distances['kernel']:.4f}", f"{distances['pictures'][0]}"]}
        )
    return {
        "title": "Retention: does it still generate?",
        "words": "Held-out captions and edits; the same noise at the same levels for the tuned generator and its base. "
        "A ratio of 1 means nothing was lost, below 1 that it improved. Distances are from the pictures that "
        "captions are of, in layout/1 features: nearer is better, and they are not FID.",
        "head": ["", "value", "95 % interval, or note", "examples"],
        "rows": rows,
    }


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "measured", "metrics": metrics}


def _metric_cell(metrics: Mapping[str, Any], column: Any) -> str:
    value = look_up(_measured(metrics), column.metric)
    return "-" if value is None else format(value, column.format)
