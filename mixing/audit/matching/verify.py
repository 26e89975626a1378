"""Is this pair the same picture? RANSAC affine from matched features, then a check of the pixels block by block."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.mixing.audit.matching.candidates import Candidate, Matches, guided_matches, voted_matches
from cavendish.mixing.audit.matching.fingerprints import Features
from cavendish.mixing.audit.matching.motion import UNTRACKED, Motion, measure_motion
from cavendish.mixing.audit.matching.pdq import DIHEDRAL

BLOCK_PX = 16
_REPROJECTION_PX = 5.0
_INLIERS = 5
_MANY_INLIERS = 40
_PERSPECTIVE_INLIERS, _PERSPECTIVE_GAIN = 12, 1.2
_MAX_SCALE, _MIN_SCALE, _MAX_ANISOTROPY = 8.0, 0.08, 2.2
_TEXTURE_STD = 3.0
_AGREE_ZNCC = 0.6
FULL_EVIDENCE_BLOCKS = 16
_SEARCH_PX = 20
_SEARCHED_AGREEING, _SEARCHED_OTHER = 40, 80
_FOUND_ZNCC, _DISTINCT_ZNCC = 0.85, 0.85
_NEARLY_ALL, _MANY_TRACKED = 0.88, 160  # where nearly all blocks agree, only many points prove movement
_DISPLACED = 5
_PARALLAX_PX, _CLEAR_GAIN = 1.5, 0.1
_FEWEST_SHIFTS = 10
_CORRECTED_BELOW, _CORRECTIONS = 0.8, 3
_REFINED_BELOW, _FEWEST_AGREEING = 0.5, 8
_LEVELS = 3


@dataclass(frozen=True)
class Alignment:
    """How a benchmark image lies in a picture of the mixture.

    Args:
        affine: (2, 3) float64, benchmark to mixture coordinates, both 0..1 of the sides (its determinant is negative
            for a mirrored copy).
        inliers: how many matches fit.
        lines: (N, 4) the inlier matches: mixture x, y, benchmark x, y.
        homography: (3, 3) float64 in the same coordinates, where a perspective fits clearly more matches.
    """

    affine: NDArray[np.float64]
    inliers: int
    lines: NDArray[np.float32]
    homography: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PixelCheck:
    """Blocks with texture, how many of them agree (|ZNCC| > `_AGREE_ZNCC`), how many are displaced as by no edit.

    `matrix` (3, 3) is the map from the benchmark's to the mixture's pixels under which they were compared; `images` are
    the two as they were compared, with the map between those.
    """

    textured: int
    agreeing: int
    displaced: int
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    images: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]] | None = None

    @property
    def share(self) -> float:
        """The share of textured blocks that agree."""
        return self.agreeing / self.textured if self.textured else 0.0

    @cached_property
    def motion(self) -> Motion:
        """What tracked points do, where enough blocks agree to speak of a copy; measured when it is asked for."""
        if self.agreeing < FULL_EVIDENCE_BLOCKS or self.images is None:
            return UNTRACKED
        return measure_motion(*self.images)


def align(
    candidate: Candidate,
    side: Features,
    stored: Features,
    mixture_px: tuple[int, int],
    benchmark_px: tuple[int, int],
) -> Alignment | None:
    """Fit an affine map to the votes, match again where it says, fit again; None when no copy could lie like that.

    Args:
        candidate: the benchmark image and the votes for it.
        side, stored: all features of the picture (of its mirror image for a mirrored candidate) and of the image.
        mixture_px, benchmark_px: (width, height) of the working pictures.

    Bounds: scales `_MIN_SCALE` to `_MAX_SCALE`, anisotropy up to `_MAX_ANISOTROPY`, no reflection (a mirrored candidate
    has its own features), at least `_INLIERS` one-to-one inliers within `_REPROJECTION_PX`.
    """
    voted = voted_matches(side, stored, candidate)
    first = _fit(voted, mixture_px, benchmark_px, _INLIERS)
    if first is None:
        return None
    turns = np.exp(1j * np.radians(voted.turn[first[1]]))
    turn = float(np.degrees(np.angle(turns.sum())))
    octaves = float(np.median(voted.octaves[first[1]]))
    unit = _to_unit(first[0], mixture_px, benchmark_px)
    fitted = None
    for _ in range(2):
        matches = guided_matches(side, stored, unit, turn, octaves)
        fitted = _fit(matches, mixture_px, benchmark_px, _INLIERS)
        if fitted is None:
            return None
        unit = _to_unit(fitted[0], mixture_px, benchmark_px)
        if len(fitted[1]) >= _MANY_INLIERS:
            break
    assert fitted is not None
    rows = fitted[1]
    homography, more = _perspective(matches, len(rows), mixture_px, benchmark_px)
    rows = rows if homography is None else more
    query = matches.query[rows].copy()
    if candidate.mirrored:
        mirror = np.array([[-1.0, 0, 1], [0, 1, 0]])
        unit = _compose(mirror, unit)
        homography = None if homography is None else np.vstack([mirror, (0, 0, 1)]) @ homography
        query[:, 0] = 1 - query[:, 0]
    return Alignment(unit, len(rows), np.concatenate([query, matches.benchmark[rows]], axis=1), homography)


def _perspective(
    matches: Matches, inliers: int, mixture_px: tuple[int, int], benchmark_px: tuple[int, int]
) -> tuple[NDArray[np.float64] | None, NDArray[np.intp]]:
    """Fit a homography; None unless it fits `_PERSPECTIVE_GAIN` times the affine inliers, without bending much."""
    nothing = np.zeros(0, np.intp)
    source = matches.benchmark * np.array(benchmark_px, np.float32)
    target = matches.query * np.array(mixture_px, np.float32)
    if inliers < _PERSPECTIVE_INLIERS:
        return None, nothing
    found, inside = cv2.findHomography(source, target, cv2.RANSAC, _REPROJECTION_PX, maxIters=1000, confidence=0.995)
    if found is None:
        return None, nothing
    rows = _one_to_one(np.flatnonzero(inside.ravel()), source, target)
    unit = np.diag([1 / mixture_px[0], 1 / mixture_px[1], 1]) @ found @ np.diag([benchmark_px[0], benchmark_px[1], 1])
    depth = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]) @ unit[2]
    if len(rows) < _PERSPECTIVE_GAIN * inliers or depth.min() <= 0 or depth.max() > 2 * depth.min():
        return None, nothing
    return unit, rows


def _fit(
    matches: Matches, mixture_px: tuple[int, int], benchmark_px: tuple[int, int], least: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]] | None:
    """Fit an affine map in pixels by RANSAC; return it and its inliers, one to one."""
    source = matches.benchmark * np.array(benchmark_px, np.float32)
    target = matches.query * np.array(mixture_px, np.float32)
    if len(source) < least:
        return None
    affine, inside = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION_PX, maxIters=1000, confidence=0.995
    )
    if affine is None or not _is_plausible(affine):
        return None
    rows = _one_to_one(np.flatnonzero(inside.ravel()), source, target)
    return None if len(rows) < least else (affine, rows)


def _one_to_one(rows: NDArray[np.intp], source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.intp]:
    """Drop matches whose ends coincide (within 2 px) with another's: octaves find the same corner again."""
    for points in (source, target):
        _, once = np.unique(np.round(points[rows] / 2).astype(int), axis=0, return_index=True)
        rows = rows[np.sort(once)]
    return rows


