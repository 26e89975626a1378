from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.jobs.beam import ShardJob, build_shard, run
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.lock import read_lock, write_lock
from cavendish.mixing.mixture.config import load
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.shards.dataset import Plan, finish_dataset, is_committed, start_dataset
from cavendish.mixing.shards.reader import Reading, verify
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.place import collect_leftovers
from tests.conftest import tiny_sample
from tests.mixing.shard_data import MIXTURE, write_raw
from tests.mixing.storage.s3_server import Proxy, every_tenth, s3_server
from tests.mixing.test_loader import facts

PLAN = Plan("test-objects", 6, {"seed": 3})
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as proxy:
        yield proxy


@pytest.fixture
def s3(server: Proxy) -> Proxy:
    server.start_anew()
    return server


def build(index: int) -> Iterator[Sample | Rejection]:
    for number in range(3):
        yield tiny_sample(f"scene-{index}-{number}", seed=index * 3 + number)
    yield Rejection(f"scene-{index}-3", "too dark")


def files_at(url: str) -> dict[str, bytes]:
    return {name: objects.read(f"{url}/{name}") for name in objects.tree(url)}


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_job_at_a_server_that_fails_every_tenth_request_gives_the_bytes_of_a_local_run(
    s3: Proxy, tmp_path: Path
) -> None:
    local = run(ShardJob(PLAN, build, tmp_path / "out"))
    s3.choose = every_tenth()
    told: list[tuple[int, int]] = []
    result = run(ShardJob(PLAN, build, "s3://bucket/out"), progress=lambda done, planned: told.append((done, planned)))
    assert result == local
    assert told[-1] == (6, 6)
    assert verify("s3://bucket/out") == []
    again = run(ShardJob(PLAN, build, "s3://bucket/out"))
    assert (again.already, again.made, again.totals) == (6, 0, local.totals)
    failed = sum(s3.faults.values())
    s3.choose = lambda *_: ""
    assert files_at("s3://bucket/out") == files_in(tmp_path / "out")
    assert failed >= 4


@pytest.mark.parametrize("fault", ["500", "reset", "lost", "half"])
def test_a_large_shard_goes_up_in_parts_and_no_fault_of_a_part_leaves_a_torn_one(
    s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 * MIB)
    noise = np.random.default_rng(0).bytes(11 * MIB)
    parts: list[str] = []

    def second_part_once(number: int, method: str, path: str) -> str:
        if method == "PUT" and "partNumber" in path:
            parts.append(path)
            return fault if len(parts) == 2 else ""
        return ""

    s3.choose = second_part_once
    plan = Plan("large", 1, {})
    for place in (tmp_path / "large", "s3://bucket/large"):
        start_dataset(place, plan)
        with ShardWriter(place, 0, plan.digest) as writer:
            writer.add_parts("noise", {"bin": noise})
        assert finish_dataset(place, plan) is not None
    assert len(parts) >= 4
    assert s3.faults == {fault: 1}
    assert objects.sha256("s3://bucket/large/shard-000000.tar") == objects.sha256(
        f"file://{tmp_path}/large/shard-000000.tar"
    )
    assert s3fs.S3FileSystem(use_listings_cache=False).info("bucket/large/shard-000000.tar")["ETag"].endswith('-3"')


def test_what_a_server_kept_half_of_is_put_again_and_one_that_always_does_is_told(s3: Proxy, tmp_path: Path) -> None:
    puts: list[str] = []

    def first_put_is_halved(number: int, method: str, path: str) -> str:
        if method != "PUT":
            return ""
        puts.append(path)
        return "half" if len(puts) == 1 else ""

    s3.choose = first_put_is_halved
    objects.write("s3://bucket/half", b"0123456789" * 1000)
    assert objects.read("s3://bucket/half") == b"0123456789" * 1000
    assert len(puts) == 2
    s3.choose = lambda number, method, path: "half" if method == "PUT" and path.endswith(".tar") else ""
    with pytest.raises(
        objects.Unreachable, match=r"shard-000000\.tar: could not be written in 5 attempts; the last: OSError"
    ):
        write_raw("s3://bucket/raw")
    assert not is_committed("s3://bucket/raw", 0, PLAN.digest)
    assert list(objects.sizes("s3://bucket/raw")) == ["dataset.json", "shard-000000.tar"]


