"""What a run asks of hub models: which adapter of which downloaded model plays which part.

Nothing here imports torch, so that a run without hub models does not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cavendish.mixing.config import Config

Sign = Literal[-1, 1]
OBJECT_QUESTION = (
    "Name the object in the red box in a few words that fit nothing else in this picture. Answer with these words only."
)


class ModelFolder(Config):
    """A model of a hub, as it was downloaded.

    Args:
        folder: the downloaded snapshot: config.json, *.safetensors, tokenizer files. It is not part of a run's plan:
            the hash of what it holds is.
        repository: its name on the hub, for the record.
        commit: the full commit it was downloaded at, for the record; names and tags move, commits do not.
        licence: of the weights, SPDX or the licence's own name; a run's `allowed_licences` must have it.
        device, precision: where and how it runs; half precision changes results.
    """

    folder: Path = Field(exclude=True)
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    licence: str
    device: str = "cpu"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"


class PlainDepthModel(ModelFolder):
    """A depth model without settings."""

    adapter: Literal["depth_anything", "depth_pro", "tipsv2_depth", "depth_anything_3", "moge_2"]


class MarigoldDepthModel(ModelFolder):
    """Marigold depth: how many times it is run, with how many steps of its diffusion."""

    adapter: Literal["marigold_depth"]
    ensemble: int = Field(default=3, ge=1, le=20)
    steps: int = Field(default=4, ge=1, le=50)


class MarigoldNormalsModel(ModelFolder):
    """Marigold normals; `signs` are what x, y and z are multiplied by to get +x right, +y up, +z to the viewer."""

    adapter: Literal["marigold_normals"]
    ensemble: int = Field(default=3, ge=1, le=20)
    steps: int = Field(default=4, ge=1, le=50)
    signs: tuple[Sign, Sign, Sign] = (1, 1, 1)


class PlainNormalsModel(ModelFolder):
    """A normals model with no setting but the signs of its axes, see `MarigoldNormalsModel`."""

    adapter: Literal["sapiens2_normals", "tipsv2_normals"]
    signs: tuple[Sign, Sign, Sign] = (1, 1, 1)


class GroundingDinoModel(ModelFolder):
    """Grounding DINO or MM Grounding DINO; boxes with a lower score are not listed."""

    adapter: Literal["grounding_dino"]
    threshold: float = Field(default=0.25, ge=0, le=1)


class Owlv2Model(ModelFolder):
    """OWLv2; boxes with a lower score are not listed."""

    adapter: Literal["owlv2"]
    threshold: float = Field(default=0.2, ge=0, le=1)


class Sam2Model(ModelFolder):
    """SAM 2.1: masks of boxes."""

    adapter: Literal["sam2"]


class Sam3Model(ModelFolder):
    """SAM 3: masks of phrases; those with a lower score are not listed."""

    adapter: Literal["sam3"]
    threshold: float = Field(default=0.5, ge=0, le=1)


class Florence2Model(ModelFolder):
    """Florence-2, which describes the whole picture."""

    adapter: Literal["florence_2"]
    max_tokens: int = Field(default=100, ge=1, le=1000)


class Qwen3VLModel(ModelFolder):
    """Qwen3-VL, which answers questions: about the whole picture, and about an object in a box."""

    adapter: Literal["qwen3_vl"]
    question: str = "Describe this picture in one sentence."
    object_question: str = OBJECT_QUESTION
    max_tokens: int = Field(default=80, ge=1, le=1000)


Boxes = Annotated[GroundingDinoModel | Owlv2Model, Field(discriminator="adapter")]


class HubConfig(Config):
    """Which hub models take part, and as what; each is optional.

    Args:
        depth: gives `depth_m` when its kind is "metric"; of other kinds only the kind is noted.
        normals: gives `normals`.
        captions: adds a caption after that of the source.
        categories: what `detectors` look for; also what is called absent when no detector gives it a chance.
        detectors: take the place of the offline detectors; with several, all must agree, as `objects` says.
        masks: takes the place of box and saliency in cutting out objects.
        grounder: finds phrases in the picture: it must lead what `captions` calls an object back to that object's mask.
            One that gives boxes needs `masks`. It must also find none of the `categories` that are called absent.
        min_cycle_iou: of the mask the grounder finds with the object's own.
        check_conventions: try depth and normals models on a picture of known geometry before the run starts.
    """

    depth: Annotated[PlainDepthModel | MarigoldDepthModel, Field(discriminator="adapter")] | None = None
    normals: Annotated[MarigoldNormalsModel | PlainNormalsModel, Field(discriminator="adapter")] | None = None
    captions: Annotated[Florence2Model | Qwen3VLModel, Field(discriminator="adapter")] | None = None
    categories: tuple[str, ...] = ()
    detectors: tuple[Boxes, ...] = ()
    masks: Sam2Model | None = None
    grounder: Annotated[GroundingDinoModel | Owlv2Model | Sam3Model, Field(discriminator="adapter")] | None = None
    min_cycle_iou: float = Field(default=0.7, gt=0, le=1)
    check_conventions: bool = True

    @model_validator(mode="after")
    def _parts_fit(self) -> HubConfig:
        if bool(self.detectors) != bool(self.categories):
            raise ValueError("detectors and categories go together: one says who looks, the other for what")
        if len({name.casefold() for name in self.categories}) < len(self.categories):
            raise ValueError("categories has the same name twice")
        if self.grounder is not None and not isinstance(self.grounder, Sam3Model) and self.masks is None:
            raise ValueError(
                f"the grounder {self.grounder.adapter} gives boxes; masks must name a model to cut them out"
            )
        if self.grounder is not None and not (isinstance(self.captions, Qwen3VLModel) or self.categories):
            raise ValueError("the grounder has nothing to ground: captions must be a qwen3_vl, or categories be given")
        return self


AnyModel = Any
"""One of the classes above with an `adapter`."""
