"""From a folder of pictures to a result: what is right scores right, what is missing or odd is said in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cavendish.encoders.codecs.depth import CUBE_WALK_OUTDOOR, encode_depth
from cavendish.encoders.codecs.semantic import encode_semantic
from cavendish.encoders.sample import InputError, Sample
from cavendish.encoders.tasks.registry import VISION_TASKS
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.evaluate import ScoreConfig, evaluate, summary_lines, write_requests, write_result
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.score import COPY, score
from cavendish.trainer.evaluation.sets import Questions, read_sample_questions, sample_questions
from cavendish.trainer.evaluation.tasks.task import resize_nearest
from tests.conftest import tiny_sample
from tests.shard_folder import write_shards
from tests.trainer.evaluation.layouts import box_mask, run_lengths, write_json, write_picture, write_png


def _samples(count: int = 12) -> list[Sample]:
    return [tiny_sample(f"scene-{i:03d}", i, 64) for i in range(count)]


def _targets(questions: Questions) -> Callable[[Item], np.ndarray]:
    by_key = {example.key: example.target for example in questions.examples}
    return lambda item: by_key[item.picture or item.name]


HEADLINE = {
    "depth": ("abs_rel", 0.002, False),
    "normals": ("mean_deg", 0.4, False),
    "semantic": ("miou", 0.9999, True),
    "instance": ("cgf1", 0.999, True),
    "referring": ("giou", 0.9999, True),
}


def _headline(result: dict, row: int = 0) -> float:
    metrics = result["rows"][row]["metrics"]
    return metrics.get("pooled", metrics)[HEADLINE[result["task"]][0]]


@pytest.mark.parametrize("task", VISION_TASKS)
def test_the_targets_of_our_samples_score_as_the_codec_allows(task: str):
    questions = sample_questions(_samples(), task, seed=3)
    result = score(questions.benchmark, _targets(questions)).values
    _, bound, more = HEADLINE[task]
    assert _headline(result) >= bound if more else _headline(result) <= bound
    names = [row["name"] for row in result["rows"]]
    assert names[0] == "prediction"
    assert (COPY in names) == (task != "instance")
    assert len(names) >= 4
    worst = [_headline(result, row) for row in range(1, len(names))]
    assert min(worst) < _headline(result) if more else max(worst) > _headline(result)


@pytest.mark.parametrize("task", VISION_TASKS)
def test_questions_are_a_function_of_samples_and_seed(task: str):
    first, again, other = (sample_questions(_samples(), task, seed) for seed in (3, 3, 4))
    assert [e.prompt for e in first.examples] == [e.prompt for e in again.examples]
    assert [e.prompt for e in first.examples] != [e.prompt for e in other.examples]
    assert all((a.target == b.target).all() for a, b in zip(first.examples, again.examples))


def test_guesses_fitted_elsewhere_are_said_to_be():
    questions = sample_questions(_samples(), "depth", seed=3)
    near = np.full(64, 0.1)
    own = score(questions.benchmark, _targets(questions)).values
    other = score(questions.benchmark, _targets(questions), fitted={"one depth everywhere": near}).values
    assert own["guesses_fitted_on"] == "the truth they are scored on"
    assert other["guesses_fitted_on"] == "other truth than they are scored on"
    assert other["rows"][1]["metrics"]["delta1"] == 0


def test_depth_is_asked_in_the_metric_codec_only():
    questions = sample_questions(_samples(30), "depth", seed=0)  # a quarter of training prompts name another colour map
    assert {example.spec["codec"] for example in questions.examples} == {"cube-walk/1"}


def test_instances_are_asked_for_in_vain_too():
    result = score(*_pair(sample_questions(_samples(40), "instance", seed=0))).values
    metrics = result["rows"][0]["metrics"]
    assert metrics["negative"] >= 4
    assert metrics["il_mcc"] == pytest.approx(1, abs=1e-5)
    assert metrics["coco"]["ap"] == pytest.approx(1)
    painted = next(row for row in result["rows"] if row["name"] == "everything drawn")
    assert painted["metrics"]["il_mcc"] == 0


def _pair(questions: Questions) -> tuple[Benchmark, Callable[[Item], np.ndarray]]:
    return questions.benchmark, _targets(questions)


def test_answers_of_another_size_are_decoded_first_and_resized_with_nearest():
    questions = sample_questions(_samples(4), "depth", seed=0)
    targets = _targets(questions)
    same = score(questions.benchmark, targets).values
    double = score(questions.benchmark, lambda item: targets(item).repeat(2, axis=0).repeat(2, axis=1)).values
    assert _headline(double) == _headline(same)
    assert double["resized"] == {"128x128 to 64x64": 4}
    assert any("decoded first, then resized with nearest (4 from 128x128 to 64x64)" in n for n in double["notes"])
    half = score(questions.benchmark, lambda item: targets(item)[::2, ::2]).values
    assert half["rows"][0]["metrics"]["delta1"] > 0.97


@pytest.mark.parametrize("size", [(7, 9), (64, 48), (3, 3), (33, 17)])
def test_nearest_resize_takes_pixel_centres(size: tuple[int, int]):
    array = np.random.default_rng(0).integers(0, 256, (21, 16), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(resize_nearest(array, size), expected)


def test_worst_cases_are_the_worst_in_order():
    questions = sample_questions(_samples(), "depth", seed=0)
    targets = _targets(questions)
    spoilt = {"scene-004.depth": 60, "scene-009.depth": 40}

    def answer(item: Item) -> np.ndarray:
        picture = targets(item).copy()
        picture[: spoilt.get(item.name, 0)] = 0
        return picture

    result = score(questions.benchmark, answer)
    assert [case.item.name for case in result.worst[:2]] == ["scene-004.depth", "scene-009.depth"]
    assert len(result.worst) == 8


def _eth3d(folder: Path, count: int = 3) -> list[np.ndarray]:
    depths = []
    for index in range(count):
        write_picture(folder / f"office/images/dslr_images/DSC_{index}.JPG", 30, 40)
        depth = np.geomspace(1, 20 + index, 30 * 40).reshape(30, 40).astype("<f4")
        path = folder / f"office/ground_truth_depth/dslr_images/DSC_{index}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(depth.tobytes())
        depths.append(depth)
    return depths


def _config(folder: Path, benchmark: str = "eth3d", **values: object) -> ScoreConfig:
    return ScoreConfig(benchmark=benchmark, folder=folder, **values)


@pytest.fixture
def eth3d(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A benchmark folder, a folder of right predictions, an output folder."""
    for index, depth in enumerate(_eth3d(tmp_path / "eth3d")):
        write_png(tmp_path / f"predictions/office/DSC_{index}.png", encode_depth(depth))
    return tmp_path / "eth3d", tmp_path / "predictions", tmp_path / "out"


