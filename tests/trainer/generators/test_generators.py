import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from cavendish.trainer.generators.weights import model_digest
from cavendish.trainer.loss import draw_noise, flow_matching_loss, make_batch
from tests.trainer.items import FakeItems

CONFIG = TinyConfig(width=16, text_width=16, word_buckets=64)
ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1, "semantic": 1}, size=32)
EXAMPLES = [ITEMS[i].example for i in range(8)]


@torch.no_grad()
def predict(generator: TinyGenerator, rows: list[int]) -> torch.Tensor:
    batch = make_batch(generator, [EXAMPLES[row] for row in rows])
    noise = draw_noise(0, rows, (3, 32, 32))
    sigma = torch.tensor([0.1 + 0.1 * row for row in rows])
    return generator.predict(noise, sigma, batch.reference_BCHW, batch.has_reference_B, batch.condition)


def test_rows_do_not_influence_one_another() -> None:
    generator = TinyGenerator(CONFIG, seed=0)
    together = predict(generator, list(range(8)))
    alone = torch.cat([predict(generator, [row]) for row in range(8)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(predict(generator, [5, 2]), together[[5, 2]], atol=2e-5, rtol=0)


def test_prompt_reference_and_level_all_matter() -> None:
    generator = TinyGenerator(CONFIG, seed=0)
    batch = make_batch(generator, EXAMPLES[:1])
    noise, has = draw_noise(0, [0], (3, 32, 32)), torch.tensor([True])
    reference = draw_noise(1, [0], (3, 32, 32))
    with torch.no_grad():
        usual = generator.predict(noise, torch.tensor([0.5]), reference, has, batch.condition)
        for changed in (
            generator.predict(noise, torch.tensor([0.8]), reference, has, batch.condition),
            generator.predict(noise, torch.tensor([0.5]), -reference, has, batch.condition),
            generator.predict(noise, torch.tensor([0.5]), 0 * reference, ~has, batch.condition),
            generator.predict(noise, torch.tensor([0.5]), reference, has, generator.encode_text(["#ff0000 wall"])),
        ):
            assert (changed - usual).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient() -> None:
    generator = TinyGenerator(CONFIG, seed=0)
    batch = make_batch(generator, EXAMPLES)
    loss = flow_matching_loss(generator, batch, torch.full((8,), 0.5), draw_noise(0, range(8), (3, 32, 32)))
    loss.mean().backward()
    without = [n for n, p in generator.module().named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_saved_and_loaded_is_the_same_generator(tmp_path: Path) -> None:
    generator = TinyGenerator(CONFIG, seed=3)
    generator.save(tmp_path / "generator")
    loaded = load_generator(tmp_path / "generator")
    assert isinstance(loaded, TinyGenerator)
    assert loaded.config == CONFIG
    torch.testing.assert_close(predict(loaded, [0, 1, 2]), predict(generator, [0, 1, 2]), atol=0, rtol=0)


def test_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second, other = (TinyGenerator(CONFIG, seed=seed).module().state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_images_survive_encoding_exactly() -> None:
    generator = TinyGenerator(CONFIG, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    latents = generator.encode_image(images)
    assert latents.min() >= -1
    assert latents.max() <= 1
    np.testing.assert_array_equal(np.stack(generator.decode(latents)), images)
    assert generator.decode(torch.tensor([-3.0, 3.0]).expand(1, 3, 1, 2))[0][0, :, 0].tolist() == [0, 255]


def test_sides_must_fit() -> None:
    with pytest.raises(InputError, match="multiples of 8"):
        TinyGenerator(CONFIG, seed=0).encode_image(np.zeros((1, 30, 32, 3), np.uint8))


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_generator(tmp_path)
    TinyGenerator(CONFIG, seed=0).save(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="not the weights of a tiny/1"):
        load_generator(tmp_path)
    TinyGenerator(TinyConfig(width=32), seed=0).save(tmp_path / "wide")
    TinyGenerator(CONFIG, seed=0).save(tmp_path)
    (tmp_path / "weights.pt").write_bytes((tmp_path / "wide" / "weights.pt").read_bytes())
    with pytest.raises(InputError, match=r"weights\.pt: not the weights"):
        load_generator(tmp_path)
    (tmp_path / "generator.json").write_text(json.dumps({"name": "flux"}))
    with pytest.raises(InputError, match="this version reads tiny/1"):
        load_generator(tmp_path)


@pytest.mark.parametrize("marker", ["generator.json", "model_index.json"])
def test_a_changed_file_in_a_linked_folder_changes_the_digest_of_a_model(tmp_path: Path, marker: str) -> None:
    for name in ("model", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / marker).write_text("{}")
    (tmp_path / "model" / "transformer").symlink_to(tmp_path / "elsewhere")
    digests = []
    for text in ("a", "ab"):
        for name in ("config.json", "weights.safetensors"):
            (tmp_path / "elsewhere" / name).write_text(text)
            digests.append(model_digest(tmp_path / "model"))
    assert len(set(digests)) == 4
