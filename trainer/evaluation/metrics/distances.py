"""How far one set of pictures is from another: Frechet and kernel distances on any features.

With Inception features these are FID and KID. None are shipped: give a function of your own; `layout_features` needs no
weights, and its distances compare with nothing but themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image

Features = Callable[[Sequence[UInt8Image]], NDArray[np.float64]]
"""Pictures to (N, D) float64, one row each."""


def layout_features(pictures: Sequence[UInt8Image]) -> NDArray[np.float64]:
    """Return (N, 256) features without a network: Lab colour on an 8 x 8 grid, gradients in 4 directions on 4 x 4.

    Source: ours; named layout/1. It sees colour, layout and coarse texture, not what things are.
    """
    rows = []
    for picture in pictures:
        square = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(square, cv2.COLOR_RGB2LAB).astype(np.float64) / 255
        colors = lab.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
        dy, dx = np.gradient(lab[..., 0])
        direction = ((np.arctan2(dy, dx) % np.pi) / np.pi * 4).astype(int) % 4
        strength = np.hypot(dx, dy)
        edges = [(strength * (direction == k)).reshape(4, 16, 4, 16).mean(axis=(1, 3)) for k in range(4)]
        rows.append(np.concatenate([colors.ravel(), np.ravel(edges)]))
    return np.array(rows, np.float64)


def frechet_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the squared Frechet distance of the Gaussians through two sets of features.

    Args:
        one, other: (N, D) and (M, D); fewer rows than columns make the estimate too large.

    Raises:
        InputError: fewer than 2 rows, or different columns.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, equation 6.
    """
    _check(one, other)
    mean = one.mean(axis=0) - other.mean(axis=0)
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (one, other)]
    small: list[NDArray[np.float64]] = [  # R'R is the covariance, at most D rows
        np.asarray(np.linalg.qr(rows, mode="r"), np.float64) for rows in centred
    ]
    # tr sqrt(A'A B'B) is the sum of the singular values of AB': exact for singular covariances, where sqrtm is not
    root = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    trace = sum(float((rows**2).sum()) for rows in small) - 2 * root
    return float(max(0.0, mean @ mean + trace))


def kernel_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3; about 0 for equal sets.

    Raises:
        InputError: fewer than 2 rows, or different columns.

    Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    _check(one, other)
    width = one.shape[1]

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x @ y.T / width + 1) ** 3

    def within(x: NDArray[np.float64]) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(one) + within(other) - 2 * float(kernel(one, other).mean())


def picture_distances(
    one: Sequence[UInt8Image], other: Sequence[UInt8Image], features: Features = layout_features
) -> dict[str, Any]:
    """Return {"pictures": [N, M], "frechet", "kernel"} of two sets of pictures."""
    rows = [features(pictures) for pictures in (one, other)]
    return {
        "pictures": [len(one), len(other)],
        "frechet": frechet_distance(rows[0], rows[1]),
        "kernel": kernel_distance(rows[0], rows[1]),
    }


def _check(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise InputError(f"features of shapes {one.shape} and {other.shape}: give (N, D) and (M, D), N and M from 2")
