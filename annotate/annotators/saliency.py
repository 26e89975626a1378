"""The main subject of a photograph: U2-Net (small, "u2netp") on onnxruntime, seen three times.

The net is run on the picture, on its mirror image and on a smaller copy. The mean of the first two is the result; how
far all three agree are quality scores. Shapes: N batch, C channel, H, W the net's 320 px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.annotators.protocol import AnnotatorSpec, Box, OneByOne, Prompted, load_once
from cavendish.annotate.annotators.sessions import open_onnx
from cavendish.annotate.weights import U2NETP
from cavendish.encoders.sample import UInt8Image

SIDE_PX = 320
SMALLER = 0.75
MIN_PART = 0.05
MAX_HOLE = 0.0005
PADDING, WIDE_PADDING = 0.08, 0.2
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)

Probability = NDArray[np.float32]
"""(H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class Saliency:
    """How surely each pixel belongs to the main subject, and how far the views agree.

    Args:
        probability: (H, W) float32, the mean of the plain and the mirrored view.
        flip_iou, scale_iou: IoU of the plain view's mask with that of the mirrored, the smaller view; in [0, 1].
    """

    probability: Probability
    flip_iou: float
    scale_iou: float


@dataclass(frozen=True)
class CropSaliency:
    """The saliency of one box of a picture: `window` is (x0, y0, x1, y1) in pixels, the size of its probability.

    Args:
        probability: (H, W) float32 of the window, the mean of the plain and the mirrored view.
        flip_iou: IoU of the two views' masks.
        scale_iou: IoU of the first view's mask with that of a wider crop, within the window.
    """

    window: tuple[int, int, int, int]
    probability: Probability
    flip_iou: float
    scale_iou: float


class U2NetSaliency(OneByOne[UInt8Image, Saliency]):
    """U2-Net small (Qin et al., Pattern Recognition 2020) behind `Annotator[UInt8Image, Saliency]`."""

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {"side_px": SIDE_PX, "smaller": SMALLER, "min_part": MIN_PART, "max_hole": MAX_HOLE}
        return AnnotatorSpec("u2netp/1", "saliency", U2NETP.licence, U2NETP.sha256, params)

    def load(self) -> None:
        self._session = open_onnx(U2NETP)

    def _annotate_one(self, image: UInt8Image) -> Saliency:
        plain, mirrored = self.look_twice(image)
        smaller = self._predict_smaller(image)
        full = cv2.resize((plain + mirrored) / 2, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return Saliency(full, mask_iou(plain > 0.5, mirrored > 0.5), mask_iou(plain > 0.5, smaller > 0.5))

    def look_twice(self, image: UInt8Image) -> tuple[Probability, Probability]:
        """Return (320, 320) predictions for an image and, mirrored back, for its mirror image."""
        small = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        return self._predict(small), self._predict(small[:, ::-1])[:, ::-1]

    def look_once(self, image: UInt8Image) -> Probability:
        """Return the (320, 320) prediction for an image."""
        return self._predict(cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))

    def _predict_smaller(self, image: UInt8Image) -> Probability:
        """Predict with the picture at 3/4 size, its border mirrored, and return the result at full size.

        Mirrored, because on a plain ground the picture itself is the salient object: the IoU with the plain view was
        0.02 for a rocket and 0.49 for a cup that is found perfectly; with mirrored borders 0.95 and 1.00.
        """
        inner = round(SIDE_PX * SMALLER)
        edge = (SIDE_PX - inner) // 2
        small = cv2.resize(image, (inner, inner), interpolation=cv2.INTER_AREA)
        canvas = cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REFLECT_101)
        found = self._predict(canvas)[edge : edge + inner, edge : edge + inner]
        full: Probability = cv2.resize(found, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
        return full

    def _predict(self, small: UInt8Image) -> Probability:
        """Run the net once on (320, 320, 3) uint8; scaled by the brightest value, as the net was trained."""
        x_HWC = small.astype(np.float32) / max(1, int(small.max()))
        x_NCHW = np.ascontiguousarray(((x_HWC - _MEAN) / _STD).transpose(2, 0, 1)[None])
        fused = self._session.get_outputs()[0].name  # the other six are side outputs
        (y_NCHW,) = self._session.run([fused], {self._session.get_inputs()[0].name: x_NCHW})
        probability: Probability = y_NCHW[0, 0]
        return probability


class BoxSaliency(OneByOne[Prompted, tuple[CropSaliency, ...]]):
    """The same net on the boxes of a picture, behind `Annotator[Prompted, tuple[CropSaliency, ...]]`."""

    _net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {"side_px": SIDE_PX, "padding": PADDING, "wide_padding": WIDE_PADDING}
        return AnnotatorSpec("u2netp-boxes/1", "masks", U2NETP.licence, U2NETP.sha256, params)

    def load(self) -> None:
        """Read the weights, which `U2NetSaliency` shares."""
        self._net = load_once(U2NetSaliency)

    def _annotate_one(self, query: Prompted) -> tuple[CropSaliency, ...]:
        return tuple(self._cut(query.image, box) for box in query.boxes)

    def _cut(self, image: UInt8Image, box: Box) -> CropSaliency:
        x0, y0, x1, y1 = window = _padded(box, PADDING, image)
        plain, mirrored = self._net.look_twice(image[y0:y1, x0:x1])
        full = cv2.resize((plain + mirrored) / 2, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        left, top, right, bottom = _padded(box, WIDE_PADDING, image)
        wide = self._net.look_once(image[top:bottom, left:right])
        wide = cv2.resize(wide, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        same = wide[y0 - top : y1 - top, x0 - left : x1 - left] > 0.5
        return CropSaliency(window, full, mask_iou(plain > 0.5, mirrored > 0.5), mask_iou(full > 0.5, same))


def _padded(box: Box, padding: float, image: UInt8Image) -> tuple[int, int, int, int]:
    """Return a box wider by a share on every side, in whole pixels inside the image."""
    height, width = image.shape[:2]
    x, y = padding * (box[2] - box[0]), padding * (box[3] - box[1])
    left, top = max(0, math.floor(box[0] - x)), max(0, math.floor(box[1] - y))
    return left, top, min(width, math.ceil(box[2] + x)), min(height, math.ceil(box[3] + y))


def subject_mask(probability: Probability) -> NDArray[np.bool_]:
    """Turn probability into the main subject's mask (H, W) bool: over 0.5, without specks and pinholes.

    Parts under 5 % of the largest part go; holes under 0.05 % of the picture are filled.
    """
    mask = (probability > 0.5).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return mask.astype(bool)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= MIN_PART * areas[1:].max()
    kept[0] = False
    mask = kept[parts].astype(np.uint8)
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    filled = stats[:, cv2.CC_STAT_AREA] < MAX_HOLE * mask.size
    filled[0] = False  # label 0 is the mask itself
    cleaned: NDArray[np.bool_] = (mask == 1) | filled[holes]
    return cleaned


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return intersection over union; two empty masks agree on nothing: 0."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0
