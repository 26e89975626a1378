"""What to render: the one configuration that the job, its child process and each view read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from cavendish.mixing.config import Config
from cavendish.render.assets.folders import AssetsConfig
from cavendish.render.scenes.presets import PRESETS, Hour, Kind, Lens, PresetName

EditKind = Literal["recolor", "remove", "move", "replace"]
Share = Annotated[float, Field(ge=0, le=1)]


class RealismConfig(Config):
    """Share of the images that each step of a real camera is applied to; see `render.camera`."""

    sensor_noise: Share = 0.0
    motion_blur: Share = 0.0
    vignette: Share = 0.0
    white_balance: Share = 0.0
    jpeg: Share = 0.0
    lens_distortion: Share = 0.0


class RenderConfig(Config):
    """What to render. See examples/render_blender.yaml for every key with a comment."""

    engine: Literal["blender", "pyrender"]
    seed: Annotated[int, Field(ge=0)]
    scenes: PositiveInt
    scenes_per_shard: PositiveInt = 12
    width: Annotated[int, Field(ge=32, le=4096)] = 256
    height: Annotated[int, Field(ge=32, le=4096)] = 256
    samples: Annotated[int, Field(ge=1, le=4096)] = 8
    preset: PresetName | None = None
    kinds: dict[Kind, PositiveFloat] = Field(default={"room": 0.45, "table top": 0.25, "outdoor": 0.3}, min_length=1)
    lenses: dict[Lens, PositiveFloat] = Field(default_factory=dict)
    hours: dict[Hour, PositiveFloat] = Field(default_factory=dict)
    edits: Share = 0.5
    views_per_scene: Annotated[int, Field(ge=1, le=100)] = 1
    depth_of_field: Share = 0.0
    realism: RealismConfig = RealismConfig()
    albedo: bool = False
    geometric_normals: bool = False
    cross_check: bool = False
    edit_kinds: dict[EditKind, PositiveFloat] = Field(
        default={"recolor": 0.3, "remove": 0.25, "move": 0.25, "replace": 0.2}, min_length=1
    )
    assets: AssetsConfig | None = None
    max_model_kb: PositiveInt = 2000
    attempts: PositiveInt = 12
    start_timeout_s: PositiveFloat = 180.0
    request_timeout_s: PositiveFloat = 300.0
    recycle_after: PositiveInt = 300
    max_memory_mb: PositiveInt = 6000

    @field_validator("kinds", "lenses", "hours", "edit_kinds")
    @classmethod
    def _in_order(cls, weights: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        """Put weights in one order: draws go by it, and a plan's digest does not know that of a file."""
        names = get_args({"kinds": Kind, "lenses": Lens, "hours": Hour, "edit_kinds": EditKind}[str(info.field_name)])
        return {name: weights[name] for name in names if name in weights}

    @model_validator(mode="after")
    def _blender_for_depth_of_field(self) -> RenderConfig:
        if self.depth_of_field > 0 and self.engine != "blender":
            raise ValueError("depth_of_field: only engine blender blurs what is out of focus; set it to 0")
        return self

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        """Let a preset say which kinds, lenses and hours, instead of those keys."""
        if not isinstance(values, dict) or values.get("preset") not in PRESETS:
            return values
        preset = PRESETS[values["preset"]]
        return {**values, "kinds": dict(preset.kinds), "lenses": dict(preset.lenses), "hours": dict(preset.hours)}

    def view_key(self, shard: int, index: int, view: int = 0) -> str:
        """Return the key of a sample: that of its scene, numbered where a scene has several views."""
        key = self.scene_key(shard, index)
        return f"{key}-v{view:02d}" if self.views_per_scene > 1 else key

    def scene_key(self, shard: int, index: int) -> str:
        """Return what the views of a scene share."""
        return f"{self.engine}-{self.seed}-{shard * self.scenes_per_shard + index:06d}"


@dataclass(frozen=True)
class ViewRequest:
    """One view of a job: scene `index` of a shard at its `attempt`, seen by its first camera or by a further one.

    Args:
        view: 0 for the camera that the scene was drawn with; each further one has a `view_attempt` of its own.
    """

    shard: int
    index: int
    attempt: int = 0
    view: int = 0
    view_attempt: int = 0
