"""Does an aligned pair show the same content, or only the same template: frame, form, chart, dashboard, board?

Copies lose content where something is laid over it. Lookalikes lose content that nothing covers: it is gone, or another
of its kind stands in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SIDE_PX = 256
_WINDOW_PX = 9
_SMALLEST_PX = 24
_FLAT_STD, _TEXTURE_STD, _NOISE_FACTOR = 2.0, 4.0, 2.0
_AGREE, _UNLIKE = 0.5, 0.25
_FAINT, _STRONG = 0.4, 2.5
_TONE_BINS = 32
_NUDGES = ((-2, 0), (2, 0), (0, -2), (0, 2))
_ERASED_TONES = 0.06


@dataclass(frozen=True)
class Frame:
    """The part of the mixture image that is compared: its left, top, width and height in pixels, and a scale."""

    left: float
    top: float
    width: int
    height: int
    scale: float

    def warp(self, benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]) -> tuple[Gray, Mask]:
        """Lay a benchmark image into the frame; return it and where it is seen."""
        into = np.array([[self.scale, 0, -self.left * self.scale], [0, self.scale, -self.top * self.scale], [0, 0, 1]])
        shrink = self.scale * float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        if shrink < 0.7:  # sampled too sparsely otherwise
            size = (max(round(benchmark.shape[1] * shrink), 1), max(round(benchmark.shape[0] * shrink), 1))
            grow = np.diag([benchmark.shape[1] / size[0], benchmark.shape[0] / size[1], 1.0])
            benchmark, matrix = cv2.resize(benchmark, size, interpolation=cv2.INTER_AREA), matrix @ grow
        whole = into @ matrix
        size = (self.width, self.height)
        warped = cv2.warpPerspective(benchmark, whole, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpPerspective(np.full_like(benchmark, 255), whole, size, flags=cv2.INTER_NEAREST)
        around = np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
        seen = cv2.erode(inside, around, borderType=cv2.BORDER_CONSTANT, borderValue=255) > 0
        return cv2.GaussianBlur(warped.astype(np.float32), (0, 0), 0.8), seen


@dataclass(frozen=True)
class Content:
    """What of the benchmark image's content the mixture image shows, as maps over a frame of it.

    Args:
        expected: the benchmark image laid into the frame; `seen` where.
        textured: where it has content.
        agree: content that is there.
        lost: content that is not, and nothing stronger is laid over it: it is gone, or something like it is there.
        erased: of that, where the mixture image shows the plain background instead.
        added: content of the mixture image where the benchmark image has none.
        laid_over: where something stronger is laid over the benchmark image.
        flat: where it shows nothing at all, as paper and screens do.
    """

    frame: Frame
    expected: Gray
    seen: Mask
    textured: Mask
    agree: Mask
    lost: Mask
    erased: Mask
    added: Mask
    laid_over: Mask
    flat: Mask

    def share(self, what: Mask) -> float:
        """Return the size of one of its maps as a share of the content in view."""
        return float(what.sum() / max(int(self.textured.sum()), 1))

    @property
    def flat_share(self) -> float:
        """The share of the view that shows nothing: much of a document, little of a photograph."""
        return float(self.flat.sum() / max(int(self.seen.sum()), 1))

    @property
    def replaced_radius(self) -> float:
        """The radius of the largest disc with other content and nothing that agrees, as a share of the shorter side."""
        window = np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
        other = cv2.morphologyEx(((self.textured & ~self.agree) | self.added).astype(np.uint8), cv2.MORPH_CLOSE, window)
        other[self.agree | ~self.seen] = 0
        padded = np.pad(other, 1)
        return float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max()) / min(other.shape)

    def without(self, region: Mask) -> Content:
        """Leave a region out, such as one that another benchmark image is pasted into."""
        maps = ("seen", "textured", "agree", "lost", "erased", "added", "laid_over", "flat")
        return replace(self, **{name: getattr(self, name) & ~region for name in maps})


def compare_content(
    mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> Content | None:
    """Compare the content of an aligned pair of grey images; None where there is too little of it.

    Args:
        matrix: (3, 3) benchmark to mixture pixels.
    """
    frame = _frame(mixture, benchmark, matrix)
    if frame is None:
        return None
    expected, seen = frame.warp(benchmark, matrix)
    left, top = round(frame.left), round(frame.top)
    cut = mixture[top : top + round(frame.height / frame.scale), left : left + round(frame.width / frame.scale)]
    found = cv2.resize(cut, (frame.width, frame.height), interpolation=cv2.INTER_AREA).astype(np.float32)
    found = cv2.GaussianBlur(found, (0, 0), 0.8)
    return _compare(frame, found, expected, seen)


def _frame(mixture: NDArray[np.uint8], benchmark: NDArray[np.uint8], matrix: NDArray[np.float64]) -> Frame | None:
    """Return the part of the mixture image that the benchmark image covers, its longer side at most 256 px."""
    height, width = benchmark.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)[:, None]
    quad = cv2.perspectiveTransform(corners, matrix)[:, 0]
    limit = (mixture.shape[1], mixture.shape[0])
    low, high = np.clip(np.floor(quad.min(axis=0)), 0, limit), np.clip(np.ceil(quad.max(axis=0)), 0, limit)
    size = high - low
    if not np.isfinite(size).all() or size.min() < _SMALLEST_PX:
        return None
    scale = min(1.0, _SIDE_PX / float(size.max()))
    shape = np.maximum(np.rint(size * scale).astype(int), 1)
    return Frame(float(low[0]), float(low[1]), int(shape[0]), int(shape[1]), scale)


def _compare(frame: Frame, found: Gray, expected: Gray, seen: Mask) -> Content | None:
    mean_e, std_e = _moments(expected)
    mean_f, std_f = _moments(found)
    toned = _in_tones_of(found, expected, seen)
    mean_t, std_t = _moments(toned)
    textured = seen & (std_e > _threshold(std_e, seen & (std_f < _FLAT_STD)))
    busy = seen & (std_f > _threshold(std_f, seen & (std_e < _FLAT_STD)))
    straight = _likeness(expected, mean_e, std_e, found, mean_f, std_f)
    both = textured & busy
    sign = -1.0 if both.any() and np.median(straight[both]) < 0 else 1.0  # a negative
    likeness = sign * straight
    for move in _NUDGES:  # alignments are right to about a hundredth of the image
        moved = [np.roll(each, move, axis=(0, 1)) for each in (found, mean_f, std_f)]
        likeness = np.maximum(likeness, sign * _likeness(expected, mean_e, std_e, *moved))
    agree = textured & (likeness > _AGREE) & (std_f > 1)
    gain = float(np.median(std_f[agree] / std_e[agree])) if agree.sum() > 20 else 1.0
    clipped = textured & ((mean_t > 251) | (mean_t < 4)) & (std_t < 0.3 * gain * std_e)
    textured, agree = textured & ~clipped, agree & ~clipped
    if not textured.any():
        return None
    strength = std_f / np.maximum(gain * std_e, 1e-3)
    unlike = textured & (likeness < _UNLIKE)
    gone = unlike & (strength < _FAINT) & ~busy
    replaced = unlike & ~gone & (strength < _STRONG)
    added = busy & ~textured & ~clipped & (strength > _STRONG) & (likeness < _AGREE)
    laid_over = cv2.dilate(
        ((unlike & (strength >= _STRONG)) | added).astype(np.uint8), np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
    )
    background = cv2.medianBlur(np.clip(toned, 0, 255).astype(np.uint8), 2 * _WINDOW_PX + 1).astype(np.float32)
    low, high = np.percentile(toned[seen], (2, 98))
    plain = np.abs(mean_f - background) < max(_TEXTURE_STD, _ERASED_TONES * float(high - low))
    return Content(
        frame=frame,
        expected=expected,
        seen=seen,
        textured=textured,
        agree=agree,
        lost=(gone | replaced) & (laid_over == 0),
        erased=gone & plain,
        added=added,
        laid_over=laid_over > 0,
        flat=seen & (std_e < 1),
    )


def _likeness(expected: Gray, mean_e: Gray, std_e: Gray, found: Gray, mean_f: Gray, std_f: Gray) -> Gray:
    product = cv2.blur(expected * found, (_WINDOW_PX, _WINDOW_PX))
    return np.asarray((product - mean_e * mean_f) / np.maximum(std_e * std_f, 1e-3))


def _moments(image: Gray) -> tuple[Gray, Gray]:
    window = (_WINDOW_PX, _WINDOW_PX)
    mean = cv2.blur(image, window)
    return mean, np.sqrt(np.maximum(cv2.blur(image * image, window) - mean * mean, 0))


def _threshold(std: Gray, flat: Mask) -> float:
    """Return the spread from which a window has texture: over the noise where the other image is flat."""
    noise = float(np.percentile(std[flat], 20)) if flat.sum() > 50 else 0.0
    return max(_TEXTURE_STD, _NOISE_FACTOR * noise)


def _in_tones_of(found: Gray, expected: Gray, seen: Mask) -> Gray:
    """Give each grey value of the expected image the median that the found one has there."""
    bins = np.clip(np.rint(expected), 0, 255).astype(int) // (256 // _TONE_BINS)
    order = np.argsort(bins[seen], kind="stable")
    values, counts = np.unique(bins[seen][order], return_counts=True)
    groups = np.split(found[seen][order], np.cumsum(counts)[:-1])
    known = [(value, float(np.median(group))) for value, group in zip(values, groups) if len(group) >= 30]
    if len(known) < 2:
        return expected
    places, medians = np.array(known).T
    step = 256 / _TONE_BINS
    toned = np.interp(expected.ravel(), places * step + (step - 1) / 2, medians)
    return toned.reshape(expected.shape).astype(np.float32)


def distinctive_agreement(content: Content, others: list[tuple[Gray, Mask]]) -> tuple[float, float]:
    """Return how much of a benchmark image's content other benchmark images lack, and how much of that is there.

    Args:
        others: other benchmark images, warped into the frame of `content`, and where they are seen.
    """
    shared = np.zeros(content.textured.shape, bool)
    mean_e, std_e = _moments(content.expected)
    for other, seen in others:
        mean_o, std_o = _moments(other)
        product = cv2.blur(content.expected * other, (_WINDOW_PX, _WINDOW_PX))
        shared |= seen & ((product - mean_e * mean_o) > _AGREE * np.maximum(std_e * std_o, 1e-3))
    own = content.textured & ~shared & (content.agree | ~content.laid_over)
    count = int(own.sum())
    share = count / max(int(content.textured.sum()), 1)
    return share, float((content.agree & own).sum() / count) if count else 0.0
