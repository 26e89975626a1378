"""Puts things where they can be: boxes that never meet, each resting on the floor or on another thing's flat top."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.draws import one_of
from cavendish.render.assets.catalogue import model_info
from cavendish.render.geometry.models import model_top
from cavendish.render.scenes.recipe import Material, Rgb, Texture, Thing, Vec3

GAP_M = 0.0005
"""What rests on a thing stands this far above it, so that no two surfaces are the same plane."""

PAINTS: Mapping[str, Rgb] = {
    "red": (0.68, 0.05, 0.06),
    "orange": (0.93, 0.40, 0.04),
    "yellow": (0.95, 0.77, 0.08),
    "green": (0.10, 0.42, 0.14),
    "blue": (0.08, 0.22, 0.66),
    "purple": (0.38, 0.10, 0.52),
    "pink": (0.95, 0.52, 0.66),
    "brown": (0.34, 0.18, 0.08),
    "white": (0.94, 0.94, 0.93),
    "black": (0.035, 0.035, 0.04),
    "gray": (0.46, 0.46, 0.46),
}
MUTED: tuple[Rgb, ...] = (
    (0.12, 0.20, 0.36), (0.55, 0.60, 0.52), (0.72, 0.64, 0.52), (0.20, 0.42, 0.44), (0.62, 0.30, 0.22),
    (0.82, 0.78, 0.70), (0.36, 0.38, 0.42), (0.78, 0.60, 0.28), (0.50, 0.22, 0.26), (0.28, 0.36, 0.24),
)  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """A box standing upright: centre, half sizes, turn about z, and its range of heights."""

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float
    low: float
    high: float


def footprint(thing: Thing) -> Footprint:
    """Return a thing's box."""
    x, y, z = thing.position_m
    return Footprint(x, y, thing.size_m[0] / 2, thing.size_m[1] / 2, thing.yaw_rad, z, z + thing.size_m[2])


def corners(box: Footprint) -> NDArray[np.float64]:
    """Return the (4, 2) corners of a footprint."""
    cos, sin = math.cos(box.yaw), math.sin(box.yaw)
    local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [box.half_x, box.half_y]
    placed: NDArray[np.float64] = local @ np.array([[cos, sin], [-sin, cos]]) + [box.x, box.y]
    return placed


def overlap(a: Footprint, b: Footprint, gap: float = 0.0) -> bool:
    """Tell whether two boxes come closer than `gap` (separating axes in plan, and their ranges of heights)."""
    if a.low >= b.high or b.low >= a.high:
        return False
    dx, dy = b.x - a.x, b.y - a.y
    cos, sin = abs(math.cos(b.yaw - a.yaw)), abs(math.sin(b.yaw - a.yaw))
    for yaw, own, other in ((a.yaw, a, b), (b.yaw, b, a)):
        across, along = math.cos(yaw) * dx + math.sin(yaw) * dy, -math.sin(yaw) * dx + math.cos(yaw) * dy
        if abs(across) >= own.half_x + cos * other.half_x + sin * other.half_y + gap:
            return False
        if abs(along) >= own.half_y + sin * other.half_x + cos * other.half_y + gap:
            return False
    return True


