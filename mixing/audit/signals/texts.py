"""Text leakage: a benchmark's prompts and expressions in the captions, prompts and legends of the mixture."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import TASK_NAMES
from cavendish.mixing.audit.matching.views import read_text, strings_of
from cavendish.mixing.audit.signals.signal import Finding, Planted, Record, ShardResults, Signal, strongest
from cavendish.mixing.storage.files import digest

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

TEXT_EDITS = ("case and punctuation", "inside another text", "one word in ten changed", "invisible characters")
LEAK_WORDS = 7
"""Shorter texts ("the red cup on the left") recur by chance: equal ones are a matter for review, not a leak."""
LEAK_CONTENT = 3
"""A leak has at least so many words that are not mere wording ("generate the depth map of this image")."""
CONTAINED_WORDS = 5
"""A text of so many words that stands inside a longer one is for review; shorter ones only when they are equal."""

_GRAM = 3
_CANDIDATE_SHARE = 0.2
_MIN_WORDS = 3
_LONG_RUN = 8
_SIMILAR = 0.8
_PREFIX_LETTERS = 10
_SLOT = re.compile(r"\{\w+\}")
_UNSPACED_WORDS = 0.5  # a Chinese, Japanese or Thai word has about two characters
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x0F00, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
)  # fmt: skip
"""Scripts without spaces between words, every character a token: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han."""
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_FUNCTION_WORDS = """a an the this that these those it its there here and or of in on at to for from by with without as
into onto over under is are was be being been do does make makes made please can could would will should i me my you
your we our generated created drawn painted rendered showing shown output outputs maps images pictures photos photograph
photographs figure labels label class classes colours colour colormap edit edited target given according legend
following keep unchanged rest background object objects same use using"""
_SAYS_SOMETHING = "red green blue black white yellow cyan magenta pinkish left right room silhouette blob sensor"
"""Words of our own wordings that say something in other texts."""

Tokens = tuple[str, ...]


@dataclass(frozen=True)
class WordIndex:
    """Benchmark texts, ready for lookup; a text is (benchmark, text).

    `prefixes` are the first letters of texts written without spaces: how a copy is found that is spaced in another way.
    """

    texts: tuple[tuple[str, str], ...]
    tokens: tuple[Tokens, ...]
    equal: Mapping[Tokens, list[int]]
    grams: Mapping[Tokens, set[int]]
    prefixes: Mapping[str, list[int]]

    @property
    def digest(self) -> str:
        """Name the texts."""
        return digest(self.texts)


class _Letters(dict[int, str]):
    """What each character becomes: itself, a token of its own in scripts without spaces, nothing, or a gap."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        category = unicodedata.category(letter)
        if category == "Cf" or 0x300 <= code <= 0x36F or letter in "'’":  # invisible, an accent, an apostrophe
            found = ""
        elif any(first <= code <= last for first, last in _UNSPACED):
            found = f" {letter} " if category[0] in "LMN" else " "
        else:
            found = letter if category[0] in "LMN" else " "
        self[code] = found
        return found


_LETTERS = _Letters()


def normalized(text: str) -> Tokens:
    """Split into words, or into characters in scripts without spaces.

    Case, accents, punctuation, width and other compatibility forms (NFKC), and characters that are not seen make no
    difference.
    """
    plain = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text)).casefold()
    return tuple(unicodedata.normalize("NFC", plain.translate(_LETTERS)).split())


def word_count(tokens: Iterable[str]) -> float:
    """Count words, a character of a script without spaces as half of one."""
    return sum(_UNSPACED_WORDS if _is_unspaced(token) else 1.0 for token in tokens)


def content_words(tokens: Iterable[str]) -> float:
    """Count the words that are more than wording: neither function words nor of the ways in which tasks are asked."""
    return word_count(token for token in tokens if token not in _wording())


@lru_cache(maxsize=1)
def _wording() -> frozenset[str]:
    modules = [import_module(f"cavendish.encoders.tasks.{name}") for name in (*TASK_NAMES, "segmentation")]
    templates = [value for module in modules for name, value in vars(module).items() if name.isupper()]
    lines = [line for value in templates for line in _strings(value)]
    tasks = {token for line in lines for token in normalized(_SLOT.sub(" ", line))}
    return frozenset(tasks | set(_FUNCTION_WORDS.split())) - frozenset(_SAYS_SOMETHING.split())


