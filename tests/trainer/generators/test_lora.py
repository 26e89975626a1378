"""LoRA files of every trainer: each tensor finds its layer, or the file is refused with counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from diffusers import Flux2KleinPipeline, FluxKontextPipeline
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_qwen_lora_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.lora import LORA_FILE, load_lora, lora_layers, merge_lora
from tests.trainer.tiny_models import klein_transformer, kontext_transformer, qwen_transformer, write_klein

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS: dict[str, Callable[[], Any]] = {
    "klein": klein_transformer,
    "kontext": kontext_transformer,
    "qwen": qwen_transformer,
}
RANK, ALPHA = 2, 6.0
Pairs = dict[str, tuple[Tensor, Tensor]]


@cache
def pairs(family: str) -> Pairs:
    """Random matrices (down, up) for the attention layers of a network, by diffusers' names."""
    generator = torch.Generator().manual_seed(1)
    layers = {
        name: layer
        for name, layer in NETWORKS[family]().named_modules()
        if isinstance(layer, nn.Linear) and ".attn." in name
    }
    return {
        name: (
            torch.randn(RANK, layer.in_features, generator=generator),
            torch.randn(layer.out_features, RANK, generator=generator),
        )
        for name, layer in layers.items()
    }


def changes(family: str, tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Load a file into a network; return by how much each weight changed."""
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / LORA_FILE)
    network = NETWORKS[family]()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_lora(network, folder)
    assert all(("lora_" in name) == p.requires_grad for name, p in network.named_parameters())
    merge_lora(network)
    assert not lora_layers(network)
    after = network.state_dict()
    assert list(before) == list(after)
    return {
        name.removesuffix(".weight"): after[name] - before[name]
        for name in before
        if not torch.equal(after[name], before[name])
    }


def assert_changes(found: dict[str, Tensor], expected: Pairs, scale: float) -> None:
    assert set(found) == set(expected)
    for name, (down, up) in expected.items():
        torch.testing.assert_close(found[name], scale * up @ down, atol=1e-4, rtol=1e-4)


def named(family: str, prefix: str, ends: tuple[str, str], flat: bool = False) -> dict[str, Tensor]:
    found = {}
    for name, matrices in pairs(family).items():
        layer = prefix + (name.replace(".", "_") if flat else name)
        found |= {f"{layer}.{end}": matrix for end, matrix in zip(ends, matrices)}
        if flat:
            found[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return found


AB, DOWN_UP = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
FORMATS: dict[str, tuple[str, tuple[str, str], bool]] = {
    "diffusers": ("transformer.", AB, False),
    "diffusers, old": ("transformer.", ("lora.down.weight", "lora.up.weight"), False),
    "bare": ("", AB, False),
    "peft": ("base_model.model.", AB, False),
    "peft, of a pipeline": ("base_model.model.transformer.", ("lora_A.default.weight", "lora_B.default.weight"), False),
    "ai-toolkit": ("diffusion_model.", AB, False),
    "kohya": ("lora_unet_", DOWN_UP, True),
    "musubi": ("lora_unet_", DOWN_UP, True),
    "lycoris": ("lycoris_", DOWN_UP, True),
}


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_naming_loads_whole(name: str, family: str, tmp_path: Path) -> None:
    prefix, ends, flat = FORMATS[name]
    found = changes(family, named(family, prefix, ends, flat), tmp_path)
    assert_changes(found, pairs(family), ALPHA / RANK if flat else 1.0)


@pytest.mark.parametrize(("rslora", "scale"), [(False, ALPHA / RANK), (True, ALPHA / RANK**0.5)])
def test_peft_keeps_its_alpha_beside_the_file(rslora: bool, scale: float, tmp_path: Path) -> None:
    config = {"r": RANK, "lora_alpha": ALPHA, "use_rslora": rslora, "target_modules": ["to_q"], "use_dora": False}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = changes("klein", named("klein", "base_model.model.", AB), tmp_path)
    assert_changes(found, pairs("klein"), scale)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(InputError, match="use_dora"):
        changes("klein", named("klein", "base_model.model.", AB), tmp_path)


def test_every_layer_may_have_a_rank_and_an_alpha_of_its_own(tmp_path: Path) -> None:
    tensors, expected = {}, {}
    for number, (name, (down, up)) in enumerate(pairs("klein").items(), 1):
        rank = 1 + number % RANK
        tensors |= {f"{name}.lora_A.weight": down[:rank], f"{name}.lora_B.weight": up[:, :rank]}
        tensors[f"{name}.alpha"] = torch.tensor(float(number))
        expected[name] = (down[:rank], number / rank * up[:, :rank])
    assert_changes(changes("klein", tensors, tmp_path), expected, 1.0)


ORIGINAL = {
    "klein": ("double_blocks.1.img_attn.qkv", "double_blocks.0.txt_attn.qkv", "double_blocks.0.img_attn.proj",
              "double_blocks.1.txt_attn.proj", "double_blocks.0.img_mlp.0", "double_blocks.1.txt_mlp.2",
              "single_blocks.1.linear1", "single_blocks.0.linear2", "img_in", "txt_in", "time_in.out_layer",
              "double_stream_modulation_img.lin", "single_stream_modulation.lin"),
    "kontext": ("double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.qkv", "double_blocks.0.img_attn.proj",
                "double_blocks.0.txt_attn.proj", "double_blocks.0.img_mlp.2", "double_blocks.0.txt_mlp.0",
                "double_blocks.0.img_mod.lin", "double_blocks.0.txt_mod.lin", "single_blocks.0.linear2",
                "single_blocks.0.modulation.lin"),
}  # fmt: skip
"""Names that the authors of the networks gave the layers, and that other trainers use."""


def original_tensors(family: str, kohya: bool) -> dict[str, Tensor]:
    """A LoRA under the original names, as ai-toolkit or kohya write it; sizes are those of the layers they fuse."""
    from cavendish.trainer.generators.lora import _layer_names, _linear_layers

    shapes = _linear_layers(NETWORKS[family]())
    names = _layer_names(shapes)
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for name in ORIGINAL[family]:
        rows = sum(shapes[layer][0] for layer in names[name])
        down = torch.randn(RANK, shapes[names[name][0]][1], generator=generator)
        up = torch.randn(rows, RANK, generator=generator)
        layer = f"lora_unet_{name.replace('.', '_')}" if kohya else f"diffusion_model.{name}"
        tensors |= {f"{layer}.{end}": matrix for end, matrix in zip(DOWN_UP if kohya else AB, (down, up))}
        if kohya:
            tensors[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return tensors


@pytest.mark.parametrize(
    ("family", "kohya", "pipeline"),
    [
        ("klein", False, Flux2KleinPipeline),
        ("klein", True, Flux2KleinPipeline),
        ("kontext", True, FluxKontextPipeline),
    ],
)
def test_original_names_are_those_that_diffusers_converts(
    family: str, kohya: bool, pipeline: Any, tmp_path: Path
) -> None:
    tensors = original_tensors(family, kohya)
    converted = pipeline.lora_state_dict(dict(tensors))
    converted = converted[0] if isinstance(converted, tuple) else converted
    names = {key.removeprefix("transformer.").partition(".lora_")[0] for key in converted}
    expected = {
        name: (converted[f"transformer.{name}.lora_A.weight"], converted[f"transformer.{name}.lora_B.weight"])
        for name in names
    }
    found = changes(family, tensors, tmp_path)
    only_ours = {name for name in found if name not in expected}  # of kohya's file diffusers drops these, and logs it
    assert all("stream_modulation" in name for name in only_ours)
    assert bool(only_ours) == (family == "klein" and kohya)
    assert_changes({name: found[name] for name in expected}, expected, 1.0)


def test_what_musubi_writes_for_qwen_is_what_diffusers_converts(tmp_path: Path) -> None:
    tensors = named("qwen", "lora_unet_", DOWN_UP, flat=True)
    converted = _convert_non_diffusers_qwen_lora_to_diffusers(dict(tensors))
    expected = {
        name: (converted[f"transformer.{name}.lora_A.weight"], converted[f"transformer.{name}.lora_B.weight"])
        for name in pairs("qwen")
    }
    assert_changes(changes("qwen", tensors, tmp_path), expected, 1.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": torch.zeros(2, 8)}, "1 of 41"),
        ({"transformer.x.lokr_w1": torch.zeros(2, 2), "transformer.x.lokr_w2": torch.zeros(2, 2)}, "2 of 42"),
        ({"transformer_blocks.0.attn.to_q.dora_scale": torch.zeros(2, 1)}, "1 of 41"),
        ({"transformer_blocks.9.attn.to_q.lora_A.weight": torch.zeros(2, 32)}, "1 of 41"),
        (
            {"transformer_blocks.0.ff.linear_in.lora_A.weight": torch.zeros(2, 32)},
            "1 of 41 tensors have no counterpart",
        ),
        ({"transformer_blocks.0.ff.linear_in.lora_A.weight": torch.zeros(2, 31)}, "1 of 41"),
    ],
)
def test_what_is_no_lora_of_this_network_is_refused_with_counts(
    more: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    tensors = named("klein", "transformer.", AB)
    assert len(tensors) == 40
    with pytest.raises(InputError, match=message):
        changes("klein", {**tensors, **more}, tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 of 0 tensors"):
        changes("klein", {}, tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_file_loads_whole_or_not_at_all(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is done to one tensor of a file, it is refused; what is loaded is all of it."""
    prefix, ends, flat = data.draw(st.sampled_from(list(FORMATS.values())))
    tensors = named("klein", prefix, ends, flat)
    layers = data.draw(st.sets(st.sampled_from(sorted(pairs("klein"))), min_size=1))
    inside = {prefix + (name.replace(".", "_") if flat else name) for name in layers}
    tensors = {key: tensor for key, tensor in tensors.items() if key.rsplit(".", len(ends[0].split(".")))[0] in inside
               or key.removesuffix(".alpha") in inside}  # fmt: skip
    damage = data.draw(st.sampled_from(["none", "drop", "rename", "cut"]))
    victim = data.draw(st.sampled_from(sorted(key for key in tensors if not key.endswith(".alpha"))))
    tensor = tensors.pop(victim)
    if damage == "rename":
        tensors[victim.replace("attn", "attention")] = tensor
    elif damage != "drop":
        tensors[victim] = tensor[:, :-1] if damage == "cut" else tensor
    folder = tmp_path_factory.mktemp("lora")
    if damage == "none":
        expected = {name: pair for name, pair in pairs("klein").items() if name in layers}
        assert_changes(changes("klein", tensors, folder), expected, ALPHA / RANK if flat else 1.0)
    else:
        with pytest.raises(InputError, match=rf"\d+ of {len(tensors)} tensors|has rank"):
            changes("klein", tensors, folder)


def test_a_lora_of_another_trainer_is_a_generator(tmp_path: Path) -> None:
    write_klein(tmp_path / "klein")
    folder = tmp_path / "tuned"
    folder.mkdir()
    save_file(named("klein", "lora_unet_", DOWN_UP, flat=True), folder / LORA_FILE)
    values = {"name": "flux2-klein/1", "model": str(tmp_path / "klein"), "model_digest": None}
    (folder / "generator.json").write_text(json.dumps(values))
    generator = load_generator(folder)
    layers = lora_layers(generator.module())
    assert set(layers) == set(pairs("klein"))
    generator.save(tmp_path / "saved")  # in diffusers' own form, with its alpha
    again = lora_layers(load_generator(tmp_path / "saved").module())
    for name, layer in layers.items():
        assert torch.equal(again[name].get_delta_weight("default"), layer.get_delta_weight("default"))
