"""One self-contained HTML page for a scored benchmark: the table, its notes, the worst cases as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.visualize import data_uri, fit, ids_picture
from cavendish.trainer.evaluation.answers import decode_answer, truth_size
from cavendish.trainer.evaluation.benchmarks.items import (
    DepthTruth,
    InstancesTruth,
    Item,
    MaskTruth,
    NormalsTruth,
    SemanticTruth,
    Truth,
)
from cavendish.trainer.evaluation.score import Case, Result

CELL = 246
_RIGHT, _WRONG, _UNKNOWN = (46, 160, 67), (207, 34, 46), (208, 215, 222)


@dataclass(frozen=True)
class Column:
    """A column: dotted path of a metric, heading, format, and whether more is better."""

    metric: str
    heading: str
    format: str
    more_is_better: bool = True


COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "depth": (
        Column("delta1", "δ1", ".3f"),
        Column("delta2", "δ2", ".3f"),
        Column("delta3", "δ3", ".3f"),
        Column("abs_rel", "AbsRel", ".3f", False),
        Column("rmse_m", "RMSE m", ".3f", False),
        Column("log10", "log10", ".3f", False),
        Column("silog_marigold", "SILog ×100", ".1f", False),
    ),
    "normals": (
        Column("pooled.mean_deg", "mean°, pooled", ".2f", False),
        Column("pooled.median_deg", "median°, pooled", ".2f", False),
        Column("per_image.mean_deg", "mean°, per image", ".2f", False),
        Column("per_image.median_deg", "median°, per image", ".2f", False),
        Column("pooled.below_5_percent", "% < 5°", ".1f"),
        Column("pooled.below_11.25_percent", "% < 11.25°", ".1f"),
        Column("pooled.below_30_percent", "% < 30°", ".1f"),
    ),
    "semantic": (Column("miou", "mIoU", ".3f"), Column("pixel_accuracy", "pixel accuracy", ".3f")),
    "referring": (
        Column("giou", "gIoU", ".3f"),
        Column("ciou", "cIoU", ".3f"),
        Column("precision_at.0.5", "P@0.5", ".3f"),
        Column("precision_at.0.7", "P@0.7", ".3f"),
        Column("precision_at.0.9", "P@0.9", ".3f"),
    ),
    "instance": (
        Column("cgf1", "cgF1", ".3f"),
        Column("pmf1", "pmF1", ".3f"),
        Column("il_mcc", "IL_MCC", ".3f"),
        Column("f1", "F1", ".3f"),
        Column("pmf1_50", "pmF1@.50", ".3f"),
        Column("coco.ap", "COCO AP", ".3f"),
    ),
}
TITLES = {
    "depth": "Metric depth",
    "normals": "Surface normals",
    "semantic": "Semantic segmentation",
    "referring": "Referring segmentation",
    "instance": "Instance segmentation",
}
_ITEM_METRICS = {
    "depth": (("delta1", "δ1 {:.3f}"), ("abs_rel", "AbsRel {:.3f}")),
    "normals": (("mean_deg", "mean {:.1f}°"), ("median_deg", "median {:.1f}°")),
    "semantic": (("miou", "mIoU {:.3f}"),),
    "referring": (("iou", "IoU {:.3f}"),),
    "instance": (("f1", "F1 {:.3f}"), ("predicted", "{} drawn"), ("expected", "{} there")),
}
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
        task=TITLES[values["task"]],
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
    columns = COLUMNS[values["task"]]
    if values["task"] == "referring":
        columns = tuple(sorted(columns, key=lambda column: column.metric != values["headline"]))
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
    if values["task"] != "semantic":
        return []
    ious = values["rows"][0]["metrics"]["iou"]
    found = [{"name": name, "iou": iou} for name, iou in ious.items() if iou is not None]
    return sorted(found, key=lambda row: -row["iou"])


def _case(case: Case) -> dict[str, Any]:
    size = truth_size(case.truth)
    prediction = decode_answer(case.item, case.spec, case.answer, size)
    panels: list[tuple[str, UInt8Image]] = [] if case.image is None else [("input", case.image)]
    panels.append(("truth", _truth_picture(case.truth, case.item, case.spec)))
    panels.append(("generated", case.answer))
    panels.append(_error_panel(case.truth, prediction, case.item))
    words = [form.format(case.metrics[name]) for name, form in _ITEM_METRICS[case.spec["task"]]]
    return {
        "name": case.item.name,
        "prompt": case.item.prompt,
        "words": " · ".join(words),
        "panels": [{"name": name, "uri": data_uri(fit(picture, *_cell(picture)))} for name, picture in panels],
    }


def _cell(picture: UInt8Image) -> tuple[int, int]:
    """Return the width and height of a panel CELL pixels wide, at most 4:3 upright."""
    return CELL, min(round(CELL * picture.shape[0] / picture.shape[1]), CELL * 4 // 3)


def _truth_picture(truth: Truth, item: Item, spec: Mapping[str, Any]) -> UInt8Image:
    match truth:
        case DepthTruth():
            depth_m = np.where(truth.depth_m > 0, truth.depth_m, np.nan).astype(np.float32)
            return encode_depth(depth_m)
        case NormalsTruth():
            length = np.linalg.norm(truth.normals, axis=-1, keepdims=True)
            unit = np.divide(truth.normals, length, out=np.zeros(truth.normals.shape), where=length > 0)
            return encode_normals(unit.astype(np.float32))
        case SemanticTruth():
            picture = np.full((*truth.labels.shape, 3), spec["background"], np.uint8)
            for name, color in spec["legend"]:
                picture[truth.labels == item.classes.get(name, -2)] = color
            picture[~_is_class(truth, item)] = _UNKNOWN
            return picture
        case MaskTruth():
            picture = np.full((*truth.mask.shape, 3), spec["background"], np.uint8)
            picture[truth.mask] = spec["legend"][item.position][1]
            if truth.ignore is not None:
                picture[truth.ignore] = _UNKNOWN
            return picture
        case InstancesTruth():
            return ids_picture(_id_map(truth.annotators[0]))


def _is_class(truth: SemanticTruth, item: Item) -> NDArray[np.bool_]:
    return np.isin(truth.labels, list(item.classes.values()))


def _id_map(masks: NDArray[np.bool_]) -> NDArray[np.uint16]:
    ids = np.zeros(masks.shape[1:], np.uint16)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return ids


def _error_panel(truth: Truth, prediction: Any, item: Item) -> tuple[str, UInt8Image]:
    match truth:
        case DepthTruth():
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.abs(np.clip(prediction, 1e-3, 412.5) - truth.depth_m) / truth.depth_m
            known = np.isfinite(truth.depth_m) & (truth.depth_m > 0)
            known &= True if truth.valid is None else truth.valid
            return "relative error, white 0 to red 50 %", _heat(error / 0.5, known)
        case NormalsTruth():
            error = np.degrees(np.arccos(np.clip((prediction * truth.normals).sum(axis=-1), -1, 1)))
            known = truth.normals.any(axis=-1) & (True if truth.valid is None else truth.valid)
            return "angle, white 0° to red 60°", _heat(error / 60, known)
        case SemanticTruth():
            return "right (green), wrong (red)", _verdict(prediction == truth.labels, _is_class(truth, item))
        case MaskTruth():
            known = (prediction | truth.mask) & ~(np.zeros_like(truth.mask) if truth.ignore is None else truth.ignore)
            return "shared (green), not shared (red)", _verdict(prediction == truth.mask, known)
        case InstancesTruth():
            return "decoded instances", ids_picture(prediction.ids.astype(np.uint16))


def _heat(share: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> UInt8Image:
    """Draw 0 as white and 1 or more as dark red; what is not known light grey."""
    level = np.nan_to_num(np.clip(share, 0, 1), nan=1.0)[..., None]
    stops = np.array([[255, 255, 255], [253, 190, 110], [220, 60, 40], [110, 0, 20]], np.float64)
    position = level * (len(stops) - 1)
    low = np.minimum(position.astype(np.int64), len(stops) - 2)[..., 0]
    picture = stops[low] + (stops[low + 1] - stops[low]) * (position - low[..., None])
    picture[~known] = _UNKNOWN
    return np.rint(picture).astype(np.uint8)


def _verdict(right: NDArray[np.bool_], known: NDArray[np.bool_]) -> UInt8Image:
    picture = np.where(right[..., None], np.array(_RIGHT, np.uint8), np.array(_WRONG, np.uint8))
    picture[~known] = _UNKNOWN
    return picture
