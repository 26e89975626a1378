"""What the audit keeps of a picture: hashes of its bytes and pixels, PDQ, and local features spread over it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.matching.pdq import PdqHash, pdq_hash

ALGORITHM = "cavendish-fingerprint/2"
"""Changes whenever a fingerprint would: a pack made with another one is refused."""

WORKING_MAX_PX = 640
WORKING_MIN_PX = 320
CELLS = 16
FEATURES_PER_CELL = (3, 2, 2)
QUERY_FEATURES_PER_CELL = (3, 2, 2)
"""Fine, middle and coarse ones; more on the mixture's side: there a benchmark image may be a small part."""

MIN_QUALITY = 50
"""PDQ's own bound: under it a picture has too little structure for its hash to mean much."""

_DETECTED = 8000
_FAST_THRESHOLD = 5
_LEVELS = 10
_SCALE_STEP = 1.2
_BANDS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
_FIRST_CELLS = 8
_COORDINATE_STEPS = 65535
_ANGLE_STEPS = 256


@dataclass(frozen=True)
class Features:
    """ORB features of a grey picture, evenly spread whatever number of them, from the first, one takes.

    Args:
        descriptors: (N, 32) uint8.
        points: (N, 2) float32, x and y in 0..1 of the picture's sides.
        poses: (N, 2) uint8: the direction in 256 steps of a turn, and the octave (a scale of 1.2 each).
    """

    descriptors: NDArray[np.uint8]
    points: NDArray[np.float32]
    poses: NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprint:
    """All that the cascade asks of one picture of the mixture; `file_sha256` of its encoded bytes."""

    file_sha256: str
    pixel_sha256: str
    pdq: PdqHash
    width: int
    height: int


def fingerprint(image: UInt8Image, data: bytes) -> Fingerprint:
    """Hash a picture.

    Args:
        image: (H, W, 3) uint8 RGB, as decoded from `data` with its EXIF orientation applied.
        data: the encoded bytes.
    """
    return Fingerprint(
        file_sha256=hashlib.sha256(data).hexdigest(),
        pixel_sha256=pixel_sha256(image),
        pdq=pdq_hash(image),
        width=image.shape[1],
        height=image.shape[0],
    )


def pixel_sha256(image: UInt8Image) -> str:
    """Hash the decoded pixels with their shape, so that lossless re-encoding does not hide a copy."""
    height, width = image.shape[:2]
    return hashlib.sha256(f"{height}x{width}:".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def working_size(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) that features and pixel checks work at: the longer side 320 to 640 px."""
    longer = max(width, height)
    scale = min(max(longer, WORKING_MIN_PX), WORKING_MAX_PX) / longer
    return max(round(width * scale), 1), max(round(height * scale), 1)


def working_gray(image: UInt8Image) -> NDArray[np.uint8]:
    """Return the grey picture at its working size."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    size = working_size(width, height)
    if size == (width, height):
        return gray
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA if size[0] < width else cv2.INTER_CUBIC)


def local_features(gray: NDArray[np.uint8], per_cell: tuple[int, int, int]) -> Features:
    """Find ORB features, at most so many of each of three bands of scale in each of 16 x 16 cells.

    Taking the strongest of the whole picture instead lets overlaid text and screens take all of them: recall falls from
    0.94 to 0.53 under text and to 0.40 in screenshots. Without a share for coarse scales, strong fine corners crowd
    them out: shrunken copies then score a third to a quarter as much.

    Source: Rublee et al. 2011 (OpenCV's ORB); the grid and the bands are ours.
    """
    orb = _orb()
    keypoints = orb.detect(gray, None)
    chosen = [keypoints[i] for i in _spread(keypoints, gray.shape, per_cell)]
    return _described(orb, gray, chosen)


