"""Presets of what a job renders: kinds of scene, lenses and hours, by the name of the task they serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Rng = np.random.Generator
Palette = Mapping[str, Sequence[str]]
"""Role -> names of the models that may play it."""
Kind = Literal["room", "corridor", "table top", "outdoor", "long range", "clutter"]
Lens = Literal["phone", "dslr", "car", "wide"]
Hour = Literal["day", "overcast", "low sun", "dusk", "night"]
PresetName = Literal["indoor", "outdoor", "table top", "long range", "clutter"]

LENSES: Mapping[str, tuple[float, float]] = {"phone": (60, 74), "dslr": (26, 54), "car": (48, 88), "wide": (86, 104)}
"""Horizontal field of view in degrees, from and to."""


@dataclass(frozen=True)
class Style:
    """Weights of lenses and hours; where they are empty, each kind of scene has its own."""

    lenses: Mapping[str, float] = field(default_factory=dict)
    hours: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """Relative weights of kinds of scene, lenses and hours."""

    kinds: Mapping[str, float]
    lenses: Mapping[str, float]
    hours: Mapping[str, float]


PRESETS: Mapping[str, Preset] = {
    "indoor": Preset(
        {"room": 0.75, "corridor": 0.25},
        {"phone": 0.45, "wide": 0.3, "dslr": 0.25},
        {"day": 0.55, "low sun": 0.15, "night": 0.3},
    ),
    "outdoor": Preset(
        {"outdoor": 1.0},
        {"phone": 0.45, "dslr": 0.25, "car": 0.2, "wide": 0.1},
        {"day": 0.5, "overcast": 0.18, "low sun": 0.18, "dusk": 0.07, "night": 0.07},
    ),
    "table top": Preset({"table top": 1.0}, {"phone": 0.6, "dslr": 0.4}, {"day": 0.6, "low sun": 0.2, "night": 0.2}),
    "long range": Preset(
        {"long range": 1.0},
        {"car": 0.4, "phone": 0.25, "dslr": 0.25, "wide": 0.1},
        {"day": 0.55, "overcast": 0.2, "low sun": 0.2, "dusk": 0.05},
    ),
    "clutter": Preset({"clutter": 1.0}, {"phone": 0.5, "dslr": 0.5}, {"day": 0.7, "low sun": 0.1, "night": 0.2}),
}


def pick(rng: Rng, weights: Mapping[str, float]) -> str:
    """Draw a key by its relative weight."""
    values = np.array(list(weights.values()), np.float64)
    return list(weights)[int(rng.choice(len(values), p=values / values.sum()))]


def draw_lens(rng: Rng, style: Style, usual: Mapping[str, float]) -> tuple[str, float]:
    """Draw a lens and its horizontal field of view in degrees."""
    lens = pick(rng, style.lenses or usual)
    return lens, round(float(rng.uniform(*LENSES[lens])), 3)
