"""Procedural colour images for materials: (side, side, 3) uint8 sRGB, seamless at their edges, made with numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2

from cavendish.encoders.sample import UInt8Image
from cavendish.render.scenes.recipe import Rgb, Texture

Field = NDArray[np.float32]


@lru_cache(maxsize=128)
def texture_image(texture: Texture) -> UInt8Image:
    """Paint a texture; equal textures give equal bytes."""
    rng = np.random.default_rng([texture.seed, 77])
    paint = PAINTERS[texture.kind]
    colors = np.array(texture.colors, np.float32)
    return (np.clip(paint(rng, colors, texture.side), 0, 1) * 255 + 0.5).astype(np.uint8)


def cloud(rng: np.random.Generator, roughness: float = 1.7, stretch: float = 1.0, side: int = 256) -> Field:
    """Return seamless fractal noise (side, side) in 0..1: white noise filtered to a power law, `stretch` along x."""
    shape = (side, side // 2 + 1)
    spectrum = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    spectrum *= _power_law(roughness, stretch, side)
    field: Field = irfft2(spectrum, (side, side), overwrite_x=True, workers=1)
    field *= np.float32(0.8) / field.std()
    np.tanh(field, out=field)
    field *= np.float32(0.5)
    field += np.float32(0.5)
    return field


@lru_cache(maxsize=64)
def _power_law(roughness: float, stretch: float, side: int) -> Field:
    """Return the amplitude of each frequency of a real (side, side) image, 0 for its mean and the finest third."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None] / stretch, np.fft.rfftfreq(side)[None] * stretch) * side
    frequency[0, 0] = 1
    amplitude = frequency**-roughness * (frequency < side / 3)
    amplitude[0, 0] = 0
    amplitude[:, 0] *= np.sqrt(2)  # of these frequencies the transform takes the real half only
    return amplitude.astype(np.float32)


def _mix(a: Field, b: Field, share: Field) -> Field:
    return a + (b - a) * share[..., None]


def _grid(side: int) -> tuple[Field, Field]:
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / np.float32(side)
    return x, y


def _courses(side: int, rows: int, columns: int) -> tuple[Field, Field, NDArray[np.int64]]:
    """Return height, place along a course in pieces, and number of the piece, of courses laid half a piece apart."""
    x, y = _grid(side)
    row = np.floor(y * rows)
    along = (x * columns + 0.5 * (row % 2)) % columns
    return y, along, (row * columns + np.floor(along)).astype(int)


def _grain(rng: np.random.Generator, amount: float, side: int) -> Field:
    return 1 + amount * (rng.random((side, side, 1), np.float32) - 0.5)


