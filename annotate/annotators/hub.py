"""Models of a hub, downloaded beforehand: where they are, how they are read, pixels as they want them.

A model is a folder on disk with the commit it was downloaded at; nothing here touches the network, runs code of the
model's repository or reads pickles. The preparation of pixels is ours throughout, because that of the library needs
torchvision for half of these models; the tests compare it with the library's where it runs.
Shapes: N batch, C channel, H and W the size a model sees.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cavendish.annotate.annotators.protocol import AnnotatorSpec, DepthKind, Failure, Mask, in_batches
from cavendish.annotate.config import ModelFolder
from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import file_sha256, files_below, read_json

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
TORCH_WEIGHTS = "model.pt"  # of MoGe alone, whose package unpickles nothing but tensors from it
Result = TypeVar("Result")

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class HubModel(ModelFolder):
    """A downloaded model that can be read; its fields are those of `ModelFolder`."""

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        found: torch.dtype = getattr(torch, self.precision)
        return found

    def spec(
        self, id: str, task: str, params: Mapping[str, float | int | str], depth_kind: DepthKind | None = None
    ) -> AnnotatorSpec:
        """Say what an adapter makes of this model; hashes the weights, once in a process.

        Raises:
            InputError: no model in the folder.
        """
        told = {"repository": self.repository, "commit": self.commit, "precision": self.precision}
        return AnnotatorSpec(id, task, self.licence, weights_sha256(self.folder), {**told, **params}, depth_kind)

    def read(self, kind: Any, part: str = "") -> Any:
        """Load a model class from the folder, for inference on `device`.

        Raises:
            InputError: the folder does not hold such a model.
        """
        return self._from_folder(kind, part).eval().requires_grad_(False).to(self.device)

    def read_pipeline(self, kind: Any) -> Any:
        """Load a pipeline of diffusers from the folder.

        Raises:
            InputError: the folder does not hold one.
        """
        pipeline = self._from_folder(kind)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def _from_folder(self, kind: Any, part: str = "") -> Any:
        try:
            return kind.from_pretrained(
                self.folder / part, local_files_only=True, use_safetensors=True, torch_dtype=self.dtype
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"{self.folder / part}: not a {kind.__name__}: {one_line(error)}") from None

    def read_tokenizer(self, part: str = "") -> Any:
        """Load the tokenizer of the folder.

        Raises:
            InputError: there is none.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder / part, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.folder / part}: no tokenizer there: {one_line(error)}") from None

    def tipsv2_side(self) -> int:
        """Return the side in pixels that a TIPSv2 DPT model sees, of either head."""
        config = read_json(self.folder / "config.json", "the configuration of a TIPSv2 DPT model")
        return int(config.get("backbone_config", {}).get("image_size", 448))


class MapModel(ABC, Generic[Result]):
    """A model of transformers that draws a map of an image; images that it sees at one size are run together.

    A subclass names its class, and says what it is, how pixels go in, and how one row of the output becomes a result.
    """

    library_class: ClassVar[str]

    def __init__(self, model: HubModel) -> None:
        self._model = model
        self._net: Any = None

    @property
    @abstractmethod
    def spec(self) -> AnnotatorSpec:
        """Say what this is."""

    @abstractmethod
    def prepare(self, image: UInt8Image) -> Tensor:
        """Make the input of one image: (1, 3, H, W) float32."""

    @abstractmethod
    def finish(self, out: Any, row: int, image: UInt8Image) -> Result:
        """Read the result of one image from a row of the model's output."""

    def load(self) -> None:
        """Read the weights; see `Annotator.load`."""
        self._net = self._model.read(getattr(import_module("transformers"), self.library_class))

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Result | Failure]:
        """Draw the map of each image; see `Annotator.annotate`."""
        return in_batches(self.prepare, self._run, queries, self._model.batch)

    @torch.no_grad()
    def _run(self, images: Sequence[UInt8Image], prepared: Sequence[Tensor]) -> list[Result]:
        out = self._net(torch.cat(list(prepared)).to(self._model.device, self._model.dtype))
        return [self.finish(out, row, image) for row, image in enumerate(images)]


@cache
def weights_sha256(folder: Path) -> str:
    """Return the hash of the sorted hashes of a model's configuration and weight files.

    Raises:
        InputError: no safetensors there; of pickled weights only MoGe's are read, and of them tensors only.
    """
    read = (".safetensors", ".json", ".txt", ".model")
    files = [name for name in files_below(folder) if name.endswith((*read, TORCH_WEIGHTS))]
    if not any(name.endswith((".safetensors", TORCH_WEIGHTS)) for name in files):
        raise InputError(f"{folder}: no *.safetensors there; download the model to this folder")
    return digest({name: file_sha256(folder / name) for name in files})


def seed_of(image: UInt8Image) -> int:
    """Return a seed that depends on the pixels alone, for models that draw noise."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:6], "big")


def normalised(
    image: UInt8Image,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Tensor:
    """Resize to (height, width) and normalise: (1, 3, H, W) float32.

    Raises:
        ValueError: an empty picture.
    """
    if not image.size:
        raise ValueError("the picture is empty")
    resized = image
    if image.shape[:2] != size:
        resized = np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))
    unit = resized.astype(np.float32) / 255
    values = (unit - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def resized_map(map_HW: Tensor, image: UInt8Image, mode: str = "bilinear") -> Tensor:
    """Bring a (H, W) or (C, H, W) map to the picture's size."""
    flat = map_HW.ndim == 2
    batch = map_HW.float()[None, None] if flat else map_HW.float()[None]
    done = F.interpolate(batch, size=image.shape[:2], mode=mode, align_corners=False)
    return done[0, 0] if flat else done[0]


def size_of(image: UInt8Image) -> tuple[int, int]:
    """Return (height, width)."""
    return image.shape[0], image.shape[1]


def clipped_box(corners: Sequence[float], image: UInt8Image) -> tuple[float, float, float, float] | None:
    """Return a box cut to the picture, None when nothing of it is inside: models do draw boxes beyond the edge."""
    height, width = image.shape[:2]
    x0, x1 = (min(max(float(x), 0.0), float(width)) for x in (corners[0], corners[2]))
    y0, y1 = (min(max(float(y), 0.0), float(height)) for y in (corners[1], corners[3]))
    return (x0, y0, x1, y1) if x1 - x0 >= 1 and y1 - y0 >= 1 else None


def as_mask(probability: Tensor, threshold: float) -> Mask:
    """Return (H, W) bool."""
    mask: Mask = (probability > threshold).cpu().numpy()
    return mask
