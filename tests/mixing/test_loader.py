from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from cavendish.encoders.sample import Example, InputError
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.loader import MixtureDataset, MixtureStream
from cavendish.mixing.lock import Lock, Stream, write_lock
from cavendish.mixing.mixture.draw import draw_example, parse_sample_for
from cavendish.mixing.mixture.reader import MixtureItem
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.shards.sample_format import parse_sample, record_parts, sample_parts
from tests.conftest import tiny_sample
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw

TASKS = ("depth", "normals", "semantic", "instance", "referring", "generate", "edit")


def as_is(items: list[MixtureItem]) -> list[MixtureItem]:
    return items


def facts(item: MixtureItem) -> tuple[int, str, str, int]:
    return item.index, item.example.key, item.example.prompt, int(item.example.target.astype(int).sum())


def take(items: object, count: int) -> list[MixtureItem]:
    return list(itertools.islice(iter(items), count))  # type: ignore[call-overload]


def test_an_item_is_a_function_of_lock_and_index(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    one, other = (MixtureDataset(lock, tmp_path, 16) for _ in range(2))
    far = [10**9 + 3, 5, 4096, 4095, 10**9 + 2, 0]
    forward = {index: facts(one[index]) for index in sorted(far)}
    assert {index: facts(other[index]) for index in far} == forward
    assert facts(pickle.loads(pickle.dumps(other))[5]) == forward[5]
    assert one[5].example.target.shape == (16, 16, 3)


def test_the_realised_ratio_is_exact(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    items = MixtureDataset(lock_text(tmp_path), tmp_path, 16, start=400, count=400)
    assert Counter(item.kind for item in items) == {"generation": 260, "editing": 120, "vision": 20}
    assert items.ledger.draws["renders/depth"] == 10


def test_every_record_comes_before_any_comes_again_and_epochs_differ(tmp_path: Path) -> None:
    samples = write_raw(tmp_path / "raw")
    text = MIXTURE.replace("{generation: rest, editing: 0.3, vision: 0.05}", "{vision: 1}").replace(
        "generate: 1, edit: 1, depth: 2, normals: 1, referring: 1", "depth: 1"
    )
    items = MixtureDataset(lock_text(tmp_path, text), tmp_path, 16)
    epochs = [[items[24 * epoch + at].example for at in range(24)] for epoch in range(3)]
    orders = [[example.key.split(".")[0] for example in examples] for examples in epochs]
    assert all(sorted(order) == sorted(sample.key for sample in samples) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    prompts = [{example.key.split(".")[0]: example.prompt for example in examples} for examples in epochs]
    assert sum(prompts[0][key] != prompts[1][key] for key in prompts[0]) > 12


@pytest.mark.parametrize("task", TASKS)
def test_reading_only_the_parts_a_task_needs_gives_the_same_example(task: str) -> None:
    sample = tiny_sample()
    parts = sample_parts(sample)
    part, whole = parse_sample_for(task, sample.key, parts), parse_sample(sample.key, parts)
    for epoch in range(20):
        one, other = (draw_example(s, task, 1, epoch, 16) for s in (part, whole))
        assert (one.prompt, one.spec) == (other.prompt, other.spec)
        np.testing.assert_array_equal(one.target, other.target)


def test_frozen_examples_are_those_drawn_on_the_fly(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2, each=5)
    config = EncodeConfig.model_validate(
        {"sources": ["raw"], "tasks": {"depth": 2, "generate": 1, "instance": 1}, "size": 16, "seed": 3}
    )
    result = encode(config, tmp_path / "frozen", data=tmp_path)
    assert result.totals is not None
    assert result.totals["tasks"] == {"depth": 20, "generate": 10, "instance": 10}
    assert result.totals["licences"] == {"CC0-1.0": 40}
    frozen = {record.key: record for record in read_dataset(tmp_path / "frozen")}
    text = MIXTURE.replace("{generation: rest, editing: 0.3, vision: 0.05}", "{vision: 1}").replace(
        "generate: 1, edit: 1, depth: 2, normals: 1, referring: 1", "depth: 1"
    )
    items = MixtureDataset(lock_text(tmp_path, text), tmp_path, 16)
    for index in range(20):
        drawn, kept = items[index].example, frozen[items[index].example.key]
        assert isinstance(kept, Example)
        assert record_parts(drawn) == record_parts(kept)


def test_frozen_shards_can_be_mixed_and_keep_their_sample_keys(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1.5, "normals": 1}, "size": 16})
    encode(config, tmp_path / "frozen", data=tmp_path)
    (tmp_path / "exclude.json").write_text('{"keys": ["scene-0-0"]}')
    text = "ratios: {vision: 1}\nexclude: [exclude.json]\nsources: {frozen: {path: frozen}}\n"
    lock = lock_text(tmp_path, text)
    pools = {stream.task: stream.pool for stream in lock.streams}
    assert pools["normals"] == 23
    assert 24 < pools["depth"] < 46
    natural = {stream.task: float(stream.points[0][1]) for stream in lock.streams}
    assert natural["depth"] == pytest.approx(pools["depth"] / sum(pools.values()))
    items = take(MixtureDataset(lock, tmp_path, 16, count=100), 100)
    assert not any(item.example.key.startswith("scene-0-0.") for item in items)
    with pytest.raises(InputError, match=r"frozen at 16x16 pixels, the run is at 32x32"):
        MixtureDataset(lock, tmp_path, 32)[0]


def test_encoding_again_does_nothing_and_another_seed_needs_another_directory(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2, each=2)
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1}, "size": 16})
    assert encode(config, tmp_path / "frozen", data=tmp_path).made == 2
    assert encode(config, tmp_path / "frozen", data=tmp_path).made == 0
    with pytest.raises(InputError, match="another plan"):
        encode(config.model_copy(update={"seed": 1}), tmp_path / "frozen", data=tmp_path)


