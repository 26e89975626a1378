"""Whether a picture is pornographic: Open-NSFW (Yahoo 2016), a gate before anything else."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from cavendish.annotate.annotators.protocol import AnnotatorSpec, OneByOne, Scores
from cavendish.annotate.annotators.sessions import open_onnx
from cavendish.annotate.weights import OPEN_NSFW
from cavendish.encoders.sample import UInt8Image

_RESIZED_PX, _CROP_PX, _JPEG_QUALITY = 256, 224, 75
_BGR_MEAN = np.array([104.0, 117.0, 123.0], np.float32)


class OpenNsfw(OneByOne[UInt8Image, Scores]):
    """Open-NSFW behind `Annotator[UInt8Image, Scores]`; the one score is "nsfw": under 0.2 safe, over 0.8 not."""

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {"resized_px": _RESIZED_PX, "crop_px": _CROP_PX, "jpeg_quality": _JPEG_QUALITY}
        return AnnotatorSpec("open-nsfw/1", "nsfw", OPEN_NSFW.licence, OPEN_NSFW.sha256, params)

    def load(self) -> None:
        self._session = open_onnx(OPEN_NSFW)

    def _annotate_one(self, image: UInt8Image) -> Scores:
        """Score one image through the steps the net was trained with, a pass through JPEG among them."""
        bgr = cv2.resize(image, (_RESIZED_PX, _RESIZED_PX), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        edge = (_RESIZED_PX - _CROP_PX) // 2
        crop = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[edge : edge + _CROP_PX, edge : edge + _CROP_PX]
        x_NHWC = (crop.astype(np.float32) - _BGR_MEAN)[None]
        (y_NK,) = self._session.run(None, {self._session.get_inputs()[0].name: x_NHWC})
        return Scores({"nsfw": float(y_NK[0, 1])})
