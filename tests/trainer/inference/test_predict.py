"""`cavendish predict`: a painter that draws the truth takes the generator's place, so that what is written is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from pycocotools import mask as coco_mask

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.instances import encode_instances
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.codecs.palettes import lattice_colors
from cavendish.encoders.codecs.semantic import encode_semantic
from cavendish.encoders.legends.parser import parse_legend
from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.encoders.tasks.registry import read_question
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from cavendish.trainer.inference.predict import Request, predict, predict_with

SIZE = 32
IDS = np.zeros((SIZE, SIZE), np.uint16)
IDS[4:12, 4:20] = 1
IDS[18:30, 10:16] = 2
DEPTH_M = np.linspace(1.0, 9.0, SIZE, dtype=np.float32)[:, None].repeat(SIZE, axis=1)
DEPTH_M[:4] = np.inf
NORMALS = np.broadcast_to(np.array([0.48, 0.6, 0.64], np.float32), (SIZE, SIZE, 3))


def paint(examples: Sequence[Example]) -> list[UInt8Image]:
    """Answer every question rightly, in the colours its spec asks for."""
    return [_answer(example) for example in examples]


def _answer(example: Example) -> UInt8Image:
    spec = example.spec
    match example.task:
        case "depth":
            return encode_depth(DEPTH_M)
        case "normals":
            return encode_normals(NORMALS)
        case "semantic" | "referring":
            legend = {name: tuple(color) for name, color in spec["legend"]}
            return encode_semantic(IDS.astype(np.int16) - 1, legend, tuple(spec["background"]))
        case "instance":
            return encode_instances(IDS, dict(zip((1, 2), lattice_colors(2, np.random.default_rng(0)))))
    assert example.source is not None
    return 255 - example.source


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of 64 x 96 pixels (three times as wide, twice as high as the answers)."""
    path = tmp_path / "mug.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    return path


def ask(picture: Path, task: str, **settings: object) -> tuple[Path, dict[str, object]]:
    out = picture.parent / "out"
    values = predict_with(paint, Request((picture,), task, SIZE, **settings), out)  # type: ignore[arg-type]
    return out, values


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_depth_comes_out_in_metres_at_the_size_of_the_picture(picture: Path, passes: int) -> None:
    out, _ = ask(picture, "depth", passes=passes)
    depth_m = np.load(out / "mug.depth.npy", allow_pickle=False)
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, DEPTH_M.repeat(2, axis=0).repeat(3, axis=1), rtol=0.02)


def test_a_cloud_unprojects_to_the_scene(picture: Path) -> None:
    out, _ = ask(picture, "depth", points="ply", fov_deg=90.0)
    cloud = trimesh.load(out / "mug.points.ply")
    points = np.asarray(cloud.vertices)
    assert len(points) == (SIZE - 4) * SIZE
    assert np.isclose(-points[:, 2].min(), 9, rtol=0.02)
    # 90 degrees: at depth z the picture is 2 z wide, and 64 / 96 of that high
    edge = points[np.abs(points[:, 0] / points[:, 2]).argmax()]
    assert np.isclose(abs(edge[0] / edge[2]), 1 - 1 / SIZE, rtol=1e-5)
    lowest = points[(points[:, 1] / -points[:, 2]).argmin()]
    assert np.isclose(lowest[1] / -lowest[2], -64 / 96 * (1 - 1 / SIZE), rtol=1e-5)
    assert ask(picture, "depth", points="glb")[0].joinpath("mug.points.glb").read_bytes()[:4] == b"glTF"


def test_normals_of_several_passes_stay_unit_vectors(picture: Path) -> None:
    out, _ = ask(picture, "normals", passes=3)
    normals = np.load(out / "mug.normals.npy", allow_pickle=False)
    np.testing.assert_allclose(normals, np.broadcast_to(NORMALS[0, 0], (64, 96, 3)), atol=0.01)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("segment the red mug; the cup to its left", ["the red mug", "the cup to its left"]),
        ("label mug, cup", ["mug", "cup"]),
        ("instances of mug", ["mug", "mug"]),
        ("prompt Paint the mug red and the cup blue", ["mug", "cup"]),
    ],
)
def test_masks_are_coco_results(picture: Path, task: str, names: list[str], passes: int) -> None:
    out, _ = ask(picture, task, passes=passes)
    results = sorted(json.loads((out / "mug.masks.json").read_text()), key=lambda entry: entry["bbox"][1])
    assert [entry["category"] for entry in results] == names
    for number, entry in enumerate(results, start=1):
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        truth = np.isin(IDS, number).repeat(2, axis=0).repeat(3, axis=1)
        np.testing.assert_array_equal(mask, truth)
        assert entry["area"] == mask.sum()
        assert entry["score"] == 1
    assert results[0]["bbox"] == [12, 8, 48, 16]


def test_every_pass_asks_in_other_colours_and_the_legend_is_in_the_prompt() -> None:
    asked = [read_question("label mug, red cup, sky", number) for number in range(6)]
    assert len({question.prompt for question in asked}) == 6
    for question in asked:
        legend = {name: tuple(color) for name, color in question.spec["legend"]}
        assert {k: v for k, v in parse_legend(question.prompt).items() if k != "background"} == legend
    assert read_question("depth") == read_question("depth", 0)


@pytest.mark.parametrize("task", ["dept", "depth now", "segment", "instances mug", "prompt hello", "label a, a", ""])
def test_a_task_that_is_not_known_says_what_is(picture: Path, task: str) -> None:
    with pytest.raises(InputError, match=r"write|twice|legend|colou?r"):
        ask(picture, task)