def dihedral_alignment(variant: int) -> Alignment:
    """Return the alignment that variant `variant` of a PDQ hash stands for."""
    transpose, flip_x, flip_y = DIHEDRAL[variant]
    affine = np.array([[-1.0 if flip_x else 1.0, 0, flip_x], [0, -1.0 if flip_y else 1.0, flip_y]])
    return Alignment(affine[::-1] if transpose else affine, 0, np.zeros((0, 4), np.float32))


def corners(alignment: Alignment) -> NDArray[np.float64]:
    """Return the benchmark image's four corners (4, 2) in the mixture picture, in 0..1."""
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    return square @ alignment.affine[:, :2].T + alignment.affine[:, 2]


def covered_shares(alignment: Alignment) -> tuple[float, float]:
    """Return the share of the mixture picture that is covered, and the share of the benchmark image to be seen."""
    quad = corners(alignment).astype(np.float32)
    frame = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    common, _ = cv2.intersectConvexConvex(quad, frame)
    area = abs(float(np.linalg.det(alignment.affine[:, :2])))
    return min(float(common), 1.0), min(float(common) / area, 1.0) if area > 0 else 0.0


def check_pixels(mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], alignment: Alignment) -> PixelCheck:
    """Compare two grey working images under an alignment, in blocks of `BLOCK_PX` at the coarser one's resolution.

    Where fewer than `FULL_EVIDENCE_BLOCKS` have texture, at half and a quarter of it too: smooth images have structure
    only there.
    """
    unit = _as_matrix(alignment)
    scale = float(np.sqrt(abs(np.linalg.det(_to_pixels(unit, mixture, benchmark)[:2, :2]))))
    best, aligned = PixelCheck(0, 0, 0), None
    for level in range(_LEVELS):
        a = _shrink(mixture, 0.5**level * min(1 / scale, 1))
        b = _shrink(benchmark, 0.5**level * min(scale, 1))
        matrix = _to_pixels(unit, a, b)
        check, correction = _check_at(a, b, matrix)
        for _ in range(_CORRECTIONS):
            if check.share >= _CORRECTED_BELOW or correction is None:
                break
            again, further = _check_at(a, b, correction @ matrix)
            if again.agreeing <= check.agreeing or again.share < check.share:
                break
            check, matrix, correction = again, correction @ matrix, further
        if check.agreeing >= _FEWEST_AGREEING and check.share < _REFINED_BELOW:
            refined = _refined(a, b, matrix)
            again, _ = _check_at(a, b, refined)
            if again.agreeing > check.agreeing:
                check, matrix = again, refined
        if check.agreeing > best.agreeing or level == 0:
            best, aligned = check, (a, b, matrix)
        if check.textured >= FULL_EVIDENCE_BLOCKS:
            break
    assert aligned is not None
    a, b, matrix = aligned
    whole = (
        _pixel_grid(mixture)
        @ np.linalg.inv(_pixel_grid(a))
        @ matrix
        @ _pixel_grid(b)
        @ np.linalg.inv(_pixel_grid(benchmark))
    )
    return replace(best, matrix=whole, images=aligned)


