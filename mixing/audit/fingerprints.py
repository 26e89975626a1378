"""What the audit keeps of a picture: hashes of its bytes and pixels, PDQ, and local features spread over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.sample import UInt8Image
from mixing.audit.pdq import PdqHash, pdq_hash

ALGORITHM = "cavendish-fingerprint/1"
"""Changes whenever a fingerprint would: a pack made with another one is refused."""

WORKING_MAX_PX = 640
WORKING_MIN_PX = 320
CELLS = 8
FEATURES_PER_CELL = 12
QUERY_FEATURES_PER_CELL = 18
"""More on the mixture's side: there a benchmark image may be a small part of the picture."""

MIN_QUALITY = 50
"""PDQ's own bound: under it a picture has too little structure for its hash to mean much."""

_DETECTED = 4000
_COARSE_OCTAVE = 4
_FINE_SHARE = 2 / 3
_COORDINATE_STEPS = 65535


@dataclass(frozen=True)
class Features:
    """ORB features: `descriptors` (N, 32) uint8; `points` (N, 2) float32 x, y in 0..1 of the picture's sides."""

    descriptors: NDArray[np.uint8]
    points: NDArray[np.float32]


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


def local_features(gray: NDArray[np.uint8], per_cell: int) -> Features:
    """Find ORB features, at most so many in each of 8 x 8 cells, the strongest first, one third of them coarse.

    Taking the strongest of the whole picture instead lets overlaid text and screens take all of them: recall falls from
    0.94 to 0.53 under text and to 0.40 in screenshots. Without a share for coarse scales (under half the size), strong
    fine corners crowd them out: shrunken copies then score a third to a quarter as much.

    Source: Rublee et al. 2011 (OpenCV's ORB); the grid is ours.
    """
    height, width = gray.shape
    orb = cv2.ORB.create(nfeatures=_DETECTED, fastThreshold=10, edgeThreshold=19, patchSize=31)
    keypoints = orb.detect(gray, None)
    if not keypoints:
        return Features(np.zeros((0, 32), np.uint8), np.zeros((0, 2), np.float32))
    points = np.asarray(cv2.KeyPoint.convert(keypoints), np.float32)
    strength = np.array([keypoint.response for keypoint in keypoints])
    coarse = np.array([keypoint.octave for keypoint in keypoints]) >= _COARSE_OCTAVE
    cell = np.minimum((points * (CELLS / width, CELLS / height)).astype(int), CELLS - 1) @ (1, CELLS)
    bucket = 2 * cell + coarse
    order = np.lexsort((points[:, 0], points[:, 1], -strength, bucket))
    rank = np.arange(len(order)) - np.searchsorted(bucket[order], bucket[order], side="left")
    share = np.where(coarse[order], per_cell - round(per_cell * _FINE_SHARE), round(per_cell * _FINE_SHARE))
    chosen = order[rank < share]
    kept, descriptors = orb.compute(gray, [keypoints[i] for i in chosen])
    if descriptors is None:
        return Features(np.zeros((0, 32), np.uint8), np.zeros((0, 2), np.float32))
    relative = (np.asarray(cv2.KeyPoint.convert(kept), np.float32) + 0.5) / (width, height)
    return Features(descriptors, np.clip(relative, 0, 1).astype(np.float32))


def pack_points(points: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Quantise 0..1 coordinates to 16 bits: at most 0.005 px of a 640 px side."""
    return np.rint(points * _COORDINATE_STEPS).astype(np.uint16)


def unpack_points(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return 0..1 coordinates from `pack_points`."""
    return codes.astype(np.float32) / _COORDINATE_STEPS
