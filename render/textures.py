"""Procedural colour images for materials: (256, 256, 3) uint8 sRGB, seamless at their edges, made with numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from encoders.sample import UInt8Image
from render.recipe import Rgb, Texture

SIDE = 256
Field = NDArray[np.float64]


@lru_cache(maxsize=128)
def texture_image(texture: Texture) -> UInt8Image:
    """Paint a texture; equal textures give equal bytes."""
    rng = np.random.default_rng([texture.seed, 77])
    paint = PAINTERS[texture.kind]
    colors = np.array(texture.colors, np.float64)
    return (np.clip(paint(rng, colors), 0, 1) * 255 + 0.5).astype(np.uint8)


def cloud(rng: np.random.Generator, roughness: float = 1.7, stretch: float = 1.0, side: int = SIDE) -> Field:
    """Return seamless fractal noise (side, side) in 0..1: white noise filtered to a power law, `stretch` along x."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None] / stretch, np.fft.rfftfreq(side)[None] * stretch) * side
    frequency[0, 0] = 1
    field = np.fft.irfft2(spectrum / frequency**roughness * (frequency < side / 3), (side, side))
    ranks = (field - field.mean()) / field.std()
    result: Field = 0.5 + 0.5 * np.tanh(0.8 * ranks)
    return result


def _mix(a: Field, b: Field, share: Field) -> Field:
    return a + (b - a) * share[..., None]


def _grid() -> tuple[Field, Field]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return x, y


def _grain(rng: np.random.Generator, amount: float) -> Field:
    return 1 + amount * (rng.random((SIDE, SIDE, 1)) - 0.5)


