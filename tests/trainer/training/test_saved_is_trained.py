"""What is saved is what was trained, over whatever it was trained from: full, partial and LoRA in every order."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from torch import Tensor

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.training.checkpoint import checkpoints, read_checkpoint
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.run import start_generator
from cavendish.trainer.training.train import train_on
from tests.trainer.items import FakeItems
from tests.trainer.tiny_models import write_klein, write_kontext, write_qwen
from tests.trainer.training.test_train import CONFIG

pytestmark = pytest.mark.usefixtures("one_thread")

ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=32)
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "partial": {"trainable": "norm_out|proj_out"},
    "lora": {"lora": {"rank": 2, "alpha": 3}},
}
MODELS = {"klein": write_klein, "kontext": write_kontext, "qwen": write_qwen}
TOLERANCE = {"atol": 1e-6, "rtol": 0.0}  # of merging a LoRA, once here and once there


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, write in MODELS.items():
        write(folder / name)
    return folder


def config_of(base: str, **values: Any) -> TrainConfig:
    fixed = {"base": base, "generator": None, "size": 32, "steps": 2, "batch": 2, "learning_rate": 0.01,
             "warmup_steps": 0, "log_every": 1, "checkpoint_every": 1}  # fmt: skip
    return TrainConfig.model_validate({**CONFIG.model_dump(), **fixed, **values})


def effective(folder: Path) -> dict[str, Tensor]:
    """The weights of a saved generator, any LoRA added by hand."""
    module = load_generator(folder).module()
    weights = {}
    for name, value in module.state_dict().items():
        if "lora_" not in name:
            weights[name.replace(".base_layer", "")] = value.clone()
    for name, layer in module.named_modules():
        if hasattr(layer, "lora_A"):
            a, b = (matrix["default"].weight for matrix in (layer.lora_A, layer.lora_B))
            weights[f"{name}.weight"] += layer.lora_alpha["default"] / layer.r["default"] * (b @ a)
    return weights


def check_sequence(model: str, kinds: tuple[str, ...], data: Path, out: Path) -> None:
    base = data / model
    for number, kind in enumerate(kinds):
        run = out / "-".join((model, *kinds[: number + 1]))
        if not run.exists():  # sequences share their beginnings
            train_on(ITEMS, "lock", config_of(str(base), **KINDS[kind]), run, data)
        saved, before = effective(run / "generator"), effective(base)
        averaged = read_checkpoint(checkpoints(run)[-1]).ema
        reloaded = dict(load_generator(run / "generator").module().named_parameters())
        for name, value in averaged.items():
            assert torch.equal(reloaded[name], value), (kinds, name)
        changed = {name for name in before if not torch.equal(before[name], saved[name])}
        trained = {name.partition(".lora_")[0] + ".weight" if "lora_" in name else name for name in averaged}
        assert changed
        for name in changed - trained:  # all else is what the base is
            torch.testing.assert_close(saved[name], before[name], **TOLERANCE)
        base = run / "generator"


@pytest.mark.parametrize("kinds", [*itertools.product(KINDS, repeat=2)], ids="-".join)
def test_two_tunes_on_end_are_saved_whole(
    kinds: tuple[str, ...], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_sequence("klein", kinds, data, tmp_path_factory.getbasetemp() / "sequences")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kinds", [*itertools.product(KINDS, repeat=3)], ids="-".join)
def test_three_tunes_of_every_model_are_saved_whole(
    kinds: tuple[str, ...], model: str, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_sequence(model, kinds, data, tmp_path_factory.getbasetemp() / "sequences")


def test_a_tune_of_half_precision_is_merged_in_full(data: Path, tmp_path: Path) -> None:
    """Bfloat16 weights have steps larger than a tune; those that are trained are merged without its rounding."""
    lora = config_of("klein", **KINDS["lora"], precision="bfloat16", learning_rate=1e-4)
    train_on(ITEMS, "lock", lora, tmp_path / "lora", data)
    expected = effective(tmp_path / "lora/generator")
    full = config_of(str(tmp_path / "lora/generator"), precision="bfloat16")
    started = dict(start_generator(full, data)[0].module().named_parameters())
    names = [name for name, value in effective(data / "klein").items() if not torch.equal(value, expected[name])]
    rounded = load_generator(data / "klein", "bfloat16").module().state_dict()
    assert names
    for name in names:
        delta = expected[name] - effective(data / "klein")[name]
        assert started[name].dtype == torch.float32
        torch.testing.assert_close(started[name], rounded[name].float() + delta, atol=1e-6, rtol=1e-5)


def test_a_lora_of_other_layers_over_a_lora_is_refused(data: Path, tmp_path: Path) -> None:
    train_on(ITEMS, "lock", config_of("klein", **KINDS["lora"]), tmp_path / "lora", data)
    base = str(tmp_path / "lora/generator")
    other = {"rank": 2, "alpha": 3, "targets": r"single_transformer_blocks\.\d+\.attn\.to_out"}
    with pytest.raises(InputError, match=r"lora.targets: names 2 layers, the LoRA of the base has 20, and 2 are in"):
        start_generator(config_of(base, lora=other), data)
    with pytest.raises(InputError, match="LoRA of rank 2, alpha 3, the configuration says rank 2, alpha 4"):
        start_generator(config_of(base, lora={"rank": 2, "alpha": 4}), data)
    targets = load_generator(data / "klein").spec.lora_targets
    start_generator(config_of(base, lora={"rank": 2, "alpha": 3, "targets": targets}), data)  # the same layers
