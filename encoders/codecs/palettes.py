"""Colours that can be told apart again: lattices, colour names, notations, and the colour word of a picture region.

A target is decoded by the nearest colour, so what counts is the smallest distance between any two colours in use, the
background included. Closed-form lattices of the RGB cube are as good as the palettes a search finds (measured)
and need none.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.draws import shuffled
from cavendish.encoders.sample import InputError

Color = tuple[int, int, int]
"""sRGB, 0 to 255 each."""

BLACK: Color = (0, 0, 0)

_CSS = """
aliceblue f0f8ff; antiquewhite faebd7; aqua 00ffff; aquamarine 7fffd4; azure f0ffff; beige f5f5dc; bisque ffe4c4;
black 000000; blanchedalmond ffebcd; blue 0000ff; blueviolet 8a2be2; brown a52a2a; burlywood deb887;
cadetblue 5f9ea0; chartreuse 7fff00; chocolate d2691e; coral ff7f50; cornflowerblue 6495ed; cornsilk fff8dc;
crimson dc143c; cyan 00ffff; darkblue 00008b; darkcyan 008b8b; darkgoldenrod b8860b; darkgray a9a9a9;
darkgreen 006400; darkgrey a9a9a9; darkkhaki bdb76b; darkmagenta 8b008b; darkolivegreen 556b2f; darkorange ff8c00;
darkorchid 9932cc; darkred 8b0000; darksalmon e9967a; darkseagreen 8fbc8f; darkslateblue 483d8b;
darkslategray 2f4f4f; darkslategrey 2f4f4f; darkturquoise 00ced1; darkviolet 9400d3; deeppink ff1493;
deepskyblue 00bfff; dimgray 696969; dimgrey 696969; dodgerblue 1e90ff; firebrick b22222; floralwhite fffaf0;
forestgreen 228b22; fuchsia ff00ff; gainsboro dcdcdc; ghostwhite f8f8ff; gold ffd700; goldenrod daa520; gray 808080;
green 008000; greenyellow adff2f; grey 808080; honeydew f0fff0; hotpink ff69b4; indianred cd5c5c; indigo 4b0082;
ivory fffff0; khaki f0e68c; lavender e6e6fa; lavenderblush fff0f5; lawngreen 7cfc00; lemonchiffon fffacd;
lightblue add8e6; lightcoral f08080; lightcyan e0ffff; lightgoldenrodyellow fafad2; lightgray d3d3d3;
lightgreen 90ee90; lightgrey d3d3d3; lightpink ffb6c1; lightsalmon ffa07a; lightseagreen 20b2aa;
lightskyblue 87cefa; lightslategray 778899; lightslategrey 778899; lightsteelblue b0c4de; lightyellow ffffe0;
lime 00ff00; limegreen 32cd32; linen faf0e6; magenta ff00ff; maroon 800000; mediumaquamarine 66cdaa;
mediumblue 0000cd; mediumorchid ba55d3; mediumpurple 9370db; mediumseagreen 3cb371; mediumslateblue 7b68ee;
mediumspringgreen 00fa9a; mediumturquoise 48d1cc; mediumvioletred c71585; midnightblue 191970; mintcream f5fffa;
mistyrose ffe4e1; moccasin ffe4b5; navajowhite ffdead; navy 000080; oldlace fdf5e6; olive 808000; olivedrab 6b8e23;
orange ffa500; orangered ff4500; orchid da70d6; palegoldenrod eee8aa; palegreen 98fb98; paleturquoise afeeee;
palevioletred db7093; papayawhip ffefd5; peachpuff ffdab9; peru cd853f; pink ffc0cb; plum dda0dd; powderblue b0e0e6;
purple 800080; rebeccapurple 663399; red ff0000; rosybrown bc8f8f; royalblue 4169e1; saddlebrown 8b4513;
salmon fa8072; sandybrown f4a460; seagreen 2e8b57; seashell fff5ee; sienna a0522d; silver c0c0c0; skyblue 87ceeb;
slateblue 6a5acd; slategray 708090; slategrey 708090; snow fffafa; springgreen 00ff7f; steelblue 4682b4; tan d2b48c;
teal 008080; thistle d8bfd8; tomato ff6347; turquoise 40e0d0; violet ee82ee; wheat f5deb3; white ffffff;
whitesmoke f5f5f5; yellow ffff00; yellowgreen 9acd32
"""


def _hex_color(digits: str) -> Color:
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


CSS_COLORS: Mapping[str, Color] = MappingProxyType(
    {name: _hex_color(value) for name, value in (entry.split() for entry in _CSS.replace("\n", " ").split(";"))}
)
"""The 148 colours of CSS Color Module Level 4, names in lower case without spaces: every name the parser reads."""

_SPOKEN = (
    "black;white;red;lime;blue;yellow;cyan;magenta;gray;maroon;green;navy;olive;teal;purple;orange;silver;hot pink;"
    "chartreuse;spring green;dodger blue;blue violet;chocolate"
)

COLOR_NAMES: Mapping[str, Color] = MappingProxyType(
    {name: CSS_COLORS[name.replace(" ", "")] for name in _SPOKEN.split(";")}
)
"""Names a prompt may use, with their CSS values. Any two are at least 80 apart, so a colour drawn within 40 of its
value reads back as the same name. CSS calls (0, 128, 0) green and (0, 255, 0) lime."""


def color_distance(first: Color, second: Color) -> float:
    """Return the Euclidean distance in RGB, 0 to 441."""
    return float(np.linalg.norm(np.subtract(first, second, dtype=np.float64)))


def _grid(levels: int) -> NDArray[np.float64]:
    axis = np.linspace(0.0, 1.0, levels)
    return np.array(list(itertools.product(axis, repeat=3)))


def _full_lattice(count: int) -> NDArray[np.uint8]:
    """Return the smallest lattice with at least `count` points, black first."""
    cube, grid5 = _grid(2), _grid(5)
    if count <= 8:
        points = cube
    elif count <= 14:  # FCC: corners and face centres
        grid = _grid(3)
        points = grid[np.rint(grid * 2).sum(axis=1) % 2 == 0]
    elif count <= 27:
        points = _grid(3)
    elif count <= 35:  # BCC: 3x3x3 and the centres of its eight cells
        points = np.concatenate([_grid(3), 0.25 + 0.5 * cube])
    elif count <= 63:  # FCC with two cells a side
        points = grid5[np.rint(grid5 * 4).sum(axis=1) % 2 == 0]
    else:
        points = _grid(next(levels for levels in range(4, 257) if levels**3 >= count))
    return np.rint(points * 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _ordered_lattice(count: int) -> NDArray[np.uint8]:
    """Order a lattice so that each point is the farthest from those before it, black first."""
    points = _full_lattice(count).astype(np.int64)
    order = [int(np.argmin(points.sum(axis=1)))]
    nearest = ((points - points[order[0]]) ** 2).sum(axis=1)
    for _ in range(count - 1):
        order.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[order[-1]]) ** 2).sum(axis=1))
    ordered = points[order].astype(np.uint8)
    ordered.setflags(write=False)
    return ordered


def lattice(n: int) -> NDArray[np.uint8]:
    """Return n well separated colours, black not among them.

    Args:
        n: 0 to 4095 colours.

    Returns:
        (n, 3) uint8. The smallest distance, black background included: n <= 7: 255; <= 13: 179; <= 26: 127; <= 34: 109;
        <= 62: 89; <= 63: 85; <= 124: 63; then 255/(m-1) for the grid of m levels a channel.

    Raises:
        InputError: n out of range.

    Source: cubic, face-centred and body-centred lattices; ours. No searched palette is more than a few units better.
    """
    if not 0 <= n <= 4095:
        raise InputError(f"lattice of {n} colours: ask for 0 to 4095")
    return np.array(_ordered_lattice(n + 1)[1:])


def lattice_colors(n: int, rng: np.random.Generator, background: Color = BLACK) -> tuple[Color, ...]:
    """Return n lattice colours in random order, away from any background colour.

    Args:
        n: how many.
        rng: draws which points of the smallest fitting lattice, and their order.
        background: stays at least as far from every colour as half the lattice's spacing.
    """
    size = n + 1
    while True:
        points = _full_lattice(size)
        spacing = separation_of_lattice(size)
        far = points[np.linalg.norm(points.astype(np.float64) - background, axis=1) >= spacing / 2]
        far = far[far.any(axis=1)]
        if len(far) >= n:
            chosen = rng.permutation(len(far))[:n]
            return tuple((int(r), int(g), int(b)) for r, g, b in far[chosen])
        size = len(points) + 1


def named_colors(n: int, rng: np.random.Generator, background: Color = BLACK) -> tuple[Color, ...]:
    """Return n colours of COLOR_NAMES in random order, none nearer than 80 to the background.

    Raises:
        InputError: more than there are names.
    """
    free = [color for color in COLOR_NAMES.values() if color_distance(color, background) >= 80]
    if n > len(free):
        raise InputError(f"{n} named colors: there are {len(free)} that differ from {background}")
    return tuple(shuffled(free, rng)[:n])


def random_colors(n: int, rng: np.random.Generator, background: Color = BLACK) -> tuple[Color, ...]:
    """Return n arbitrary colours, each far from those before it and from the background.

    Of 32 candidates the first that is 90 away from all others is taken, else the one farthest away: for n <= 12 the
    smallest distance is practically always above 60.
    """
    taken = np.array([background], np.float64)
    for _ in range(n):
        candidates = rng.integers(0, 256, (32, 3)).astype(np.float64)
        nearest = np.linalg.norm(candidates[:, None] - taken[None], axis=2).min(axis=1)
        far = np.flatnonzero(nearest >= 90)
        best = int(far[0]) if len(far) else int(nearest.argmax())
        taken = np.vstack([taken, candidates[best]])
    return tuple((int(r), int(g), int(b)) for r, g, b in taken[1:])


@lru_cache(maxsize=64)
def separation_of_lattice(count: int) -> float:
    """Return the smallest distance inside the lattice that serves `count` colours, black included."""
    points = _full_lattice(count).astype(np.int64)
    return float(np.sqrt(((points[1:] - points[0]) ** 2).sum(axis=1).min()))


def format_hex(color: Color, upper: bool = False) -> str:
    """Write #rrggbb."""
    text = "#{:02x}{:02x}{:02x}".format(*color)
    return text.upper() if upper else text


