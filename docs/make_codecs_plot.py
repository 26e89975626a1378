"""Draw docs/images/depth-error.png and docs/images/cube-walk.png from the codecs themselves.

python docs/make_codecs_plot.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.depth import (
    CUBE_WALK,
    CUBE_WALK_FAR,
    CUBE_WALK_OUTDOOR,
    LAST_CODE,
    DepthCodec,
    code_depths,
    decode_depth,
    encode_depth,
)

IMAGES = Path(__file__).parent / "images"
CODECS = (
    (CUBE_WALK, "cube-walk/1 (λ −3, c 10/3)", "#1f77b4"),
    (CUBE_WALK_OUTDOOR, "outdoor preset (λ −2, c 10)", "#2ca02c"),
    (CUBE_WALK_FAR, "far preset (λ −4, c 120)", "#d62728"),
)


def code_positions(depth_m: NDArray[np.float64], codec: DepthCodec) -> NDArray[np.float64]:
    """Return where depths lie on the walk, 0 to 1785."""
    return LAST_CODE * (1 - (1 + depth_m / codec.scale_m) ** -codec.power)


def errors_by_step(depth_m: NDArray[np.float64], decoded_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return for each step of the walk its depth, and the worst and the mean error of the depths in it, in percent."""
    error = 100 * np.abs(decoded_m - depth_m) / depth_m
    starts = np.flatnonzero(np.diff(decoded_m, prepend=-1.0))[1:]  # the first step is cut by the range: leave it out
    sizes = np.diff(np.append(starts, len(error)))
    worst, total = np.maximum.reduceat(error, starts), np.add.reduceat(error, starts)
    return decoded_m[starts][:-1], worst[:-1], (total / sizes)[:-1]


def plot_errors(path: Path) -> None:
    """Draw worst and mean round-trip error against depth."""
    depth_m = np.geomspace(0.02, 330, 4_000_000)
    figure, axes = plt.subplots(figsize=(9, 5), dpi=150, layout="constrained")
    for codec, label, color in CODECS:
        decoded_m = decode_depth(encode_depth(depth_m, codec)[None], codec=codec).depth_m[0].astype(np.float64)
        centers, worst, mean = errors_by_step(depth_m, decoded_m)
        axes.plot(centers, worst, color=color, linewidth=1.8, label=f"{label}: worst")
        axes.plot(centers, mean, color=color, linewidth=1, linestyle=":", label="mean")
    truncated_m = code_depths()[np.floor(code_positions(depth_m, CUBE_WALK)).astype(int)]
    centers, worst, _ = errors_by_step(depth_m, truncated_m)
    axes.plot(
        centers, worst, color="#888888", linewidth=1, linestyle="--", label="cube-walk/1 cut off, not rounded: worst"
    )
    axes.axhline(1, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(0.05, 300), ylim=(0.015, 30))
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(
        [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20], ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]
    )
    axes.minorticks_off()
    axes.set_xlabel("depth, metres")
    axes.set_ylabel("error of encode then decode, % of depth")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path)
    plt.close(figure)


def plot_walk(path: Path) -> None:
    """Draw the walk as a strip, with the depths of its corners for each preset."""
    figure, axes = plt.subplots(figsize=(9, 1.9), dpi=150, layout="constrained")
    axes.imshow(encode_depth(code_depths()[None]).repeat(120, axis=0), aspect="auto", extent=(0, LAST_CODE, 0, 1))
    names = ("black", "red", "yellow", "green", "cyan", "blue", "magenta", "white")
    labels = []
    for index, name in enumerate(names):
        depths = [code_depths(codec)[255 * index] for codec, _, _ in CODECS]
        labels.append("\n".join([name, *("∞" if np.isinf(d) else f"{d:.3g} m" for d in depths)]))
    axes.set_xticks(255 * np.arange(8), labels, fontsize=8)
    axes.set_yticks([])
    axes.set_title("Corners of the walk: cube-walk/1, outdoor preset, far preset", fontsize=9)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    plot_errors(IMAGES / "depth-error.png")
    plot_walk(IMAGES / "cube-walk.png")
