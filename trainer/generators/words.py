"""Prompts to numbers for the embedded generator: hashed words, and colours as numbers however they are written.

A legend may say `red`, `#ff0000` or `(255, 0, 0)`; all three become one token whose features are the colour itself, so
that a colour never seen in training still means something.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.palettes import COLOR_NAMES, CSS_COLORS, parse_color
from cavendish.encoders.sample import InputError

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


@dataclass(frozen=True)
class Token:
    """One token: its text, and its colour as 8-bit RGB when it names one."""

    text: str
    rgb: tuple[int, int, int] | None


def tokenize(prompt: str) -> list[Token]:
    """Split a prompt into words, numbers, separators and colours.

    A hex code or a triple loses its spelling (its text is "color"); a colour name keeps its word too.

    Raises:
        InputError: more than `MAX_TOKENS` tokens; nothing is cut off in silence.
    """
    tokens = [_token(match) for match in _TOKEN.finditer(prompt.lower())]
    if len(tokens) > MAX_TOKENS:
        raise InputError(f"prompt {prompt[:40]!r}... has {len(tokens)} tokens; the limit is {MAX_TOKENS}: shorten it")
    return tokens


def _token(match: re.Match[str]) -> Token:
    text = match[0]
    if match["hex"] is not None:
        return Token("color", parse_color(text))
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
    """Return (16,) features of a colour: a flag, the components in -1..1, and their sines and cosines."""
    unit = np.asarray(rgb, np.float32) / 127.5 - 1
    waves = [wave(np.pi * k * unit) for k in (0.5, 1.0) for wave in (np.sin, np.cos)]
    features: NDArray[np.float32] = np.concatenate([[1.0], unit, *waves]).astype(np.float32)
    return features


def encode_prompts(
    prompts: list[str], buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Encode prompts, padded to the longest of them.

    Returns:
        word buckets (B, L) int64 (0 where padded), colour features (B, L, 16) float32 (0 where no colour),
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
