"""Objects of the 80 COCO classes: NanoDet and CenterNet, two small detectors that were trained apart.

Neither is right often enough alone; `annotate.labels.objects` keeps what both see. Shapes: N batch, C channel, H, W
height and width of the net's input, P grid points, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.annotators.protocol import AnnotatorSpec, Box, Detection, Detections, OneByOne
from cavendish.annotate.annotators.sessions import open_tfjs
from cavendish.annotate.weights import CENTERNET, CENTERNET_GRAPH, NANODET, NANODET_GRAPH
from cavendish.encoders.sample import UInt8Image

COCO_CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""The names of COCO, in its order."""

FLOOR = 0.1
MAX_BOXES = 100
SAME_BOX_IOU = 0.6

Points = NDArray[np.float32]


class NanoDet(OneByOne[UInt8Image, Detections]):
    """NanoDet-g 416 (RangiLyu) behind `Annotator[UInt8Image, Detections]`."""

    SIDE_PX = 416
    _STRIDES = (8, 16, 32)
    _BGR_MEAN = np.array([103.53, 116.28, 123.675], np.float32)
    _BGR_STD = np.array([57.375, 57.12, 58.395], np.float32)

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {**_PARAMS, "side_px": self.SIDE_PX, "graph_sha256": NANODET_GRAPH.sha256}
        return AnnotatorSpec("nanodet-g/1", "detection", NANODET.licence, NANODET.sha256, params)

    def load(self) -> None:
        outputs = ["Identity", *(f"Identity_{number}" for number in range(1, 6))]  # three grids of scores, of distances
        self._session = open_tfjs(NANODET_GRAPH, NANODET, outputs)

    def _annotate_one(self, image: UInt8Image) -> Detections:
        small = cv2.resize(image, (self.SIDE_PX, self.SIDE_PX), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        x_HWC = (small.astype(np.float32) - self._BGR_MEAN) / self._BGR_STD
        found = self._session.run(None, {"input_1": np.ascontiguousarray(x_HWC.transpose(2, 0, 1)[None])})
        scores_PK = np.concatenate([grid[0] for grid in found[:3]])
        boxes = np.concatenate([self._boxes(grid[0], stride) for grid, stride in zip(found[3:], self._STRIDES)])
        return _detections(boxes / self.SIDE_PX, scores_PK, image)

    def _boxes(self, distances: Points, stride: int) -> Points:
        """Return (P, 4) boxes in input pixels: each side's distance is the mean of 11 bins, in strides."""
        count = self.SIDE_PX // stride
        bins = distances.reshape(-1, 4, 11).astype(np.float64)
        weights = np.exp(bins - bins.max(axis=-1, keepdims=True))
        left, top, right, bottom = (weights @ np.arange(11) / weights.sum(axis=-1)).T * stride
        y, x = (np.mgrid[:count, :count].reshape(2, -1) + 0.5) * stride
        boxes: Points = np.stack([x - left, y - top, x + right, y + bottom], axis=-1).astype(np.float32)
        return boxes


class CenterNet(OneByOne[UInt8Image, Detections]):
    """MobileNetV3-CenterNet 512 (610265158) behind `Annotator[UInt8Image, Detections]`."""

    SIDE_PX = 512
    _STRIDE = 4

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {**_PARAMS, "side_px": self.SIDE_PX, "graph_sha256": CENTERNET_GRAPH.sha256}
        return AnnotatorSpec("centernet-mb3/1", "detection", CENTERNET.licence, CENTERNET.sha256, params)

    def load(self) -> None:
        self._session = open_tfjs(CENTERNET_GRAPH, CENTERNET, ["tower_0/keypoints", "tower_0/wh"])

    def _annotate_one(self, image: UInt8Image) -> Detections:
        small = cv2.resize(image, (self.SIDE_PX, self.SIDE_PX), interpolation=cv2.INTER_LINEAR)
        heat, sides = self._session.run(None, {"tower_0/images": small.astype(np.float32)[None]})
        heat_HWK = heat[0]
        best = heat_HWK.max(axis=-1)
        peaks = best == cv2.dilate(best, np.ones((3, 3), np.uint8))  # one centre for each hill of the best class
        y, x = np.nonzero(peaks & (best >= FLOOR))
        left, top, right, bottom = sides[0][y, x].T
        boxes = np.stack([x * self._STRIDE - left, y * self._STRIDE - top, x * self._STRIDE + right,
                          y * self._STRIDE + bottom], axis=-1)  # fmt: skip
        found = _detections(boxes / self.SIDE_PX, heat_HWK[y, x], image)
        everywhere = dict(zip(COCO_CLASSES, (round(float(score), 4) for score in heat_HWK.max(axis=(0, 1)))))
        return Detections(found.boxes, everywhere)


_PARAMS: Mapping[str, float | int | str] = {"floor": FLOOR, "max_boxes": MAX_BOXES, "same_box_iou": SAME_BOX_IOU}


def _detections(boxes: Points, scores_PK: Points, image: UInt8Image) -> Detections:
    """Keep one class for each box, the best box of each heap; `boxes` are fractions of the picture."""
    height, width = image.shape[:2]
    best = scores_PK.max(axis=-1, initial=0)
    order = np.flatnonzero(best >= FLOOR)
    order = order[np.argsort(-best[order], kind="stable")]
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.clip(boxes[order].astype(np.float64), 0, 1) * limits
    kept: list[Detection] = []
    for place, box in zip(order, clipped):
        corners = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        if min(corners[2] - corners[0], corners[3] - corners[1]) < 2 or len(kept) == MAX_BOXES:
            continue
        if all(box_iou(corners, other.box) < SAME_BOX_IOU for other in kept):
            kept.append(Detection(COCO_CLASSES[int(scores_PK[place].argmax())], float(best[place]), corners))
    everywhere = scores_PK.max(axis=0, initial=0)
    return Detections(tuple(kept), dict(zip(COCO_CLASSES, (round(float(score), 4) for score in everywhere))))


def box_iou(first: Box, second: Box) -> float:
    """Return intersection over union of two boxes; 0 for two empty ones."""
    shared = intersection(first, second)
    union = area(first) + area(second) - shared
    return shared / union if union > 0 else 0.0


def intersection(first: Box, second: Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def area(box: Box) -> float:
    """Return the area of a box in square pixels."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
