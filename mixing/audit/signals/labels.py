"""Label leakage: the masks and depth of a record against a benchmark's, by compact fingerprints of the labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.depth import DecodedDepth
from cavendish.encoders.codecs.instances import DecodedInstances
from cavendish.encoders.tasks.registry import TASKS, decode_example
from cavendish.encoders.tasks.segmentation import Segmentation
from cavendish.mixing.audit.benchmarks.label_pack import UNKNOWN, LabelPack, pack_relief, similar_masks
from cavendish.mixing.audit.matching.label_prints import (
    DEPTH_SIDE,
    LABELS_ALGORITHM,
    MASK_SIDE,
    LabelKind,
    LabelPrint,
    complexity,
    print_depth,
    print_ids,
    print_masks,
    turned_back,
)
from cavendish.mixing.audit.matching.verify import dihedral_alignment
from cavendish.mixing.audit.signals.signal import DAMAGED, Finding, Planted, Record, ShardResults, Signal, strongest
from cavendish.mixing.images import decode_png16, decode_rgb
from cavendish.mixing.shards.sample_format import unpack_depth

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

LABEL_EDITS = ("as it is", "mirrored", "quarter turn", "other size")
_LABEL_TASKS = tuple(
    task.name for task in TASKS if task.kind == "vision" and {"depth_m", "instance_ids"} & {*task.fields}
)
_MIN_JOINT = 0.4

LONE_MASK_IOU = 0.95
LONE_COMPLEXITY = 1.6
DEPTH_LEAK = 0.92
DEPTH_REVIEW = 0.85
"""Of 1 584 telling masks and 311 depth maps of rendered scenes no two of different scenes come near: the best of 10
million pairs of masks, turns counted, has IoU 0.893, the best of 386 thousand pairs of depth correlation 0.752."""


class LabelSignal(Signal):
    """Compares a record's masks and depth with every benchmark's."""

    name = "labels"
    counters = ("labels", "plain")

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Name the packs of labels."""
        packs = [index.labels[1] for index in plan.indexes if index.labels is not None]
        return {"algorithm": LABELS_ALGORITHM, "labels": packs}

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Compare every mask map and depth map of a record."""
        packs = plan.label_packs
        if not packs:
            return
        try:
            labels = record_labels(record)
        except DAMAGED as error:
            results.fail(f"{record.key} (labels)", error)
            return
        for member, _, label in labels:
            results.counts["labels"] += 1
            results.counts["plain"] += label.relief is None and not len(label.masks)
            for pack in packs:
                for finding in compare_labels(label, pack):
                    results.add(record, member, hashlib.sha256(record.parts[member]).hexdigest(), finding)

    def can_plant(self, plan: ScanPlan, index: BenchmarkIndex) -> bool:
        """Any benchmark with labels."""
        return index.labels is not None

    def plant(self, plan: ScanPlan, index: BenchmarkIndex) -> list[Planted]:
        """Plant edited labels; see `plant_labels`."""
        return plant_labels(index.open_labels(), plan.config.controls.copies, plan.config.controls.seed)

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Count masks and depth maps."""
        if index.labels is None:
            return {"masks": 0, "depth_maps": 0, "labels_digest": None}
        pack = index.open_labels()
        masks, depth = len(pack.arrays["masks"]), len(pack.arrays["reliefs"])
        return {"masks": masks, "depth_maps": depth, "labels_digest": pack.digest}

    def unread(self, index: BenchmarkIndex) -> list[str]:
        """Label maps that could not be decoded."""
        return [] if index.labels is None else [item["reason"] for item in index.open_labels().header["unread"]]

    def not_cleared(self, plan: ScanPlan, index: BenchmarkIndex) -> list[str]:
        """Images whose labels have no fingerprint."""
        if index.labels is None:
            return []
        pack = index.open_labels()
        owners = np.concatenate([pack.arrays["mask_owners"], pack.arrays["relief_owners"]])
        mute = len(pack.images) - len(set(owners.tolist()))
        if not mute:
            return []
        return [f"Benchmark {index.name}: the labels of {mute} pictures are too plain or too common to tell."]


