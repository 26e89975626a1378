"""Adapters of real generators, on tiny random models: they compute what diffusers does; what is saved comes back."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image
from transformers import BatchFeature

from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.trainer.generators.flux1_kontext import LORA_TARGETS as KONTEXT_TARGETS
from cavendish.trainer.generators.flux2_klein import LORA_TARGETS as KLEIN_TARGETS
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.frozen import to_arrays
from cavendish.trainer.generators.lora import add_lora
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.generators.qwen_image_edit import LORA_TARGETS as QWEN_TARGETS
from cavendish.trainer.inference.sampler import predict_examples, sample
from cavendish.trainer.loss import draw_noise, draw_sigma, flow_matching_loss, make_batch
from cavendish.trainer.parallel import device_of, move_generator, to_device
from cavendish.trainer.training.run import start_generator
from tests.trainer.items import FakeItems
from tests.trainer.tiny_models import TEXT_TOKENS, write_klein, write_kontext, write_qwen
from tests.trainer.training.test_train import changed

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32
FAMILIES = {
    "klein": (write_klein, KLEIN_TARGETS),
    "kontext": (write_kontext, KONTEXT_TARGETS),
    "qwen": (write_qwen, QWEN_TARGETS),
}
EXAMPLES, LARGER = (
    [FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=size)[i].example for i in range(4)]
    for size in (SIZE, 64)
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each family."""
    folder = tmp_path_factory.mktemp("models")
    for name, (write, _) in FAMILIES.items():
        write(folder / name)  # type: ignore[operator]
    return {name: folder / name for name in FAMILIES}


def losses(generator: Generator) -> torch.Tensor:
    batch = make_batch(generator, EXAMPLES)
    noise = draw_noise(0, range(4), batch.clean_BCHW.shape[1:])
    return flow_matching_loss(generator, batch, draw_sigma(0, range(4), [0.0] * 4, 1.0), noise)


