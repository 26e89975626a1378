"""The inverted index over the benchmark's features: which benchmark images share features with this picture?

Features are sorted into words (two levels of cluster centres in Hamming space). A posting is a feature's row in the
pack, 64 of its 256 bits, its direction and its octave. The number of words grows with the benchmark, so a list stays as
long as it is and a look-up costs almost the same for any number of images. Whole descriptors are read for few of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ARRAYS: Mapping[str, tuple[Any, tuple[int, ...]]] = {
    "branches": (np.uint8, (32,)),
    "branch_offsets": (np.int64, ()),
    "words": (np.uint8, (32,)),
    "word_offsets": (np.int64, ()),
    "posting_rows": (np.uint32, ()),
    "posting_bits": (np.uint64, ()),
    "posting_poses": (np.uint8, (2,)),
}
"""Branches hold words, words hold postings; offsets say which: [offsets[i], offsets[i + 1])."""

_LIST_LENGTH = 100
_LONGEST_LIST = 10 * _LIST_LENGTH  # such features (text, checks, noise) are everywhere and identify nothing
_TRAINED_PER_WORD = 20
_TRAINED_PER_BRANCH = 200
_ROUNDS = 4
_BRANCHES_PROBED = 2
_WORDS_PROBED = 2
MAX_BITS = 14
"""Of the 64 kept bits of two features that vote for each other, at most so many differ."""
_CHUNK = 2**18
_MASKS = [np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)]


@dataclass(frozen=True)
class Votes:
    """Matches of a picture's features with features of the pack.

    Args:
        feature, row: (N,) of the picture and of the pack.
        pose: (N, 2) uint8, direction and octave of the pack's.
        bits: (N,) how many of 64 bits differ.
    """

    feature: NDArray[np.int64]
    row: NDArray[np.int64]
    pose: NDArray[np.uint8]
    bits: NDArray[np.uint64]


def build_postings(
    descriptors: NDArray[np.uint8], poses: NDArray[np.uint8], rows: NDArray[np.uint32], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Build the inverted index.

    Args:
        descriptors, poses: all (N, 32) and (N, 2) of the pack, possibly memory-mapped.
        rows: (M,) the ones to index, ascending.
        seed: of the clustering.

    Returns:
        The arrays of `ARRAYS`.
    """
    rng = np.random.default_rng(seed)
    words_wanted = max(len(rows) // _LIST_LENGTH, 1)
    size = min(len(rows), words_wanted * _TRAINED_PER_WORD)
    sample = np.asarray(descriptors[np.sort(rng.choice(rows, size, replace=False))]) if size else _none()
    # a look-up compares with all branches and with the words of some: cheapest when these are as many
    wanted = round((_BRANCHES_PROBED * words_wanted) ** 0.5)
    some = np.sort(rng.choice(size, min(size, wanted * _TRAINED_PER_BRANCH), replace=False))
    branches = _cluster(sample[some], wanted, rng)
    home = _nearest(sample, branches, 1)[:, 0]
    parts = []
    for branch in range(len(branches)):
        members = sample[home == branch]
        count = max(round(words_wanted * len(members) / max(size, 1)), 1)
        parts.append(_cluster(members, count, rng) if len(members) else branches[branch : branch + 1])
    words = np.concatenate(parts)
    branch_offsets = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64)
    word = np.concatenate(
        [
            _word_of(np.asarray(descriptors[rows[start : start + _CHUNK]]), branches, branch_offsets, words, 1, 1)[:, 0]
            for start in range(0, len(rows), _CHUNK)
        ]
        or [np.zeros(0, np.int64)]
    ).astype(np.int32)
    order = np.argsort(word, kind="stable")
    rows, word = rows[order], word[order]
    bits = np.concatenate(
        [_bits(np.asarray(descriptors[rows[start : start + _CHUNK]])) for start in range(0, len(rows), _CHUNK)]
        or [np.zeros(0, np.uint64)]
    )
    return {
        "branches": branches,
        "branch_offsets": branch_offsets,
        "words": words,
        "word_offsets": np.searchsorted(word, np.arange(len(words) + 1)).astype(np.int64),
        "posting_rows": rows,
        "posting_bits": bits,
        "posting_poses": np.asarray(poses[rows]),
    }