def _checker(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    odd = (np.floor(x * 4) + np.floor(y * 4)) % 2
    return _mix(colors[0], colors[1], odd) * _grain(rng, 0.04, side)


def _stripes(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, _ = _grid(side)
    count = int(rng.integers(3, 9))
    band = ((x * count) % 1 < rng.uniform(0.3, 0.6)).astype(np.float32)
    thin = ((x * count + 0.12) % 1 < 0.05).astype(np.float32)
    return _mix(_mix(colors[0], colors[1], band), colors[-1], thin) * _grain(rng, 0.05, side)


def _tiles(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    count = 4
    cell = (np.floor(x * count) * count + np.floor(y * count)).astype(int)
    tone = 1 + 0.1 * (rng.random(count * count, np.float32)[cell] - 0.5)
    joint = (
        np.minimum(np.minimum(x * count % 1, 1 - x * count % 1), np.minimum(y * count % 1, 1 - y * count % 1)) < 0.022
    )
    stone = colors[0] * (tone * (0.94 + 0.12 * cloud(rng, side=side)))[..., None]
    return _mix(stone, np.broadcast_to(colors[1], stone.shape), joint.astype(np.float32))


def _bricks(rng: np.random.Generator, colors: Field, side: int) -> Field:
    rows, columns = 12, 4
    y, shifted, cell = _courses(side, rows, columns)
    tone = 1 + 0.35 * (rng.random(rows * columns, np.float32)[cell] - 0.5)
    joint = ((shifted % 1 < 0.04) | (y * rows % 1 < 0.12)).astype(np.float32)
    brick = colors[0] * (tone * (0.85 + 0.3 * cloud(rng, 1.2, side=side)))[..., None]
    return _mix(brick, np.broadcast_to(colors[1], brick.shape) * (0.9 + 0.2 * cloud(rng, side=side))[..., None], joint)


def _planks(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    rows = 6
    row = np.floor(y * rows).astype(int)
    offset = rng.random(rows, np.float32)[row]
    along = (x + offset) % 1
    board = row * 2 + (along > 0.5)
    tone = 0.75 + 0.4 * rng.random(rows * 2, np.float32)[board]
    # along the boards the noise is stretched: growth rings seen from the side
    rings = cloud(rng, 1.2, 5.0, side=side)
    fine = cloud(rng, 0.6, 8.0, side=side)
    wood = _mix(colors[0], colors[1], np.clip(0.75 * rings + 0.3 * fine - 0.1, 0, 1)) * tone[..., None]
    joint = (np.minimum(y * rows % 1, 1 - y * rows % 1) < 0.02) | (np.abs((along * 2 + 0.5) % 1 - 0.5) < 0.005)
    boards: Field = wood * (1 - 0.55 * joint[..., None])
    return boards


def _wood(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Grain along x: rings cut lengthwise, fine pores, a slow change of tone."""
    _, y = _grid(side)
    rings = 0.5 + 0.5 * np.sin((cloud(rng, 1.9, 5.0, side=side) * 7 + y * 3) * 2 * np.pi)
    pores = cloud(rng, 0.5, 14.0, side=side)
    slow = cloud(rng, 1.8, 2.0, side=side)
    return _mix(colors[0], colors[1], np.clip(0.35 * rings**1.5 + 0.35 * pores + 0.4 * slow - 0.1, 0, 1))


def _noise(rng: np.random.Generator, colors: Field, side: int) -> Field:
    return _mix(colors[0], colors[1], cloud(rng, side=side)) * _grain(rng, 0.06, side)


def _plaster(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Wall paint put on with a roller: nearly even."""
    paint: Field = colors[0] * (0.985 + 0.02 * cloud(rng, 1.6, side=side))[..., None] * _grain(rng, 0.025, side)
    return paint


def _marble(rng: np.random.Generator, colors: Field, side: int) -> Field:
    veins = 1 - np.abs(2 * cloud(rng, 1.6, side=side) - 1)
    return _mix(colors[0], colors[1], np.clip(veins**9 + 0.15 * cloud(rng, 2.0, side=side), 0, 1))


def _fabric(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    weave = 0.5 + 0.25 * np.sin(x * 2 * np.pi * 64) + 0.25 * np.sin(y * 2 * np.pi * 64)
    return _mix(colors[0], colors[1], np.clip(0.5 * weave + 0.6 * cloud(rng, side=side) - 0.1, 0, 1))


def _rug(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    count = int(rng.integers(3, 7))
    diamond = (np.abs((x * count) % 1 - 0.5) + np.abs((y * count) % 1 - 0.5) < 0.33).astype(np.float32)
    inner = _mix(colors[0], colors[1], diamond)
    border = ((edge > 0.04) & (edge < 0.1)).astype(np.float32)
    return (
        _mix(inner, np.broadcast_to(colors[-1], inner.shape), border)
        * (0.85 + 0.3 * cloud(rng, 0.5, side=side))[..., None]
    )


def _grass(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """A lawn from above: short strokes of many tones, patches, a few bare or yellow spots."""
    blades = (
        0.5 * cloud(rng, 0.55, 0.6, side=side)
        + 0.3 * cloud(rng, 0.4, 1.6, side=side)
        + 0.2 * rng.random((side, side), np.float32)
    )
    patches = cloud(rng, 1.7, side=side)
    lawn = _mix(colors[0], colors[1], np.clip(1.3 * blades + 0.5 * patches - 0.5, 0, 1))
    yellow = np.array([0.55, 0.48, 0.25], np.float32)
    return _mix(lawn, np.broadcast_to(yellow, lawn.shape), 0.35 * np.clip(3 * cloud(rng, 1.8, side=side) - 2.2, 0, 1))


def _asphalt(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Tar with light stones, patches, oil stains and a few cracks."""
    stones = rng.random((side, side), np.float32) ** 3
    tar = _mix(colors[0], colors[1], 0.75 * stones) * (0.82 + 0.3 * cloud(rng, 1.5, side=side))[..., None]
    crack = np.clip(1 - 60 * np.abs(cloud(rng, 1.8, side=side) - 0.62), 0, 1) * (cloud(rng, 1.8, side=side) > 0.45)
    stain = np.clip(3 * cloud(rng, 1.7, side=side) - 2.3, 0, 1)
    painted: Field = tar * (1 - 0.55 * crack)[..., None] * (1 - 0.35 * stain)[..., None]
    return painted


def _paving(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    rows = 6
    row = np.floor(y * rows)
    shifted = (x * 3 + 0.5 * (row % 2)) % 3
    cell = (row * 3 + np.floor(shifted)).astype(int)
    joint = ((shifted % 1 < 0.02) | (y * rows % 1 < 0.04)).astype(np.float32)
    tone = 1 + 0.2 * (rng.random(rows * 3, np.float32)[cell] - 0.5)
    stone = colors[0] * (tone * (0.9 + 0.2 * cloud(rng, 0.8, side=side)))[..., None]
    return _mix(stone, np.broadcast_to(colors[1], stone.shape), joint)


def _windows(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """One storey's bay, four by four: wall, frame, pane (some lit)."""
    x, y = _grid(side)
    u, v = x * 4 % 1, y * 4 % 1
    frame = (np.abs(u - 0.5) < 0.27) & (np.abs(v - 0.5) < 0.33)
    pane = (np.abs(u - 0.5) < 0.235) & (np.abs(v - 0.5) < 0.295) & (np.abs(u - 0.5) > 0.015)
    cell = (np.floor(x * 4) * 4 + np.floor(y * 4)).astype(int)
    glass = colors[1] * (0.6 + 0.8 * rng.random(16, np.float32)[cell] + 0.3 * (1 - v))[..., None]
    wall = colors[0] * (0.93 + 0.14 * cloud(rng, 1.0, side=side))[..., None]
    sill = (v > 0.83) & (v < 0.86) & (np.abs(u - 0.5) < 0.3)
    painted = _mix(wall, np.broadcast_to(colors[2], wall.shape), (frame | sill).astype(np.float32))
    return _mix(painted, glass, pane.astype(np.float32))


def _picture(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """An abstract painting: soft fields of colour and a few discs."""
    x, y = _grid(side)
    image = _mix(colors[0], colors[1], cloud(rng, 2.0, side=side))
    for color in (*colors[1:], *colors[1:]):
        cx, cy, radius = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.05, 0.25)
        image = _mix(image, np.broadcast_to(color, image.shape), 0.9 * (np.hypot(x - cx, y - cy) < radius))
    return image


def _dots(rng: np.random.Generator, colors: Field, side: int) -> Field:
    x, y = _grid(side)
    count = int(rng.integers(4, 9))
    dot = (np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5) < 0.28).astype(np.float32)
    return _mix(colors[0], colors[1], dot) * _grain(rng, 0.04, side)


def _leaves(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Tones of leaves from colors[0] to colors[1], few of colors[2]; a dark corner for the inside of crowns."""
    tone = rng.random((side, side), np.float32)
    image = _mix(colors[0], colors[1], tone)
    image = _mix(
        image,
        np.broadcast_to(colors[-1], image.shape),
        (rng.random((side, side), np.float32) < 0.06).astype(np.float32),
    )
    rim = max(2, side // 16)
    image[-rim:, :rim] = 0.95 * colors[0]
    return image


def _fields(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Land from afar: a patchwork of fields in several tones, with darker borders and furrows."""
    x, y = _grid(side)
    bend = 0.02 * cloud(rng, 2.0, side=side)
    count = 5
    column = np.floor((x + bend) * count)
    shifted = (y + bend + 0.37 * column) * count
    cell = (column * 11 + np.floor(shifted)).astype(int) % 29
    tones = rng.random(29, np.float32)[cell]
    image = _mix(colors[0], colors[1], tones)
    image = _mix(
        image, np.broadcast_to(colors[-1], image.shape), (rng.random(29, np.float32)[cell] < 0.3).astype(np.float32)
    )
    furrow = 1 + 0.08 * np.sin((x * (cell % 3) + y * (2 - cell % 3)) * 2 * np.pi * 32)
    border = (((x + bend) * count % 1 < 0.03) | (shifted % 1 < 0.03)).astype(np.float32)
    image = image * (furrow * (0.85 + 0.3 * cloud(rng, 1.2, side=side)))[..., None]
    return _mix(image, np.broadcast_to(0.5 * colors[0], image.shape), 0.7 * border)


def _meadow(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Grass from some way off: patches of two tones and darker tufts."""
    patches = _mix(colors[0], colors[1], np.clip(1.6 * cloud(rng, 1.5, side=side) - 0.3, 0, 1))
    return patches * (0.75 + 0.5 * cloud(rng, 0.7, side=side))[..., None]


def _concrete(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Cast panels with joints, stains running down."""
    x, y = _grid(side)
    streak = cloud(rng, 1.4, 0.12, side=side)
    base = colors[0] * (0.84 + 0.16 * cloud(rng, 1.5, side=side) + 0.14 * streak)[..., None]
    joint = ((x * 2 % 1 < 0.008) | (y * 2 % 1 < 0.008)).astype(np.float32)
    return _mix(base, np.broadcast_to(0.5 * colors[0], base.shape), joint) * _grain(rng, 0.05, side)


def _render(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Painted render of house walls, weathered."""
    streak = cloud(rng, 1.5, 0.2, side=side)
    worn = np.clip(2.2 * cloud(rng, 1.7, side=side) - 1.5, 0, 1)
    paint = colors[0] * (0.9 + 0.12 * streak)[..., None]
    return _mix(paint, np.broadcast_to(0.72 * colors[0] + 0.06, paint.shape), 0.7 * worn) * _grain(rng, 0.05, side)


def _siding(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Overlapping boards: each darker toward its upper edge, in the shade of the next."""
    _, y = _grid(side)
    rows = 10
    board = np.floor(y * rows).astype(int)
    tone = 1 + 0.07 * (rng.random(rows, np.float32)[board] - 0.5)
    shade = np.clip((y * rows % 1) / 0.14, 0.45, 1.0)
    painted: Field = colors[0] * (tone * shade * (0.94 + 0.1 * cloud(rng, 0.9, 6.0, side=side)))[..., None]
    return painted


def _roofing(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Rows of roof tiles, rounded and shaded."""
    rows, columns = 12, 16
    y, across, cell = _courses(side, rows, columns)
    tone = 1 + 0.3 * (rng.random(rows * columns, np.float32)[cell] - 0.5)
    curve = 0.72 + 0.28 * np.sin(np.pi * (across % 1))
    shade = np.clip((y * rows % 1) / 0.2, 0.4, 1.0)
    painted: Field = _mix(colors[0], colors[1], cloud(rng, 1.5, side=side)) * (tone * curve * shade)[..., None]
    return painted


def _worn(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """Paint with scratches and chips through which colors[1] shows."""
    chips = np.clip(14 * (cloud(rng, 1.1, side=side) - 0.86), 0, 1)
    scratch = (cloud(rng, 0.9, 14.0, side=side) > 0.93).astype(np.float32)
    paint = colors[0] * (0.9 + 0.14 * cloud(rng, 1.6, side=side))[..., None]
    return _mix(paint, np.broadcast_to(colors[1], paint.shape), np.clip(chips + 0.5 * scratch, 0, 1))


def _label(rng: np.random.Generator, colors: Field, side: int) -> Field:
    """A printed label: bands, a badge and lines like writing, all within one repeat."""
    x, y = _grid(side)
    image = np.broadcast_to(colors[0], (side, side, 3)).copy()
    low = rng.uniform(0.1, 0.3)
    image[(y > low) & (y < low + rng.uniform(0.25, 0.45))] = colors[1]
    cx, cy, radius = rng.uniform(0.3, 0.7), low + 0.18, rng.uniform(0.08, 0.16)
    image[np.hypot(x - cx, y - cy) < radius] = colors[-1]
    writing = cloud(rng, 0.8, 10.0, side=side)
    for line in range(5):
        top = 0.68 + 0.055 * line
        words = writing[line * 7] > 0.45
        image[(y > top) & (y < top + 0.025) & words[None] & (x > 0.1) & (x < 0.9)] = 0.12
    return image


def _gravel(rng: np.random.Generator, colors: Field, side: int) -> Field:
    pebbles = cloud(rng, 0.35, side=side)
    return (
        _mix(colors[0], colors[1], np.clip(1.6 * pebbles - 0.3, 0, 1))
        * (0.8 + 0.4 * cloud(rng, 1.4, side=side))[..., None]
    )


PAINTERS: dict[str, Callable[[np.random.Generator, Field, int], Field]] = {
    "asphalt": _asphalt,
    "bricks": _bricks,
    "checker": _checker,
    "concrete": _concrete,
    "dots": _dots,
    "fabric": _fabric,
    "fields": _fields,
    "grass": _grass,
    "gravel": _gravel,
    "label": _label,
    "leaves": _leaves,
    "marble": _marble,
    "meadow": _meadow,
    "noise": _noise,
    "paving": _paving,
    "picture": _picture,
    "planks": _planks,
    "plaster": _plaster,
    "render": _render,
    "roofing": _roofing,
    "rug": _rug,
    "siding": _siding,
    "stripes": _stripes,
    "tiles": _tiles,
    "windows": _windows,
    "wood": _wood,
    "worn": _worn,
}


def shade(color: Rgb, factor: float) -> Rgb:
    """Return the colour, darker (factor < 1) or lighter."""
    return tuple(round(min(1.0, max(0.0, part * factor)), 4) for part in color)  # type: ignore[return-value]
