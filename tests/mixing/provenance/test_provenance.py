"""A record is traced to everything it was made from, and the printed command makes its shard again, byte for byte."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.provenance.lineage import Link, every_link, states, trace_record, write_config
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from tests.conftest import tiny_sample
from tests.mixing.shard_data import write_raw

MADE_OF = {
    "seeds": [3, 1, 4, 0],
    "recipe_sha256": "ab" * 32,
    "versions": {"numpy": "0.0.1"},
    "annotators": [{"id": "saw/1", "task": "masks", "licence": "MIT", "weights_sha256": "cd" * 32}],
    "assets": [{"name": "shop/chair", "author": "Ann", "licence": "CC-BY-4.0", "sha256": "ef" * 32}],
    "file": {"name": "a.jpg", "sha256": "01" * 32, "author": "Bob", "url": "https://example.org/a"},
}


def said(trace: Link, name: str) -> list[str]:
    return [link.text for link in every_link(trace) if link.name == name]


def encoded(data: Path) -> Path:
    """Raw shards, and three instruction shards made from them; tasks are not in the order of their names."""
    write_raw(data / "raw", shards=3, each=2, provenance=MADE_OF)
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"semantic": 1, "depth": 2}, "size": 32})
    encode(config, data / "examples", data=data)
    return data / "examples"


def test_a_sample_names_its_seeds_tools_models_assets_and_file(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", provenance=MADE_OF)
    trace = trace_record(tmp_path / "raw", "scene-1-3")
    assert said(trace, "seeds")[0].startswith("3, 1, 4, 0")
    for name, words in (
        ("recipe", "ab" * 32),
        ("tools", "numpy 0.0.1 (here "),
        ("model", "cd" * 32),
        ("asset", "by Ann, CC-BY-4.0, sha256 " + "ef" * 32),
        ("file", "author Bob, url https://example.org/a"),
        ("edit", "make the chair green"),
    ):
        assert words in said(trace, name)[0]
    assert "shard-000001.tar" in said(trace, "shard")[0]
    assert set(states(trace)) == {"ok", ""}


def test_an_example_leads_back_to_its_raw_sample(tmp_path: Path) -> None:
    trace = trace_record(encoded(tmp_path), "scene-2-1.depth.1", tmp_path)
    raw = next(link for link in trace.links if link.name == "raw sample")
    assert raw.text.startswith("scene-2-1:")
    assert raw.state == "ok"
    assert said(raw, "asset")
    assert "changed" not in states(trace)


def test_what_changed_since_is_told(tmp_path: Path) -> None:
    examples = encoded(tmp_path)
    tar = tmp_path / "raw" / "shard-000002.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1  # in the padding at the end: every record can still be read
    tar.write_bytes(data)
    dataset = tmp_path / "raw" / "dataset.json"
    dataset.write_text(dataset.read_text().replace('"each":2', '"each":3'))
    trace = trace_record(examples, "scene-2-1.depth.0", tmp_path)
    changed = [link.name for link in every_link(trace) if link.state == "changed"]
    assert changed == ["shard", "plan"]


def test_raw_shards_that_are_not_here_are_missing(tmp_path: Path) -> None:
    trace = trace_record(encoded(tmp_path), "scene-0-0.depth.0", tmp_path / "elsewhere")
    assert states(trace)["missing"] == 2


def test_a_dead_letter_is_found_without_a_sample(tmp_path: Path) -> None:
    plan = Plan("test", 1, {})
    start_dataset(tmp_path, plan)
    with ShardWriter(tmp_path, 0, plan.digest) as writer:
        writer.add(tiny_sample("kept"))
        writer.reject("kept", "attempt 0: camera in a wall")
        writer.reject("lost", "attempt 0: nothing to see")
    finish_dataset(tmp_path, plan)
    assert said(trace_record(tmp_path, "lost"), "dead letter") == [
        "lost in shard-000000.tar: attempt 0: nothing to see"
    ]
    assert len(said(trace_record(tmp_path, "kept"), "dead letter")) == 1
    with pytest.raises(InputError, match="no record or dead letter with key other"):
        trace_record(tmp_path, "other")


def test_the_printed_commands_make_the_shard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = encoded(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = said(trace_record(Path("examples"), "scene-1-0.semantic.0"), "made again by")
    assert len(commands) == 2
    for command in commands:
        ran = CliRunner().invoke(app, shlex.split(command)[1:])
        assert ran.exit_code == 0, ran.output
    made = sorted(path.name for path in (tmp_path / "rebuilt").glob("shard-*"))
    assert made == ["shard-000001.json", "shard-000001.tar"]
    for name in made:
        assert (tmp_path / "rebuilt" / name).read_bytes() == (examples / name).read_bytes()


def test_a_written_configuration_has_the_plan_of_the_shards(tmp_path: Path) -> None:
    assert write_config(encoded(tmp_path), tmp_path / "again.yaml") == "encode"
    again = read_config(EncodeConfig, tmp_path / "again.yaml")
    result = encode(again, tmp_path / "examples", data=tmp_path)  # another plan would be refused there
    assert (result.already, result.made) == (3, 0)


def test_the_order_of_keys_in_a_configuration_does_not_matter(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=1, each=2)
    for name, tasks in (("one", {"semantic": 1, "depth": 1}), ("other", {"depth": 1, "semantic": 1})):
        config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": tasks, "size": 32})
        encode(config, tmp_path / name, data=tmp_path)
    one, other = ((tmp_path / name / "shard-000000.tar").read_bytes() for name in ("one", "other"))
    assert one == other


def test_the_verb_prints_a_tree_and_json_and_says_no_when_something_changed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_raw(raw, shards=1, each=2)
    words = ["show", str(raw), "scene-0-1", "--provenance"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "ok plan" in shown.output
    told = yaml.safe_load(CliRunner().invoke(app, [*words, "--json"]).output)
    assert told["links"][0]["name"] == "shard"
    (raw / "dataset.json").write_text((raw / "dataset.json").read_text().replace('"each":2', '"each":4'))
    assert CliRunner().invoke(app, words).exit_code == 1


def test_one_record_can_be_looked_at(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2, each=2)
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "raw"), "scene-1-0"])
    assert "scene-1-0" in shown.output
    assert "scene-0-0" not in shown.output
