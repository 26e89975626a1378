"""Lines of writing: the detector of PP-OCRv6 (PaddleOCR), whose shrunken kernels are grown back to whole lines."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.annotators.protocol import AnnotatorSpec, OneByOne, TextBox, TextBoxes
from cavendish.annotate.annotators.sessions import open_onnx
from cavendish.annotate.weights import PPOCR_TEXT
from cavendish.encoders.sample import UInt8Image

MIN_SIDE_PX, MAX_SIDE_PX = 736, 1536
PIXEL_THRESHOLD, MIN_SCORE = 0.3, 0.7
UNCLIP_RATIO = 1.6
MIN_HEIGHT_PX = 5
MAX_HEIGHT = 0.2  # of the picture: larger finds were faces, coins and flowers, never writing


class TextLines(OneByOne[UInt8Image, TextBoxes]):
    """The PP-OCRv6 small detector behind `Annotator[UInt8Image, TextBoxes]`; what the lines say is not read."""

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {
            "min_side_px": MIN_SIDE_PX,
            "max_side_px": MAX_SIDE_PX,
            "pixel_threshold": PIXEL_THRESHOLD,
            "min_score": MIN_SCORE,
            "unclip_ratio": UNCLIP_RATIO,
            "min_height_px": MIN_HEIGHT_PX,
            "max_height": MAX_HEIGHT,
        }
        return AnnotatorSpec("ppocr6-text/1", "text", PPOCR_TEXT.licence, PPOCR_TEXT.sha256, params)

    def load(self) -> None:
        self._session = open_onnx(PPOCR_TEXT)

    def _annotate_one(self, image: UInt8Image) -> TextBoxes:
        height, width = image.shape[:2]
        scale = min(max(1.0, MIN_SIDE_PX / min(height, width)), MAX_SIDE_PX / max(height, width))
        size = [max(32, 32 * round(side * scale / 32)) for side in (width, height)]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        x_HWC = small[..., ::-1].astype(np.float32) / np.float32(127.5) - 1  # BGR in [-1, 1]
        x_NCHW = np.ascontiguousarray(x_HWC.transpose(2, 0, 1)[None])
        (y_NCHW,) = self._session.run(None, {self._session.get_inputs()[0].name: x_NCHW})
        found = lines_of(y_NCHW[0, 0])
        stretch = np.array([width / size[0], height / size[1]])
        boxes = [_text_box(corners * stretch, score, width, height) for corners, score in found]
        return TextBoxes(tuple(sorted(boxes, key=lambda box: (box.corners[0][1], box.corners[0][0]))))


def lines_of(probability: NDArray[np.float32]) -> list[tuple[NDArray[np.float64], float]]:
    """Return the rotated boxes (4, 2) and scores of the lines in a map of shrunken text kernels (H, W).

    Source: Differentiable Binarization (Liao et al. 2020); the box of a kernel is grown on all sides by
    area * ratio / perimeter.
    """
    kernels = cv2.dilate((probability > PIXEL_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(kernels, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for outline in outlines:
        centre, (across, down), angle = cv2.minAreaRect(outline)
        if min(across, down) < 3:
            continue
        inside = np.zeros(probability.shape, np.uint8)
        cv2.fillPoly(inside, [np.rint(cv2.boxPoints((centre, (across, down), angle))).astype(np.int32)], 1)
        score = float(probability[inside == 1].mean())
        grown = across * down * UNCLIP_RATIO / (2 * (across + down))
        size = (across + 2 * grown, down + 2 * grown)
        if score >= MIN_SCORE and MIN_HEIGHT_PX <= min(size) <= MAX_HEIGHT * probability.shape[0]:
            found.append((_clockwise(cv2.boxPoints((centre, size, angle)).astype(np.float64)), score))
    return found


def _clockwise(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners from the top left one on, clockwise in the picture."""
    centre = corners.mean(axis=0)
    turned = corners[np.argsort(np.arctan2(*(corners - centre).T[::-1]))]
    return np.roll(turned, -int(turned.sum(axis=1).argmin()), axis=0)


def _text_box(corners: NDArray[np.float64], score: float, width: int, height: int) -> TextBox:
    inside = np.clip(corners, 0, (width, height))
    return TextBox(tuple((round(float(x), 1), round(float(y), 1)) for x, y in inside), score)
