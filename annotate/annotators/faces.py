"""Faces, to be blurred or dropped: CenterFace (Xu et al. 2020). It finds places, it recognises nobody."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from cavendish.annotate.annotators.detection import box_iou
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Detection, Detections, OneByOne
from cavendish.annotate.annotators.sessions import open_session
from cavendish.annotate.weights import CENTERFACE, find_weights
from cavendish.encoders.sample import UInt8Image

MAX_SIDE_PX = 1024
MIN_SCORE = 0.4
SAME_FACE_IOU = 0.3
_STRIDE = 4
_OUTPUTS = ("537", "538", "539")  # heat, size, offset; the landmarks are not computed


class CenterFace(OneByOne[UInt8Image, Detections]):
    """CenterFace behind `Annotator[UInt8Image, Detections]`; the only label is "face"."""

    _session: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        params = {"max_side_px": MAX_SIDE_PX, "min_score": MIN_SCORE, "same_face_iou": SAME_FACE_IOU}
        return AnnotatorSpec("centerface/1", "faces", CENTERFACE.licence, CENTERFACE.sha256, params)

    def load(self) -> None:
        import onnx

        model = onnx.load_model_from_string(find_weights(CENTERFACE).read_bytes())
        for value in (*model.graph.input, *model.graph.output):  # exported for ten pictures of 32 x 32 only
            for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
                if axis != 1 and value.name in ("input.1", *_OUTPUTS, "540"):
                    dimension.Clear()
        self._session = open_session(model.SerializeToString())

    def _annotate_one(self, image: UInt8Image) -> Detections:
        height, width = image.shape[:2]
        shrink = min(1.0, MAX_SIDE_PX / max(height, width))
        size = [max(32, 32 * round(side * shrink / 32)) for side in (width, height)]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR)
        x_NCHW = np.ascontiguousarray(small.astype(np.float32).transpose(2, 0, 1)[None])
        heat, extent, offset = self._session.run(list(_OUTPUTS), {"input.1": x_NCHW})
        y, x = np.nonzero(heat[0, 0] >= MIN_SCORE)
        scores = heat[0, 0, y, x]
        half_h, half_w = np.exp(extent[0][:, y, x].astype(np.float64)) * _STRIDE / 2
        centre_y, centre_x = (np.stack([y, x]) + offset[0][:, y, x] + 0.5) * _STRIDE
        boxes = np.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], axis=-1)
        boxes = np.clip(boxes / np.tile(size, 2), 0, 1) * (width, height, width, height)
        kept: list[Detection] = []
        for place in np.argsort(-scores, kind="stable"):
            x0, y0, x1, y1 = (float(value) for value in boxes[place])
            if all(box_iou((x0, y0, x1, y1), other.box) < SAME_FACE_IOU for other in kept):
                kept.append(Detection("face", float(scores[place]), (x0, y0, x1, y1)))
        return Detections(tuple(kept), {"face": round(float(heat.max()), 4)})


def blur_faces(image: UInt8Image, faces: Detections) -> UInt8Image:
    """Return a copy in which every face, with a fifth around it, is too coarse to be known again."""
    blurred = image.copy()
    for face in faces.boxes:
        x0, y0, x1, y1 = face.box
        margin_x, margin_y = (x1 - x0) / 5, (y1 - y0) / 5
        left, top = max(0, int(x0 - margin_x)), max(0, int(y0 - margin_y))
        patch = blurred[top : int(np.ceil(y1 + margin_y)), left : int(np.ceil(x1 + margin_x))]
        if patch.size:
            coarse = cv2.resize(patch, (6, 6), interpolation=cv2.INTER_AREA)  # nothing of it is finer than a sixth
            patch[:] = cv2.resize(coarse, patch.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return blurred
