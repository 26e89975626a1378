"""Evaluation while training: what it measures, that it changes nothing, and what it stops."""

import gc
import json
import re
import shutil
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import cavendish.trainer.evaluation.generator as generator_module
from cavendish.cli.main import main
from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.generator import EvaluateConfig, evaluate_generator
from cavendish.trainer.training.checkpoint import checkpoints, read_checkpoint, write_checkpoint
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.run import RunStopped
from cavendish.trainer.training.train import train, train_on
from tests.shard_folder import write_shards
from tests.trainer.evaluation.layouts import write_json, write_picture
from tests.trainer.items import FakeItem
from tests.trainer.scenes import analytic_sample
from tests.trainer.test_parallel import together
from tests.trainer.together import config_of
from tests.trainer.training.test_train import CONFIG, ITEMS, ROOT, Interrupted, changed, locked_scenes, rows_of, stop_at

SETS = {
    "held out": {"folder": "held_out", "tasks": ["depth", "semantic"]},
    "ReasonSeg": {"folder": "reasonseg", "benchmark": "reasonseg"},
}
WATCHED = {
    "base": "base/generator",
    "generator": None,
    "evaluate_every": 10,
    "evaluate": {"sets": SETS, "steps": 1, "passes": 2},
    "retention": {"samples": "held_out", "limit": 100.0, "steps": 1},
}
UNWATCHED = {"evaluate_every": None, "evaluate": None, "retention": None}
SHORT_WATCHED = {**WATCHED, "evaluate_every": 4, "evaluate_batch": 2}
Key = tuple[int, str, str, str, str]


def watched(**values: object) -> TrainConfig:
    return changed(**{**WATCHED, **values})


def write_scenes(folder: Path, seeds: range) -> None:
    write_shards(folder, (analytic_sample(f"scene-{k}", k, 32) for k in seeds))


def write_evaluated(out: Path) -> None:
    """A base to start from, held-out scenes, and a public benchmark as downloaded."""
    write_scenes(out / "held_out", range(100, 103))
    write_picture(out / "reasonseg/val/1.jpg", 24, 40)
    square = [[5, 5], [25, 5], [25, 20], [5, 20]]
    shapes = [{"label": "target", "points": square}]
    write_json(out / "reasonseg/val/1.json", {"text": ["the cup"], "is_sentence": False, "shapes": shapes})
    train_on(ITEMS, "lock", changed(steps=10), out / "base", out)


