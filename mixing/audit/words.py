"""Leaks that pixels do not show: benchmark prompts in the mixture's texts, benchmark ids in its records."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from encoders.sample import InputError
from mixing.audit.scan import Finding
from mixing.storage import digest

LONG_TOKENS = 8
"""Shorter texts ("the red cup on the left") recur by chance: equal ones are a matter for review, not a leak."""

_GRAM = 4
_MIN_SHORT_TOKENS = 3
_SIMILAR = 0.8
_TOKEN = re.compile(r"\w+")

Tokens = tuple[str, ...]

# (dataset, pattern, what of it names the picture, what names its sequence, room or city)
_IDS: tuple[tuple[str, re.Pattern[str], str, str | None], ...] = (
    ("coco", re.compile(r"COCO_(?:train|val|test)\d{4}_(?P<n>\d{12})"), "{n}", None),
    ("coco", re.compile(r"(?:train|val|test|unlabeled)2017[/_](?P<n>\d{12})"), "{n}", None),
    ("kitti", re.compile(r"(?P<d>20\d\d_\d\d_\d\d_drive_\d{4})(?:_sync)?(?:\D.*?(?P<n>\d{10}))?"), "{d}/{n}", "{d}"),
    ("nuscenes", re.compile(r"(?P<d>n\d{3}-\d{4}(?:-\d\d){5}-\d{4})__(?P<n>[A-Z_]+__\d+)"), "{d}/{n}", "{d}"),
    ("scannet", re.compile(r"(?P<d>scene\d{4})_\d\d(?:\D.*?(?P<n>\d+)\.(?:jpg|png))?"), "{d}/{n}", "{d}"),
    ("cityscapes", re.compile(r"(?P<d>[a-z]+)_(?P<n>\d{6}_\d{6})(?:_leftImg8bit)?"), "{d}_{n}", None),
    ("vkitti2", re.compile(r"(?P<d>Scene(?:01|02|06|18|20))[/_](?P<n>\S+)"), "{d}/{n}", "{d}"),
    ("sa1b", re.compile(r"\bsa_(?P<n>\d{1,9})\b"), "{n}", None),
    ("openimages", re.compile(r"openimages\W+(?P<n>[0-9a-f]{16})\b", re.IGNORECASE), "{n}", None),
)
_CANONICAL = re.compile(r"(?:coco|kitti|nuscenes|scannet|cityscapes|vkitti2|sa1b|openimages|nyu|diode|eth3d|ibims):\S+")


@dataclass(frozen=True)
class WordIndex:
    """Benchmark texts and ids, ready for lookup. A text is (benchmark, text); an id is "dataset:id"."""

    texts: tuple[tuple[str, str], ...]
    tokens: tuple[Tokens, ...]
    equal: Mapping[Tokens, list[int]]
    grams: Mapping[Tokens, set[int]]
    ids: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Name the texts and ids."""
        return digest([self.texts, dict(self.ids)])


