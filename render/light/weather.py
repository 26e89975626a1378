"""Skies, suns and air by the hour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cavendish.render.scenes.layout import rounded
from cavendish.render.scenes.recipe import Light, Rgb, Sky

Rng = np.random.Generator


@dataclass(frozen=True)
class Weather:
    """Zenith, horizon and cloud colour; sky strength; the sun's colour, range of heights in degrees and power."""

    colors: tuple[Rgb, Rgb, Rgb]
    strength: float
    sun: Rgb
    lift_deg: tuple[float, float]
    power: float
    cloudiness: tuple[float, float]
    haze_m: tuple[float, float]


WEATHERS: Mapping[str, Weather] = {
    "clear": Weather(
        ((0.22, 0.42, 0.74), (0.72, 0.82, 0.92), (0.98, 0.98, 0.98)), 0.9, (1.0, 0.94, 0.84), (26, 66), 4.4, (0.0, 0.6),
        (1500, 6000),
    ),
    "hazy": Weather(
        ((0.46, 0.60, 0.78), (0.84, 0.87, 0.89), (0.95, 0.95, 0.96)), 1.0, (1.0, 0.92, 0.80), (22, 55), 3.0, (0.1, 0.5),
        (350, 900),
    ),
    "overcast": Weather(
        ((0.62, 0.66, 0.71), (0.80, 0.82, 0.84), (0.88, 0.89, 0.90)), 1.1, (1.0, 1.0, 1.0), (40, 70), 0.35, (0.85, 1.0),
        (500, 2000),
    ),
    "low sun": Weather(
        ((0.30, 0.42, 0.66), (0.90, 0.78, 0.66), (0.98, 0.88, 0.80)), 0.7, (1.0, 0.76, 0.52), (9, 22), 3.6, (0.2, 0.75),
        (600, 2500),
    ),
    "dusk": Weather(
        ((0.14, 0.20, 0.40), (0.86, 0.56, 0.44), (0.50, 0.42, 0.50)), 0.25, (1.0, 0.5, 0.3), (1.5, 4), 0.16, (0.2, 0.6),
        (800, 2500),
    ),
    "night": Weather(
        ((0.05, 0.07, 0.14), (0.20, 0.18, 0.20), (0.22, 0.20, 0.22)), 0.16, (0.6, 0.7, 1.0), (20, 50), 0.012,
        (0.2, 0.8),
        (1500, 4000),
    ),
}  # fmt: skip


def weather_of(hour: str, rng: Rng) -> str:
    """Draw the weather of an hour."""
    return str(rng.choice(["clear", "clear", "hazy"])) if hour == "day" else hour


def draw_weather(rng: Rng, name: str) -> tuple[Light, Sky]:
    """Draw the sun and the sky of a weather."""
    weather = WEATHERS[name]
    lift = math.radians(float(rng.uniform(*weather.lift_deg)))
    turn = float(rng.uniform(-math.pi, math.pi))
    direction = rounded((-math.cos(lift) * math.sin(turn), -math.cos(lift) * math.cos(turn), -math.sin(lift)))
    sun = Light("sun", weather.sun, weather.power, direction, size_m=0.009 if weather.power > 1 else 0.3)
    cloudiness = round(float(rng.uniform(*weather.cloudiness)), 3)
    sky = Sky(
        "painted", weather.strength, "", round(turn, 4), weather.colors, cloudiness, int(rng.integers(1 << 30)),
        round(float(rng.uniform(*weather.haze_m)), 1), round(lift, 4),
    )  # fmt: skip
    return sun, sky