def _refined(
    mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Refine an affine map of pixels by all of them.

    Source: enhanced correlation coefficient, Evangelidis and Psarakis 2008.
    """
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 40, 1e-4)
    found = (matrix[:2] / matrix[2, 2]).astype(np.float32)
    try:
        for blur_px in (15, 5):  # a rough map first: finer detail has optima of its own
            _, found = cv2.findTransformECC(benchmark, mixture, found, cv2.MOTION_AFFINE, stop, None, blur_px)
    except cv2.error:  # it does not converge
        return matrix
    return np.vstack([found, (0, 0, 1)]).astype(np.float64)


def _check_at(
    mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> tuple[PixelCheck, NDArray[np.float64] | None]:
    """Compare under a map of pixels; return also the affine correction (3, 3) that the blocks found nearby ask for."""
    height, width = mixture.shape
    warped = cv2.warpPerspective(benchmark, matrix, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.full_like(benchmark, 255), matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    expected = cv2.GaussianBlur(warped.astype(np.float32), (0, 0), 1.0)
    found = cv2.GaussianBlur(mixture.astype(np.float32), (0, 0), 1.0)
    a, b = _blocks(expected), _blocks(found)
    whole = _blocks(inside).all(axis=-1)
    a, b = a - (a @ _PLANE.T) @ _PLANE, b - (b @ _PLANE.T) @ _PLANE
    std_a, std_b = a.std(axis=-1), b.std(axis=-1)
    textured = whole & (std_a > _TEXTURE_STD)
    zncc = (a * b).mean(axis=-1) / np.maximum(std_a * std_b, 1e-6)
    zncc[std_b < 0.5] = 0
    agreeing = textured & (np.abs(zncc) > _AGREE_ZNCC)
    blocks = _find_blocks(expected, found, textured & agreeing, textured & ~agreeing)
    check = PixelCheck(int(textured.sum()), int(agreeing.sum()), _displaced(blocks, width, height))
    return check, _affine_of(blocks)


def _affine_of(blocks: list[_Block]) -> NDArray[np.float64] | None:
    if len(blocks) < _FEWEST_SHIFTS:
        return None
    places, shifts = (np.array([getattr(block, name) for block in blocks], np.float64) for name in ("place", "shift"))
    affine, _ = cv2.estimateAffine2D(places, places + shifts, method=cv2.RANSAC, ransacReprojThreshold=1.5)
    return None if affine is None else np.vstack([affine, (0, 0, 1)])


def _plane_basis() -> NDArray[np.float32]:
    """Return an orthonormal basis (3, 256) of the planes over a block: smooth gradients agree anywhere."""
    ramp = np.arange(BLOCK_PX) - (BLOCK_PX - 1) / 2
    planes = np.stack([np.ones((BLOCK_PX, BLOCK_PX)), np.tile(ramp, (BLOCK_PX, 1)), np.tile(ramp[:, None], BLOCK_PX)])
    flat = planes.reshape(3, -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True), np.float32)


_PLANE = _plane_basis()


def score(inliers: int, check: PixelCheck) -> float:
    """Weigh inliers and agreeing blocks by the share of blocks that agree, up to `FULL_EVIDENCE_BLOCKS` of them.

    Source: ours. No wrong pair of the benchmark in docs/audit.md scored 1 or more.
    """
    return (inliers + check.agreeing / 8) * (0.25 + check.share) * min(1.0, check.agreeing / FULL_EVIDENCE_BLOCKS)


def moves_within(check: PixelCheck) -> bool:
    """Tell another view of the same place, or another moment, from a copy: points move as no edit moves them."""
    trusted = check.share < _NEARLY_ALL or check.motion.tracked >= _MANY_TRACKED
    return check.motion.found and trusted


def is_displaced(check: PixelCheck) -> bool:
    """Tell whether blocks are found beside where they should be, as no edit displaces them."""
    return check.displaced >= _DISPLACED


@dataclass(frozen=True)
class _Block:
    """A block found nearby: its centre and its shift in px, and its likeness (ZNCC) wherever it was tried.

    `origin` is the place in `likeness` of no shift, row and column.
    """

    place: tuple[float, float]
    shift: tuple[float, float]
    likeness: NDArray[np.float32]
    origin: tuple[int, int]

    def gain(self, shift: NDArray[np.float64]) -> float:
        """Return how much more alike it is where it was found than (within a pixel) where a shift puts it."""
        column, row = np.rint(shift).astype(int) + self.origin[::-1]
        near = self.likeness[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        return float(self.likeness.max() - (near.max() if near.size else -1))


def _find_blocks(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    agreeing: NDArray[np.bool_],
    other: NDArray[np.bool_],
) -> list[_Block]:
    """Look for blocks nearby, some that agree and more that do not.

    Low frequencies are left out, and so are blocks that look like their own surroundings: a gradient, an edge or a
    pattern would be found anywhere along itself.
    """
    height, width = expected.shape
    expected, found = (side - cv2.GaussianBlur(side, (0, 0), BLOCK_PX / 2) for side in (expected, found))
    blocks = []
    for wanted, limit in ((agreeing, _SEARCHED_AGREEING), (other, _SEARCHED_OTHER)):
        rows, columns = np.nonzero(wanted)
        spread = np.linspace(0, len(rows) - 1, min(len(rows), limit)).astype(int)
        for y, x in zip(rows[spread] * BLOCK_PX, columns[spread] * BLOCK_PX):
            top, left = max(y - _SEARCH_PX, 0), max(x - _SEARCH_PX, 0)
            window = (
                slice(top, min(y + BLOCK_PX + _SEARCH_PX, height)),
                slice(left, min(x + BLOCK_PX + _SEARCH_PX, width)),
            )
            template = expected[y : y + BLOCK_PX, x : x + BLOCK_PX]
            likeness = cv2.matchTemplate(found[window], template, cv2.TM_CCOEFF_NORMED)
            _, best, _, (u, v) = cv2.minMaxLoc(likeness)
            if best < _FOUND_ZNCC or not _is_distinct(expected[window], template, y - top, x - left):
                continue
            centre = (x + BLOCK_PX / 2, y + BLOCK_PX / 2)
            blocks.append(_Block(centre, (left + u - x, top + v - y), likeness, (y - top, x - left)))
    return blocks


def _is_distinct(window: NDArray[np.float32], template: NDArray[np.float32], y: int, x: int) -> bool:
    likeness = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    likeness[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = 0
    return bool(likeness.max() < _DISTINCT_ZNCC)


def _displaced(blocks: list[_Block], width: int, height: int) -> int:
    """Count blocks clearly more alike over `_PARALLAX_PX` away from a smooth (quadratic) field, as an edit has."""
    if len(blocks) < _FEWEST_SHIFTS:
        return 0
    shift = np.array([block.shift for block in blocks], np.float64)
    x, y = (np.array([block.place for block in blocks]) / (width, height)).T
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    keep = np.ones(len(x), bool)
    for _ in range(4):
        fit, *_ = np.linalg.lstsq(terms[keep], shift[keep], rcond=None)
        residual = np.linalg.norm(shift - terms @ fit, axis=1)
        keep = residual <= max(float(np.median(residual)) * 2, 1.0)
        if keep.sum() < 8:
            break
    gains = np.array([block.gain(smooth) for block, smooth in zip(blocks, terms @ fit)])
    return int(((residual > _PARALLAX_PX) & (gains > _CLEAR_GAIN)).sum())


def _is_plausible(affine: NDArray[np.float64]) -> bool:
    if np.linalg.det(affine[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(small >= _MIN_SCALE and large <= _MAX_SCALE and large / small <= _MAX_ANISOTROPY)


def _blocks(picture: NDArray[Any]) -> NDArray[Any]:
    """Cut (H, W) into (rows, columns, 256) whole blocks."""
    rows, columns = picture.shape[0] // BLOCK_PX, picture.shape[1] // BLOCK_PX
    cut = picture[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    return cut.transpose(0, 2, 1, 3).reshape(rows, columns, -1)


def _shrink(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    if factor > 0.8 or min(picture.shape) * factor < BLOCK_PX:
        return picture
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _to_unit(
    affine: NDArray[np.float64], mixture_px: tuple[int, int], benchmark_px: tuple[int, int]
) -> NDArray[np.float64]:
    scaled = affine / np.array(mixture_px, np.float64)[:, None]
    scaled[:, :2] *= np.array(benchmark_px, np.float64)
    return scaled


def _as_matrix(alignment: Alignment) -> NDArray[np.float64]:
    if alignment.homography is not None:
        return alignment.homography
    return np.vstack([alignment.affine, (0, 0, 1)])


def _to_pixels(
    unit: NDArray[np.float64], mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Turn a map of 0..1 coordinates, which count from the corner, into one of pixel centres."""
    return np.asarray(_pixel_grid(mixture) @ unit @ np.linalg.inv(_pixel_grid(benchmark)))


def _pixel_grid(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the map from 0..1 coordinates to pixel centers."""
    return np.array([[image.shape[1], 0, -0.5], [0, image.shape[0], -0.5], [0, 0, 1]])


def _compose(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)
