"""Surface normals from hub models, brought to camera space: +x right, +y up, +z toward the viewer.

Conventions differ between models and are not written into their files. Each adapter has signs to apply, and
`annotate.labels.conventions` tries them on a picture of known geometry before a run believes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cavendish.annotate.annotators.hub import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    HubModel,
    MapModel,
    normalised,
    resized_map,
    seed_of,
    size_of,
)
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Normals, OneByOne
from cavendish.encoders.sample import UInt8Image

Signs = tuple[int, int, int]
"""What x, y and z of a model's normals are multiplied by to get ours."""


class MarigoldNormals(OneByOne[UInt8Image, Normals]):
    """Marigold normals; x right, y up, z toward the viewer already. Source: Ke et al., CVPR 2024."""

    def __init__(self, model: HubModel, ensemble: int = 3, steps: int = 4, signs: Signs = (1, 1, 1)) -> None:
        self._model = model
        self._ensemble, self._steps, self._signs = ensemble, steps, signs
        self._pipeline: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec(
            "marigold-normals/1",
            "normals",
            {"ensemble": self._ensemble, "steps": self._steps, "signs": _told(self._signs)},
        )

    def load(self) -> None:
        from diffusers import MarigoldNormalsPipeline

        self._pipeline = self._model.read_pipeline(MarigoldNormalsPipeline)

    def _annotate_one(self, image: UInt8Image) -> Normals:
        out = self._pipeline(
            Image.fromarray(image),
            ensemble_size=self._ensemble,
            num_inference_steps=self._steps,
            generator=torch.Generator().manual_seed(seed_of(image)),
        )
        return _normals(torch.as_tensor(np.asarray(out.prediction, np.float32)[0]).permute(2, 0, 1), self._signs)


class Sapiens2Normals(MapModel[Normals]):
    """Sapiens2 normals, made for people; the image is fitted into 1024 x 768 and padded. Source: Meta, Sapiens2."""

    library_class = "Sapiens2ForNormalEstimation"

    def __init__(self, model: HubModel, signs: Signs = (1, 1, 1), size: tuple[int, int] = (1024, 768)) -> None:
        super().__init__(model)
        self._signs, self._size = signs, size

    @property
    def spec(self) -> AnnotatorSpec:
        height, width = self._size
        return self._model.spec(
            "sapiens2-normals/1", "normals", {"signs": _told(self._signs), "height_px": height, "width_px": width}
        )

    def _inside(self, image: UInt8Image) -> tuple[slice, slice]:
        """Return the rows and columns of the padded input that the image fills."""
        scale = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        height, width = (max(1, round(length * scale)) for length in size_of(image))
        top, left = (self._size[0] - height) // 2, (self._size[1] - width) // 2
        return slice(top, top + height), slice(left, left + width)

    def prepare(self, image: UInt8Image) -> Tensor:
        """Fit the image into the model's size, on black."""
        rows, columns = self._inside(image)
        black = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        x_NCHW = black.view(1, 3, 1, 1).repeat(1, 1, *self._size)
        inner = (rows.stop - rows.start, columns.stop - columns.start)
        x_NCHW[..., rows, columns] = normalised(image, inner, IMAGENET_MEAN, IMAGENET_STD)
        return x_NCHW

    def finish(self, out: Any, row: int, image: UInt8Image) -> Normals:
        """Cut the padding off, and bring the map to the size of the image."""
        full = F.interpolate(out.normals[row : row + 1].float(), self._size, mode="bilinear", align_corners=False)
        return _normals(resized_map(F.normalize(full, dim=1)[0][:, *self._inside(image)], image), self._signs)


class Tipsv2Normals(MapModel[Normals]):
    """TIPSv2 with a DPT head for normals."""

    library_class = "Tipsv2DptForNormalEstimation"

    def __init__(self, model: HubModel, signs: Signs = (1, 1, 1)) -> None:
        super().__init__(model)
        self._signs = signs

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec(
            "tipsv2-normals/1", "normals", {"signs": _told(self._signs), "side_px": self._model.tipsv2_side()}
        )

    def prepare(self, image: UInt8Image) -> Tensor:
        """Resize to the model's square."""
        return normalised(image, (self._model.tipsv2_side(),) * 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def finish(self, out: Any, row: int, image: UInt8Image) -> Normals:
        """Bring the map to the size of the image."""
        return _normals(resized_map(F.normalize(out.normals[row].float(), dim=0), image), self._signs)


def _told(signs: Signs) -> str:
    return " ".join(f"{sign:+d}" for sign in signs)


def _normals(map_CHW: Tensor, signs: Signs) -> Normals:
    """Apply the signs and make unit vectors; where a model says nothing they stay (0, 0, 0)."""
    signed = map_CHW.float().cpu() * torch.tensor(signs, dtype=torch.float32).view(3, 1, 1)
    return Normals(np.ascontiguousarray(F.normalize(signed, dim=0, eps=1e-6).permute(1, 2, 0).numpy()))
