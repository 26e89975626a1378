"""What latent-space generators share: pixels to unit range, 2x2 patches, tokens, and rows with and without a reference.

Shape suffixes: B batch, C channels, H and W pixels or latent size, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.trainer.generators.frozen import take_rows

Part = TypeVar("Part")

Forward = Callable[[Tensor, Tensor, Tensor | None, Any], Tensor]
"""Takes noisy latents, their noise levels, their references or None, and their condition; returns the prediction."""


def to_unit(images_u8: NDArray[Any], multiple: int) -> Tensor:
    """Turn (B, H, W, 3) uint8 into (B, 3, H, W) float32 in -1..1.

    Raises:
        InputError: a side is not a multiple of what the generator draws; pictures are never padded or cropped silently.
    """
    height, width = images_u8.shape[1:3]
    if height % multiple or width % multiple:
        raise InputError(f"image is {height}x{width}: sides must be multiples of {multiple}")
    return torch.from_numpy(images_u8).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(unit_BCHW: Tensor) -> list[UInt8Image]:
    """Turn (B, 3, H, W) in -1..1 into images; what lies beyond becomes 0 or 255."""
    scaled = ((unit_BCHW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def patchify(latents_BCHW: Tensor) -> Tensor:
    """Fold 2x2 positions into channels: (B, C, H, W) to (B, 4C, H/2, W/2), a channel's four corners together."""
    batch, channels, height, width = latents_BCHW.shape
    corners = latents_BCHW.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return corners.reshape(batch, channels * 4, height // 2, width // 2)


def unpatchify(latents_BCHW: Tensor) -> Tensor:
    """Undo `patchify`."""
    batch, channels, height, width = latents_BCHW.shape
    corners = latents_BCHW.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return corners.reshape(batch, channels // 4, height * 2, width * 2)


def to_tokens(latents_BCHW: Tensor) -> Tensor:
    """Turn (B, C, H, W) into (B, L, C), rows first."""
    return latents_BCHW.flatten(2).transpose(1, 2)


def from_tokens(tokens_BLC: Tensor, height: int, width: int) -> Tensor:
    """Turn the first height * width tokens of (B, L, C) back into (B, C, height, width)."""
    batch, _, channels = tokens_BLC.shape
    return tokens_BLC[:, : height * width].transpose(1, 2).reshape(batch, channels, height, width)


def dtype_of(network: torch.nn.Module) -> torch.dtype:
    """Return the dtype of the first parameter, as `ModelMixin.dtype` does after a walk over all modules: 5 % of a small
    network's step."""
    return next(network.parameters()).dtype


def by_reference(
    forward: Forward,
    noisy_BCHW: Tensor,
    sigma_B: Tensor,
    reference_BCHW: Tensor,
    has_reference_B: Tensor,
    condition: Any,
) -> Tensor:
    """Run rows with and without a reference apart, since a missing reference has no tokens, and merge them in order.

    With several processes both are run by each, on row 0 where it has no such row: shards of the weights are gathered
    in every forward and backward pass, by all processes or none. That row counts for nothing.
    """

    def of(rows: Tensor, with_reference: bool) -> Tensor:
        reference = reference_BCHW[rows] if with_reference else None
        return forward(noisy_BCHW[rows], sigma_B[rows], reference, take_rows(condition, rows))

    with_it, without = has_reference_B.nonzero()[:, 0], (~has_reference_B).nonzero()[:, 0]
    groups = [(rows, flag) for rows, flag in ((with_it, True), (without, False)) if len(rows)]
    merged = torch.cat([of(rows, flag) for rows, flag in groups])
    if len(groups) == 1 and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        merged = merged + 0 * of(torch.zeros_like(groups[0][0][:1]), not groups[0][1])
    return merged[torch.cat([with_it, without]).argsort()]


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


def linear_shift(tokens: int, low: tuple[int, float], high: tuple[int, float]) -> float:
    """Return exp(mu), mu on the line through (tokens, mu) points: how FLUX.1 and Qwen-Image space their noise levels.

    Source: calculate_shift of diffusers; sigma' = exp(mu) / (exp(mu) + 1 / sigma - 1).
    """
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return math.exp(low[1] + slope * (tokens - low[0]))
