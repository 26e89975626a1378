from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.storage import objects
from cavendish.trainer.training.remote_run import old_checkpoints, train_remote, without_old_checkpoints
from cavendish.trainer.training.train import train
from tests.mixing.storage.s3_server import Proxy, every_tenth, s3_server
from tests.shard_folder import write_shards
from tests.trainer.scenes import analytic_sample
from tests.trainer.training.test_train import changed

OUT, DATA = "s3://bucket/run", "s3://bucket/data"


@pytest.fixture
def s3() -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as proxy:
        yield proxy


def locked_scenes(data: Path | str) -> None:
    write_shards(f"{data}/raw", (analytic_sample(f"scene-{k}", k, 32) for k in range(6)))
    sources = {"scenes": {"path": "raw", "tasks": {"generate": 1, "edit": 1, "depth": 1}}}
    mixture = Mixture.model_validate(
        {"ratios": {"vision": "1/4", "editing": "1/4"} | {"generation": "rest"}, "sources": sources}
    )
    write_lock(f"{data}/mixture.lock", lock_mixture(mixture, data))


DIE = """
import os, signal, sys
from cavendish.trainer.training.remote_run import train_remote
from cavendish.trainer.training.config import TrainConfig

def die_at_17(done, planned):
    if done == 17:
        os.kill(os.getpid(), signal.SIGKILL)

train_remote(TrainConfig.model_validate_json(sys.argv[1]), "s3://bucket/run", "s3://bucket/data", die_at_17)
"""


def test_a_killed_run_goes_on_from_the_url_on_a_machine_that_has_nothing(
    s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(keep_checkpoints=1)
    locked_scenes(tmp_path / "data")
    locked_scenes(DATA)
    train(config, tmp_path / "whole", tmp_path / "data")
    s3.choose = every_tenth()
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "first"), "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([sys.executable, "-c", DIE, config.model_dump_json()], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert "checkpoint-000010.pt" in objects.tree(OUT)
    assert "train.json" not in objects.tree(OUT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "second"))
    steps: list[int] = []
    train_remote(config, OUT, DATA, lambda done, planned: steps.append(done))
    assert steps[0] == 11
    assert list((tmp_path / "second").iterdir()) == []
    names = ["config.json", "curves.html", "generator/weights.pt", "loss.csv", "ratios.csv", "train.json"]
    assert set(names) < set(objects.tree(OUT))
    for name in ("generator/weights.pt", "loss.csv", "ratios.csv", "train.json"):
        assert objects.read(f"{OUT}/{name}") == (tmp_path / "whole" / name).read_bytes(), name
    assert str(tmp_path).encode() not in objects.read(f"{OUT}/config.json")
    assert [name for name in objects.tree(OUT) if "checkpoint" in name] == ["checkpoint-000030.pt"]
    assert s3.faults.total() >= 8
    s3.choose = lambda *_: ""
    assert train_remote(config, OUT, DATA).already
    with pytest.raises(InputError, match=r"belongs to another run \(seed was 0, is 5\)"):
        train_remote(changed(seed=5), OUT, DATA)
    assert "checkpoint-000030.pt" in objects.tree(OUT)


def test_which_checkpoints_are_fetched_and_which_are_old() -> None:
    whole = ["checkpoint-000010/a.distcp", "checkpoint-000010/facts.json", "checkpoint-000020.pt", "loss.csv"]
    torn = ["checkpoint-000030/a.distcp"]
    assert without_old_checkpoints(whole + torn) == ["checkpoint-000020.pt", "loss.csv"]
    assert without_old_checkpoints([*whole[:2], *torn]) == whole[:2]
    assert without_old_checkpoints(torn) == []
    assert old_checkpoints(whole + torn, 1) == whole[:2]
    assert old_checkpoints(whole + torn, 2) == []
    assert old_checkpoints(torn, 1) == []