def vote(arrays: Mapping[str, NDArray[Any]], descriptors: NDArray[np.uint8]) -> Votes:
    """Look up features: all postings in the words nearest to each whose 64 bits differ in at most `MAX_BITS`.

    Lists over `_LONGEST_LIST` are skipped.

    Args:
        arrays: of the pack.
        descriptors: (N, 32) uint8 of the picture.
    """
    postings = len(arrays["posting_rows"])
    if not len(descriptors) or not postings:
        return Votes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.uint8), np.zeros(0, np.uint64))
    # views without memmap's own indexing, which costs more than the look-up
    branches, branch_offsets, words, word_offsets, rows, bits, poses = (np.asarray(arrays[name]) for name in ARRAYS)
    words = _word_of(descriptors, branches, branch_offsets, words, _BRANCHES_PROBED, _WORDS_PROBED)
    feature = np.repeat(np.arange(len(descriptors)), words.shape[1])[words.reshape(-1) >= 0]
    wanted = words.reshape(-1)[words.reshape(-1) >= 0]
    start = word_offsets[wanted]
    length = word_offsets[wanted + 1] - start
    length[length > _LONGEST_LIST] = 0
    posting = np.repeat(start - np.cumsum(length) + length, length) + np.arange(int(length.sum()))
    distance = _popcount(np.repeat(_bits(descriptors)[feature], length) ^ bits[posting])
    near = np.flatnonzero(distance <= MAX_BITS)
    found = posting[near]
    return Votes(np.repeat(feature, length)[near], rows[found].astype(np.int64), poses[found], distance[near])


def _word_of(
    descriptors: NDArray[np.uint8],
    branches: NDArray[np.uint8],
    branch_offsets: NDArray[np.int64],
    words: NDArray[np.uint8],
    branches_probed: int,
    words_probed: int,
) -> NDArray[np.int64]:
    """Return the nearest words (N, words_probed) found in the nearest branches; -1 where there are fewer."""
    near_branches = _nearest(descriptors, branches, branches_probed)
    count, probed = near_branches.shape
    distance = np.full((count, probed, words_probed), 999, np.int32)
    found = np.full((count, probed, words_probed), -1, np.int64)
    flat = near_branches.reshape(-1)
    order = np.argsort(flat, kind="stable")
    bounds = np.flatnonzero(np.diff(flat[order], prepend=-1, append=len(branches)))
    for begin, end in pairwise(bounds):
        first, last = (int(edge) for edge in branch_offsets[flat[order[begin]] : flat[order[begin]] + 2])
        near = min(words_probed, last - first)
        feature, slot = np.divmod(order[begin:end], probed)
        values, local = cv2.batchDistance(
            descriptors[feature], words[first:last], cv2.CV_32S, normType=cv2.NORM_HAMMING, K=near
        )
        distance[feature, slot, :near], found[feature, slot, :near] = values, local + first
    best = np.argsort(distance.reshape(count, -1), axis=1, kind="stable")[:, :words_probed]
    return np.take_along_axis(found.reshape(count, -1), best, axis=1)


def _cluster(sample: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cluster descriptors: Lloyd's rounds in Hamming space, the centre of a cluster being the majority of each bit."""
    if not len(sample):
        return np.zeros((1, 32), np.uint8)
    centres = sample[np.sort(rng.choice(len(sample), min(max(count, 1), len(sample)), replace=False))]
    for _ in range(_ROUNDS if len(centres) > 1 else 0):
        home = _nearest(sample, centres, 1)[:, 0]
        order = np.argsort(home, kind="stable")
        present, starts, sizes = np.unique(home[order], return_index=True, return_counts=True)
        centres = centres.copy()
        for centre, start, size in zip(present, starts, sizes):
            ones = np.unpackbits(sample[order[start : start + size]], axis=1).sum(axis=0, dtype=np.int64)
            centres[centre] = np.packbits(ones * 2 > size)
    return centres


def _nearest(descriptors: NDArray[np.uint8], centres: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    if not len(descriptors):
        return np.zeros((0, 1), np.int64)
    _, found = cv2.batchDistance(
        descriptors, np.asarray(centres), cv2.CV_32S, normType=cv2.NORM_HAMMING, K=min(count, len(centres))
    )
    return found.astype(np.int64)


def _bits(descriptors: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 64 tests of each descriptor: ORB's training put the least correlated ones first."""
    return np.ascontiguousarray(descriptors[:, :8]).view("<u8")[:, 0]


def _popcount(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    pairs, fours, eights, ones = _MASKS
    words = words - ((words >> np.uint64(1)) & pairs)
    words = (words & fours) + ((words >> np.uint64(2)) & fours)
    words = (words + (words >> np.uint64(4))) & eights
    return (words * ones) >> np.uint64(56)


def _none() -> NDArray[np.uint8]:
    return np.zeros((0, 32), np.uint8)
