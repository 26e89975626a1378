"""Which edits of real photographs the cascade finds, what it calls them, and that it leaves strangers alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.image_pack import Pack, build_pack, read_pack
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.matching.postings import ARRAYS as POSTINGS
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.audit.signals.signal import Finding
from cavendish.mixing.images import encode_png
from tests.mixing.audit.photographs import BENCHMARK, OTHERS, SKIMAGE, photograph, write_benchmark

SMALL = "pasted on a picture"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    place = tmp_path_factory.mktemp("index")
    return build_pack("photos", write_benchmark(place / "images"), place / "pack", pixels=True)


@pytest.fixture(scope="module")
def blind_pack(pack: Pack) -> Pack:
    return build_pack("photos", pack.folder.parent / "images", pack.folder.parent / "blind")


def scan(image: np.ndarray, pack: Pack) -> list[Finding]:
    return scan_image(image, b"", (pack,), Thresholds())[1]


@pytest.mark.slow
@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit != SMALL])
def test_an_edited_copy_is_a_leak_of_its_original_and_of_no_other(edit: str, pack: Pack) -> None:
    for number, source in enumerate(BENCHMARK):
        found = scan(EDITS[edit](photograph(*source), np.random.default_rng([7, number])), pack)
        assert [(finding.image, finding.level) for finding in found] == [(source[1], "leak")], edit


def test_most_copies_pasted_small_on_another_picture_are_found(pack: Pack) -> None:
    found = 0
    for number, source in enumerate(BENCHMARK):
        findings = scan(EDITS[SMALL](photograph(*source), np.random.default_rng([7, number])), pack)
        assert {finding.image for finding in findings} <= {source[1]}
        found += any(finding.level == "leak" for finding in findings)
    assert found >= 3


def test_other_photographs_synthetic_pictures_and_flat_targets_are_clean(pack: Pack) -> None:
    pictures = [photograph(*source) for source in OTHERS]
    pictures += [procedural_picture(np.random.default_rng(seed), 128, 128) for seed in range(20)]
    masks = np.zeros((64, 64, 3), np.uint8)
    pictures.append(masks.copy())
    masks[20:50, 10:40] = (255, 0, 0)
    pictures.append(masks)
    pictures.append(np.tile(np.linspace(0, 255, 200).astype(np.uint8)[:, None, None], (1, 300, 3)))
    assert [finding for image in pictures for finding in scan(image, pack)] == []


def test_the_other_view_of_a_stereo_pair_is_the_same_scene_not_a_copy(pack: Pack) -> None:
    (finding,) = scan(photograph(SKIMAGE, "motorcycle_right.png"), pack)
    assert (finding.image, finding.kind, finding.level) == ("motorcycle_left.png", "same-scene", "review")


def test_equal_bytes_and_equal_pixels_are_told_apart(pack: Pack) -> None:
    image = photograph(SKIMAGE, "chelsea.png")
    data = (pack.folder.parent / "images/chelsea.png").read_bytes()
    print_, (finding,) = scan_image(image, data, (pack,), Thresholds())
    assert (finding.stage, finding.kind, print_.file_sha256) == ("file", "copy", hashlib.sha256(data).hexdigest())
    _, (finding,) = scan_image(image, encode_png(image), (pack,), Thresholds())
    assert finding.stage == "pixels"


@pytest.mark.parametrize(
    ("edit", "stage", "kind"),
    [
        ("jpeg 30", "pdq", "copy"),
        ("negative", "pdq-inverted", "copy"),
        ("crop 50 %", "local", "crop"),
        ("beside a map", "local", "embedded"),
    ],
)
def test_findings_say_how_and_as_what(edit: str, stage: str, kind: str, pack: Pack) -> None:
    (finding,) = scan(EDITS[edit](photograph(SKIMAGE, "chelsea.png"), np.random.default_rng(0)), pack)
    assert (finding.stage, finding.kind) == (stage, kind)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_alignment_is_where_the_copy_lies(mirror: bool, pack: Pack) -> None:
    image = photograph(SKIMAGE, "chelsea.png")  # (300, 451)
    canvas = procedural_picture(np.random.default_rng(3), 500, 600)
    shown = image[:, ::-1] if mirror else image
    canvas[150:450, 100:551] = shown
    (finding,) = scan(canvas, pack)
    assert finding.affine is not None
    affine = np.array(finding.affine).reshape(2, 3)
    left, top = affine[:, :2] @ (0, 0) + affine[:, 2]
    right, bottom = affine[:, :2] @ (1, 1) + affine[:, 2]
    expected = np.array([100 / 600, 0.3, 551 / 600, 0.9])[[2, 1, 0, 3] if mirror else [0, 1, 2, 3]]
    np.testing.assert_allclose([left, top, right, bottom], expected, atol=0.01)
    assert finding.mixture_share == pytest.approx(300 * 451 / (500 * 600), abs=0.02)


def test_a_panel_reports_every_benchmark_image_in_it(pack: Pack) -> None:
    pictures = [cv2.resize(photograph(*source), (400, 300), interpolation=cv2.INTER_AREA) for source in BENCHMARK[:2]]
    found = scan(np.concatenate(pictures, axis=1), pack)
    assert {finding.image for finding in found if finding.level == "leak"} == {"chelsea.png", "motorcycle_left.png"}


def test_without_pixels_local_findings_stay_unverified(blind_pack: Pack) -> None:
    assert not blind_pack.has_pixels
    assert not (blind_pack.folder / "pixels.bin").exists()
    (finding,) = scan(EDITS["crop 70 %"](photograph(SKIMAGE, "chelsea.png"), np.random.default_rng(0)), blind_pack)
    assert (finding.level, finding.kind, finding.agreeing) == ("review", "unverified", None)
    (finding,) = scan(EDITS["jpeg 30"](photograph(SKIMAGE, "chelsea.png"), np.random.default_rng(0)), blind_pack)
    assert finding.level == "leak"  # PDQ needs no pixels


def test_a_pack_is_the_same_bytes_again_and_a_changed_one_is_refused(pack: Pack, tmp_path: Path) -> None:
    again = build_pack("photos", pack.folder.parent / "images", tmp_path / "pack", pixels=True)
    assert again.digest == pack.digest
    path = tmp_path / "pack/features.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="sha256 is not the header's"):
        read_pack(tmp_path / "pack")
    build_pack("photos", pack.folder.parent / "images", tmp_path / "pack", pixels=True)
    assert read_pack(tmp_path / "pack").digest == pack.digest


def test_a_pack_of_another_version_is_refused(pack: Pack, tmp_path: Path) -> None:
    text = (pack.folder / "header.json").read_text()
    (tmp_path / "header.json").write_text(text.replace(cv2.__version__, "3.0.0"))
    with pytest.raises(InputError, match=r"OpenCV 3\.0\.0"):
        read_pack(tmp_path)


def test_files_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "images", BENCHMARK[:1])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "scan.tiff").write_bytes(b"II*\0")
    (folder / "notes.txt").write_text("not an image")
    pack = build_pack("photos", folder, tmp_path / "pack")
    assert [image["id"] for image in pack.images] == ["chelsea.png"]
    assert [item["id"] for item in pack.header["unread"]] == ["broken.png", "scan.tiff"]


def test_the_index_stays_under_50_kb_an_image(pack: Pack) -> None:
    assert sum(array.nbytes for array in pack.arrays.values()) / len(pack.images) < 50e3


def test_frames_of_a_moving_camera_are_the_same_scene(pack: Pack, tmp_path: Path) -> None:
    near, far = photograph(SKIMAGE, "coffee.png"), photograph(SKIMAGE, "chelsea.png")
    first, second = (view(far, near, shift) for shift in (0, 14))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/first.png").write_bytes(encode_png(first))
    frames = build_pack("frames", tmp_path / "images", tmp_path / "pack", pixels=True)
    (finding,) = scan(second, frames)
    assert (finding.kind, finding.level) == ("same-scene", "review")
    (finding,) = scan(EDITS["jpeg 30"](first, np.random.default_rng(0)), frames)
    assert (finding.kind, finding.level) == ("copy", "leak")


def view(far: np.ndarray, near: np.ndarray, shift: int) -> np.ndarray:
    """A near object in front of a far picture, seen from a camera moved sideways: only the near one moves much."""
    picture = cv2.resize(far, (640, 426))
    picture[150:390, 200 + shift : 440 + shift] = cv2.resize(near, (240, 240))
    return picture


def test_the_pack_folder_holds_no_pixels(pack: Pack, blind_pack: Pack) -> None:
    assert pack.has_pixels
    assert [path.name for path in sorted(pack.folder.parent.glob("*.pictures/*"))] == ["pictures.bin", "pictures.json"]
    own, blind = ({path.name: path.read_bytes() for path in one.folder.iterdir()} for one in (pack, blind_pack))
    assert own == blind  # kept pictures change nothing in it
    arrays = {"pdq", "quality", "sizes", "starts", *POSTINGS}
    assert set(own) == {"header.json", "features.bin", *(f"{name}.npy" for name in arrays)}


def test_a_perspective_view_is_aligned_by_a_homography(pack: Pack) -> None:
    image = photograph(SKIMAGE, "chelsea.png")
    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + np.array([(40, 25), (-10, 60), (-50, -40), (15, -10)], np.float32)
    shown = cv2.warpPerspective(image, cv2.getPerspectiveTransform(corners, moved), (width, height))
    (finding,) = scan(shown, pack)
    assert (finding.image, finding.level) == ("chelsea.png", "leak")
    assert finding.agreeing is not None
    assert finding.textured is not None
    assert finding.agreeing / finding.textured > 0.9  # an affine map alone reaches less than 0.6
