"""What an audit must not call clean: nothing read, nothing to look for, thresholds off, too few controls."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit
from cavendish.mixing.images import encode_png
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from tests.mixing.audit.photographs import BENCHMARK, SKIMAGE, photograph, picture, write_benchmark
from tests.shard_folder import write_shards

BASE: dict[str, Any] = {
    "benchmarks": [{"name": "photos", "folder": "benchmark"}],
    "shards": ["renders"],
    "work": "work",
    "controls": {"copies": 8, "clean": 4},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("closed")
    write_benchmark(data / "benchmark", BENCHMARK[:2])
    write_shards(data / "renders", [picture("r", procedural_picture(np.random.default_rng(1), 96, 128))])
    write_shards(data / "empty", [])
    write_parts(data / "hidden", {f"r{number}": dict([part]) for number, part in enumerate(HIDDEN.values())})
    return data


def run(data: Path, **changes: Any) -> Any:
    return audit(AuditConfig.model_validate({**BASE, **changes}), data / "out", data=data)


def test_it_is_clean_as_it_stands(data: Path) -> None:
    assert run(data).exit_code == 0


def test_shards_without_a_record_are_not_clean(data: Path) -> None:
    verdict = run(data, shards=["renders", "empty"])
    assert verdict.exit_code == 3
    assert "empty: no record was read" in verdict.incomplete


def test_prompts_without_a_text_to_look_for_are_not_clean(data: Path) -> None:
    for text in ("", "\n \n", "depth map\n", "\ufeff\u200b\n"):
        (data / "prompts.txt").write_text(text)
        verdict = run(data, benchmarks=[{**BASE["benchmarks"][0], "prompts": "prompts.txt"}])
        assert verdict.exit_code == 3, text
        assert "benchmark photos: prompts.txt holds no text that can be looked for" in verdict.incomplete
        assert json.loads(verdict.report.read_text())["benchmarks"][0]["verdict"] == "incomplete"


def test_fewer_controls_than_show_anything_are_not_clean(data: Path) -> None:
    weak = run(data, controls={"copies": 1, "clean": 1, "target_recall": 0})
    assert weak.exit_code == 3
    assert "benchmark photos, copies: 1 of 1 planted were found; at least 8 must be planted" in weak.incomplete
    assert any("1 clean controls were scanned" in reason for reason in weak.incomplete)
    assert run(data, controls={"copies": 0, "clean": 4, "target_recall": 0}).exit_code == 3


def test_thresholds_that_find_nothing_are_not_clean_and_flagged(data: Path) -> None:
    off = {"pdq_accept": -1, "pdq_candidate": -1, "pdq_verify": -1, "pdq_inverted": 999, "leak_score": 1e9}
    verdict = run(data, thresholds={**off, "review_score": 1e9}, controls={"copies": 8, "clean": 4, "target_recall": 0})
    assert verdict.exit_code == 3
    assert any("the recall may be as low as 0.00, under 0.6" in reason for reason in verdict.incomplete)
    assert "settings changed: thresholds.pdq_accept -1 (default 31)" in verdict.words
    assert "controls.target_recall 0 (default 0.9)" in verdict.words
    assert "thresholds.leak_score 1e+09 (default 8)" in json.loads(verdict.report.read_text())["changed_settings"]
    assert "leak_score 1e+09 (default 8)" in verdict.page.read_text()


def encoded(image: UInt8Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def as_npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def only_in_alpha(image: UInt8Image) -> bytes:
    flat = np.full_like(image, 200)
    return encoded(np.dstack([flat, image.mean(axis=2).astype(np.uint8)]), "PNG")


def under_transparency(image: UInt8Image) -> bytes:
    return encoded(np.dstack([image, np.zeros(image.shape[:2], np.uint8)]), "PNG")


def second_frame(image: UInt8Image, kind: str) -> bytes:
    first = Image.fromarray(procedural_picture(np.random.default_rng(5), *image.shape[:2]))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=[Image.fromarray(image)], duration=100)
    return file.getvalue()


CAT = photograph(SKIMAGE, "chelsea.png")
HIDDEN: dict[str, tuple[str, bytes]] = {
    "a GIF": ("image.gif", encoded(CAT, "GIF")),
    "a BMP": ("image.bmp", encoded(CAT, "BMP")),
    "a TIFF": ("image.tiff", encoded(CAT, "TIFF")),
    "an AVIF": ("image.avif", encoded(CAT, "AVIF")),
    "an array": ("pixels.npy", as_npy(CAT)),
    "an array of floats, channels first": ("pixels.npy", as_npy(CAT.transpose(2, 0, 1) / np.float32(255))),
    "a name that says nothing": ("bin", encoded(CAT, "JPEG")),
    "the second frame of a GIF": ("image.gif", second_frame(CAT, "GIF")),
    "the second frame of a WebP": ("image.webp", second_frame(CAT, "WEBP")),
    "the second page of a TIFF": ("image.tif", second_frame(CAT, "TIFF")),
    "transparency alone": ("image.png", only_in_alpha(CAT)),
    "colors under transparency": ("image.png", under_transparency(CAT)),
    "base64 in json": ("json", json.dumps({"preview": base64.b64encode(encoded(CAT, "JPEG")).decode()}).encode()),
    "a data URI in a text": (
        "txt", b"see data:image/png;base64," + base64.b64encode(encoded(CAT, "PNG")) + b" and more"
    ),
    "normals.png": ("normals.png", encode_png(CAT.astype(np.uint16) * 257)),
    "weight.png": ("weight.png", encode_png(CAT.mean(axis=2).astype(np.uint8))),
    "instances.png": ("instances.png", encode_png(CAT.mean(axis=2).astype(np.uint16))),
}  # fmt: skip


def write_parts(directory: Path, records: dict[str, dict[str, bytes]]) -> None:
    plan = Plan("tests", 1, {})
    start_dataset(directory, plan)
    with ShardWriter(directory, 0, plan.digest) as writer:
        for key, parts in records.items():
            writer.add_parts(key, parts)
    finish_dataset(directory, plan)


LEAKED = ("leak", "chelsea.png")


def test_a_benchmark_image_is_found_in_whatever_a_record_holds_it(data: Path) -> None:
    keys = {f"r{number}": what for number, what in enumerate(HIDDEN)}
    verdict = run(data, shards=["hidden"])
    report = json.loads(verdict.report.read_text())
    found = {finding["key"] for finding in report["findings"] if (finding["level"], finding["image"]) == LEAKED}
    assert {keys[key] for key in found} == set(HIDDEN)
    assert {finding["image"] for finding in report["findings"]} == {LEAKED[1]}
    assert report["shards"][0]["members"]["image.gif"] == {"compared": 2, "not compared": 0}


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("mp4", b"\0\0\0\x20ftypisom" + bytes(range(256))),
        ("pkl", b"\x80\x04\x95" + bytes(range(200))),
        ("image.jxl", b"\xff\x0a" + bytes(200)),
        ("image.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("image.ppm", b"P3\n1 1\n255\n0 0 0\n"),
        ("latents.npy", as_npy(np.zeros((16, 64, 64), np.float32))),
        ("names.npy", as_npy(np.array(["a", "b"]))),
        ("image.png", b"\x89PNG\r\n\x1a\nnothing"),
        ("image.gif", second_frame(CAT, "GIF")[:-900]),
    ],
)
def test_what_cannot_be_compared_is_counted_and_not_clean(data: Path, member: str, content: bytes) -> None:
    folder = f"odd-{member}"
    write_parts(data / folder, {"r": {member: content}})
    verdict = run(data, shards=[folder])
    report = json.loads(verdict.report.read_text())
    assert verdict.exit_code == (1 if report["counts"]["leaks"] else 3)
    assert f"of them parts of records: 1 {member}" in verdict.incomplete[0]
    assert report["shards"][0]["failures"][0]["member"] == f"r.{member}"


def test_damage_that_a_decoder_conceals_is_not_clean(data: Path) -> None:
    whole = encoded(photograph(SKIMAGE, "coffee.png"), "JPEG")
    damaged = whole[: len(whole) // 2] + whole[len(whole) // 2 + 60 :]
    assert Image.open(io.BytesIO(damaged)).convert("RGB").size == (600, 400)  # Pillow says nothing
    write_parts(data / "concealed", {"r": {"image.jpg": damaged}})
    verdict = run(data, shards=["concealed"])
    assert verdict.exit_code == 3
    assert "r.image.jpg: damaged: Corrupt JPEG data" in verdict.page.read_text()
    assert run(data, shards=["renders"]).exit_code == 0


def test_every_file_of_a_benchmark_folder_is_reckoned(data: Path, tmp_path: Path) -> None:
    folder = data / "mixed"
    folder.mkdir()
    for name, kind in (("cat.jfif", "JPEG"), ("cat.PNG", "PNG"), ("cat", "WEBP"), ("pages.dat", "TIFF")):
        (folder / name).write_bytes(encoded(CAT, kind))
    (folder / "array.npy").write_bytes(as_npy(CAT))
    (folder / "notes.md").write_text("made by hand")
    (folder / ".DS_Store").write_bytes(b"\0\1\2")
    clean = run(data, benchmarks=[{"name": "photos", "folder": "mixed"}])
    (row,) = json.loads(clean.report.read_text())["benchmarks"]
    assert (clean.exit_code, row["images"], row["unread"]) == (0, 5, 0)
    assert row["left_aside"] == {".md: not an image, text": 1, "hidden: its name begins with a dot": 1}
    assert run(data, benchmarks=[{"name": "photos", "folder": "mixed"}], shards=["hidden"]).exit_code == 1

    for name, content in (
        ("cat.tga", encoded(CAT, "TGA")),
        ("cat.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(80)),
        ("cat.ppm", encoded(CAT, "PPM")),
        ("cat.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("images.parquet", b"PAR1" + bytes(range(256))),
        ("cut.jpg", encoded(CAT, "JPEG")[:3000]),
    ):
        (folder / name).write_bytes(content)
        verdict = run(data, benchmarks=[{"name": "photos", "folder": "mixed"}])
        assert verdict.exit_code == 3, name
        assert name in "\n".join(json.loads(verdict.report.read_text())["not_checked"])
        (folder / name).unlink()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_every_frame_of_a_benchmark_image_is_an_image_of_it(data: Path, kind: str) -> None:
    folder = data / f"frames-{kind}"
    folder.mkdir()
    (folder / f"two.{kind.lower()}").write_bytes(second_frame(CAT, kind))
    benchmark = [{"name": "photos", "folder": folder.name}]
    report = json.loads(run(data, benchmarks=benchmark, shards=["hidden"]).report.read_text())
    assert report["benchmarks"][0]["images"] == 2
    assert f"two.{kind.lower()} (frame 1)" in {finding["image"] for finding in report["findings"]}
