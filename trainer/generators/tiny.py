"""The embedded generator "tiny": a pixel-space UNet of about a million parameters that predicts the clean image.

It exists so that the whole pipeline trains and is tested on two CPU cores; it is not a general image generator.
Its text encoder hashes words. A legend may say `red`, `#ff0000` or `(255, 0, 0)`; all three become one token whose
features are the color itself, so that a color never seen in training still means something.

Shape suffixes: B batch, C channels, H and W pixels, L tokens, D text width, N positions.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from cavendish.encoders.codecs.palettes import COLOR_NAMES, CSS_COLORS
from cavendish.encoders.legends.parse_colors import read_color
from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.config import Config
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import write_atomic
from cavendish.trainer.generators.latents import to_pixels, to_unit
from cavendish.trainer.generators.protocol import Spec, check_prompts
from cavendish.trainer.generators.weights import load_tensors

PATCH = 4
LORA_TARGETS = r".*\.(query|key_value|out|film|conv_in|conv_out)"
MAX_TOKENS = 512
COLOR_FEATURES = 16

_COLORS = {**CSS_COLORS, **COLOR_NAMES}
_COMPONENT = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_NAMES = "|".join(sorted((re.escape(name) for name in _COLORS), key=len, reverse=True))
_TOKEN = re.compile(
    rf"#(?P<hex>[0-9a-f]{{6}}|[0-9a-f]{{3}})\b"
    rf"|(?<![\w.])(?P<triple>{_COMPONENT}\s*[,;\s/]\s*{_COMPONENT}\s*[,;\s/]\s*{_COMPONENT})(?![\w.]|\s*[,;/]?\s*\d)"
    rf"|\b(?P<name>{_NAMES})\b"
    rf"|(?P<word>[^\W\d_]+|\d+(?:\.\d+)?|[,;:.=])"
)
_SPEC = Spec(
    name="tiny/1",
    prediction="x",
    pixel_multiple=2 * PATCH,
    latent_channels=3,
    downsampling=1,
    max_text_tokens=MAX_TOKENS,
    lora_targets=LORA_TARGETS,
)


class TinyConfig(Config):
    """Shape of the embedded generator."""

    kind: Literal["tiny"] = "tiny"
    width: int = Field(
        default=48, ge=16, le=512, multiple_of=16, description="channels at 1/4 resolution; twice that at 1/8"
    )
    text_width: int = Field(default=64, ge=16, le=512, multiple_of=16)
    word_buckets: int = Field(default=2048, ge=16, le=65536, description="words are hashed into this many embeddings")


@dataclass(frozen=True)
class TextCondition:
    """Tokens of a batch of prompts: word buckets (B, L), colour features (B, L, 16), which are tokens (B, L)."""

    words_BL: Tensor
    colors_BLF: Tensor
    valid_BL: Tensor


@dataclass(frozen=True)
class Token:
    """One token: its text, and its color as 8-bit RGB when it names one."""

    text: str
    rgb: tuple[int, int, int] | None


def tokenize(prompt: str) -> list[Token]:
    """Split a prompt into words, numbers, separators and colors.

    A hex code or a triple loses its spelling (its text is "color"); a color name keeps its word too.
    """
    return [_token(match) for match in _TOKEN.finditer(prompt.lower())]


def _token(match: re.Match[str]) -> Token:
    text = match[0]
    if match["hex"] is not None:
        return Token("color", read_color(text))
    if match["triple"] is not None:
        red, green, blue = (int(number) for number in re.findall(r"\d+", text))
        return Token("color", (red, green, blue))
    if match["name"] is not None:
        red, green, blue = _COLORS[text]
        return Token(text, (red, green, blue))
    return Token(text[:-1] if len(text) > 3 and text.endswith("s") else text, None)


def word_bucket(text: str, buckets: int) -> int:
    """Hash a word to 1 .. buckets - 1; 0 is kept for padding."""
    return 1 + zlib.crc32(text.encode()) % (buckets - 1)


def color_features(rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return (16,) features of a color: a flag, the components in -1..1, and their sines and cosines."""
    unit = np.asarray(rgb, np.float32) / 127.5 - 1
    waves = [wave(np.pi * k * unit) for k in (0.5, 1.0) for wave in (np.sin, np.cos)]
    features: NDArray[np.float32] = np.concatenate([[1.0], unit, *waves]).astype(np.float32)
    return features


