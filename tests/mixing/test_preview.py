from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from mixing.accounting import count_items, index_of, simulate
from mixing.loader import MixtureDataset
from mixing.preview import write_preview
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
    assert count_items(items) == {row.stream.name: row.drawn for row in simulate(lock, 200).streams if row.drawn}
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


def test_a_page_is_the_same_for_the_same_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    for name in ("one.html", "other.html"):
        write_preview(lock, tmp_path, 16, tmp_path / name, count=500, examples=1, looked_at=4)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()