@dataclass
class Layout:
    """A scene being furnished: its things, the boxes of the solid ones, and thin platforms (rugs, roads)."""

    things: list[Thing] = field(default_factory=list)
    boxes: list[Footprint] = field(default_factory=list)
    platforms: list[Thing] = field(default_factory=list)

    def structure(self, thing: Thing, solid: bool = False) -> Thing:
        """Add a part of the building or the land; `solid` ones keep others out."""
        return self._add(replace(thing, is_thing=False), solid)

    def platform(self, thing: Thing) -> Thing | None:
        """Add a thin flat thing on the ground that others may stand on, where nothing is yet."""
        if any(overlap(footprint(thing), box) for box in self.boxes):
            return None
        if any(overlap(footprint(thing), footprint(other), 0.02) for other in self.platforms):
            return None
        added = self._add(thing, False)
        self.platforms.append(added)
        return added

    def stand(self, thing: Thing, gap: float = 0.02) -> Thing | None:
        """Add a thing on the ground (z of `position_m` is ignored) if its box is free; None when it is not."""
        base, support = GAP_M, 0
        plan = replace(footprint(thing), low=0.0, high=10.0)
        for platform in self.platforms:
            area = replace(footprint(platform), low=0.0, high=10.0)
            if overlap(plan, area):
                cos, sin = math.cos(area.yaw), math.sin(area.yaw)
                local = (corners(plan) - [area.x, area.y]) @ np.array([[cos, -sin], [sin, cos]])
                if (np.abs(local) > [area.half_x, area.half_y]).any():
                    return None  # half on, half off
                base, support = platform.position_m[2] + platform.size_m[2] + GAP_M, platform.id
        x, y, _ = thing.position_m
        return self.hold(replace(thing, position_m=(x, y, base), rests_on=support), gap)

    def hold(self, thing: Thing, gap: float = 0.0) -> Thing | None:
        """Add a thing exactly where it is (on a top, on a wall) if its box is free."""
        box = footprint(thing)
        if any(overlap(box, other, gap) for other in self.boxes):
            return None
        return self._add(thing, True)

    def lay(self, thing: Thing) -> Thing:
        """Add a thing exactly as it lies, whatever its box: it came to rest among the others (clutter.py)."""
        return self._add(thing, False)

    def reserve(self, box: Footprint) -> None:
        """Keep a box free of things."""
        self.boxes.append(box)

    def _add(self, thing: Thing, solid: bool) -> Thing:
        added = replace(
            thing,
            id=len(self.things) + 1,
            position_m=rounded(thing.position_m),
            size_m=rounded(thing.size_m),
            yaw_rad=round(thing.yaw_rad, 6),
        )
        self.things.append(added)
        if solid:
            self.boxes.append(footprint(added))
        return added


def rounded(values: Sequence[float]) -> Vec3:
    """Round lengths to a hundredth of a millimetre, so that recipes read well."""
    return tuple(round(float(value), 5) for value in values)  # type: ignore[return-value]


def model(name: str, x: float = 0.0, y: float = 0.0, yaw: float = 0.0, paint: Rgb | None = None) -> Thing:
    """Make a thing of a model, standing at (x, y)."""
    info = model_info(name)
    return Thing(0, info.noun, "model", (x, y, 0.0), info.size_m, yaw, model=name, paint=paint)


def some_paint(rng: np.random.Generator, chance: float) -> Rgb | None:
    """Draw a furniture colour, or None (the model's own) with probability 1 - chance."""
    if rng.random() > chance:
        return None
    if rng.random() < 0.72:
        return one_of(MUTED, rng)
    return vivid(rng)


def vivid(rng: np.random.Generator) -> Rgb:
    """Draw a colour that has a common name, slightly varied."""
    base = one_of(list(PAINTS.values()), rng)
    return tuple(round(float(np.clip(part + rng.normal(0, 0.015), 0.02, 0.97)), 4) for part in base)  # type: ignore[return-value]


SMALL_THINGS = (
    *("plastic", "plastic", "ceramic", "wood", "wood", "metal", "stone"),
    *("fabric", "patterned", "glass", "worn", "label"),
)
"""What small objects are of; a kind that is there twice is drawn twice as often."""


