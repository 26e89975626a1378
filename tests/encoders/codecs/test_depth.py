"""The cube walk against hilbertmap, against the published error table, and over its whole domain."""

from __future__ import annotations

import hilbertmap
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cavendish.encoders.codecs.depth import (
    CUBE_WALK,
    CUBE_WALK_FAR,
    CUBE_WALK_OUTDOOR,
    LAST_CODE,
    UNKNOWN_RGB,
    DepthCodec,
    code_depths,
    decode_depth,
    depth_codec,
    encode_depth,
)
from cavendish.encoders.sample import InputError

CODECS = (CUBE_WALK, CUBE_WALK_OUTDOOR, CUBE_WALK_FAR, DepthCodec(-2.5, 7.0))


def code_colors() -> np.ndarray:
    """(1786, 3): the walk over the corners of the RGB cube, 255 steps an edge."""
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 1, 1)]
    steps = np.arange(LAST_CODE + 1)
    walk = [np.interp(steps, 255 * np.arange(8), 255 * np.array(corners)[:, channel]) for channel in range(3)]
    return np.stack(walk, axis=-1).astype(np.uint8)


def as_picture(colors: np.ndarray) -> np.ndarray:
    return np.asarray(colors, np.uint8).reshape(1, -1, 3)


def oracle_encode(depth_m: np.ndarray, codec: DepthCodec = CUBE_WALK) -> np.ndarray:
    return np.rint(hilbertmap.depth_to_rgb(depth_m, lam=codec.lam, c=codec.c_m) * 255).astype(np.uint8)


def oracle_decode(rgb_u8: np.ndarray, codec: DepthCodec = CUBE_WALK) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return hilbertmap.rgb_to_depth(rgb_u8 / 255.0, lam=codec.lam, c=codec.c_m)


def test_corners_are_the_depths_of_the_paper() -> None:
    corners = as_picture(code_colors()[::255])
    expected = 10 * ((1 - np.arange(7) / 7) ** -0.5 - 1)
    np.testing.assert_allclose(decode_depth(corners).depth_m[0, :7], expected, rtol=1e-6, atol=1e-7)
    assert decode_depth(corners).depth_m[0, 7] == np.inf
    names = ["black", "red", "yellow", "green", "cyan", "blue", "magenta", "white"]
    colors = {"black": (0, 0, 0), "red": (255, 0, 0), "yellow": (255, 255, 0), "green": (0, 255, 0)}
    colors |= {"cyan": (0, 255, 255), "blue": (0, 0, 255), "magenta": (255, 0, 255), "white": (255, 255, 255)}
    np.testing.assert_array_equal(corners[0], [colors[name] for name in names])


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_all_codes_agree_with_hilbertmap_and_round_trip(codec: DepthCodec) -> None:
    depths = code_depths(codec)
    assert len(depths) == LAST_CODE + 1 == 1785 + 1
    picture = encode_depth(depths, codec)
    np.testing.assert_array_equal(picture[:-1], oracle_encode(depths[:-1], codec))
    np.testing.assert_array_equal(picture, code_colors())
    decoded = decode_depth(picture[None], codec=codec)
    np.testing.assert_array_equal(decoded.depth_m[0], depths.astype(np.float32))
    np.testing.assert_allclose(decoded.depth_m[0], oracle_decode(picture, codec), rtol=1e-6, atol=1e-6)
    assert not decoded.residual.any()
    assert decoded.confident.all()


def test_decoding_agrees_with_hilbertmap_off_the_walk_except_on_ties() -> None:
    rgb_u8 = np.random.default_rng(0).integers(0, 256, (1000, 500, 3), dtype=np.uint8)
    ours, theirs = decode_depth(rgb_u8), oracle_decode(rgb_u8)
    different = ~np.isclose(ours.depth_m, theirs, rtol=1e-5, atol=1e-9)
    assert different.mean() < 1e-3
    distances = np.sort(squared_edge_distances(rgb_u8[different]), axis=1)
    np.testing.assert_array_equal(distances[:, 0], distances[:, 1])


def squared_edge_distances(colors: np.ndarray) -> np.ndarray:
    """Brute force: (N, 7) squared distances to the seven edges, in levels."""
    start, end = code_colors()[:-1:255].astype(int), code_colors()[255::255].astype(int)
    offset = colors[:, None, :].astype(int) - start
    direction = (end - start) // 255
    along = (offset * direction).sum(-1, keepdims=True)
    return ((offset - along * direction) ** 2).sum(-1)


