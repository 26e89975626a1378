"""Cityscapes, RefCOCOg, ReasonSeg, SA-Co/Gold, GenAI-Bench and ImgEdit on files in their public formats."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cavendish.encoders.legends.parser import parse_legend
from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.benchmarks.coco_masks import decode_segmentation
from cavendish.trainer.evaluation.benchmarks.files import read_plain_pickle
from tests.trainer.evaluation.layouts import box_mask, run_lengths, write_json, write_picture, write_png


def test_cityscapes_label_ids(tmp_path: Path):
    stem = "frankfurt_000000_000294"
    write_picture(tmp_path / f"leftImg8bit/val/frankfurt/{stem}_leftImg8bit.png", 16, 32)
    labels = np.full((16, 32), 7, np.uint8)
    labels[:4] = 23
    write_png(tmp_path / f"gtFine/val/frankfurt/{stem}_gtFine_labelIds.png", labels)
    benchmark = read_benchmark("cityscapes", tmp_path)
    item = benchmark.items[0]
    assert item.name == stem
    assert len(benchmark.classes) == 19
    assert item.classes["sky"] == 23
    assert np.array_equal(item.read_truth().labels, labels)
    assert item.read_image().shape == (16, 32, 3)
    legend = {name: tuple(color) for name, color in item.spec["legend"]}
    assert {k: v for k, v in parse_legend(item.prompt).items() if k != "background"} == legend
    write_png(tmp_path / f"gtFine/val/frankfurt/{stem}_gtFine_labelIds.png", np.zeros((16, 32, 3), np.uint8))
    with pytest.raises(InputError, match="one-channel"):
        item.read_truth()


def _refcocog(folder: Path, refs: object, suffix: str = ".p") -> None:
    write_picture(folder / "images/mscoco/images/train2014/COCO_train2014_000000000001.jpg", 20, 30)
    polygons = [[2, 3, 12, 3, 12, 13, 2, 13], [20, 3, 28, 3, 28, 9, 20, 9]]
    write_json(
        folder / "refcocog/instances.json",
        {
            "images": [{"id": 1, "file_name": "COCO_train2014_000000000001.jpg", "height": 20, "width": 30}],
            "annotations": [{"id": 5, "image_id": 1, "segmentation": polygons, "category_id": 1}],
            "categories": [],
        },
    )
    path = folder / f"refcocog/refs(umd){suffix}"
    if suffix == ".p":
        path.write_bytes(pickle.dumps(refs, protocol=2))
    else:
        write_json(path, refs)


REFS = [
    {
        "ref_id": 11,
        "ann_id": 5,
        "image_id": 1,
        "split": "val",
        "category_id": 1,
        "sentences": [
            {"sent_id": 100, "sent": "the left box ", "tokens": []},
            {"sent_id": 101, "sent": "two boxes", "tokens": []},
        ],
    },
    {"ref_id": 12, "ann_id": 5, "image_id": 1, "split": "train", "category_id": 1, "sentences": []},
]


@pytest.mark.parametrize("suffix", [".p", ".json"])
def test_refcocog_every_sentence_is_an_item_with_the_union_of_polygons(tmp_path: Path, suffix: str):
    _refcocog(tmp_path, REFS, suffix)
    benchmark = read_benchmark("refcocog", tmp_path)
    assert [item.name for item in benchmark.items] == ["11_100", "11_101"]
    assert '"the left box"' in benchmark.items[0].prompt
    mask = benchmark.items[0].read_truth().mask
    expected = box_mask(20, 30, 3, 13, 2, 12) | box_mask(20, 30, 3, 9, 20, 28)
    assert (mask != expected).sum() <= 4
    assert benchmark.headline == "ciou"
    assert "2 sentences of 1 refs" in benchmark.notes[0]


class _Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


def test_a_pickle_that_could_run_code_is_refused_before_it_is_unpickled(tmp_path: Path):
    _refcocog(tmp_path, [_Evil()])
    with pytest.raises(InputError, match=r"more than plain data.*convert it to json"):
        read_benchmark("refcocog", tmp_path)
    _refcocog(tmp_path, [np.float64(1.5)])
    with pytest.raises(InputError, match="more than plain data"):
        read_benchmark("refcocog", tmp_path)


def test_a_python_2_pickle_of_strings_and_unicode_is_read(tmp_path: Path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"(dp0\nS'sent'\np1\nVna\\u00efve\np2\nsS'split'\np3\nS'val'\np4\ns.")  # protocol 0
    assert read_plain_pickle(path) == {"sent": "naïve", "split": "val"}


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("pickle") / "refs.p"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert isinstance(read_plain_pickle(path), int | float | str | bytes | list | dict | tuple | set | None)


def test_a_pickle_that_asks_for_a_huge_memo_is_refused(tmp_path: Path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    with pytest.raises(InputError, match="memo 2147483647"):
        read_plain_pickle(path)


def test_refcocog_missing_parts(tmp_path: Path):
    with pytest.raises(InputError, match="train2014"):
        read_benchmark("refcocog", tmp_path)
    _refcocog(tmp_path, [{**REFS[0], "ann_id": 999}])
    with pytest.raises(InputError, match="do not fit together"):
        read_benchmark("refcocog", tmp_path)
    _refcocog(tmp_path, [REFS[1]])
    with pytest.raises(InputError, match="no ref has split 'val'"):
        read_benchmark("refcocog", tmp_path)


def test_reasonseg_first_sentence_flag_skipped_ignore_ignored_large_first(tmp_path: Path):
    write_picture(tmp_path / "val/1.jpg", 40, 40)

    def square(x0: float, x1: float) -> list[list[float]]:
        return [[x0, x0], [x1, x0], [x1, x1], [x0, x1]]

    write_json(
        tmp_path / "val/1.json",
        {
            "text": ["what holds the tea?", "the cup"],
            "is_sentence": True,
            "shapes": [
                {"label": "ignore", "points": square(10.9, 14.2)},  # small, on top of the target
                {"label": "target", "points": square(5, 25)},
                {"label": "flag", "points": square(0, 39)},
            ],
        },
    )
    benchmark = read_benchmark("reasonseg", tmp_path)
    assert '"what holds the tea?"' in benchmark.items[0].prompt
    truth = benchmark.items[0].read_truth()
    assert truth.ignore.sum() == 5 * 5  # coordinates truncate to 10..14, both ends painted
    assert truth.mask.sum() == 21 * 21 - 25
    (tmp_path / "val/1.json").write_text(json.dumps({"text": [], "shapes": []}))
    with pytest.raises(InputError, match="`text` must be a list"):
        read_benchmark("reasonseg", tmp_path)


def _saco(folder: Path, subset: str = "metaclip", exhaustive_b: int = 1) -> None:
    left, right = box_mask(20, 30, 2, 10, 2, 10), box_mask(20, 30, 2, 10, 15, 25)
    write_picture(folder / "metaclip-images/1/1001/a.jpeg", 20, 30)
    image = {"file_name": "1/1001/a.jpeg", "height": 20, "width": 30, "is_pixel_exhaustive": 1}
    for annotator, masks in (("a", [left, right]), ("b", [left]), ("c", [left | right])):
        flag = exhaustive_b if annotator == "b" else 1
        images = [
            {**image, "id": 10000000, "text_input": "chili", "is_instance_exhaustive": 1},
            {**image, "id": 10000001, "text_input": "the fish ball", "is_instance_exhaustive": flag},
        ]
        annotations = [
            {"id": i, "image_id": 10000000, "segmentation": run_lengths(mask), "iscrowd": 0, "category_id": 1}
            for i, mask in enumerate(masks)
        ]
        values = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        write_json(folder / f"gold_{subset}_merged_{annotator}_release_test.json", values)


def test_saco_pairs_have_three_annotators_and_drop_what_anyone_calls_not_exhaustive(tmp_path: Path):
    _saco(tmp_path)
    benchmark = read_benchmark("saco-gold", tmp_path)
    assert [item.name for item in benchmark.items] == ["metaclip/10000000", "metaclip/10000001"]
    assert [len(masks) for masks in benchmark.items[0].read_truth().annotators] == [2, 1, 1]
    assert [len(masks) for masks in benchmark.items[1].read_truth().annotators] == [0, 0, 0]
    assert benchmark.items[0].read_image().shape == (20, 30, 3)
    assert any("only metaclip" in note for note in benchmark.notes)
    _saco(tmp_path, exhaustive_b=0)
    assert len(read_benchmark("saco-gold", tmp_path).items) == 1
    (tmp_path / "gold_metaclip_merged_c_release_test.json").unlink()
    with pytest.raises(InputError, match="lacks gold_metaclip_merged_c"):
        read_benchmark("saco-gold", tmp_path)


def test_saco_picture_names_stay_in_the_folder(tmp_path: Path):
    _saco(tmp_path)
    for annotator in "abc":
        path = tmp_path / f"gold_metaclip_merged_{annotator}_release_test.json"
        path.write_text(path.read_text().replace("1/1001/a.jpeg", "../../secret.png"))
    with pytest.raises(InputError, match="leads out of the folder"):
        read_benchmark("saco-gold", tmp_path).items[0].read_image()


@given(st.integers(0, 2**30), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_run_lengths_round_trip(seed: int, height: int, width: int, share: float):
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(decode_segmentation(run_lengths(mask), height, width, "x"), mask)
    uncompressed = {"size": [height, width], "counts": _lengths(mask)}
    assert np.array_equal(decode_segmentation(uncompressed, height, width, "x"), mask)


def _lengths(mask: np.ndarray) -> list[int]:
    values = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values]))).tolist()
    bounds = [0, *edges, values.size]
    return np.diff(bounds).tolist()


def test_run_lengths_that_lie_about_their_size_never_reach_the_c_code():
    runs = run_lengths(np.ones((8, 8), bool))
    with pytest.raises(InputError, match=r"run lengths of \[8, 8\]"):
        decode_segmentation(runs, 9, 8, "x")
    long = coco_mask.encode(np.asfortranarray(np.ones((100, 100), np.uint8)))["counts"].decode()
    with pytest.raises(InputError, match="add up to 10000"):
        decode_segmentation({"size": [8, 8], "counts": long}, 8, 8, "x")
    with pytest.raises(InputError, match="not a COCO segmentation"):
        decode_segmentation({"size": [8, 8], "counts": "\x01"}, 8, 8, "x")
    with pytest.raises(InputError, match="not a COCO segmentation"):
        decode_segmentation([["a"] * 6], 8, 8, "x")
    assert not decode_segmentation([], 8, 8, "x").any()


def test_genai_bench_prompts_in_order_of_their_numbers(tmp_path: Path):
    write_json(
        tmp_path / "genai_image.json", {"00010": {"id": "00010", "prompt": "b"}, "2": {"id": "2", "prompt": "a"}}
    )
    benchmark = read_benchmark("genai-bench", tmp_path)
    assert [(item.name, item.prompt) for item in benchmark.items] == [("00002", "a"), ("00010", "b")]
    write_json(tmp_path / "genai_image.json", {"x": {"prompt": "a"}})
    with pytest.raises(InputError, match="not GenAI-Bench"):
        read_benchmark("genai-bench", tmp_path)


def test_imgedit_pictures_and_kinds(tmp_path: Path):
    write_picture(tmp_path / "Benchmark/singleturn/animal/000342021.jpg", 8, 8)
    entry = {"id": "animal/000342021.jpg", "prompt": "Change the shell.", "edit_type": "adjust"}
    write_json(tmp_path / "Benchmark/singleturn/basic_edit.json", {"1082": entry})
    item = read_benchmark("imgedit", tmp_path).items[0]
    assert (item.name, item.group) == ("1082", "adjust")
    assert item.read_image().shape == (8, 8, 3)
    write_json(tmp_path / "Benchmark/singleturn/basic_edit.json", {"1": {**entry, "edit_type": "warp"}})
    with pytest.raises(InputError, match="edit_type 'warp'"):
        read_benchmark("imgedit", tmp_path)


@pytest.mark.parametrize("name", ["cityscapes", "refcocog", "reasonseg", "saco-gold", "genai-bench", "imgedit"])
def test_an_empty_folder_gets_one_line(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=f"{name}[ :(]") as caught:
        read_benchmark(name, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no folder"):
        read_benchmark(name, tmp_path / "nowhere")
