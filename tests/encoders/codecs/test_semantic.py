"""Label maps: exact round trips, and the nearest colour by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.codecs.colors import nearest_color, nearest_two
from cavendish.encoders.codecs.palettes import lattice
from cavendish.encoders.codecs.semantic import decode_semantic, encode_semantic
from cavendish.encoders.sample import InputError

LEGEND = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}


def random_colors(rng: np.random.Generator, count: int) -> np.ndarray:
    colors = np.unique(rng.integers(0, 256, (4 * count, 3), dtype=np.uint8), axis=0)
    return rng.permutation(colors)[:count]


def brute_nearest(rgb_u8: np.ndarray, colors: np.ndarray) -> np.ndarray:
    return ((rgb_u8[..., None, :].astype(int) - colors.astype(int)) ** 2).sum(-1).argmin(-1)


def test_the_legends_order_gives_the_labels() -> None:
    labels = np.array([[0, 1], [2, -1]])
    picture = encode_semantic(labels, LEGEND, background=(255, 255, 255))
    np.testing.assert_array_equal(picture, [[(128, 64, 128), (0, 0, 142)], [(70, 130, 180), (255, 255, 255)]])
    np.testing.assert_array_equal(decode_semantic(picture, LEGEND, background=(255, 255, 255)), labels)
    assert decode_semantic(picture, LEGEND)[1, 1] == 2  # with no background declared every pixel gets a class


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.booleans())
@settings(max_examples=30, deadline=None)
def test_round_trip(seed: int, classes: int, with_background: bool) -> None:
    rng = np.random.default_rng(seed)
    *colors, background = [tuple(map(int, c)) for c in random_colors(rng, classes + 1)]
    legend = {f"class {i}": color for i, color in enumerate(colors)}
    labels = rng.integers(-1 if with_background else 0, classes, (20, 30))
    chosen = background if with_background else None
    decoded = decode_semantic(encode_semantic(labels, legend, chosen), legend, chosen)
    np.testing.assert_array_equal(decoded, labels)


@pytest.mark.parametrize("count", [1, 2, 19, 256])
@pytest.mark.parametrize("size", [(7, 9), (300, 300)])  # below and above the size from which the cell table is used
def test_nearest_colour_is_exact_with_ties_to_the_first(count: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(count)
    colors = lattice(count) if count == 19 else random_colors(rng, count)
    rgb_u8 = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if count > 1:  # exact ties, half way between two colours
        rgb_u8[0] = (colors[0].astype(int) + colors[1]) // 2
    index = nearest_color(rgb_u8, colors)
    for rows in np.array_split(np.arange(size[0]), 4):
        np.testing.assert_array_equal(index[rows], brute_nearest(rgb_u8[rows], colors))


def test_distances_to_the_nearest_two() -> None:
    rng = np.random.default_rng(0)
    colors = random_colors(rng, 12)
    rgb_u8 = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    distance = np.sort(((rgb_u8[..., None, :].astype(int) - colors) ** 2).sum(-1), axis=-1)
    _, nearest, second = nearest_two(rgb_u8.reshape(-1, 3), colors)
    np.testing.assert_array_equal(nearest, distance[..., 0].reshape(-1))
    np.testing.assert_array_equal(second, distance[..., 1].reshape(-1))


def test_noise_that_mixes_up_the_official_palette_leaves_the_lattice_alone() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 19, (200, 200))
    legend = {str(i): tuple(map(int, color)) for i, color in enumerate(lattice(19))}
    noisy = encode_semantic(labels, legend) + rng.normal(0, 16, (200, 200, 3))
    decoded = decode_semantic(np.rint(noisy.clip(0, 255)).astype(np.uint8), legend)
    assert (decoded != labels).mean() < 1e-3


@pytest.mark.parametrize(
    ("labels", "legend", "background", "message"),
    [
        ([[0, 3]], LEGEND, None, "0 to 3"),
        ([[0, -1]], LEGEND, None, "background colour"),
        ([[0, -2]], LEGEND, (0, 0, 0), "-2"),
        ([[0]], {}, None, "empty"),
        ([[0]], {"a": (1, 2, 3), "b": (1, 2, 3)}, None, "same colour"),
        ([[0]], {"a": (1, 2, 3)}, (1, 2, 3), "same colour"),
        ([[0]], {"a": (1, 2, 256)}, None, "0 to 255"),
        ([[0]], {"a": (1, 2)}, None, "three integers"),
        ([[0.0]], LEGEND, None, "integers"),
    ],
)
def test_bad_input_is_refused_in_one_line(labels: list, legend: dict, background: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        encode_semantic(np.array(labels), legend, background)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