def test_two_drivers_at_once_give_the_bytes_of_one(s3: Proxy, tmp_path: Path) -> None:
    run(ShardJob(PLAN, build, tmp_path / "out"))
    start_dataset("s3://bucket/out", PLAN)
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            for index in range(PLAN.shards):
                build_shard("s3://bucket/out", PLAN.digest, build, index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    finish_dataset("s3://bucket/out", PLAN)
    assert files_at("s3://bucket/out") == files_in(tmp_path / "out")


def test_encode_mix_and_the_loader_work_from_a_failing_server_as_from_a_folder(s3: Proxy, tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_raw("s3://bucket/data/raw")
    (tmp_path / "mixture.yaml").write_text(MIXTURE)
    config = EncodeConfig(sources=(Path("raw"),), tasks={"depth": 1, "generate": 1}, size=32)
    s3.choose = every_tenth()
    frozen = encode(config, "s3://bucket/data/frozen", data="s3://bucket/data")
    assert frozen.totals is not None
    assert frozen.totals == encode(config, tmp_path / "frozen", data=tmp_path).totals
    lock = lock_mixture(load(tmp_path / "mixture.yaml"), "s3://bucket/data")
    assert lock == lock_mixture(load(tmp_path / "mixture.yaml"), tmp_path)
    write_lock("s3://bucket/data/lock.json", lock)
    assert read_lock("s3://bucket/data/lock.json") == lock
    reading = Reading(cache=tmp_path / "blocks", block_bytes=1 << 16, backoff_s=0.01, ahead=0, on_damage="stop")
    there = MixtureDataset(lock, "s3://bucket/data", 16, count=30, reading=reading)
    assert [facts(item) for item in there] == [facts(item) for item in MixtureDataset(lock, tmp_path, 16, count=30)]
    assert s3.faults.total() >= 6


UPLOAD_AND_DIE = """
import sys
from cavendish.mixing.storage import objects
from cavendish.mixing.shards.dataset import Plan, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
objects.PART_BYTES = 5 << 20
plan = Plan("large", 1, {})
start_dataset("s3://bucket/out", plan)
with ShardWriter("s3://bucket/out", 0, plan.digest) as writer:
    writer.add_parts("noise", {"bin": bytes(11 << 20)})
"""


def test_a_process_killed_in_an_upload_leaves_nothing_that_counts_and_what_it_leaves_is_collected(
    s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there = threading.Event()

    def second_part_never_ends(number: int, method: str, path: str) -> str:
        if "partNumber=2" in path:
            there.set()
            return "503"
        return ""

    s3.choose = second_part_never_ends
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen([sys.executable, "-c", UPLOAD_AND_DIE], env=environment)
    came = there.wait(300)
    process.kill()
    process.wait()
    assert came
    assert list(objects.sizes("s3://bucket/out")) == ["dataset.json"]
    assert [path.name.partition("-shard")[2] for path in tmp_path.iterdir()] == [f"-000000.tar.tmp-{process.pid}"]
    s3.choose = lambda *_: ""
    assert objects.end_uploads("s3://bucket/out", older_than_s=1e9) == 0  # moto says of every upload: of 2010
    assert [upload["Key"] for upload in s3fs.S3FileSystem().list_multipart_uploads("bucket")] == [
        "out/shard-000000.tar"
    ]
    collect_leftovers("s3://bucket/out")
    assert list(tmp_path.iterdir()) == []
    assert s3fs.S3FileSystem().list_multipart_uploads("bucket") == []


def test_what_cannot_be_is_told_in_one_line(s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(url: str) -> str:
        with pytest.raises(InputError) as error:
            run(ShardJob(PLAN, build, url))
        return str(error.value)

    nowhere = "cannot be written: its bucket does not exist"
    assert line("s3://elsewhere/out") == f"s3://elsewhere/out/dataset.json: {nowhere}"
    assert line("s4://bucket/out") == "s4://bucket/out/dataset.json: cannot be read: Protocol not known: s4"
    s3.choose = lambda number, method, path: "403" if method == "PUT" else ""
    denied = "may not be written: AccessDenied of the proxy; check the credentials"
    assert line("s3://bucket/out") == f"s3://bucket/out/dataset.json: {denied}"
    s3.choose = lambda *_: "503"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert re.search(r"dataset\.json: could not be read in 5 attempts; the last: OSError", line("s3://bucket/out"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "Unable to locate credentials" in line("s3://bucket/out")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_without_tags_is_read_back(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_raw("memory://without-tags/raw")
    assert files_at("memory://without-tags/raw") == files_in(tmp_path / "raw")
    assert verify("memory://without-tags/raw") == []