def test_result_and_page_state_protocol_published_rows_and_counts(eth3d: tuple[Path, Path, Path]):
    folder, predictions, out = eth3d
    values = evaluate(_config(folder, title="Ours <1>"), predictions, out)
    assert values["rows"][0]["metrics"]["delta1"] == 1
    assert values == json.loads((out / "result.json").read_text())
    assert values["protocol"].startswith("depth/1;1e-05m<d;clip=1e-05..412.5m")
    published = [row for row in values["rows"] if row["kind"] == "published"]
    assert published[0]["metrics"] == {"delta1": 0.935, "abs_rel": 0.103}
    assert "not exactly comparable" in values["caveat"]
    assert "3 items are scored, the published set has 454" in values["notes"]
    page = (out / "report.html").read_text()
    assert "Ours &lt;1&gt;" in page
    assert values["protocol"].replace("<", "&lt;") in page
    assert "Published elsewhere, not measured here" in page
    assert page.count("data:image/png;base64,") == 3 * 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(summary_lines(values)) == 2


def test_alignment_is_stated_and_only_for_depth(eth3d: tuple[Path, Path, Path], tmp_path: Path):
    folder, predictions, out = eth3d
    for path in predictions.rglob("*.png"):
        index = int(path.stem[-1])
        depth = np.geomspace(1, 20 + index, 30 * 40).reshape(30, 40)
        write_png(path, encode_depth(depth * 2))
    assert evaluate(_config(folder), predictions, out)["rows"][0]["metrics"]["delta1"] == 0
    aligned = evaluate(_config(folder, alignment="scale_median"), predictions, out)
    assert aligned["rows"][0]["metrics"]["delta1"] == 1
    assert "align=scale_median" in aligned["protocol"]
    assert any("not metric" in note for note in aligned["notes"])


