"""Leaks of every kind planted in real shards and found by the command line; none found in clean shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cavendish.cli.main import app, main
from cavendish.encoders.sample import Edit, Example, Sample, UInt8Image
from cavendish.encoders.tasks.registry import make_example
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.images import encode_png
from cavendish.mixing.lock import read_lock
from cavendish.mixing.storage.place import file_sha256
from tests.mixing.audit.labelled import partition, plain_shapes, relief
from tests.mixing.audit.photographs import OTHERS, SKIMAGE, SKLEARN, photograph, picture, poster
from tests.shard_folder import write_shards

PROMPT = "three purple llamas wearing tiny hats stand beside a rusty blue tractor at dawn"
EXPRESSION = "the left one of the two grey cats near the window sill"


CLEAN = "shards=[clean, clean-examples]"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr("sys.argv", ["cavendish", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def render(seed: int, height: int = 96, width: int = 128) -> UInt8Image:
    return procedural_picture(np.random.default_rng(seed), height, width)


def write_benchmarks(data: Path) -> None:
    (data / "photos").mkdir(parents=True)
    (data / "photos/flower.png").write_bytes(encode_png(photograph(SKLEARN, "flower.jpg")))
    for package, name in ((SKIMAGE, "chelsea.png"), (SKIMAGE, "rocket.jpg")):
        (data / "photos" / name).write_bytes(encode_png(photograph(package, name)))
    coffee = photograph(SKIMAGE, "coffee.png")
    (data / "photos/COCO_val2014_000000000139.png").write_bytes(encode_png(coffee))
    (data / "maps").mkdir()
    cv2.imwrite(str(data / "maps/lobby_ids.png"), partition(1))
    cv2.imwrite(str(data / "maps/square_ids.png"), plain_shapes()["square"])
    (data / "depth").mkdir()
    cv2.imwrite(str(data / "depth/lobby_depth.png"), np.rint(relief(2) * 1000).astype(np.uint16))
    cv2.imwrite(str(data / "depth/flat_depth.png"), np.full((96, 128), 3000, np.uint16))
    (data / "prompts.txt").write_text(f"{PROMPT}\n{EXPRESSION}\n")
    (data / "drives.txt").write_text(
        "2011_09_26_drive_0001\nscene0011_00\nScene01/clone\n14010329494_da3a1b1e6a_o.jpg\n"
    )


def leaky_records() -> list[Sample | Example]:
    chelsea, rocket = photograph(SKIMAGE, "chelsea.png"), photograph(SKIMAGE, "rocket.jpg")
    pasted = render(1, 420, 560)
    pasted[60:330, 90:496] = cv2.resize(chelsea, (406, 270), interpolation=cv2.INTER_AREA)
    labelled = dataclasses.replace(
        picture("masks", render(2)), instance_ids=cv2.resize(partition(1)[:, ::-1], (256, 192), interpolation=0)
    )
    labelled = dataclasses.replace(labelled, image=render(2, 192, 256))
    rng = np.random.default_rng(0)
    records: list[Sample | Example] = [
        picture("bytes", photograph(SKLEARN, "flower.jpg")),
        picture("poster", poster(chelsea)),
        picture("rendered", pasted),
        dataclasses.replace(
            picture("edited", render(3, *rocket.shape[:2])),
            edit=Edit("recolor", "make it", 1, EDITS["mirrored"](rocket, rng)),
        ),
        labelled,
        dataclasses.replace(picture("depth", render(4)), depth_m=relief(2)),
        dataclasses.replace(picture("caption", render(5)), captions=(f"{PROMPT.upper()}!",)),
        dataclasses.replace(picture("url", render(6)), provenance={"url": "x/val2017/000000000139.jpg"}),
        dataclasses.replace(picture("drive", render(7)), facts={"file": "2011_09_26_drive_0001_sync/7.png"}),
        dataclasses.replace(picture("room", render(8)), facts={"file": "scene0011_01/color/9.jpg"}),
        dataclasses.replace(picture("clone", render(9)), facts={"file": "Scene01/fog/rgb_00001.jpg"}),
        dataclasses.replace(picture("flickr", render(10)), facts={"file": "14010329494_da3a1b1e6a_b.jpg"}),
        Example(
            "target.generate.0", "generate", "a rocket", None, EDITS["blur"](rocket, rng),
            {"origin": {"key": "target"}},
        ),
        Example(
            "legend.referring.0", "referring", "Segment it.", render(11), np.zeros((96, 128, 3), np.uint8),
            {
                "task": "referring", "codec": "legend/1", "background": [0, 0, 0],
                "legend": [[EXPRESSION, [255, 0, 0]]],
                "origin": {"key": "legend", "source": "tests", "licence": "CC0-1.0"},
            },
        ),
    ]  # fmt: skip
    drawn = dataclasses.replace(picture("drawn", render(12)), depth_m=relief(2))
    records.append(make_example(drawn, "depth", np.random.default_rng(1)))
    return records


def clean_records() -> list[Sample | Example]:
    records: list[Sample | Example] = [
        picture(f"photo-{number}", photograph(*source)) for number, source in enumerate(OTHERS[1:5])
    ]
    for number, (name, shape) in enumerate(plain_shapes().items()):
        depth = np.full((96, 128), 2.5, np.float32)
        plain = dataclasses.replace(picture(f"plain-{name}", render(20 + number)), instance_ids=shape, depth_m=depth)
        records.append(dataclasses.replace(plain, captions=("a grey cat near a window", "the red cup")))
    for seed in range(100, 104):
        sample = dataclasses.replace(picture(f"render-{seed}", render(seed)), instance_ids=partition(seed))
        sample = dataclasses.replace(sample, depth_m=relief(seed), facts={"file": f"render_{seed}.png", "seed": 139})
        records += [sample, make_example(sample, "depth", np.random.default_rng(seed))]
    return records


EXPECTED = {
    ("bytes", "file", "flower.png"),
    ("poster", "local", "chelsea.png"),
    ("rendered", "local", "chelsea.png"),
    ("edited", "pdq", "rocket.jpg"),
    ("target", "pdq", "rocket.jpg"),
    ("masks", "masks", "lobby_ids.png"),
    ("depth", "depth", "lobby_depth.png"),
    ("drawn", "depth", "lobby_depth.png"),
    ("caption", "text", PROMPT),
    ("legend", "text", EXPRESSION),
    ("url", "id", "coco:000000000139"),
    ("drive", "id", "kitti:2011_09_26_drive_0001"),
    ("room", "id", "scannet:scene0011"),
    ("clone", "id", "vkitti2:Scene01"),
    ("flickr", "id", "flickr:14010329494"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("audit")
    write_benchmarks(data)
    for name, records in (("leaky", leaky_records()), ("clean", clean_records())):
        write_shards(data / name, [record for record in records if isinstance(record, Sample)], 2)
        write_shards(data / f"{name}-examples", [record for record in records if isinstance(record, Example)])
    coco = [dataclasses.replace(picture(f"c-{seed}", render(seed)), source="coco-2017") for seed in (200, 201)]
    write_shards(data / "named", coco)
    config = {
        "benchmarks": [
            {
                "name": "photos",
                "folder": "photos",
                "prompts": "prompts.txt",
                "ids": "drives.txt",
                "labels": {"folder": "maps", "kind": "masks", "suffix": "_ids.png"},
                "registry": "sa-1b",
            },
            {
                "name": "rooms",
                "folder": "other",
                "labels": {"folder": "depth", "kind": "depth", "suffix": "_depth.png"},
                "registry": "lvis",
            },
        ],
        "shards": ["leaky", "leaky-examples", "clean", "clean-examples"],
        "work": "work",
        "controls": {"copies": 8, "clean": 4},
    }
    (data / "other").mkdir()
    (data / "other/motorcycle.png").write_bytes(encode_png(photograph(SKIMAGE, "motorcycle_left.png")))
    (data / "audit.yaml").write_text(yaml.safe_dump(config))
    return data


def findings(out: Path) -> list[dict]:
    return json.loads((out / "report.json").read_text())["findings"]


def test_every_kind_of_leak_is_found_and_nothing_in_clean_shards(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = (data / "audit.yaml", "--data", data)
    assert run(monkeypatch, "audit", *here, "--out", data / "all", "--exclude", data / "lists/leave-out.json") == 1
    found = findings(data / "all")
    assert {(one["sample"], one["stage"], one["image"]) for one in found} == EXPECTED
    assert {one["level"] for one in found} == {"leak"}
    assert {one["directory"] for one in found} == {"leaky", "leaky-examples"}
    report = json.loads((data / "all/report.json").read_text())
    assert report["incomplete"] == []
    for kind in ("recall", "texts", "labels"):
        assert all(one["hits"] == one["trials"] for one in report["controls"][kind].values()), kind
    listed = json.loads((data / "lists/leave-out.json").read_text())["keys"]
    assert listed == sorted(sample for sample, _, _ in EXPECTED)

    assert run(monkeypatch, "audit", "scan", *here, CLEAN, "--out", data / "clean-out") == 0
    assert findings(data / "clean-out") == []
    assert run(monkeypatch, "audit", "scan", *here, "exclude=[lists/leave-out.json]", "--out", data / "final") == 0
    assert {one["status"] for one in findings(data / "final")} == {"removed"}

    assert run(monkeypatch, "audit", "verify", *here, "--out", data / "all") == 0
    path = data / "all/report.json"
    path.write_bytes(path.read_bytes().replace(b'"verdict":"leak"', b'"verdict":"clean"'))
    capsys.readouterr()
    assert run(monkeypatch, "audit", "verify", *here, "--out", data / "all") == 1
    assert "report.json is not what these inputs give" in capsys.readouterr().err


def test_a_mixture_honours_the_list_and_its_lock_names_the_report(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "audit", data / "audit.yaml", "--data", data, "--out", data / "first")
    capsys.readouterr()

    def lock(path: str) -> int:
        mixture = {
            "ratios": {"vision": 1},
            "sources": {"one": {"path": path, "tasks": {"depth": 1}}},
            "exclude": ["first/exclude.json"],
            "audit": "first/report.json",
        }
        (data / "mixture.yaml").write_text(yaml.safe_dump(mixture))
        return run(monkeypatch, "mix", data / "mixture.yaml", "--data", data, "--out", data / "mix.json")

    for path in ("leaky", "leaky-examples"):  # the one record of each that has depth is on the list
        assert lock(path) == 2
        assert "nothing to draw for task depth" in capsys.readouterr().err
    assert lock("clean") == 0
    audit = read_lock(data / "mix.json").audit
    assert audit is not None
    assert audit["sha256"] == file_sha256(data / "first/report.json")


def test_texts_and_lineage_have_answers_of_their_own_which_are_never_clean(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = (data / "audit.yaml", "--data", data)
    assert run(monkeypatch, "audit", "text", *here, "--out", data / "words") == 1
    said = json.loads((data / "words/text.json").read_text())
    expected = {(sample, image) for sample, stage, image in EXPECTED if stage in ("text", "id")}
    assert {(one["sample"], one["image"]) for one in said["findings"]} == expected
    assert "verdict" not in said
    assert run(monkeypatch, "audit", "text", *here, CLEAN, "--out", data / "words") == 0
    assert "no picture was compared" in capsys.readouterr().out

    assert run(monkeypatch, "audit", "lineage", *here, CLEAN, "--out", data / "words") == 0
    assert run(monkeypatch, "audit", "lineage", *here, "shards=[named]", "--out", data / "words") == 4
    said = json.loads((data / "words/lineage.json").read_text())
    assert {(one["kind"], one["benchmark"]) for one in said["findings"]} == {("lineage", "rooms"), ("licence", "")}
    assert any("is named after coco-2014, coco-2017" in one["reason"] for one in said["findings"])
    assert any("Its records say CC0-1.0, but it comes from" in one["reason"] for one in said["findings"])
    assert run(monkeypatch, "audit", "lineage", *here, "licences=[MIT]", CLEAN, "--out", data / "words") == 4
    declared = "sources={tests: [lvis]}"
    assert run(monkeypatch, "audit", "lineage", *here, declared, CLEAN, "--out", data / "words") == 1


def test_a_pack_without_pixels_carries_labels_to_who_has_no_benchmark(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = (data / "audit.yaml", "--data", data, "--out", data / "made")
    assert run(monkeypatch, "audit", "index", *here, "pixels=false", "work=made") == 0
    pack = data / "made/packs/photos"
    kept = {path.name for path in pack.rglob("*") if path.is_file()}
    assert not any(name.endswith((".png", ".jpg", ".bin")) and "feature" not in name for name in kept)
    config = yaml.safe_load((data / "audit.yaml").read_text())
    config["benchmarks"] = [{"name": "photos", "pack": "made/packs/photos"}]
    (data / "pack.yaml").write_text(yaml.safe_dump({**config, "work": "elsewhere", "shards": ["leaky"]}))
    assert run(monkeypatch, "audit", data / "pack.yaml", "--data", data, "--out", data / "from-pack") == 1
    stages = {(one["sample"], one["stage"]) for one in findings(data / "from-pack")}
    assert {("bytes", "file"), ("edited", "pdq"), ("masks", "masks"), ("url", "id")} <= stages
    report = json.loads((data / "from-pack/report.json").read_text())
    assert any("no controls could be planted" in line for line in report["incomplete"])


def test_bad_input_is_one_line_and_exit_code_2(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = (data / "audit.yaml", "--data", data, "--out", data / "bad")
    assert run(monkeypatch, "audit", *here, "shards=[nowhere]") == 2
    assert run(monkeypatch, "audit", *here, "decisions=audit.yaml") == 2
    assert run(monkeypatch, "audit", *here, "colour=red") == 2
    assert run(monkeypatch, "audit", "report", *here, "work=fresh") == 2
    assert "run the scan first" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("verb", ["index", "scan", "text", "lineage", "report", "verify"])
def test_every_sub_verb_explains_itself(verb: str) -> None:
    shown = CliRunner().invoke(app, ["audit", verb, "--help"], env={"COLUMNS": "120"})
    assert (shown.exit_code, "--out" in shown.output) == (0, True)
