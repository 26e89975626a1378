"""Images that share a template with a benchmark image are never a leak; copies of such images stay leaks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.audit_lookalikes import COPIES, FAMILIES, photograph
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import Pack, build_pack
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.images import encode_png
from tests.mixing.audit.photographs import SKIMAGE
from tests.mixing.audit.photographs import photograph as whole_photograph

FAST = ("bar charts", "sudoku", "ornate frames", "badges", "cockpit")


def make_pack(place: Path, images: dict[str, UInt8Image]) -> Pack:
    (place / "images").mkdir(parents=True)
    for name, image in images.items():
        (place / f"images/{name}.png").write_bytes(encode_png(image))
    return build_pack("family", place / "images", place / "pack", pixels=True)


def levels(image: UInt8Image, pack: Pack) -> dict[str, str]:
    found = scan_image(image, encode_png(image), (pack,), Thresholds())[1]
    return {finding.image.removesuffix(".png"): finding.level for finding in found}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_another_content_in_the_same_template_is_never_a_leak_and_copies_are(family: str, tmp_path: Path) -> None:
    images = [FAMILIES[family](np.random.default_rng([3, number]), number) for number in range(6)]
    pack = make_pack(tmp_path / "all", {str(number): image for number, image in enumerate(images[:3])})
    alone = make_pack(tmp_path / "one", {"0": images[0]})
    for image in images[3:]:
        assert "leak" not in levels(image, pack).values()
        assert "leak" not in levels(image, alone).values()
    for edit in ("same, JPEG", "caption", "2 x 2 sheet"):
        found = levels(COPIES[edit](images[1], np.random.default_rng([3, 9])), pack)
        assert found["1"] == "leak", edit
        assert "leak" not in (found.get("0"), found.get("2")), edit


def test_an_image_pasted_into_another_accuses_both(tmp_path: Path) -> None:
    cat, coffee = photograph(2, 640, 480), photograph(3, 320, 240)
    pack = make_pack(tmp_path, {"cat": cat, "coffee": photograph(3, 640, 480)})
    shown = cat.copy()
    shown[200:440, 300:620] = coffee
    assert levels(shown, pack) == {"cat": "leak", "coffee": "leak"}


def test_a_panel_beside_a_map_accuses_what_it_shows_and_no_lookalike_of_the_whole(tmp_path: Path) -> None:
    def panel(image: UInt8Image) -> UInt8Image:
        depth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 12)
        colored = cv2.applyColorMap(255 - depth, cv2.COLORMAP_INFERNO)[..., ::-1]
        return np.concatenate([image, colored], axis=1)

    cat, other = photograph(2, 320, 320), photograph(3, 320, 320)
    pack = make_pack(tmp_path, {"cat": cat, "panel": panel(other)})
    assert levels(panel(cat), pack)["cat"] == "leak"
    assert levels(panel(cat), pack).get("panel") != "leak"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_accuses_nobody_and_is_not_cleared(value: int, tmp_path: Path) -> None:
    blank = np.full((480, 640, 3), value, np.uint8)
    pack = make_pack(tmp_path, {"blank": blank, "cat": whole_photograph(SKIMAGE, "chelsea.png")})
    print_, found = scan_image(blank, encode_png(blank), (pack,), Thresholds())
    assert found == []
    assert print_.pdq.quality == 0
    assert pack.header["weak"] == ["blank.png"]


def test_a_synthetic_image_in_a_frame_is_no_leak_of_another_in_the_same_frame(tmp_path: Path) -> None:
    frame = partial(procedural_picture, np.random.default_rng(1), 480, 640)()
    first, second = frame.copy(), frame.copy()
    first[60:420, 80:560] = procedural_picture(np.random.default_rng(2), 360, 480)
    second[60:420, 80:560] = procedural_picture(np.random.default_rng(3), 360, 480)
    pack = make_pack(tmp_path, {"first": first})
    assert levels(second, pack).get("first") != "leak"
    assert levels(first, pack) == {"first": "leak"}
