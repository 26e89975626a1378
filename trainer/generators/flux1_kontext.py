"""FLUX.1 Kontext: latent space, velocity prediction, the reference as extra tokens.

See latent_generator.py for what is ours and what is diffusers'.
Shape suffixes: B batch, C channels, H and W latent size (16 pixels), L tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from cavendish.trainer.generators.diffusers_folder import Origin, read_part, read_transformer
from cavendish.trainer.generators.frozen import Frozen
from cavendish.trainer.generators.latent_generator import LatentGenerator, freeze, require_text_encoder, shift_by_line
from cavendish.trainer.generators.latents import (
    dtype_of,
    from_tokens,
    patchify,
    to_tokens,
    unpatchify,
)
from cavendish.trainer.generators.protocol import Spec

NAME = "flux1-kontext/1"
LORA_TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
MAX_TEXT_TOKENS = 512
GUIDANCE = 3.5
"""What the guidance-distilled model is told, in training as in sampling."""


@dataclass(frozen=True)
class KontextText:
    """Prompts as the transformer takes them: T5 states (B, L, D) and the pooled CLIP state (B, D)."""

    tokens_BLD: Tensor
    pooled_BD: Tensor


class Flux1KontextGenerator(LatentGenerator):
    """FLUX.1 Kontext as a `trainer.generators.protocol.Generator`; text encoders and autoencoder are frozen."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        clip: CLIPTextModel | None,
        clip_tokenizer: Any,
        t5: T5EncoderModel | None,
        t5_tokenizer: Any,
        origin: Origin,
    ) -> None:
        self._clip, self._t5 = freeze(clip), freeze(t5)
        self._clip_tokenizer, self._t5_tokenizer = clip_tokenizer, t5_tokenizer
        downsampling = 2 ** len(vae.config.block_out_channels)
        text = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        frozen = Frozen(origin.model, text, ("vae",), KontextText)
        length = min(MAX_TEXT_TOKENS, t5_tokenizer.model_max_length)
        channels = transformer.config.in_channels
        spec = Spec(NAME, "v", downsampling, channels, downsampling, length, LORA_TARGETS, frozen)
        super().__init__(transformer, vae, spec, origin, FluxKontextPipeline)

    def _shift(self, positions: int, steps: int) -> float:
        return shift_by_line(self._scheduler.config, positions)

    def count_tokens(self, prompt: str) -> int:
        """Return the tokens of a prompt for T5; CLIP reads its first 77 alone, here as in the pipeline."""
        return len(self._t5_tokenizer(prompt).input_ids)

    def _encode_prompt(self, prompt: str) -> KontextText:
        """Encode a prompt by both text encoders, padded to fixed lengths."""
        clip, t5 = require_text_encoder(self._clip), require_text_encoder(self._t5)
        clip_ids = self._clip_tokenizer(
            [prompt],
            padding="max_length",
            max_length=self._clip_tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        t5_ids = self._t5_tokenizer(
            [prompt], padding="max_length", max_length=self.spec.max_text_tokens, return_tensors="pt"
        ).input_ids
        return KontextText(
            tokens_BLD=t5(t5_ids.to(t5.device))[0],
            pooled_BD=clip(clip_ids.to(clip.device)).pooler_output,
        )

    def _encode_latents(self, unit_BCHW: Tensor) -> Tensor:
        latents = self._vae.encode(unit_BCHW).latent_dist.mode()
        return patchify((latents - self._vae.config.shift_factor) * self._vae.config.scaling_factor)

    def _decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        latents = unpatchify(latents_BCHW) / self._vae.config.scaling_factor + self._vae.config.shift_factor
        pixels: Tensor = self._vae.decode(latents).sample
        return pixels

    def _forward(self, noisy: Tensor, sigma_B: Tensor, reference: Tensor | None, text: KontextText) -> Tensor:
        batch, _, height, width = noisy.shape
        dtype = dtype_of(self._transformer)
        tokens, ids = to_tokens(noisy), _grid_ids(0, height, width)
        if reference is not None:
            tokens = torch.cat([tokens, to_tokens(reference)], dim=1)
            ids = torch.cat([ids, _grid_ids(1, height, width)])
        guided = self._transformer.config.guidance_embeds
        velocity = self._transformer(
            hidden_states=tokens.to(dtype),
            timestep=sigma_B.to(dtype),
            guidance=torch.full((batch,), GUIDANCE, device=noisy.device) if guided else None,
            pooled_projections=text.pooled_BD.to(dtype),
            encoder_hidden_states=text.tokens_BLD.to(dtype),
            txt_ids=torch.zeros(text.tokens_BLD.shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=ids.to(noisy.device, dtype),
            return_dict=False,
        )[0]
        return from_tokens(velocity, height, width).float()


def _grid_ids(image: int, height: int, width: int) -> Tensor:
    """Return (H W, 3) positions: which image (0 is drawn, 1 the reference), row, column."""
    return torch.cartesian_prod(torch.tensor([image]), torch.arange(height), torch.arange(width)).float()


def load_flux1_kontext(origin: Origin, dtype: torch.dtype, text_encoder: bool = True) -> Flux1KontextGenerator:
    """Load a FLUX.1 Kontext folder in diffusers' layout, tuned or not.

    Raises:
        InputError: a part is missing or damaged.
    """
    model = origin.model
    return Flux1KontextGenerator(
        transformer=read_transformer(FluxTransformer2DModel, origin, dtype),
        vae=read_part(AutoencoderKL, model, "vae", dtype),
        clip=read_part(CLIPTextModel, model, "text_encoder", dtype) if text_encoder else None,
        clip_tokenizer=read_part(AutoTokenizer, model, "tokenizer"),
        t5=read_part(T5EncoderModel, model, "text_encoder_2", dtype) if text_encoder else None,
        t5_tokenizer=read_part(AutoTokenizer, model, "tokenizer_2"),
        origin=origin,
    )
