from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.annotate import job
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Failure, each
from cavendish.annotate.annotators.saliency import Saliency
from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.job import annotate
from cavendish.annotate.labels.label import Annotators
from cavendish.encoders.codecs.palettes import COLOR_WORDS
from cavendish.encoders.sample import InputError, Sample, UInt8Image
from cavendish.encoders.tasks.registry import tasks_of
from cavendish.mixing.config import read_config
from cavendish.mixing.images import encode_png
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset, verify
from cavendish.mixing.storage import objects
from tests.annotate.photographs import photo, photo_bytes
from tests.mixing.sources.test_decode import BOMBS
from tests.mixing.sources.test_sources import write, write_tar
from tests.mixing.storage.s3_server import every_tenth, s3_server

ROOT = Path(__file__).parents[2]


def config(**changes: object) -> AnnotateConfig:
    source = {"name": "web", "kind": "folder", "path": "web", "licence": "CC0-1.0"}
    return AnnotateConfig.model_validate({"sources": [source], "images_per_shard": 4, **changes})


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.*")}


def samples_of(directory: Path) -> dict[str, Sample]:
    records = list(read_dataset(directory))
    assert all(isinstance(record, Sample) for record in records)
    return {record.key: record for record in records if isinstance(record, Sample)}


def rejected_of(directory: Path) -> dict[str, str]:
    return {letter.key: letter.reason for row in committed_rows(directory) for letter in row.rejected}


class SquareFinder:
    """A model that is quick: what is red is the subject. It fails on a picture whose first pixel is green."""

    spec = AnnotatorSpec("squares/1", "saliency", "CC0-1.0", "0" * 64)

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, images: Sequence[UInt8Image]) -> list[Saliency | Failure]:
        return each(self._one, images)

    def _one(self, image: UInt8Image) -> Saliency:
        if image[0, 0, 1] == 255:
            raise RuntimeError("poison\nin two lines")
        return Saliency((image[..., 0] > 128).astype(np.float32), 0.9, 0.9)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "annotators_for", lambda config, make=None: Annotators(saliency=SquareFinder()))


def square(x0: int = 30, side: int = 40, corner: tuple[int, int, int] = (0, 0, 80)) -> bytes:
    image = np.full((100, 120, 3), (0, 0, 80), np.uint8)
    image[30 : 30 + side, x0 : x0 + side] = (220, 10, 10)
    image[0, 0] = corner
    return encode_png(image)


@pytest.mark.slow
def test_real_photographs_end_to_end(tmp_path: Path) -> None:
    """The shipped configuration, the real model, a folder and what comes out of the shards."""
    for name in ("astronaut", "coffee", "grass"):
        write(tmp_path / f"photos/{name}.png", photo_bytes(name))
    write(tmp_path / "photos/grass.txt", "grass, seen from above")
    write(tmp_path / "photos/coffee.txt", "a cup of espresso on a saucer")
    facts = {"licence": "CC-BY-4.0", "url": "https://example.org/c", "author": "R. M."}
    write(tmp_path / "photos/coffee.json", json.dumps(facts))
    settings = read_config(AnnotateConfig, ROOT / "examples/annotate.yaml", ["images_per_shard=2"])
    seen: list[tuple[int, int]] = []
    result = annotate(settings, tmp_path / "out", Engine(), lambda *now: seen.append(now), tmp_path)
    assert (result.made, seen[-1]) == (2, (2, 2))
    assert verify(tmp_path / "out") == []
    samples = samples_of(tmp_path / "out")
    assert list(samples) == ["photos-astronaut", "photos-coffee", "photos-grass"]

    coffee = samples["photos-coffee"]
    np.testing.assert_array_equal(coffee.image, photo("coffee"))
    assert coffee.captions == ("a cup of espresso on a saucer",)
    assert (coffee.source, coffee.licence, coffee.exhaustive) == ("photos", "CC-BY-4.0", False)
    (subject,) = coffee.instances
    assert coffee.instance_ids is not None
    assert (subject.id, subject.category) == (1, "main subject")
    assert subject.visible_pixels == (coffee.instance_ids == 1).sum()
    assert set(subject.attributes.values()) <= set(COLOR_WORDS)
    np.testing.assert_allclose(subject.box, (77, 18, 481, 386), atol=8)  # cup, saucer, spoon, read off the picture
    assert coffee.quality["flip_iou"] > 0.95
    assert coffee.weight is not None
    assert 0.005 < 1 - coffee.weight.mean() < 0.1  # a seam around the mask
    assert coffee.facts["faces"] == {"count": 0, "blurred": False}
    ids = [spec["id"] for spec in coffee.provenance["annotators"]]
    assert ids == [
        *("open-nsfw/1", "centerface/1", "ppocr6-text/1", "nanodet-g/1", "centernet-mb3/1"),
        *("u2netp/1", "u2netp-boxes/1"),
    ]
    assert coffee.provenance["annotators"][5]["weights_sha256"].startswith("309c8469258dda74")
    file = coffee.provenance["file"]
    assert (file["name"], file["url"], file["author"]) == ("coffee.png", "https://example.org/c", "R. M.")

    astronaut = samples["photos-astronaut"]
    (person,) = astronaut.instances
    assert astronaut.instance_ids is not None
    assert (person.category, astronaut.facts["complete"], astronaut.facts["main_subject"]) == ("person", ["person"], 1)
    np.testing.assert_allclose(person.box, (4, 10, 375, 512), atol=14)
    assert astronaut.instance_ids[300, 180] == 1  # the suit
    assert not astronaut.instance_ids[100:300, 430:].any()  # the shuttle behind
    assert {"giraffe", "pizza"} <= set(astronaut.facts["absent"])
    assert "person" not in astronaut.facts["absent"]
    assert min(astronaut.quality[name] for name in ("agreed", "flip_iou", "scale_iou", "box_iou")) > 0.45
    assert set(tasks_of(astronaut)) == {"semantic", "instance", "referring"}

    grass = samples["photos-grass"]
    assert grass.instance_ids is None
    assert grass.facts["mask_dropped"].startswith("area 0.000 is under 0.01")


