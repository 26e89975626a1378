"""What the adapters of diffusers models share: frozen autoencoder and text encoders around a trained transformer.

The modules are those of diffusers and transformers; sampling, loss and geometry are ours, because the pipelines resize
references and take several of them for one image. Everything they compute otherwise is reproduced (tested).
Shape suffixes: B batch, C channels, H and W pixels or latent size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from numpy.typing import NDArray
from torch import Tensor, nn

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.trainer.generators.diffusers_folder import Origin, read_part, save_tuned
from cavendish.trainer.generators.frozen import select_rows, stack_rows
from cavendish.trainer.generators.latents import to_pixels, to_unit
from cavendish.trainer.generators.protocol import Spec, check_prompts

Part = TypeVar("Part", bound=nn.Module)


class LatentGenerator(ABC):
    """A model in diffusers' layout as a `trainer.generators.protocol.Generator`.

    Args:
        pipeline: the class of diffusers that writes LoRA files of this model.
    """

    def __init__(self, transformer: Any, vae: Any, spec: Spec, origin: Origin, pipeline: Any) -> None:
        self._transformer = transformer
        self._vae = vae.eval().requires_grad_(False)
        self._scheduler = read_part(FlowMatchEulerDiscreteScheduler, origin.model, "scheduler")
        self.spec = spec
        self.origin = origin
        self._pipeline = pipeline

    @abstractmethod
    def _shift(self, positions: int, steps: int) -> float:
        """Return mu, by which the scheduler shifts the levels of so many latent positions."""

    @abstractmethod
    def count_tokens(self, prompt: str) -> int:
        """See `Generator.count_tokens`."""

    @abstractmethod
    def _encode_prompt(self, prompt: str) -> Any:
        """Return the condition of one prompt: in a batch its last bits would depend on the others."""

    @abstractmethod
    def _encode_latents(self, unit_BCHW: Tensor) -> Tensor:
        """Turn pixels in -1..1 into patchified latents of unit scale; the mode, no noise is drawn."""

    @abstractmethod
    def _decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        """Undo `_encode_latents`."""

    @abstractmethod
    def _forward(self, noisy_BCHW: Tensor, sigma_B: Tensor, reference_BCHW: Tensor | None, condition: Any) -> Tensor:
        """Predict the velocity of rows that all have a reference, or all have none."""

    def noise_levels(self, height: int, width: int, steps: int) -> list[float]:
        """Return the levels of the model's own scheduler."""
        self._scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=self._shift(height * width, steps))
        levels: list[float] = self._scheduler.sigmas.tolist()
        return levels

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Go on from the unconditional prediction through the conditional one."""
        return unconditional + scale * (conditional - unconditional)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], sources: Sequence[UInt8Image | None] = ()) -> Any:
        """Encode prompts, each once."""
        check_prompts(self, prompts)
        encoded = {prompt: self._encode_prompt(prompt) for prompt in dict.fromkeys(prompts)}
        return stack_rows([encoded[prompt] for prompt in prompts])

    @torch.no_grad()
    def encode_image(self, images_u8: NDArray[Any]) -> Tensor:
        """Turn (B, H, W, 3) uint8 into float32 latents."""
        unit = to_unit(images_u8, self.spec.pixel_multiple).to(self._vae.device, self._vae.dtype)
        return self._encode_latents(unit).float()

    @torch.no_grad()
    def decode(self, latents_BCHW: Tensor) -> list[UInt8Image]:
        """Turn latents into images."""
        return to_pixels(self._decode_latents(latents_BCHW.to(self._vae.device, self._vae.dtype)))

    def predict(
        self,
        noisy_BCHW: Tensor,
        sigma_B: Tensor,
        reference_BCHW: Tensor,
        has_reference_B: Tensor,
        condition: Any,
    ) -> Tensor:
        """Predict the velocity, noise - clean: rows with and without a reference apart, merged in order.

        A missing reference has no tokens. With several processes both kinds are run by each, on row 0 where it has no
        such row: shards of the weights are gathered in every forward and backward pass, by all processes or none. That
        row counts for nothing.
        """

        def forward(rows: Tensor, with_reference: bool) -> Tensor:
            reference = reference_BCHW[rows] if with_reference else None
            return self._forward(noisy_BCHW[rows], sigma_B[rows], reference, select_rows(condition, rows))

        present, missing = has_reference_B.nonzero()[:, 0], (~has_reference_B).nonzero()[:, 0]
        groups = [(rows, flag) for rows, flag in ((present, True), (missing, False)) if len(rows)]
        merged = torch.cat([forward(rows, flag) for rows, flag in groups])
        if len(groups) == 1 and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            merged = merged + 0 * forward(torch.zeros_like(groups[0][0][:1]), not groups[0][1])
        return merged[torch.cat([present, missing]).argsort()]

    def module(self) -> nn.Module:
        """Return the transformer."""
        transformer: nn.Module = self._transformer
        return transformer

    def save(self, folder: Path) -> None:
        """Write generator.json and the tuned transformer, or its LoRA, in diffusers' own format."""
        save_tuned(folder, self.spec.name, self.origin, self._transformer, self._pipeline)


def freeze(part: Part | None) -> Part | None:
    """Return a text encoder that is never trained; None where it was not loaded."""
    return None if part is None else part.eval().requires_grad_(False)


def require_text_encoder(part: Part | None) -> Part:
    """Return a text encoder.

    Raises:
        InputError: the generator was loaded without it.
    """
    if part is None:
        raise InputError(
            "a prompt was not computed before, and the text encoder is not loaded: set precomputed.missing=compute"
        )
    return part


def shift_by_line(config: Any, positions: int) -> float:
    """Return mu on the line of a scheduler's configuration, as FLUX.1 and Qwen-Image space their noise levels."""
    keys = (("base_image_seq_len", 256), ("max_image_seq_len", 4096), ("base_shift", 0.5), ("max_shift", 1.15))
    mu: float = calculate_shift(positions, *(config.get(key, default) for key, default in keys))
    return mu
