"""Loss curves as inline SVG for the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

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
