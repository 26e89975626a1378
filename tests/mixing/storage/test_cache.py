from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

from cavendish.encoders.sample import InputError
from cavendish.mixing.loader import MixtureDataset, MixtureStream
from cavendish.mixing.mixture.preview import write_preview
from cavendish.mixing.mixture.reader import MixtureReader, held_out
from cavendish.mixing.shards.reader import Reading
from cavendish.mixing.storage.cache import BlockCache
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw
from tests.mixing.test_loader import as_is, damage, facts, take

BLOCK = 4096


def reading(folder: Path, **changes: Any) -> Reading:
    settings = {"cache": folder / "cache", "block_bytes": BLOCK, "backoff_s": 0.01, "ahead": 0} | changes
    return Reading.model_validate(settings)


def cached_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "cache" / "blocks").iterdir())


class Pages(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; `faults` says what goes wrong with the nth request of a path."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    faults: ClassVar[dict[int, str]] = {}

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        span = self.headers.get("Range", "")
        self.asked[f"{self.path} {span}"] += 1
        fault = self.faults.get(self.asked[f"{self.path} {span}"])
        if not path.is_file() or fault == "error":
            self.send_error(503 if fault else 404)
            return
        data = path.read_bytes()
        if span:
            first, last = span.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1]
        self.send_response(206 if span else 200)
        sent = data[: len(data) // 2] if fault in ("cut", "short") else data
        self.send_header("Content-Length", str(len(data) if fault == "cut" else len(sent)))
        self.end_headers()
        self.wfile.write(sent)
        if fault == "cut":
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    Pages.asked, Pages.faults = Counter(), {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def in_memory(folder: Path, name: str) -> str:
    """Copy the shards of `folder` into fsspec's memory."""
    memory = fsspec.filesystem("memory")
    for path in (folder / "raw").iterdir():
        memory.pipe_file(f"/{name}/raw/{path.name}", path.read_bytes())
    return f"memory://{name}"


def test_a_url_gives_what_the_folder_gives_and_the_cache_stays_in_its_limit(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    url = in_memory(tmp_path, "limit")
    items = MixtureDataset(lock, url, 16, reading=reading(tmp_path, cache_bytes=9 * BLOCK))
    for index, local in enumerate(MixtureDataset(lock, tmp_path, 16, count=60)):
        assert facts(items[index]) == facts(local)
        assert cached_bytes(tmp_path) <= 9 * BLOCK
    traffic = items.reader.shards.server.traffic
    assert traffic["blocks"] > 20  # more than fit: some were fetched again
    assert not items.reader.shards.server.retry.failures


def test_one_source_may_be_at_a_url_of_its_own(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, MIXTURE.replace("path: raw", "path: raw\n    hold_out: {share: 0.25}"))
    url = in_memory(tmp_path, "own")
    away = dataclasses.replace(lock.sources[0], path=f"{url}/raw")
    kept = [sample.key for sample in held_out(lock, tmp_path)]
    there = held_out(dataclasses.replace(lock, sources=(away,)), tmp_path / "nowhere", reading(tmp_path))
    assert [sample.key for sample in there] == kept != []


def test_when_the_page_of_a_mixture_is_written_nothing_is_fetched_any_more(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    with tempfile.TemporaryDirectory(dir=tmp_path) as cache:
        near = Reading(cache=Path(cache), block_bytes=BLOCK)
        write_preview(lock, in_memory(tmp_path, "page"), 16, tmp_path / "page.html", 300, reading=near)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch_")]
    assert not Path(cache).exists()


def test_shards_at_a_url_need_a_cache(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    with pytest.raises(InputError, match=r"set reading\.cache"):
        MixtureDataset(lock, in_memory(tmp_path, "none"), 16)[0]


@pytest.mark.parametrize("fault", ["error", "cut", "short"])
def test_a_failed_or_truncated_reply_is_asked_for_again_and_counted(tmp_path: Path, web: str, fault: str) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    Pages.faults = {1: fault, 2: fault}
    items = MixtureDataset(lock, web, 16, count=12, reading=reading(tmp_path))
    assert [facts(item) for item in items] == [facts(item) for item in MixtureDataset(lock, tmp_path, 16, count=12)]
    retries = items.reader.shards.server.retry.failures
    assert set(retries) <= {f"{web}/raw/{path.name}" for path in (tmp_path / "raw").iterdir()}
    assert sum(retries.values()) >= 2 * items.reader.shards.server.traffic["blocks"]
    assert items.ledger.bad == 0


def test_a_server_that_never_answers_right_stops_the_run(tmp_path: Path, web: str) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    Pages.faults = dict.fromkeys(range(1, 9), "error")
    with pytest.raises(InputError, match=r"raw/shard-00000\d.json: could not be read in 3 attempts; the last: .*503"):
        MixtureDataset(lock, web, 16, reading=reading(tmp_path, attempts=3))[0]


def test_a_missing_a_cut_and_a_changed_shard_at_a_url_are_told_apart(tmp_path: Path, web: str) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    tars = sorted((tmp_path / "raw").glob("*.tar"))
    whole = [tar.read_bytes() for tar in tars]

    def message(number: int) -> str:
        with pytest.raises(InputError) as error:
            take(MixtureDataset(lock, web, 16, count=30, reading=reading(tmp_path / str(number))), 30)
        return str(error.value)

    for tar, data in zip(tars, whole):
        tar.write_bytes(data[: len(data) // 2])
    assert "cut short" in message(0)
    for tar in tars:
        tar.unlink()
    assert "not there, but the lock names it" in message(1)
    for tar, data in zip(tars, whole):
        tar.write_bytes(data + b"more")
    assert "changed since the mixture was locked" in message(2)
    row = tmp_path / "raw/shard-000000.json"
    row.write_text(row.read_text().replace("CC0-1.0", "CC0-1.1"))
    for tar, data in zip(tars, whole):
        tar.write_bytes(data)
    assert "shard-000000.json: changed since" in message(3)


def test_a_damaged_cache_is_mended_and_a_damaged_origin_is_counted(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path, MIXTURE + "max_bad: 0.9\n")
    url = in_memory(tmp_path, "mend")
    first = [facts(item) for item in MixtureDataset(lock, url, 16, count=40, reading=reading(tmp_path))]
    for path in (tmp_path / "cache/blocks").iterdir():
        data = bytearray(path.read_bytes())
        data[::50] = bytes(value ^ 1 for value in data[::50])
        path.write_bytes(data)
    items = MixtureDataset(lock, url, 16, count=40, reading=reading(tmp_path))
    assert [facts(item) for item in items] == first
    assert items.ledger.bad == 0
    assert items.reader.shards.server.traffic["discarded"] > 0
    damage(tmp_path / "raw", {"scene-1-1"})
    items = MixtureDataset(
        lock, in_memory(tmp_path, "bad"), 16, count=300, reading=reading(tmp_path, cache=tmp_path / "x")
    )
    take(items, 300)
    assert {key for replaced in items.ledger.replaced.values() for key in replaced} >= {"scene-1-1"}


def test_what_comes_next_is_fetched_before_it_is_asked_for(tmp_path: Path, web: str) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    local = [facts(item) for item in MixtureDataset(lock, tmp_path, 16, count=41)]
    items = MixtureDataset(lock, web, 16, reading=reading(tmp_path, ahead=40, attempts=1))
    assert facts(items[0]) == local[0]
    asked = -1
    while asked != sum(Pages.asked.values()):  # until the server is left alone
        asked = sum(Pages.asked.values())
        time.sleep(0.3)
    for tar in (tmp_path / "raw").iterdir():
        tar.unlink()
    assert [facts(items[index]) for index in range(41)] == local


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_over_a_url_with_workers_threads_and_read_ahead(tmp_path: Path, workers: int) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    settings = reading(tmp_path, ahead=10, threads=2, cache_bytes=20 * BLOCK)
    stream = MixtureStream(lock, f"file://{tmp_path}", 16, 1, 2, batch=4, reading=settings)
    alone = [facts(item) for item in take(MixtureStream(lock, tmp_path, 16, 1, 2, batch=4), 40)]
    loader = DataLoader(stream, batch_size=4, num_workers=workers, collate_fn=as_is)
    assert [facts(item) for items in take(loader, 10) for item in items] == alone
    assert cached_bytes(tmp_path) <= 20 * BLOCK


def _churn(folder: Path, seed: int, done: Any) -> None:
    cache = BlockCache(folder, 20_000)
    for number in np.random.default_rng(seed).integers(0, 60, 150):
        name, data = f"block-{number}", bytes([int(number)]) * (500 + 40 * int(number))
        for _ in range(50):
            if cache.fill(name, len(data), lambda data=data: data):
                break
        found = cache.read(name, 0, 10_000)
        assert found in (None, data)
    done.put(seed)


def test_processes_share_a_cache_that_never_exceeds_its_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    churning = [context.Process(target=_churn, args=(tmp_path, seed, done)) for seed in range(3)]
    for process in churning:
        process.start()
    most = 0
    while any(process.is_alive() for process in churning):
        total = 0
        for path in (tmp_path / "blocks").glob("*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        most = max(most, total)
    assert [process.exitcode for process in churning] == [0, 0, 0]
    assert 10_000 < most <= 20_000 + 2_900  # a walk over the folder may meet a block before and after its rename


def test_the_least_recently_used_block_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1000)
    for name in "abc":
        assert cache.fill(name, 300, lambda: bytes(300))
        time.sleep(0.01)
    assert cache.read("a", 0, 1) == b"\0"
    assert cache.fill("d", 300, lambda: bytes(300))
    assert [cache.has(name) for name in "abcd"] == [True, False, True, True]
    assert not cache.fill("e", 1001, lambda: bytes(1001))


def test_a_reader_of_a_url_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    reader = MixtureReader(lock, in_memory(tmp_path, "sent"), 16, reading(tmp_path))
    assert facts(pickle.loads(pickle.dumps(reader)).item(5)) == facts(reader.item(5))
