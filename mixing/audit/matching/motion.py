"""Do points of an aligned pair move against one another? Edits move a whole picture smoothly; other views do not.

The benchmark image, laid over the mixture picture, is tracked into it point by point to a fraction of a pixel. What is
left of the shifts after one smooth field is noise in a copy, parallax in another view and movement in another frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_CELL_PX = 16
_PATCH_PX = 15
_MARGIN_PX = 17
_CONTRAST_PX = 27
_TONE_SIGMA = 6.0
_LEAST_CONTRAST = 4.0
_FEWEST = 12
_RETURN_PX, _LIKENESS = 0.4, 0.85
_PASSES, _SETTLED_PX = 3, 2.0
_NEIGHBOURS, _NEIGHBOUR_PX = 4, 70.0
_TOGETHER_PX, _NOISE_FACTOR, _GAIN = 0.6, 4.0, 0.03
_APART_PX, _EXPLAINED = 0.25, 0.5
_MANY_TOGETHER, _SHARE_TOGETHER = 12, 0.015
_MANY_APART, _SHARE_APART = 20, 0.2


@dataclass(frozen=True)
class Motion:
    """How many points could be tracked, and how many of them do not follow the smooth field.

    Args:
        tracked: points found again, and found back.
        together: off the field by over 0.6 px and four times the noise, like their neighbours, and more alike for it.
        apart: off the field by over 0.25 px, which explains over half of what the field leaves unlike.
    """

    tracked: int = 0
    together: int = 0
    apart: int = 0

    @property
    def found(self) -> bool:
        """Whether that is another view or another moment; docs/audit.md has the figures."""
        return self.together >= max(_MANY_TOGETHER, _SHARE_TOGETHER * self.tracked) or self.apart >= max(
            _MANY_APART, _SHARE_APART * self.tracked
        )


UNTRACKED = Motion()


@dataclass(frozen=True)
class _Tracks:
    points: NDArray[np.float32]
    shifts: NDArray[np.float32]
    patches: NDArray[np.float32]
    mixture: NDArray[np.float32]

    def likeness(self, shifts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Correlate the patches with the mixture picture at shifted places."""
        return np.asarray((self.patches * _patches(self.mixture, self.points + shifts)).sum(axis=1))


def measure_motion(mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]) -> Motion:
    """Track the benchmark image into the mixture picture.

    Args:
        mixture, benchmark: grey.
        matrix: (3, 3) benchmark to mixture pixels, right to a few pixels; a homography of the tracks corrects it.

    Source: Lucas and Kanade 1981, pyramids by Bouguet 2001, forward and backward; the tests on the shifts are ours.
    """
    best: _Tracks | None = None
    for _ in range(_PASSES):
        tracks = _track(mixture, benchmark, matrix)
        if tracks is None or (best is not None and len(tracks.points) <= len(best.points)):
            break
        best = tracks
        correction, _ = cv2.findHomography(tracks.points, tracks.points + tracks.shifts, cv2.RANSAC, 1.5)
        if correction is None or _largest_move(correction, mixture.shape) < _SETTLED_PX:
            break
        matrix = correction @ matrix
    return UNTRACKED if best is None else _against_one_another(best)


def _against_one_another(tracks: _Tracks) -> Motion:
    count = len(tracks.points)
    smooth = _smooth_field(tracks.points, tracks.shifts, mixture_shape=tracks.mixture.shape)
    off = tracks.shifts - smooth
    here = tracks.likeness(tracks.shifts)
    at_field, at_rest = tracks.likeness(smooth), tracks.likeness(np.zeros_like(smooth))
    distance, near = cKDTree(tracks.points).query(tracks.points, _NEIGHBOURS + 1)
    theirs = np.median(off[near[:, 1:]], axis=1)
    size, unlike = np.linalg.norm(off, axis=1), np.linalg.norm(off - theirs, axis=1)
    least = max(_TOGETHER_PX, _NOISE_FACTOR * float(np.median(unlike)))
    together = (size > least) & (np.linalg.norm(theirs, axis=1) > least) & (unlike < size / 2)
    together &= distance[:, -1] < _NEIGHBOUR_PX
    together &= here - at_rest > _GAIN
    explained = (here - at_field) / np.maximum(1 - at_field, 1e-3)
    apart = (size > _APART_PX) & (explained > _EXPLAINED)
    return Motion(count, int(together.sum()), int(apart.sum()))


