"""What describes shards says the same of them at a failing server as in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError
from cavendish.mixing.cards.card import About, write_card
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.lock import write_lock
from cavendish.mixing.provenance.lineage import Link, states, trace_record
from cavendish.mixing.storage import objects
from tests.mixing.shard_data import lock_text, write_raw
from tests.mixing.storage.s3_server import Proxy, every_tenth, s3_server

DATA = "s3://bucket/data"
ABOUT = About("things", "Things for tests.", date="2026-11-01", creator="Tests")


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as proxy:
        yield proxy


@pytest.fixture
def data(server: Proxy, tmp_path: Path) -> Path:
    """Raw shards, instruction shards made of them and a lock, in a folder and at the server, which fails."""
    server.start_anew()
    folder = tmp_path / "data"
    folder.mkdir()
    write_raw(folder / "raw", shards=2, each=3)
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1}, "size": 32})
    encode(config, folder / "frozen", data=folder)
    write_lock(folder / "lock.json", lock_text(folder))
    for path in folder.rglob("*.*"):
        objects.upload(path, f"{DATA}/{path.relative_to(folder).as_posix()}")
    server.choose = every_tenth()
    return folder


def said(link: Link, place: str) -> Link:
    """Return a trace with the place its data are at left out."""
    return Link(link.name, link.text.replace(place, "DATA"), link.state, tuple(said(one, place) for one in link.links))


def test_a_record_is_traced_as_in_a_folder(server: Proxy, data: Path) -> None:
    for folder, key in (("raw", "scene-1-2"), ("frozen", "scene-1-2.depth.0")):
        there, here = (trace_record(f"{place}/{folder}", key, place) for place in (DATA, str(data)))
        assert said(there, DATA) == said(here, str(data))
        assert set(states(there)) == {"ok", ""}
    with pytest.raises(InputError, match="no record or dead letter with key other"):
        trace_record(f"{DATA}/raw", "other")
    assert server.faults.total() >= 3


def test_cards_have_the_bytes_of_a_folders(server: Proxy, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    for path, out in ((Path("raw"), Path("raw")), (Path("lock.json"), Path("card"))):
        here = write_card(path, out, ABOUT)
        there = write_card(f"{DATA}/{path}", f"{DATA}/{out}", ABOUT, DATA)
        for written, local in zip(there, here, strict=True):
            named = objects.read(str(written)).replace(f"{DATA}/{path}".encode(), str(path).encode())
            assert named == local.read_bytes()
    with pytest.raises(InputError, match="its card would not be: give --url"):
        write_card(Path("raw"), f"{DATA}/elsewhere", ABOUT)
    assert server.faults.total() >= 3


def test_the_verbs_take_urls(server: Proxy, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: str) -> str:
        ran = CliRunner().invoke(app, words)
        assert ran.exit_code == 0, ran.output
        return ran.output

    assert "made again by" in run("show", f"{DATA}/frozen", "scene-1-2.depth.0", "--provenance", "--data", DATA)
    assert "2 shards, 6 records" in run("show", f"{DATA}/frozen", "--verify")
    run("show", f"{DATA}/frozen", "--config", f"{DATA}/again.yaml")
    run("show", str(data / "frozen"), "--config", str(data / "again.yaml"))
    assert objects.read(f"{DATA}/again.yaml") == (data / "again.yaml").read_bytes()
    assert "links: " in run("show", f"{DATA}/lock.json", "--lineage", "--data", DATA)
    monkeypatch.chdir(data)
    assert f"{DATA}/raw/croissant.json" in run("card", f"{DATA}/raw")
    assert "card/croissant.json" in run("card", f"{DATA}/raw", "--out", "card")
    assert f'"{DATA}/raw/shard-000000.tar"' in (data / "card" / "croissant.json").read_text()
    assert not list(data.glob("s3:*"))
