"""Depth from hub models: each says what its numbers are, and only metres may become a sample's depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cavendish.annotate.annotators.hub import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TORCH_WEIGHTS,
    HubModel,
    MapModel,
    normalised,
    resized_map,
    seed_of,
    size_of,
)
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Depth, DepthKind, OneByOne
from cavendish.encoders.codecs.normals import normals_from
from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.storage.place import read_json

_DEPTH_ANYTHING_SIDE, _DEPTH_ANYTHING_MULTIPLE = 518, 14


class DepthAnything(MapModel[Depth]):
    """Depth Anything V2 (and V1): relative checkpoints give *inverse* depth, metric ones metres.

    The library's pipeline calls both "depth in metres"; which it is stands in the checkpoint's configuration.
    Source: Yang et al., Depth Anything V2, NeurIPS 2024.
    """

    library_class = "DepthAnythingForDepthEstimation"

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("depth-anything/1", "depth", {"side_px": _DEPTH_ANYTHING_SIDE}, self._kind)

    @cached_property
    def _kind(self) -> DepthKind:
        config = read_json(self._model.folder / "config.json", "the configuration of a Depth Anything model")
        return "metric" if config.get("depth_estimation_type") == "metric" else "inverse"

    def prepare(self, image: UInt8Image) -> Tensor:
        """Resize to a shorter side of 518 pixels, both sides multiples of 14."""
        size = fitted_size(size_of(image), _DEPTH_ANYTHING_SIDE, _DEPTH_ANYTHING_MULTIPLE)
        return normalised(image, size, IMAGENET_MEAN, IMAGENET_STD, Image.Resampling.BICUBIC)

    def finish(self, out: Any, row: int, image: UInt8Image) -> Depth:
        """Bring the map to the size of the image."""
        return _depth(resized_map(out.predicted_depth[row], image, "bicubic"), self._kind)


def fitted_size(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """Return (height, width) near `size` scaled so that the shorter side is `side`, both rounded to a multiple."""
    scales = [side / length for length in size]
    scale = min(scales, key=lambda s: abs(1 - s))  # the library scales as little as it can
    height, width = (max(multiple, round(length * scale / multiple) * multiple) for length in size)
    return height, width


class DepthPro(MapModel[Depth]):
    """Depth Pro: metres, with a focal length of its own. Source: Bochkovskii et al., ICLR 2025."""

    library_class = "DepthProForDepthEstimation"

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("depth-pro/1", "depth", {"side_px": self._side}, "metric")

    @cached_property
    def _side(self) -> int:
        config = read_json(self._model.folder / "config.json", "the configuration of a Depth Pro model")
        patch, ratios = config.get("patch_size", 384), config.get("scaled_images_ratios", [0.25, 0.5, 1])
        return round(int(patch) / float(min(ratios)))

    def prepare(self, image: UInt8Image) -> Tensor:
        """Resize to the model's square, after normalising, as the library does."""
        normal = normalised(image, size_of(image), HALF, HALF)
        return torch.nn.functional.interpolate(normal, (self._side,) * 2, mode="bilinear", align_corners=False)

    def finish(self, out: Any, row: int, image: UInt8Image) -> Depth:
        """Scale inverse depth by the focal length, and turn it over."""
        inverse, focal_px = out.predicted_depth[row].float(), None
        if out.field_of_view is not None:
            width = image.shape[1]
            fov = torch.deg2rad(out.field_of_view.float().reshape(-1)[row])
            focal_px = float(0.5 * width / torch.tan(0.5 * fov))
            inverse = inverse * width / focal_px
        return _depth(1 / resized_map(inverse, image).clamp(1e-4, 1e4), "metric", focal_px)


class MarigoldDepth(OneByOne[UInt8Image, Depth]):
    """Marigold: depth up to a factor and an offset, with the spread of its ensemble as uncertainty.

    The noise is drawn from the pixels' hash, so that a run can be repeated. Source: Ke et al., CVPR 2024.
    """

    def __init__(self, model: HubModel, ensemble: int = 3, steps: int = 4) -> None:
        self._model = model
        self._ensemble, self._steps = ensemble, steps
        self._pipeline: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec(
            "marigold-depth/1", "depth", {"ensemble": self._ensemble, "steps": self._steps}, "affine"
        )

    def load(self) -> None:
        from diffusers import MarigoldDepthPipeline

        self._pipeline = self._model.read_pipeline(MarigoldDepthPipeline)

    def _annotate_one(self, image: UInt8Image) -> Depth:
        out = self._pipeline(
            Image.fromarray(image),
            ensemble_size=self._ensemble,
            num_inference_steps=self._steps,
            output_uncertainty=self._ensemble >= 3,
            generator=torch.Generator().manual_seed(seed_of(image)),
        )
        spread = None if out.uncertainty is None else np.asarray(out.uncertainty, np.float32).reshape(image.shape[:2])
        values = np.asarray(out.prediction, np.float32).reshape(image.shape[:2])
        return Depth(values, "affine", np.isfinite(values), uncertainty=spread)


