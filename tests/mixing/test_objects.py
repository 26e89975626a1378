from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs

from encoders.sample import InputError, Rejection, Sample
from mixing import objects
from mixing.beam import build_shard, run
from mixing.job import EncodeConfig, encode
from mixing.loader import MixtureDataset
from mixing.lock import read_lock, write_lock
from mixing.mixture import load, lock_mixture
from mixing.open_shards import Reading
from mixing.shards import Plan, ShardWriter, finish_dataset, is_committed, read_dataset, start_dataset, verify
from tests.conftest import tiny_sample
from tests.mixing.s3_server import Proxy, every_tenth, s3_server
from tests.mixing.shard_data import MIXTURE, write_raw
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
    local = run(PLAN, build, tmp_path / "out")
    s3.choose = every_tenth()
    told: list[tuple[int, int]] = []
    result = run(PLAN, build, "s3://bucket/out", progress=lambda done, planned: told.append((done, planned)))
    assert result == local
    assert told[-1] == (6, 6)
    assert verify("s3://bucket/out") == []
    again = run(PLAN, build, "s3://bucket/out")
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
        write_raw("s3://bucket/raw")  # type: ignore[arg-type]
    assert not is_committed("s3://bucket/raw", 0, PLAN.digest)
    assert objects.names("s3://bucket/raw") == ["dataset.json", "shard-000000.tar"]


def test_two_drivers_at_once_give_the_bytes_of_one(s3: Proxy, tmp_path: Path) -> None:
    run(PLAN, build, tmp_path / "out")
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
