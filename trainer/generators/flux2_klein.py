"""FLUX.2 Klein (4B, 9B): latent space, velocity prediction, the reference as extra tokens.

See latent_generator.py for what is ours and what is diffusers'.
Shape suffixes: B batch, C channels, H and W latent size (16 pixels), L tokens, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3Model

from cavendish.trainer.generators.diffusers_folder import Origin, read_part, read_transformer
from cavendish.trainer.generators.frozen import Frozen
from cavendish.trainer.generators.latent_generator import LatentGenerator, freeze, require_text_encoder
from cavendish.trainer.generators.latents import (
    dtype_of,
    from_tokens,
    patchify,
    to_tokens,
    unpatchify,
)
from cavendish.trainer.generators.protocol import Spec

NAME = "flux2-klein/1"
LORA_TARGETS = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
)
MAX_TEXT_TOKENS = 512
_TEXT_LAYERS = (9, 18, 27)
_REFERENCE_TIME = 10  # position of the first reference on the time axis; the picture that is drawn has 0


class Flux2KleinGenerator(LatentGenerator):
    """FLUX.2 Klein as a `trainer.generators.protocol.Generator`; the text encoder and the autoencoder are frozen."""

    def __init__(
        self,
        transformer: Flux2Transformer2DModel,
        vae: AutoencoderKLFlux2,
        text_encoder: Qwen3Model | None,
        tokenizer: Any,
        origin: Origin,
    ) -> None:
        self._text_encoder = freeze(text_encoder)
        self._tokenizer = tokenizer
        downsampling = 2 ** len(vae.config.block_out_channels)
        frozen = Frozen(origin.model, ("text_encoder", "tokenizer"), ("vae",))
        length = min(MAX_TEXT_TOKENS, tokenizer.model_max_length)
        channels = transformer.config.in_channels
        spec = Spec(NAME, "v", downsampling, channels, downsampling, length, LORA_TARGETS, frozen, origin.distilled)
        super().__init__(transformer, vae, spec, origin, Flux2KleinPipeline)

    def _shift(self, positions: int, steps: int) -> float:
        mu: float = compute_empirical_mu(positions, steps)
        return mu

    def count_tokens(self, prompt: str) -> int:
        """Return the tokens of a prompt in its chat template."""
        return len(self._tokenizer(self._in_template(prompt)).input_ids)

    def _in_template(self, prompt: str) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return text

    def _encode_prompt(self, prompt: str) -> Tensor:
        """Return (1, L, 3 D): hidden states 9, 18 and 27 of the text encoder, padded to a fixed length."""
        text_encoder = require_text_encoder(self._text_encoder)
        tokens = self._tokenizer(
            [self._in_template(prompt)], return_tensors="pt", padding="max_length", max_length=self.spec.max_text_tokens
        ).to(text_encoder.device)
        hidden = text_encoder(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return torch.cat([hidden[layer] for layer in _TEXT_LAYERS], dim=-1)

    def _encode_latents(self, unit_BCHW: Tensor) -> Tensor:
        latents = patchify(self._vae.encode(unit_BCHW).latent_dist.mode())
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def _decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        mean, std = self._statistics(latents_BCHW)
        pixels: Tensor = self._vae.decode(unpatchify(latents_BCHW * std + mean)).sample
        return pixels

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        norm = self._vae.bn
        variance = norm.running_var.view(1, -1, 1, 1) + self._vae.config.batch_norm_eps
        return norm.running_mean.view(1, -1, 1, 1).to(latents), variance.sqrt().to(latents)

    def _forward(self, noisy: Tensor, sigma_B: Tensor, reference: Tensor | None, text_BLD: Tensor) -> Tensor:
        batch, _, height, width = noisy.shape
        dtype = dtype_of(self._transformer)
        tokens, ids = to_tokens(noisy), _grid_ids(0, height, width)
        if reference is not None:
            tokens = torch.cat([tokens, to_tokens(reference)], dim=1)
            ids = torch.cat([ids, _grid_ids(_REFERENCE_TIME, height, width)])
        text_ids = torch.cartesian_prod(*[torch.arange(n) for n in (1, 1, 1, text_BLD.shape[1])])
        velocity = self._transformer(
            hidden_states=tokens.to(dtype),
            timestep=sigma_B.to(dtype),
            guidance=None,
            encoder_hidden_states=text_BLD.to(dtype),
            txt_ids=text_ids.expand(batch, -1, -1).to(noisy.device),
            img_ids=ids.expand(batch, -1, -1).to(noisy.device),
            return_dict=False,
        )[0]
        return from_tokens(velocity, height, width).float()


def _grid_ids(time: int, height: int, width: int) -> Tensor:
    """Return (H W, 4) positions: time, row, column, layer."""
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(height), torch.arange(width), torch.arange(1))


def load_flux2_klein(origin: Origin, dtype: torch.dtype, text_encoder: bool = True) -> Flux2KleinGenerator:
    """Load a FLUX.2 Klein folder in diffusers' layout, tuned or not.

    Raises:
        InputError: a part is missing or damaged.
    """
    model = origin.model
    return Flux2KleinGenerator(
        transformer=read_transformer(Flux2Transformer2DModel, origin, dtype),
        vae=read_part(AutoencoderKLFlux2, model, "vae", dtype),
        text_encoder=_read_text_encoder(model, dtype) if text_encoder else None,
        tokenizer=read_part(AutoTokenizer, model, "tokenizer"),
        origin=origin,
    )


def _read_text_encoder(model: Path, dtype: torch.dtype) -> Qwen3Model:
    """Load the layers of the text encoder whose states are read, and one more: the last normalizes its states."""
    text_encoder = read_part(Qwen3ForCausalLM, model, "text_encoder", dtype).model
    text_encoder.layers = text_encoder.layers[: _TEXT_LAYERS[-1] + 1]
    return text_encoder