def _strings(value: object) -> Iterator[str]:
    """Yield the lines of a table of wordings."""
    if isinstance(value, tuple):
        for line in value:
            if isinstance(line, str):
                yield line
            else:
                yield from _strings(line)
    elif isinstance(value, Mapping):
        for line in value.values():
            yield from _strings((line,))


def _is_unspaced(token: str) -> bool:
    return any(first <= ord(token[0]) <= last for first, last in _UNSPACED)


def build_word_index(prompts: Mapping[str, Iterable[str]]) -> WordIndex:
    """Index each benchmark's prompts."""
    texts = tuple((name, text) for name, lines in prompts.items() for text in dict.fromkeys(lines))
    tokens = tuple(normalized(text) for _, text in texts)
    equal: dict[Tokens, list[int]] = defaultdict(list)
    grams: dict[Tokens, set[int]] = defaultdict(set)
    prefixes: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(tokens):
        equal[words].append(number)
        for gram in _grams(words):
            grams[gram].add(number)
        if _may_leak(words):
            prefixes["".join(words)[:_PREFIX_LETTERS]].append(number)
    return WordIndex(texts, tokens, dict(equal), dict(grams), dict(prefixes))


def _may_leak(words: Tokens) -> bool:
    return word_count(words) >= LEAK_WORDS and content_words(words) >= LEAK_CONTENT


def is_comparable(text: str) -> bool:
    """Tell whether a benchmark text has enough words to be looked for, beyond mere wording."""
    words = normalized(text)
    return word_count(words) >= _MIN_WORDS and content_words(words) > 0


