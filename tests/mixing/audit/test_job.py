"""The audit through real shards: a planted copy is found, shown and excluded; then the answer is clean."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.sample import Edit, Example, InputError, Sample
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit, index_benchmarks, report, scan
from cavendish.mixing.jobs.runners import Engine
from tests.mixing.audit.photographs import (
    OTHERS,
    SKIMAGE,
    SKLEARN,
    photograph,
    picture,
    poster,
    write_benchmark,
)
from tests.shard_folder import write_shards

CONTROLS = {"copies": 8, "clean": 4}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_benchmark(tmp_path / "benchmark")
    samples = [picture(f"photo-{number}", photograph(*source)) for number, source in enumerate(OTHERS[:4])]
    samples.append(picture("photo-poster", poster(photograph(SKIMAGE, "chelsea.png"))))
    write_shards(tmp_path / "photos", samples, 2)
    renders = [picture(f"r-{seed}", procedural_picture(np.random.default_rng(seed), 96, 96)) for seed in range(6)]
    write_shards(tmp_path / "renders", renders, 2)
    return tmp_path


def config(**changes: object) -> AuditConfig:
    values = {
        "benchmarks": [{"name": "photos", "folder": "benchmark"}],
        "shards": ["photos", "renders"],
        "controls": CONTROLS,
    }
    return AuditConfig.model_validate({**values, **changes})


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("report.json", "report.html", "exclude.json")}


def test_a_planted_copy_is_found_shown_and_excluded_then_the_mixture_is_clean(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    verdict = audit(config(work="work"), data / "first", Engine(), lambda *counts: seen.append(counts), data)
    assert (verdict.outcome, verdict.exit_code, verdict.leaks, verdict.review) == ("leak", 1, 1, 0)
    assert seen[-1] == (6, 6)  # four shards, the copies, the clean controls
    assert json.loads(verdict.exclude.read_text())["keys"] == ["photo-poster"]
    values = json.loads(verdict.report.read_text())
    (finding,) = values["findings"]
    assert (finding["image"], finding["kind"], finding["key"]) == ("chelsea.png", "crop", "photo-poster")
    assert values["controls"]["recall"]["photos"]["hits"] == 8
    assert values["controls"]["false_positives"]["hits"] == 0
    page = verdict.page.read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "photo-poster.image.png" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # self-contained

    verdict = audit(config(work="work", exclude=["first/exclude.json"]), data / "final", data=data)
    assert (verdict.outcome, verdict.exit_code, verdict.removed) == ("clean", 0, 1)
    assert json.loads(verdict.exclude.read_text())["keys"] == ["photo-poster"]  # the list does not forget
    assert "leak" not in verdict.words


def test_the_report_is_the_same_bytes_whatever_the_run(data: Path) -> None:
    audit(config(), data / "a", data=data)
    before = contents(data / "a")
    results = {path: path.stat().st_mtime_ns for path in (data / "a/scan").iterdir()}
    audit(config(), data / "a", data=data)
    assert contents(data / "a") == before
    assert {path: path.stat().st_mtime_ns for path in (data / "a/scan").iterdir()} == results  # nothing was redone
    next(iter(results)).unlink()  # as after a kill: one element is not committed
    for part in range(2):  # and the rest is done by two machines
        scan(config(), data / "a", Engine(split=(part, 2)), data=data)
    report(config(), data / "a", data)
    assert contents(data / "a") == before


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(data: Path) -> None:
    audit(config(), data / "a", data=data)
    audit(config(), data / "b", Engine(workers=2), data=data)
    assert contents(data / "b") == contents(data / "a")


def test_a_reviewer_dismisses_or_confirms(data: Path) -> None:
    write_shards(data / "stereo", [picture("right", photograph(SKIMAGE, "motorcycle_right.png"))], 1)
    settings = config(shards=["photos", "stereo"], work="work")
    verdict = audit(settings, data / "first", data=data)
    assert (verdict.outcome, verdict.leaks, verdict.review) == ("leak", 1, 1)
    ids = {finding["key"]: finding["id"] for finding in json.loads(verdict.report.read_text())["findings"]}

    def decide(**decisions: str) -> AuditConfig:
        named = {ids[key]: decision for key, decision in decisions.items()}
        text = json.dumps({"schema": "cavendish-audit-decisions/1", "decisions": named})
        (data / "decisions.json").write_text(text)
        return settings.model_copy(update={"decisions": "decisions.json"})

    verdict = audit(decide(**{"photo-poster": "dismiss"}), data / "second", data=data)
    assert (verdict.outcome, verdict.exit_code, verdict.dismissed) == ("review", 4, 1)
    verdict = audit(decide(**{"photo-poster": "dismiss", "right": "dismiss"}), data / "second", data=data)
    assert (verdict.outcome, json.loads(verdict.exclude.read_text())["keys"]) == ("clean", [])
    verdict = audit(decide(right="confirm"), data / "second", data=data)
    assert (verdict.outcome, verdict.leaks) == ("leak", 2)
    assert json.loads(verdict.exclude.read_text())["keys"] == ["photo-poster", "right"]


def test_a_benchmark_without_images_is_not_checked_never_clean(data: Path) -> None:
    benchmarks = [{"name": "photos", "folder": "benchmark"}, {"name": "kitti", "folder": "kitti"}]
    verdict = audit(config(benchmarks=benchmarks, shards=["renders"]), data / "out", data=data)
    assert (verdict.outcome, verdict.exit_code) == ("incomplete", 3)
    assert "kitti was not checked: kitti: no such folder" in verdict.words
    rows = {row["name"]: row["verdict"] for row in json.loads(verdict.report.read_text())["benchmarks"]}
    assert rows == {"photos": "clean", "kitti": "not checked"}
    assert str(data) not in verdict.report.read_text() + verdict.page.read_text()


def test_damage_missing_shards_and_weak_controls_make_it_incomplete(data: Path) -> None:
    path = data / "renders/shard-000000.tar"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[700] ^= 0xFF
    path.write_bytes(damaged)
    verdict = audit(config(shards=["renders"]), data / "out", data=data)
    assert (verdict.outcome, verdict.exit_code) == ("incomplete", 3)
    assert "could not be read" in verdict.words
    path.write_bytes(whole)
    assert audit(config(shards=["renders"]), data / "out", data=data).outcome == "clean"  # the shard is scanned again
    (data / "renders/shard-000001.json").unlink()
    verdict = audit(config(shards=["renders"]), data / "out2", data=data)
    assert "1 planned shards are not there" in verdict.words
    strict = config(
        shards=["photos"], exclude=[], thresholds={"pdq_accept": -1, "pdq_candidate": -1, "leak_score": 1e9}
    )
    verdict = audit(strict, data / "out3", data=data)
    assert "copies: 5 of 8 planted were found; the target is 90%" in verdict.words


def test_a_flipped_bit_in_a_result_of_the_scan_is_noticed_and_the_part_scanned_again(data: Path) -> None:
    shards = config(shards=["renders"])
    audit(shards, data / "out", data=data)
    before = contents(data / "out")
    for path in (data / "out/scan").iterdir():
        good = path.read_bytes()
        at = good.index(b'"pictures":') + 11 if b'"pictures":' in good else len(good) // 2
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    with pytest.raises(InputError, match="run the scan first"):
        report(shards, data / "out", data)
    audit(shards, data / "out", data=data)
    assert contents(data / "out") == before


def test_every_picture_of_a_record_is_compared(data: Path) -> None:
    noise = procedural_picture(np.random.default_rng(1), 64, 64)
    rocket, flower = photograph(SKIMAGE, "rocket.jpg"), photograph(SKLEARN, "flower.jpg")
    edited = Sample(
        "edited",
        procedural_picture(np.random.default_rng(2), *rocket.shape[:2]),
        "tests",
        "CC0-1.0",
        edit=Edit("recolor", "make it", 1, EDITS["mirrored"](rocket, np.random.default_rng(0))),
    )
    examples = [
        Example(
            "a.depth",
            "depth",
            "draw depth",
            source=EDITS["grey"](flower, np.random.default_rng(0)),
            target=noise,
            spec={},
        ),
        Example(
            "b.generate",
            "generate",
            "a rocket",
            source=None,
            target=EDITS["blur"](rocket, np.random.default_rng(0)),
            spec={},
        ),
    ]
    write_shards(data / "mixed", [edited, *examples])
    verdict = audit(config(shards=["mixed"]), data / "out", data=data)
    found = {(f["key"], f["member"], f["image"]) for f in json.loads(verdict.report.read_text())["findings"]}
    assert found == {
        ("edited", "edited.png", "rocket.jpg"),
        ("a_depth", "source.png", "flower.jpg"),
        ("b_generate", "target.png", "rocket.jpg"),
    }


def test_a_pack_without_pixels_serves_who_has_no_images(data: Path) -> None:
    index_benchmarks(config(pixels=False), data / "made", data)
    pack = "made/packs/photos"
    assert not (data / pack / "pixels.bin").exists()
    settings = config(benchmarks=[{"name": "photos", "pack": pack}])
    verdict = audit(settings, data / "out", data=data)
    assert (verdict.outcome, verdict.review) == ("incomplete", 1)  # geometry only, and no controls can be planted
    assert "no controls could be planted" in verdict.words


def test_report_before_scan_says_what_to_do(data: Path) -> None:
    with pytest.raises(InputError, match="run the scan first"):
        report(config(), data / "out", data)