def mirrored_features(gray: NDArray[np.uint8], features: Features) -> Features:
    """Describe the same features as they look in the mirror image: ORB is invariant to turns, not to reflection.

    Returns:
        Features of the mirrored picture, its own coordinates; row i is the mirror image of row i of `features`.
    """
    height, width = gray.shape
    places = features.points * (width, height) - 0.5
    octaves = features.poses[:, 1]
    mirrored = [
        cv2.KeyPoint(
            width - 1 - float(x), float(y), 31 * _SCALE_STEP ** int(octave), (180 - angle) % 360, 0, int(octave)
        )
        for (x, y), angle, octave in zip(places, features.poses[:, 0] * (360 / _ANGLE_STEPS), octaves)
    ]
    return _described(_orb(), np.ascontiguousarray(gray[:, ::-1]), mirrored)


def _orb() -> cv2.ORB:
    return cv2.ORB.create(
        nfeatures=_DETECTED,
        scaleFactor=_SCALE_STEP,
        nlevels=_LEVELS,
        edgeThreshold=19,
        patchSize=31,
        fastThreshold=_FAST_THRESHOLD,
    )


def _spread(
    keypoints: Sequence[cv2.KeyPoint], shape: tuple[int, ...], per_cell: tuple[int, int, int]
) -> NDArray[np.intp]:
    """Choose keypoints from all cells and bands; first those that come first in a coarser grid."""
    if not keypoints:
        return np.zeros(0, np.intp)
    height, width = shape
    points = np.asarray(cv2.KeyPoint.convert(keypoints), np.float32)
    strength = np.array([keypoint.response for keypoint in keypoints])
    band = _BANDS[[keypoint.octave for keypoint in keypoints]]
    order = np.lexsort((points[:, 0], points[:, 1], -strength))
    rank = _rank_in(_cell(points, width, height, CELLS) * len(per_cell) + band, order)
    chosen = order[rank[order] < np.array(per_cell)[band[order]]]
    rank = _rank_in(_cell(points, width, height, _FIRST_CELLS) * len(per_cell) + band, chosen)
    turn = rank[chosen] / np.array(per_cell)[band[chosen]]
    return np.asarray(chosen[np.argsort(turn, kind="stable")])


def _cell(points: NDArray[np.float32], width: int, height: int, cells: int) -> NDArray[np.intp]:
    return np.minimum((points * (cells / width, cells / height)).astype(int), cells - 1) @ np.array((1, cells))


def _rank_in(bucket: NDArray[np.intp], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each of the ordered how many of its bucket come before it."""
    grouped = order[np.argsort(bucket[order], kind="stable")]
    rank = np.zeros(len(bucket), np.intp)
    rank[grouped] = np.arange(len(grouped)) - np.searchsorted(bucket[grouped], bucket[grouped], side="left")
    return rank


def _described(orb: cv2.ORB, gray: NDArray[np.uint8], keypoints: list[cv2.KeyPoint]) -> Features:
    height, width = gray.shape
    for number, keypoint in enumerate(keypoints):
        keypoint.class_id = number  # OpenCV sorts them by octave
    kept, descriptors = orb.compute(gray, keypoints)
    if descriptors is None:
        return Features(np.zeros((0, 32), np.uint8), np.zeros((0, 2), np.float32), np.zeros((0, 2), np.uint8))
    order = np.argsort([keypoint.class_id for keypoint in kept])
    points = (np.asarray(cv2.KeyPoint.convert(kept), np.float32) + 0.5) / (width, height)
    angles = np.rint(np.array([keypoint.angle for keypoint in kept]) * (_ANGLE_STEPS / 360)) % _ANGLE_STEPS
    poses = np.stack([angles, [keypoint.octave for keypoint in kept]], axis=1).astype(np.uint8)
    return Features(descriptors[order], np.clip(points, 0, 1).astype(np.float32)[order], poses[order])


def pack_points(points: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Quantise 0..1 coordinates to 16 bits: at most 0.005 px of a 640 px side."""
    return np.rint(points * _COORDINATE_STEPS).astype(np.uint16)


def unpack_points(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return 0..1 coordinates from `pack_points`."""
    return codes.astype(np.float32) / _COORDINATE_STEPS
