"""Text embeddings and latents computed before a run: the same run without the text encoder, or an error."""

import os
import shutil
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.frozen import from_arrays, stack_rows, to_arrays
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.dry_run import dry_run
from cavendish.trainer.training.precompute import CachedItems, precompute
from cavendish.trainer.training.train import train_on
from tests.trainer.items import FakeItems
from tests.trainer.tiny_models import write_klein, write_kontext, write_qwen
from tests.trainer.training.test_train import ITEMS, changed

MODELS = {"klein": write_klein, "kontext": write_kontext, "qwen": write_qwen}
KLEIN_ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, write in MODELS.items():
        write(folder / name)
    return folder


def config_of(**values: Any) -> TrainConfig:
    settings = {"base": "klein", "generator": None, "size": 32, "batch": 2, "lora": {"rank": 2}, "steps": 4}
    return changed(**{**settings, "checkpoint_every": 5, **values})


def runs_alike(one: Path, other: Path) -> bool:
    names = ("generator/pytorch_lora_weights.safetensors", "loss.csv")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_training_on_kept_text_is_training_bit_for_bit_and_loads_no_text_encoder(models: Path, tmp_path: Path) -> None:
    done = precompute(KLEIN_ITEMS, config_of(), tmp_path / "kept", models, latents=False)
    prompts = {KLEIN_ITEMS[i].example.prompt for i in range(8)}
    assert (done.examples, done.prompts, done.pictures) == (8, len(prompts), 0)
    train_on(KLEIN_ITEMS, "lock", config_of(), tmp_path / "fresh", models)
    kept = config_of(precomputed={"folder": tmp_path / "kept"}, workers=1)
    train_on(KLEIN_ITEMS, "lock", kept, tmp_path / "run", models)
    assert runs_alike(tmp_path / "fresh", tmp_path / "run")
    generator: Any = load_generator(models / "klein", text_encoder=False)
    assert generator._text_encoder is None
    with pytest.raises(InputError, match="text encoder is not loaded"):
        generator.encode_text(["a"])


def test_what_is_missing_is_an_error_or_computed_as_the_configuration_says(models: Path, tmp_path: Path) -> None:
    precompute(KLEIN_ITEMS, config_of(steps=2), tmp_path / "kept", models)
    few = {"folder": str(tmp_path / "kept")}
    with pytest.raises(InputError, match="nothing was computed for the"):
        train_on(KLEIN_ITEMS, "lock", config_of(steps=30, precomputed=few), tmp_path / "run", models)
    train_on(KLEIN_ITEMS, "lock", config_of(steps=5, learning_rate=1e-4), tmp_path / "fresh", models)
    filled = config_of(steps=5, learning_rate=1e-4, precomputed={**few, "missing": "compute"})
    train_on(KLEIN_ITEMS, "lock", filled, tmp_path / "filled", models)
    one, other = (load_generator(tmp_path / name / "generator").module().state_dict() for name in ("fresh", "filled"))
    for name, value in one.items():  # latents are encoded alone and not as a batch, so to rounding
        torch.testing.assert_close(other[name], value, atol=1e-5, rtol=0)


def test_another_precision_another_encoder_and_another_run_are_refused(models: Path, tmp_path: Path) -> None:
    precompute(KLEIN_ITEMS, config_of(steps=1), tmp_path / "kept", models)
    settings = {"precomputed": {"folder": str(tmp_path / "kept")}}
    with pytest.raises(InputError, match="the model is now"):
        train_on(KLEIN_ITEMS, "lock", config_of(**settings, precision="bfloat16"), tmp_path / "a", models)
    with pytest.raises(InputError, match="holds shards of another plan"):
        precompute(KLEIN_ITEMS, config_of(steps=30), tmp_path / "kept", models)
    other = tmp_path / "other"
    shutil.copytree(models / "klein", other / "klein")
    (weights,) = (other / "klein/text_encoder").glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)  # the size, the names and the configuration are the same
    with pytest.raises(InputError, match="the model is now"):
        train_on(KLEIN_ITEMS, "lock", config_of(**settings), tmp_path / "b", other)
    with pytest.raises(InputError, match="has no frozen parts"):
        train_on(ITEMS, "lock", changed(**settings), tmp_path / "c", tmp_path)
    with pytest.raises(InputError, match="a fresh generator has no frozen parts"):
        precompute(ITEMS, changed(), tmp_path / "d", tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_conditions_come_back_bit_for_bit_and_a_row_does_not_depend_on_the_others(
    name: str, precision: Any, models: Path, tmp_path: Path
) -> None:
    generator = load_generator(models / name, precision)
    frozen = generator.spec.frozen
    assert frozen is not None
    examples = [KLEIN_ITEMS[i].example for i in range(5)]
    together = generator.encode_text([e.prompt for e in examples], [e.source for e in examples])
    rows = [generator.encode_text([e.prompt], [e.source]) for e in examples]
    again = stack_rows([from_arrays(to_arrays(row), frozen.condition) for row in rows])
    for one, other in zip(tensors(together), tensors(again), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def tensors(condition: Any) -> list[torch.Tensor]:
    return [condition] if isinstance(condition, torch.Tensor) else list(vars(condition).values())


def test_large_files_are_told_apart_by_samples(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cavendish.trainer.generators.frozen._WHOLE_BYTES", 2**17)
    shutil.copytree(models / "klein", tmp_path / "klein")
    frozen = load_generator(tmp_path / "klein").spec.frozen
    assert frozen is not None
    found = {frozen.digest(parts, "a", "float32") for parts in (frozen.text_parts, frozen.image_parts)}
    assert frozen.digest(frozen.text_parts, "a", "float32") in found
    (weights,) = (tmp_path / "klein/text_encoder").glob("*.safetensors")
    values = np.fromfile(weights, np.uint8)
    values[4096:] += 1  # as any training would
    values.tofile(weights)
    assert frozen.digest(frozen.text_parts, "a", "float32") not in found
    assert frozen.digest(frozen.image_parts, "a", "float32") in found


def test_kept_items_and_a_dry_run_need_no_text_encoder(models: Path, tmp_path: Path) -> None:
    precompute(KLEIN_ITEMS, config_of(), tmp_path / "kept", models)
    config = config_of(precomputed={"folder": str(tmp_path / "kept")})
    generator = load_generator(models / "klein")
    item = CachedItems(KLEIN_ITEMS, generator.spec, config, models)[1]
    assert item.cached.condition is not None
    condition = from_arrays(item.cached.condition, torch.Tensor)
    assert torch.equal(condition, generator.encode_text([item.example.prompt]))
    assert item.cached.target is not None
    assert np.array_equal(item.cached.target, generator.encode_image(item.example.target[None])[0].numpy())
    assert (item.cached.source is None) == (item.example.source is None)
    assert dry_run(KLEIN_ITEMS, config, tmp_path / "look", models).picture.exists()
