"""What is trained, and in what parts and precision: LoRA, shares, accumulated batches; and what a look before tells."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.tiny import TinyGenerator
from cavendish.trainer.parallel import to_device
from cavendish.trainer.training.checkpoint import checkpoints, read_checkpoint
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.dry_run import dry_run
from cavendish.trainer.training.run import start_generator
from cavendish.trainer.training.train import train_on
from tests.trainer.items import FakeItem, FakeItems
from tests.trainer.tiny_models import TEXT_TOKENS, write_klein
from tests.trainer.training.test_train import CONFIG, ITEMS, ROOT, Interrupted, changed, rows_of, stop_at

SHORT = {"steps": 10, "checkpoint_every": 5}
KLEIN_ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=32)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_generator(folder / "generator").module().state_dict())


def start_weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    assert config.generator is not None
    return dict(TinyGenerator(config.generator, config.seed).module().state_dict())


def test_a_lora_changes_its_targets_alone_and_ends_in_the_weights(tmp_path: Path) -> None:
    config = changed(**SHORT, lora={"rank": 2, "alpha": 4, "targets": ["film"]})
    train_on(ITEMS, "lock", config, tmp_path / "run", tmp_path)
    start, end = start_weights(config), weights(tmp_path / "run")
    assert list(start) == list(end)
    differing = {name for name in start if not torch.equal(start[name], end[name])}
    assert differing
    assert differing == {name for name in start if name.endswith("film.weight")}
    for name in differing:  # the change has the rank that was asked for
        assert torch.linalg.matrix_rank(end[name] - start[name], rtol=1e-3) <= 2
    kept = read_checkpoint(checkpoints(tmp_path / "run")[-1])
    assert {name.split(".")[-3] for name in kept.model} == {"lora_A", "lora_B"}
    assert set(kept.ema) == set(kept.model)
    with pytest.raises(InputError, match="lora targets"):
        start_generator(changed(lora={"targets": ["nothing"]}), tmp_path)


def test_an_interrupted_lora_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    config = changed(**SHORT, lora={"rank": 2})
    train_on(ITEMS, "lock", config, tmp_path / "whole", tmp_path)
    with pytest.raises(Interrupted):
        train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path, stop_at(7))
    train_on(ITEMS, "lock", config, tmp_path / "cut", tmp_path)
    for name in ("generator/weights.pt", "loss.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_is_what_is_nearest_the_output(share: float, tmp_path: Path) -> None:
    generator, told = start_generator(changed(trainable=share), tmp_path)
    named = list(generator.module().named_parameters())
    flags = [p.requires_grad for _, p in named]
    assert flags == sorted(flags)  # all that is frozen comes before all that is trained
    trained = sum(p.numel() for _, p in named if p.requires_grad)
    total = sum(p.numel() for _, p in named)
    assert share * total <= trained <= share * total + max(p.numel() for _, p in named)
    assert told == f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"


def test_a_pattern_names_what_is_trained(tmp_path: Path) -> None:
    config = changed(**SHORT, trainable=r"^head\.|^up\.")
    train_on(ITEMS, "lock", config, tmp_path / "run", tmp_path)
    start, end = start_weights(config), weights(tmp_path / "run")
    differing = {name for name in start if not torch.equal(start[name], end[name])}
    assert differing == {name for name in start if name.startswith(("head.", "up."))}
    assert set(read_checkpoint(checkpoints(tmp_path / "run")[-1]).model) == differing
    with pytest.raises(InputError, match="no parameter has 'nowhere' in its name"):
        start_generator(changed(trainable="nowhere"), tmp_path)


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    whole, parts = (changed(**SHORT, learning_rate=1e-4, accumulate=n) for n in (1, 4))
    train_on(ITEMS, "lock", whole, tmp_path / "whole", tmp_path)
    train_on(ITEMS, "lock", parts, tmp_path / "parts", tmp_path)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(tmp_path: Path) -> None:
    full, half = changed(**SHORT), changed(**SHORT, precision="bfloat16")
    for name, config in (("full", full), ("half", half)):
        train_on(ITEMS, "lock", config, tmp_path / name, tmp_path)
    one, other = ([float(row["loss"]) for row in rows_of(tmp_path / name / "loss.csv")] for name in ("full", "half"))
    assert one != other
    assert other == pytest.approx(one, rel=0.1)
    assert {value.dtype for value in weights(tmp_path / "half").values()} == {torch.float32}


def test_compiled_it_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    compile_with = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_with(self, backend=backend))
    config = changed(steps=2, compile=True)
    train_on(ITEMS, "lock", config, tmp_path / "compiled", tmp_path)
    assert graphs
    train_on(ITEMS, "lock", changed(steps=2), tmp_path / "plain", tmp_path)
    expected, found = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tiny random FLUX.2 Klein in it."""
    folder = tmp_path_factory.mktemp("data")
    write_klein(folder / "klein")
    return folder


def klein_config(**values: object) -> TrainConfig:
    fixed = {"base": "klein", "generator": None, "size": 32, "steps": 2, "batch": 2, "workers": 0}
    return TrainConfig.model_validate({**CONFIG.model_dump(), **fixed, **values})