class Tipsv2Depth(MapModel[Depth]):
    """TIPSv2 with a DPT head: metres by bins from 0.001 to 10 m, so indoors only. Source: TIPSv2 in transformers."""

    library_class = "Tipsv2DptForDepthEstimation"

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("tipsv2-depth/1", "depth", {"side_px": self._model.tipsv2_side()}, "metric")

    def prepare(self, image: UInt8Image) -> Tensor:
        """Resize to the model's square."""
        return normalised(image, (self._model.tipsv2_side(),) * 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def finish(self, out: Any, row: int, image: UInt8Image) -> Depth:
        """Bring the map to the size of the image."""
        return _depth(resized_map(out.predicted_depth[row], image), "metric")


class DepthAnything3(OneByOne[UInt8Image, Depth]):
    """Depth Anything 3 metric through its own package: canonical depth, in metres after a product with focal / 300.

    The package is optional and not installed by any extra here.
    """

    def __init__(self, model: HubModel, fov_deg: float, make: Callable[[HubModel], Any] | None = None) -> None:
        self._model, self._fov_deg = model, fov_deg
        self._make = make or _make_depth_anything_3
        self._net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("depth-anything-3/2", "depth", {"fov_deg": self._fov_deg}, "metric")

    def load(self) -> None:
        self._net = self._make(self._model)

    @torch.no_grad()
    def _annotate_one(self, image: UInt8Image) -> Depth:
        out = self._net.inference([image])  # several images would be views of one scene
        focal_px = 0.5 * image.shape[1] / math.tan(0.5 * math.radians(self._fov_deg))
        depth_m = resized_map(torch.as_tensor(np.asarray(out.depth[0], np.float32)), image) * (focal_px / 300)
        found = _depth(depth_m, "metric", focal_px)
        if getattr(out, "sky", None) is None:
            return found
        sky = resized_map(torch.as_tensor(np.asarray(out.sky[0], np.float32)), image).numpy() > 0.5  # it is filled in
        return replace(found, values=np.where(sky, np.float32(np.inf), found.values), valid=found.valid | sky)


def _make_depth_anything_3(model: HubModel) -> Any:
    try:
        from depth_anything_3.api import DepthAnything3 as Net
    except ImportError as error:
        raise InputError(f"depth-anything-3 is not installed ({error}); install its package to use it") from None
    return model.read(Net)


class MoGe2(OneByOne[UInt8Image, Depth]):
    """MoGe-2 through its own package: metres and normals at once; +inf marks what has no surface.

    Source: Wang et al., MoGe-2, 2025. The package is optional and not installed by any extra here.
    """

    def __init__(self, model: HubModel, make: Callable[[HubModel], Any] | None = None) -> None:
        self._model = model
        self._make = make or _make_moge
        self._net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("moge-2/1", "depth", {}, "metric")

    def load(self) -> None:
        self._net = self._make(self._model)

    @torch.no_grad()
    def _annotate_one(self, image: UInt8Image) -> Depth:
        x_CHW = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1).to(self._model.device)
        out = self._net.infer(x_CHW)
        values = out["depth"].float().cpu().numpy()
        focal_px = float(out["intrinsics"][0, 0]) * image.shape[1]  # in shares of the width
        # invalid pixels are +inf, which here would mean sky: they are not known instead
        valid = np.isfinite(values) & (values > 0)
        normals = normals_from(out["normal"].float().cpu().numpy(), "moge-2") if "normal" in out else None
        return Depth(values, "metric", valid, focal_px, normals=normals)


def _make_moge(model: HubModel) -> Any:
    try:
        from moge.model.v2 import MoGeModel
    except ImportError as error:
        raise InputError(f"moge is not installed ({error}); install its package to use it") from None
    return MoGeModel.from_pretrained(str(model.folder / TORCH_WEIGHTS)).to(model.device).eval()


def _depth(values: Tensor, kind: DepthKind, focal_px: float | None = None) -> Depth:
    array = values.float().cpu().numpy().astype(np.float32)
    valid = np.isfinite(array) & ((array > 0) if kind == "metric" else True)
    return Depth(array, kind, valid, focal_px)
