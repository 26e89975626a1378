"""Pixels in unit range, 2x2 patches, tokens: the arithmetic that generators share.

Shape suffixes: B batch, C channels, H and W pixels or latent size, L tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cavendish.encoders.sample import InputError, UInt8Image


def to_unit(images_u8: NDArray[Any], multiple: int) -> Tensor:
    """Turn (B, H, W, 3) uint8 into (B, 3, H, W) float32 in -1..1.

    Raises:
        InputError: a side is not a multiple of what the generator draws; images are never padded or cropped silently.
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
