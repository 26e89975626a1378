from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.decode import (
    MAX_BYTES,
    PHOTO_LIMITS,
    decode_image,
)

WRITERS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def pixels(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise: no two corners alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture_or_reason(data: bytes, max_side_px: int) -> np.ndarray | str:
    try:
        return decode_image(data, max_side_px).rgb_u8
    except InputError as error:
        return str(error)


GOOD = {kind: encoded(Image.fromarray(pixels()), kind) for kind in WRITERS}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_read_as_written(kind: str) -> None:
    decoded = decode_image(GOOD[kind], 1024)
    assert decoded.format == kind
    assert (decoded.width, decoded.height) == (128, 96)
    assert decoded.rgb_u8.dtype == np.uint8
    error = np.abs(decoded.rgb_u8.astype(int) - pixels()).mean()
    assert error <= {"JPEG": 4, "WEBP": 4, "AVIF": 4, "GIF": 12}.get(kind, 0)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_truncation_is_refused_or_harmless(kind: str) -> None:
    whole = decode_image(GOOD[kind], 1024).rgb_u8
    for share in np.linspace(0.02, 0.9, 23):
        cut = GOOD[kind][: int(len(GOOD[kind]) * share)]
        found = picture_or_reason(cut, 1024)
        if not isinstance(found, str):
            np.testing.assert_array_equal(found, whole)  # only what is not picture was cut


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_files_give_a_picture_within_the_limits_or_a_reason(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, data.draw(st.sampled_from((64, len(damaged) - 1))))))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        damaged[at : at + data.draw(st.sampled_from((len(piece), 0, 40)))] = piece
    found = picture_or_reason(bytes(damaged), 256)
    if isinstance(found, str):
        assert found
        assert "\n" not in found
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert max(found.shape[:2]) <= 256


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_image(data, 256)


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        b"%PDF-1.4\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"/>',
        b"P6 100 100 255\n" + bytes(30000),
        b"",
    ],
)
def test_formats_that_are_programs_or_not_listed_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not one of JPEG"):
        decode_image(data, 256)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def jpeg_header(width: int, height: int) -> bytes:
    good = GOOD["JPEG"]
    at = next(i for i in range(len(good)) if good[i : i + 2] == b"\xff\xc0") + 5
    return good[:at] + struct.pack(">HH", height, width) + good[at + 4 :]


def webp_header(width: int, height: int) -> bytes:
    """An animation of two small frames on a canvas that claims a size."""
    frames = [Image.fromarray(pixels(seed=seed)) for seed in (1, 2)]
    good = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert good[12:16] == b"VP8X"
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return good[:24] + canvas + good[30:]


def webp_lossless_header(width: int, height: int) -> bytes:
    good = encoded(Image.fromarray(pixels()), "WEBP", lossless=True)
    assert good[12:16] == b"VP8L"
    bits = struct.unpack("<I", good[21:25])[0]
    bits = (bits & ~(2**28 - 1)) | (width - 1) | ((height - 1) << 14)
    return good[:21] + struct.pack("<I", bits) + good[25:]


def tiff(width: int, height: int, *tile: int) -> bytes:
    """A grey TIFF whose IFD claims a size, and tiles when `tile` is (width, height)."""
    place = [(324, 8), (325, 8)] if tile else [(273, 8), (279, 8)]
    shape = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (277, 1)]
    tags = sorted([*shape, *place, *zip((322, 323), tile)])
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4) + bytes(4000)


BOMBS = {
    "png": png_header(20000, 20000),
    "png of 4 Gpx": png_header(65535, 65535),
    "jpeg": jpeg_header(65000, 65000),
    "webp": webp_header(16383, 16383),
    "webp lossless": webp_lossless_header(16383, 16383),
    "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + GOOD["GIF"][10:],
    "bmp": GOOD["BMP"][:18] + struct.pack("<ii", 30000, 30000) + GOOD["BMP"][26:],
    "tiff": tiff(40000, 40000),
    "tiff tiles": tiff(256, 256, 65520, 65520),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header_without_memory(name: str) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputError, match=r"over the limit of \d+ pixels"):
        decode_image(BOMBS[name], 256)
    assert psutil.Process().memory_info().rss - before < 32 * 2**20


def test_body_and_shape_limits() -> None:
    with pytest.raises(InputError, match=f"{MAX_BYTES + 1} bytes is over"):
        decode_image(GOOD["PNG"] + bytes(MAX_BYTES + 1 - len(GOOD["PNG"])), 256)
    with pytest.raises(InputError, match="63x200 has a side under 64"):
        decode_image(encoded(Image.fromarray(pixels(200, 63))), 256)
    with pytest.raises(InputError, match="64x513 is more than 8 times"):
        decode_image(encoded(Image.fromarray(pixels(513, 64))), 256)
    assert decode_image(encoded(Image.fromarray(pixels(512, 64))), 1024).rgb_u8.shape == (512, 64, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels()), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    decoded = decode_image(data, 1024)
    np.testing.assert_array_equal(decoded.rgb_u8, np.asarray(upright))
    assert (decoded.width, decoded.height) == upright.size
    assert ("rotated" in decoded.flags) == (orientation > 1)


def test_damaged_exif_keeps_the_picture_and_is_flagged() -> None:
    decoded = decode_image(encoded(Image.fromarray(pixels()), exif=b"Exif\0\0XX\0*garbage"), 1024)
    np.testing.assert_array_equal(decoded.rgb_u8, pixels())
    assert decoded.flags == ("exif_unusable",)


