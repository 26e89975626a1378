"""Normals: the stated colours, the rounding error, and every tool's axes."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.encoders.codecs.normals import CONVENTIONS, decode_normals, encode_normals, normals_from
from cavendish.encoders.sample import InputError


def unit_vectors(count: int = 100_000) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(1, count, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1)))


@pytest.mark.parametrize(
    ("normal", "color"),
    [
        ((-1, 0, 0), (255, 128, 128)),  # left: pinkish red
        ((0, 1, 0), (128, 255, 128)),  # up: light green
        ((0, 0, 1), (128, 128, 255)),  # toward the viewer: light blue
        ((1, 0, 0), (0, 128, 128)),
        ((0, -1, 0), (128, 0, 128)),
        ((0, 0, -1), (128, 128, 0)),
        ((0, 0, 0), (128, 128, 128)),
    ],
)
def test_axes_have_the_papers_colours(normal: tuple[float, ...], color: tuple[int, ...]) -> None:
    normals = np.array([[normal]], np.float32)
    picture = encode_normals(normals)
    np.testing.assert_array_equal(picture[0, 0], color)
    decoded = decode_normals(picture)
    assert degrees_between(decoded, normals).max() < 0.4 or not any(normal)
    assert decoded.any() == any(normal)


@pytest.mark.parametrize("name", [name for name, axes in CONVENTIONS.items() if axes.colour])
def test_eight_bits_cost_at_most_0_39_degrees(name: str) -> None:
    normals = unit_vectors()
    decoded = decode_normals(encode_normals(normals, name), name)
    error = degrees_between(decoded, normals)
    assert error.max() < 0.39
    assert error.mean() == pytest.approx(0.170, abs=0.004)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=-1), 1, atol=1e-6)


def test_unknown_survives_and_spreads_to_nothing_else() -> None:
    normals = unit_vectors(1000)
    normals[0, ::3] = 0
    decoded = decode_normals(encode_normals(normals))
    np.testing.assert_array_equal(decoded.any(-1), normals.any(-1))
    noisy = np.clip(128 + np.random.default_rng(0).normal(0, 8, (50, 50, 3)), 0, 255).astype(np.uint8)
    assert not decode_normals(noisy).any(-1).mean() > 0.05


FACING_LEFT_UP_VIEWER = {  # the vector (-1, 2, 3) of this project, as each tool stores it
    "vision-banana": (-1, 2, 3),
    "opengl": (-1, 2, 3),
    "blender": (-1, 2, 3),
    "hypersim": (-1, 2, 3),
    "marigold": (-1, 2, 3),
    "diffusers": (-1, 2, 3),
    "dsine": (1, 2, 3),
    "geonet-nyu": (1, 2, 3),
    "framenet-scannet": (1, 2, 3),
    "stablenormal": (1, 2, 3),
    "lotus": (1, 2, 3),
    "moge-2": (-1, -2, -3),
    "opencv": (-1, -2, -3),
    "omnidata": (-1, -2, 3),
    "2d-3d-s": (-1, -2, 3),
    "oasis": (-1, -2, 3),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions(name: str) -> None:
    ours = np.array([[(-1, 2, 3)]], np.float32)
    theirs = np.array([[FACING_LEFT_UP_VIEWER[name]]], np.float32)
    np.testing.assert_array_equal(normals_from(theirs, name), ours)


@pytest.mark.parametrize(
    ("name", "picture_of"),
    [  # each tool's own formula from its own vectors
        ("marigold", lambda n: (n + 1) / 2),
        ("dsine", lambda n: (n + 1) / 2),
        ("omnidata", lambda n: (n + 1) / 2),
        ("moge-2", lambda n: n * (0.5, -0.5, -0.5) + 0.5),
    ],
)
def test_pictures_of_other_tools_are_read_by_their_own_formula(name: str, picture_of: object) -> None:
    normals = unit_vectors(5000)
    signs = np.sign(np.array(FACING_LEFT_UP_VIEWER[name]) * (-1, 1, 1))  # each tool's axes are ours, some reversed
    picture = np.rint(255 * picture_of(normals * signs)).clip(0, 255).astype(np.uint8)  # type: ignore[operator]
    assert degrees_between(decode_normals(picture, name), normals).max() < 0.39


def test_dsine_pictures_have_the_papers_colours_and_marigolds_are_mirrored() -> None:
    normals = unit_vectors(5000)
    np.testing.assert_array_equal(encode_normals(normals, "dsine"), encode_normals(normals))
    mirrored = normals * np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(encode_normals(mirrored, "marigold"), encode_normals(normals))


@pytest.mark.parametrize(
    "bad",
    [np.ones((2, 2, 3), np.float32), np.full((2, 2, 3), np.nan, np.float32), np.zeros((2, 2, 3), np.uint8)],
)
def test_what_is_not_unit_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="unit vectors"):
        encode_normals(bad)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="dsine"):
        normals_from(np.zeros((1, 1, 3), np.float32), "directx")
    with pytest.raises(InputError, match="no colours"):
        decode_normals(np.zeros((1, 1, 3), np.uint8), "opencv")
