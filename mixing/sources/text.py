"""Texts, names and other values of strangers, cleaned where they enter; names for what is written about them."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.shards.sample_format import check_key

MAX_TEXT_CHARS = 2000
_JOINERS = "\u200c\u200d"  # invisible, but Persian words and many emoji need them
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_KEY_CHARS = 80
_NOT_NAME = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"/\\|?*]+')
_MAX_NAME_BYTES = 120
_MAX_DEPTH = 8
_MAX_VALUES = 1000


def clean_text(text: str) -> str:
    """Return a text on one line, in Unicode NFC, at most `MAX_TEXT_CHARS` long.

    Control characters become spaces. What is not seen goes: byte order marks, zero-width and direction marks, lone
    surrogates, private characters.
    """
    shown = []
    for char in text:
        category = unicodedata.category(char)
        if category in ("Cc", "Zl", "Zp"):
            shown.append(" ")
        elif char in _JOINERS or category not in ("Cf", "Cs", "Co"):
            shown.append(char)
    return " ".join(unicodedata.normalize("NFC", "".join(shown)).split())[:MAX_TEXT_CHARS].rstrip()


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark, and clean it.

    Raises:
        InputError: neither.
    """
    try:
        return clean_text(data.decode("utf-16" if data.startswith(_UTF16) else "utf-8"))
    except UnicodeDecodeError:
        raise InputError("a text that is not UTF-8") from None


def clean_value(value: Any, depth: int = 0) -> Any:
    """Return a value of a table or a json as canonical json can hold it; None where there is nothing to hold.

    NaN and infinity, bytes and what is nested too deep are left out; texts lose what cannot be encoded; integers beyond
    64 bits become text.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)[:100] if abs(value) < 1 << 300 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        pairs = (
            (clean_value(str(key)), clean_value(each, depth + 1)) for key, each in list(value.items())[:_MAX_VALUES]
        )
        return {key: each for key, each in pairs if each is not None}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [clean_value(each, depth + 1) for each in value[:_MAX_VALUES]]
    return None


def printable(name: str) -> str:
    """Return a name that can be printed and stored: what is no UTF-8 and control characters are escaped."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in ("Cc", "Cs") else char for char in name
    )


def unique_key(source: str, name: str, stem: str, taken: set[str]) -> str:
    """Make a key that shards accept and that is not taken, and take it.

    Args:
        source: begins the key.
        name: the whole name; a hash of it ends the key where characters of `stem` had to go, or the key was taken.
        stem: what the key shows of the name: "/" becomes "-".
    """
    plain = stem.replace("/", "-")
    clean = _NOT_KEY.sub("_", plain)
    key = f"{source}-{clean}"
    attempt = 0
    while key in taken or (not attempt and (clean != plain or len(key) > _MAX_KEY_CHARS)):
        tag = hashlib.sha256(f"{attempt or ''}{name}".encode("utf-8", "surrogatepass")).hexdigest()[:10]
        key = f"{source}-{clean}"[: _MAX_KEY_CHARS - 11] + f"-{tag}"
        attempt += 1
    taken.add(check_key(key))
    return key


def output_names(names: Sequence[str]) -> Iterator[str]:
    """Yield, for each name of an input, a name to write files under: safe, short, and another for each of them.

    A name that is all that already stays as it is. Others lose what no file system takes, are cut, and get a hash of
    the name. Names that differ in case only count as equal: to some file systems they are.
    """
    taken: set[str] = set()
    uses: Counter[str] = Counter()
    for name in names:
        clean = _NOT_NAME.sub("_", name).strip(" .") or "_"
        while (clean != name and not uses[name]) or len(clean.encode()) > _MAX_NAME_BYTES or _folded(clean) in taken:
            short = _NOT_NAME.sub("_", name).strip(" .").encode()[: _MAX_NAME_BYTES - 11].decode("utf-8", "ignore")
            marked = f"{uses[name] or ''}{name}".encode("utf-8", "surrogatepass")
            clean = f"{short}-{hashlib.sha256(marked).hexdigest()[:10]}"
            uses[name] += 1
        taken.add(_folded(clean))
        yield clean


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