def plain_material(rng: np.random.Generator) -> Material:
    """Draw a material for a small object: plastic, painted wood, wood, metal, stone, ceramic, patterned paper."""
    color = vivid(rng)
    seed = int(rng.integers(1 << 30))
    kind = rng.choice(SMALL_THINGS)
    match kind:
        case "plastic":
            return Material("plastic", color, float(rng.uniform(0.25, 0.6)))
        case "ceramic":
            return Material("ceramic", color, 0.15, coat=0.6)
        case "glass":
            tint = ((0.97, 0.98, 0.97), (0.70, 0.90, 0.76), (0.60, 0.78, 0.95), (0.95, 0.66, 0.60))[rng.integers(4)]
            return Material("glass", tint, float(rng.choice([0.0, 0.02, 0.25])), transmission=1.0)
        case "worn":
            texture = Texture("worn", (color, (0.42, 0.38, 0.34)), 0.3, seed)
            return Material("painted metal", color, 0.5, 0.0, texture)
        case "label":
            texture = Texture("label", (color, vivid(rng), (0.93, 0.92, 0.88)), float(rng.uniform(0.12, 0.3)), seed)
            return Material("paper", color, 0.5, 0.0, texture)
        case "metal":
            tint = ((0.86, 0.86, 0.87), (0.93, 0.76, 0.42), (0.90, 0.62, 0.48))[rng.integers(3)]
            return Material("metal", tint, float(rng.uniform(0.15, 0.45)), 1.0)
        case "wood":
            return wood_material(rng, 0.5, "wood")
        case "stone":
            light = float(rng.uniform(0.6, 0.95))
            texture = Texture("marble", ((light, light, light * 0.97), (0.3, 0.3, 0.32)), 0.4, seed)
            return Material("stone", (light, light, light), 0.25, 0.0, texture)
        case "fabric":
            texture = Texture("fabric", (color, tuple(0.7 * part for part in color)), 0.25, seed)  # type: ignore[arg-type]
            return Material("fabric", color, 0.95, 0.0, texture)
    pattern = str(rng.choice(["checker", "stripes", "dots"]))
    texture = Texture(pattern, (color, vivid(rng)), float(rng.uniform(0.1, 0.3)), seed)
    return Material("patterned", color, 0.6, 0.0, texture)


WOODS: tuple[tuple[Rgb, Rgb], ...] = (
    ((0.76, 0.58, 0.38), (0.60, 0.42, 0.25)),
    ((0.52, 0.33, 0.19), (0.36, 0.21, 0.11)),
    ((0.33, 0.20, 0.12), (0.20, 0.12, 0.07)),
    ((0.86, 0.74, 0.56), (0.74, 0.60, 0.42)),
    ((0.62, 0.55, 0.48), (0.48, 0.42, 0.36)),
    ((0.60, 0.30, 0.16), (0.44, 0.20, 0.10)),
)


def wood_material(rng: np.random.Generator, size_m: float, kind: str) -> Material:
    """Draw wood: grain ("wood") or floor boards ("planks")."""
    light, dark = one_of(WOODS, rng)
    texture = Texture(kind, (light, dark), size_m, int(rng.integers(1 << 30)))
    return Material("wood", light, float(rng.uniform(0.3, 0.6)), 0.0, texture)


def on_top(
    layout: Layout, support: Thing, make: Callable[[], Thing], rng: np.random.Generator, tries: int = 12
) -> Thing | None:
    """Stand something on the flat top of `support`; None when it does not fit."""
    if support.shape == "model":
        top = model_top(support.model)
        if top is None:
            return None
        height, half_x, half_y = top.height_m, top.half_x_m, top.half_y_m
    else:
        height, half_x, half_y = support.size_m[2], support.size_m[0] * 0.47, support.size_m[1] * 0.47
    cos, sin = math.cos(support.yaw_rad), math.sin(support.yaw_rad)
    for _ in range(tries):
        thing = make()
        reach = math.hypot(thing.size_m[0], thing.size_m[1]) / 2
        free_x, free_y = half_x - reach, half_y - reach
        turn = float(rng.uniform(-0.5, 0.5) if rng.random() < 0.7 else rng.uniform(-math.pi, math.pi))
        if free_x < 0 or free_y < 0:  # too large to turn freely: square with the support
            free_x, free_y, turn = half_x - thing.size_m[0] / 2, half_y - thing.size_m[1] / 2, 0.0
        if free_x < 0 or free_y < 0:
            continue
        x, y = rng.uniform(-free_x, free_x), rng.uniform(-free_y, free_y)
        px, py, pz = support.position_m
        at = (px + cos * x - sin * y, py + sin * x + cos * y, pz + height + GAP_M)
        added = layout.hold(replace(thing, position_m=at, yaw_rad=support.yaw_rad + turn, rests_on=support.id), 0.008)
        if added is not None:
            return added
    return None
