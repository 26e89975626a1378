"""The tables of an evaluation of a tuned generator beside its base and the blind guesses: for terminals and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cavendish.trainer.evaluation.report.page import look_up
from cavendish.trainer.evaluation.tasks.task import Column, find_evaluation

_NAMES = {"tuned": "tuned generator", "base": "base, before tuning"}
_ORDER = {"tuned": 0, "base": 1}


def metrics_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a table for each set and task of an evaluation's summary: ours first, then the blind guesses."""
    tables = []
    for set_name, tasks in summary["sets"].items():
        for task, result in tasks.items():
            evaluation = find_evaluation(task)
            columns = [
                column
                for column in evaluation.columns
                if any(look_up(_row(metrics), column.metric) is not None for metrics in result["rows"].values())
            ]
            rows = [
                {
                    "css": "ours" if name == "tuned" else "",
                    "cells": [_NAMES.get(name, name), *(_cell(metrics, column) for column in columns)],
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
        values = {name: look_up(_row(metrics), column.metric) for name, metrics in result["rows"].items()}
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


def _row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "measured", "metrics": metrics}


def _cell(metrics: Mapping[str, Any], column: Any) -> str:
    value = look_up(_row(metrics), column.metric)
    return "-" if value is None else format(value, column.format)
