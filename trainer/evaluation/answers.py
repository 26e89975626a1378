"""Generated pictures to predictions in the truth's size, and the blind guesses that stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.depth import DecodedDepth
from cavendish.encoders.codecs.instances import DecodedInstances
from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.encoders.tasks.specs import Segmentation, decode_example
from cavendish.encoders.voting import consensus_instances, vote_semantic
from cavendish.trainer.evaluation import baselines
from cavendish.trainer.evaluation.benchmarks.items import (
    Benchmark,
    DepthTruth,
    InstancesTruth,
    Item,
    MaskTruth,
    NormalsTruth,
    SemanticTruth,
    Truth,
)
from cavendish.trainer.evaluation.metrics.depth import valid_pixels
from cavendish.trainer.evaluation.tally import Instances

VOID = -1
BACKGROUND = "background"


def truth_size(truth: Truth) -> tuple[int, int]:
    """Return (height, width) of a truth."""
    match truth:
        case DepthTruth():
            shape = truth.depth_m.shape
        case NormalsTruth():
            shape = truth.normals.shape
        case SemanticTruth():
            shape = truth.labels.shape
        case MaskTruth():
            shape = truth.mask.shape
        case InstancesTruth():
            shape = truth.annotators[0].shape[1:]
    return shape[0], shape[1]


def resize_nearest(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize (H, W, ...) to `size` by the nearest pixel centre.

    Decoded depth resized this way has fewer wrong pixels than a resized picture: interpolated colours decode to depths
    that are nowhere near (measured: 0.89 % delta1 failures against 0.97 % bilinear RGB and 1.28 % bilinear depth).
    """
    if array.shape[:2] == size:
        return array
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, array.shape[:2])
    )
    return array[rows[:, None], columns[None, :]]


def decode_answer(item: Item, spec: Mapping[str, Any], rgb_u8: UInt8Image, size: tuple[int, int]) -> Any:
    """Decode a generated picture, then bring the prediction to the truth's size (never the other way round).

    Returns:
        depth: (H, W) metres; normals: (H, W, 3); semantic: (H, W) class ids, -1 void; referring: (H, W) bool;
        instance: `Instances`.
    """
    decoded = decode_example(spec, rgb_u8)
    match spec["task"]:
        case "depth":
            assert isinstance(decoded, DecodedDepth)
            return resize_nearest(decoded.depth_m, size)
        case "normals":
            assert isinstance(decoded, np.ndarray)
            return resize_nearest(decoded, size)
        case "semantic":
            assert isinstance(decoded, Segmentation)
            names = (*decoded.names, BACKGROUND)  # -1 takes the last entry
            table = np.array([item.classes.get(name, VOID) for name in names], np.int64)
            return resize_nearest(table[decoded.labels], size)
        case "referring":
            assert isinstance(decoded, Segmentation)
            return resize_nearest(decoded.labels == item.position, size)
        case "instance":
            assert isinstance(decoded, DecodedInstances)
            return Instances(resize_nearest(decoded.ids, size), decoded.confidence)
    raise InputError(f"{item.name}: no decoder for task {spec['task']!r}")


def merge_passes(task: str, passes: Sequence[Any]) -> Any:
    """Make one prediction of those of several passes over one picture, all as `decode_answer` returns them.

    Depth is the middle of each pixel (the lower of two), normals the mean direction; labels and masks are voted on, a
    tie going to the earliest pass; an instance counts when half of the passes found it.
    """
    if len(passes) == 1:
        return passes[0]
    match task:
        case "depth":
            return median_depth(passes)
        case "normals":
            return mean_normals(passes)
        case "instance":
            agreed = consensus_instances([one.ids for one in passes])
            return Instances(agreed.ids, agreed.support)
        case "referring":
            return vote_semantic([mask.astype(np.uint8) for mask in passes]).labels.astype(bool)
    return vote_semantic(passes).labels


def median_depth(passes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the middle of (H, W) depths at each pixel; of an even number the lower of the two."""
    middle: NDArray[Any] = np.sort(np.stack(passes), axis=0)[(len(passes) - 1) // 2]
    return middle


def mean_normals(passes: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return the mean direction of (H, W, 3) normals; (0, 0, 0) where they cancel."""
    if len(passes) == 1:
        return np.asarray(passes[0], np.float32)
    total = np.sum(passes, axis=0, dtype=np.float64)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    mean: NDArray[np.float64] = np.divide(total, length, out=np.zeros_like(total), where=length > 1e-6)
    return mean.astype(np.float32)


def fit_guesses(benchmark: Benchmark, truths: Iterable[Truth]) -> dict[str, NDArray[Any]]:
    """Fit the blind guesses of `baselines` on the truth of a whole set: name to (64, ...) vertical profile.

    Referring and instance guesses need no fit; their map is empty.
    """
    if benchmark.task == "depth":
        return baselines.depth_profiles(
            baselines.depth_row_medians(truth.depth_m, valid_pixels(truth.depth_m, benchmark.depth, truth.valid))
            for truth in truths
            if isinstance(truth, DepthTruth)
        )
    if benchmark.task == "normals":
        return baselines.normals_profiles(
            baselines.normals_row_sums(
                truth.normals, np.ones(truth.normals.shape[:2], bool) if truth.valid is None else truth.valid
            )
            for truth in truths
            if isinstance(truth, NormalsTruth)
        )
    if benchmark.task == "semantic":
        classes = tuple(benchmark.classes)
        counts = (baselines.class_row_counts(t.labels, classes) for t in truths if isinstance(t, SemanticTruth))
        return baselines.class_profiles(counts, classes)
    return {}


def guesses(benchmark: Benchmark, fitted: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> dict[str, Any]:
    """Return every blind guess as a prediction of `size`, by name."""
    if benchmark.task in ("referring", "instance"):
        masks = baselines.mask_guesses(size)
        if benchmark.task == "referring":
            return dict(masks)
        one = np.ones(1)
        return {name: Instances(mask.astype(np.uint8), one if mask.any() else one[:0]) for name, mask in masks.items()}
    return {name: baselines.spread_rows(profile, size) for name, profile in fitted.items()}
