"""Surface normals from hub models, brought to camera space: +x right, +y up, +z toward the viewer.

Conventions differ between models and are not written into their files. Each adapter has signs to apply, and
`annotate.labels.conventions` tries them on a picture of known geometry before a run believes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cavendish.annotate.annotators.hub import IMAGENET_MEAN, IMAGENET_STD, HubModel, normalised, resized_map, seed_of
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Failure, Normals, each
from cavendish.encoders.sample import UInt8Image

Signs = tuple[int, int, int]
"""What x, y and z of a model's normals are multiplied by to get ours."""


class MarigoldNormals:
    """Marigold normals; x right, y up, z toward the viewer already. Source: Ke et al., CVPR 2024."""

    def __init__(self, model: HubModel, ensemble: int = 3, steps: int = 4, signs: Signs = (1, 1, 1)) -> None:
        self._model = model
        self._ensemble, self._steps, self._signs = ensemble, steps, signs
        self._pipeline: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is."""
        return self._model.spec(
            "marigold-normals/1",
            "normals",
            {"ensemble": self._ensemble, "steps": self._steps, "signs": _told(self._signs)},
        )

    def load(self) -> None:
        """Read the weights; see `Annotator.load`."""
        from diffusers import MarigoldNormalsPipeline

        self._pipeline = self._model.read_pipeline(MarigoldNormalsPipeline)

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Normals | Failure]:
        """Estimate the normals of each image; see `Annotator.annotate`."""
        return each(self._annotate_one, queries)

    def _annotate_one(self, image: UInt8Image) -> Normals:
        out = self._pipeline(
            Image.fromarray(image),
            ensemble_size=self._ensemble,
            num_inference_steps=self._steps,
            generator=torch.Generator().manual_seed(seed_of(image)),
        )
        return _normals(torch.as_tensor(np.asarray(out.prediction, np.float32)[0]).permute(2, 0, 1), self._signs)


class Sapiens2Normals:
    """Sapiens2 normals, made for people; the picture is fitted into 1024 x 768 and padded. Source: Meta, Sapiens2."""

    def __init__(self, model: HubModel, signs: Signs = (1, 1, 1), size: tuple[int, int] = (1024, 768)) -> None:
        self._model = model
        self._signs, self._size = signs, size
        self._net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is."""
        height, width = self._size
        return self._model.spec(
            "sapiens2-normals/1", "normals", {"signs": _told(self._signs), "height_px": height, "width_px": width}
        )

    def load(self) -> None:
        """Read the weights; see `Annotator.load`."""
        from transformers import Sapiens2ForNormalEstimation

        self._net = self._model.read(Sapiens2ForNormalEstimation)

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Normals | Failure]:
        """Estimate the normals of each image; see `Annotator.annotate`."""
        return each(self._annotate_one, queries)

    @torch.no_grad()
    def _annotate_one(self, image: UInt8Image) -> Normals:
        scale = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        inner = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        top, left = (self._size[0] - inner[0]) // 2, (self._size[1] - inner[1]) // 2
        black = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        x_NCHW = black.view(1, 3, 1, 1).repeat(1, 1, *self._size)
        x_NCHW[..., top : top + inner[0], left : left + inner[1]] = normalised(
            image, inner, IMAGENET_MEAN, IMAGENET_STD
        )
        out = self._net(x_NCHW.to(self._model.device, self._model.dtype)).normals.float()
        unit = F.normalize(F.interpolate(out, self._size, mode="bilinear", align_corners=False), dim=1)[0]
        inside = unit[:, top : top + inner[0], left : left + inner[1]]
        return _normals(resized_map(inside, image), self._signs)


class Tipsv2Normals:
    """TIPSv2 with a DPT head for normals."""

    def __init__(self, model: HubModel, signs: Signs = (1, 1, 1)) -> None:
        self._model = model
        self._signs = signs
        self._net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is."""
        return self._model.spec(
            "tipsv2-normals/1", "normals", {"signs": _told(self._signs), "side_px": self._model.tipsv2_side()}
        )

    def load(self) -> None:
        """Read the weights; see `Annotator.load`."""
        from transformers import Tipsv2DptForNormalEstimation

        self._net = self._model.read(Tipsv2DptForNormalEstimation)

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Normals | Failure]:
        """Estimate the normals of each image; see `Annotator.annotate`."""
        return each(self._annotate_one, queries)

    @torch.no_grad()
    def _annotate_one(self, image: UInt8Image) -> Normals:
        side = self._model.tipsv2_side()
        x_NCHW = normalised(image, (side, side), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        out = self._net(x_NCHW.to(self._model.device, self._model.dtype)).normals.float()
        return _normals(resized_map(F.normalize(out, dim=1)[0], image), self._signs)


def _told(signs: Signs) -> str:
    return " ".join(f"{sign:+d}" for sign in signs)


def _normals(map_CHW: Tensor, signs: Signs) -> Normals:
    """Apply the signs and make unit vectors; where a model says nothing they stay (0, 0, 0)."""
    signed = map_CHW.float().cpu() * torch.tensor(signs, dtype=torch.float32).view(3, 1, 1)
    return Normals(np.ascontiguousarray(F.normalize(signed, dim=0, eps=1e-6).permute(1, 2, 0).numpy()))
