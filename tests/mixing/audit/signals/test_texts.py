"""Leaks in what records say and are named, and in what sources declare; through real shards where it matters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError, Sample
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit, verify_report
from cavendish.mixing.audit.signals.ids import build_id_index, canonical_ids, find_ids, read_ids
from cavendish.mixing.audit.signals.lineage import ancestors, named_datasets, registry, shared_datasets
from cavendish.mixing.audit.signals.texts import build_word_index, find_texts, record_texts
from cavendish.trainer.evaluation.benchmarks import READERS
from tests.mixing.audit.photographs import SKIMAGE, photograph, picture, poster, write_benchmark
from tests.shard_folder import write_shards

PROMPT = "three purple llamas wearing tiny hats stand beside a rusty blue tractor at dawn"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (PROMPT, "leak"),
        ("Three PURPLE llamas, wearing tiny hats, stand beside a rusty blue tractor at dawn!", "leak"),
        (f"Draw this for me: {PROMPT}, in the style of a woodcut.", "leak"),
        ("three purple llamas wearing tiny hats stand beside a rusty fence in the rain", "review"),
        ("three purple llamas wearing small hats stand beside a rusty blue tractor at dusk", "review"),
        ("the red cup", "review"),
        ("segment the red cup", None),
        ("a rusty blue tractor at dawn", None),
        ("two brown dogs wearing red collars sit beside a green car", None),
    ],
)
def test_how_near_a_text_must_be(text: str, level: str | None) -> None:
    index = build_word_index({"prompts": [PROMPT, "the red cup"]})
    assert [finding.level for finding in find_texts(index, text)] == ([level] if level else [])


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("COCO_train2014_000000123456.jpg", "coco:000000123456"),
        ("http://images.cocodataset.org/val2017/000000123456.jpg", "coco:000000123456"),
        ("2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png", "kitti:2011_09_26_drive_0001"),
        ("n015-2018-07-24-11-22-45-0800__CAM_FRONT__1532402927612460", "nuscenes:n015-2018-07-24-11-22-45-0800"),
        ("scene0011_00/color/120.jpg", "scannet:scene0011"),
        ("frankfurt_000000_000294_leftImg8bit.png", "cityscapes:frankfurt_000000_000294"),
        ("Scene01/clone/frames/rgb/Camera_0/rgb_00001.jpg", "vkitti2:Scene01"),
        ("sa_223750.jpg", "sa1b:223750"),
        ("openimages/0a1b2c3d4e5f6071.jpg", "openimages:0a1b2c3d4e5f6071"),
        ("https://c2.staticflickr.com/5/4129/5215831864_46f356962f_o.jpg", "flickr:5215831864"),
        ("1/100001/metaclip_1_100001_002fb0d001d06012870368b2.jpeg", "metaclip:002fb0d001d06012870368b2"),
    ],
)
def test_the_ids_of_public_datasets_are_found_in_names(text: str, identity: str) -> None:
    assert identity in canonical_ids(text)


def test_ordinary_names_hold_no_ids() -> None:
    assert canonical_ids("photos-kitten_poster render 000123 seed 20260101 000000000139") == []


def test_bare_numbers_are_ids_only_where_a_source_is_made_of_coco(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(
        json.dumps(
            {"images": [{"id": 139, "file_name": "000000000139.jpg"}, {"coco_url": "x/val2017/000000000285.jpg"}]}
        )
    )
    lines = read_ids(tmp_path / "instances.json", "coco")
    index = build_id_index({"lvis": lines, "refcocog": ["COCO_train2014_000000000139.jpg"]}, {"lvis": "coco"})
    assert index == {"coco:000000000139": ("lvis", "refcocog"), "coco:000000000285": ("lvis",)}
    parts = {"json": b'{"facts": {"file": "000000000139.jpg", "seed": 285}}'}
    assert find_ids(index, "render-1", parts) == []
    found = find_ids(index, "render-1", parts, ("coco",))
    assert [(one.benchmark, one.image, one.level) for one in found] == [
        ("lvis", "coco:000000000139", "leak"),
        ("refcocog", "coco:000000000139", "leak"),
    ]
    (tmp_path / "ids.txt").write_text("000000000139.jpg\n")
    with pytest.raises(InputError, match="no id in"):
        read_ids(tmp_path / "ids.txt", None)


def test_expressions_of_a_legend_are_texts_of_the_record() -> None:
    spec = {"legend": [["the left cup", [1, 2, 3]], ["a dog", [4, 5, 6]]]}
    parts = {"instruction.json": json.dumps({"prompt": "Segment it.", "spec": spec}).encode()}
    assert [text for _, text in record_texts(parts)] == ["Segment it.", "the left cup", "a dog"]


def test_an_edited_text_inside_a_long_one_is_for_review() -> None:
    index = build_word_index({"prompts": [PROMPT]})
    edited = PROMPT.replace("tiny", "small").replace("blue", "green")
    noise = "and then something quite different happens in the rest of this long description of a farm " * 3
    (finding,) = find_texts(index, f"{noise} {edited} {noise}")
    assert finding.level == "review"
    assert find_texts(index, noise) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("coco-2017", ["coco-2017"]),
        ("MS COCO train2017 crops", ["coco-2017"]),
        ("RefCOCO+ re-captioned", ["refcoco"]),
        ("NYU Depth V2 and KITTI raw", ["kitti-raw", "nyuv2"]),
        ("a coconut on a kitchen table", []),
        ("render-blender", []),
    ],
)
def test_datasets_are_known_by_their_names(text: str, names: list[str]) -> None:
    assert named_datasets(text) == names


def test_a_lineage_reaches_through_what_datasets_are_made_of() -> None:
    assert shared_datasets(["lvis"], "refcocog-umd-val") == ["coco-2014"]
    assert shared_datasets(["open-images"], "reasonseg-val") == ["open-images"]
    assert shared_datasets(["sa-1b"], "cityscapes-val") == []
    with pytest.raises(InputError, match="imagenet"):
        ancestors(["imagenet"])


def test_the_registry_is_sound_and_names_every_benchmark_of_the_method() -> None:
    names = set(registry())
    assert {parent for entry in registry().values() for parent in entry.made_of} <= names
    benchmarks = {"cityscapes-val", "refcocog-umd-val", "reasonseg-val", "sa-co-gold", "nyuv2-test", "ibims-1"}
    benchmarks |= {"eth3d-train", "diode-indoor-val", "kitti-eigen-test", "nuscenes-val", "scannet-normals", "vkitti2"}
    benchmarks |= {"genai-bench", "imgedit-bench"}
    assert benchmarks <= names
    for name in benchmarks:
        entry = registry()[name]
        assert entry.reader in READERS, name
        assert all((entry.title, entry.citation, entry.licence, entry.download, entry.counted_by)), name
        assert entry.images is not None or entry.prompts, name


def test_words_ids_and_lineage_through_real_shards(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "benchmark")
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\nthe cat's face\n")
    (tmp_path / "ids.txt").write_text("val2017/000000000139.jpg\nscannet:scene0011\n")

    def noise(key: str, seed: int, **changes: object) -> Sample:
        base = picture(key, procedural_picture(np.random.default_rng(seed), 64, 64))
        return dataclasses.replace(base, **changes)

    samples = [
        noise("clean", 1, captions=("a red chair",)),
        noise("text", 2, captions=(f"{PROMPT}.",)),
        noise("id", 3, provenance={"url": "http://images.cocodataset.org/train2017/000000000139.jpg"}),
        noise("room", 4, source="scans", facts={"file": "scene0011_01/color/7.jpg"}),
        dataclasses.replace(picture("cat", poster(photograph(SKIMAGE, "chelsea.png"))), captions=("The cat's face",)),
    ]
    write_shards(tmp_path / "shards", samples, 1)
    settings = AuditConfig.model_validate(
        {
            "benchmarks": [
                {"name": "photos", "folder": "benchmark", "prompts": "prompts.txt", "registry": "reasonseg-val"},
                {"name": "ids", "ids": "ids.txt"},
            ],
            "shards": ["shards"],
            "sources": {"tests": ["open-images"]},
            "controls": {"copies": 8, "clean": 4},
        }
    )
    verdict = audit(settings, tmp_path / "out", data=tmp_path)
    assert verdict.exit_code == 1
    values = json.loads(verdict.report.read_text())
    found = {(one["key"], one["kind"], one["level"]) for one in values["findings"]}
    assert found == {
        ("text", "text", "leak"),
        ("id", "identity", "leak"),
        ("room", "identity", "leak"),
        ("cat", "crop", "leak"),
        ("cat", "annotation", "leak"),  # a short text, but beside the picture it belongs to
        ("tests", "lineage", "review"),  # ReasonSeg is made of Open Images too
    }
    assert json.loads(verdict.exclude.read_text())["keys"] == ["cat", "id", "room", "text"]
    assert {row["source"]: row["shared"] for row in values["lineage"]} == {
        "tests": {"photos": ["open-images"]},
        "scans": {},
    }
    assert "source scans (1 records) does not declare where its pictures come from" in values["incomplete"]
    assert "benchmark photos: 4 of its 200 published images are here" in values["incomplete"]
    assert PROMPT in verdict.page.read_text()

    assert verify_report(settings, tmp_path / "out", tmp_path) == []
    verdict.report.write_bytes(verdict.report.read_bytes().replace(b'"verdict":"leak"', b'"verdict":"clean"'))
    assert verify_report(settings, tmp_path / "out", tmp_path) == ["report.json is not what these inputs give"]
    path = tmp_path / "shards/shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    assert verify_report(settings, tmp_path / "out", tmp_path) == [
        "shards/shard-000000.tar: changed after it was committed"
    ]


CHINESE = "把窗户旁边的木椅子换成一盆高大的绿色植物并保持背景不变"
JAPANESE = "窓のそばの木の椅子を背の高い緑の植物に置き換えて背景はそのままにしてください"
EXPRESSION = "the man in the red striped shirt"
CHAIR = "replace the wooden chair beside the window with a tall green plant"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        (CHINESE, CHINESE),
        (f"请{CHINESE}，谢谢", CHINESE),
        (JAPANESE, JAPANESE),
        (f"Segment {EXPRESSION} in magenta.", EXPRESSION),
        ("\u200b".join(CHAIR), CHAIR),
        (CHAIR.replace("wooden", "woo\u00adden"), CHAIR),
        (CHAIR.replace(" ", "\u200b"), CHAIR),
        (CHAIR.replace(" ", ""), CHAIR),
        ("Ｒｅｐｌａｃｅ ｔｈｅ " + CHAIR.removeprefix("replace the "), CHAIR),
        (CHAIR.replace("plant", "plánt"), CHAIR),
    ],
)
def test_a_text_is_found_in_every_script_and_spacing(text: str, image: str) -> None:
    index = build_word_index({"prompts": [CHINESE, JAPANESE, EXPRESSION, CHAIR]})
    assert [(finding.level, finding.image) for finding in find_texts(index, text)] == [("leak", image)]


def test_other_texts_in_these_scripts_are_not_found() -> None:
    index = build_word_index({"prompts": [CHINESE, JAPANESE]})
    assert find_texts(index, "把照片里的天空换成日落时分的橙色云彩并让湖面反射出来") == []
    assert find_texts(index, "山の上の空を夕焼けの橙色の雲に置き換えて湖に映してください") == []


@pytest.mark.parametrize(
    "text",
    ["generate the depth map", "Please generate the surface normal map of this image.", "Depth map of the scene"],
)
def test_wording_without_content_is_no_leak(text: str) -> None:
    index = build_word_index({"prompts": [text, "generate the depth map of the image, please"]})
    assert find_texts(index, text) == []


def test_the_same_template_with_another_object_is_for_review_and_says_what_differs() -> None:
    (finding,) = find_texts(build_word_index({"prompts": [CHAIR]}), CHAIR.replace("chair", "table"))
    assert finding.level == "review"
    assert finding.reason.endswith("; not in it: chair; in their place: table.")


@given(st.text(st.sampled_from("\u200b\u200c\u2060\ufeff\u00ad,. "), max_size=3), st.integers(0, len(CHAIR)))
def test_invisible_characters_and_punctuation_do_not_hide_a_text(noise: str, place: int) -> None:
    index = build_word_index({"prompts": [CHAIR]})
    assert [finding.level for finding in find_texts(index, CHAIR[:place] + noise + CHAIR[place:])] == ["leak"]