def test_every_colour_decodes_to_the_nearest_point_of_the_walk() -> None:
    g, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    largest = 0.0
    for r in range(256):
        picture = np.stack([np.full_like(g, r), g, b], -1).astype(np.uint8)
        decoded = decode_depth(picture)
        assert not np.isnan(decoded.depth_m).any()
        assert decoded.depth_m.min() >= 0
        largest = max(largest, float(decoded.residual.max()))
        if r % 15 == 0:
            nearest = squared_edge_distances(picture.reshape(-1, 3)).min(1)
            np.testing.assert_array_equal(decoded.squared_distance.reshape(-1), nearest)
            assert (decoded.residual.reshape(-1) == np.sqrt(nearest, dtype=np.float32) / np.float32(255)).all()
    assert largest <= np.sqrt(0.5)


@given(arrays(np.float64, 40, elements=st.floats(0, 1e5)), st.sampled_from(CODECS))
def test_round_trip_is_within_half_a_step_at_every_depth(depth_m: np.ndarray, codec: DepthCodec) -> None:
    decoded = decode_depth(encode_depth(depth_m, codec)[None], codec=codec).depth_m[0]
    f = 1 - (1 + depth_m / codec.scale_m) ** -codec.power
    f_decoded = 1 - (1 + decoded.astype(np.float64) / codec.scale_m) ** -codec.power
    assert np.abs(LAST_CODE * (f - f_decoded)).max() <= 0.5 + 1e-4  # 1e-4: the float32 of the decoded depth


ERRORS = [  # range in metres, worst and mean relative error in percent
    (0.05, 0.1, 2.8, 1.0),
    (0.1, 0.25, 1.4, 0.48),
    (0.25, 0.5, 0.60, 0.22),
    (0.5, 1, 0.32, 0.12),
    (1, 2, 0.19, 0.075),
    (2, 5, 0.12, 0.052),
    (5, 10, 0.11, 0.050),
    (10, 20, 0.19, 0.072),
    (20, 40, 0.44, 0.15),
    (40, 80, 1.28, 0.39),
    (80, 150, 3.8, 1.1),
    (150, 300, 14, 3.6),
]


@pytest.mark.parametrize(("near", "far", "worst", "mean"), ERRORS)
def test_errors_are_those_of_the_table(near: float, far: float, worst: float, mean: float) -> None:
    depth_m = np.geomspace(near, far, 200_001)
    decoded = decode_depth(encode_depth(depth_m)[None]).depth_m[0]
    error = 100 * np.abs(decoded - depth_m) / depth_m
    assert error.max() <= worst * 1.03  # the table has two digits
    assert error.mean() == pytest.approx(mean, rel=0.06)
    analytic = 100 * (2.5 / LAST_CODE) * (1 + depth_m / 10) ** 3 / depth_m  # half a step
    if far <= 80:
        assert (error <= analytic * 1.05).all()


@pytest.mark.parametrize(
    ("codec", "percent"),
    [
        (CUBE_WALK, {0.5: 0.32, 5: 0.095, 40: 0.44, 80: 1.28, 200: 6.5}),
        (CUBE_WALK_OUTDOOR, {0.5: 1.18, 5: 0.175, 40: 0.126, 80: 0.175, 200: 0.34}),
        (CUBE_WALK_FAR, {0.5: 9.0, 5: 0.93, 40: 0.154, 80: 0.104, 200: 0.09}),
    ],
    ids=["indoor", "outdoor", "far"],
)
def test_presets_have_the_stated_errors(codec: DepthCodec, percent: dict[float, float]) -> None:
    for depth, expected in percent.items():
        depth_m = depth * np.geomspace(
            0.93, 1.07, 100_001
        )  # at the worst depth near it, in half steps of the codec there
        error = np.abs(decode_depth(encode_depth(depth_m, codec)[None], codec=codec).depth_m[0] - depth_m)
        slope = codec.power / codec.scale_m * (1 + depth_m / codec.scale_m) ** (-codec.power - 1)
        half_step = 0.5 / LAST_CODE / slope
        assert (error / half_step).max() == pytest.approx(1, abs=0.1)
        assert 100 * half_step[50_000] / depth == pytest.approx(expected, rel=0.04)


def test_rounding_leaves_no_bias() -> None:
    depth_m = np.random.default_rng(0).uniform(1, 10, 100_000)
    decoded = decode_depth(encode_depth(depth_m)[None]).depth_m[0]
    assert abs(np.mean(decoded / depth_m - 1)) < 2e-5  # truncation has -1e-3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_special_values(dtype: type) -> None:
    depth_m = np.array([[0.0, -0.0, 500.0, np.inf, np.nan, 1.0]], dtype)
    picture = encode_depth(depth_m)
    assert picture.shape == (1, 6, 3)
    expected = [(0, 0, 0), (0, 0, 0), (255, 254, 255), (255, 255, 255), UNKNOWN_RGB]
    np.testing.assert_array_equal(picture[0, :5], expected)
    decoded = decode_depth(picture)
    assert decoded.depth_m[0, 3] == np.inf
    assert not decoded.confident[0, 4]
    assert decoded.residual[0, 4] > 0.7
    assert decoded.confident[0, [0, 1, 2, 3, 5]].all()


