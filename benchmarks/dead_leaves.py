"""Pictures of overlapping ellipses with known instances, what a generator or a file format does to them, and F1.

The scene every figure on instance decoding is measured on: 256 x 256, K ellipses of one solid colour each, later ones
over earlier ones, black background.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.instances import interior
from cavendish.encoders.codecs.palettes import Color, lattice

DEGRADATIONS = ("clean", "jpeg90", "blur1", "noise8", "drift8", "blur1+drift8+noise6")
IOU_THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def dead_leaves(rng: np.random.Generator, count: int, size: int = 256) -> NDArray[np.uint16]:
    """Return (size, size) ids of at most `count` ellipses.

    Of an ellipse of which less than 0.2 % of the picture or only slivers (less than 30 % of it has all eight neighbours
    in it) can be seen, nothing is left: such remains are not what a person would point at.
    """
    y, x = np.mgrid[:size, :size] + 0.5
    ids = np.zeros((size, size), np.uint16)
    for number in range(1, count + 1):
        cx, cy = rng.uniform(0, size, 2)
        a = rng.uniform(0.06, 0.14) * size * min(1.0, (16 / count) ** 0.5)
        b = a * rng.uniform(0.5, 1)
        angle = rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        ids[(u / a) ** 2 + (v / b) ** 2 <= 1] = number
    area = np.bincount(ids.reshape(-1), minlength=count + 1)
    core = np.bincount(ids[interior(ids)], minlength=count + 1)
    ids[((area < 2e-3 * ids.size) | (core < 0.3 * area))[ids]] = 0
    return ids


def instance_colors(rng: np.random.Generator, count: int, palette: str) -> dict[int, Color]:
    """Return colours of ids 1..count: "lattice", or "random" ones at least 45 apart and from black."""
    if palette == "lattice":
        return {i: (int(c[0]), int(c[1]), int(c[2])) for i, c in enumerate(lattice(count), 1)}
    chosen: list[NDArray[np.int64]] = [np.zeros(3, np.int64)]
    while len(chosen) <= count:
        color = rng.integers(0, 256, 3)
        if min(np.linalg.norm(color - other) for other in chosen) >= 45:
            chosen.append(color)
    return {i: (int(c[0]), int(c[1]), int(c[2])) for i, c in enumerate(chosen[1:], 1)}


def degrade(rgb_u8: NDArray[np.uint8], how: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply one of `DEGRADATIONS`: JPEG quality 90 (4:2:0), blur by 1 px, noise and slow colour drift in levels."""
    values = rgb_u8.astype(np.float32)
    for step in how.split("+"):
        if step == "jpeg90":
            coded = cv2.imencode(".jpg", rgb_u8[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            values = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
        elif step.startswith("blur"):
            values = cv2.GaussianBlur(values, (0, 0), float(step[4:]))
        elif step.startswith("noise"):
            values = values + rng.normal(0, float(step[5:]), values.shape).astype(np.float32)
        elif step.startswith("drift"):
            coarse = rng.normal(0, float(step[5:]), (4, 4, 3)).astype(np.float32)
            values = values + cv2.resize(coarse, values.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        elif step != "clean":
            raise ValueError(step)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def mean_f1(predicted: NDArray[np.uint16], truth: NDArray[np.uint16]) -> float:
    """Return instance F1 averaged over IoU thresholds .5:.05:.95."""
    p_values, p = np.unique(predicted, return_inverse=True)
    t_values, t = np.unique(truth, return_inverse=True)
    joint = np.bincount(p.reshape(-1) * len(t_values) + t.reshape(-1), minlength=len(p_values) * len(t_values))
    joint = joint.reshape(len(p_values), len(t_values))
    union = joint.sum(1, keepdims=True) + joint.sum(0) - joint
    iou = (joint / union)[p_values != 0][:, t_values != 0]
    if not sum(iou.shape):
        return 1.0
    # At IoU above .5 an instance has at most one partner, so counting pairs is the optimal matching; IoU of exactly .5
    # could have two and is not counted.
    true_positives = np.array([((iou >= threshold) & (iou > 0.5)).sum() for threshold in IOU_THRESHOLDS])
    return float(np.mean(2 * true_positives / sum(iou.shape)))
