"""Colour maps against matplotlib, and their round trips."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cavendish.encoders.codecs.colormaps import (
    COLORMAPS,
    ColormapCodec,
    colormap_codec,
    decode_colormap,
    encode_colormap,
)
from cavendish.encoders.sample import InputError


def table_of(name: str) -> np.ndarray:
    """The (256, 3) colours of a map: one depth for each."""
    return encode_colormap(np.arange(256.0), ColormapCodec(name, 0.0, 255.0))


@pytest.mark.parametrize("name", COLORMAPS)
def test_tables_are_matplotlibs(name: str) -> None:
    theirs = matplotlib.colormaps["gray" if name == "grey" else name](np.arange(256))[:, :3]
    np.testing.assert_array_equal(table_of(name), np.rint(theirs * 255))


@pytest.mark.parametrize("name", COLORMAPS)
@given(depth_m=arrays(np.float64, 30, elements=st.floats(0.5, 20)), reverse=st.booleans())
def test_round_trip_is_within_half_a_step(name: str, depth_m: np.ndarray, reverse: bool) -> None:
    codec = ColormapCodec(name, 20.0, 0.5) if reverse else ColormapCodec(name, 0.5, 20.0)
    decoded = decode_colormap(encode_colormap(depth_m, codec)[None], codec)
    half_step = 19.5 / 255 / 2
    slack = 2 if name == "viridis" else 1  # two pairs of its entries are the same 8-bit colour
    assert np.abs(decoded.depth_m[0] - depth_m).max() <= slack * half_step + 1e-5
    assert not decoded.residual.any()


@pytest.mark.parametrize("name", COLORMAPS)
def test_ends_saturate_and_unknown_is_off_the_map(name: str) -> None:
    codec = ColormapCodec(name, 1.0, 9.0)
    picture = encode_colormap(np.array([[0.0, 1.0, 9.0, 50.0, np.inf, np.nan]]), codec)
    decoded = decode_colormap(picture, codec)
    np.testing.assert_allclose(decoded.depth_m[0, :5], [1, 1, 9, 9, 9], atol=0.032)
    assert decoded.residual[0, 5] > 0.5
    np.testing.assert_array_equal(decoded.confident, [[True, True, True, True, True, False]])


@pytest.mark.parametrize("name", COLORMAPS)
def test_decoding_takes_the_nearest_of_256_colours(name: str) -> None:
    codec = ColormapCodec(name, 0.0, 255.0)
    rgb_u8 = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    decoded = decode_colormap(rgb_u8, codec)
    table = table_of(name).astype(int)
    distance = np.sqrt(((rgb_u8[:, :, None].astype(int) - table) ** 2).sum(-1))
    np.testing.assert_allclose(decoded.residual * 255, np.minimum(distance.min(-1), 65535**0.5), rtol=1e-6)
    own = np.take_along_axis(distance, np.rint(decoded.depth_m).astype(int)[..., None], -1)[..., 0]
    np.testing.assert_allclose(own, distance.min(-1))


def test_codec_ids() -> None:
    codec = ColormapCodec("turbo", 0.3, 12.5)
    assert codec.id == "turbo/1:near=0.3,far=12.5"
    assert colormap_codec(codec.id) == codec
    for bad in ("jet/1:near=0,far=1", "turbo/1", "turbo/1:near=1,far=1", "turbo/2:near=0,far=1"):
        with pytest.raises(InputError):
            colormap_codec(bad)


def test_negative_depth_is_refused() -> None:
    with pytest.raises(InputError, match="negative"):
        encode_colormap(np.array([[-1.0]]), ColormapCodec("grey", 0, 1))