def measured(out: Path) -> dict[Key, float]:
    return {
        (int(row["step"]), row["set"], row["task"], row["who"], row["metric"]): float(row["value"])
        for row in rows_of(out / "evaluation.csv")
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_evaluated` writes, and `watched`: a run with all of it evaluated."""
    out = tmp_path_factory.mktemp("data")
    write_evaluated(out)
    train_on(ITEMS, "lock2", watched(), out / "watched", out)
    return out


def test_training_is_bit_for_bit_the_same_without_evaluation(data: Path) -> None:
    train_on(ITEMS, "lock2", watched(**UNWATCHED), data / "unwatched", data)
    for name in ("generator/weights.pt", "loss.csv", "ratios.csv", "train.json"):
        assert (data / "watched" / name).read_bytes() == (data / "unwatched" / name).read_bytes(), name
    one, other = (torch.load(checkpoints(data / run)[-1], weights_only=True) for run in ("watched", "unwatched"))
    for part in ("model", "ema"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    assert not (data / "unwatched" / "evaluation.csv").exists()


def test_every_figure_of_the_generator_stands_beside_trivial_answers(data: Path) -> None:
    found = measured(data / "watched")
    assert sorted({step for step, *_ in found}) == [0, 10, 20, 30]  # the base first
    blind = {
        ("held out", "depth"): {"one depth everywhere", "depth by height in the picture"},
        ("held out", "semantic"): {"most frequent class everywhere", "most frequent class by height in the picture"},
        ("ReasonSeg", "referring"): {"nothing drawn", "everything drawn", "the middle quarter"},
    }
    for (name, task), guesses in blind.items():
        metrics = {key[4] for key in found if key[1:4] == (name, task, "generator")}
        assert metrics & {"abs_rel", "miou", "ciou"}
        for step in (0, 10, 20, 30):
            for metric in metrics:
                assert {key[3] for key in found if key[:3] == (step, name, task) and key[4] == metric} == {
                    *("generator", "the input picture handed back"),
                    *guesses,
                }
    who = {key[3] for key in found if key[1:3] == ("retention", "edit") and key[4] == "psnr_db, all pixels"}
    assert who == {"generator", "base", "the input picture handed back"}
    page = (data / "watched" / "curves.html").read_text()
    for title in ("held out: metric depth, δ1", "ReasonSeg: referring segmentation, cIoU", "Retention: loss over"):
        assert f"<figcaption>{title}" in page
    assert (data / "watched/evaluation/held out/depth/report.html").exists()


def test_the_last_figures_are_those_of_the_generator_that_is_saved(data: Path) -> None:
    settings = {"sets": SETS, "steps": 1, "passes": 2, "edit_steps": 1, "size": 16, "retention": "held_out"}
    config = EvaluateConfig(generator="watched/generator", base="base/generator", **settings)
    summary = evaluate_generator(config, data / "evaluation", data)
    found = measured(data / "watched")
    depth = summary["sets"]["held out"]["depth"]["rows"]["tuned"]
    assert found[30, "held out", "depth", "generator", "abs_rel"] == pytest.approx(depth["abs_rel"], rel=1e-6)
    base = summary["sets"]["held out"]["depth"]["rows"]["base"]
    assert found[0, "held out", "depth", "generator", "abs_rel"] == pytest.approx(base["abs_rel"], rel=1e-6)
    referring = summary["sets"]["ReasonSeg"]["referring"]["rows"]["tuned"]
    assert found[30, "ReasonSeg", "referring", "generator", "ciou"] == pytest.approx(referring["ciou"], rel=1e-6)
    for task in ("generate", "edit"):
        ratio = summary["retention"]["tasks"][task]["loss_ratio"]
        assert found[30, "retention", task, "generator", "loss_ratio"] == pytest.approx(ratio, rel=1e-5)
        assert found[0, "retention", task, "generator", "loss_ratio"] == 1
    distance = summary["retention"]["distances"]["tuned"]["frechet"]
    assert found[30, "retention", "generate", "generator", "frechet"] == pytest.approx(distance, rel=1e-5)


def test_an_evaluation_holds_one_generator_at_a_time_and_is_done_once(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = generator_module.load_generator

    def counting(*args: Any) -> Any:
        gc.collect()
        assert all(other() is None for other in loaded)
        loaded.append(weakref.ref(generator := load(*args)))
        return generator

    monkeypatch.setattr(generator_module, "load_generator", counting)
    settings = {"sets": {"held out": SETS["held out"]}, "steps": 1, "edit_steps": 1, "size": 16, "batch": 7}
    config = EvaluateConfig(generator="watched/generator", base="base/generator", retention="held_out", **settings)
    summary = evaluate_generator(config, data / "one-at-a-time", data)
    assert len(loaded) == 2
    assert {"tuned", "base", "one depth everywhere"} <= set(summary["sets"]["held out"]["depth"]["rows"])
    other = config.model_copy(update={"batch": 3, "device": "cuda"})  # neither changes what is found
    assert evaluate_generator(other, data / "one-at-a-time", data) == summary
    assert len(loaded) == 2


def test_an_interrupted_run_has_the_same_evaluations(data: Path) -> None:
    for stop in (7, 24):  # before any checkpoint, and after an evaluation that its checkpoint does not have
        with pytest.raises(Interrupted):
            train_on(ITEMS, "lock2", watched(checkpoint_every=15), data / "cut", data, stop_at(stop))
    with (data / "cut" / "evaluation.csv").open("a") as file:
        file.write("20,held")
    train_on(ITEMS, "lock2", watched(checkpoint_every=15), data / "cut", data)
    for name in ("generator/weights.pt", "loss.csv", "evaluation.csv"):
        assert (data / "cut" / name).read_bytes() == (data / "watched" / name).read_bytes(), name


def test_more_passes_answer_otherwise_and_the_blind_guesses_stay(data: Path) -> None:
    one = watched(evaluate={"sets": SETS, "steps": 1}, retention=None, steps=10)
    train_on(ITEMS, "lock2", one, data / "one_pass", data)
    found, voted = measured(data / "one_pass"), measured(data / "watched")
    key = (0, "held out", "depth", "generator", "abs_rel")
    assert found[key] != voted[key]
    for key, value in found.items():
        assert key[3] == "generator" or voted[key] == value
    result = json.loads((data / "watched/evaluation/held out/depth/result.json").read_text())
    assert result["passes"] == 2
    assert result["guesses_fitted_on"] == "the truth they are scored on"


def test_a_warning_is_one_line_and_the_run_goes_on(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = watched(retention={**WATCHED["retention"], "limit": 0.01}, evaluate=None, steps=10)
    train_on(ITEMS, "lock2", config, data / "warned", data)
    lines = [line for line in capfd.readouterr().err.splitlines() if "retention" in line]
    assert len(lines) == 2  # the base and the last step
    assert re.fullmatch(
        r"retention at step 10: edit: \d\.\d{3} times the loss of the base, limit 0\.01; generate: .*", lines[1]
    )
    assert (data / "warned" / "generator").is_dir()


def test_a_set_that_is_trained_on_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    locked_scenes(tmp_path)
    write_scenes(tmp_path / "held_out", range(100, 102))
    sets = {name: {"folder": folder, "tasks": ["depth"]} for name, folder in (("seen", "raw"), ("unseen", "held_out"))}
    train(changed(steps=5, evaluate_every=5, evaluate={"sets": sets, "steps": 1}), tmp_path / "run", tmp_path)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("evaluation: ")]
    assert len(told) == 1
    assert "evaluation: seen: 1 shards of raw are in the mixture too" in told[0]


def test_a_stopped_run_keeps_its_state_and_goes_on_when_it_is_told_to(data: Path) -> None:
    stop = {**WATCHED["retention"], "limit": 0.01, "action": "stop"}
    out = data / "stopped"
    with pytest.raises(RunStopped, match=r"stopped: retention at step 10: edit: .* limit 0\.01; .* kept in .*stopped"):
        train_on(ITEMS, "lock2", watched(retention=stop, checkpoint_every=30), out, data)
    assert [path.name for path in checkpoints(out)] == ["checkpoint-000010.pt"]
    assert not (out / "generator").exists()

    class Unread:
        def __getitem__(self, index: int) -> FakeItem:
            raise AssertionError("a stopped run took another step")

    with pytest.raises(RunStopped, match="stopped: retention at step 10"):
        train_on(Unread(), "lock2", watched(retention=stop, checkpoint_every=30), out, data)
    train_on(ITEMS, "lock2", watched(checkpoint_every=30), out, data)
    for name in ("generator/weights.pt", "loss.csv", "evaluation.csv"):
        assert (out / name).read_bytes() == (data / "watched" / name).read_bytes(), name


def test_the_command_ends_with_one_line_and_exit_code_1(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(*_: object) -> None:
        raise RunStopped("stopped: retention at step 10")

    monkeypatch.setattr("cavendish.trainer.training.remote_run.train", job)
    (data / "tune.yaml").write_text("{lock: none, base: base, steps: 10}")
    monkeypatch.setattr("sys.argv", ["cavendish", "train", str(data / "tune.yaml"), "--out", str(data / "told")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "cavendish: stopped: retention at step 10\n"


@pytest.mark.slow
def test_a_compiled_network_is_compiled_no_more_than_without_evaluation(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: dict[str, int] = {}
    compile_with = torch.nn.Module.compile
    for name, config in (("plain", watched(**UNWATCHED, steps=5)), ("asked", watched(steps=5, evaluate_every=5))):

        def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], name: str = name) -> object:
            graphs[name] = graphs.get(name, 0) + 1
            return graph.forward

        torch.compiler.reset()
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self, b=backend: compile_with(self, backend=b))
        train_on(ITEMS, "lock2", config.model_copy(update={"compile": True}), data / f"compiled-{name}", data)
    assert graphs["plain"] == graphs["asked"] > 0
    one, other = (data / f"compiled-{name}" / "generator/weights.pt" for name in ("plain", "asked"))
    assert one.read_bytes() == other.read_bytes()


def test_a_limit_on_one_noise_level_counts(data: Path) -> None:
    stop = {**WATCHED["retention"], "level_limit": 0.01, "action": "stop"}
    with pytest.raises(RunStopped, match=r"edit, noise level 0\.1: "):
        train_on(ITEMS, "lock2", watched(retention=stop, evaluate=None), data / "level", data)


def test_a_base_measured_before_is_not_measured_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data / "watched", data / "again")
    for name in ("generator", "checkpoint-000030.pt", "train.json"):
        path = data / "again" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    state = read_checkpoint(checkpoints(data / "again")[-1])
    del state.tables["evaluation.csv"]  # evaluation that begins in the middle
    write_checkpoint(data / "again", state, keep=9)
    kept = (data / "again/retention_base.json").read_bytes()
    train_on(ITEMS, "lock2", watched(), data / "again", data)
    assert (data / "again/retention_base.json").read_bytes() == kept
    (data / "again/retention_base.json").unlink()
    late = {key: value for key, value in measured(data / "watched").items() if key[0] == 30}
    assert measured(data / "again") == late
    shutil.copytree(data / "watched", data / "late")
    for name in ("generator", "checkpoint-000030.pt", "train.json", "retention_base.json"):
        path = data / "late" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    train_on(ITEMS, "lock2", watched(), data / "late", data)  # the base is loaded and measured before the checkpoint
    assert (data / "late/retention_base.json").read_bytes() == kept


def test_trackers_are_told_the_figures(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[tuple[int, str], float] = {}
    tracker = lambda step, values: told.update({(step, name): value for name, value in values.items()})
    monkeypatch.setattr("cavendish.trainer.training.train.open_trackers", lambda *_: [tracker])
    train_on(ITEMS, "lock2", watched(steps=10), data / "tracked", data)
    for (step, name, task, who, metric), value in measured(data / "tracked").items():
        assert told[step, f"{name}/{task}/{metric}/{who}"] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluate_every": None}, "evaluate_every says when"),
        ({"evaluate": None, "retention": None}, "evaluate_every says when"),
        ({"evaluate_every": 7}, "evaluate_every must be a multiple of log_every"),
        ({"base": None, "generator": CONFIG.generator}, "retention compares with a base"),
        ({"evaluate": {"sets": {"a/b": SETS["held out"]}}}, "cannot be called 'a/b'"),
        ({"evaluate": {"sets": {"retention": SETS["held out"]}}}, "cannot be called 'retention'"),
        ({"evaluate": {"sets": {"x": {"folder": "held_out"}}}}, "either raw shards with tasks, or a benchmark"),
    ],
)
def test_settings_that_contradict_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        watched(**values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "nowhere", "tasks": ["depth"]}, "nowhere"),
        ({"folder": "reasonseg", "benchmark": "nyu"}, "benchmark 'nyu' is not known"),
        ({"folder": "nowhere", "benchmark": "nyuv2"}, "no folder"),
    ],
)
def test_sets_that_are_not_there_are_told_before_the_first_step(
    settings: dict[str, object], message: str, data: Path, tmp_path: Path
) -> None:
    config = watched(evaluate={"sets": {"x": settings}}, retention=None)
    with pytest.raises(InputError, match=message):
        train_on(ITEMS, "lock2", config, tmp_path / "run", data)
    assert not (tmp_path / "run" / "loss.csv").exists()


def test_the_keys_of_the_page_and_of_the_example_can_be_read() -> None:
    page = (ROOT / "docs" / "training.md").read_text().split("## Evaluation while training", 1)[1]
    shown = textwrap.dedent(page.split("\n\n", 2)[1])
    example = (
        (ROOT / "examples" / "train_tune.yaml").read_text().split("# To watch it meanwhile", 1)[1].split("\n\n")[0]
    )
    commented = "\n".join(line.removeprefix("# ") for line in example.splitlines()[1:])
    for text in (shown, commented):
        keys = yaml.safe_load(text)
        assert watched(**keys).retention.limit == 1.15
        assert set(keys) >= {"evaluate_every", "evaluate", "retention"}


@pytest.mark.slow
def test_two_processes_evaluate_what_one_does_and_wait_for_the_one_that_scores(data: Path) -> None:
    shutil.copytree(data / "held_out", data / "both" / "held_out")
    shutil.copytree(data / "reasonseg", data / "both" / "reasonseg")
    shutil.copytree(data / "base", data / "both" / "base")
    together("evaluated", data / "both")
    train_on(ITEMS, "lock", config_of(**SHORT_WATCHED), data / "both" / "alone", data / "both")
    expected = measured(data / "both" / "alone")
    for parallel in ("ddp", "fsdp"):
        for name in ("generator/weights.pt", "loss.csv"):
            one, other = (data / "both" / f"{kind}-{parallel}" / name for kind in ("watched", "unwatched"))
            assert one.read_bytes() == other.read_bytes(), (parallel, name)
        found = measured(data / "both" / f"watched-{parallel}")
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, rel=1e-2, abs=1e-2), (parallel, key)
    for name in ("generator/weights.pt", "loss.csv", "evaluation.csv", "retention_base.json"):
        one, other = (data / "both" / run / name for run in ("cut", "watched-fsdp"))
        assert one.read_bytes() == other.read_bytes(), name
    assert [path.name for path in checkpoints(data / "both" / "stop")] == ["checkpoint-000004"]
