"""Surface normal metrics: angular errors, pooled over all pixels of a set or averaged over its images.

DSINE and Lotus pool the pixels of a set; Marigold averages per-image values. The mean of per-image medians is not the
pooled median, so both are reported, by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

PROTOCOL = "normals/1;angle=acos(cos)"
THRESHOLDS_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)
_BINS_PER_DEG = 10_000  # the pooled median is exact to half a bin: 5e-5 degrees


def angular_errors_deg(
    prediction: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the angle between prediction and truth at each pixel that counts.

    Args:
        prediction, truth: (H, W, 3) vectors in one camera frame, of any length; a truth of (0, 0, 0) is unknown and
            does not count. A prediction of (0, 0, 0) has no direction and counts as 90 degrees (its cosine is 0).
        valid: (H, W) bool, the set's own mask; None means all pixels.

    Returns:
        (N,) float64 degrees in 0..180.

    Raises:
        InputError: shapes differ, or the prediction is not finite.

    Source: DSINE utils (acos of the clamped cosine similarity).
    """
    if prediction.shape != truth.shape or truth.shape[-1:] != (3,):
        raise InputError(f"normals prediction {prediction.shape}, truth {truth.shape}: both must be (H, W, 3)")
    mask = np.linalg.norm(truth, axis=-1) > 0
    if valid is not None:
        mask &= valid
    p, t = prediction[mask].astype(np.float64), truth[mask].astype(np.float64)
    if not np.isfinite(p).all():
        raise InputError("normals prediction is not finite at pixels that count")
    lengths = np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1)
    cosine = np.divide((p * t).sum(axis=-1), lengths, out=np.zeros(len(p)), where=lengths > 0)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def normals_metrics(
    prediction: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    valid: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Measure one image: mean, median and rmse in degrees, percent of pixels strictly below 5, 7.5, 11.25, 22.5, 30.

    Values are None when no pixel counts. Arguments as for `angular_errors_deg`.

    Example:
        >>> import numpy as np
        >>> facing, up = np.zeros((1, 2, 3)), np.zeros((1, 2, 3))
        >>> facing[..., 2] = up[..., 1] = 1
        >>> cavendish.normals_metrics(up, facing)["mean_deg"]
        90.0
    """
    return {"protocol": PROTOCOL, **_summary(angular_errors_deg(prediction, truth, valid))}


class NormalsPool:
    """Gathers the `angular_errors_deg` of a set, picture by picture, in memory that does not grow with the pixels."""

    def __init__(self) -> None:
        self._histogram = np.zeros(180 * _BINS_PER_DEG + 1, np.int64)
        self._below = np.zeros(len(THRESHOLDS_DEG), np.int64)
        self._sum = self._sum_of_squares = 0.0
        self._per_image: list[dict[str, Any]] = []
        self._empty = 0

    def add(self, errors_deg: NDArray[np.float64]) -> dict[str, Any]:
        """Add one picture and return its own metrics."""
        summary = _summary(errors_deg)
        if not errors_deg.size:
            self._empty += 1
            return summary
        self._sum += float(errors_deg.sum())
        self._sum_of_squares += float((errors_deg**2).sum())
        self._below += [(errors_deg < threshold).sum() for threshold in THRESHOLDS_DEG]
        self._histogram += np.bincount((errors_deg * _BINS_PER_DEG).astype(np.int64), minlength=self._histogram.size)
        self._per_image.append(summary)
        return summary

    def metrics(self) -> dict[str, Any]:
        """Return protocol, images, empty, and two maps of the same metrics.

        `pooled` takes all pixels together (DSINE, Lotus; its median to 5e-5 degrees), `per_image` is the mean over
        pictures of each picture's value (Marigold).
        """
        names = _summary(np.zeros(0)).keys()
        pooled: dict[str, Any] = dict.fromkeys(names)
        averaged: dict[str, Any] = dict.fromkeys(names)
        count = sum(image["pixels"] for image in self._per_image)
        if count:
            pooled = {
                "pixels": count,
                "mean_deg": self._sum / count,
                "median_deg": _histogram_median(self._histogram, count),
                "rmse_deg": float(np.sqrt(self._sum_of_squares / count)),
                **_shares(self._below / count),
            }
            averaged = {name: float(np.mean([image[name] for image in self._per_image])) for name in names}
        pooled["pixels"] = averaged["pixels"] = count
        counts = {"protocol": PROTOCOL, "images": len(self._per_image), "empty": self._empty}
        return {**counts, "pooled": pooled, "per_image": averaged}


def _summary(errors: NDArray[np.float64]) -> dict[str, Any]:
    if not errors.size:
        return {"pixels": 0, **dict.fromkeys(("mean_deg", "median_deg", "rmse_deg")), **_shares(None)}
    return {
        "pixels": int(errors.size),
        "mean_deg": float(errors.mean()),
        "median_deg": float(np.median(errors)),
        "rmse_deg": float(np.sqrt((errors**2).mean())),
        **_shares(np.array([(errors < threshold).mean() for threshold in THRESHOLDS_DEG])),
    }


def _shares(shares: NDArray[np.float64] | None) -> dict[str, Any]:
    names = [f"below_{threshold:g}_percent" for threshold in THRESHOLDS_DEG]
    return dict.fromkeys(names) if shares is None else {name: 100 * float(s) for name, s in zip(names, shares)}


def _histogram_median(histogram: NDArray[np.int64], count: int) -> float:
    """Return the median as the mean of the two middle values, each taken at the middle of its bin."""
    cumulative = np.cumsum(histogram)
    middle = [int(np.searchsorted(cumulative, rank + 1)) for rank in ((count - 1) // 2, count // 2)]
    return (sum(middle) / 2 + 0.5) / _BINS_PER_DEG