def damage(directory: Path, keys: set[str]) -> None:
    """Flip one bit in the picture of each key."""
    for path in sorted(directory.glob("*.tar")):
        data = bytearray(path.read_bytes())
        for key, parts in read_row(path.with_suffix(".json")).samples.items():
            if key in keys:
                data[parts["image.png"][0] + 50] ^= 4
        path.write_bytes(data)


def test_a_damaged_record_is_replaced_by_the_next_of_its_stream_and_counted(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, MIXTURE + "max_bad: 0.5\n")
    clean = take(MixtureDataset(lock, tmp_path, 16, count=300), 300)
    damage(tmp_path / "raw", {"scene-1-1"})
    items = MixtureDataset(lock, tmp_path, 16, count=300)
    seen = take(items, 300)
    assert [(item.kind, item.example.task) for item in seen] == [(item.kind, item.example.task) for item in clean]
    for before, after in zip(clean, seen):
        if before.example.key.startswith("scene-1-1."):
            (rejection,) = after.replaced
            assert rejection.key == "scene-1-1"
            assert "image.png is damaged" in rejection.reason
        else:
            assert facts(after) == facts(before)
    assert items.ledger.bad == sum(bool(item.replaced) for item in seen) > 0
    assert set(items.ledger.replaced["renders/generate"]) == {"scene-1-1"}