def train_a_little(generator: Generator) -> None:
    parameters = [p for p in generator.module().parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    for _ in range(2):
        losses(generator).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def drawn(generator: Generator) -> torch.Tensor:
    return sample(generator, make_batch(generator, EXAMPLES), range(4), 2, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_influence_one_another_and_references_count(family: str, models: dict[str, Path]) -> None:
    generator = load_generator(models[family])
    together = drawn(generator)
    for row, example in enumerate(EXAMPLES):
        alone = sample(generator, make_batch(generator, [example]), [row], 2, seed=0)
        torch.testing.assert_close(together[row], alone[0], atol=2e-4, rtol=1e-3)
    batch = make_batch(generator, EXAMPLES)
    other = batch.reference_BCHW + 1.0 * batch.has_reference_B[:, None, None, None]
    sigma, noise = torch.full((4,), 0.7), draw_noise(0, range(4), batch.clean_BCHW.shape[1:])
    with torch.no_grad():
        one, two = (
            generator.predict(noise, sigma, reference, batch.has_reference_B, batch.condition)
            for reference in (batch.reference_BCHW, other)
        )
    changed = (one - two).abs().amax(dim=(1, 2, 3)) > 1e-6
    assert changed.tolist() == batch.has_reference_B.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_of_a_generator_follows_its_device(family: str, models: dict[str, Path]) -> None:
    """On the meta device, where a tensor that stayed on the CPU is an error."""
    meta = torch.device("meta")
    generator = load_generator(models[family])
    text = to_device(generator.encode_text(["red", "a blue ball"], [None, None]), meta)  # its masks ask for values
    move_generator(generator, meta)
    assert device_of(generator) == meta
    latents = generator.encode_image(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert latents.device == meta
    references = torch.ones(2, dtype=torch.bool, device=meta)
    forward: Any = generator._forward  # type: ignore[attr-defined]  # `predict` sorts rows by flags, which meta lacks
    for reference in (latents, None) if family != "qwen" else ():  # whose mask asks for values too
        assert forward(latents, references.float(), reference, text).device == meta
    assert generator._decode_latents(latents).shape == (2, 3, SIZE, SIZE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_learns_and_what_is_saved_comes_back(
    family: str, lora: bool, models: dict[str, Path], tmp_path: Path
) -> None:
    generator = load_generator(models[family])
    untouched = drawn(generator)
    if lora:
        add_lora(generator.module(), rank=4, alpha=16, targets=FAMILIES[family][1])
        names = [name for name, p in generator.module().named_parameters() if p.requires_grad]
        assert names
        assert all("lora_" in name for name in names)
        torch.testing.assert_close(drawn(generator), untouched, atol=0, rtol=0)  # it starts as the base
    before = losses(generator).mean().item()
    train_a_little(generator)
    assert losses(generator).mean().item() < before
    generator.save(tmp_path / "tuned")
    again = load_generator(tmp_path / "tuned")
    assert torch.equal(drawn(again), drawn(generator))
    assert not torch.equal(drawn(again), untouched)
    size = sum(path.stat().st_size for path in (tmp_path / "tuned").rglob("*"))
    whole = sum(path.stat().st_size for path in (models[family] / "transformer").rglob("*"))
    assert (size < 0.7 * whole) == lora


def start_noise(generator: Generator) -> torch.Tensor:
    side = 64 // generator.spec.downsampling
    return torch.randn(1, generator.spec.latent_channels, side, side, generator=torch.Generator().manual_seed(3))


def ours_and_noise(
    generator: Generator, example: Example, scale: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[UInt8Image, torch.Tensor]:
    noise = start_noise(generator)
    monkeypatch.setattr("cavendish.trainer.inference.sampler.draw_noise", lambda *_: noise)
    return predict_examples(generator, [example], 4, seed=0, guidance=scale)[0], noise


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("with_reference", [True, False])
@pytest.mark.parametrize("family", ["klein", "kontext"])
def test_sampling_is_that_of_the_pipeline(
    family: str,
    with_reference: bool,
    scale: float,
    models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    write: Callable[[Path], Any] = FAMILIES[family][0]  # type: ignore[assignment]
    pipeline = write(tmp_path / "again")
    pipeline.set_progress_bar_config(disable=True)
    example = next(e for e in LARGER if (e.source is not None) == with_reference)  # the pipeline wants 64 pixels
    ours, latents = ours_and_noise(load_generator(models[family]), example, scale, monkeypatch)
    settings: dict[str, Any] = {"guidance_scale": scale}
    if family == "kontext":
        settings = {"guidance_scale": 3.5, "_auto_resize": False, "max_area": 64 * 64}
        settings |= {"true_cfg_scale": scale, "negative_prompt": "" if scale > 1 else None}
        latents = latents.flatten(2).transpose(1, 2)
    source = None if example.source is None else Image.fromarray(example.source)
    settings |= {"height": 64, "width": 64, "num_inference_steps": 4, "max_sequence_length": TEXT_TOKENS}
    theirs = pipeline(image=source, prompt=example.prompt, latents=latents, output_type="np", **settings).images[0]
    assert np.abs(theirs * 255 - ours).max() <= 1.0


class QwenProcessor:
    """What Qwen2VLProcessor does, without torchvision."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def __call__(self, text: list[str], images: list[Any], **_: Any) -> Any:
        values = dict(self._generator._image_processor(images=images, return_tensors="pt"))
        places = int(values["image_grid_thw"].prod()) // 4
        text = [line.replace("<|image_pad|>", "<|image_pad|>" * places) for line in text]
        return BatchFeature({**self._generator._tokenizer(text, return_tensors="pt"), **values})


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_qwen_sampling_is_that_of_the_pipeline(
    scale: float, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text sees the image, its levels end at shift_terminal, and its guidance keeps norms."""
    generator: Any = load_generator(models["qwen"])
    example = next(e for e in LARGER if e.source is not None)

    def register(pipeline: Any, parts: dict[str, Any]) -> None:  # without a look at their classes
        vars(pipeline).update(parts)
        pipeline.register_to_config()

    ours, noise = ours_and_noise(generator, example, scale, monkeypatch)
    monkeypatch.setattr(QwenImageEditPlusPipeline, "register_modules", lambda self, **parts: register(self, parts))
    monkeypatch.setattr(QwenImageEditPlusPipeline, "_execution_device", torch.device("cpu"))
    monkeypatch.setattr(QwenImageEditPlusPipeline, "maybe_free_model_hooks", lambda self: None)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)
    pipeline = QwenImageEditPlusPipeline(
        generator._scheduler,
        generator._vae,
        generator._text_encoder,
        generator._tokenizer,
        QwenProcessor(generator),
        generator._transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    assert generator.noise_levels(16, 16, 4)[-2] == pytest.approx(0.02)
    theirs = pipeline(
        image=Image.fromarray(example.source),
        prompt=example.prompt,
        negative_prompt="" if scale > 1 else None,
        true_cfg_scale=scale,
        height=64,
        width=64,
        num_inference_steps=4,
        latents=noise.flatten(2).transpose(1, 2),
        output_type="np",
    ).images[0]
    assert np.abs(theirs * 255 - ours).max() <= 1.0


def test_qwen_text_sees_the_image(models: dict[str, Path]) -> None:
    generator = load_generator(models["qwen"])
    source = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    seen, other, blind = (generator.encode_text(["make it red"], [image]) for image in (source, 255 - source, None))
    assert seen.tokens_BLD.shape[1] > blind.tokens_BLD.shape[1]
    assert not torch.allclose(seen.tokens_BLD[:, -3:], other.tokens_BLD[:, -3:])


def test_a_distilled_model_draws_without_guidance_and_is_not_trained(models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["klein"], tmp_path / "klein")
    index = json.loads((tmp_path / "klein/model_index.json").read_text())
    (tmp_path / "klein/model_index.json").write_text(json.dumps({**index, "is_distilled": True}))
    generator = load_generator(tmp_path / "klein")
    assert len(predict_examples(generator, EXAMPLES[:1], 1, seed=0)) == 1
    with pytest.raises(InputError, match=r"guidance 4: this flux2-klein/1 is distilled"):
        predict_examples(generator, EXAMPLES[:1], 1, seed=0, guidance=4.0)
    with pytest.raises(InputError, match="klein is a distilled model; tune the base model"):
        start_generator(changed(base="klein", generator=None), tmp_path)


def test_the_template_is_that_of_the_library() -> None:
    from cavendish.trainer.generators.qwen_image_edit import _TEMPLATE

    assert repr(_TEMPLATE)[1:-1].replace("\\'", "'") in inspect.getsource(QwenImageEditPlusPipeline.__init__)


@pytest.mark.parametrize("family", ["klein", "kontext", "qwen"])
def test_a_prompt_is_read_to_its_last_token_or_refused_with_the_count(family: str, models: dict[str, Path]) -> None:
    generator = load_generator(models[family])
    limit = generator.spec.max_text_tokens
    words = next(n for n in range(limit + 1) if generator.count_tokens("a" + " a" * (n + 1)) > limit)
    fits, other, longer = "a" + " a" * words, "a" + " a" * (words - 1) + " 9", "a" + " a" * (words + 1)
    assert limit - 1 <= generator.count_tokens(fits) <= limit
    first, second = (to_arrays(generator.encode_text([prompt])) for prompt in (fits, other))
    assert any((first[name] != second[name]).any() for name in first)
    with pytest.raises(InputError, match=f"{generator.count_tokens(longer)} tokens, .* reads {limit}"):
        generator.encode_text([fits, longer])


def test_diffusers_itself_reads_the_lora_with_its_alpha(models: dict[str, Path], tmp_path: Path) -> None:
    generator = load_generator(models["klein"])
    add_lora(generator.module(), rank=4, alpha=16, targets=KLEIN_TARGETS)
    train_a_little(generator)
    generator.save(tmp_path / "tuned")
    pipeline = Flux2KleinPipeline.from_pretrained(models["klein"], local_files_only=True)
    pipeline.load_lora_weights(tmp_path / "tuned", weight_name="pytorch_lora_weights.safetensors")
    batch = make_batch(generator, EXAMPLES[:1])
    noise, sigma = draw_noise(0, [0], batch.clean_BCHW.shape[1:]), torch.tensor([0.5])
    mine: Any = generator
    with torch.no_grad():
        ours = generator.predict(noise, sigma, batch.reference_BCHW, batch.has_reference_B, batch.condition)
        mine._transformer = pipeline.transformer
        theirs = generator.predict(noise, sigma, batch.reference_BCHW, batch.has_reference_B, batch.condition)
    assert torch.equal(ours, theirs)


def test_what_is_missing_or_changed_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"generator\.json"):
        load_generator(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(models["klein"], copy)
    load_generator(copy).save(tmp_path / "tuned")
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="tuned from another"):
        load_generator(tmp_path / "tuned")
    with pytest.raises(InputError, match="vae"):
        load_generator(copy)
    (copy / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(InputError, match="StableDiffusionPipeline"):
        load_generator(copy)
    with pytest.raises(InputError, match="multiples of 4"):
        load_generator(models["klein"]).encode_image(np.zeros((1, 30, 32, 3), np.uint8))
    with pytest.raises(InputError, match="lora targets"):
        add_lora(load_generator(models["klein"]).module(), 4, 4, ["no_such_layer"])
