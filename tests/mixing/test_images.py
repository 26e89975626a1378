from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import decode_grey, decode_png16, decode_rgb, encode_png

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (33, 47, 4), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x112] = 6  # orientation: turn by 90 degrees


def saved(pixels: NDArray[np.uint8], form: str, mode: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(file, form, **options)
    return file.getvalue()


PICTURES = {
    "rgb": saved(PIXELS[..., :3], "PNG"),
    "alpha": saved(PIXELS, "PNG"),
    "grey": saved(PIXELS[..., 0], "PNG"),
    "palette": saved(PIXELS[..., :3], "PNG", "P"),
    "one bit": saved(PIXELS[..., 0], "PNG", "1"),
    "a colour is clear": saved(PIXELS[..., :3], "PNG", transparency=(1, 2, 3)),
    "turned png": saved(PIXELS[..., :3], "PNG", exif=TURNED),
    "jpeg": saved(PIXELS[..., :3], "JPEG"),
    "turned jpeg": saved(PIXELS[..., :3], "JPEG", exif=TURNED),
    "webp": saved(PIXELS[..., :3], "WEBP"),
    "16 bits": cv2.imencode(".png", PIXELS[..., :3].astype(np.uint16) * 257)[1].tobytes(),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_is_decoded_as_opencv_does(kind: str) -> None:
    data = PICTURES[kind]
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(decode_rgb(data, kind), expected)


def test_lossless_pictures_come_back() -> None:
    wide = RNG.integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    np.testing.assert_array_equal(decode_png16(encode_png(wide), "x", 3), wide)
    np.testing.assert_array_equal(decode_png16(encode_png(wide[..., 0]), "x", 1), wide[..., 0])
    np.testing.assert_array_equal(decode_grey(encode_png(PIXELS[..., 0]), "x"), PIXELS[..., 0])
    np.testing.assert_array_equal(decode_rgb(encode_png(PIXELS[..., :3]), "x"), PIXELS[..., :3])


def test_another_kind_of_png_is_an_error_that_names_it() -> None:
    rgb = encode_png(PIXELS[..., :3])
    with pytest.raises(InputError, match="k: expected a 16-bit PNG of 1 channels, found uint8 of shape"):
        decode_png16(rgb, "k", 1)
    with pytest.raises(InputError, match="expected a 16-bit PNG of 3 channels, found another format"):
        decode_png16(PICTURES["jpeg"], "k", 3)
    with pytest.raises(InputError, match="expected an 8-bit grey PNG"):
        decode_grey(rgb, "k")


@pytest.mark.parametrize("kept", [0, 5, 20, 33, 40, 100, 2000, -16])
def test_a_cut_png_is_an_error(kept: int) -> None:
    with pytest.raises(InputError, match=r"k: (damaged image|not a)"):
        decode_rgb(PICTURES["rgb"][:kept], "k")


def test_a_flipped_bit_of_a_png_is_an_error() -> None:
    data = PICTURES["rgb"]
    for at in range(50, len(data) - 16, 97):
        with pytest.raises(InputError, match="k: "):
            decode_rgb(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], "k")


def test_a_size_over_the_limit_is_refused_before_decoding() -> None:
    data = bytearray(PICTURES["rgb"])
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(InputError, match="100000x100000 is over the limit"):
        decode_rgb(bytes(data), "k")
