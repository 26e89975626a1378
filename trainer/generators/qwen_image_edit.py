"""Qwen-Image-Edit-Plus: latent space, velocities, a text encoder that sees the source.

See latent_generator.py for what is ours and what is diffusers'. Prompts are encoded one by one, each with its own
source image, which the pipeline cannot do for a batch. The processor class of transformers needs torchvision; its two
halves, tokenizer and image processor, do not, so that the image placeholders are expanded here.
Shape suffixes: B batch, C channels, H and W latent size (16 pixels), L tokens, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from cavendish.encoders.sample import UInt8Image
from cavendish.trainer.generators.diffusers_folder import Origin, read_part, read_transformer
from cavendish.trainer.generators.frozen import Frozen, stack_rows
from cavendish.trainer.generators.latent_generator import LatentGenerator, freeze, require_text_encoder, shift_by_line
from cavendish.trainer.generators.latents import (
    dtype_of,
    from_tokens,
    patchify,
    to_tokens,
    unpatchify,
)
from cavendish.trainer.generators.protocol import Spec, check_prompts

NAME = "qwen-image-edit-plus/1"
LORA_TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
MAX_TEXT_TOKENS = 1024  # the most that the pipeline accepts
_TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_TEMPLATE_TOKENS = 64  # of the system part: their states are dropped
_PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
_SEEN_PIXELS = 384 * 384  # how large the text encoder sees the source


@dataclass(frozen=True)
class QwenText:
    """Prompts as the transformer takes them: states (B, L, D), and which of them count (B, L)."""

    tokens_BLD: Tensor
    mask_BL: Tensor


class QwenImageEditGenerator(LatentGenerator):
    """Qwen-Image-Edit-Plus as a `trainer.generators.protocol.Generator`; text encoder and autoencoder are frozen."""

    def __init__(
        self,
        transformer: QwenImageTransformer2DModel,
        vae: AutoencoderKLQwenImage,
        text_encoder: Qwen2_5_VLForConditionalGeneration | None,
        tokenizer: Any,
        image_processor: Any,
        origin: Origin,
        template_tokens: int = _TEMPLATE_TOKENS,
    ) -> None:
        self._text_encoder = freeze(text_encoder)
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._template_tokens = template_tokens
        downsampling = 2 ** (len(vae.temperal_downsample) + 1)
        text = ("text_encoder", "tokenizer", "processor")
        frozen = Frozen(origin.model, text, ("vae",), QwenText, sees_picture=True)
        length = min(MAX_TEXT_TOKENS, tokenizer.model_max_length)
        channels = transformer.config.in_channels
        spec = Spec(NAME, "v", downsampling, channels, downsampling, length, LORA_TARGETS, frozen)
        super().__init__(transformer, vae, spec, origin, QwenImageEditPlusPipeline)

    def _shift(self, positions: int, steps: int) -> float:
        return shift_by_line(self._scheduler.config, positions)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Guide as the others do, and give each position the norm it has without."""
        guided = super().guide(conditional, unconditional, scale)
        norms = [torch.linalg.vector_norm(each, dim=1, keepdim=True) for each in (conditional, guided)]
        rescaled: Tensor = guided * (norms[0] / norms[1])
        return rescaled

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], sources: Sequence[UInt8Image | None] = ()) -> QwenText:
        """Encode each prompt with its source picture (None: with none), without the template's system part."""
        check_prompts(self, prompts)
        images = list(sources) or [None] * len(prompts)
        encoded: QwenText = stack_rows(
            [self._encode_prompt(prompt, source) for prompt, source in zip(prompts, images, strict=True)]
        )
        return encoded

    def count_tokens(self, prompt: str) -> int:
        """Return the tokens of a prompt without template and image."""
        return len(self._tokenizer(prompt).input_ids)

    def _encode_prompt(self, prompt: str, source: UInt8Image | None = None) -> QwenText:
        text_encoder = require_text_encoder(self._text_encoder)
        text, seen = _TEMPLATE.format(prompt if source is None else _PICTURE + prompt), {}
        if source is not None:
            seen = dict(self._image_processor(images=[_as_seen(source)], return_tensors="pt"))
            places = int(seen["image_grid_thw"].prod()) // self._image_processor.merge_size**2
            text = text.replace("<|image_pad|>", "<|image_pad|>" * places, 1)
        tokens = self._tokenizer([text], return_tensors="pt")
        device = text_encoder.device
        hidden = text_encoder(
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
            output_hidden_states=True,
            **{name: value.to(device) for name, value in seen.items()},
        ).hidden_states[-1]
        states: Tensor = hidden[:, self._template_tokens :]
        return QwenText(states, torch.ones_like(states[..., 0], dtype=torch.bool))

    def _encode_latents(self, unit_BCHW: Tensor) -> Tensor:
        latents = self._vae.encode(unit_BCHW[:, :, None]).latent_dist.mode()[:, :, 0]
        mean, std = self._statistics(latents)
        return patchify((latents - mean) / std)

    def _decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        latents = unpatchify(latents_BCHW)
        mean, std = self._statistics(latents)
        pixels: Tensor = self._vae.decode((latents * std + mean)[:, :, None]).sample[:, :, 0]
        return pixels

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        values = (self._vae.config.latents_mean, self._vae.config.latents_std)
        mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(latents) for value in values)
        return mean, std

    def _forward(self, noisy: Tensor, sigma_B: Tensor, reference: Tensor | None, text: QwenText) -> Tensor:
        batch, _, height, width = noisy.shape
        dtype = dtype_of(self._transformer)
        tokens, shapes = to_tokens(noisy), [(1, height, width)]
        if reference is not None:
            tokens, shapes = torch.cat([tokens, to_tokens(reference)], dim=1), shapes * 2
        velocity = self._transformer(
            hidden_states=tokens.to(dtype),
            timestep=sigma_B.to(dtype),
            guidance=None,
            encoder_hidden_states=text.tokens_BLD.to(dtype),
            encoder_hidden_states_mask=None if bool(text.mask_BL.all()) else text.mask_BL,
            img_shapes=[shapes] * batch,
            return_dict=False,
        )[0]
        return from_tokens(velocity, height, width).float()


def _as_seen(source: UInt8Image) -> Image.Image:
    """Scale the source as the pipeline does for the text encoder: about 384 x 384 pixels, sides multiples of 32."""
    ratio = source.shape[1] / source.shape[0]
    width = math.sqrt(_SEEN_PIXELS * ratio)
    size = (round(width / 32) * 32, round(width / ratio / 32) * 32)
    return Image.fromarray(source).resize(size, Image.Resampling.LANCZOS)


def load_qwen_image_edit(origin: Origin, dtype: torch.dtype, text_encoder: bool = True) -> QwenImageEditGenerator:
    """Load a Qwen-Image-Edit-Plus folder in diffusers' layout, tuned or not.

    Raises:
        InputError: a part is missing or damaged.
    """
    model = origin.model
    seeing = Qwen2_5_VLForConditionalGeneration
    return QwenImageEditGenerator(
        transformer=read_transformer(QwenImageTransformer2DModel, origin, dtype),
        vae=read_part(AutoencoderKLQwenImage, model, "vae", dtype),
        text_encoder=read_part(seeing, model, "text_encoder", dtype) if text_encoder else None,
        tokenizer=read_part(AutoTokenizer, model, "tokenizer"),
        image_processor=read_part(Qwen2VLImageProcessorPil, model, "processor"),
        origin=origin,
    )
