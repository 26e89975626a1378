"""A trained generator is followed by digest to its base, its mixture and every shard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import read_lock, write_lock
from cavendish.mixing.provenance.lineage import Link, every_link, states
from cavendish.mixing.storage import objects
from cavendish.trainer.generators.tiny import TinyConfig
from cavendish.trainer.training.checkpoint import checkpoints
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.lineage import trace_lineage
from cavendish.trainer.training.train import train
from tests.audit_report import write_report
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw
from tests.mixing.storage.s3_server import every_tenth, s3_server

SMALL = {"size": 16, "steps": 2, "batch": 2, "log_every": 1, "checkpoint_every": 1, "threads": 1, "workers": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw shards, an audit that covers them, a lock, a base run and one tuned from it."""
    data = tmp_path_factory.mktemp("made")
    write_raw(data / "raw", shards=2, each=4)
    write_report(data / "report.json", data, ["raw"])
    write_lock(data / "lock.json", lock_text(data, MIXTURE + "audit: report.json\n"))
    tiny = TinyConfig(width=16, text_width=16, word_buckets=64)
    train(TrainConfig.model_validate({**SMALL, "lock": "lock.json", "generator": tiny}), data / "base", data)
    tuned = {**SMALL, "lock": "lock.json", "base": "base/generator", "seed": 1}
    train(TrainConfig.model_validate(tuned), data / "tuned", data)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def changed(trace: Link) -> list[str]:
    return [link.name for link in every_link(trace) if link.state == "changed"]


@pytest.mark.parametrize("name", ["tuned", "tuned/generator", "checkpoint"])
def test_everything_is_found_and_as_it_was(made: Path, name: str) -> None:
    path = checkpoints(made / "tuned")[-1] if name == "checkpoint" else made / name
    trace = trace_lineage(path, made)
    assert set(states(trace)) == {"ok", ""}
    names = [link.name for link in every_link(trace)]
    assert names.count("mixture lock") == names.count("source renders") == names.count("tars") == 2  # and of the base
    audit = next(link for link in every_link(trace) if link.name == "audit")
    assert "verdict clean; covers all 1 sources" in audit.text
    assert any("a fresh generator" in link.text for link in every_link(trace))


def test_a_lock_alone_can_be_followed(made: Path) -> None:
    trace = trace_lineage(made / "lock.json", made)
    assert trace.name == "mixture lock"
    assert set(states(trace)) == {"ok"}


def test_a_changed_tar_is_found_in_tuned_run_and_base(data: Path) -> None:
    tar = data / "raw" / "shard-000001.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    assert changed(trace_lineage(data / "tuned", data)) == ["shard-000001.tar"] * 2
    assert changed(trace_lineage(data / "tuned", data, quick=True)) == []
    ran = CliRunner().invoke(app, ["show", str(data / "tuned"), "--lineage", "--data", str(data)])
    assert ran.exit_code == 1
    assert "2 changed" in ran.output


def test_a_changed_weight_or_note_is_found(data: Path) -> None:
    weights = data / "base" / "generator" / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    lineage = data / "tuned" / "generator" / "lineage.json"
    lineage.write_text(lineage.read_text().replace('"steps":2', '"steps":3', 1))
    assert changed(trace_lineage(data / "tuned", data)) == ["lineage", "base", "weights"]


def test_another_lock_in_its_place_is_found(data: Path) -> None:
    write_lock(data / "lock.json", lock_text(data, MIXTURE))
    trace = trace_lineage(data / "tuned", data)
    assert changed(trace) == ["mixture lock"] * 2
    assert states(trace)["ok"] > 0  # the shards that the generator's own file names are still compared


def test_an_audit_of_other_shards_is_not_locked(data: Path) -> None:
    write_raw(data / "other", shards=1, each=3)
    write_report(data / "report.json", data, ["other"])
    with pytest.raises(InputError, match="not of these shards"):
        lock_text(data, MIXTURE + "audit: report.json\n")


def test_a_generator_that_went_elsewhere_still_names_its_lock_base_and_shards(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "tuned" / "generator", tmp_path / "elsewhere")
    trace = trace_lineage(tmp_path / "elsewhere", tmp_path)
    digest = read_lock(made / "lock.json").digest
    locks = [link for link in every_link(trace) if link.name == "mixture lock"]
    assert [link.state for link in locks] == ["missing", "missing"]
    assert all(link.text.startswith(digest[:16]) for link in locks)
    assert [link.name for link in every_link(trace)].count("source renders") == 2
    assert not changed(trace)
    told = trace_lineage(tmp_path / "elsewhere", made, lock=made / "lock.json")
    assert next(link for link in told.links if link.name == "mixture lock").state == "ok"


def test_what_has_no_lineage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint, generator, training run or lock there"):
        trace_lineage(tmp_path)


def told(link: Link, place: str) -> Link:
    """Return a trace with the place its files are at left out."""
    links = tuple(told(one, place) for one in link.links)
    return Link(link.name, link.text.replace(place, "DATA"), link.state, links)


def test_at_a_failing_server_it_is_the_trace_of_a_folder(made: Path) -> None:
    url = "s3://bucket/made"
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        for path in made.rglob("*.*"):
            if path.is_file():
                objects.upload(path, f"{url}/{path.relative_to(made).as_posix()}")
        server.choose = every_tenth()
        checkpoint = f"tuned/{checkpoints(made / 'tuned')[-1].name}"
        for name in ("tuned", checkpoint):
            here, there = (
                trace_lineage(f"{place}/{name}" if place == url else made / name, place) for place in (made, url)
            )
            assert told(there, url) == told(here, str(made))
        assert server.faults.total() >= 6
        lock = trace_lineage(f"{url}/tuned/generator", made / "elsewhere", f"{url}/lock.json")
        assert next(link for link in every_link(lock) if link.name == "mixture lock").state == "ok"
        with pytest.raises(InputError, match="s3://bucket/made/raw: no checkpoint, generator, training run or lock"):
            trace_lineage(f"{url}/raw", url)
