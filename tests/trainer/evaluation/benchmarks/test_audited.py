"""Benchmarks as downloaded, through the readers, into the leakage audit: pictures, texts and labels are found again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit, audit_words
from cavendish.mixing.images import encode_png
from cavendish.trainer.evaluation.benchmarks.audited import read_questions
from tests.mixing.audit.labelled import partition
from tests.mixing.audit.photographs import SKIMAGE, photograph, picture, poster
from tests.shard_folder import write_shards

SENTENCE = "what could the sleepy animal in this picture be dreaming of right now"
PROMPT = "three purple llamas wearing tiny hats stand beside a rusty blue tractor at dawn"
FLICKR = "3588328_892066223b_o"


def write_downloads(data: Path) -> None:
    val = data / "ReasonSeg/val"
    val.mkdir(parents=True)
    cv2.imwrite(str(val / f"{FLICKR}.jpg"), photograph(SKIMAGE, "chelsea.png")[..., ::-1])
    contours, _ = cv2.findContours((partition(3, 300, 451) == 2).astype(np.uint8), 0, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea).reshape(-1, 2)
    values = {"text": [SENTENCE], "is_sentence": True, "shapes": [{"label": "target", "points": outline.tolist()}]}
    (val / f"{FLICKR}.json").write_text(json.dumps(values))
    city = "frankfurt_000000_000294"
    for folder in ("leftImg8bit/val/frankfurt", "gtFine/val/frankfurt"):
        (data / "cityscapes" / folder).mkdir(parents=True)
    rocket = encode_png(photograph(SKIMAGE, "rocket.jpg"))
    (data / f"cityscapes/leftImg8bit/val/frankfurt/{city}_leftImg8bit.png").write_bytes(rocket)
    labels = cv2.resize((partition(4) + 20).astype(np.uint8), (640, 427), interpolation=cv2.INTER_NEAREST)
    (data / f"cityscapes/gtFine/val/frankfurt/{city}_gtFine_labelIds.png").write_bytes(encode_png(labels))
    (data / "genai").mkdir()
    (data / "genai/genai_image.json").write_text(json.dumps({"0": {"prompt": PROMPT}}))


def config(**changes: object) -> AuditConfig:
    values = {
        "benchmarks": [
            {"name": "reasonseg", "reader": "reasonseg", "folder": "ReasonSeg", "registry": "reasonseg-val"},
            {"name": "cityscapes", "reader": "cityscapes", "folder": "cityscapes", "registry": "cityscapes-val"},
            {"name": "genai", "reader": "genai-bench", "folder": "genai", "registry": "genai-bench"},
        ],
        "shards": ["shards"],
        "controls": {"copies": 8, "clean": 4},
    }
    return AuditConfig.model_validate({**values, **changes})


def test_pictures_texts_labels_and_names_of_downloads_are_compared(tmp_path: Path) -> None:
    write_downloads(tmp_path)

    def noise(key: str, seed: int, **changes: object):  # type: ignore[no-untyped-def]
        base = picture(key, procedural_picture(np.random.default_rng(seed), 96, 128))
        return dataclasses.replace(base, **changes)

    samples = [
        picture("poster", poster(photograph(SKIMAGE, "chelsea.png"))),
        picture("rocket", photograph(SKIMAGE, "rocket.jpg")),
        noise("masks", 1, instance_ids=np.ascontiguousarray(partition(4)[:, ::-1])),
        noise("sentence", 2, captions=(SENTENCE.title(),)),
        noise("prompt", 3, captions=(f"Paint {PROMPT}.",)),
        noise("flickr", 4, facts={"url": f"https://live.staticflickr.com/65535/{FLICKR[:-2]}_b.jpg"}),
        noise("clean", 5, captions=("a sleepy animal",), instance_ids=partition(99)),
    ]
    write_shards(tmp_path / "shards", samples, 1)
    verdict = audit(config(), tmp_path / "out", data=tmp_path, reader=read_questions)
    values = json.loads(verdict.report.read_text())
    found = {(one["key"], one["benchmark"], one["stage"]) for one in values["findings"]}
    assert found == {
        ("poster", "reasonseg", "local"),
        ("rocket", "cityscapes", "file"),
        ("masks", "cityscapes", "masks"),
        ("sentence", "reasonseg", "text"),
        ("prompt", "genai", "text"),
        ("flickr", "reasonseg", "id"),
    }
    assert [one for one in values["incomplete"] if "not checked" in one] == []
    assert "benchmark reasonseg: 1 of its 200 published images are here" in values["incomplete"]
    assert "benchmark genai: 1 of its 1600 published texts are here" in values["incomplete"]
    assert not list((tmp_path / "out").glob("*-*"))  # the pictures were written out only while they were indexed

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/packs").rglob("*")}
    again = audit(config(), tmp_path / "out", data=tmp_path, reader=read_questions)
    assert again.report.read_bytes() == verdict.report.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before  # an unchanged download is not read again
    words = audit_words(config(), tmp_path / "words", ("text", "identity"), data=tmp_path, reader=read_questions)
    assert words.exit_code == 1
    assert len(json.loads(words.file.read_text())["findings"]) == 3


def test_a_download_that_is_not_there_is_not_checked(tmp_path: Path) -> None:
    write_downloads(tmp_path)
    (tmp_path / "cityscapes").rename(tmp_path / "elsewhere")
    write_shards(tmp_path / "shards", [picture("a", procedural_picture(np.random.default_rng(1), 96, 128))], 1)
    verdict = audit(config(), tmp_path / "out", data=tmp_path, reader=read_questions)
    assert verdict.exit_code == 3
    assert "benchmark cityscapes was not checked: cityscapes: no such folder" in verdict.words
    with pytest.raises(InputError, match="no-such-reader"):
        list(read_questions("no-such-reader", tmp_path))
