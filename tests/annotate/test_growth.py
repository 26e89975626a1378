"""Adding images to an annotated folder: further shards, and no byte of the old ones changes."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.job import annotate
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.runners import Engine, JobResult
from cavendish.mixing.provenance.lineage import every_link, rebuild_commands, states, trace_record, write_config
from cavendish.mixing.shards.dataset import load_dataset
from cavendish.mixing.shards.reader import verify
from tests.annotate.test_job import config, files_of, quick, rejected_of, samples_of, square
from tests.mixing.sources.test_sources import write, write_tar

__all__ = ["quick"]  # a fixture
pytestmark = pytest.mark.usefixtures("quick")


def run(folder: Path, out: str = "out", **changes: object) -> JobResult:
    return annotate(config(images_per_shard=2, **changes), folder / out, data=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images in two shards, the second of which is not full."""
    for number, name in enumerate(("b", "d", "f")):
        write(tmp_path / f"web/{name}.png", square(20 + number))
    assert run(tmp_path).made == 2
    return tmp_path


def shards_of(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(directory).items() if name.startswith(("shard-", "inputs/"))}


def test_added_images_make_only_new_shards_once_and_again(folder: Path) -> None:
    before, first = shards_of(folder / "out"), load_dataset(folder / "out")
    for number, name in enumerate(("a", "c", "g")):  # before, between and behind the old ones
        write(folder / f"web/{name}.png", square(40 + number))
    write(folder / "web/e.png", "no image")
    result = run(folder)
    assert (result.already, result.made) == (2, 2)
    grown = shards_of(folder / "out")
    assert {name: grown[name] for name in before} == before
    assert list(samples_of(folder / "out")) == [f"web-{name}" for name in "bdfacg"]
    assert list(rejected_of(folder / "out")) == ["web-e"]
    assert result.totals is not None
    assert (result.totals["found"], result.totals["records"], result.totals["rejected"]) == (7, 6, 1)
    second = load_dataset(folder / "out")
    assert second.earlier == ((first.digest, 2),)
    assert verify(folder / "out") == []
    untouched = files_of(folder / "out")
    assert (run(folder).already, files_of(folder / "out")) == (4, untouched)

    write(folder / "web/0.png", square(50))
    assert (run(folder).made, run(folder).made) == (1, 0)
    again = shards_of(folder / "out")
    assert {name: again[name] for name in grown} == grown
    assert load_dataset(folder / "out").earlier == ((first.digest, 2), (second.digest, 4))
    assert list(samples_of(folder / "out")) == [f"web-{name}" for name in "bdfacg0"]
    assert verify(folder / "out") == []


def test_old_images_keep_their_keys_and_new_ones_get_others(folder: Path) -> None:
    old = samples_of(folder / "out")
    write(folder / "web/b.bmp", square(60))  # is listed before b.png, and would have its key
    assert run(folder).made == 1
    new = samples_of(folder / "out")
    assert list(new)[:3] == list(old) == ["web-b", "web-d", "web-f"]
    assert list(new)[3].startswith("web-b-")
    assert new["web-b"].provenance["file"]["name"] == "b.png"
    assert verify(folder / "out") == []


def test_a_tar_that_is_added_grows_a_source_of_tars_only(folder: Path) -> None:
    sources = [
        {"name": "web", "kind": "folder", "path": "web", "licence": "CC0-1.0"},
        {"name": "crawl", "kind": "tar", "path": "crawl", "licence": "CC0-1.0"},
    ]
    (folder / "crawl").mkdir()
    write_tar(folder / "crawl/1.tar", [("0.png", square(31))])
    run(folder, "two", sources=sources)
    before = shards_of(folder / "two")
    write_tar(folder / "crawl/0.tar", [("0.png", square(32))])
    write(folder / "web/a.png", square(33))
    assert run(folder, "two", sources=sources).made == 1
    after = shards_of(folder / "two")
    assert {name: after[name] for name in before} == before
    assert len(samples_of(folder / "two")) == 6
    assert verify(folder / "two") == []


def half(folder: Path, out: str) -> None:
    """Make every other shard only, as a job that was killed; dataset.json has no totals then."""
    assert annotate(config(images_per_shard=2), folder / out, Engine(split=(0, 2)), data=folder).totals is None


def test_a_growth_that_was_killed_ends_with_the_same_bytes(folder: Path) -> None:
    run(folder, "killed")
    half(folder, "killed_before")  # the job itself, before images were added
    for number in range(4):
        write(folder / f"web/x{number}.png", square(40 + number))
    run(folder)
    half(folder, "killed")
    inputs = folder / "killed/inputs/inputs-000003.json"
    inputs.unlink()  # killed before all were written
    for name in ("killed", "killed_before"):
        assert run(folder, name).totals is not None
        assert files_of(folder / name) == files_of(folder / "out")


def test_old_inputs_that_changed_or_vanished_are_named_and_nothing_is_written(folder: Path) -> None:
    before, image = files_of(folder / "out"), folder / "web/d.png"
    data = image.read_bytes()
    write(folder / "web/new.png", square(70))
    refused = r"out: holds shards of another plan: d\.png of source web is in them, and is gone or was changed since\."
    image.unlink()
    with pytest.raises(InputError, match=refused):
        run(folder)
    write(image, square(71, side=20))  # of another size
    with pytest.raises(InputError, match=refused):
        run(folder)
    write(image, data[:-1] + bytes([data[-1] ^ 1]))  # of the same size
    with pytest.raises(InputError, match=refused):
        run(folder)
    write(image, data)
    write(folder / "web/d.txt", "a caption that was not there")
    with pytest.raises(InputError, match=refused):
        run(folder)
    (folder / "web/d.txt").unlink()
    with pytest.raises(InputError, match=r"another plan .*: config\.max_side_px: 1024 -> 512"):
        run(folder, max_side_px=512)
    assert files_of(folder / "out") == before
    assert run(folder).made == 1


def test_every_shard_of_a_grown_dataset_is_traced_and_made_again(folder: Path) -> None:
    write(folder / "web/a.png", square(40))
    run(folder)
    out = folder / "out"
    for number, key in enumerate(("web-b", "web-f", "web-a")):
        trace = trace_record(out, key, folder)
        assert not states(trace)["changed"], list(every_link(trace))
        assert not states(trace)["missing"]
        commands = rebuild_commands(out, number, folder)
        assert [link.text for link in every_link(trace) if link.name == "made again by"] == list(commands)
        place = folder / f"again{number}"
        place.mkdir()
        write_config(out, place / "rebuild.yaml")  # what the first command does
        subprocess.run(commands[1], shell=True, check=True, cwd=place)
        words = shlex.split(commands[2])
        assert words[:5] == ["cavendish", "annotate", "rebuild.yaml", "--out", "rebuilt"]
        assert words[5:7] == ["--split", f"{number}/3"]
        settings = read_config(AnnotateConfig, place / "rebuild.yaml")
        annotate(settings, place / "rebuilt", Engine(split=(number, 3)), data=folder)
        for ending in ("tar", "json"):
            name = f"shard-{number:06d}.{ending}"
            assert (place / "rebuilt" / name).read_bytes() == (out / name).read_bytes()