def format_triple(color: Color, brackets: str = "()") -> str:
    """Write (r, g, b); `brackets` is "()", "[]" or "" for none, or "rgb()"."""
    inner = ", ".join(str(value) for value in color)
    if brackets == "rgb()":
        return f"rgb({inner})"
    return f"{brackets[:1]}{inner}{brackets[1:]}"


def name_of(color: Color) -> str | None:
    """Return the colour's name in COLOR_NAMES, or None when it is not exactly one of them."""
    return next((name for name, value in COLOR_NAMES.items() if value == color), None)


def srgb_to_lab(rgb_u8: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (..., 3) uint8 sRGB to CIELAB, D65 white: L 0 to 100.

    Source: IEC 61966-2-1 and CIE 15.
    """
    value = rgb_u8.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_XYZ.T / _RGB_TO_XYZ.sum(axis=1)
    cube = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = cube[..., 0], cube[..., 1], cube[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)

COLOR_WORDS = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
"""The eleven basic color terms of English (Berlin and Kay 1969): what `color_word` answers."""

_LAB_MARGIN = 4.0
_MAJORITY = 0.5


def _word_indices(lab: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return, for (N, 3) Lab, the index in COLOR_WORDS, -1 where English has no basic word (teal, beige, olive ...)."""
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    # The blue corner of sRGB leans to violet in Lab (hue 306): strong colours stay blue further round.
    blue_end = np.where(chroma > 60, 311.0, 297.0)
    red_hue, orange_hue, yellow_hue = (hue >= 8) & (hue < 45), (hue >= 52) & (hue < 80), (hue >= 84) & (hue < 108)
    pink_hue = (hue >= 335) | (hue < 25)
    rules = (
        ("black", (light < 17) & (chroma < 14)),
        ("white", (light > 91) & (chroma < 5)),
        ("gray", (light >= 21) & (light < 87) & (chroma < 6.5)),
        ("", chroma < 12),
        ("pink", pink_hue & (light > 58)),
        ("pink", red_hue & (light > 72)),
        ("red", red_hue & (light < 56) & (chroma > 48)),
        ("red", red_hue & (hue < 38) & (light < 40) & (chroma > 36)),
        ("brown", (hue >= 38) & (hue < 84) & (light < 48) & (light > 14) & (chroma > 14) & (chroma < 60)),
        ("orange", orange_hue & (light > 57) & (chroma > 58)),
        ("yellow", yellow_hue & (light > 72) & (chroma > 45)),
        ("green", (hue >= 114) & (hue < 175)),
        ("blue", (hue >= 228) & (hue < blue_end)),
        ("purple", (hue >= blue_end) & (hue < 335) & (light < 75)),
        ("purple", (hue >= 335) & (hue < 350) & (light < 45)),
    )
    words = np.select([rule for _, rule in rules], [COLOR_WORDS.index(w) if w else -1 for w, _ in rules], -1)
    return words.astype(np.int64)


def color_word(pixels_u8: NDArray[np.uint8]) -> str | None:
    """Name the colour of a region with a basic English colour word.

    Args:
        pixels_u8: (N, 3) uint8 sRGB, the region's visible pixels as rendered or photographed.

    Returns:
        One of COLOR_WORDS, or None: empty region, no basic word for the median colour, the median is within 4 Lab
        units of another word's range, or fewer than half of the pixels have that word.
    """
    pixels = np.asarray(pixels_u8).reshape(-1, 3)
    if not len(pixels):
        return None
    lab = srgb_to_lab(pixels[:: max(1, len(pixels) // 4096)])
    median = np.median(lab, axis=0)
    offsets = _LAB_MARGIN * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    words = _word_indices(median + offsets)
    if (
        words[0] < 0
        or ((words >= 0) & (words != words[0])).any()
        or (_word_indices(lab) == words[0]).mean() < _MAJORITY
    ):
        return None
    return COLOR_WORDS[int(words[0])]
