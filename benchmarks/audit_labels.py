"""Label leakage: which planted labels are found again, how near strangers come, and what it costs.

    python benchmarks/audit_labels.py --shards demo-output/raw/blender demo-output/raw/pyrender demo-output/raw/heldout

Needs directories of raw shards with instances and depth. Prints the best pairs of different scenes, recall of copies of
100 scenes, and the cost with 10 000 pictures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Sample
from cavendish.encoders.tasks.registry import make_example, tasks_of
from cavendish.mixing.audit.benchmarks.label_pack import LabelPack, build_label_pack
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_depth, print_ids, turned_back
from cavendish.mixing.audit.signals.labels import compare_labels, record_labels
from cavendish.mixing.audit.signals.signal import Record
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.shards.sample_format import record_parts

Maps = tuple[NDArray[Any], NDArray[Any]]
PLANTED = 100


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, nargs="+", required=True)
    samples = [sample for place in parser.parse_args().shards for sample in read_dataset(place)]
    scenes = [one for one in samples if isinstance(one, Sample) and one.depth_m is not None]
    masks = [print_ids(scene.instance_ids) for scene in scenes]
    depth = [print_depth(scene.depth_m) for scene in scenes]
    strangers(masks, depth)
    with tempfile.TemporaryDirectory() as folder:
        planted = list(zip(scenes, masks, depth))[:: max(len(scenes) // PLANTED, 1)][:PLANTED]
        maps = [(scene.key, one) for scene, *prints in planted for one in prints]
        pack = build_label_pack("scenes", maps, Path(folder), "benchmark")
        recall([scene for scene, *_ in planted], pack)
    cost(masks)


def strangers(masks: list[LabelPrint], depth: list[LabelPrint]) -> None:
    """Compare all pairs of different scenes, in eight turns."""
    owners = np.repeat(np.arange(len(masks)), [len(one.masks) for one in masks])
    rows = np.concatenate([one.masks for one in masks]).reshape(len(owners), -1).astype(np.float32)
    area, side = rows.sum(1), masks[0].masks.shape[1]
    best = pairs = 0.0
    for variant in range(8):
        turned = turned_back(rows.reshape(-1, side, side), variant).reshape(len(rows), -1)
        common = rows @ turned.T
        iou = common / (area[:, None] + area[None] - common)
        other = owners[:, None] != owners[None]
        best, pairs = max(best, float(iou[other].max())), pairs + other.sum() / 2
    print(f"{len(masks)} scenes, {len(rows)} telling masks, {sum(one.plain for one in masks)} plain ones")
    print(f"masks of different scenes: best IoU {best:.3f} of {pairs:.3g} pairs, turns counted")
    telling = [one for one in depth if one.relief is not None]
    relief, known = (np.stack([getattr(one, name) for one in telling]) for name in ("relief", "known"))
    a, a_known = relief.reshape(len(telling), -1), known.reshape(len(telling), -1).astype(np.float32)
    best, flat = 0.0, ~np.eye(len(telling), dtype=bool)
    for variant in range(8):
        b, b_known = (turned_back(x, variant).reshape(len(telling), -1) for x in (relief, known))
        spread = np.sqrt((a**2 @ b_known.T) * (a_known @ (b**2).T))
        best = max(best, float((a @ b.T / np.maximum(spread, 1e-6))[flat].max()))
    print(
        f"depth of different scenes: best correlation {best:.3f} of {flat.sum() * 4:.3g} pairs of {len(telling)} maps"
    )


def recall(scenes: list[Sample], pack: LabelPack) -> None:
    """Plant edited copies of each scene's labels, and count what is found."""
    rng = np.random.default_rng(0)

    def resized(x: float, y: float) -> Callable[[Sample], Maps]:
        def edit(scene: Sample) -> Maps:
            ids, depth = scene.instance_ids, scene.depth_m
            assert ids is not None
            assert depth is not None
            one, other = (cv2.resize(map_, None, fx=x, fy=y, interpolation=cv2.INTER_NEAREST) for map_ in (ids, depth))
            return one, other

        return edit

    edits: dict[str, Callable[[Any], Maps]] = {
        "as it is": lambda one: (one.instance_ids, one.depth_m),
        "mirrored": lambda one: (one.instance_ids[:, ::-1], one.depth_m[:, ::-1]),
        "turned by a quarter": lambda one: (np.rot90(one.instance_ids), np.rot90(one.depth_m)),
        **{f"resized to {factor}": resized(factor, factor) for factor in (0.5, 0.7, 1.7, 3.0)},
        "squeezed to 0.4": resized(0.4, 1.0),
        "10 % noise on depth": lambda one: (
            one.instance_ids,
            one.depth_m * np.exp(0.1 * rng.standard_normal(one.depth_m.shape)),
        ),
        "cropped by 4 %": lambda one: tuple(
            map_[len(map_) // 50 : -(len(map_) // 50), len(map_) // 50 : -(len(map_) // 50)]
            for map_ in (one.instance_ids, one.depth_m)
        ),
        "depth as 1 / (1 / d + 0.05)": lambda one: (one.instance_ids, 1 / (1 / one.depth_m + 0.05)),
    }
    print(f"\nof {len(scenes)} scenes: leak, review, nothing found, too plain to tell; wrong: another scene named")
    for name, edit in edits.items():
        tallies = {"masks": Counter[str](), "depth": Counter[str]()}
        for scene in scenes:
            ids, depth = edit(scene)
            _tally(tallies["masks"], scene, print_ids(ids), pack)
            _tally(tallies["depth"], scene, print_depth(depth), pack)
        print(f"{name:30} " + "; ".join(f"{kind} {dict(sorted(tally.items()))}" for kind, tally in tallies.items()))
    for task in ("depth", "semantic", "instance", "referring"):
        tally = Counter[str]()
        for scene in scenes:
            if task in tasks_of(scene):
                example = make_example(scene, task, np.random.default_rng(1))
                for _, _, one in record_labels(Record("key", record_parts(example))):
                    _tally(tally, scene, one, pack)
        print(f"target of task {task:15} {dict(sorted(tally.items()))}")


def _tally(tally: Counter[str], scene: Sample, one: LabelPrint, pack: LabelPack) -> None:
    found = compare_labels(one, pack)
    tally["wrong"] += sum(finding.image != scene.key for finding in found)
    mine = [finding.level for finding in found if finding.image == scene.key]
    tells = len(one.masks) or one.relief is not None
    tally[mine[0] if mine else "nothing" if tells else "plain"] += 1


def cost(masks: list[LabelPrint]) -> None:
    """Index 10 000 pictures of six masks and 5 000 depth maps; time the comparison of a record."""
    rng = np.random.default_rng(0)
    telling = [one for one in masks if len(one.masks) >= 6]
    side, blank = masks[0].masks.shape[1], masks[0].masks[:0]
    maps: list[tuple[str, LabelPrint]] = []
    for number in range(10_000):
        grids = telling[number % len(telling)].masks[:6]
        maps.append((f"m{number}", LabelPrint(np.roll(grids, tuple(rng.integers(-side // 2, side // 2, 2)), (1, 2)))))
    for number in range(5_000):
        relief = rng.standard_normal((32, 32)).astype(np.float32)
        maps.append((f"d{number}", LabelPrint(blank, relief, np.ones((32, 32), bool))))
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        pack = build_label_pack("many", maps, Path(folder), "benchmark")
        built_s = time.process_time() - began
        size = sum(array.nbytes for array in pack.arrays.values())
        compare_labels(maps[-1][1], pack)
        took = []
        for one in (replace(telling[0], masks=telling[0].masks[:6]), maps[-1][1]):
            began = time.process_time()
            for _ in range(10):
                compare_labels(one, pack)
            took.append((time.process_time() - began) * 100)
    print(
        f"\n{len(pack.arrays['masks'])} masks and 5000 depth maps: indexed in {built_s:.0f} CPU s, {size / 1e6:.0f} MB"
    )
    print(f"one record of six masks {took[0]:.1f} ms, one depth map {took[1]:.1f} ms")


if __name__ == "__main__":
    main()
