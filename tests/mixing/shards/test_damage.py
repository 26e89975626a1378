"""What a loader does about flipped bits, missing and truncated shards; and that threads change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.mixture.reader import DAMAGED
from cavendish.mixing.shards.reader import OnDamage, Reading
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw
from tests.mixing.test_loader import damage, facts, take

TOLERANT = MIXTURE + "max_bad: 0.9\n"


def test_a_flipped_bit_stops_the_run_by_choice(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    damage(tmp_path / "raw", {"scene-1-1"})
    items = MixtureDataset(lock, tmp_path, 16, count=300, reading=Reading(on_damage="stop"))
    with pytest.raises(InputError, match=r"shard-000001.tar: scene-1-1.image.png is damaged"):
        take(items, 300)


@pytest.mark.parametrize("on_damage", ["stop", "replace"])
def test_a_missing_or_truncated_tar_stops_the_run_unless_told_otherwise(tmp_path: Path, on_damage: OnDamage) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    tar = tmp_path / "raw/shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"shard-000001.tar: \d+ bytes, locked with \d+: cut short"):
        take(MixtureDataset(lock, tmp_path, 16, count=300, reading=Reading(on_damage=on_damage)), 300)
    tar.unlink()
    with pytest.raises(InputError, match=r"shard-000001.tar: not there, but the lock names it"):
        take(MixtureDataset(lock, tmp_path, 16, count=300, reading=Reading(on_damage=on_damage)), 300)


@pytest.mark.parametrize("missing", ["all of it", "its end", "its row too"])
def test_records_of_a_missing_or_truncated_tar_can_be_replaced_in_kind(tmp_path: Path, missing: str) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, TOLERANT)
    clean = take(MixtureDataset(lock, tmp_path, 16, count=200), 200)
    tar = tmp_path / "raw/shard-000001.tar"
    if missing == "its end":
        tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    else:
        tar.unlink()
    if missing == "its row too":
        tar.with_suffix(".json").unlink()
    items = MixtureDataset(lock, tmp_path, 16, count=200, reading=Reading(on_damage="replace_shards"))
    seen = take(items, 200)
    assert [(item.kind, item.example.task) for item in seen] == [(item.kind, item.example.task) for item in clean]
    for before, after in zip(clean, seen):
        gone = [rejection for rejection in after.replaced if rejection.reason.startswith(DAMAGED)]
        if before.example.key.startswith("scene-1-"):
            assert gone or (missing == "its end" and facts(after) == facts(before))
        else:
            assert facts(after) == facts(before)
        if gone:
            assert "shard-000001." in gone[0].reason
    assert items.ledger.bad == sum(bool(item.replaced) for item in seen)
    assert 0 < items.ledger.bad < 200
    again = MixtureDataset(lock, tmp_path, 16, reading=Reading(on_damage="replace_shards"))
    assert [facts(again[index]) for index in range(60)] == [facts(item) for item in seen[:60]]


def test_replacing_shards_does_not_lift_the_limit_on_damage(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    (tmp_path / "raw/shard-000002.tar").unlink()
    items = MixtureDataset(lock, tmp_path, 16, count=300, reading=Reading(on_damage="replace_shards"))
    with pytest.raises(InputError, match=r"of 2\d\d draws met a damaged record, max_bad is 0.01"):
        take(items, 300)


def test_a_changed_row_is_never_replaced(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, TOLERANT)
    row = tmp_path / "raw/shard-000000.json"
    row.write_text(row.read_text().replace("CC0-1.0", "CC0-1.1"))
    items = MixtureDataset(lock, tmp_path, 16, count=50, reading=Reading(on_damage="replace_shards"))
    with pytest.raises(InputError, match="changed since the mixture was locked"):
        take(items, 50)


def test_threads_change_neither_items_nor_the_ledger(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, TOLERANT)
    damage(tmp_path / "raw", {"scene-1-1", "scene-0-3"})
    alone, threaded = (
        MixtureDataset(lock, tmp_path, 16, 30, 200, reading=Reading(threads=threads)) for threads in (0, 3)
    )
    expected, seen = take(alone, 200), take(threaded, 200)
    assert [facts(item) for item in seen] == [facts(item) for item in expected]
    assert [item.replaced for item in seen] == [item.replaced for item in expected]
    assert threaded.ledger == alone.ledger


def test_an_error_in_a_thread_comes_at_its_turn(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    damage(tmp_path / "raw", {"scene-1-1"})
    stopped = []
    for threads in (0, 2):
        items = iter(MixtureDataset(lock, tmp_path, 16, count=300, reading=Reading(threads=threads, on_damage="stop")))
        seen = []
        with pytest.raises(InputError, match="scene-1-1"):
            for item in items:
                seen.append(facts(item))
        stopped.append(seen)
    assert stopped[0] == stopped[1] != []