def encode_prompts(
    prompts: list[str], buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Encode prompts, padded to the longest of them.

    Returns:
        word buckets (B, L) int64 (0 where padded), color features (B, L, 16) float32 (0 where no color),
        and which positions hold a token (B, L) bool. An empty prompt is one padding token that counts as text.
    """
    rows = [tokenize(prompt) for prompt in prompts]
    length = max([1, *(len(row) for row in rows)])
    words = np.zeros((len(rows), length), np.int64)
    colors = np.zeros((len(rows), length, COLOR_FEATURES), np.float32)
    valid = np.zeros((len(rows), length), np.bool_)
    for b, row in enumerate(rows):
        valid[b, : max(1, len(row))] = True
        for i, token in enumerate(row):
            words[b, i] = word_bucket(token.text, buckets)
            if token.rgb is not None:
                colors[b, i] = color_features(token.rgb)
    return words, colors, valid


def _waves(values: Tensor, count: int, longest: float) -> Tensor:
    """Sines and cosines of `values` (...,) at `count` frequencies from 1 down to 1/longest, on a new last axis."""
    steps = torch.arange(count, dtype=torch.float32, device=values.device) / max(1, count - 1)
    angles = values[..., None] * torch.exp(-np.log(longest) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _Attention(nn.Module):
    """Pre-norm multi-head attention from positions to tokens, added to its input."""

    def __init__(self, width: int, context: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(context, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, context_BLD: Tensor | None, valid_BL: Tensor | None) -> Tensor:
        normed = self.norm(x_BNC)
        context = normed if context_BLD is None else context_BLD
        key, value = self.key_value(context).chunk(2, dim=-1)
        mask = None if valid_BL is None else valid_BL[:, None, None, :]
        query, key, value = (self._split_heads(t) for t in (self.query(normed), key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return x_BNC + out

    def _split_heads(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.view(*x_BNC.shape[:2], self.heads, -1).transpose(1, 2)


class _TextEncoder(nn.Module):
    """Word and colour embeddings, a convolution that binds neighbours, and one self-attention layer."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width = config.text_width
        self.words = nn.Embedding(config.word_buckets, width)
        self.colors = nn.Linear(COLOR_FEATURES, width, bias=False)
        self.neighbours = nn.Conv1d(width, width, 5, padding=2)
        self.attention = _Attention(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.5)

    def forward(self, text: TextCondition) -> Tensor:
        places = torch.arange(text.words_BL.shape[1], dtype=torch.float32, device=text.words_BL.device)
        positions = _waves(places, self.words.embedding_dim // 2, 200)
        present = text.valid_BL[..., None].float()
        x = (self.words(text.words_BL) + self.colors(text.colors_BLF)) * present
        x = x + F.silu(self.neighbours(x.transpose(1, 2)).transpose(1, 2)) + 0.3 * positions
        x = self.attention(x, None, text.valid_BL)
        encoded: Tensor = self.norm(x + self.mlp(x))
        return encoded * present


class _Block(nn.Module):
    """Residual convolution block; scale and shift come from noise level and text (FiLM)."""

    def __init__(self, channels_in: int, channels: int, condition: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(8, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels)
        self.norm_out = nn.GroupNorm(8, channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(self, x_BCHW: Tensor, condition_BD: Tensor) -> Tensor:
        scale, shift = self.film(condition_BD)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x_BCHW)))
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        out: Tensor = self.skip(x_BCHW) + self.conv_out(h)
        return out


class TinyNet(nn.Module):
    """The network: UNet on 4x4 pixel patches with two resolutions, told the prompt, noise level and reference."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, deep, condition = config.width, 2 * config.width, 128
        self.text = _TextEncoder(config)
        self.pool = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, condition))
        self.level = nn.Sequential(nn.Linear(32, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.stem = nn.Conv2d(6 * PATCH**2 + 3, width, 3, padding=1)
        self.down = nn.ModuleList([_Block(width, width, condition) for _ in range(2)])
        self.shrink = nn.Conv2d(width, deep, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([_Block(deep, deep, condition) for _ in range(3)])
        self.look = nn.ModuleList([_Attention(deep, deep), _Attention(deep, config.text_width)])
        self.grow = nn.Conv2d(deep, width, 1)
        self.look_fine = _Attention(width, config.text_width)
        self.up = nn.ModuleList([_Block(2 * width, width, condition), _Block(width, width, condition)])
        self.norm = nn.GroupNorm(8, width)
        self.head = nn.Conv2d(width, 4 * PATCH**2, 3, padding=1)
        nn.init.constant_(self.head.get_parameter("bias").data[3 * PATCH**2 :], -2.0)  # starts by copying little

    def forward(
        self, noisy_BCHW: Tensor, sigma_B: Tensor, reference_BCHW: Tensor, has_reference_B: Tensor, text: TextCondition
    ) -> Tensor:
        """Predict the clean image: a drawn one, blended per pixel with a copy of the reference where that is right."""
        tokens_BLD = self.text(text)
        pooled = tokens_BLD.sum(1) / text.valid_BL.sum(1, keepdim=True)
        condition = F.silu(self.level(_waves(8 * sigma_B, 16, 16.0)) + self.pool(pooled))
        # Near sigma 1 the noisy image says nothing and only drowns the reference; fading it out loses no information.
        faded = noisy_BCHW * (1 - sigma_B)[:, None, None, None]
        features = self._features(faded, reference_BCHW, has_reference_B, condition, tokens_BLD, text.valid_BL)
        out = F.pixel_shuffle(self.head(F.silu(self.norm(features))), PATCH)
        drawn, copy = out[:, :3], out[:, 3:].sigmoid() * has_reference_B[:, None, None, None]
        return drawn + copy * (reference_BCHW - drawn)

    def _features(
        self, noisy: Tensor, reference: Tensor, has_reference: Tensor, condition: Tensor, tokens: Tensor, valid: Tensor
    ) -> Tensor:
        patches = torch.cat([F.pixel_unshuffle(noisy, PATCH), F.pixel_unshuffle(reference, PATCH)], dim=1)
        height, width = patches.shape[-2:]
        flag = has_reference.float()[:, None, None, None].expand(-1, 1, height, width)
        row = torch.linspace(-1, 1, height, device=noisy.device)[None, None, :, None].expand_as(flag)
        column = torch.linspace(-1, 1, width, device=noisy.device)[None, None, None, :].expand_as(flag)
        x: Tensor = self.stem(torch.cat([patches, flag, row, column], dim=1))
        for block in self.down:
            x = block(x, condition)
        fine, x = x, self.shrink(x)
        x = self.middle[0](x, condition)
        flat = self.look[0](x.flatten(2).transpose(1, 2), None, None)
        flat = self.look[1](flat, tokens, valid)
        x = flat.transpose(1, 2).unflatten(2, x.shape[-2:])
        for block in list(self.middle)[1:]:
            x = block(x, condition)
        x = F.interpolate(self.grow(x), scale_factor=2.0, mode="nearest")
        flat = self.look_fine(x.flatten(2).transpose(1, 2), tokens, valid)
        x = torch.cat([flat.transpose(1, 2).unflatten(2, x.shape[-2:]), fine], dim=1)
        for block in self.up:
            x = block(x, condition)
        return x


class TinyGenerator:
    """The embedded generator behind `trainer.generators.protocol.Generator`."""

    spec = _SPEC

    def __init__(self, config: TinyConfig, seed: int) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._net = TinyNet(config)

    def noise_levels(self, height: int, width: int, steps: int) -> list[float]:
        """Return evenly spaced levels."""
        return [1 - i / steps for i in range(steps + 1)]

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Go on from the unconditional prediction through the conditional one."""
        return unconditional + scale * (conditional - unconditional)

    def encode_text(self, prompts: Sequence[str], sources: Sequence[UInt8Image | None] = ()) -> TextCondition:
        """Tokenize prompts; the embeddings are trainable and live in `predict`."""
        check_prompts(self, prompts)
        words, colors, valid = encode_prompts(list(prompts), self.config.word_buckets)
        return TextCondition(torch.from_numpy(words), torch.from_numpy(colors), torch.from_numpy(valid))

    def count_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt takes."""
        return len(tokenize(prompt))

    def encode_image(self, images_u8: NDArray[Any]) -> Tensor:
        """Turn (B, H, W, 3) uint8 into (B, 3, H, W) float32 in -1..1."""
        return to_unit(images_u8, _SPEC.pixel_multiple)

    def decode(self, latents_BCHW: Tensor) -> list[UInt8Image]:
        """Turn (B, 3, H, W) in -1..1 into images; what lies beyond becomes 0 or 255."""
        return to_pixels(latents_BCHW)

    def predict(
        self,
        noisy_BCHW: Tensor,
        sigma_B: Tensor,
        reference_BCHW: Tensor,
        has_reference_B: Tensor,
        condition: TextCondition,
    ) -> Tensor:
        """Predict the clean image."""
        clean: Tensor = self._net(noisy_BCHW, sigma_B, reference_BCHW, has_reference_B, condition)
        return clean

    def module(self) -> nn.Module:
        """Return the network."""
        return self._net

    def save(self, folder: Path) -> None:
        """Write generator.json and weights.pt."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = io.BytesIO()
        torch.save(self._net.state_dict(), weights)
        write_atomic(folder / "weights.pt", weights.getvalue())
        write_atomic(
            folder / "generator.json", canonical_json({"name": _SPEC.name, "config": self.config.model_dump()})
        )


def load_tiny(folder: Path, config: dict[str, Any]) -> TinyGenerator:
    """Load what `TinyGenerator.save` wrote; `config` is that of its generator.json.

    Raises:
        InputError: the configuration or the weights are not those of this model; no pickled code is ever run.
    """
    path = folder / "weights.pt"
    try:
        generator = TinyGenerator(TinyConfig.model_validate(config), seed=0)
        generator.module().load_state_dict(load_tensors(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a saved generator has generator.json and weights.pt") from None
    except Exception as error:  # zipfile and torch raise whatever the first wrong byte leads to
        raise InputError(
            f"{path}: not the weights of a {_SPEC.name} generator: {type(error).__name__} {one_line(error)}"
        ) from None
    return generator