def compare_labels(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    """Compare one record's masks or depth with a benchmark's, in eight turns."""
    return _same_masks(one, pack) + _same_depth(one, pack)


def record_labels(record: Record) -> list[tuple[str, LabelKind, LabelPrint]]:
    """Fingerprint what a record says of its picture: (member, kind, fingerprint) of masks and depth.

    Raw records hold maps; an instruction's target is decoded by its own spec first; other tasks hold no such labels.

    Raises:
        InputError: a map or a spec is damaged.
    """
    key, parts = record.key, record.parts
    found: list[tuple[str, LabelKind, LabelPrint]] = []
    if "instances.png" in parts:
        ids = decode_png16(parts["instances.png"], f"{key}.instances.png", 1)
        found.append(("instances.png", "masks", print_ids(ids)))
    if "depth.png" in parts:
        depth_m = unpack_depth(decode_png16(parts["depth.png"], f"{key}.depth.png", 1))
        found.append(("depth.png", "depth", print_depth(depth_m)))
    if "instruction.json" in parts and "target.png" in parts:
        spec = json.loads(parts["instruction.json"]).get("spec")
        if isinstance(spec, dict) and spec.get("task") in _LABEL_TASKS:
            answer = decode_example(spec, decode_rgb(parts["target.png"], f"{key}.target.png"))
            if isinstance(answer, DecodedDepth):
                found.append(("target.png", "depth", print_depth(answer.depth_m)))
            elif isinstance(answer, Segmentation):
                found.append(("target.png", "masks", print_ids(answer.labels)))
            elif isinstance(answer, DecodedInstances):
                found.append(("target.png", "masks", print_ids(answer.ids)))
    return found


def _same_masks(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    pairs: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    for variant in range(8):
        for number, mask in enumerate(turned_back(one.masks, variant)):
            rows, ious = similar_masks(
                np.packbits(mask), int(mask.sum()), pack.arrays["masks"], pack.arrays["mask_areas"]
            )
            for row, iou in zip(rows.tolist(), ious.tolist()):
                pairs[int(pack.arrays["mask_owners"][row]), variant].append((iou, number, row))
    best: dict[int, Finding] = {}
    weights: dict[int, float] = {}  # of several turns the one in which most agrees
    held = Counter(np.asarray(pack.arrays["mask_owners"]).tolist()) if pairs else Counter()
    for (owner, variant), found in sorted(pairs.items()):
        paired = _one_to_one(found)
        weight = sum(paired.values())
        if weight <= weights.get(owner, 0.0):
            continue
        weights[owner] = weight
        certain = len(paired) > 1 or any(
            iou >= LONE_MASK_IOU and complexity(one.masks[number]) >= LONE_COMPLEXITY for number, iou in paired.items()
        )
        reason = (
            f"{len(paired)} of its {len(one.masks)} telling masks are among the benchmark picture's {held[owner]}"
            f"{_TURNS[variant]}: mean IoU {weight / len(paired):.3f}."
        )
        level = "leak" if certain else "review"
        value = round(weight / len(paired), 4)
        best[owner] = _finding(pack, owner, level, "masks", reason, value, variant, len(paired))
    return list(best.values())


def _one_to_one(found: Iterable[tuple[float, int, int]]) -> dict[int, float]:
    """Pair masks, the best first, each once; return the IoU by number of the record's mask."""
    used: set[int] = set()
    ious: dict[int, float] = {}
    for iou, number, row in sorted(found, key=lambda item: (-item[0], item[1], item[2])):
        if number not in ious and row not in used:
            ious[number] = iou
            used.add(row)
    return ious


def _same_depth(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    if one.relief is None or not len(pack.arrays["reliefs"]):
        return []
    theirs, theirs_known, theirs_squared = pack.relief_rows
    values = np.stack([turned_back(pack_relief(one), variant).reshape(-1) for variant in range(8)], axis=1)
    mine_known = (values != UNKNOWN).astype(np.float32)
    mine = np.where(values != UNKNOWN, values, 0).astype(np.float32)
    spread = np.sqrt((theirs_known @ mine**2) * (theirs_squared @ mine_known))
    joint = theirs_known @ mine_known / DEPTH_SIDE**2
    correlation = np.where(joint >= _MIN_JOINT, theirs @ mine / np.maximum(spread, 1e-6), 0)
    best: dict[int, Finding] = {}
    for row, variant in np.argwhere(correlation >= DEPTH_REVIEW).tolist():
        owner = int(pack.arrays["relief_owners"][row])
        value = round(float(correlation[row, variant]), 4)
        if owner in best and (best[owner].score or 0) >= value:
            continue
        reason = f"The relief of its depth is that of the benchmark's{_TURNS[variant]}: correlation {value:.3f}."
        level = "leak" if value >= DEPTH_LEAK else "review"
        best[owner] = _finding(pack, owner, level, "depth", reason, value, variant, None)
    return [best[owner] for owner in sorted(best)]


_TURNS = (
    "",
    ", upside down",
    ", mirrored",
    ", turned by half",
    ", transposed",
    ", turned by a quarter",
    ", turned by a quarter",
    ", transposed and turned",
)


def _finding(
    pack: LabelPack, owner: int, level: str, stage: str, reason: str, value: float, variant: int, count: int | None
) -> Finding:
    return Finding(
        benchmark=pack.name,
        image=pack.images[owner],
        level=level,
        kind="labels",
        stage=stage,
        reason=reason,
        score=value,
        agreeing=count,
        affine=tuple(float(number) for number in dihedral_alignment(variant).affine.reshape(-1)),
    )


def plant_labels(pack: LabelPack, copies: int, seed: int) -> list[Planted]:
    """Plant turned and resized copies of a benchmark's labels, as well as their fingerprints give them back.

    Returns:
        For each: image, kind, edit, found ("leak", "review" or None).
    """
    masks, reliefs = pack.arrays["masks"], pack.arrays["reliefs"]
    rows = [("masks", owner) for owner in sorted(set(np.asarray(pack.arrays["mask_owners"]).tolist()))]
    rows += [("depth", row) for row in range(len(reliefs))]
    rng = np.random.default_rng([seed, 5])
    results = []
    order = rng.permutation(len(rows)).tolist()
    for i in range(copies if rows else 0):
        (kind, row), edit = rows[order[i % len(order)]], LABEL_EDITS[i % len(LABEL_EDITS)]
        if kind == "masks":
            bits = np.asarray(masks[np.flatnonzero(pack.arrays["mask_owners"] == row)])
            grids = np.unpackbits(bits, axis=1).reshape(-1, MASK_SIDE, MASK_SIDE).astype(np.float32)
            owner, planted = row, print_masks(_edited_map(grid, edit) > 0.5 for grid in grids)
        else:
            relief = np.asarray(reliefs[row], np.float32)
            depth = np.where(relief > -128, np.exp(relief / 100), np.nan).astype(np.float32)
            owner, planted = int(pack.arrays["relief_owners"][row]), print_depth(_edited_map(depth, edit))
        levels = {one.level for one in compare_labels(planted, pack) if one.image == pack.images[owner]}
        results.append({"image": pack.images[owner], "kind": kind, "edit": edit, "found": strongest(levels)})
    return results


def _edited_map(values: NDArray[np.float32], edit: str) -> NDArray[np.float32]:
    if edit == "mirrored":
        return np.ascontiguousarray(values[:, ::-1])
    if edit == "quarter turn":
        return np.ascontiguousarray(np.rot90(values))
    if edit == "other size":
        size = (values.shape[1] * 5 // 2, values.shape[0] * 7 // 4)
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST))
    return values