def test_hostile_inputs_cost_only_themselves(tmp_path: Path, quick: None) -> None:
    web = tmp_path / "web"
    write(web / "good.png", square())
    for name, data in BOMBS.items():
        write(web / f"bomb {name}.png", data)
    write(web / "text.png", "not an image at all")
    write(web / "empty.jpg", b"")
    write(web / "cut.png", photo_bytes("coffee")[:200_000])
    write(web / "small.png", encode_png(np.zeros((20, 20, 3), np.uint8)))
    write(web / "poison.png", square(corner=(0, 255, 0)))
    write(web / "later.png", square(x0=60))
    write(web / "link.png").unlink()
    (web / "link.png").symlink_to("/etc/hostname")
    annotate(config(images_per_shard=100), tmp_path / "out", data=tmp_path)
    assert sorted(samples_of(tmp_path / "out")) == ["web-good", "web-later"]
    rejected = rejected_of(tmp_path / "out")
    assert len(rejected) == len(BOMBS) + 6
    assert rejected["web-poison"] == "poison.png: squares/1 failed: RuntimeError: poison in two lines"
    assert rejected["web-text"].startswith("text.png: not one of JPEG")
    assert "damaged or truncated" in rejected["web-cut"]
    assert "side under 64" in rejected["web-small"]
    assert any("leaves the folder" in reason for reason in rejected.values())
    assert all("\n" not in reason for reason in rejected.values())
    assert verify(tmp_path / "out") == []


def test_folders_and_tars_in_one_job(tmp_path: Path, quick: None) -> None:
    write(tmp_path / "web/a.png", square())
    members = [("00.png", square(x0=50)), ("00.txt", b"a red square"), ("01.png", b"broken"), ("02.png", square())]
    (tmp_path / "crawl").mkdir()
    write_tar(tmp_path / "crawl/0.tar", members)
    sources = [
        {"name": "web", "kind": "folder", "path": "web", "licence": "CC0-1.0"},
        {"name": "crawl", "kind": "tar", "path": "crawl", "licence": "unknown"},
    ]
    result = annotate(config(sources=sources, images_per_shard=2), tmp_path / "out", data=tmp_path)
    assert result.totals is not None
    assert (result.totals["records"], result.totals["rejected"]) == (3, 1)
    assert result.totals["licences"] == {"CC0-1.0": 1, "unknown": 2}
    samples = samples_of(tmp_path / "out")
    assert sorted(samples) == ["crawl-0-00", "crawl-0-02", "web-a"]
    tarred = samples["crawl-0-00"]
    assert tarred.captions == ("a red square",)
    assert tarred.instances[0].box == (50, 30, 90, 70)
    assert tarred.instances[0].attributes == {"color": "red"}
    assert list(rejected_of(tmp_path / "out")) == ["crawl-0-01"]


def test_a_dropped_mask_rejects_or_keeps_the_picture(tmp_path: Path, quick: None) -> None:
    write(tmp_path / "web/tiny.png", square(side=8))
    write(tmp_path / "web/tiny.txt", "a red dot")
    write(tmp_path / "web/wordless.png", square(side=8))
    annotate(config(), tmp_path / "reject", data=tmp_path)
    assert list(read_dataset(tmp_path / "reject")) == []
    reason = rejected_of(tmp_path / "reject")["web-tiny"]
    assert reason.startswith("tiny.png: mask dropped: area 0.005 is under 0.01 (area 0.005, edge_align ")
    annotate(config(dropped_masks="keep_picture"), tmp_path / "keep", data=tmp_path)
    assert list(rejected_of(tmp_path / "keep")) == ["web-wordless"]
    kept = samples_of(tmp_path / "keep")["web-tiny"]
    assert (kept.instance_ids, kept.instances, kept.captions) == (None, (), ("a red dot",))
    assert kept.facts["mask_dropped"] in reason


