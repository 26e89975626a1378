import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.runners import JobFailed
from cavendish.mixing.lock import read_lock, verify_lock, write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.storage.place import temporary_name
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.tiny import TinyConfig
from cavendish.trainer.parallel import init_distributed
from cavendish.trainer.training.checkpoint import checkpoints, read_checkpoint
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.run import Run
from cavendish.trainer.training.step import learning_rate_at
from cavendish.trainer.training.train import train, train_on
from tests.shard_folder import write_shards
from tests.trainer.items import FakeItem, FakeItems
from tests.trainer.scenes import analytic_sample

ROOT = Path(__file__).parents[3]
ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 2}, size=16)
CONFIG = TrainConfig(
    lock=Path("mixture.lock"),
    generator=TinyConfig(width=16, text_width=16, word_buckets=64),
    size=16,
    steps=30,
    batch=4,
    warmup_steps=5,
    log_every=5,
    checkpoint_every=10,
    threads=1,
    workers=0,
)


class Interrupted(Exception):
    pass


def stop_at(step: int):
    def progress(done: int, planned: int) -> None:
        if done == step:
            raise Interrupted

    return progress


def changed(**values: object) -> TrainConfig:
    return TrainConfig.model_validate({**CONFIG.model_dump(), **values})


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, repeats: int) -> None:
    config = changed(repeats=repeats)
    whole = train_on(ITEMS, "lock", config, tmp_path / "whole", tmp_path)
    for stop in (7, 14, 23):  # before any checkpoint, and between two
        with pytest.raises(Interrupted):
            train_on(ITEMS, "lock", config, tmp_path / "parts", tmp_path, stop_at(stop))
    parts = train_on(ITEMS, "lock", config, tmp_path / "parts", tmp_path)
    for name in ("generator/weights.pt", "loss.csv", "train.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert parts.counts == whole.counts
    one, other = (read_checkpoint(checkpoints(tmp_path / run)[-1]) for run in ("whole", "parts"))
    assert (one.step, one.identity, one.counts) == (other.step, other.identity, other.counts)
    for key, moments in one.optimizer["state"].items():
        assert all(torch.equal(value, other.optimizer["state"][key][name]) for name, value in moments.items())


def test_what_a_kill_left_in_the_generator_is_not_kept(tmp_path: Path) -> None:
    whole = train_on(ITEMS, "lock", CONFIG, tmp_path / "run", tmp_path)
    (tmp_path / "run/train.json").unlink()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = temporary_name(whole.generator / "lineage.json").name.replace(str(os.getpid()), gone.stdout.strip())
    (whole.generator / left).write_text("{")
    before = {path.name for path in whole.generator.iterdir()} - {left}
    train_on(ITEMS, "lock", CONFIG, tmp_path / "run", tmp_path)
    assert {path.name for path in whole.generator.iterdir()} == before


@pytest.mark.parametrize("damage", [b"5,a", b"\xff\xfe", b""])
def test_damaged_tables_are_what_they_were_at_the_checkpoint(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(Interrupted):
        train_on(ITEMS, "lock", CONFIG, tmp_path / "cut", tmp_path, stop_at(13))
    (tmp_path / "cut" / "loss.csv").write_bytes(damage)
    train_on(ITEMS, "lock", CONFIG, tmp_path / "cut", tmp_path)
    train_on(ITEMS, "lock", CONFIG, tmp_path / "whole", tmp_path)
    assert (tmp_path / "cut" / "loss.csv").read_bytes() == (tmp_path / "whole" / "loss.csv").read_bytes()


def locked_scenes(data: Path) -> None:
    write_shards(data / "raw", (analytic_sample(f"scene-{k}", k, 32) for k in range(6)))
    tasks = {"generate": 1, "edit": 1, "depth": 1, "normals": 1, "semantic": 1}
    sources = {"scenes": {"path": "raw", "tasks": tasks}}
    ratios = {"vision": "1/4", "editing": "1/4", "generation": "rest"}
    mixture = Mixture.model_validate({"ratios": ratios, "sources": sources})
    write_lock(data / "mixture.lock", lock_mixture(mixture, data))


@pytest.mark.parametrize("workers", [0, 1])
def test_it_trains_on_a_locked_mixture_in_its_exact_shares(tmp_path: Path, workers: int) -> None:
    locked_scenes(tmp_path)
    result = train(changed(workers=workers), tmp_path / "run", tmp_path)
    tasks = result.counts["scenes"]
    assert result.examples == sum(tasks.values()) == 120
    assert (tasks["edit"], tasks["generate"]) == (30, 60)
    assert {tasks["depth"], tasks["normals"], tasks["semantic"]} == {10}
    assert result.replaced == {}
    again = train(changed(workers=workers), tmp_path / "run", tmp_path)
    assert again.already


def test_a_damaged_record_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked_scenes(tmp_path)
    tar = next((tmp_path / "raw").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[1630] ^= 1  # in the first part of the first record
    tar.write_bytes(data)
    result = train(changed(workers=0), tmp_path / "run", tmp_path)
    assert result.replaced["scenes"] == json.loads((tmp_path / "run/train.json").read_text())["replaced"]["scenes"] > 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scenes: scene-0: ")
    assert "is damaged" in line


def test_ratios_are_logged_beside_what_was_asked_and_end_in_the_checkpoint(tmp_path: Path) -> None:
    locked_scenes(tmp_path)
    with pytest.raises(Interrupted):
        train(CONFIG, tmp_path / "cut", tmp_path, stop_at(13))
    kept = read_checkpoint(checkpoints(tmp_path / "cut")[-1])
    assert {row["task"]: row["asked"] for row in kept.ratios} == pytest.approx(
        {"generate": 1 / 2, "edit": 1 / 4, "depth": 1 / 12, "normals": 1 / 12, "semantic": 1 / 12}
    )
    for row in kept.ratios:
        assert (row["rank"], row["source"]) == (0, "scenes")
        assert row["examples"] == kept.counts["scenes"].get(row["task"], 0)
        assert abs(row["share"] - row["asked"]) * sum(kept.counts["scenes"].values()) < 1
    result = train(CONFIG, tmp_path / "cut", tmp_path)
    train(CONFIG, tmp_path / "whole", tmp_path)
    log = (tmp_path / "cut" / "ratios.csv").read_bytes()
    assert log == (tmp_path / "whole" / "ratios.csv").read_bytes()
    last = list(csv.DictReader(io.StringIO(log.decode())))[-1]
    assert (int(last["step"]), int(last["examples"])) == (result.steps, result.counts["scenes"]["semantic"])


def test_it_trains_the_same_on_shards_at_a_url(tmp_path: Path) -> None:
    locked_scenes(tmp_path)
    local = train(changed(steps=4), tmp_path / "local", tmp_path)
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    (tmp_path / "far").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "far" / "raw")
    reading = {"cache": "cache", "block_bytes": 8192, "cache_bytes": 200_000}
    settings = {**CONFIG.model_dump(), "steps": 4, "shards": f"file://{tmp_path}/far", "reading": reading}
    remote = train(TrainConfig.model_validate(settings), tmp_path / "remote", tmp_path)
    assert remote.loss_csv.read_bytes() == local.loss_csv.read_bytes()
    assert list((tmp_path / "cache" / "blocks").iterdir())


def test_changed_shards_are_refused_unless_the_mixture_may_be_locked_again(tmp_path: Path) -> None:
    locked_scenes(tmp_path)
    row = tmp_path / "raw/shard-000000.json"
    row.write_bytes(row.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"1 shards are not as locked \(.*shard-000000.json: changed since"):
        train(CONFIG, tmp_path / "run", tmp_path)
    result = train(changed(relock=True, steps=2), tmp_path / "run", tmp_path)
    assert result.steps == 2
    assert verify_lock(read_lock(tmp_path / "run/mixture.lock.json"), tmp_path) == []


def test_worker_processes_read_the_same(tmp_path: Path) -> None:
    train_on(ITEMS, "lock", CONFIG, tmp_path / "0", tmp_path)
    train_on(ITEMS, "lock", changed(workers=2), tmp_path / "2", tmp_path)
    for name in ("generator/weights.pt", "loss.csv"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_a_killed_reader_is_one_line_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def kill_the_reader(done: int, planned: int) -> None:
        if done == 15:
            for reader in psutil.Process().children():
                reader.kill()

    with pytest.raises(JobFailed, match="reads examples died"):
        train_on(ITEMS, "lock", changed(workers=1, steps=2000), tmp_path / "run", tmp_path, kill_the_reader)
    assert checkpoints(tmp_path / "run")


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    first = train_on(ITEMS, "lock", CONFIG, tmp_path / "run", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    second = train_on(ITEMS, "lock", CONFIG, tmp_path / "run", tmp_path, stop_at(1))
    assert (first.already, second.already) == (False, True)
    assert (second.steps, second.examples, second.counts) == (first.steps, first.examples, first.counts)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == times


@pytest.mark.parametrize("stop", [15, None])
def test_another_configuration_or_lock_is_refused(tmp_path: Path, stop: int | None) -> None:
    if stop is None:
        train_on(ITEMS, "lock", CONFIG, tmp_path, tmp_path)
    else:
        with pytest.raises(Interrupted):
            train_on(ITEMS, "lock", CONFIG, tmp_path, tmp_path, stop_at(stop))
    with pytest.raises(InputError, match=r"learning_rate was 0\.004, is 0\.001"):
        train_on(ITEMS, "lock", changed(learning_rate=0.001), tmp_path, tmp_path)
    with pytest.raises(InputError, match="lock_digest was 'lock', is 'other'"):
        train_on(ITEMS, "other", CONFIG, tmp_path, tmp_path)
    train_on(ITEMS, "lock", changed(keep_checkpoints=1, workers=1), tmp_path, tmp_path)


def test_counts_and_losses_are_those_of_the_items_read(tmp_path: Path) -> None:
    result = train_on(ITEMS, "lock", changed(steps=12), tmp_path, tmp_path)
    expected = Counter(ITEMS[i].example.task for i in range(48))
    assert result.counts == {"scenes": dict(expected)}
    assert result.examples == 48
    rows = rows_of(result.loss_csv)
    assert sorted({int(row["step"]) for row in rows}) == [5, 10, 12]
    logged = Counter(dict.fromkeys(expected, 0))
    for row in rows:
        logged[row["task"]] += int(row["examples"])
        assert float(row["loss"]) > 0
    assert logged == expected


def test_repeats_read_less_and_step_as_often(tmp_path: Path) -> None:
    read: list[int] = []

    class Counting:
        def __getitem__(self, index: int) -> FakeItem:
            read.append(index)
            return ITEMS[index]

    result = train_on(Counting(), "lock", changed(steps=10, repeats=4), tmp_path, tmp_path)
    assert sorted(read) == list(range(12))  # batches 0, 1 and 2
    assert result.examples == 12
    assert sum(int(row["examples"]) for row in rows_of(result.loss_csv)) == 40


def test_tuning_starts_from_the_base_and_names_it(tmp_path: Path) -> None:
    train_on(ITEMS, "lock", changed(steps=10), tmp_path / "base", tmp_path)
    tune = changed(base="base/generator", generator=None, steps=1, learning_rate=1e-9)
    result = train_on(ITEMS, "lock2", tune, tmp_path / "tuned", tmp_path)
    base, tuned = (load_generator(f).module().state_dict() for f in (tmp_path / "base/generator", result.generator))
    for name in base:
        torch.testing.assert_close(tuned[name], base[name], atol=1e-6, rtol=0)
    assert not all(torch.equal(tuned[name], base[name]) for name in base)
    assert "base_digest" in json.loads((tmp_path / "tuned" / "train.json").read_text())["identity"]
    train_on(ITEMS, "lock", changed(steps=10, seed=1), tmp_path / "other", tmp_path)
    with pytest.raises(InputError, match="base_digest was"):
        (tmp_path / "base/generator/weights.pt").write_bytes((tmp_path / "other/generator/weights.pt").read_bytes())
        train_on(ITEMS, "lock2", tune, tmp_path / "tuned", tmp_path)
    with pytest.raises(InputError, match="no trained generator there"):
        train_on(ITEMS, "lock", changed(base="nowhere", generator=None), tmp_path / "x", tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_saves_and_ends_and_the_run_goes_on(workers: int, tmp_path: Path) -> None:
    config = changed(workers=workers, checkpoint_every=30)
    train_on(ITEMS, "lock", config, tmp_path / "whole", tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def terminate(done: int, planned: int) -> None:
        if done == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(JobFailed, match="stopped by SIGTERM; step 15 is saved"):
        train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path, terminate)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [path.name for path in checkpoints(tmp_path / "cut")] == ["checkpoint-000015.pt"]
    train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path)
    for name in ("generator/weights.pt", "loss.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_old_checkpoints_go(tmp_path: Path) -> None:
    train_on(ITEMS, "lock", changed(keep_checkpoints=2), tmp_path, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000020.pt", "checkpoint-000030.pt"]


def test_the_learning_rate_warms_up_and_ends_where_it_should() -> None:
    rates = [learning_rate_at(step, CONFIG) for step in range(30)]
    assert rates[0] == pytest.approx(4e-3 / 6)
    assert max(rates) == rates[5] == pytest.approx(4e-3)
    assert all(a > b for a, b in itertools.pairwise(rates[5:]))
    assert learning_rate_at(30, CONFIG) == pytest.approx(0.05 * 4e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base": "x"}, "either base"),
        ({"generator": None}, "either base"),
        ({"checkpoint_every": 7}, "multiple of log_every"),
        ({"typo": 1}, "typo"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**values)


@pytest.mark.parametrize("name", ["train_base", "train_tune"])
def test_the_examples_can_be_read(name: str) -> None:
    config = read_config(TrainConfig, ROOT / "examples" / f"{name}.yaml")
    assert (config.base is None) == (name == "train_base")


def overflow_at(steps: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the backward pass of these steps overflow: their losses are finite, their gradients are not."""
    backward, count = torch.Tensor.backward, itertools.count()

    def overflowing(self: torch.Tensor, *args: object, **more: object) -> None:
        backward(self * torch.inf if next(count) in steps else self)

    monkeypatch.setattr(torch.Tensor, "backward", overflowing)


def is_finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_a_gradient_that_overflows_changes_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = changed(steps=6, checkpoint_every=1, keep_checkpoints=9, log_every=1)
    overflow_at({3, 5}, monkeypatch)
    result = train_on(ITEMS, "lock", config, tmp_path / "run", tmp_path)
    states = [read_checkpoint(path) for path in checkpoints(tmp_path / "run")]
    for step, state in enumerate(states, 1):
        assert is_finite(state.model)
        assert is_finite(state.ema)
        same = step > 1 and all(torch.equal(value, states[step - 2].model[name]) for name, value in state.model.items())
        assert same == (step in (4, 6))
        assert state.skipped == (step >= 4) + (step >= 6)
    assert is_finite(dict(load_generator(result.generator).module().state_dict()))
    assert result.skipped == json.loads((tmp_path / "run/train.json").read_text())["skipped"] == 2
    assert {int(row["step"]) for row in rows_of(tmp_path / "run/loss.csv")} == {1, 2, 3, 5}
    assert sum(sum(tasks.values()) for tasks in result.counts.values()) == 6 * 4  # the examples were read all the same
    assert "step 4: loss or gradient not finite (examples " in capsys.readouterr().err


def test_after_a_skipped_step_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(steps=8, checkpoint_every=5)
    with monkeypatch.context() as patch:
        overflow_at({3}, patch)
        train_on(ITEMS, "lock", config, tmp_path / "whole", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        overflow_at({3}, patch)
        train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path, stop_at(6))
    train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path)
    for name in ("generator/weights.pt", "loss.csv", "train.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_too_many_skipped_steps_in_a_row_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow_at({4, 6, 7, 8}, monkeypatch)
    with pytest.raises(JobFailed, match=r"step 9: .* and 2 steps before it: the run stops"):
        train_on(ITEMS, "lock", changed(max_skipped_steps=2), tmp_path, tmp_path)
    assert not (tmp_path / "generator").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = changed(learning_rate=1e12, clip_norm=1e12, warmup_steps=0, checkpoint_every=1, log_every=1)
    with pytest.raises(JobFailed, match="lower learning_rate"):
        train_on(ITEMS, "lock", config, tmp_path, tmp_path)
    assert all(is_finite(read_checkpoint(path).ema) for path in checkpoints(tmp_path))
    assert not (tmp_path / "generator").exists()


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with init_distributed("none", "cpu") as process:
        run = Run(CONFIG, tmp_path, process)
        with torch.no_grad():
            next(iter(run.ema.values())).view(-1)[0] = torch.inf
        for save in (lambda: run.save(tmp_path, {}), lambda: run.write_generator(tmp_path / "generator")):
            with pytest.raises(JobFailed, match="a weight is not finite, nothing is saved"):
                save()
    assert not list(tmp_path.iterdir())


CHILD = """
import socket, sys
def refuse(*_): raise AssertionError("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from tests.trainer.training.test_train import CONFIG, ITEMS, changed
from cavendish.trainer.training.train import train_on
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.generators.folder import load_generator
out = Path(sys.argv[1])
result = train_on(ITEMS, "lock", changed(workers=1), out, out, lambda done, planned: print(done, flush=True))
predict_examples(load_generator(result.generator), [ITEMS[0].example], 2, seed=0)
found = sorted(name for name in sys.modules if name.split(".")[0] in ("torchvision", "apache_beam", "bpy"))
assert not found, found
"""


def child(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same_without_network_or_torchvision(tmp_path: Path) -> None:
    train_on(ITEMS, "lock", CONFIG, tmp_path / "whole", tmp_path)
    for after in (13, 24):
        process = child(tmp_path / "killed")
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= after:
                break
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert workers
        assert psutil.wait_procs(workers, timeout=60)[1] == []  # they end too
        assert not (tmp_path / "killed" / "train.json").exists()
    last = child(tmp_path / "killed")
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0
    assert int(output.split()[0]) > 20  # it went on from a checkpoint
    for name in ("generator/weights.pt", "loss.csv", "train.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
