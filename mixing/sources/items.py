"""What a listing of images holds, whatever it was made from."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
MAX_CAPTION_CHARS = 2000
_JOINERS = "\u200c\u200d"  # invisible, but Persian words and many emoji need them


@dataclass(frozen=True)
class Part:
    """A slice of a file: `path` is relative to the source's path ("" is that path itself)."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Item:
    """One image to be read: where its bytes, its text and its facts are; or, in `problem`, why it cannot be read.

    `caption` and `facts` are what the listing itself says of it.
    """

    key: str
    name: str
    image: Part | None = None
    text: Part | None = None
    meta: Part | None = None
    problem: str = ""
    caption: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def clean_text(text: str) -> str:
    """Return a caption on one line without control characters, in Unicode NFC, at most `MAX_CAPTION_CHARS` long."""
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if category in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif char in _JOINERS or category not in ("Cf", "Cs", "Co"):
            kept.append(char)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())[:MAX_CAPTION_CHARS].rstrip()