def read_lines(path: Path, what: str) -> list[str]:
    """Read a text file with one item a line, or a json list of strings.

    Raises:
        InputError: missing, not text, or another json.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
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
    """Return (member, text) of a record: every text in its metadata, and text files line by line.

    Raises:
        ValueError: metadata that is no json.
    """
    found: list[tuple[str, str]] = []
    for member, data in parts.items():
        text = read_text(data)
        if text is None:
            continue
        if member.rpartition(".")[2] == "json":
            texts = [*_stated_texts(json.loads(text)), *filter(_may_say_something, strings_of(json.loads(text)))]
        else:
            texts = [line.strip() for line in text.splitlines()]
        found += [(member, line) for line in dict.fromkeys(texts) if line]
    return found


def _stated_texts(meta: Any) -> list[str]:
    """Return what a record says in so many words, however short: captions, prompts, entries of its legend."""
    if not isinstance(meta, dict):
        return []
    spec = meta.get("spec")
    legend = spec.get("legend") if isinstance(spec, dict) else None
    texts = [*meta.get("captions", ()), meta.get("prompt"), (meta.get("edit") or {}).get("instruction")]
    texts += [row[0] for row in legend if isinstance(row, list) and row] if isinstance(legend, list) else []
    return [text for text in texts if isinstance(text, str)]


def _may_say_something(text: str) -> bool:
    return not text.isascii() or text.count(" ") >= _MIN_WORDS - 1


def find_texts(index: WordIndex, text: str) -> list[Finding]:
    """Compare one text of the mixture with every benchmark text.

    A benchmark text of `LEAK_WORDS` or more, `LEAK_CONTENT` of them more than wording, that stands whole in it is a
    leak, however it is spaced. For review: a shorter one that stands in it; one of which half stands in it in one run;
    one of whose words 80 % stand in it in order.
    """
    words = normalized(text)
    votes = Counter(number for gram in set(_grams(words)) for number in index.grams.get(gram, ()))
    # a fifth of the words changed can destroy three quarters of the short text's runs of three
    candidates = {
        number for number, count in votes.items() if count >= _CANDIDATE_SHARE * len(_grams(index.tokens[number]))
    }
    respaced = _respaced(index, "".join(words))
    found = []
    for number in sorted({*candidates, *index.equal.get(words, ()), *respaced}):
        judged = _judge(words, index.tokens[number], number in respaced)
        if judged is not None:
            benchmark, original = index.texts[number]
            found.append(Finding(benchmark, original, judged[0], "text", "text", judged[1]))
    return found


def _respaced(index: WordIndex, letters: str) -> set[int]:
    """Find the texts whose letters stand in these in one run, whatever the spaces between them."""
    found = set()
    for at in range(len(letters) - _PREFIX_LETTERS + 1):
        for number in index.prefixes.get(letters[at : at + _PREFIX_LETTERS], ()):
            if letters.startswith("".join(index.tokens[number]), at):
                found.add(number)
    return found


def _judge(words: Tokens, wanted: Tokens, respaced: bool) -> tuple[str, str] | None:
    """Return the level and the reason of a finding, or None."""
    matcher = SequenceMatcher(None, words, wanted, autojunk=False)
    longest = matcher.find_longest_match()
    run, count = longest.size, len(wanted)
    if run == count and (content := content_words(wanted)):
        if _may_leak(wanted):
            return "leak", f"All {run} words of the benchmark's text stand in this order in the training text."
        if words == wanted and word_count(wanted) >= _MIN_WORDS:
            return "review", f"The same {count} words; texts that short also recur by chance."
        if word_count(wanted) >= CONTAINED_WORDS:
            few = "that short" if content >= LEAK_CONTENT else "of so little content"
            return "review", f"All {count} words stand in it; texts {few} also recur by chance."
        return None
    if respaced:
        return "leak", "All letters of the benchmark's text stand in this order in the training text, spaced otherwise."
    if word_count(wanted) < LEAK_WORDS:
        return None
    same, missing, instead = _compared_words(words, wanted, longest.a - longest.b)
    if not content_words(same):
        return None
    differ = f"; not in it: {' '.join(missing)}; in their place: {' '.join(instead) or 'nothing'}" if missing else ""
    if word_count(wanted[longest.b : longest.b + run]) >= _LONG_RUN and 2 * run >= count:
        return "review", f"{run} of the benchmark text's {count} words stand in it in one run{differ}."
    if len(same) >= _SIMILAR * count:
        share = len(same) / count
        return "review", f"{share:.0%} of the benchmark text's words stand in it, in the same order{differ}."
    return None


def _compared_words(words: Tokens, wanted: Tokens, start: int) -> tuple[Tokens, Tokens, Tokens]:
    """Align the wanted words with a stretch of about their length.

    Returns:
        The words that stand in it in order, those that do not, and those that it has in their place.
    """
    first = max(start - 3, 0)
    stretch = words[first : max(start, 0) + len(wanted) + 3]
    same: list[str] = []
    missing: list[str] = []
    instead: list[str] = []
    steps = SequenceMatcher(None, stretch, wanted, autojunk=False).get_opcodes()
    for number, (step, a, b, c, d) in enumerate(steps):
        same += wanted[c:d] if step == "equal" else ()
        missing += wanted[c:d] if step != "equal" else ()
        if step == "replace" or (step == "delete" and 0 < number < len(steps) - 1):
            instead += stretch[a:b]
    return tuple(same), tuple(missing), tuple(instead)


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
        """Count texts, and those with too few words to be looked for."""
        texts = [text for name, text in plan.words.texts if name == index.name]
        return {"texts": len(texts), "texts_too_short": sum(not is_comparable(text) for text in texts)}

    def not_cleared(self, plan: ScanPlan, index: BenchmarkIndex) -> list[str]:
        """Texts too short to be looked for."""
        short = self.coverage(plan, index)["texts_too_short"]
        if not short:
            return []
        return [f"Benchmark {index.name}: {short} of its texts are too short, or mere wording, and are not looked for."]


def plant_texts(index: WordIndex, benchmark: str, copies: int, seed: int) -> list[Planted]:
    """Plant edited copies of a benchmark's texts that are long enough for a leak; shorter ones are only for review.

    Returns:
        For each: text, edit, found ("leak", "review" or None). A changed text counts as found when it is for review.
    """
    long = [text for (name, text), words in zip(index.texts, index.tokens) if name == benchmark and _may_leak(words)]
    rng = np.random.default_rng([seed, 4])
    results = []
    for i in range(copies if long else 0):
        text, edit = long[int(rng.integers(len(long)))], TEXT_EDITS[i % len(TEXT_EDITS)]
        levels = {one.level for one in find_texts(index, _edited_text(text, edit, rng)) if one.image == text}
        results.append({"text": text, "edit": edit, "found": strongest(levels)})
    return results


def _edited_text(text: str, edit: str, rng: np.random.Generator) -> str:
    words = list(normalized(text))
    if edit == "invisible characters":
        return "\u200b".join(text)
    if edit == "one word in ten changed":
        for place in rng.choice(len(words), max(len(words) // 10, 1), replace=False):
            words[place] = "otherwise"
    plain = " ".join(words)
    if edit == "case and punctuation":
        return ", ".join(plain.upper().split(" ", 1)) + "!"
    if edit == "inside another text":
        return f"Please make this picture for me: {plain}, as a watercolour on rough paper."
    return plain
