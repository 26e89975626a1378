"""Sets of all kinds are asked alike, and passes in other words and colours make one answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.semantic import encode_semantic
from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.encoders.tasks.registry import ask_again, decode_example
from cavendish.encoders.tasks.segmentation import Segmentation
from cavendish.trainer.evaluation.score import score
from cavendish.trainer.evaluation.sets import ask, read_set, sample_questions
from cavendish.trainer.evaluation.settings import EvaluationSet
from cavendish.trainer.evaluation.tasks.instance import Instances
from cavendish.trainer.evaluation.tasks.task import find_evaluation
from tests.conftest import tiny_sample
from tests.shard_folder import write_shards
from tests.trainer.evaluation.layouts import write_json, write_picture


def repainted(answer: UInt8Image, asked: Example, again: Example) -> UInt8Image:
    """Draw the answer to a question about labels in the colours of the same question put otherwise."""
    decoded = decode_example(asked.spec, answer)
    assert isinstance(decoded, Segmentation)
    legend = dict(again.spec["legend"])
    assert tuple(legend) == decoded.names
    return encode_semantic(decoded.labels, legend, tuple(again.spec["background"]))


@pytest.mark.parametrize("task", ["semantic", "referring"])
def test_right_answers_in_other_colours_are_right(task: str) -> None:
    questions = sample_questions([tiny_sample(f"scene-{i}", i, 64) for i in range(6)], task, seed=1)
    targets = {example.key: example.target for example in questions.examples}
    first, *others = (ask(questions.benchmark, 64, number) for number in range(4))
    assert [e.prompt for e in first] == [e.prompt for e in questions.examples]
    more = []
    for examples in others:
        assert all(a.prompt != b.prompt for a, b in zip(first, examples))
        answers = {b.key: repainted(targets[a.key], a, b) for a, b in zip(first, examples)}
        more.append((lambda item, a=answers: a[item.picture or item.name], {e.key: e.spec for e in examples}))
    wrong = lambda item: np.zeros_like(targets[item.picture or item.name])
    right = lambda item: targets[item.picture or item.name]
    metric = {"semantic": "miou", "referring": "giou"}[task]
    values = [score(questions.benchmark, one, more=more).values["rows"][0]["metrics"][metric] for one in (right, wrong)]
    assert values == pytest.approx([1, 1], abs=1e-6)  # three of four outvote the wrong one
    assert score(questions.benchmark, wrong).values["rows"][0]["metrics"][metric] < 0.9


def test_depth_is_the_middle_and_normals_the_mean() -> None:
    depths = [np.full((2, 2), metres, np.float32) for metres in (3.0, np.inf, 1.0, 2.0)]
    assert (find_evaluation("depth").merge(depths) == 2).all()
    up, right = (np.broadcast_to(np.array(axis, np.float32), (2, 2, 3)) for axis in ((0, 1, 0), (1, 0, 0)))
    np.testing.assert_allclose(find_evaluation("normals").merge([up, right])[0, 0], [0.5**0.5, 0.5**0.5, 0], atol=1e-6)


def test_masks_and_instances_are_what_most_found() -> None:
    here, nowhere = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    here[2:6, 2:6] = True
    merged = find_evaluation("referring").merge([nowhere, here, here])
    assert merged.dtype == bool
    assert (merged == here).all()
    found = [Instances(mask.astype(np.uint16), np.ones(int(mask.any()))) for mask in (here, nowhere, here)]
    agreed = find_evaluation("instance").merge(found)
    assert ((agreed.ids > 0) == here).all()
    assert agreed.confidence == pytest.approx([2 / 3])


def test_a_picture_is_asked_for_in_one_way() -> None:
    with pytest.raises(InputError, match="edit cannot be asked in other words"):
        ask_again({"task": "edit", "codec": "image/1"}, 1)


def test_the_same_subset_is_read_each_time_and_every_picture_asked_once(tmp_path: Path) -> None:
    write_shards(tmp_path / "raw", (tiny_sample(f"scene-{k}", k, 32) for k in range(6)))
    settings = EvaluationSet(folder=Path("raw"), tasks=("depth", "referring"), items=3)
    first, again = (read_set(settings, tmp_path, 5) for _ in range(2))
    assert list(first) == ["depth", "referring"]
    for task, benchmark in first.items():
        assert len(benchmark.items) == 3
        assert [item.name for item in benchmark.items] == [item.name for item in again[task].items]
        examples = ask(benchmark, [(16, 24)])
        assert len({example.key for example in examples}) == len(examples)
        assert {example.target.shape for example in examples} == {(16, 24, 3)}
        assert not any(example.target.any() for example in examples)  # the answer is not shown
    other = read_set(EvaluationSet.model_validate({**settings.model_dump(), "items": None}), tmp_path, 5)
    assert len(other["depth"].items) == 6


def test_a_public_benchmark_is_asked_in_its_own_words_first(tmp_path: Path) -> None:
    write_picture(tmp_path / "val/1.jpg", 24, 40)
    shapes = [{"label": "target", "points": [[5, 5], [25, 5], [25, 20]]}]
    write_json(tmp_path / "val/1.json", {"text": ["the cup"], "is_sentence": False, "shapes": shapes})
    benchmark = read_set(EvaluationSet(folder=tmp_path, benchmark="reasonseg"), tmp_path, 0)["referring"]
    (first,), (second,) = ask(benchmark, 32), ask(benchmark, 32, 1)
    assert first.prompt == benchmark.items[0].prompt != second.prompt
    assert "the cup" in second.prompt
    assert first.source is not None
    assert first.source.shape == (32, 32, 3)


def test_judged_benchmarks_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "genai_image.json", {"2": {"id": "2", "prompt": "a"}})
    with pytest.raises(InputError, match="judged by people or models"):
        read_set(EvaluationSet(folder=tmp_path, benchmark="genai-bench"), tmp_path, 0)


def test_depth_is_put_again_in_the_codec_that_metres_come_from() -> None:
    question = ask_again({"task": "depth", "codec": "cube-walk/1"}, 3)
    depth_m = np.linspace(0.5, 30, 64, dtype=np.float32).reshape(8, 8)
    decoded = decode_example(question.spec, encode_depth(depth_m))
    np.testing.assert_allclose(decoded.depth_m, depth_m, rtol=0.05)
