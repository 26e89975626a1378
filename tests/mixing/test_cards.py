"""Cards: deterministic, true to the shards, and metadata that mlcroissant itself accepts and reads records by."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError
from cavendish.mixing.cards.card import About, write_card
from cavendish.mixing.cards.facts import add_up, licence_of
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.lock import write_lock
from cavendish.mixing.shards.dataset import Plan, start_dataset
from tests.mixing.shard_data import lock_text, write_raw

ABOUT = About("things", "Things for tests.", date="2026-11-01", cite="Cavendish", url="", creator="Tests")
ASSETS = {
    "assets": [
        {"name": "shop/chair", "author": "Ann | Co", "licence": "CC-BY-4.0", "sha256": "ef"},
        {"name": "shop/table", "author": "Bob", "licence": "CC0-1.0", "sha256": "ef"},
    ]
}
# the real reader, in a process of its own: it keeps what it extracts, and pandas out of the other tests
READ = """
import json, sys
import mlcroissant
data = mlcroissant.Dataset(jsonld=sys.argv[1])
found = {"warnings": sorted(data.metadata.ctx.issues.warnings)}
for one in data.metadata.record_sets:
    records = list(data.records(one.id))
    keys = sorted(record[f"{one.id}/key"].decode() for record in records)
    found[one.id] = {"keys": keys, "first": {k: str(v)[:2000] for k, v in records[0].items()}}
