"""What the trainer, the sampler and the measurements need of an image generator; nothing else may be assumed.

Shape suffixes: B batch, C channels, H and W latent size; images outside the generator are (B, H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.trainer.generators.frozen import Frozen

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Spec:
    """Fixed properties of a generator.

    Args:
        name: what a saved folder says it holds, for example "tiny/1".
        prediction: what `predict` returns: the clean latent "x", or the velocity "v" = noise - clean.
        pixel_multiple: height and width of every image must be a multiple of this.
        latent_channels: C of the latents.
        downsampling: pixels per latent position along one side (1 for a pixel-space model).
        distilled: made for a few steps without guidance; not to be trained.
        max_text_tokens: the longest prompt that the text encoder reads.
        lora_targets: regular expression for the names of the layers that a LoRA changes unless told otherwise.
        frozen: parts whose results may be kept on disk; None: there are none.
    """

    name: str
    prediction: Literal["x", "v"]
    pixel_multiple: int
    latent_channels: int
    downsampling: int
    max_text_tokens: int
    lora_targets: str = ""
    frozen: Frozen | None = None
    distilled: bool = False


class Generator(Protocol):
    """An image generator that answers a prompt and an optional reference image by flow matching.

    The noise level sigma runs from 0 (clean) to 1 (pure noise): noisy = (1 - sigma) clean + sigma noise.
    """

    @property
    def spec(self) -> Spec:
        """The fixed properties."""
        ...

    def noise_levels(self, height: int, width: int, steps: int) -> list[float]:
        """Return the steps + 1 levels from 1 to 0 that sampling visits.

        Args:
            height, width: latent size.
        """
        ...

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the prediction that classifier-free guidance makes of that for a prompt and that for an empty one."""
        ...

    def encode_text(self, prompts: Sequence[str], sources: Sequence[UInt8Image | None] = ()) -> Any:
        """Turn prompts into the condition that `predict` takes, batched in the same order.

        Some text encoders look at the picture that the prompt is about. Holds no trainable step, and a row is a
        function of its text and picture alone, to the last bit: it may be kept under these (see `Spec.frozen`).

        Raises:
            InputError: loaded without the text encoder, or a prompt is longer than it reads.
        """
        ...

    def count_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt takes, of `Spec.max_text_tokens`."""
        ...

    def encode_image(self, images_u8: NDArray[Any]) -> torch.Tensor:
        """Turn (B, H, W, 3) uint8 into (B, C, h, w) float32 latents of about unit scale."""
        ...

    def decode(self, latents_BCHW: torch.Tensor) -> list[UInt8Image]:
        """Turn latents into images; values beyond the range of a pixel become its nearest end."""
        ...

    def predict(
        self,
        noisy_BCHW: torch.Tensor,
        sigma_B: torch.Tensor,
        reference_BCHW: torch.Tensor,
        has_reference_B: torch.Tensor,
        condition: Any,
    ) -> torch.Tensor:
        """Predict x or v (see `Spec.prediction`) for each element; rows never influence one another.

        `reference_BCHW` is zero where `has_reference_B` (bool) is False.
        """
        ...

    def module(self) -> torch.nn.Module:
        """Return the module that holds every trainable parameter, each of them reachable from `predict`."""
        ...

    def save(self, folder: Path) -> None:
        """Write the generator to a folder from which `trainer.generators.load` brings the same one back."""
        ...


def check_prompts(generator: Generator, prompts: Iterable[str]) -> int:
    """Return the tokens of the longest prompt.

    Raises:
        InputError: it is longer than the text encoder reads; nothing is cut off in silence.
    """
    limit = generator.spec.max_text_tokens
    longest = 0
    for prompt in dict.fromkeys(prompts):
        count = generator.count_tokens(prompt)
        if count > limit:
            raise InputError(
                f"prompt {prompt[:40]!r}...: {count} tokens, the text encoder of {generator.spec.name} reads {limit}; "
                "shorten it, for example to fewer classes"
            )
        longest = max(longest, count)
    return longest
