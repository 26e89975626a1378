"""What a blind guess scores: predictions that never look at the picture, for every table.

The guesses are fitted on the truth of the very set they are scored on, so they are the best that guesses of their kind
could be; a model that does not beat them has learnt nothing that a constant does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 64
"""Vertical priors hold one value for each of so many equal bands of the picture."""


def _bands(height: int) -> NDArray[np.int64]:
    """Return for each picture row the band it lies in."""
    return ((np.arange(height) + 0.5) * ROWS / height).astype(np.int64)


def spread_rows(profile: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Paint a (ROWS, ...) profile on a picture of `shape` (H, W)."""
    rows = profile[_bands(shape[0])]
    return np.repeat(rows[:, None], shape[1], axis=1)


def depth_row_medians(truth_m: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (ROWS,) median depth of the valid pixels of each band, NaN where there are none."""
    bands = _bands(truth_m.shape[0])
    medians = np.full(ROWS, np.nan)
    for band in np.unique(bands):
        values = truth_m[bands == band][valid[bands == band]]
        if values.size:
            medians[band] = np.median(values)
    return medians


def depth_profiles(row_medians: Iterable[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Fit the depth guesses from `depth_row_medians` of the images of a set.

    Returns:
        name to (ROWS,) metres: "one depth everywhere" (the median) and "depth by height in the picture" (the median
        of each band; a band no image has truth in takes its neighbours').
    """
    rows = np.stack(list(row_medians))
    middle = float(np.nanmedian(rows)) if np.isfinite(rows).any() else 1.0
    profile = np.full(ROWS, np.nan)
    known = np.isfinite(rows).any(axis=0)
    profile[known] = np.nanmedian(rows[:, known], axis=0)
    if known.any():
        profile = np.interp(np.arange(ROWS), np.flatnonzero(known), profile[known])
    else:
        profile[:] = middle
    return {"one depth everywhere": np.full(ROWS, middle), "depth by height in the picture": profile}


def normals_row_sums(truth: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (ROWS, 3) sum of the unit normals of each band, weighing every image the same."""
    sums = np.zeros((ROWS, 3))
    length = np.linalg.norm(truth, axis=-1, keepdims=True)
    unit = np.divide(truth, length, out=np.zeros(truth.shape), where=length > 0) * valid[..., None]
    np.add.at(sums, _bands(truth.shape[0]), unit.sum(axis=1))
    count = int((valid & (length[..., 0] > 0)).sum())
    return sums / count if count else sums


def normals_profiles(row_sums: Iterable[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Fit the normal guesses from `normals_row_sums`; name to (ROWS, 3) unit vectors.

    "facing the viewer" is (0, 0, 1) everywhere; "mean normal" and "normal by height in the picture" are fitted.
    """
    total = np.sum(list(row_sums), axis=0)
    viewer = np.array([0.0, 0.0, 1.0])
    mean = _unit(total.sum(axis=0), viewer)
    return {
        "facing the viewer": np.tile(viewer, (ROWS, 1)),
        "mean normal": np.tile(mean, (ROWS, 1)),
        "normal by height in the picture": np.stack([_unit(row, mean) for row in total]),
    }


def _unit(vector: NDArray[np.float64], fallback: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else fallback


def class_row_counts(truth: NDArray[np.integer[Any]], classes: Sequence[int]) -> NDArray[np.float64]:
    """Return (ROWS, K): the share of the picture that each class has in each band."""
    bands = _bands(truth.shape[0])
    counts = np.zeros((ROWS, len(classes)))
    for place, label in enumerate(classes):
        np.add.at(counts[:, place], bands, (truth == label).sum(axis=1))
    return counts / truth.size


def class_profiles(row_counts: Iterable[NDArray[np.float64]], classes: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """Fit the label guesses from `class_row_counts`; name to (ROWS,) ids.

    "most frequent class everywhere" and "most frequent class by height in the picture".
    """
    total = np.sum(list(row_counts), axis=0)
    ids = np.asarray(classes, np.int64)
    overall = int(np.argmax(total.sum(axis=0)))
    by_row = np.where(total.any(axis=1), np.argmax(total, axis=1), overall)
    return {
        "most frequent class everywhere": np.full(ROWS, ids[overall]),
        "most frequent class by height in the picture": ids[by_row],
    }


def mask_guesses(shape: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    """Return the guesses for a referred region or a single instance: nothing, everything, the middle of the picture.

    "the middle quarter" is the centred rectangle of half the height and half the width.
    """
    height, width = shape
    middle = np.zeros(shape, bool)
    middle[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return {
        "nothing drawn": np.zeros(shape, bool),
        "everything drawn": np.ones(shape, bool),
        "the middle quarter": middle,
    }
