from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.preview import write_preview
from cavendish.mixing.mixture.statistics import index_of, read_count, realised_ratios, simulate
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw


def test_a_billion_examples_are_accounted_for_exactly(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    account = simulate(lock, 10**9 + 1)
    assert sum(row.drawn for row in account.streams) == 10**9 + 1
    assert account.largest_error < 1
    kinds = account.by(lambda stream: stream.kind)
    assert kinds["vision"][0] == Fraction(10**9 + 1, 20)
    assert kinds["vision"][1] == sum(row.drawn for row in account.streams if row.stream.kind == "vision")


def test_the_account_is_what_a_reader_draws(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    items = list(MixtureDataset(lock, tmp_path, 16, count=200))
    counted = Counter(f"{item.source}/{item.example.task}" for item in items)
    assert counted == {row.stream.name: row.drawn for row in simulate(lock, 200).streams if row.drawn}
    for number, stream in enumerate(lock.streams):
        indices = [item.index for item in items if f"{item.source}/{item.example.task}" == stream.name]
        assert [index_of(lock.schedule(), number, j, 200) for j in range(len(indices))] == indices


def test_the_page_shows_figures_examples_and_warnings(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    ramp = MIXTURE.replace("vision: 0.05", "vision: [[0, 0.01], [500, 0.2]]")
    lock = lock_text(tmp_path, ramp)
    account = write_preview(lock, tmp_path, 16, tmp_path / "preview.html", count=1000, examples=2)
    page = (tmp_path / "preview.html").read_text()
    assert "No audit in this lock" in page
    assert "Over the stream" in page
    for row in account.streams:
        assert f"{row.stream.source} / {row.stream.task}" in page
        assert f'<td class="n">{row.drawn:,}</td>' in page
    item = MixtureDataset(lock, tmp_path, 16)[0]
    assert item.example.prompt in page
    assert len(re.findall("<figure>", page)) == 2 * len(account.streams)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_the_page_says_how_prompts_licences_and_sizes_are_mixed(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", licence="MIT")
    lock = lock_text(tmp_path, MIXTURE.replace("0.05", "0.5") + "colormaps: {turbo: 0.5}\nnegatives: 0.25\n")
    write_preview(lock, tmp_path, 16, tmp_path / "preview.html", count=1000, examples=1)
    page = re.sub(r"\s*<[^>]+>\s*", "|", (tmp_path / "preview.html").read_text())
    page = re.sub(r"\|+", "|", page)
    assert "|MIT|100 %|100 %|" in page
    assert "|32-63|100 %|100 %|" in page
    assert "|depth, turbo|12.5 %|" in page
    assert "|depth, cube walk|12.5 %|" in page
    assert "|25 %, where that is known|50 % turbo, the rest cube walk|" in page
    assert "depth, plasma" not in page


def test_a_run_s_ratios_are_compared_with_the_mixture(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    drawn: dict[str, dict[str, int]] = {"renders": {row.stream.task: row.drawn for row in simulate(lock, 900).streams}}
    rows = realised_ratios(lock, lock.schedule(), drawn, rank=3)
    assert {(row.rank, row.source) for row in rows} == {(3, "renders")}
    assert all(abs(row.share - row.asked) < 1 / 900 for row in rows)
    assert next(row.asked for row in rows if row.task == "edit") == pytest.approx(0.3)


def test_counts_are_written_as_people_write_them() -> None:
    assert [read_count(text) for text in ("1e9", "2.5e6", "1_000", "7")] == [10**9, 2_500_000, 1000, 7]
    for text in ("0", "-1", "1.5", "1e99", "many", ""):
        with pytest.raises(InputError, match="whole number"):
            read_count(text)


def test_the_command_line_looks_into_a_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_lock(tmp_path / "a.json", lock_text(tmp_path))
    told = CliRunner().invoke(app, ["mix", "--stats", str(tmp_path / "a.json"), "--simulate", "1e9"]).output
    for words in ("of 1 source,", "the first 1,000,000,000 examples", "650,000,000", "300,000,000"):
        assert words in told


def test_a_page_is_the_same_for_the_same_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    for name in ("one.html", "other.html"):
        write_preview(lock, tmp_path, 16, tmp_path / name, count=500, examples=1, looked_at=4)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()
