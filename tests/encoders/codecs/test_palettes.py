"""Palettes are separated as documented, notations read back, colour words agree with what people answered."""

from __future__ import annotations

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from cavendish.encoders.codecs.palettes import (
    BLACK,
    COLOR_NAMES,
    COLOR_WORDS,
    CSS_COLORS,
    color_distance,
    color_word,
    lattice,
    lattice_colors,
    srgb_to_lab,
)
from cavendish.encoders.sample import InputError

COLOR = st.tuples(*[st.integers(0, 255)] * 3)


def tuples(colors: np.ndarray) -> list[tuple[int, int, int]]:
    return [tuple(int(value) for value in color) for color in colors]


@pytest.mark.parametrize(
    ("n", "least"), [(1, 255), (7, 255), (8, 179), (13, 179), (26, 127), (34, 109), (62, 89), (63, 85), (124, 63)]
)
def test_lattices_reach_the_published_separation_with_black_as_background(n: int, least: float) -> None:
    colors = tuples(lattice(n))
    assert len(set(colors)) == n
    assert BLACK not in colors
    assert pdist([BLACK, *colors]).min() >= least


def test_a_lattice_of_thousands_has_no_repeats() -> None:
    assert len(set(tuples(lattice(4095)))) == 4095
    assert lattice(0).shape == (0, 3)
    with pytest.raises(InputError, match="4095"):
        lattice(4096)


@given(st.integers(1, 40), COLOR, st.integers(0, 2**32 - 1))
def test_drawn_lattice_colors_stay_apart_from_any_background(n: int, background: tuple, seed: int) -> None:
    colors = lattice_colors(n, np.random.default_rng(seed), background)
    assert len(colors) == n
    assert pdist(colors).min(initial=np.inf) >= 85
    assert min(color_distance(color, background) for color in colors) >= 42
    assert colors == lattice_colors(n, np.random.default_rng(seed), background)


def test_color_names_are_css_and_decode_unambiguously() -> None:
    css = {
        name: tuple(round(255 * v) for v in matplotlib.colors.to_rgb(h))
        for name, h in matplotlib.colors.CSS4_COLORS.items()
    }
    assert dict(CSS_COLORS) == css
    assert all(css[name.replace(" ", "")] == value for name, value in COLOR_NAMES.items())
    assert pdist([*COLOR_NAMES.values()]).min() >= 80


def test_lab_agrees_with_skimage() -> None:
    skimage_color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).integers(0, 256, (200, 3), dtype=np.uint8)
    np.testing.assert_allclose(srgb_to_lab(rgb), skimage_color.rgb2lab(rgb[None] / 255.0)[0], atol=0.02)


def test_color_words_agree_with_the_xkcd_survey() -> None:
    """954 colours named by 222,500 people; the head noun of a compound ("dark grass green") is the word to match."""
    answered, agreed, asked = 0, 0, 0
    for name, value in matplotlib.colors.XKCD_COLORS.items():
        modifier, _, head = name.removeprefix("xkcd:").replace("grey", "gray").rpartition(" ")
        if head not in COLOR_WORDS or any(word in modifier for word in (*COLOR_WORDS, "reddish", "y", "ish")):
            continue
        asked += 1
        word = color_word(np.array([[round(255 * v) for v in matplotlib.colors.to_rgb(value)]], np.uint8))
        answered += word is not None
        agreed += word == head
    assert asked > 200
    assert answered > 0.7 * asked
    assert agreed > 0.97 * answered


def test_pure_primaries_have_their_word_and_mixed_regions_have_none() -> None:
    words = {
        (255, 0, 0): "red",
        (0, 0, 255): "blue",
        (0, 255, 0): "green",
        (255, 255, 255): "white",
        (0, 0, 0): "black",
    }
    words |= {(255, 165, 0): "orange", (255, 255, 0): "yellow", (128, 0, 128): "purple", (128, 128, 128): "gray"}
    words |= {(139, 69, 19): "brown", (255, 192, 203): "pink"}
    assert {color: color_word(np.array([color], np.uint8)) for color in words} == words
    stripes = np.array([(255, 0, 0)] * 3 + [(0, 0, 255)] * 3 + [(0, 255, 0)] * 2 + [(255, 255, 0)] * 2, np.uint8)
    assert color_word(stripes) is None
    assert color_word(np.zeros((0, 3), np.uint8)) is None
    assert color_word(np.array([(0, 128, 128)], np.uint8)) is None, "teal is neither green nor blue"