def test_too_many_damaged_records_stop_the_run(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    damage(tmp_path / "raw", {"scene-1-1"})
    with pytest.raises(InputError, match=r"of 2\d\d draws met a damaged record, max_bad is 0.01; the last: scene-1-1"):
        take(MixtureDataset(lock, tmp_path, 16, count=300), 300)


def test_a_changed_shard_stops_the_run_at_once(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    row = tmp_path / "raw/shard-000000.json"
    row.write_text(row.read_text().replace("CC0-1.0", "CC0-1.1"))
    with pytest.raises(InputError, match="changed since the mixture was locked"):
        take(MixtureDataset(lock, tmp_path, 16, count=50), 50)
    row.unlink()
    with pytest.raises(InputError, match="not there"):
        take(MixtureDataset(lock, tmp_path, 16, count=50), 50)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_what_comes_out(tmp_path: Path, workers: int) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    for batch in (None, 4):
        alone = take(MixtureStream(lock, tmp_path, 16, rank=1, world=3, batch=batch or 1), 40)
        stream = MixtureStream(lock, tmp_path, 16, rank=1, world=3, batch=batch or 1)
        loader = DataLoader(stream, batch_size=batch, num_workers=workers, collate_fn=as_is if batch else None)
        if batch is None:
            loader = DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=as_is)
        batches = take(loader, 10 if batch else 40)
        seen = [item for items in batches for item in items] if batch else batches
        assert [facts(item) for item in seen] == [facts(item) for item in alone]


def test_ranks_read_what_a_single_process_reads(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    alone = [facts(item) for item in take(MixtureDataset(lock, tmp_path, 16, 0, 96), 96)]
    for world, batch in ((4, 3), (2, 6), (3, 4), (1, 12)):
        ranks = [take(MixtureStream(lock, tmp_path, 16, rank, world, batch), 96 // world) for rank in range(world)]
        batches = [items[at : at + batch] for at in range(0, 96 // world, batch) for items in ranks]
        assert [facts(item) for items in batches for item in items] == alone


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**12), st.integers(1, 5))
def test_the_ranks_together_read_each_global_batch_in_order(world: int, batch: int, start: int, batches: int) -> None:
    lock = Lock({}, "", 0, "0", (), (Stream("s", "depth", "vision", 1, ((0, "1"),)),), {})
    ranks = [MixtureStream(lock, Path(), 16, rank, world, batch, start) for rank in range(world)]
    read = [stream.index(number) for at in range(batches) for stream in ranks for number in _rows(at, batch)]
    assert read == list(range(start, start + batches * batch * world))
    for stream in ranks:
        stream.advance(batches * batch)
        assert stream.position == start + batches * batch * world


def _rows(batch: int, size: int) -> range:
    return range(batch * size, (batch + 1) * size)


@pytest.mark.parametrize(
    ("rank", "world", "batch", "start"), [(2, 2, 1, 0), (-1, 2, 1, 0), (0, 1, 0, 0), (0, 1, 1, -1)]
)
def test_a_stream_that_cannot_be_is_refused(rank: int, world: int, batch: int, start: int) -> None:
    lock = Lock({}, "", 0, "0", (), (Stream("s", "depth", "vision", 1, ((0, "1"),)),), {})
    with pytest.raises(InputError, match=f"rank {rank} of {world}|batch {batch}, start {start}"):
        MixtureStream(lock, Path(), 16, rank, world, batch, start)


def test_a_stream_resumes_where_it_was_and_only_on_its_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    stream = MixtureStream(lock, tmp_path, 16, rank=1, world=2, start=10**12)
    take(stream, 33)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = MixtureStream(lock, tmp_path, 16, rank=1, world=2)
    resumed.load_state_dict(state)
    assert resumed.position == 10**12 + 66
    assert [facts(item) for item in take(resumed, 20)] == [facts(item) for item in take(stream, 20)]
    other = lock_text(tmp_path, MIXTURE.replace("seed: 3", "seed: 4"))
    with pytest.raises(InputError, match="this state is of lock"):
        MixtureStream(other, tmp_path, 16, rank=1, world=2).load_state_dict(state)
    with pytest.raises(InputError, match="this state is of world 2, this stream of world 4"):
        MixtureStream(lock, tmp_path, 16, rank=1, world=4).load_state_dict(state)
    with pytest.raises(InputError, match="this state is of batch 1, this stream of batch 8"):
        MixtureStream(lock, tmp_path, 16, rank=1, world=2, batch=8).load_state_dict(state)
    with pytest.raises(InputError, match="cavendish-stream/1"):
        stream.load_state_dict({**state, "schema": "cavendish-stream/1"})


def start_rank(data: Path, rank: int, batches: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("rank_run.py")
    command = [sys.executable, str(script), str(data), str(rank), "2", str(batches), str(data / f"rank{rank}.jsonl")]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, start_new_session=True)


@pytest.mark.slow
def test_two_ranks_of_two_workers_killed_and_resumed_read_the_undisturbed_stream(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    write_lock(tmp_path / "lock.json", lock)
    logs = [tmp_path / f"rank{rank}.jsonl" for rank in range(2)]
    ranks = [start_rank(tmp_path, rank, 10_000) for rank in range(2)]
    deadline = time.monotonic() + 120
    while any(not log.exists() or log.read_text().count("\n") < 9 + 4 * rank for rank, log in enumerate(logs)):
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.05)
    for process in ranks:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed = [log.read_text().count("\n") for log in logs]
    batches = max(killed) + 10
    for process in [start_rank(tmp_path, rank, batches) for rank in range(2)]:
        assert process.wait(120) == 0
    seen = [facts for log in logs for line in log.read_text().splitlines() for facts in json.loads(line)["items"]]
    alone = take(MixtureDataset(lock, tmp_path, 16, 0, len(seen)), len(seen))
    assert len(seen) == 2 * 3 * batches
    assert sorted(map(tuple, seen)) == [facts(item) for item in alone]


def test_a_place_in_the_stream_can_be_resumed_with_another_number_of_workers(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    stream, place = (MixtureStream(lock, tmp_path, 16, 1, 2, batch=4) for _ in range(2))
    whole = [facts(item) for item in take(stream, 40)]
    place.advance(12)
    resumed = MixtureStream(lock, tmp_path, 16, 1, 2, batch=4)
    resumed.load_state_dict(json.loads(json.dumps(place.state_dict())))
    loader = DataLoader(resumed, batch_size=4, num_workers=2, collate_fn=as_is)
    assert [facts(item) for items in take(loader, 7) for item in items] == whole[12:]


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_of_torchdata_resumes_exactly_in_the_middle_of_a_pass(tmp_path: Path, workers: int) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)

    def loader() -> StatefulDataLoader[MixtureItem]:
        stream = MixtureStream(lock, tmp_path, 16, 1, 2, batch=3)
        return StatefulDataLoader(stream, batch_size=3, num_workers=workers, collate_fn=as_is)

    alone = [facts(item) for item in take(MixtureStream(lock, tmp_path, 16, 1, 2, batch=3), 42)]
    before = loader()
    first = take(before, 5)
    state = pickle.loads(pickle.dumps(before.state_dict()))
    after = loader()
    after.load_state_dict(state)
    rest = take(after, 9)
    assert [facts(item) for items in (*first, *rest) for item in items] == alone
