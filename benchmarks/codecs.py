"""Speed, memory and accuracy of the codecs beside their closest public equivalents: one thread, 1 megapixel.

    python -m benchmarks.codecs

Each ratio is measured in one process and one run, the sides in turn, the best of several repeats each.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import cv2
import hilbertmap
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.cluster.vq import vq
from scipy.spatial import cKDTree
from sklearn.cluster import MeanShift
from sklearn.metrics import pairwise_distances_argmin
from threadpoolctl import threadpool_limits

from benchmarks.dead_leaves import DEGRADATIONS, dead_leaves, degrade, instance_colors, mean_f1
from cavendish.encoders.codecs.colors import nearest_color
from cavendish.encoders.codecs.depth import decode_depth, encode_depth
from cavendish.encoders.codecs.instances import decode_instances, encode_instances
from cavendish.encoders.codecs.normals import decode_normals, encode_normals
from cavendish.encoders.codecs.palettes import lattice
from cavendish.encoders.codecs.semantic import decode_semantic, encode_semantic

SIDE = 1024
SCENES = 6
F1_ROWS = ((8, "lattice"), (24, "lattice"), (22, "random"))


def best_seconds(calls: dict[str, Callable[[], object]], rounds: int = 5, round_s: float = 0.3) -> dict[str, float]:
    """Time calls in turn, each for at least `round_s` a round, and return the best of each, in processor seconds.

    Everything runs on one thread, so processor time is what a quiet machine would take; wall time would favour the
    short call on a busy one.
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            stop = time.process_time() + round_s
            while True:
                start = time.process_time()
                call()
                now = time.process_time()
                best[name] = min(best[name], now - start)
                if now > stop:
                    break
    return best


