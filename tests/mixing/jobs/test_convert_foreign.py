"""What strangers' files become: one decoder in every format, values that no json holds, each input accounted for."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from cavendish.encoders.sample import InputError, Sample
from cavendish.mixing.accounting import Accounting
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.jobs.convert import ConvertConfig, convert
from cavendish.mixing.shards.dataset import committed_rows, load_dataset
from cavendish.mixing.shards.reader import read_dataset, read_parts, verify
from cavendish.mixing.sources.decode import FILE_LIMITS, decode_image
from cavendish.mixing.storage.cache import open_file


def card() -> Image.Image:
    """120 wide, 80 high: red top left, green top right, blue below."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60], pixels[:40, 60:], pixels[40:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[0x0112] = orientation
    return values


def display_p3() -> bytes:
    """A matrix profile with the primaries of Display P3 and the curve of sRGB, as phones and Macs embed it."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    p3 = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    for number in range(struct.unpack(">I", srgb[128:132])[0]):
        name, at, _ = struct.unpack(">4sII", srgb[132 + 12 * number : 144 + 12 * number])
        if name in p3:
            srgb[at + 8 : at + 20] = struct.pack(">3i", *(round(value * 65536) for value in p3[name]))
    return bytes(srgb)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = {
    "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"},
    "JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95},
}  # fmt: skip


def converted(folder: Path, files: dict[str, bytes], **settings: object) -> dict[str, tuple[Sample, dict[str, bytes]]]:
    """Convert images with a caption each; return sample and stored files by name."""
    for name, data in files.items():
        (folder / "in").mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
        (folder / "in" / name).with_name(f"{name.partition('.')[0]}.txt").write_text(name)
    values = {"name": "web", "path": "in", "licence": "CC0-1.0", **settings}
    convert(ConvertConfig.model_validate(values), folder / "out", data=folder)
    assert verify(folder / "out") == []
    found = {}
    rows = {key: row for row in committed_rows(folder / "out") for key in row.samples}
    for sample in read_dataset(folder / "out"):
        assert isinstance(sample, Sample)
        with open_file(folder / "out" / rows[sample.key].shard) as file:
            found[sample.captions[0]] = sample, read_parts(file, rows[sample.key], sample.key)
    return found


def near(image: np.ndarray, place: tuple[float, float], color: tuple[int, int, int], most: int = 12) -> bool:
    pixel = image[int(place[0] * image.shape[0]), int(place[1] * image.shape[1])].astype(int)
    return bool(np.abs(pixel - color).max() <= most)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_stored_upright(tmp_path: Path, orientation: int) -> None:
    files = {f"{kind}.{kind.lower()}": encode(card(), kind, exif=exif(orientation), **KINDS[kind]) for kind in KINDS}
    expected = np.asarray(card())
    turn: Callable[[np.ndarray], np.ndarray] = {
        1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud,
        5: lambda p: np.fliplr(np.rot90(p, 3)), 6: lambda p: np.rot90(p, 3), 7: lambda p: np.fliplr(np.rot90(p, 1)),
        8: lambda p: np.rot90(p, 1),
    }[orientation]  # fmt: skip
    found = converted(tmp_path, files)
    assert found.keys() == files.keys()
    for name, (sample, parts) in found.items():
        error = np.abs(sample.image.astype(int) - turn(expected)).mean()
        assert sample.image.shape == turn(expected).shape, name
        assert error < (6 if name.startswith(("JPEG", "AVIF")) else 0.01), name
        stored = {part: data for part, data in parts.items() if part.startswith("image.")}
        assert len(stored) == 1
        as_it_was = orientation == 1 and name.partition(".")[0] in ("JPEG", "PNG", "WEBP")
        assert (files[name] in stored.values()) == as_it_was, name


def test_colors_transparency_and_depths_of_bits_are_what_is_seen(tmp_path: Path) -> None:
    rgba = card().convert("RGBA")
    rgba.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), 60, 1).repeat(80, 0)))
    palette = Image.new("P", (120, 80), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    ramp = np.tile(np.linspace(0, 65535, 120).astype(np.uint16), (80, 1))
    files = {
        "alpha.png": encode(rgba, "PNG"),
        "clear.png": encode(palette, "PNG", transparency=1),
        "clear.gif": encode(palette, "GIF", transparency=1),
        "p3.png": encode(card(), "PNG", icc_profile=display_p3()),
        "p3.jpg": encode(card(), "JPEG", icc_profile=display_p3(), quality=95),
        "p3.webp": encode(card(), "WEBP", icc_profile=display_p3(), lossless=True),
        "ink.jpg": encode(card().convert("CMYK"), "JPEG", quality=95),
        "deep.png": cv2.imencode(".png", ramp)[1].tobytes(),
        "deep.tif": encode(Image.fromarray(ramp), "TIFF"),
        "srgb.jpg": encode(card(), "JPEG", icc_profile=SRGB, quality=95),
        "moving.webp": encode(card(), "WEBP", save_all=True, append_images=[card().rotate(180)], lossless=True),
        "moving.gif": encode(card(), "GIF", save_all=True, append_images=[card().rotate(180)]),
    }
    for name, data in files.items():
        files[name] = data
    found = {}
    for number, (name, data) in enumerate(files.items()):
        found |= converted(tmp_path / str(number), {name: data})
    images = {name: sample.image for name, (sample, _) in found.items()}
    assert images.keys() == files.keys()
    assert near(images["alpha.png"], (0.2, 0.2), (255, 255, 255), 0)
    assert near(images["alpha.png"], (0.2, 0.8), (30, 200, 30), 0)
    for name in ("clear.png", "clear.gif"):
        assert near(images[name], (0.5, 0.5), (255, 255, 255), 0)
    for name in ("p3.png", "p3.jpg", "p3.webp"):
        assert near(images[name], (0.2, 0.2), (218, 0, 6), 8), name
        assert near(images[name], (0.2, 0.8), (0, 204, 0), 8), name
    assert near(images["ink.jpg"], (0.2, 0.2), (200, 30, 30))
    for name in ("deep.png", "deep.tif"):
        np.testing.assert_allclose(images[name][0, :, 0], ramp[0] / 257, atol=1)
    for name in ("moving.webp", "moving.gif", "srgb.jpg"):
        assert near(images[name], (0.2, 0.2), (200, 30, 30)), name
    passed = {name for name, (_, parts) in found.items() if files[name] in parts.values()}
    assert passed == {"srgb.jpg"}


def test_a_camera_jpeg_with_a_second_image_is_one_image(tmp_path: Path) -> None:
    data = encode(card(), "MPO", save_all=True, append_images=[card().rotate(180)])
    found = converted(tmp_path, {"camera.jpg": data, "plain.jpg": encode(card(), "JPEG")})
    assert found.keys() == {"camera.jpg", "plain.jpg"}
    assert near(found["camera.jpg"][0].image, (0.2, 0.2), (200, 30, 30))


modes = st.sampled_from(["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "YCbCr", "I;16"])
kinds = st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])


@given(
    mode=modes,
    kind=kinds,
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    turn=st.integers(0, 9),
    profile=st.sampled_from([None, SRGB, display_p3(), b"no profile"]),
    seed=st.integers(0, 9),
    progressive=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_bytes_pass_through_only_where_readers_of_shards_see_the_same(
    mode: str, kind: str, size: tuple[int, int], turn: int, profile: bytes | None, seed: int, progressive: bool
) -> None:
    from cavendish.mixing.jobs.convert import _decode

    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    image = Image.fromarray(np.full(size, 30_000, np.uint16)) if mode == "I;16" else noise.convert(mode)
    options = {"progressive": progressive} if kind == "JPEG" else {}
    try:
        data = encode(image, kind, exif=exif(turn), **({"icc_profile": profile} if profile else {}), **options)
    except (OSError, ValueError, KeyError):  # a mode that the format cannot hold
        return
    pixels, files = _decode(data, "x", "image")
    seen = decode_image(data, limits=FILE_LIMITS).rgb_u8
    ((part, stored),) = files.items()
    np.testing.assert_array_equal(pixels, decode_rgb(stored, part))
    assert np.abs(pixels.astype(int) - seen).max() <= 2
    assert part.endswith(".png") or stored == data


NAMES = st.sampled_from(["a", "b c", "é", "x" * 200, "ä" * 100, "-", "new\nline", "\u202eleft"])
JSONS = st.sampled_from(
    [
        "",
        '{"score": NaN, "caption": "nan"}',
        '{"author": "\\ud83d", "caption": "half \\ud83d emoji"}',
        f'{{"n": {"9" * 5000}}}',
        '{"caption": ["first", "second"], "url": 5}',
        '{"caption": "\\u0000nul\\u200b", "license": null}',
        '["no map"]',
        "[" * 50_000,
        '\ufeff{"caption": "marked"}',
    ]
)
ENDINGS = st.sampled_from([".jpg", ".jfif", "", ".md"])
GOOD, BROKEN = encode(card(), "JPEG"), encode(card(), "PNG")[:200]
CONTENTS = st.sampled_from([GOOD, GOOD, BROKEN, b"", b"text", b"\0\0\0\x18ftypheic\0\0\0\0heic", encode(card(), "GIF")])


@given(
    files=st.lists(
        st.tuples(NAMES, ENDINGS, CONTENTS, st.none() | st.binary(max_size=9), JSONS),
        min_size=1,
        max_size=5,
        unique_by=lambda file: file[0],
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_input_of_a_job_is_written_rejected_or_left_aside(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str, bytes, bytes | None, str]]
) -> None:
    folder = tmp_path_factory.mktemp("job")
    (folder / "in").mkdir()
    count = 0
    for name, ending, data, text, meta in files:
        (folder / "in" / f"{name}{ending}").write_bytes(data)
        count += 1
        if text is not None:
            (folder / "in" / f"{name}.txt").write_bytes(text)
        if meta:
            (folder / "in" / f"{name}.json").write_bytes(meta.encode())
    settings_ = {"name": "web", "path": "in", "licence": "CC0-1.0", "records_per_shard": 2}
    try:
        result = convert(ConvertConfig.model_validate(settings_), folder / "out", data=folder)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 (no file there is a record)
        return
    assert result.totals is not None
    assert load_dataset(folder / "out").totals == result.totals
    account = Accounting.of_totals(result.totals)
    sidecars_alone = sum(n for reason, n in account.left_aside.items() if "no image of its name" in reason)
    assert account.found == count + sidecars_alone
    assert verify(folder / "out") == []
    rejected = [letter for row in committed_rows(folder / "out") for letter in row.rejected]
    assert len(rejected) == account.rejected
    assert all(letter.reason and "\n" not in letter.reason for letter in rejected)
    json.dumps([letter.reason for letter in rejected]).encode()
