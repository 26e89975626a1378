"""Depth metrics: per image and averaged over a set, each under a protocol whose id says what was measured.

All depths are planar, in metres. The order is the one all public codes share: choose the valid pixels (range of the
truth, crop), align, clip the prediction to the range, measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

Alignment = Literal[
    "none", "scale_median", "scale_lsq", "affine_lsq", "affine_disparity_lsq", "log_shift", "log_affine"
]
"""How a prediction may be fitted to the truth of its image before it is measured:

- none: metric depth as predicted.
- scale_median: times median(truth) / median(prediction) (UniK3D, the classic of self-supervised work).
- scale_lsq: times the least-squares scale.
- affine_lsq: least-squares scale and shift in depth (Marigold).
- affine_disparity_lsq: least-squares scale and shift in 1 / depth (MiDaS).
- log_shift: least-squares shift of log depth, which is one scale.
- log_affine: least-squares scale and shift of log depth.
"""

Crop = Literal["none", "eigen_nyu", "garg", "eigen_kitti"]

FARTHEST_CODE_M = 412.5
"""The last finite depth of the cube-walk codec; a prediction of +inf counts as this where a protocol has no cap."""

_FRACTIONS: dict[str, tuple[float, float, float, float]] = {  # top, bottom, left, right
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen_kitti": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
_NYU_SIZE = (480, 640)
_MEANS = (
    "delta1",
    "delta2",
    "delta3",
    "abs_rel",
    "sq_rel",
    "rmse_m",
    "rmse_log",
    "log10",
    "silog_marigold",
    "silog_unik3d",
    "silog_depth_anything_v2",
)


@dataclass(frozen=True)
class DepthProtocol:
    """Which pixels count and what is done to the prediction first.

    Args:
        min_m, max_m: a truth pixel counts when min_m < truth < max_m (both strict), is finite and is not masked.
        clip_m: the prediction is clipped to this range after alignment; None means (min_m, max_m), with
            `FARTHEST_CODE_M` in place of an infinite end, so that no mean is infinite.
        crop: which rectangle of the array counts.
        alignment: one of `Alignment`.
        fit_max_side: the fit uses every k-th pixel so that no side is longer than this (None: all pixels).
    """

    min_m: float = 1e-3
    max_m: float = float("inf")
    clip_m: tuple[float, float] | None = None
    crop: Crop = "none"
    alignment: Alignment = "none"
    fit_max_side: int | None = None

    def __post_init__(self) -> None:
        if self.alignment not in get_args(Alignment):
            raise InputError(f"depth alignment {self.alignment!r}: choose one of {', '.join(get_args(Alignment))}")
        if self.crop not in get_args(Crop):
            raise InputError(f"depth crop {self.crop!r}: choose one of {', '.join(get_args(Crop))}")
        if not 0 < self.min_m < self.max_m:
            raise InputError(f"depth range {self.min_m} to {self.max_m} m: needs 0 < min_m < max_m")

    @property
    def clip_range_m(self) -> tuple[float, float]:
        """The range predictions are clipped to, both ends finite."""
        low, high = (self.min_m, self.max_m) if self.clip_m is None else self.clip_m
        return low, high if np.isfinite(high) else FARTHEST_CODE_M

    @property
    def id(self) -> str:
        """Say everything that tells this protocol from another, in one word."""
        low, high = self.clip_range_m
        upper = f"<{self.max_m:g}m" if np.isfinite(self.max_m) else ""
        parts = [f"depth/1;{self.min_m:g}m<d{upper}", f"clip={low:g}..{high:g}m", f"crop={self.crop}"]
        parts.append(f"align={self.alignment}")
        if self.fit_max_side:
            parts.append(f"fit_side={self.fit_max_side}")
        return ";".join(parts)


METRIC = DepthProtocol()
"""Metric depth with nothing done to it: every known, finite truth pixel counts."""


def crop_mask(shape: tuple[int, int], crop: Crop) -> NDArray[np.bool_]:
    """Return the (H, W) bool mask of the pixels a crop keeps.

    The KITTI crops are fractions of the array they are applied to. Public codes apply them to the 352x1216 "KB" crop
    although their authors defined them on the full frame; the array given decides.

    Raises:
        InputError: `eigen_nyu` on an array that is not 480x640.
    """
    mask = np.zeros(shape, bool)
    if crop == "none":
        mask[:] = True
    elif crop == "eigen_nyu":
        if shape != _NYU_SIZE:
            raise InputError(f"the eigen_nyu crop is defined on 480x640 arrays, this one is {shape[0]}x{shape[1]}")
        mask[45:471, 41:601] = True
    else:
        top, bottom, left, right = _FRACTIONS[crop]
        height, width = shape
        mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def valid_pixels(
    truth_m: NDArray[np.floating[Any]], protocol: DepthProtocol = METRIC, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return the (H, W) bool mask of the truth pixels that count under `protocol`."""
    with np.errstate(invalid="ignore"):
        mask = np.isfinite(truth_m) & (truth_m > protocol.min_m) & (truth_m < protocol.max_m)
    if valid is not None:
        mask &= valid
    if protocol.crop != "none":
        mask &= crop_mask((truth_m.shape[0], truth_m.shape[1]), protocol.crop)
    return mask