def peak_bytes_per_pixel(call: Callable[[], object]) -> float:
    """Return the highest memory a call holds at once, its result included."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / SIDE**2


def speed_table(title: str, ours: str, calls: dict[str, Callable[[], object]], memory: bool = False) -> Table:
    """Tabulate megapixels a second, and how many times faster `ours` is than each other call."""
    seconds = best_seconds(calls)
    table = Table(title=title, title_justify="left")
    columns = ["", "MP/s", f"{ours} is faster by", *(["peak bytes/pixel"] if memory else [])]
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for name, call in calls.items():
        ratio = "" if name == ours else f"{seconds[name] / seconds[ours]:.1f} x"
        row = [name, f"{SIDE**2 / seconds[name] / 1e6:.2f}", ratio]
        table.add_row(*row, *([f"{peak_bytes_per_pixel(call):.1f}"] if memory else []))
    return table


def depth_scene(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (1024, 1024) metres: a floor, boxes at 1 to 9 m, fine relief."""
    rows = np.linspace(9, 1, SIDE, dtype=np.float32)[:, None]
    depth_m = np.repeat(rows, SIDE, axis=1)
    ids = cv2.resize(dead_leaves(rng, 20), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    boxes = rng.uniform(1, 9, 21).astype(np.float32)
    depth_m = np.where(ids > 0, boxes[ids], depth_m)
    return depth_m + rng.normal(0, 0.01, depth_m.shape).astype(np.float32)


def hilbertmap_decode(rgb_u8: NDArray[np.uint8]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return hilbertmap.rgb_to_depth(rgb_u8 / 255.0)


def depth_tables(rng: np.random.Generator) -> list[Table]:
    depth_m = depth_scene(rng)
    picture = degrade(encode_depth(depth_m), "noise4", rng)
    encoders: dict[str, Callable[[], object]] = {
        "encode_depth": lambda: encode_depth(depth_m),
        "hilbertmap": lambda: np.rint(hilbertmap.depth_to_rgb(depth_m) * 255).astype(np.uint8),
    }
    decoders: dict[str, Callable[[], object]] = {
        "decode_depth": lambda: decode_depth(picture),
        "decode_depth(repair=True)": lambda: decode_depth(picture, repair=True),
        "hilbertmap": lambda: hilbertmap_decode(picture),
    }
    return [
        speed_table("Depth to colours (goal: 15 x)", "encode_depth", encoders, memory=True),
        speed_table("Colours to depth (goal: 100 x, under 40 bytes/pixel)", "decode_depth", decoders, memory=True),
    ]


def semantic_table(rng: np.random.Generator) -> Table:
    colors = lattice(19)
    legend = {f"class {i}": (int(c[0]), int(c[1]), int(c[2])) for i, c in enumerate(colors)}
    labels = cv2.resize(dead_leaves(rng, 18), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    picture = degrade(encode_semantic(labels, legend), "noise8", rng)
    values, palette = picture.reshape(-1, 3).astype(np.float32), colors.astype(np.float32)
    tree = cKDTree(palette)
    calls: dict[str, Callable[[], object]] = {
        "decode_semantic": lambda: decode_semantic(picture, legend),
        "scikit-learn pairwise_distances_argmin": lambda: pairwise_distances_argmin(values, palette),
        "scipy vq": lambda: vq(values, palette),
        "scipy cKDTree": lambda: tree.query(values),
    }
    return speed_table("Labels from a picture of 19 colours", "decode_semantic", calls)


def normals_table(rng: np.random.Generator) -> Table:
    normals = rng.normal(size=(SIDE, SIDE, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    picture = encode_normals(normals)

    def textbook() -> NDArray[np.float64]:
        vectors = picture / 127.5 - 1
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    calls: dict[str, Callable[[], object]] = {
        "decode_normals": lambda: decode_normals(picture),
        "encode_normals": lambda: encode_normals(normals),
        "numpy, as in a textbook": textbook,
    }
    return speed_table("Normals", "decode_normals", calls)


def mean_shift(rgb_u8: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Cluster the colours of 10,000 pixels by mean shift (bandwidth 28), then take the nearest centre for every pixel.

    Clusters of fewer than 0.3 % of the pixels are dropped: they are the blends on edges.
    """
    pixels = rgb_u8.reshape(-1, 3)
    chosen = pixels[np.random.default_rng(0).choice(len(pixels), 10_000, replace=False)].astype(float)
    fitted = MeanShift(bandwidth=28, bin_seeding=True, min_bin_freq=5, n_jobs=1).fit(chosen)
    large = np.bincount(fitted.labels_, minlength=len(fitted.cluster_centers_)) >= 30
    centers = fitted.cluster_centers_[large]
    colors = np.vstack([np.zeros(3), centers[np.linalg.norm(centers, axis=1) > 28]]).round().astype(np.uint8)
    return nearest_color(rgb_u8, colors)


def instances_table(rng: np.random.Generator) -> Table:
    ids = cv2.resize(dead_leaves(rng, 24), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    picture = degrade(encode_instances(ids, instance_colors(rng, 24, "lattice")), "jpeg90", rng)
    calls: dict[str, Callable[[], object]] = {
        "decode_instances": lambda: decode_instances(picture),
        'decode_instances(method="paper")': lambda: decode_instances(picture, method="paper"),
        "scikit-learn MeanShift": lambda: mean_shift(picture),
    }
    return speed_table("Instances from a picture of 24 ellipses, JPEG 90", "decode_instances", calls)


def f1_table() -> Table:
    """Tabulate F1 averaged over IoU .5:.95; "palette known" is the nearest of the true colours."""
    table = Table(title=f"Instance F1 on 256 x 256 dead leaves, {SCENES} scenes each", title_justify="left")
    for column in ("scene", "decoder", *DEGRADATIONS):
        table.add_column(column)
    for count, palette in F1_ROWS:
        totals: dict[str, list[float]] = {name: [] for name in ("palette known", "modes", "paper", "MeanShift")}
        for how in DEGRADATIONS:
            found: dict[str, list[float]] = {name: [] for name in totals}
            for seed in range(SCENES):
                rng = np.random.default_rng([seed, count])
                ids = dead_leaves(rng, count)
                colors = instance_colors(rng, count, palette)
                picture = degrade(encode_instances(ids, colors), how, rng)
                known = np.array([(0, 0, 0), *colors.values()], np.uint8)
                found["palette known"].append(mean_f1(nearest_color(picture, known), ids))
                found["modes"].append(mean_f1(decode_instances(picture), ids))
                found["paper"].append(mean_f1(decode_instances(picture, method="paper"), ids))
                found["MeanShift"].append(mean_f1(mean_shift(picture), ids))
            for name, values in found.items():
                totals[name].append(float(np.mean(values)))
        for name, row in totals.items():
            table.add_row(f"{count} {palette}", name, *(f"{value:.2f}" for value in row))
    return table


def main() -> None:
    """Print every table."""
    cv2.setNumThreads(1)
    console = Console(width=120)
    with threadpool_limits(1):
        rng = np.random.default_rng(0)
        for table in (*depth_tables(rng), semantic_table(rng), normals_table(rng), instances_table(rng), f1_table()):
            console.print(table)


if __name__ == "__main__":
    main()
