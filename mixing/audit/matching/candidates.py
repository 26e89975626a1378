"""From votes to matches: which benchmark images may be in a picture, and which features of the two belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.mixing.audit.benchmarks.image_pack import Pack
from cavendish.mixing.audit.matching.fingerprints import Features
from cavendish.mixing.audit.matching.postings import MAX_BITS, vote

_MAX_DISTANCE = 64
_GUIDED_DISTANCE = 80
_GUIDED_RADIUS = 0.04
_GUIDED_NEIGHBOURS = 3
_FEW_VOTES = 4
_ANGLE_TOLERANCE = 40.0
_OCTAVE_TOLERANCE = 3
_SHIFTS = 4
_POSES = 8 * 7
_STEP_DEGREES = 360 / 256


@dataclass(frozen=True)
class Candidate:
    """A benchmark image that shares features with a picture (with its mirror image when `mirrored`).

    `feature` and `row` (N,): which features of the picture and of the benchmark image voted for each other.
    """

    image: int
    mirrored: bool
    feature: NDArray[np.int64]
    row: NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Matched features: row i of `query` and of `benchmark` belong together.

    Args:
        query, benchmark: (N, 2) float32 x, y in 0..1 of the picture (mirrored, for a mirrored candidate) and the image.
        turn: (N,) float, degrees from the benchmark's feature to the picture's.
        octaves: (N,) int, octaves of scale from the benchmark's feature to the picture's.
        distance: (N,) int, differing bits of 256.
    """

    query: NDArray[np.float32]
    benchmark: NDArray[np.float32]
    turn: NDArray[np.float64]
    octaves: NDArray[np.int64]
    distance: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Matches:
        return Matches(
            self.query[chosen], self.benchmark[chosen], self.turn[chosen], self.octaves[chosen], self.distance[chosen]
        )


def candidates(pack: Pack, sides: tuple[Features, Features], count: int) -> list[Candidate]:
    """Find the benchmark images that share most features with a picture under one turn and change of scale, best first.

    Args:
        sides: features of the picture and of its mirror image.
        count: at most so many.

    Source: weak geometric consistency, Jegou et al. 2008.
    """
    votes = vote(pack.arrays, np.concatenate([side.descriptors for side in sides]))
    if not len(votes.row):
        return []
    own, both = len(sides[0].descriptors), len(sides[0].descriptors) + len(sides[1].descriptors)
    starts = np.asarray(pack.arrays["starts"])
    owner = 2 * (np.searchsorted(starts, votes.row, side="right") - 1) + (votes.feature >= own)
    pair = owner * both + votes.feature
    order = np.lexsort((votes.bits, pair))  # of an image's features the most similar one only
    order = order[np.flatnonzero(np.diff(pair[order], prepend=-1))]
    owner, feature, row = owner[order], votes.feature[order], votes.row[order]
    poses = np.concatenate([side.poses for side in sides])[feature].astype(int) - votes.pose[order]
    owners, slot = np.unique(owner, return_inverse=True)
    weight = MAX_BITS + 2.0 - votes.bits[order]
    best, shift = np.zeros(len(owners)), np.zeros(len(owners), np.int64)
    keys = [slot * _POSES + _pose_bin(poses, number) for number in range(_SHIFTS)]
    for number, key in enumerate(keys):
        peak = np.bincount(key, weight, len(owners) * _POSES).reshape(len(owners), _POSES)
        shift = np.where(peak.max(axis=1) > best, number * _POSES + peak.argmax(axis=1), shift)
        best = np.maximum(best, peak.max(axis=1))
    found = []
    for place in np.argsort(-best, kind="stable")[:count]:
        number, pose = divmod(int(shift[place]), _POSES)
        mine = np.flatnonzero(keys[number] == place * _POSES + pose)
        if len(mine) < _FEW_VOTES:
            continue
        which, mirrored = divmod(int(owners[place]), 2)
        found.append(Candidate(which, bool(mirrored), feature[mine] - own * mirrored, row[mine] - int(starts[which])))
    return found


def _pose_bin(poses: NDArray[Any], shift: int) -> NDArray[np.int64]:
    """Sort differences of direction and octave into bins of 45 degrees and 4 octaves, moved by half a bin or not."""
    turn = ((poses[:, 0] + 16 * (shift % 2)) % 256) // 32
    octave = (poses[:, 1] + 12 + 2 * (shift // 2)) // 4
    return octave * 8 + turn


def voted_matches(side: Features, stored: Features, candidate: Candidate) -> Matches:
    """Return the votes whose whole descriptors agree."""
    query, benchmark = side.descriptors[candidate.feature], stored.descriptors[candidate.row]
    distance = np.unpackbits(query ^ benchmark, axis=1).sum(axis=1)
    near = distance < _MAX_DISTANCE
    return _matches(side, stored, candidate.feature[near], candidate.row[near], distance[near])


def guided_matches(
    side: Features, stored: Features, affine: NDArray[np.float64], turn: float, octaves: float
) -> Matches:
    """Match all features again near where a first alignment takes them.

    Args:
        affine: (2, 3) benchmark to picture (mirrored, for a mirrored candidate), both 0..1.
        turn, octaves: of the first matches.
    """
    expected = stored.points @ affine[:, :2].T + affine[:, 2]
    seen = np.flatnonzero(((expected > -_GUIDED_RADIUS) & (expected < 1 + _GUIDED_RADIUS)).all(axis=1))
    if not len(seen):
        return _matches(side, stored, seen, seen, seen)
    low, high = expected[seen].min(axis=0) - _GUIDED_RADIUS, expected[seen].max(axis=0) + _GUIDED_RADIUS
    here = np.flatnonzero(((side.points >= low) & (side.points <= high)).all(axis=1))
    if not len(here):
        return _matches(side, stored, here, here, here)
    near = min(_GUIDED_NEIGHBOURS, len(here))
    distance, found = cv2.batchDistance(
        stored.descriptors[seen], side.descriptors[here], cv2.CV_32S, normType=cv2.NORM_HAMMING, K=near
    )
    row, feature, distance = np.repeat(seen, near), here[found.reshape(-1)], distance.reshape(-1)
    shown = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    radius = _GUIDED_RADIUS * min(max(shown, 0.3), 1.5)
    close = (np.abs(side.points[feature] - expected[row]) < radius).all(axis=1) & (distance < _GUIDED_DISTANCE)
    matches = _matches(side, stored, feature[close], row[close], distance[close])
    return matches[_agrees(matches, turn, octaves)]


def _matches(
    side: Features, stored: Features, feature: NDArray[np.intp], row: NDArray[np.intp], distance: NDArray[Any]
) -> Matches:
    mine, theirs = side.poses[feature].astype(int), stored.poses[row].astype(int)
    return Matches(
        side.points[feature],
        stored.points[row],
        (mine[:, 0] - theirs[:, 0]) * _STEP_DEGREES,
        mine[:, 1] - theirs[:, 1],
        distance.astype(np.int64),
    )


def _agrees(matches: Matches, turn: float, octaves: float) -> NDArray[np.bool_]:
    return (_angle(matches.turn - turn) < _ANGLE_TOLERANCE) & (np.abs(matches.octaves - octaves) <= _OCTAVE_TOLERANCE)


def _angle(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((difference + 180) % 360 - 180)
