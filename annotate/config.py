"""The configuration of an annotation run: sources, licences, gates, thresholds, and which hub models take part.

Nothing here imports torch, so that a run without hub models does not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cavendish.mixing.config import Config
from cavendish.mixing.sources.listing import SourceConfig

Sign = Literal[-1, 1]
PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT")
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
        device: where it runs; no part of the plan.
        batch: images run together, of models that can; results differ in the last digits with it.
        precision: half precision changes results.
    """

    folder: Path = Field(exclude=True)
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    licence: str
    device: str = Field(default="cpu", exclude=True)
    batch: int = Field(default=8, ge=1)
    precision: Literal["float32", "float16", "bfloat16"] = "float32"


class PlainDepthModel(ModelFolder):
    """A depth model without settings."""

    adapter: Literal["depth_anything", "depth_pro", "tipsv2_depth", "moge_2"]


class DepthAnything3Model(ModelFolder):
    """Depth Anything 3 metric, which turns into metres by the focal length: that of a horizontal field of view."""

    adapter: Literal["depth_anything_3"]
    fov_deg: float = Field(gt=1, lt=170)


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
DepthModel = Annotated[PlainDepthModel | MarigoldDepthModel | DepthAnything3Model, Field(discriminator="adapter")]


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

    depth: (
        Annotated[PlainDepthModel | MarigoldDepthModel | DepthAnything3Model, Field(discriminator="adapter")] | None
    ) = None
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


class MaskThresholds(Config):
    """What a mask must reach to be kept; docs/annotation.md has the scores these come from.

    Args:
        min_area, max_area: share of the picture.
        min_edge_align: see `edge_align`.
        min_colour_sep: see `colour_separation`.
        min_flip_iou, min_scale_iou: agreement of the model with itself on the mirrored and the smaller picture.
        max_uncertain: undecided pixels (probability 0.2 to 0.8), as a share of the mask's area.
    """

    min_area: float = Field(default=0.01, ge=0, le=1)
    max_area: float = Field(default=0.85, ge=0, le=1)
    min_edge_align: float = Field(default=0.6, ge=0, le=1)
    min_colour_sep: float = Field(default=0.25, ge=0)
    min_flip_iou: float = Field(default=0.7, ge=0, le=1)
    min_scale_iou: float = Field(default=0.55, ge=0, le=1)
    max_uncertain: float = Field(default=0.8, ge=0)


class ObjectThresholds(Config):
    """When an object is believed; docs/annotation.md has the pictures these come from.

    Args:
        min_score: geometric mean of its scores in the four views (two detectors, plain and mirrored).
        min_iou: of its box in the first view with those in the others.
        contested: more of its class, seen with this score in two views, or with half as much again in one, leaves the
            class out of the picture.
        max_absent: a class whose best score stays under this in every view is called absent.
        max_objects: more in one picture are a crowd: none is kept.
        min_box_iou: of the mask's own box with the detectors'.
        min_flip_iou, min_scale_iou: of the mask with that of the mirrored crop, of a wider crop.
        min_edge_align, min_colour_sep: see `annotate.labels.quality`.
        min_main_part: share of the mask that hangs together; a table "cut out" as the coins on it does not.
        max_overlap: of two masks, as a share of the smaller; beyond it neither is believed.
    """

    min_score: float = Field(default=0.45, ge=0, le=1)
    min_iou: float = Field(default=0.6, ge=0, le=1)
    contested: float = Field(default=0.3, ge=0, le=1)
    max_absent: float = Field(default=0.06, ge=0, le=1)
    max_objects: int = Field(default=8, ge=1, le=60)
    min_box_iou: float = Field(default=0.7, ge=0, le=1)
    min_flip_iou: float = Field(default=0.8, ge=0, le=1)
    min_scale_iou: float = Field(default=0.8, ge=0, le=1)
    min_edge_align: float = Field(default=0.6, ge=0, le=1)
    min_colour_sep: float = Field(default=0.25, ge=0)
    min_main_part: float = Field(default=0.7, ge=0, le=1)
    max_overlap: float = Field(default=0.1, ge=0, le=1)


class LabelConfig(Config):
    """What is looked for in every picture, and what a label must reach to be kept.

    Args:
        mask: thresholds of the main subject's mask; null: none is looked for.
        objects: thresholds of objects with a class; null: none are looked for.
        faces: what becomes of pictures with faces: "blur" makes them unrecognisable, "drop" rejects the picture, "keep"
            only counts them, "ignore" does not look.
        max_nsfw: pictures with a higher score are rejected; null: not looked at.
        max_text: pictures with more writing, as a share of their area, are rejected; null: not looked at.
        dropped_masks: what becomes of a picture without any mask that passes, and without depth or normals: "reject"
            leaves it out; "keep_picture" keeps it with its caption, for generation; without a caption it is left out.
        hub: models of a hub that add depth, normals, captions, objects and phrases; null: none.
    """

    mask: MaskThresholds | None = MaskThresholds()
    objects: ObjectThresholds | None = ObjectThresholds()
    faces: Literal["blur", "drop", "keep", "ignore"] = "blur"
    max_nsfw: float | None = Field(default=0.5, ge=0, le=1)
    max_text: float | None = Field(default=0.25, ge=0, le=1)
    dropped_masks: Literal["reject", "keep_picture"] = "reject"
    hub: HubConfig | None = None

    @model_validator(mode="after")
    def _objects_have_thresholds(self) -> LabelConfig:
        if self.hub is not None and self.hub.detectors and self.objects is None:
            raise ValueError("hub.detectors look for objects, so objects must hold their thresholds")
        return self


class AnnotateConfig(LabelConfig):
    """What to annotate, under which licences, and (see `LabelConfig`) what is looked for.

    Args:
        sources: collections of images, in order.
        max_side_px: larger pictures are reduced to this longer side, by area averaging.
        images_per_shard: one shard is one unit of work.
        check_inputs: how a changed input is noticed on a restart: by the "sha256" of every file, or, for collections
            too large to read twice, by its "size".
        allowed_licences: of the weights; an annotator under another one stops the run before it starts.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    max_side_px: int = Field(default=1024, ge=128, le=4096)
    images_per_shard: int = Field(default=100, ge=1, le=10_000)
    check_inputs: Literal["sha256", "size"] = "sha256"
    allowed_licences: tuple[str, ...] = PERMISSIVE

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name; keys would not be unique")
        return sources