def _checker(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    odd = (np.floor(x * 4) + np.floor(y * 4)) % 2
    return _mix(colors[0], colors[1], odd) * _grain(rng, 0.04)


def _stripes(rng: np.random.Generator, colors: Field) -> Field:
    x, _ = _grid()
    count = int(rng.integers(3, 9))
    band = ((x * count) % 1 < rng.uniform(0.3, 0.6)).astype(float)
    thin = ((x * count + 0.12) % 1 < 0.05).astype(float)
    return _mix(_mix(colors[0], colors[1], band), colors[-1], thin) * _grain(rng, 0.05)


def _tiles(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    count = 4
    cell = (np.floor(x * count) * count + np.floor(y * count)).astype(int)
    tone = 1 + 0.1 * (rng.random(count * count)[cell] - 0.5)
    joint = (
        np.minimum(np.minimum(x * count % 1, 1 - x * count % 1), np.minimum(y * count % 1, 1 - y * count % 1)) < 0.022
    )
    stone = colors[0] * (tone * (0.94 + 0.12 * cloud(rng)))[..., None]
    return _mix(stone, np.broadcast_to(colors[1], stone.shape), joint.astype(float))


def _bricks(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    rows, columns = 12, 4
    row = np.floor(y * rows)
    shifted = (x * columns + 0.5 * (row % 2)) % columns
    cell = (row * columns + np.floor(shifted)).astype(int)
    tone = 1 + 0.35 * (rng.random(rows * columns)[cell] - 0.5)
    joint = ((shifted % 1 < 0.04) | (y * rows % 1 < 0.12)).astype(float)
    brick = colors[0] * (tone * (0.85 + 0.3 * cloud(rng, 1.2)))[..., None]
    return _mix(brick, np.broadcast_to(colors[1], brick.shape) * (0.9 + 0.2 * cloud(rng))[..., None], joint)


def _planks(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    rows = 6
    row = np.floor(y * rows).astype(int)
    offset = rng.random(rows)[row]
    along = (x + offset) % 1
    board = row * 2 + (along > 0.5)
    tone = rng.uniform(0.75, 1.15, rows * 2)[board]
    # along the boards the noise is stretched: growth rings seen from the side
    rings = cloud(rng, 1.2, 5.0)
    fine = cloud(rng, 0.6, 8.0)
    wood = _mix(colors[0], colors[1], np.clip(0.75 * rings + 0.3 * fine - 0.1, 0, 1)) * tone[..., None]
    joint = (np.minimum(y * rows % 1, 1 - y * rows % 1) < 0.02) | (np.abs((along * 2 + 0.5) % 1 - 0.5) < 0.005)
    boards: Field = wood * (1 - 0.55 * joint[..., None])
    return boards


def _wood(rng: np.random.Generator, colors: Field) -> Field:
    rings = np.abs(np.sin((cloud(rng, 1.8, 3.0) * 9 + _grid()[1] * 2) * np.pi))
    fine = cloud(rng, 0.6, 8.0)
    return _mix(colors[0], colors[1], np.clip(0.55 * rings + 0.4 * fine, 0, 1))


def _noise(rng: np.random.Generator, colors: Field) -> Field:
    return _mix(colors[0], colors[1], cloud(rng)) * _grain(rng, 0.06)


def _plaster(rng: np.random.Generator, colors: Field) -> Field:
    paint: Field = colors[0] * (0.95 + 0.1 * cloud(rng, 1.1))[..., None] * _grain(rng, 0.02)
    return paint


def _marble(rng: np.random.Generator, colors: Field) -> Field:
    veins = 1 - np.abs(2 * cloud(rng, 1.6) - 1)
    return _mix(colors[0], colors[1], np.clip(veins**9 + 0.15 * cloud(rng, 2.0), 0, 1))


def _fabric(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    weave = 0.5 + 0.25 * np.sin(x * 2 * np.pi * 64) + 0.25 * np.sin(y * 2 * np.pi * 64)
    return _mix(colors[0], colors[1], np.clip(0.5 * weave + 0.6 * cloud(rng) - 0.1, 0, 1))


def _rug(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    count = int(rng.integers(3, 7))
    diamond = (np.abs((x * count) % 1 - 0.5) + np.abs((y * count) % 1 - 0.5) < 0.33).astype(float)
    inner = _mix(colors[0], colors[1], diamond)
    border = ((edge > 0.04) & (edge < 0.1)).astype(float)
    return _mix(inner, np.broadcast_to(colors[-1], inner.shape), border) * (0.85 + 0.3 * cloud(rng, 0.5))[..., None]


def _grass(rng: np.random.Generator, colors: Field) -> Field:
    blades = 0.6 * cloud(rng, 0.5, 0.5) + 0.4 * rng.random((SIDE, SIDE))
    patches = cloud(rng, 1.8)
    return _mix(colors[0], colors[1], np.clip(0.6 * blades + 0.5 * patches - 0.1, 0, 1))


def _asphalt(rng: np.random.Generator, colors: Field) -> Field:
    return _mix(colors[0], colors[1], rng.random((SIDE, SIDE)) ** 3) * (0.88 + 0.24 * cloud(rng))[..., None]


def _paving(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    rows = 6
    row = np.floor(y * rows)
    shifted = (x * 3 + 0.5 * (row % 2)) % 3
    cell = (row * 3 + np.floor(shifted)).astype(int)
    joint = ((shifted % 1 < 0.02) | (y * rows % 1 < 0.04)).astype(float)
    tone = 1 + 0.2 * (rng.random(rows * 3)[cell] - 0.5)
    stone = colors[0] * (tone * (0.9 + 0.2 * cloud(rng, 0.8)))[..., None]
    return _mix(stone, np.broadcast_to(colors[1], stone.shape), joint)


def _windows(rng: np.random.Generator, colors: Field) -> Field:
    """One storey's bay, four by four: wall, frame, pane (some lit)."""
    x, y = _grid()
    u, v = x * 4 % 1, y * 4 % 1
    frame = (np.abs(u - 0.5) < 0.27) & (np.abs(v - 0.5) < 0.33)
    pane = (np.abs(u - 0.5) < 0.235) & (np.abs(v - 0.5) < 0.295) & (np.abs(u - 0.5) > 0.015)
    cell = (np.floor(x * 4) * 4 + np.floor(y * 4)).astype(int)
    glass = colors[1] * (0.6 + 0.8 * rng.random(16)[cell] + 0.3 * (1 - v))[..., None]
    wall = colors[0] * (0.93 + 0.14 * cloud(rng, 1.0))[..., None]
    sill = (v > 0.83) & (v < 0.86) & (np.abs(u - 0.5) < 0.3)
    painted = _mix(wall, np.broadcast_to(colors[2], wall.shape), (frame | sill).astype(float))
    return _mix(painted, glass, pane.astype(float))


def _picture(rng: np.random.Generator, colors: Field) -> Field:
    """An abstract painting: soft fields of colour and a few discs."""
    x, y = _grid()
    image = _mix(colors[0], colors[1], cloud(rng, 2.0))
    for color in (*colors[1:], *colors[1:]):
        cx, cy, radius = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.05, 0.25)
        image = _mix(image, np.broadcast_to(color, image.shape), 0.9 * (np.hypot(x - cx, y - cy) < radius))
    return image


def _dots(rng: np.random.Generator, colors: Field) -> Field:
    x, y = _grid()
    count = int(rng.integers(4, 9))
    dot = (np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5) < 0.28).astype(float)
    return _mix(colors[0], colors[1], dot) * _grain(rng, 0.04)


PAINTERS: dict[str, Callable[[np.random.Generator, Field], Field]] = {
    "asphalt": _asphalt,
    "bricks": _bricks,
    "checker": _checker,
    "dots": _dots,
    "fabric": _fabric,
    "grass": _grass,
    "marble": _marble,
    "noise": _noise,
    "paving": _paving,
    "picture": _picture,
    "planks": _planks,
    "plaster": _plaster,
    "rug": _rug,
    "stripes": _stripes,
    "tiles": _tiles,
    "windows": _windows,
    "wood": _wood,
}


def shade(color: Rgb, factor: float) -> Rgb:
    """Return the colour, darker (factor < 1) or lighter."""
    return tuple(round(min(1.0, max(0.0, part * factor)), 4) for part in color)  # type: ignore[return-value]
