"""Text leakage: a benchmark's prompts and expressions in the captions, prompts and legends of the mixture."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.signals.signal import Finding, Planted, Record, ShardResults, Signal, strongest
from cavendish.mixing.storage.files import digest

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

TEXT_EDITS = ("case and punctuation", "inside another text", "one word in ten changed")
LONG_TOKENS = 8
"""Shorter texts ("the red cup on the left") recur by chance: equal ones are a matter for review, not a leak."""

_GRAM = 3
_CANDIDATE_SHARE = 0.2
_MIN_SHORT_TOKENS = 3
_SIMILAR = 0.8
_TOKEN = re.compile(r"\w+")

Tokens = tuple[str, ...]


@dataclass(frozen=True)
class WordIndex:
    """Benchmark texts, ready for lookup; a text is (benchmark, text)."""

    texts: tuple[tuple[str, str], ...]
    tokens: tuple[Tokens, ...]
    equal: Mapping[Tokens, list[int]]
    grams: Mapping[Tokens, set[int]]

    @property
    def digest(self) -> str:
        """Name the texts."""
        return digest(self.texts)


def normalised(text: str) -> Tokens:
    """Split into words after NFKC and case folding, without punctuation."""
    return tuple(_TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


def build_word_index(prompts: Mapping[str, Iterable[str]]) -> WordIndex:
    """Index each benchmark's prompts."""
    texts = tuple((name, text) for name, lines in prompts.items() for text in dict.fromkeys(lines))
    tokens = tuple(normalised(text) for _, text in texts)
    equal: dict[Tokens, list[int]] = defaultdict(list)
    grams: dict[Tokens, set[int]] = defaultdict(set)
    for number, words in enumerate(tokens):
        equal[words].append(number)
        for gram in _grams(words):
            grams[gram].add(number)
    return WordIndex(texts, tokens, dict(equal), dict(grams))


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
        except (ValueError, RecursionError) as error:
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
        spec = meta.get("spec")
        legend = spec.get("legend") if isinstance(spec, dict) else None
        texts += [row[0] for row in legend if isinstance(row, list) and row] if isinstance(legend, list) else []
        said += [(member, text) for text in dict.fromkeys(texts) if isinstance(text, str) and text]
    return said


def find_texts(index: WordIndex, text: str) -> list[Finding]:
    """Compare one text of the mixture with every benchmark text.

    A benchmark text of eight words or more that stands whole in it is a leak; one of which half stands in it in one
    run, or 80 % of whose words stand in it in order, is for review; so is a shorter one that is equal.
    """
    words = normalised(text)
    votes = Counter(number for gram in set(_grams(words)) for number in index.grams.get(gram, ()))
    # a fifth of the words changed can destroy three quarters of the short text's runs of three
    candidates = {
        number for number, count in votes.items() if count >= _CANDIDATE_SHARE * len(_grams(index.tokens[number]))
    }
    candidates |= set(index.equal.get(words, ()))
    found = []
    for number in sorted(candidates):
        wanted = index.tokens[number]
        matcher = SequenceMatcher(None, words, wanted, autojunk=False)
        longest = matcher.find_longest_match()
        run = longest.size
        if len(wanted) < LONG_TOKENS:
            if words != wanted or len(wanted) < _MIN_SHORT_TOKENS:
                continue
            level, reason = "review", f"The same {len(wanted)} words; texts that short also recur by chance."
        elif run == len(wanted):
            level, reason = "leak", f"All {run} words of the benchmark's text stand in this order in the training text."
        elif run >= LONG_TOKENS and 2 * run >= len(wanted):
            level, reason = "review", f"{run} of the benchmark text's {len(wanted)} words stand in it in one run."
        elif (share := _shared_words(words, wanted, longest.a - longest.b)) >= _SIMILAR:
            level, reason = "review", f"{share:.0%} of the benchmark text's words stand in it, in the same order."
        else:
            continue
        benchmark, original = index.texts[number]
        found.append(Finding(benchmark, original, level, "text", "text", reason))
    return found


def _shared_words(words: Tokens, wanted: Tokens, start: int) -> float:
    """Return the share of the wanted words that stand, in order, in a stretch of about their length."""
    stretch = words[max(start - 3, 0) : max(start, 0) + len(wanted) + 3]
    blocks = SequenceMatcher(None, stretch, wanted, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(wanted)


def _grams(words: Tokens) -> list[Tokens]:
    return [words[i : i + _GRAM] for i in range(len(words) - _GRAM + 1)]


class TextSignal(Signal):
    """Compares captions, prompts, instructions and legend entries with benchmark texts."""

    name = "texts"
    counters = ("texts",)
    from_metadata = True

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Name the benchmarks' texts."""
        return {"words": plan.words.digest}

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Compare every text of a record."""
        for member, text in record_texts(record.parts):
            results.counts["texts"] += 1
            for finding in find_texts(plan.words, text):
                results.add(record, member, digest(text), finding, text)

    def can_plant(self, plan: ScanPlan, index: BenchmarkIndex) -> bool:
        """Any benchmark with texts."""
        return any(name == index.name for name, _ in plan.words.texts)

    def plant(self, plan: ScanPlan, index: BenchmarkIndex) -> list[Planted]:
        """Plant edited texts; see `plant_texts`."""
        return plant_texts(plan.words, index.name, plan.config.controls.copies, plan.config.controls.seed)

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Count texts."""
        return {"texts": sum(name == index.name for name, _ in plan.words.texts)}


def plant_texts(index: WordIndex, benchmark: str, copies: int, seed: int) -> list[Planted]:
    """Plant edited copies of a benchmark's texts of eight words or more; shorter ones are only ever for review.

    Returns:
        For each: text, edit, found ("leak", "review" or None). A changed text counts as found when it is for review.
    """
    long = [
        text
        for (name, text), tokens in zip(index.texts, index.tokens)
        if name == benchmark and len(tokens) >= LONG_TOKENS
    ]
    rng = np.random.default_rng([seed, 4])
    results = []
    for i in range(copies if long else 0):
        text, edit = long[int(rng.integers(len(long)))], TEXT_EDITS[i % len(TEXT_EDITS)]
        levels = {one.level for one in find_texts(index, _edited_text(text, edit, rng)) if one.image == text}
        results.append({"text": text, "edit": edit, "found": strongest(levels)})
    return results


def _edited_text(text: str, edit: str, rng: np.random.Generator) -> str:
    words = list(normalised(text))
    if edit == "case and punctuation":
        return ", ".join(" ".join(words).upper().split(" ", 1)) + "!"
    if edit == "inside another text":
        return f"Please make this picture for me: {' '.join(words)}, as a watercolour on rough paper."
    for place in rng.choice(len(words), max(len(words) // 10, 1), replace=False):
        words[place] = "otherwise"
    return " ".join(words)