def test_a_bad_picture_in_a_folder_costs_only_itself(picture: Path) -> None:
    (picture.parent / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    out = picture.parent / "answers"
    values = predict_with(paint, Request((picture.parent,), "edit invert the colours", SIZE), out)
    assert [entry["name"] for entry in values["predictions"]] == ["mug"]
    assert [entry["file"] for entry in values["failed"]] == ["broken.jpg"]
    with pytest.raises(InputError, match=r"broken\.jpg"):
        predict_with(paint, Request((picture.parent / "broken.jpg",), "depth", SIZE), out)


def test_a_saved_generator_answers_alike_twice(picture: Path, tmp_path: Path) -> None:
    TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=64), 0).save(tmp_path / "generator")
    request = Request((picture,), "depth", SIZE, steps=1, passes=2)
    for name in ("one", "two"):
        predict(tmp_path / "generator", request, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "mug.drawn-1.png" in files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_picture_is_asked_at_the_bucket_of_its_shape(picture: Path, tmp_path: Path) -> None:
    shapes = []

    def look(examples: Sequence[Example]) -> list[UInt8Image]:
        shapes.extend(example.target.shape[:2] for example in examples)
        return [encode_depth(np.full(example.target.shape[:2], 3.0, np.float32)) for example in examples]

    tall = tmp_path / "tall.png"
    cv2.imwrite(str(tall), np.zeros((90, 60, 3), np.uint8))
    buckets = ((32, 32), (32, 48), (48, 32))
    predict_with(look, Request((picture, tall), "depth", buckets), tmp_path / "out")
    assert shapes == [(32, 48), (48, 32)]
    assert np.load(tmp_path / "out/tall.depth.npy", allow_pickle=False).shape == (90, 60)
    generator = tmp_path / "generator"
    TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=16), seed=0).save(generator)
    with pytest.raises(InputError, match="32x44: tiny/1 draws multiples of 8"):
        predict(generator, Request((picture,), "depth", ((32, 32), (32, 44))), tmp_path / "out")


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, Path]:
    """A saved generator, and a folder of five images with a broken one among them."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        image = np.random.default_rng(number).integers(0, 256, (40, 40 + 8 * (number % 2), 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "2b.png").write_bytes(b"no image")
    TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=64), 0).save(tmp_path / "generator")
    return tmp_path / "generator", folder


def assert_alike(one: Path, other: Path) -> None:
    """The same answers, but for a grey level of rounding."""
    assert (one / "predictions.json").read_bytes() == (other / "predictions.json").read_bytes()
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name.partition(".")[2].startswith("drawn"):
            images = [cv2.imread(str(folder / name)).astype(int) for folder in (one, other)]
            assert np.abs(images[0] - images[1]).max() <= 1


def test_answers_do_not_depend_on_how_many_images_are_asked_at_a_time(many: tuple[Path, Path], tmp_path: Path) -> None:
    for batch in (1, 4, 64):
        predict(many[0], Request((many[1],), "depth", SIZE, steps=1, passes=2, batch=batch), tmp_path / str(batch))
    assert_alike(tmp_path / "1", tmp_path / "4")
    assert_alike(tmp_path / "1", tmp_path / "64")
    values = json.loads((tmp_path / "1/predictions.json").read_text())
    assert [entry["file"] for entry in values["predictions"]] == [f"{number}.png" for number in range(5)]
    assert [entry["file"] for entry in values["failed"]] == ["2b.png"]


def test_half_precision_draws_nearly_the_same(many: tuple[Path, Path], tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        request = Request((many[1] / "0.png",), "depth", SIZE, precision=precision)  # type: ignore[arg-type]
        predict(many[0], request, tmp_path / precision)
    one, other = (cv2.imread(str(tmp_path / name / "0.drawn.png")).astype(int) for name in ("float32", "bfloat16"))
    assert 0 < np.abs(one - other).mean() < 4


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "cpu, cuda or cuda:NUMBER"), ("cuda:99", "torch sees . GPUs; set device=cpu")]
)
def test_a_device_that_is_not_there_is_named(
    device: str, message: str, many: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        predict(many[0], Request((many[1],), "depth", SIZE, device=device), tmp_path / "out")


@pytest.mark.slow
def test_two_processes_share_the_images(many: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    question = ["predict", str(many[1]), "--task", "depth", "--generator", str(many[0]), "--steps", "1"]
    done = subprocess.run(
        [*command, "cavendish", *question, "--size", str(SIZE), "--out", str(tmp_path / "two")],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    predict(many[0], Request((many[1],), "depth", SIZE, steps=1), tmp_path / "one")
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert done.stdout.count("5 pictures answered, 1 failed") == 1, done.stderr


def test_any_name_is_answered_and_no_file_is_passed_over(picture: Path) -> None:
    folder = picture.parent / "photos"
    names = ["x" * 240 + ".png", "a-b.png", "a/b.png", "A-B.png", "photo.jfif", "noend", "c/photo.png"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture.read_bytes())
    (folder / "notes.md").write_text("text")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heic")
    values = predict_with(paint, Request((folder, picture), "depth", SIZE), picture.parent / "out")
    made = [entry["name"] for entry in values["predictions"]]
    assert len({name.casefold() for name in made}) == len(made) == len(names) + 1
    assert {"A-B", "mug", "photo", "noend", "c-photo"} <= set(made)
    assert {entry["file"] for entry in values["failed"]} == {"broken.jpg", "phone.heic"}
    assert values["inputs"] == {"found": 11, "written": 8, "rejected": 2, "left_aside": {".md: not an image": 1}}
    assert all((picture.parent / "out" / f"{name}.depth.npy").exists() for name in made)
