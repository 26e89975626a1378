"""The curves of a run as one page that needs nothing else: losses, shares and evaluations, drawn as SVG."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import TASK_NAMES, VISION_TASKS
from cavendish.mixing.storage.place import write_atomic

Line = list[tuple[float, float]]
WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 30
_COLORS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#b1820a", "#5f6b7a", "#d44c47")
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:32px auto;max-width:1200px;padding:0 20px;color:#1f2328}
h1{font-size:22px;margin:0}p{color:#59636e;margin:4px 0 20px}main{display:flex;flex-wrap:wrap;gap:28px 24px}
figure{margin:0}figcaption{font-weight:600;margin:0 0 4px 58px}svg{display:block}
text{font:12px system-ui,sans-serif;fill:#59636e}ul{list-style:none;margin:2px 0 0 58px;padding:0;max-width:500px}
li{display:inline-block;margin-right:16px;font-size:13px}
i{display:inline-block;width:14px;height:3px;margin:0 6px 3px 0;vertical-align:middle}"""


def write_curves(out: Path, planned: int, limit: float | None = None) -> Path:
    """Draw `out/loss.csv`, `out/ratios.csv` and, if there, `out/evaluation.csv` as `out/curves.html`.

    Args:
        planned: steps the run will have, for the heading.
        limit: of retention, drawn as a line.
    """
    losses = _lines(out / "loss.csv", "loss")
    mean = _mean_loss(out / "loss.csv")
    shares, asked = _lines(out / "ratios.csv", "share"), _lines(out / "ratios.csv", "asked")
    done = int(max((x for line in losses.values() for x, _ in line), default=0))
    figures = [_figure("Loss, all examples", {"mean": mean}, True), _figure("Loss by source and task", losses, True)]
    if shares:
        distance = {
            name: [(x, y - asked[name][k][1]) for k, (x, y) in enumerate(line)] for name, line in shares.items()
        }
        figures.append(_figure("Share of the examples so far", shares, False))
        figures.append(_figure("Share, less what was asked for", distance, False))
    if (out / "evaluation.csv").exists():
        figures += _evaluations(out / "evaluation.csv", limit)
    last = f"{mean[-1][1]:.4g}" if mean else "not known"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(out.name)}: curves</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(out.name)}</h1><p>step {done} of {planned}; last mean loss {last}</p>"
        f"<main>{''.join(figures)}</main></html>"
    )
    write_atomic(out / "curves.html", page.encode())
    return out / "curves.html"


@contextmanager
def _rows(path: Path) -> Iterator[list[dict[str, str]]]:
    """Read a table, and take what goes wrong with its rows for its damage."""
    try:
        with path.open(newline="") as file:
            yield list(csv.DictReader(file))
    except (ValueError, KeyError, TypeError, ArithmeticError, csv.Error) as error:
        raise InputError(f"{path}: damaged table of a run: {type(error).__name__} {error}") from None


def _lines(path: Path, column: str) -> dict[str, Line]:
    """Return the points (step, value) of each source and task."""
    lines: dict[str, Line] = {}
    with _rows(path) as rows:
        for row in rows:
            lines.setdefault(f"{row['source']} / {row['task']}", []).append((float(row["step"]), float(row[column])))
    return dict(sorted(lines.items()))


def _evaluations(path: Path, limit: float | None) -> list[str]:
    """Draw the headline of each set and task beside the best of the answers that need no learning, and retention."""
    from cavendish.trainer.evaluation.report.page import headline  # whoever has evaluations has its libraries too
    from cavendish.trainer.evaluation.tasks.task import find_evaluation

    lines: dict[tuple[str, str, str], dict[str, Line]] = {}
    with _rows(path) as rows:
        for row in rows:
            if row["set"] != "retention" and row["task"] not in VISION_TASKS:
                raise ValueError(f"no task {row['task']!r}")
            answers = lines.setdefault((row["set"], row["task"], row["metric"]), {})
            answers.setdefault(row["who"], []).append((float(row["step"]), float(row["value"])))
    figures: list[str] = []
    for name, task in dict.fromkeys((name, task) for name, task, _ in lines if name != "retention"):
        column = headline(task)
        answers = lines.get((name, task, column.metric), {})
        best = _best([line for who, line in answers.items() if who != "generator"], column.more_is_better)
        title = f"{name}: {find_evaluation(task).title.lower()}, {column.heading}"
        drawn = {"generator": answers.get("generator", []), "best trivial answer": best}
        figures.append(_figure(title, drawn, False, ("best trivial answer",)))
    ratios = {task: lines[key].get("generator", []) for task in TASK_NAMES
              if (key := ("retention", task, "loss_ratio")) in lines}  # fmt: skip
    if ratios:
        marks = {"base": 1.0} if limit is None else {"base": 1.0, "limit": limit}
        steps = [x for x, _ in next(iter(ratios.values()))]
        levels = {name: [(x, y) for x in steps] for name, y in marks.items()}
        figures.append(_figure("Retention: loss over that of the base", {**ratios, **levels}, False, tuple(marks)))
    psnr = lines.get(("retention", "edit", "psnr_db, all pixels"), {})
    others = tuple(who for who in psnr if who != "generator")
    return [*figures, _figure("Edits, PSNR in dB", psnr, False, others)]


