"""Generators with a known right answer, behind the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cavendish.trainer.generators.protocol import Spec


@dataclass
class Oracle:
    """Predicts what `rule(noisy, sigma)` says, in pixel space."""

    spec: Spec
    rule: Callable[[Tensor, Tensor], Tensor]
    shift: float = 1.0

    def noise_levels(self, height: int, width: int, steps: int) -> list[float]:
        even = [1 - i / steps for i in range(steps + 1)]
        return [self.shift * level / (1 + (self.shift - 1) * level) for level in even]

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        return unconditional + scale * (conditional - unconditional)

    def encode_text(self, prompts: Sequence[str], sources: Sequence[Any] = ()) -> list[str]:
        return list(prompts)

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def encode_image(self, images_u8: Any) -> Tensor:
        return torch.from_numpy(images_u8).permute(0, 3, 1, 2).float() / 127.5 - 1

    def decode(self, latents_BCHW: Tensor) -> list[Any]:
        return list(((latents_BCHW + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())

    def predict(self, noisy: Tensor, sigma: Tensor, reference: Tensor, has_reference: Tensor, condition: Any) -> Tensor:
        return self.rule(noisy, sigma[:, None, None, None])

    def module(self) -> torch.nn.Module:
        return torch.nn.Module()

    def save(self, folder: Any) -> None:
        raise NotImplementedError


def spec_of(prediction: str) -> Spec:
    """A pixel-space spec."""
    assert prediction in ("x", "v")
    return Spec("oracle", prediction, 1, 3, 1, max_text_tokens=512)  # type: ignore[arg-type]


def knows(clean: Tensor, prediction: str) -> Oracle:
    """The perfect generator of data that is always `clean` (B, C, H, W)."""
    rules = {"x": lambda noisy, s: clean.expand_as(noisy), "v": lambda noisy, s: (noisy - clean) / s}
    return Oracle(spec_of(prediction), rules[prediction])


def gaussian(std: float, shift: float = 1.0) -> Oracle:
    """The perfect generator of data N(0, std^2): E[x | noisy] in closed form."""
    return Oracle(spec_of("x"), lambda noisy, s: (1 - s) * std**2 / ((1 - s) ** 2 * std**2 + s**2) * noisy, shift)