def _track(mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]) -> _Tracks | None:
    """Track the best corner of every cell there and back; None when too few come back."""
    height, width = mixture.shape
    warped = cv2.warpPerspective(benchmark, matrix, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.full_like(benchmark, 255), matrix, (width, height), flags=cv2.INTER_NEAREST)
    around = np.ones((_MARGIN_PX, _MARGIN_PX), np.uint8)
    inside = cv2.erode(inside, around, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rows, columns = height // _CELL_PX, width // _CELL_PX
    if min(rows, columns) < 2 or not inside.any():
        return None
    expected = cv2.GaussianBlur(_in_tones_of(mixture, warped, inside > 0), (0, 0), 1.0)
    found = cv2.GaussianBlur(mixture.astype(np.float32), (0, 0), 1.0)
    corner = cv2.cornerMinEigenVal(expected, 5, 3)
    corner[inside == 0] = 0
    cells = corner[: rows * _CELL_PX, : columns * _CELL_PX].reshape(rows, _CELL_PX, columns, _CELL_PX)
    cells = cells.transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    place = cells.argmax(axis=1)
    y, x = np.divmod(np.arange(rows * columns), columns)
    points = np.stack([x * _CELL_PX + place % _CELL_PX, y * _CELL_PX + place // _CELL_PX], axis=1).astype(np.float32)
    points = points[cells.max(axis=1) > 0]
    (expected, spread), (found, spread_found) = _even_contrast(expected), _even_contrast(found)
    x, y = points.astype(int).T
    points = points[np.minimum(spread[y, x], spread_found[y, x]) > _LEAST_CONTRAST]
    if len(points) < _FEWEST:
        return None
    first, second = (np.clip(128 + 40 * side, 0, 255).astype(np.uint8) for side in (expected, found))
    there, seen = _follow(first, second, points)
    back, seen_back = _follow(second, first, there)
    tracks = _Tracks(points, there - points, _patches(expected, points), found)
    good = seen & seen_back & (np.linalg.norm(back - points, axis=1) < _RETURN_PX)
    good &= tracks.likeness(tracks.shifts) > _LIKENESS
    if good.sum() < _FEWEST:
        return None
    return _Tracks(points[good], tracks.shifts[good], tracks.patches[good], found)


def _follow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return where points (N, 2) of the first picture are in the second, and which were found."""
    window, stop = (_PATCH_PX, _PATCH_PX), (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 20, 0.03)
    found, seen, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points[:, None], np.zeros_like(points[:, None]), winSize=window, maxLevel=2, criteria=stop
    )
    return found[:, 0], seen[:, 0] > 0


def _in_tones_of(
    mixture: NDArray[np.uint8], warped: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Give each grey value the mean that the mixture picture has there, so that tones and negatives do not matter."""
    values = warped[inside]
    kernel = np.exp(-0.5 * (np.arange(-24, 25) / _TONE_SIGMA) ** 2)
    count = np.convolve(np.bincount(values, minlength=256), kernel, "same")
    total = np.convolve(np.bincount(values, mixture[inside].astype(float), minlength=256), kernel, "same")
    return (total / np.maximum(count, 1e-9)).astype(np.float32)[warped]


def _even_contrast(picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take away the local mean and divide by the local spread; return that spread too, in grey levels."""
    around = (_CONTRAST_PX, _CONTRAST_PX)
    high = picture - cv2.blur(picture, around)
    spread = np.sqrt(np.maximum(cv2.blur(high * high, around), 0))
    return np.asarray(high / np.maximum(spread, 1.0), np.float32), np.asarray(spread, np.float32)


def _patches(picture: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut (N, 225) patches around places, of mean 0 and norm 1."""
    half = _PATCH_PX // 2
    x, y = np.meshgrid(*[np.arange(-half, half + 1, dtype=np.float32)] * 2)
    columns, rows = (
        (places[:, axis, None] + offset.reshape(1, -1)).astype(np.float32) for axis, offset in enumerate((x, y))
    )
    cut = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cut -= cut.mean(axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-6), np.float32)


def _smooth_field(
    points: NDArray[np.float32], shifts: NDArray[np.float32], mixture_shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Fit a quadratic field (an affine one to few points) to most of the shifts."""
    x, y = (points / mixture_shape[::-1] * 2 - 1).T
    terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
    basis = np.stack(terms if len(x) >= 30 else terms[:3], axis=1)
    keep = np.ones(len(x), bool)
    for _ in range(6):
        field, *_ = np.linalg.lstsq(basis[keep], shifts[keep], rcond=None)
        left = np.linalg.norm(shifts - basis @ field, axis=1)
        keep = left <= max(2.5 * float(np.median(left)), 0.3)
        if keep.sum() < 2 * basis.shape[1]:
            break
    return np.asarray(basis @ field, np.float32)


def _largest_move(correction: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    height, width = shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)[:, None]
    return float(np.linalg.norm(cv2.perspectiveTransform(corners, correction) - corners, axis=2).max())