def _best(lines: Sequence[Line], more_is_better: bool) -> Line:
    """Return the best value of all lines at each step."""
    values: dict[float, list[float]] = {}
    for line in lines:
        for x, y in line:
            values.setdefault(x, []).append(y)
    return [(x, max(ys) if more_is_better else min(ys)) for x, ys in values.items()]


def _mean_loss(path: Path) -> Line:
    sums: dict[float, list[float]] = {}
    with _rows(path) as rows:
        for row in rows:
            total = sums.setdefault(float(row["step"]), [0.0, 0.0])
            total[0] += float(row["loss"]) * int(row["examples"])
            total[1] += int(row["examples"])
        return [(step, loss / count) for step, (loss, count) in sums.items()]


def _figure(title: str, lines: Mapping[str, Line], log: bool, dashed: Sequence[str] = ()) -> str:
    lines = {name: [point for point in line if _is_drawable(*point)] for name, line in lines.items()}
    lines = {name: line for name, line in lines.items() if line}
    title = html.escape(title)
    points = [point for line in lines.values() for point in line if not log or point[1] > 0]
    if not points:
        return ""
    colors = {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(lines)}
    x_end = max(x for x, _ in points)
    values = [math.log10(y) if log else y for _, y in points]
    ticks = _log_ticks(min(values), max(values)) if log else _ticks(min(values), max(values))
    low, high = min([*values, *ticks]), max([*values, *ticks])

    def place(x: float, y: float) -> tuple[float, float]:
        across = x / (x_end or 1) * (WIDTH - _LEFT - _RIGHT)
        return _LEFT + across, HEIGHT - _BOTTOM - (y - low) / ((high - low) or 1) * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in ticks:
        x, y = place(0, tick)
        label = f"{10**tick if log else tick:.3g}"
        parts.append(f'<line x1="{x}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{x - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for step in _ticks(0, x_end):
        if step <= x_end:
            x, _ = place(step, low)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 9}" text-anchor="middle">{step:g}</text>')
    for name, line in lines.items():
        path = " ".join(
            "{:.1f},{:.1f}".format(*place(x, math.log10(y) if log else y)) for x, y in line if not log or y > 0
        )
        dash = ' stroke-dasharray="5 4"' if name in dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colors[name]}" stroke-width="1.6"{dash}/>')
    legend = "".join(f'<li><i style="background:{colors[name]}"></i>{html.escape(name)}</li>' for name in lines)
    drawn = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{title}</figcaption>{drawn}<ul>{legend}</ul></figure>"


def _is_drawable(x: float, y: float) -> bool:
    """Tell numbers from NaN, infinity, and what a run that went astray may log."""
    return 0 <= x < 1e15 and (y == 0 or 1e-30 < abs(y) < 1e30)


def _ticks(low: float, high: float) -> Sequence[float]:
    """Return about five round numbers around a range."""
    span = (high - low) or abs(high) or 1
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 5)
    return [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _log_ticks(low: float, high: float) -> Sequence[float]:
    """Return logarithms of round numbers around a range of logarithms."""
    marks = [math.log10(m) + e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    below = [mark for mark in marks if mark <= low][-1:]
    above = [mark for mark in marks if mark >= high][:1]
    return sorted({*below, *above, *(mark for mark in marks if low < mark < high)})
