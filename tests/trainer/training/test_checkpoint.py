import os
import pickle
from pathlib import Path

import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.trainer.training.checkpoint import (
    State,
    check_identity,
    checkpoint_path,
    checkpoints,
    read_checkpoint,
    write_checkpoint,
)


def state_at(step: int) -> State:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    identity = {"seed": 1, "lock_digest": "ab"}
    counts = {"renders": {"depth": 7}}
    ratios = [{"rank": 0, "source": "renders", "task": "depth", "examples": 7, "share": 1.0, "asked": 1.0}]
    ema = model.state_dict()
    return State(step, identity, counts, {}, ratios, {}, model.state_dict(), ema, optimizer.state_dict())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = state_at(20)
    found = read_checkpoint(write_checkpoint(tmp_path, state, keep=1))
    assert (found.step, found.identity, found.counts) == (state.step, state.identity, state.counts)
    assert found.ratios == state.ratios
    assert torch.equal(found.model["weight"], state.model["weight"])
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], state.optimizer["state"][0]["exp_avg"])


def test_the_newest_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"mine")
    for step in (999_999, 1_000_000, 1_000_001):
        write_checkpoint(tmp_path, state_at(step), keep=2)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1_000_000), checkpoint_path(tmp_path, 1_000_001)]
    assert (tmp_path / "weights.pt").exists()


def test_a_half_written_checkpoint_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, state_at(10), keep=1)

    def die(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(tmp_path, state_at(20), keep=1)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 10)]
    assert read_checkpoint(checkpoints(tmp_path)[-1]).step == 10


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("pwned",))


def test_pickled_code_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint_path(tmp_path, 1)
    for write in (lambda: torch.save({"schema": Evil()}, path), lambda: path.write_bytes(pickle.dumps(Evil()))):
        write()
        with pytest.raises(InputError, match="not a readable checkpoint"):
            read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_damage_is_told_in_one_line(tmp_path: Path, cut: int) -> None:
    path = write_checkpoint(tmp_path, state_at(5), keep=1)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"checkpoint-000005\.pt") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_another_schema_or_field_is_refused(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    torch.save({"schema": "cavendish-checkpoint/9"}, path)
    with pytest.raises(InputError, match="this version reads"):
        read_checkpoint(path)
    torch.save({"schema": "cavendish-checkpoint/3", "step": 1}, path)
    with pytest.raises(InputError, match="field"):
        read_checkpoint(path)


def test_another_run_is_refused_by_name(tmp_path: Path) -> None:
    check_identity(tmp_path, {"seed": 1}, {"seed": 1})
    with pytest.raises(InputError, match=r"seed was 1, is 2.*Choose another --out"):
        check_identity(tmp_path, {"seed": 1, "batch": 4}, {"seed": 2, "batch": 4})
    with pytest.raises(InputError, match="base_digest was None, is 'ab'"):
        check_identity(tmp_path, {"seed": 1}, {"seed": 1, "base_digest": "ab"})