def test_16_bit_grey_is_scaled_not_cut() -> None:
    grey = np.linspace(0, 65535, 128 * 96).astype(np.uint16).reshape(96, 128)
    done, data = cv2.imencode(".png", grey)
    assert done
    decoded = decode_image(data.tobytes(), 1024)
    assert decoded.flags == ("grey", "grey16")
    np.testing.assert_allclose(decoded.rgb_u8[..., 1], grey / 257.0, atol=0.51)


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((96, 128, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:, 64:] = (0, 0, 0, 128)
    decoded = decode_image(encoded(Image.fromarray(rgba)), 1024)
    assert decoded.flags == ("alpha",)
    np.testing.assert_array_equal(decoded.rgb_u8[:, :64], 255)
    np.testing.assert_array_equal(decoded.rgb_u8[:, 64:], 127)


def test_palette_transparency_counts_as_alpha() -> None:
    palette = Image.new("P", (128, 96), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (64, 0, 128, 96))
    decoded = decode_image(encoded(palette, transparency=0), 1024)
    assert decoded.flags == ("alpha",)
    np.testing.assert_array_equal(decoded.rgb_u8[0, 0], 255)
    np.testing.assert_array_equal(decoded.rgb_u8[0, 127], (0, 0, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_read_and_flagged(kind: str) -> None:
    frames = [Image.new("RGB", (128, 96), color) for color in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), 1024)
    assert "animated" in decoded.flags
    np.testing.assert_array_equal(decoded.rgb_u8[40, 40], (255, 0, 0))


def test_cmyk_is_converted_and_flagged() -> None:
    ink = Image.new("CMYK", (128, 96), (0, 255, 255, 0))
    decoded = decode_image(encoded(ink, "TIFF"), 1024)
    assert decoded.flags == ("cmyk",)
    np.testing.assert_array_equal(decoded.rgb_u8[10, 10], (255, 0, 0))


def icc_profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]) -> bytes:
    """A minimal matrix profile (ICC.1:2001) with the given D50 primaries and gamma 2.2."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79)
    white = (0.9642, 1.0, 0.8249)
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0CC0\0"), (b"wtpt", xyz(white)), (b"rXYZ", xyz(red))]
    tags += [(b"gXYZ", xyz(green)), (b"bXYZ", xyz(blue)), (b"rTRC", gamma), (b"gTRC", gamma), (b"bTRC", gamma)]
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I", offset + len(body)) + bytes(4) + struct.pack(">I", 0x02400000) + b"mntrRGB XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", *(round(value * 65536) for value in white))
    return head + bytes(128 - len(head)) + table + body


SRGB_D50 = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def test_colour_profiles_are_applied() -> None:
    """In a space whose red and blue primaries are exchanged, stored red is seen as blue."""
    swapped = icc_profile(SRGB_D50[2], SRGB_D50[1], SRGB_D50[0])
    stored = Image.new("RGB", (128, 96), (255, 0, 0))
    decoded = decode_image(encoded(stored, icc_profile=swapped), 1024)
    assert decoded.flags == ("icc",)
    np.testing.assert_allclose(decoded.rgb_u8[0, 0], (0, 0, 255), atol=2)
    same = decode_image(encoded(Image.fromarray(pixels()), icc_profile=icc_profile(*SRGB_D50)), 1024)
    assert np.abs(same.rgb_u8.astype(int) - pixels()).mean() < 2.5


def test_an_unusable_profile_keeps_the_pixels_and_is_flagged() -> None:
    decoded = decode_image(encoded(Image.fromarray(pixels()), icc_profile=b"not a profile" * 20), 1024)
    assert decoded.flags == ("icc_unusable",)
    np.testing.assert_array_equal(decoded.rgb_u8, pixels())


def test_modes_without_a_known_range_are_refused() -> None:
    with pytest.raises(InputError, match="colour mode F"):
        decode_image(encoded(Image.fromarray(np.ones((96, 128), np.float32)), "TIFF"), 1024)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_pictures_are_reduced_by_area(kind: str) -> None:
    large = pixels(2100, 3300)
    decoded = decode_image(encoded(Image.fromarray(large), kind, **({"quality": 95} if kind == "JPEG" else {})), 500)
    assert decoded.flags == ("reduced",)
    assert (decoded.width, decoded.height) == (3300, 2100)
    assert decoded.rgb_u8.shape == (318, 500, 3)
    expected = cv2.resize(large, (500, 318), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(decoded.rgb_u8 - expected).mean() < 1.5
    assert np.percentile(np.abs(decoded.rgb_u8 - expected), 99.9) <= 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "limit", "options"),
    [
        ("PNG", "RGBA", PHOTO_LIMITS.max_pixels, {}),
        ("JPEG", "RGB", PHOTO_LIMITS.max_pixels, {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", PHOTO_LIMITS.cmyk, {"progressive": True, "subsampling": 0}),
        ("TIFF", "RGB", PHOTO_LIMITS.max_pixels, {"compression": "tiff_lzw"}),
        ("WEBP", "RGB", PHOTO_LIMITS.webp, {"method": 0}),
        ("AVIF", "RGB", PHOTO_LIMITS.avif, {"speed": 10}),
    ],
)
def test_the_largest_allowed_pictures_take_under_310_mb(
    kind: str, mode: str, limit: int, options: dict[str, object]
) -> None:
    code = (
        "import sys; from pathlib import Path; from cavendish.mixing.sources.decode import decode_image\n"
        "def peak_kb(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "data = sys.stdin.buffer.read(); before = peak_kb(); decode_image(data, 1024); print(peak_kb() - before)"
    )
    width = int((2 * limit) ** 0.5)
    data = encoded(Image.new(mode, (width, limit // width)), kind, **options)
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert int(done.stdout) / 1024 < 310