def test_depths_past_the_last_half_step_are_white() -> None:
    boundary = 10 * (3570**0.5 - 1)
    picture = encode_depth(np.array([[boundary - 0.01, boundary + 0.01, 1e30]]))
    np.testing.assert_array_equal(picture[0], [(255, 254, 255), (255, 255, 255), (255, 255, 255)])


@pytest.mark.parametrize("size", [0, 1, 2, 98303, 98304, 98305, 200_001])
def test_any_size_and_layout(size: int) -> None:
    depth_m = np.random.default_rng(size).uniform(0.1, 80, size)
    picture = encode_depth(depth_m)
    np.testing.assert_array_equal(picture, oracle_encode(depth_m))
    strided = encode_depth(np.stack([depth_m, depth_m], -1)[:, 0])
    np.testing.assert_array_equal(strided, picture)
    decoded = decode_depth(picture[None])
    np.testing.assert_array_equal(decode_depth(picture[None, ::-1]).depth_m, decoded.depth_m[:, ::-1])


@pytest.mark.parametrize(
    ("depth_m", "message"),
    [
        (np.array([[1.0, -0.001]]), "negative"),
        (np.array([[np.nan, -2.0]]), "-2"),
        (np.array([[-np.inf]]), "negative"),
        (np.array([[1, 2]]), "int64"),
        ([[1.0]], "list"),
    ],
)
def test_bad_depth_is_refused_in_one_line(depth_m: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        encode_depth(depth_m)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)])
def test_bad_pictures_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8, 0 to 255"):
        decode_depth(bad)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_codec_ids_name_their_parameters(codec: DepthCodec) -> None:
    assert depth_codec(codec.id) == codec
    assert (codec.id == "cube-walk/1") == (codec == CUBE_WALK)


@pytest.mark.parametrize("codec_id", ["cube-walk/2", "cube-walk/1:lambda=-0.5,c=1", "cube-walk/1:lambda=-2", "", "x"])
def test_unknown_codec_ids_are_refused(codec_id: str) -> None:
    with pytest.raises(InputError, match="cube-walk/1"):
        depth_codec(codec_id)


def test_blends_that_decode_outside_their_range_are_not_confident() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, LAST_CODE, (2, 200_000))
    depths, colors = code_depths(), code_colors().astype(float)
    for weight in (0.5, 0.25):
        blend = np.rint(weight * colors[first] + (1 - weight) * colors[second]).astype(np.uint8)
        decoded = decode_depth(blend[None])
        low, high = np.minimum(first, second), np.maximum(first, second)
        outside = (decoded.depth_m[0] < depths[low] * 0.99) | (decoded.depth_m[0] > depths[high] * 1.01)
        assert outside.mean() > 0.1
        far_apart = high - low > 64
        assert decoded.confident[0][outside & far_apart].mean() < 0.001


def test_repair_takes_blends_back_to_one_of_the_two_sides() -> None:
    depth_m = np.full((64, 64), 1.3)
    depth_m[:, 32:] = 7.1
    picture = encode_depth(depth_m).astype(float)
    blended = picture.copy()
    blended[:, 1:-1] = (picture[:, :-2] + 2 * picture[:, 1:-1] + picture[:, 2:]) / 4
    rgb_u8 = np.rint(blended).astype(np.uint8)
    wrong = np.abs(decode_depth(rgb_u8).depth_m - depth_m) > 0.05
    assert wrong.any()
    repaired = decode_depth(rgb_u8, repair=True)
    assert not (np.abs(repaired.depth_m - depth_m) > 0.05).any()
    np.testing.assert_array_equal(repaired.residual, decode_depth(rgb_u8).residual)


def test_repair_leaves_confident_pixels_and_large_unknown_areas_alone() -> None:
    depth_m = np.full((40, 40), 2.0)
    depth_m[10:30, 10:30] = np.nan
    plain, repaired = decode_depth(encode_depth(depth_m)), decode_depth(encode_depth(depth_m), repair=True)
    np.testing.assert_array_equal(repaired.depth_m[plain.confident], plain.depth_m[plain.confident])
    assert (np.abs(repaired.depth_m[10:13, 10:30] - 2) < 0.01).all()
    np.testing.assert_array_equal(repaired.depth_m[13:27, 13:27], plain.depth_m[13:27, 13:27])
    assert not repaired.confident[10:30, 10:30].any()


def test_decode_needs_little_memory() -> None:
    import tracemalloc

    picture = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    tracemalloc.start()
    decode_depth(picture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 1024 * 1024