def depth_metrics(
    prediction_m: NDArray[np.floating[Any]],
    truth_m: NDArray[np.floating[Any]],
    protocol: DepthProtocol = METRIC,
    valid: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Measure the depth of one image: delta1, AbsRel, RMSE, SILog and their kin.

    Args:
        prediction_m: (H, W) planar metres; +inf allowed (clipped after alignment), NaN not.
        truth_m: (H, W) planar metres; NaN, +inf and values outside the protocol's range do not count.
        valid: (H, W) bool, the set's own mask; None means all pixels.

    Returns:
        protocol (id), pixels (how many counted), and, None when no pixel counted: delta1..delta3 (share of
        max(p/g, g/p) strictly below 1.25, 1.25^2, 1.25^3), abs_rel (mean |p-g|/g), sq_rel (mean (p-g)^2/g, metres),
        rmse_m, rmse_log, log10 (mean |log10 p - log10 g|), and SILog in its three meanings with d = ln p - ln g:
        silog_marigold 100 sqrt(mean d^2 - mean(d)^2), silog_unik3d 100 std(d) with N - 1,
        silog_depth_anything_v2 sqrt(mean d^2 - mean(d)^2 / 2).

    Raises:
        InputError: shapes differ, or the prediction is NaN where the truth counts.

    Source: Marigold, UniK3D and Depth-Anything-V2 evaluation codes.

    Example:
        >>> import numpy as np
        >>> truth_m = np.array([[1.0, 2.0, np.inf]])
        >>> result = cavendish.depth_metrics(np.array([[1.1, 2.0, 9.0]]), truth_m)
        >>> result["pixels"], round(result["abs_rel"], 3), result["delta1"]
        (2, 0.05, 1.0)
    """
    if prediction_m.shape != truth_m.shape or (valid is not None and valid.shape != truth_m.shape):
        raise InputError(
            f"depth prediction {prediction_m.shape}, truth {truth_m.shape}"
            f"{'' if valid is None else f', mask {valid.shape}'}: shapes must agree; resize decoded metres (nearest)"
        )
    mask = valid_pixels(truth_m, protocol, valid)
    result: dict[str, Any] = {"protocol": protocol.id, "pixels": int(mask.sum())}
    if not mask.any():
        return {**result, **dict.fromkeys(_MEANS)}
    truth = truth_m[mask].astype(np.float64)
    prediction = prediction_m[mask].astype(np.float64)
    if np.isnan(prediction).any():
        raise InputError(f"depth prediction is NaN at {int(np.isnan(prediction).sum())} of the pixels that count")
    if protocol.alignment != "none":
        fit = _fit_pixels(mask, protocol.fit_max_side)
        prediction = align_depth(prediction, truth, protocol.alignment, fit)
    return {**result, **_errors(np.clip(prediction, *protocol.clip_range_m), truth)}


def _errors(prediction: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    difference = prediction - truth
    ratio = np.maximum(prediction / truth, truth / prediction)
    log_difference = np.log(prediction) - np.log(truth)
    mean, mean_square = float(log_difference.mean()), float((log_difference**2).mean())
    variance = float(log_difference.var())
    count = truth.size
    return {
        "delta1": float((ratio < 1.25).mean()),
        "delta2": float((ratio < 1.25**2).mean()),
        "delta3": float((ratio < 1.25**3).mean()),
        "abs_rel": float((np.abs(difference) / truth).mean()),
        "sq_rel": float((difference**2 / truth).mean()),
        "rmse_m": float(np.sqrt((difference**2).mean())),
        "rmse_log": float(np.sqrt(mean_square)),
        "log10": float(np.abs(log_difference).mean() / np.log(10)),
        "silog_marigold": 100 * float(np.sqrt(variance)),
        "silog_unik3d": 100 * float(np.sqrt(variance * count / (count - 1))) if count > 1 else 0.0,
        "silog_depth_anything_v2": float(np.sqrt(max(mean_square - 0.5 * mean**2, 0.0))),
    }


def _fit_pixels(mask: NDArray[np.bool_], max_side: int | None) -> NDArray[np.bool_] | None:
    """Return which of the masked pixels lie on the nearest-neighbour grid of at most `max_side` (None: all)."""
    if max_side is None or max(mask.shape) <= max_side:
        return None
    scale = max_side / max(mask.shape)
    chosen = np.zeros(mask.shape, bool)
    rows, columns = (
        np.minimum((np.arange(int(size * scale)) / scale).astype(np.int64), size - 1) for size in mask.shape
    )
    chosen[np.ix_(rows, columns)] = True
    return chosen[mask]


def align_depth(
    prediction_m: NDArray[np.float64],
    truth_m: NDArray[np.float64],
    alignment: Alignment,
    fit: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Fit a prediction to the truth of its image.

    Args:
        prediction_m, truth_m: (N,) metres of the pixels that count. A prediction that is infinite or not positive
            takes no part in the fit (except in disparity, where infinity is 0); it is mapped like any other.
        fit: (N,) bool, which pixels the fit may use.

    Returns:
        (N,) metres, unclipped: -inf, negative values and +inf are possible, NaN is not.
    """
    use = np.ones(prediction_m.shape, bool) if fit is None else fit.copy()
    use &= prediction_m > 0
    if alignment != "affine_disparity_lsq":
        use &= np.isfinite(prediction_m)
    if alignment == "none" or not use.any():
        return prediction_m
    p, t = prediction_m[use], truth_m[use]
    if alignment == "scale_median":
        return prediction_m * (np.median(t) / np.median(p))
    if alignment == "scale_lsq":
        return prediction_m * ((p @ t) / (p @ p))
    if alignment == "affine_lsq":
        return _affine(prediction_m, *_line(p, t))
    if alignment == "affine_disparity_lsq":
        scale, shift = _line(1 / p, 1 / t)
        with np.errstate(divide="ignore"):
            disparity = scale / np.maximum(prediction_m, 0) + shift if scale else np.full_like(prediction_m, shift)
            return np.where(disparity > 0, 1 / np.maximum(disparity, 1e-300), np.inf)
    scale, shift = (
        (1.0, float((np.log(t) - np.log(p)).mean())) if alignment == "log_shift" else _line(np.log(p), np.log(t))
    )
    with np.errstate(divide="ignore", over="ignore"):
        return np.exp(_affine(np.log(np.maximum(prediction_m, 0)), scale, shift))


def _affine(values: NDArray[np.float64], scale: float, shift: float) -> NDArray[np.float64]:
    return values * scale + shift if scale else np.full_like(values, shift)  # 0 * inf would be NaN


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return (scale, shift) of the least-squares line y = scale x + shift; scale 0 when x is constant."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread <= 1e-18 * max(float(x @ x), 1e-300):
        return 0.0, float(y.mean())
    scale = float(centred @ (y - y.mean())) / spread
    return scale, float(y.mean() - scale * x.mean())


def depth_set_metrics(per_image: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Average `depth_metrics` results over the images of a set, as all public codes do; each image weighs the same.

    Returns:
        protocol, images (that had a valid pixel), empty (that had none), pixels, and the mean of every metric.

    Raises:
        InputError: results of different protocols.
    """
    results = list(per_image)
    protocols = sorted({result["protocol"] for result in results})
    if len(protocols) > 1:
        raise InputError(f"depth results of different protocols cannot be averaged: {' and '.join(protocols[:2])}")
    measured = [result for result in results if result["pixels"]]
    return {
        "protocol": protocols[0] if protocols else None,
        "images": len(measured),
        "empty": len(results) - len(measured),
        "pixels": sum(result["pixels"] for result in measured),
        **{name: float(np.mean([result[name] for result in measured])) if measured else None for name in _MEANS},
    }