def normalised(text: str) -> Tokens:
    """Split into words after NFKC and case folding, without punctuation."""
    return tuple(_TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


def build_word_index(prompts: Mapping[str, Iterable[str]], ids: Mapping[str, Iterable[str]]) -> WordIndex:
    """Index each benchmark's prompts and ids (canonical ones, or file names that contain them)."""
    texts = tuple((name, text) for name, lines in prompts.items() for text in dict.fromkeys(lines))
    tokens = tuple(normalised(text) for _, text in texts)
    equal: dict[Tokens, list[int]] = defaultdict(list)
    grams: dict[Tokens, set[int]] = defaultdict(set)
    for number, words in enumerate(tokens):
        equal[words].append(number)
        for gram in _grams(words):
            grams[gram].add(number)
    known: dict[str, str] = {}
    for name, lines in ids.items():
        for line in lines:
            for identity in canonical_ids(line) or [line]:
                known.setdefault(identity, name)
    return WordIndex(texts, tokens, dict(equal), dict(grams), known)


def canonical_ids(text: str) -> list[str]:
    """Find the ids that public datasets give their pictures, and the sequences these belong to, in any text."""
    found = dict.fromkeys(_CANONICAL.findall(text))
    for dataset, pattern, picture, group in _IDS:
        for match in pattern.finditer(text):
            values = {key: value or "" for key, value in match.groupdict().items()}
            if values.get("n") or group is None:
                found[f"{dataset}:{picture.format(**values)}"] = None
            if group is not None:
                found[f"{dataset}:{group.format(**values)}"] = None
    return list(found)


def read_lines(path: Path, what: str) -> list[str]:
    """Read a text file with one item a line, or a json list of strings.

    Raises:
        InputError: missing, not text, or another json.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {what}: {error}") from None
    if path.suffix == ".json":
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: not valid json ({what}): {error}") from None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InputError(f"{path}: expected a json list of strings ({what})")
        return values
    return [line.strip() for line in text.splitlines() if line.strip()]


def record_texts(parts: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Return (member, text) of what a record says: captions, instructions, prompts, expressions of its legend."""
    said: list[tuple[str, str]] = []
    for member in ("json", "instruction.json"):
        if member not in parts:
            continue
        meta = json.loads(parts[member])
        texts = [*meta.get("captions", ()), meta.get("prompt"), (meta.get("edit") or {}).get("instruction")]
        legend = meta.get("spec", {}).get("legend")
        texts += list(legend) if isinstance(legend, dict) else []
        said += [(member, text) for text in dict.fromkeys(texts) if isinstance(text, str) and text]
    return said


def find_texts(index: WordIndex, text: str) -> list[Finding]:
    """Compare one text of the mixture with every benchmark text.

    A benchmark text of eight words or more that stands whole in it is a leak; one of which half stands in it in one
    run, or that is 80 % the same, is for review; so is a shorter one that is equal.
    """
    words = normalised(text)
    votes = Counter(number for gram in set(_grams(words)) for number in index.grams.get(gram, ()))
    candidates = {number for number, count in votes.items() if 2 * count >= len(_grams(index.tokens[number]))}
    candidates |= set(index.equal.get(words, ()))
    found = []
    for number in sorted(candidates):
        wanted = index.tokens[number]
        matcher = SequenceMatcher(None, words, wanted, autojunk=False)
        run = matcher.find_longest_match().size
        if len(wanted) < LONG_TOKENS:
            if words != wanted or len(wanted) < _MIN_SHORT_TOKENS:
                continue
            level, reason = "review", f"The same {len(wanted)} words; texts that short also recur by chance."
        elif run == len(wanted):
            level, reason = "leak", f"All {run} words of the benchmark's text stand in this order in the training text."
        elif run >= LONG_TOKENS and 2 * run >= len(wanted):
            level, reason = "review", f"{run} of the benchmark text's {len(wanted)} words stand in it in one run."
        elif matcher.ratio() >= _SIMILAR:
            level, reason = "review", f"The two texts are {matcher.ratio():.0%} the same, word by word."
        else:
            continue
        benchmark, original = index.texts[number]
        found.append(Finding(benchmark, original, level, "text", "text", f"{reason} Training text: “{text}”"))
    return found


def find_ids(index: WordIndex, key: str, parts: Mapping[str, bytes]) -> list[Finding]:
    """Look for benchmark ids in a record's key and metadata; equal ids are a leak whatever the pixels say."""
    if not index.ids:
        return []
    text = " ".join(
        [key, *(parts[name].decode(errors="replace") for name in ("json", "instruction.json") if name in parts)]
    )
    found = []
    for identity in canonical_ids(text):
        benchmark = index.ids.get(identity)
        if benchmark is not None:
            reason = "The record's key or metadata names a picture or sequence of the benchmark."
            found.append(Finding(benchmark, identity, "leak", "identity", "id", reason))
    return found


def place_of(member: str, text: str) -> dict[str, Any]:
    """Return what a finding without pixels is known by."""
    return {"member": member, "pixel_sha256": digest(text)}


def _grams(words: Tokens) -> list[Tokens]:
    return [words[i : i + _GRAM] for i in range(len(words) - _GRAM + 1)]
