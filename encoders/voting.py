"""Several passes over one picture become one answer: votes per pixel for labels, consensus for instances.

Asking again with other legend colours makes other mistakes; what most passes agree on is right more often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

MIN_SUPPORT = 0.5
"""Share of the passes that must have an instance."""

MIN_IOU = 0.5
"""Overlap from which two masks of different passes are the same instance."""


@dataclass(frozen=True)
class VotedLabels:
    """The label most passes gave each pixel.

    Args:
        labels: (H, W), of the passes' dtype.
        agreement: (H, W) float32, the winner's share of the votes, 1 when all passes agree.
    """

    labels: NDArray[Any]
    agreement: NDArray[np.float32]


@dataclass(frozen=True)
class InstanceConsensus:
    """The instances that enough passes found; per-instance entries are in the order of the ids 1..N, surest first.

    Args:
        ids: (H, W) uint16, 0 background.
        support: (N,) float32, the share of the passes that found the instance.
    """

    ids: NDArray[np.uint16]
    support: NDArray[np.float32]


def vote_semantic(passes: Sequence[NDArray[Any]]) -> VotedLabels:
    """Give every pixel the label with the most votes; a tie goes to the label of the earliest pass among the tied.

    Args:
        passes: (H, W) integer label maps with the same classes in the same order, whatever their legends' colors.

    Raises:
        InputError: no passes, or maps of different sizes.
    """
    best = np.full(_check_passes(passes), -1, np.float32)
    labels = passes[0].copy()
    for candidate in passes:
        votes = np.sum([candidate == counted for counted in passes], axis=0, dtype=np.float32)
        better = votes > best
        best[better] = votes[better]
        labels[better] = candidate[better]
    return VotedLabels(labels, best / np.float32(len(passes)))


def consensus_instances(passes: Sequence[NDArray[Any]]) -> InstanceConsensus:
    """Find the instances that at least half of the passes agree on.

    The instance whose matches in the other passes overlap best starts a group of one instance a pass; the group's mask
    is what at least half of its members cover. Members are then used up, and the next group starts. Pixels that two
    masks claim go to the surer one.

    Args:
        passes: (H, W) unsigned id maps, 0 background; ids need not agree between passes.

    Raises:
        InputError: no passes, or maps of different sizes.
    """
    shape = _check_passes(passes)
    maps = [np.unique(ids, return_inverse=True) for ids in passes]
    flat = [_renumber(values, inverse.reshape(-1)) for values, inverse in maps]
    counts = [int(ids.max(initial=0)) for ids in flat]
    iou = _cross_iou(flat, counts)
    owner = np.repeat(np.arange(len(passes)), counts)
    member_id = np.concatenate([np.arange(1, count + 1) for count in counts])
    free = np.ones(len(owner), bool)
    found: list[tuple[float, float, NDArray[np.intp]]] = []
    while free.any():
        members = _best_group(iou, owner, free, len(passes))
        free[members] = False
        support = len(members) / len(passes)
        if support >= MIN_SUPPORT:
            cover = np.zeros(flat[0].size, np.uint16)
            for member in members:
                cover += flat[owner[member]] == member_id[member]
            pixels = np.flatnonzero(2 * cover >= len(members))
            overlaps = [_iou_with(pixels, flat[owner[m]], int(member_id[m])) for m in members]
            found.append((support, float(np.mean(overlaps)), pixels))
    found.sort(key=lambda entry: (-entry[0], -entry[1], entry[2][0]))
    ids = np.zeros(flat[0].size, np.uint16)
    support_of: list[float] = []
    for support, _, pixels in found:
        unclaimed = pixels[ids[pixels] == 0]
        if len(unclaimed):
            support_of.append(support)
            ids[unclaimed] = len(support_of)
    return InstanceConsensus(ids.reshape(shape), np.array(support_of, np.float32))


def _check_passes(passes: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    if not passes:
        raise InputError("no passes to vote on")
    if any(one.dtype.kind not in "iu" for one in passes):
        raise InputError(f"passes are {', '.join(sorted({str(one.dtype) for one in passes}))}: give integer maps")
    if any(one.shape != passes[0].shape for one in passes):
        raise InputError(f"passes have different sizes: {sorted({one.shape for one in passes})}")
    return passes[0].shape


def _renumber(values: NDArray[Any], inverse: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return ids 0 (background) and 1..N without gaps."""
    return inverse if values.size and values[0] == 0 else inverse + 1


def _cross_iou(flat: Sequence[NDArray[np.intp]], counts: Sequence[int]) -> NDArray[np.float64]:
    """Return the (M, M) IoU of all instances of all passes; 0 within a pass."""
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    areas = [np.bincount(ids, minlength=count + 1)[1:] for ids, count in zip(flat, counts)]
    iou = np.zeros((starts[-1], starts[-1]))
    for i in range(len(flat)):
        for j in range(i + 1, len(flat)):
            joint = np.bincount(flat[i] * (counts[j] + 1) + flat[j], minlength=(counts[i] + 1) * (counts[j] + 1))
            shared = joint.reshape(counts[i] + 1, counts[j] + 1)[1:, 1:]
            overlap = shared / (areas[i][:, None] + areas[j] - shared)
            iou[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = overlap
            iou[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = overlap.T
    return iou


def _best_group(
    iou: NDArray[np.float64], owner: NDArray[np.intp], free: NDArray[np.bool_], passes: int
) -> NDArray[np.intp]:
    """Return the free instance with the best matches in the other passes, and those matches, at most one a pass."""
    usable = np.where((iou >= MIN_IOU) & free & free[:, None], iou, 0)
    best = np.zeros((len(owner), passes))
    for index in range(passes):
        columns = usable[:, owner == index]
        best[:, index] = columns.max(axis=1) if columns.shape[1] else 0
    seed = int(np.where(free, best.sum(axis=1), -1).argmax())
    members = [seed]
    for index in range(passes):
        if best[seed, index] > 0:
            members.append(int(np.where(owner == index, usable[seed], -1).argmax()))
    return np.array(members)


def _iou_with(pixels: NDArray[np.intp], ids: NDArray[np.intp], number: int) -> float:
    shared = int((ids[pixels] == number).sum())
    return shared / (len(pixels) + int((ids == number).sum()) - shared)