json.dump(found, sys.stdout)
"""


def read_with_mlcroissant(path: Path, cache: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    env = {"CROISSANT_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HOME": str(cache)}
    ran = subprocess.run([sys.executable, "-c", READ, str(path)], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found.pop("warnings") == []
    return found


def test_mlcroissant_reads_raw_shards_and_a_mixture(tmp_path: Path) -> None:
    samples = write_raw(tmp_path / "raw", shards=2, each=3, licence="CC-BY-4.0", provenance=ASSETS)
    write_card(tmp_path / "raw", tmp_path / "raw", ABOUT, tmp_path)
    found = read_with_mlcroissant(tmp_path / "raw" / "croissant.json", tmp_path / "cache")
    assert len(found) == 9  # the parts of a full sample
    for one in found.values():
        assert one["keys"] == sorted(sample.key for sample in samples)
    assert '"licence":"CC-BY-4.0"' in found["records/json"]["first"]["records/json/json"]
    write_lock(tmp_path / "lock.json", lock_text(tmp_path))
    write_card(tmp_path / "lock.json", tmp_path / "card", ABOUT, tmp_path)
    mixed = read_with_mlcroissant(tmp_path / "card" / "croissant.json", tmp_path / "cache2")
    assert mixed["records/image.png"]["keys"] == found["records/image.png"]["keys"]


def test_the_same_shards_give_the_same_card(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", provenance=ASSETS)
    one = write_card(tmp_path / "raw", tmp_path / "one", ABOUT)
    other = write_card(tmp_path / "raw", tmp_path / "other", ABOUT)
    assert [path.name for path in one] == ["README.md", "croissant.json", "ATTRIBUTION.md"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_the_commands_of_a_card_can_be_typed(tmp_path: Path) -> None:
    write_raw(tmp_path / "my raw shards", shards=1)
    write_card(tmp_path / "my raw shards", tmp_path / "card", ABOUT)
    (command,) = re.findall(r"    (cavendish show .* --verify)", (tmp_path / "card" / "README.md").read_text())
    assert shlex.split(command) == ["cavendish", "show", str(tmp_path / "my raw shards"), "--verify"]


def test_hashes_sizes_and_addresses_are_those_of_the_tars(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2)
    about = About("things", "x", url="https://example.org/data/")
    write_card(tmp_path / "raw", tmp_path / "card", about)
    told = json.loads((tmp_path / "card" / "croissant.json").read_text())
    tars = [one for one in told["distribution"] if one["@type"] == "cr:FileObject"]
    rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "raw").glob("shard-*.json"))]
    assert [(one["sha256"], one["contentSize"]) for one in tars] == [(x["sha256"], f"{x['bytes']} B") for x in rows]
    assert tars[1]["contentUrl"] == "https://example.org/data/shard-000001.tar"
    assert "datePublished" not in told


def test_licences_are_added_up_and_authors_named(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=1, each=4, licence="CC-BY-4.0 AND my own", provenance=ASSETS)
    write_card(tmp_path / "raw", tmp_path / "card", ABOUT)
    text = (tmp_path / "card" / "README.md").read_text()
    assert "| [CC-BY-4.0](https://spdx.org/licenses/CC-BY-4.0.html) | 4 | name authors" in text
    assert "**Not cleared**: my own" in text
    assert "2 authors" in text
    assert "Authors missing" not in text
    credit = (tmp_path / "card" / "ATTRIBUTION.md").read_text()
    assert "| Ann \\| Co | shop/chair | CC-BY-4.0 | 4 |" in credit


def test_a_licence_that_asks_for_a_name_without_one_is_told(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=1, each=4, licence="CC-BY-SA-3.0")
    written = write_card(tmp_path / "raw", tmp_path / "card", ABOUT)
    assert "ATTRIBUTION.md" not in [path.name for path in written]
    assert "**Authors missing**: 4 under CC-BY-SA-3.0" in written[0].read_text()


def test_instruction_shards_name_the_authors_of_their_raw_shards(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=1, each=2, licence="CC-BY-4.0", provenance=ASSETS)
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1}, "size": 32})
    encode(config, tmp_path / "examples", data=tmp_path)
    write_card(tmp_path / "examples", tmp_path / "card", ABOUT, tmp_path)
    assert "shop/chair" in (tmp_path / "card" / "ATTRIBUTION.md").read_text()


@pytest.mark.parametrize(
    ("name", "known", "attribution", "words"),
    [
        ("CC0-1.0", True, False, "nothing"),
        ("CC-BY-NC-SA-4.0", True, True, "no commercial use"),
        ("CC-BY-ND-4.0", True, True, "unchanged only"),
        ("MIT", True, True, "copyright notices"),
        ("unknown", False, False, "read it"),
        ("CC-BY-4.0 or so", False, False, "read it"),
    ],
)
def test_what_a_licence_asks(name: str, known: bool, attribution: bool, words: str) -> None:
    licence = licence_of(name)
    assert (licence.known, licence.attribution) == (known, attribution)
    assert words in "; ".join(licence.asks)


def test_a_record_under_two_licences_counts_for_both() -> None:
    assert add_up({"MIT": 2, "CC0-1.0 AND MIT": 3}) == {"CC0-1.0": 3, "MIT": 5}


def test_what_is_not_finished_or_not_locked_has_no_card(tmp_path: Path) -> None:
    start_dataset(tmp_path / "begun", Plan("test", 2, {}))
    with pytest.raises(InputError, match="0 of 2 shards are committed"):
        write_card(tmp_path / "begun", tmp_path / "card", ABOUT)
    write_raw(tmp_path / "raw")
    write_lock(tmp_path / "lock.json", lock_text(tmp_path))
    write_raw(tmp_path / "other", provenance=ASSETS)
    (tmp_path / "other").rename(tmp_path / "swap")
    for path in (tmp_path / "swap").iterdir():
        (tmp_path / "raw" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="not the locked ones"):
        write_card(tmp_path / "lock.json", tmp_path / "card", ABOUT, tmp_path)


def test_the_verb_refuses_words_it_cannot_mean(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=1, each=1)
    assert CliRunner().invoke(app, ["card", str(tmp_path / "raw")]).exit_code == 0
    assert (tmp_path / "raw" / "README.md").exists()
    for words, message in (
        (["--date", "today"], "YYYY-MM-DD"),
        (["--version", "1"], "MAJOR.MINOR.PATCH"),
        (["--url", "example.org"], "scheme"),
    ):
        with pytest.raises(InputError, match=message):
            CliRunner().invoke(app, ["card", str(tmp_path / "raw"), *words], catch_exceptions=False)