def test_missing_extra_and_jpeg_predictions(eth3d: tuple[Path, Path, Path]):
    folder, predictions, out = eth3d
    write_png(predictions / "office/DSC_9.png", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"1 PNG files in .* belong to no item of eth3d, the first is office/DSC_9\.png"
    ):
        evaluate(_config(folder), predictions, out)
    (predictions / "office/DSC_9.png").unlink()
    (predictions / "office/DSC_1.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 files are missing .* office/DSC_1\.png.*partial=true"):
        evaluate(_config(folder), predictions, out)
    values = evaluate(_config(folder, partial=True), predictions, out)
    assert values["items"] == 2
    assert "partial: 2 of 3 items have a prediction, the rest is left out" in values["notes"]
    for path in predictions.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(InputError, match="is a JPEG, whose colours do not decode"):
        evaluate(_config(folder), predictions, out)
    with pytest.raises(InputError, match="no folder"):
        evaluate(_config(folder), predictions / "nowhere", out)


def test_a_damaged_prediction_is_named(eth3d: tuple[Path, Path, Path]):
    folder, predictions, out = eth3d
    (predictions / "office/DSC_1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"DSC_1\.png: not a PNG"):
        evaluate(_config(folder), predictions, out)


def test_a_random_subset_is_seeded_and_stated(eth3d: tuple[Path, Path, Path]):
    folder, predictions, out = eth3d
    first, again = (evaluate(_config(folder, limit=2, seed=5), predictions, out) for _ in range(2))
    assert first == again
    assert first["items"] == 2
    assert any("random subset: 2 of 3 items" in note for note in first["notes"])


def test_specs_replace_the_codec_the_model_was_asked_in(eth3d: tuple[Path, Path, Path]):
    folder, predictions, out = eth3d
    for path in predictions.rglob("*.png"):
        depth = np.geomspace(1, 20 + int(path.stem[-1]), 30 * 40).reshape(30, 40)
        write_png(path, encode_depth(depth, CUBE_WALK_OUTDOOR))
    assert evaluate(_config(folder), predictions, out)["rows"][0]["metrics"]["abs_rel"] > 0.05
    write_json(predictions / "specs.json", {"*": {"task": "depth", "codec": CUBE_WALK_OUTDOOR.id}})
    assert evaluate(_config(folder), predictions, out)["rows"][0]["metrics"]["abs_rel"] < 0.01
    write_json(predictions / "specs.json", {"office/DSC_0": {"task": "normals"}})
    with pytest.raises(InputError, match="decode spec is for task 'normals'"):
        evaluate(_config(folder), predictions, out)


def test_cityscapes_with_the_prompted_legend(tmp_path: Path):
    labels = np.full((16, 32), 7, np.uint8)
    labels[:8], labels[0] = 23, 3  # sky, and a row of void
    write_picture(tmp_path / "leftImg8bit/val/a/a_1_leftImg8bit.png", 16, 32)
    write_png(tmp_path / "gtFine/val/a/a_1_gtFine_labelIds.png", labels)
    item = read_benchmark("cityscapes", tmp_path).items[0]
    legend = {name: tuple(color) for name, color in item.spec["legend"]}
    order = list(legend)
    indices = np.where(labels == 23, order.index("sky"), order.index("road"))
    write_png(tmp_path / "p/a_1.png", encode_semantic(indices, legend))
    values = evaluate(_config(tmp_path, "cityscapes"), tmp_path / "p", tmp_path / "out")
    assert values["rows"][0]["metrics"]["miou"] == 1
    assert values["rows"][0]["metrics"]["iou"]["bus"] is None
    page = (tmp_path / "out/report.html").read_text()
    assert "IoU by class" in page
    assert "20 passes with a vote" in page


def test_saco_is_averaged_over_its_subsets(tmp_path: Path):
    left = box_mask(20, 30, 2, 10, 2, 10)
    write_picture(tmp_path / "images/a.jpg", 20, 30)
    for subset, count, masks in (("metaclip", 3, [left]), ("sa1b", 1, [~left])):
        image = {"file_name": "a.jpg", "height": 20, "width": 30, "is_instance_exhaustive": 1}
        images = [{**image, "id": number, "text_input": f"thing {number}"} for number in range(count + 1)]
        annotations = [{"image_id": i, "segmentation": run_lengths(m)} for i in range(1, count + 1) for m in masks]
        for annotator in "abc":
            path = tmp_path / f"gold_{subset}_merged_{annotator}_release_test.json"
            write_json(path, {"images": images, "annotations": annotations})
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[left] = (255, 0, 0)
        write_png(tmp_path / f"p/{subset}/0.png", np.zeros((20, 30, 3), np.uint8))
        for number in range(1, count + 1):
            write_png(tmp_path / f"p/{subset}/{number}.png", picture)
    values = evaluate(_config(tmp_path, "saco-gold"), tmp_path / "p", tmp_path / "out")
    metrics = values["rows"][0]["metrics"]
    assert metrics["groups"]["metaclip"]["cgf1"] == pytest.approx(1, abs=1e-3)
    assert metrics["groups"]["sa1b"]["cgf1"] == 0
    assert metrics["cgf1"] == pytest.approx(0.5, abs=1e-3)
    assert "mean over 2 subsets" in values["protocol"]


def test_samples_from_raw_shards(tmp_path: Path):
    write_shards(tmp_path / "raw", _samples(5))
    questions = read_sample_questions(tmp_path / "raw", "normals", 1)
    for example in questions.examples:
        write_png(tmp_path / f"p/{example.key}.png", example.target)
    config = _config(Path("raw"), "samples", task="normals", seed=1)
    values = evaluate(config, tmp_path / "p", tmp_path / "out", data=tmp_path)
    assert values["rows"][0]["metrics"]["pooled"]["mean_deg"] < 0.4
    with pytest.raises(InputError, match="needs task"):
        evaluate(_config(Path("raw"), "samples"), tmp_path / "p", tmp_path / "out", data=tmp_path)
    with pytest.raises(InputError, match="cannot be scored"):
        sample_questions(_samples(1), "edit", 0)


def test_requests_hold_all_that_a_model_needs(eth3d: tuple[Path, Path, Path]):
    folder, _, out = eth3d
    benchmark = read_benchmark("eth3d", folder)
    assert write_requests(benchmark, out) == 3
    lines = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert lines[0]["file"] == "office/DSC_0.png"
    assert lines[0]["spec"] == {"task": "depth", "codec": "cube-walk/1"}
    picture = cv2.imread(str(out / lines[0]["image"]))[..., ::-1]
    assert (picture == benchmark.items[0].read_image()).all()


def test_generation_is_judged_not_measured(tmp_path: Path):
    write_json(tmp_path / "genai_image.json", {"1": {"prompt": "a"}})
    write_png(tmp_path / "p/00001.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="win_rate"):
        evaluate(_config(tmp_path, "genai-bench"), tmp_path / "p", tmp_path / "out")


def test_pages_of_all_tasks_are_self_contained(tmp_path: Path):
    for task in VISION_TASKS:
        questions = sample_questions(_samples(3), task, seed=0)
        write_result(score(questions.benchmark, _targets(questions)), tmp_path / task, "Evaluation")
        page = (tmp_path / task / "report.html").read_text()
        assert not re.search(r'(src|href)="(?!data:|#)', page)
        assert "trivial answers" in page.lower()
