"""Saved generators: a folder whose generator.json (ours) or model_index.json (diffusers') names the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.generators.protocol import Generator, Precision
from cavendish.trainer.generators.tiny import load_tiny

PIPELINES = {
    "Flux2KleinPipeline": "flux2-klein/1",
    "FluxKontextPipeline": "flux1-kontext/1",
    "QwenImageEditPlusPipeline": "qwen-image-edit-plus/1",
}
"""Adapters by the class that a downloaded model's model_index.json names."""


def load_generator(folder: Path, precision: Precision = "float32", text_encoder: bool = True) -> Generator:
    """Load a generator that `Generator.save` or a training run wrote, or a model downloaded in diffusers' layout.

    Args:
        precision: of the weights of a downloaded model; the embedded generator is always float32.
        text_encoder: False leaves that of a downloaded model out, for runs whose prompts were computed before.

    Raises:
        InputError: no generator there, of a kind this version does not know, damaged, or of a model that has changed.
    """
    if not (folder / "generator.json").exists() and (folder / "model_index.json").exists():
        pipeline = read_json(folder / "model_index.json", "a model in diffusers' layout").get("_class_name")
        if pipeline not in PIPELINES:
            known = ", ".join(PIPELINES)
            raise InputError(f"{folder}/model_index.json: a {pipeline}; this version has adapters for {known}")
        return _load_adapter(PIPELINES[pipeline], folder, None, None, precision, text_encoder)
    values = read_json(folder / "generator.json", "a saved generator")
    name = str(values.get("name")) if isinstance(values, dict) else "nothing"
    if name == "tiny/1":
        return load_tiny(folder, values.get("config"))
    if name not in PIPELINES.values():
        known = ", ".join(("tiny/1", *PIPELINES.values()))
        raise InputError(f"{folder}/generator.json: holds a generator {name!r}; this version reads {known}")
    model, model_digest = Path(str(values.get("model"))), values.get("model_digest")
    return _load_adapter(name, model, folder, model_digest, precision, text_encoder)


def _load_adapter(
    name: str, model: Path, tuned: Path | None, expected: Any, precision: Precision, text_encoder: bool
) -> Generator:
    """Load an adapter; its libraries are only imported here, they take seconds."""
    require_extra("generators")
    from cavendish.trainer.generators.diffusers_folder import read_origin
    from cavendish.trainer.generators.flux1_kontext import load_flux1_kontext
    from cavendish.trainer.generators.flux2_klein import load_flux2_klein
    from cavendish.trainer.generators.qwen_image_edit import load_qwen_image_edit

    origin = read_origin(model, tuned)
    if expected is not None and origin.model_digest != expected:
        raise InputError(f"{tuned}: tuned from another {model} than is there now (digest {origin.model_digest[:12]})")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    match name:
        case "flux2-klein/1":
            return load_flux2_klein(origin, dtype, text_encoder)
        case "flux1-kontext/1":
            return load_flux1_kontext(origin, dtype, text_encoder)
    return load_qwen_image_edit(origin, dtype, text_encoder)