def test_large_pictures_are_reduced_with_their_masks(tmp_path: Path, quick: None) -> None:
    large = cv2.resize(cv2.imdecode(np.frombuffer(square(), np.uint8), 1), (1200, 1000), interpolation=0)
    write(tmp_path / "web/a.png", encode_png(np.ascontiguousarray(large[..., ::-1])))
    annotate(config(max_side_px=240), tmp_path / "out", data=tmp_path)
    sample = samples_of(tmp_path / "out")["web-a"]
    assert sample.image.shape == (200, 240, 3)
    assert sample.instances[0].box == (60, 60, 140, 140)
    assert (sample.provenance["file"]["width"], sample.provenance["file"]["flags"]) == (1200, ["reduced"])


def test_a_changed_input_is_another_plan(tmp_path: Path, quick: None) -> None:
    write(tmp_path / "web/a.png", square())
    assert annotate(config(), tmp_path / "out", data=tmp_path).made == 1
    assert annotate(config(), tmp_path / "out", data=tmp_path).already == 1
    write(tmp_path / "web/a.png", square(x0=31))
    with pytest.raises(InputError, match="holds shards of another plan"):
        annotate(config(), tmp_path / "out", data=tmp_path)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.yaml",
        "sources: [{name: a, kind: folder, path: a, licence: x}, {name: a, kind: tar, path: b, licence: x}]",
    )
    with pytest.raises(InputError, match="two sources have the same name"):
        read_config(AnnotateConfig, path)


def test_a_licence_that_is_not_allowed_stops_the_job_before_it_starts(tmp_path: Path) -> None:
    write(tmp_path / "web/a.png", square())
    with pytest.raises(
        InputError, match=r"does not allow: open-nsfw/1 \(BSD-2-Clause\); allowed_licences has Apache-2.0, MIT"
    ):
        annotate(config(allowed_licences=["Apache-2.0", "MIT"]), tmp_path / "out", data=tmp_path)
    assert not (tmp_path / "out").exists()


def test_missing_weights_stop_the_job_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "web/a.png", square())
    monkeypatch.setenv("CAVENDISH_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"python -m cavendish\.annotate\.weights"):
        annotate(config(), tmp_path / "out", data=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sigkill_and_workers_change_no_byte(tmp_path: Path) -> None:
    """The real model on crops of real photographs: killed in the middle and continued, against two workers at once."""
    crops = [photo(name)[top : top + 250] for name in ("coffee", "rocket", "china") for top in (0, 150)]
    for number, crop in enumerate(crops):
        write(tmp_path / f"web/{number}.png", encode_png(np.ascontiguousarray(crop)))
    write(tmp_path / "web/9.png", "broken")
    code = (
        "import sys; from pathlib import Path; from cavendish.annotate.job import annotate; "
        "from tests.annotate.test_job import config; data = Path(sys.argv[1]); "
        "annotate(config(images_per_shard=1), data / 'out', data=data)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("shard-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    committed = len(list((tmp_path / "out").glob("shard-*.json")))
    assert 2 <= committed < 7
    result = annotate(config(images_per_shard=1), tmp_path / "out", data=tmp_path)
    assert (result.already, result.made) == (committed, 7 - committed)
    annotate(config(images_per_shard=1), tmp_path / "two", Engine(workers=2), data=tmp_path)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "two")
    assert verify(tmp_path / "out") == []


def test_from_and_to_a_failing_server_it_makes_the_bytes_of_a_local_run(tmp_path: Path, quick: None) -> None:
    names = {
        "a.png": square(),
        "b.png": square(20),
        "c.png": square(25),
        "broken.png": b"no picture",
        "a.txt": b"a square",
    }
    for name, data in names.items():
        write(tmp_path / "web" / name, data)
    local = annotate(config(images_per_shard=2), tmp_path / "local", data=tmp_path)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        for name, data in names.items():
            objects.write(f"s3://bucket/photos/{name}", data)
        server.choose = every_tenth()
        assert annotate(config(images_per_shard=2), "s3://bucket/out", data=tmp_path).totals == local.totals
        again = annotate(config(images_per_shard=2), "s3://bucket/out", data=tmp_path)
        assert (again.already, again.made) == (2, 0)
        assert verify("s3://bucket/out") == []
        there = {
            "name": "web",
            "kind": "folder",
            "path": "s3://bucket/photos",
            "mirror": "mirror",
            "licence": "CC0-1.0",
        }
        mirrored = annotate(config(images_per_shard=2, sources=[there]), "s3://bucket/mirrored", data=tmp_path)
        assert server.faults.total() >= 9
        server.choose = lambda *_: ""
        assert files_of(tmp_path / "mirror") == names
        assert {name: objects.read(f"s3://bucket/out/{name}") for name in objects.tree("s3://bucket/out")} == files_of(
            tmp_path / "local"
        )
        assert mirrored.totals == local.totals
        server.choose = lambda number, method, path: "cut" if "a.png" in path else ""
        (tmp_path / "mirror" / "a.png").unlink()
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(objects, "RETRY", objects.Retry(attempts=1, backoff_s=0.01))
        with pytest.raises(InputError, match=r"s3://bucket/photos/a\.png: could not be read in 1 attempts"):
            annotate(config(images_per_shard=2, sources=[there]), "s3://bucket/mirrored", data=tmp_path)
        assert sorted(path.name for path in (tmp_path / "mirror").iterdir()) == sorted(set(names) - {"a.png"})
