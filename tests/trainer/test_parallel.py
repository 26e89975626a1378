"""Two processes train as one does: replicas and shards, interrupted, killed, and continued by another number."""

import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.parallel import Process, share_batches
from cavendish.trainer.training.checkpoint import checkpoints, read_sharded
from cavendish.trainer.training.train import train_on
from tests.trainer.together import BUCKETS, KLEIN, SHORT, Uneven, Unlike, config_of
from tests.trainer.training.test_train import ITEMS, ROOT, changed, rows_of


def together(task: str, out: Path, restarts: int = 0) -> None:
    """Run a task of tests/trainer/together.py in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, "--max-restarts", str(restarts), "-m", "tests.trainer.together", task, str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "generator" / "weights.pt", weights_only=True))


def assert_same(one: Path, other: Path, atol: float) -> None:
    """The weights and the curve of two runs are the same, to `atol`."""
    found, expected = weights(one), weights(other)
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=0)
    columns = ("step", "source", "task", "examples")
    for row, wanted in zip(rows_of(one / "loss.csv"), rows_of(other / "loss.csv"), strict=True):
        assert [row[name] for name in columns] == [wanted[name] for name in columns]
        assert float(row["loss"]) == pytest.approx(float(wanted["loss"]), abs=max(atol, 1e-12))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of `tests.trainer.together.every_run`, and those of one process."""
    out = tmp_path_factory.mktemp("runs")
    together("every", out)
    train_on(ITEMS, "lock", config_of(), out / "alone", out)
    return out


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["ddp", "fsdp", "accumulated"])
def test_two_processes_learn_what_one_does(name: str, runs: Path) -> None:
    assert_same(runs / name, runs / "alone", atol=1e-5)


@pytest.mark.parametrize("name", ["buckets-ddp", "buckets-fsdp"])
def test_over_buckets_two_processes_learn_what_one_does_with_other_passes(
    name: str, runs: Path, tmp_path: Path
) -> None:
    train_on(Uneven(), "lock", config_of(**BUCKETS), tmp_path / "alone", tmp_path)
    assert_same(runs / name, tmp_path / "alone", atol=1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_interrupted_they_end_as_they_would_have(name: str, runs: Path) -> None:
    assert_same(runs / f"{name}-cut", runs / name, atol=0)
    for file in ("loss.csv", "train.json"):
        assert (runs / f"{name}-cut" / file).read_bytes() == (runs / name / file).read_bytes()


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_one_process_goes_on_where_two_stopped(name: str, runs: Path) -> None:
    assert [path.name for path in checkpoints(runs / f"{name}-alone")] == ["checkpoint-000004"]
    train_on(ITEMS, "lock", config_of(), runs / f"{name}-alone", runs)
    assert_same(runs / f"{name}-alone", runs / name, atol=1e-5)


def test_a_lora_over_shards_keeps_the_base_and_its_checkpoints_small(runs: Path) -> None:
    train_on(ITEMS, "lock", config_of(lora={"rank": 2}), runs / "lora-alone", runs)
    assert_same(runs / "lora", runs / "lora-alone", atol=1e-5)
    size = {
        name: sum(path.stat().st_size for path in checkpoints(runs / name)[-1].rglob("*.distcp"))
        for name in ("lora", "fsdp")
    }
    assert size["lora"] < 0.4 * size["fsdp"]


def test_half_precision_learns_nearly_the_same(runs: Path) -> None:
    half, full = (
        [float(row["loss"]) for row in rows_of(runs / name / "loss.csv") if int(row["step"]) <= 4]
        for name in ("half", "fsdp")
    )
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


def test_a_part_that_nothing_uses_stays_as_it_is(runs: Path) -> None:
    for name in ("idle-ddp", "idle-fsdp"):
        assert (weights(runs / name)["idle.weight"] == 0.5).all()
    assert len(checkpoints(runs / "idle-ddp")) == len(checkpoints(runs / "idle-fsdp")) == 1


@pytest.mark.parametrize("name", ["klein-lora", "klein-half", "klein-ddp", "klein-fsdp"])
def test_rows_with_a_source_here_and_without_one_there_do_not_wait_for_ever(name: str, runs: Path) -> None:
    values = {**KLEIN, **({"precision": "bfloat16"} if name == "klein-half" else {})}
    if name in ("klein-ddp", "klein-fsdp"):
        values |= {"lora": None, "trainable": 0.5, "gradient_checkpointing": True}
    train_on(Unlike(), "lock", config_of(**values), runs / f"{name}-alone", runs)
    found, expected = (
        [float(row["loss"]) for row in rows_of(runs / f"{name}{end}" / "loss.csv")] for end in ("", "-alone")
    )
    assert found == pytest.approx(expected, rel=1e-2 if name == "klein-half" else 1e-4)
    load_generator(runs / name / "generator")


def test_after_the_kill_of_one_process_all_start_again_and_end_the_same(runs: Path) -> None:
    together("killed", runs, restarts=4)
    assert_same(runs / "killed", runs / "fsdp", atol=0)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("pwned",))


def test_damage_and_pickled_code_in_a_folder_are_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = checkpoints(runs / "ddp")[-1]
    for number, damage in enumerate((pickle.dumps(Evil()), b"", (whole / ".metadata").read_bytes()[:100])):
        copy = shutil.copytree(whole, tmp_path / f"checkpoint-{number:06d}")
        (copy / ".metadata").write_bytes(damage)
        with pytest.raises(InputError, match=f"checkpoint-{number:06d}: not a readable checkpoint"):
            read_sharded(copy, {"step.head.bias": torch.tensor(0.0)})
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(InputError, match="not a readable checkpoint"):
        read_sharded(whole, {"model.nowhere": torch.zeros(1)})


def test_one_process_of_shards_goes_on_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    train_on(ITEMS, "lock", config_of(), tmp_path / "whole", tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for name in ("generator", "checkpoint-000008.pt", "train.json"):
        path = tmp_path / "parts" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    train_on(ITEMS, "lock", config_of(parallel="fsdp"), tmp_path / "parts", tmp_path)
    assert_same(tmp_path / "parts", tmp_path / "whole", atol=1e-5)


@pytest.mark.parametrize(
    ("values", "world", "message"),
    [
        ({"parallel": "ddp"}, None, "started by torchrun"),
        ({}, "2", "there are 2 processes; set parallel"),
        ({"parallel": "fsdp"}, "3", "batch 4 cannot be cut into 3 processes"),
        ({"device": "cuda"}, None, "torch sees 0 GPUs"),
    ],
)
def test_what_does_not_fit_is_told(
    values: dict[str, object], world: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
        monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match=message):
        train_on(ITEMS, "lock", changed(**{**SHORT, **values}), tmp_path, tmp_path)


@given(count=st.integers(1, 200), batch=st.integers(1, 20), world=st.integers(1, 9))
def test_every_position_is_taken_and_every_process_has_as_many_turns(count: int, batch: int, world: int) -> None:
    shared = [share_batches(count, batch, Process(rank, world, torch.device("cpu"))) for rank in range(world)]
    assert len({len(mine) for mine in shared}) == 1
    taken = [position for mine in shared for turn in mine for position in turn]
    assert set(taken) == set(range(count))
    assert all(1 <= len(turn) <= batch for mine in shared for turn in mine)
    assert len(taken) - count <= world  # all but the last position once
    if world == 1:
        assert taken == list(range(count))
