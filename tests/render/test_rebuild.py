"""The shard of one rendered sample is made again, byte for byte, by the commands that its provenance prints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.mixing.provenance.lineage import every_link, states, trace_record
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.render.job import RenderConfig, render

KINDS = {"table top": 0.5, "room": 0.5}  # not in the order of the alphabet, nor in that of a plan


@pytest.mark.slow
def test_a_rendered_shard_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RenderConfig(
        engine="pyrender", seed=8, scenes=4, scenes_per_shard=2, width=64, height=64, max_model_kb=200, kinds=KINDS
    )
    render(config, Path("raw"))
    row = committed_rows(Path("raw"))[1]
    trace = trace_record(Path("raw"), next(iter(row.samples)))
    assert set(states(trace)) == {"ok", ""}
    commands = [link.text for link in every_link(trace) if link.name == "made again by"]
    for command in commands:
        ran = CliRunner().invoke(app, shlex.split(command)[1:])
        assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in Path("rebuilt").glob("shard-*")) == ["shard-000001.json", "shard-000001.tar"]
    for name in ("shard-000001.json", "shard-000001.tar"):
        assert Path("rebuilt", name).read_bytes() == Path("raw", name).read_bytes()


def test_weights_are_put_in_one_order() -> None:
    one = RenderConfig(engine="pyrender", seed=1, scenes=2, kinds=KINDS)
    other = RenderConfig(engine="pyrender", seed=1, scenes=2, kinds=dict(reversed(KINDS.items())))
    assert list(one.kinds) == list(other.kinds) == ["room", "table top"]
