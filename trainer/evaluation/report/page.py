"""One self-contained HTML page for a scored benchmark: the table, its notes, the worst cases as pictures."""

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
