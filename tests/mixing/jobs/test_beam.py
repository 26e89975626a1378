from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.jobs.beam import Engine, JobFailed, ShardJob, read_inputs, run, write_inputs
from cavendish.mixing.shards.dataset import Plan
from cavendish.mixing.shards.reader import verify
from tests.conftest import tiny_sample

PLAN = Plan("test-beam", 6, {"seed": 3})


def build(index: int) -> Iterator[Sample | Rejection]:
    for number in range(3):
        yield tiny_sample(f"scene-{index}-{number}", seed=index * 3 + number)
    yield Rejection(f"scene-{index}-3", "too dark")


def build_and_die(directory: Path, index: int) -> Iterator[Sample | Rejection]:
    """Kills its own worker process, the first time it gets shard 3."""
    marker = directory / "died"
    if index == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield from build(index)


def shards_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.slow
def test_same_bytes_whatever_the_worker_count_or_split(tmp_path: Path) -> None:
    result = run(ShardJob(PLAN, build, tmp_path / "one"))
    assert (result.already, result.made) == (0, 6)
    assert result.totals is not None
    assert (result.totals["records"], result.totals["rejected"]) == (18, 6)
    run(ShardJob(PLAN, build, tmp_path / "two"), Engine(workers=2))
    for part in range(2):
        run(ShardJob(PLAN, build, tmp_path / "split"), Engine(split=(part, 2)))
    reference = shards_of(tmp_path / "one")
    assert shards_of(tmp_path / "two") == reference
    assert shards_of(tmp_path / "split") == reference
    assert verify(tmp_path / "one") == []


def test_committed_shards_are_not_made_again(tmp_path: Path) -> None:
    run(ShardJob(PLAN, build, tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    (tmp_path / "shard-000002.json").unlink()
    result = run(ShardJob(PLAN, build, tmp_path))
    assert (result.already, result.made) == (5, 1)
    changed = [path.name for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns]
    assert sorted(changed) == ["shard-000002.json", "shard-000002.tar"]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_bytes_are_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "marks").mkdir()
    result = run(ShardJob(PLAN, partial(build_and_die, tmp_path / "marks"), tmp_path / "out"), Engine(workers=2))
    told = capfd.readouterr().err
    assert told.count("a worker process died") == 1
    assert "Traceback" not in told
    assert result.made == 6
    run(ShardJob(PLAN, build, tmp_path / "reference"))
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "reference")


def build_beside_another_run(directory: Path, index: int) -> Iterator[Sample | Rejection]:
    """Run the same plan in the middle of shard 0, as a second person might who types the same command."""
    yield from build(index)
    if index == 0:
        code = "import sys; from tests.mixing.jobs.test_beam import *; run(ShardJob(PLAN, build, Path(sys.argv[1])))"
        subprocess.run([sys.executable, "-c", code, str(directory)], check=True)


def test_two_runs_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    run(ShardJob(PLAN, build, tmp_path / "alone"))
    run(ShardJob(PLAN, partial(build_beside_another_run, tmp_path / "both"), tmp_path / "both"))
    assert shards_of(tmp_path / "both") == shards_of(tmp_path / "alone")
    assert not list(tmp_path.glob("both/*.tmp-*"))


def test_what_dead_processes_were_writing_is_deleted(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = [tmp_path / f"shard-000000.tar.tmp-{platform.node()}-{pid}" for pid in (dead.pid, os.getppid())]
    there = [tmp_path / f"shard-000001.tar.tmp-elsewhere-{pid}" for pid in (1, 2)]
    for path in (*here, *there):
        path.touch()
    os.utime(there[0], (0, 0))
    run(ShardJob(PLAN, build, tmp_path))
    assert [path.exists() for path in (*here, *there)] == [False, True, False, True]


def build_or_die(index: int) -> Iterator[Sample | Rejection]:
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from build(index)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"worker process died.*3 times.*; 1 of 3 shards not done \(1\)"):
        run(ShardJob(Plan("test-beam", 3, {}), build_or_die, tmp_path), Engine(workers=2))
    assert sorted(path.name for path in tmp_path.glob("shard-*.tar")) == ["shard-000000.tar", "shard-000002.tar"]


ERRORS = {
    "a damaged input": (InputError("web.tar: not a tar"), "web.tar: not a tar"),
    "a full disk": (OSError(28, "No space left on device", "/data/x.tar"), "/data/x.tar: No space left on device"),
    "a bug": (IndexError("list index out of range"), "IndexError: list index out of range"),
}


def raises(error: Exception, index: int) -> Iterator[Sample]:
    raise error
    yield


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", ERRORS)
def test_an_exception_in_a_shard_is_told_alike_whatever_the_worker_count(
    tmp_path: Path, what: str, workers: int
) -> None:
    error, told = ERRORS[what]
    with pytest.raises(JobFailed) as failed:
        run(ShardJob(Plan("test-beam", 1, {}), partial(raises, error), tmp_path), Engine(workers=workers))
    assert str(failed.value) == (
        f"{told}; 1 of 1 shards not done (0). What is committed is safe: run the same command again to continue"
    )


def test_runners_known_to_lose_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FnApiRunner"):
        run(ShardJob(PLAN, build, tmp_path), Engine(runner="DirectRunner"))


def slow_build(index: int) -> Iterator[Sample | Rejection]:
    time.sleep(0.3)
    yield from build(index)


@pytest.mark.slow
def test_sigkill_of_the_driver_loses_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cavendish.mixing.jobs.beam import ShardJob, run; "
        "from tests.mixing.jobs.test_beam import PLAN, slow_build; run(ShardJob(PLAN, slow_build, Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("shard-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    committed = len(list((tmp_path / "out").glob("shard-*.json")))
    assert 2 <= committed < 6
    result = run(ShardJob(PLAN, build, tmp_path / "out"))
    assert result.already == committed
    run(ShardJob(PLAN, build, tmp_path / "reference"))
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "reference")


SHARDS = [["a.png", "b.png"], ["c.png"]]


@pytest.mark.parametrize("damage", [b"", b'["a.png', b'["x.png","b.png"]'])
def test_damaged_inputs_of_a_shard_are_written_again(tmp_path: Path, damage: bytes) -> None:
    write_inputs(tmp_path, SHARDS)
    path = tmp_path / "inputs/inputs-000000.json"
    path.write_bytes(damage)
    untouched = (tmp_path / "inputs/inputs-000001.json").stat().st_mtime_ns
    write_inputs(tmp_path, SHARDS)
    assert [read_inputs(tmp_path, index) for index in range(2)] == SHARDS
    assert (tmp_path / "inputs/inputs-000001.json").stat().st_mtime_ns == untouched


def test_inputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inputs-000003.json: no such file"):
        read_inputs(tmp_path, 3)