def test_a_downloaded_model_is_tuned_with_a_lora_and_tuned_again(klein: Path, tmp_path: Path) -> None:
    first = klein_config(lora={"rank": 2, "alpha": 4}, precision="bfloat16", gradient_checkpointing=True)
    train_on(KLEIN_ITEMS, "lock", first, tmp_path / "first", klein)
    assert (tmp_path / "first/generator/pytorch_lora_weights.safetensors").exists()
    tuned = str(tmp_path / "first/generator")
    again = klein_config(base=tuned, lora={"rank": 2, "alpha": 4}, learning_rate=1e-9)
    train_on(KLEIN_ITEMS, "lock", again, tmp_path / "second", klein)
    one, other = (load_generator(tmp_path / run / "generator").module().state_dict() for run in ("first", "second"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="LoRA of rank 2"):
        start_generator(klein_config(base=tuned, lora={"rank": 4}), klein)


def test_checkpointed_activations_give_the_same_and_the_embedded_generator_has_none(
    klein: Path, tmp_path: Path
) -> None:
    for name, flag in (("plain", False), ("thrifty", True)):
        config = klein_config(trainable=0.5, gradient_checkpointing=flag)
        train_on(KLEIN_ITEMS, "lock", config, tmp_path / name, klein)
    plain, thrifty = (load_generator(tmp_path / n / "generator").module().state_dict() for n in ("plain", "thrifty"))
    for name, value in plain.items():
        torch.testing.assert_close(thrifty[name], value, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="tiny/1 has none"):
        start_generator(changed(gradient_checkpointing=True), tmp_path)


def test_a_look_before_measures_and_draws_and_writes_nothing_else(klein: Path, tmp_path: Path) -> None:
    config = klein_config(lora={"rank": 2}, parallel="fsdp")
    found = dry_run(KLEIN_ITEMS, config, tmp_path / "out", klein)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["batch.png"]
    generator, _ = start_generator(config, klein)
    trained = sum(p.numel() for p in generator.module().parameters() if p.requires_grad)
    assert found.bytes_of["gradients"] == found.bytes_of["average"] == 4 * trained
    assert found.bytes_of["network"] == 4 * sum(p.numel() for p in generator.module().parameters())
    assert 8 * trained <= found.bytes_of["optimiser"] < 9 * trained  # two moments, and a step for each tensor
    assert found.bytes_of["activations"] > 0
    assert found.memory_bytes(2, sharded=True) < found.memory_bytes(2, sharded=False) < found.memory_bytes(1, False)
    assert len(found.lines(config)) == 9
    lengths = [generator.count_tokens(KLEIN_ITEMS[index].example.prompt) for index in range(4)]  # all of the run
    assert found.notes[0] == f"the longest of 4 prompts has {max(lengths)} tokens of at most {TEXT_TOKENS}"
    assert np.asarray(Image.open(found.picture)).std() > 10


def test_a_look_before_finds_a_prompt_that_is_too_long(klein: Path, tmp_path: Path) -> None:
    class Long:
        def __getitem__(self, index: int) -> FakeItem:
            item = KLEIN_ITEMS[index]
            return replace(item, example=replace(item.example, prompt="long " * 500)) if index > 300 else item

    with pytest.raises(InputError, match=rf"tokens, the text encoder of flux2-klein/1 reads {TEXT_TOKENS}"):
        dry_run(Long(), klein_config(steps=200), tmp_path, klein)
    dry_run(Long(), klein_config(steps=100), tmp_path, klein)


def test_less_memory_is_told_when_less_is_kept(klein: Path, tmp_path: Path) -> None:
    kept = [
        dry_run(KLEIN_ITEMS, klein_config(**values), tmp_path, klein).bytes_of["activations"]
        for values in ({}, {"gradient_checkpointing": True}, {"accumulate": 2})
    ]
    assert kept[1] < 0.8 * kept[0]
    assert kept[2] < 0.8 * kept[0]


def test_everything_of_the_embedded_generator_follows_its_device() -> None:
    assert CONFIG.generator is not None
    generator = TinyGenerator(CONFIG.generator, 0)
    generator.module().to("meta")
    device = torch.device("meta")
    text = to_device(generator.encode_text(["red", "a blue ball"]), device)
    picture = torch.zeros(2, 3, 16, 16, device=device)
    sigma, has = torch.zeros(2, device=device), torch.zeros(2, dtype=torch.bool, device=device)
    assert generator.predict(picture, sigma, picture, has, text).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora": {}, "trainable": 0.5}, "either lora or trainable"),
        ({"trainable": 1.5}, "between 0 and 1"),
        ({"trainable": "("}, "not a regular expression"),
        ({"accumulate": 3}, "cannot be cut"),
        ({"precision": "float16"}, "precision"),
        ({"parallel": "many"}, "parallel"),
    ],
)
def test_settings_that_contradict_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**values)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_there_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    with pytest.raises(InputError, match=f"{name} is not installed"):
        train_on(ITEMS, "lock", changed(track=[name]), tmp_path, tmp_path)


def test_trackers_are_told_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, float]] = []

    class Writer:
        def __init__(self, folder: Path, purge_step: int) -> None:
            assert purge_step == 1  # nothing was written before
            self.flush = lambda: None

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step, value))

    class Wandb:
        def init(self, **settings: object) -> "Wandb":
            assert settings["name"] == "run"
            return self

        def log(self, values: dict[str, float], step: int) -> None:
            told.extend((name, step, value) for name, value in values.items())

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", Wandb())
    train_on(ITEMS, "lock", changed(**SHORT, track=["tensorboard", "wandb"]), tmp_path / "run", tmp_path)
    for row in rows_of(tmp_path / "run" / "loss.csv"):
        name, step = f"loss/{row['source']}/{row['task']}", int(row["step"])
        values = [value for n, s, value in told if (n, s) == (name, step)]
        assert values == pytest.approx([float(row["loss"])] * 2, rel=1e-5)
    assert sum(name == "loss" for name, _, _ in told) == 4  # steps 5 and 10, twice


def test_the_configuration_of_the_klein_page_is_for_eight_processes() -> None:
    config = read_config(TrainConfig, ROOT / "examples/klein/train.yaml")
    assert (config.base, config.parallel, config.batch % (8 * config.accumulate)) == (Path("models/klein"), "fsdp", 0)
    assert config.checkpoint_every == 200
