"""Read a legend back from the text of a prompt, in the notations people type.

How it works: colours are found first (numbers if there are any, else CSS colour names), the prompt is cut into entries
at commas, line ends and "and", each entry must hold one colour, and what remains beside the colour once connectors
("=", "should be", "in") and lead-ins ("paint", "use", "every") are gone is the name.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping

from cavendish.encoders.codecs.palettes import Color, parse_color
from cavendish.encoders.legends.patterns import (
    AFTER,
    BACKGROUND_PATTERNS,
    COLOR_NAME,
    CUT,
    ELSE,
    ENDS,
    FLAGS,
    INTRO,
    LEAD,
    MODIFIERS,
    NAMED_TOO,
    NUMERIC,
    PRONOUN,
    QUANTIFIER,
    QUOTED,
    QUOTES,
    TAIL,
    TOKEN,
)
from cavendish.encoders.sample import InputError

Legend = Mapping[str, Color]
"""Name to colour, in order. The entry named "background" is the colour of everything else."""

BACKGROUND = "background"

MAX_PROMPT = 10_000
MAX_NAME = 300  # characters: what stands farther from a colour is not its name; it bounds the time of every search


def normal_name(name: str) -> str:
    """Return a legend name without its leading quantifiers ("every", "the", "all the") and doubled spaces."""
    text = " ".join(name.split())
    while match := QUANTIFIER.match(text):
        text = text[match.end() :]
    return text


def is_plain_name(name: str) -> bool:
    """Say whether a name reads back without quotes: it holds no colour, connector, separator or lead-in."""
    text = normal_name(name)
    return bool(
        re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9' /-]{0,78}[A-Za-z0-9])?", text)
        and not COLOR_NAME.search(text)
        and not NUMERIC.search(text)
        and not CUT.search(text)
        and not LEAD.match(text)
        and not TAIL.search(text)
        and not INTRO.match(text + " ")
        and not re.search(rf"\b{ELSE}\b", text, FLAGS)
        and not re.search(r"^(?:for|means?|marks?|is|denotes?|shows?|on|to)\s|\s-\s", text, FLAGS)
    )


def quote_if_needed(name: str) -> str:
    """Return a name as a prompt has to say it: in quotes unless it is plain."""
    return name if is_plain_name(name) else f'"{name}"'


def parse_legend(prompt: str) -> dict[str, Color]:
    """Recover the legend that a prompt states.

    Reads JSON-like maps, lists ("cat: #ff0000; dog = (0, 255, 0)"), lines and tables, sentences ("paint every cat
    red"), colour-first lists ("red for cat"), with #rrggbb, triples in or without brackets, and CSS colour names (so
    "green" is (0, 128, 0) and "lime" (0, 255, 0)). "Everything else", "the rest" and "on a black background" give
    the entry "background".

    Args:
        prompt: the whole instruction, at most 10,000 characters.

    Returns:
        Name to colour in the order of the text, names without leading "the", "every", "all"; empty when there is none.

    Raises:
        InputError: too long, or one name with two colours.
    """
    if len(prompt) > MAX_PROMPT:
        raise InputError(f"prompt of {len(prompt)} characters: at most {MAX_PROMPT}")
    prompt = re.sub(r"[^\S\n\t]+", " ", prompt)
    legend, outside = _parse_json(prompt) or _parse_braces(prompt) or ({}, prompt)
    if not legend:
        return _parse_text(prompt)
    if BACKGROUND not in legend and (background := _parse_text(outside).get(BACKGROUND)) is not None:
        legend[BACKGROUND] = background
    return legend


def _parse_json(prompt: str) -> tuple[dict[str, Color], str] | None:
    """Read the first JSON object whose values are colours; return it and the prompt without it."""
    for start in itertools.islice(re.finditer(r"\{", prompt), 20):
        try:
            data, end = json.JSONDecoder().raw_decode(prompt, start.start())
        except (ValueError, RecursionError):
            continue
        legend: dict[str, Color] = {}
        for name, value in data.items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            _add_either_way(legend, name, text)
        if legend:
            return legend, prompt[: start.start()] + ";" + prompt[end:]
    return None


_STRING = rf"\"(?:[^\"\\]|\\.){{0,{MAX_NAME}}}\"|'(?:[^'\\]|\\.){{0,{MAX_NAME}}}'"
_BRACE_ENTRY = re.compile(
    rf"(?P<key>{_STRING}|[^\s,{{}}:=][^,{{}}:=\n]{{0,{MAX_NAME}}}?)\s*(?::|=>|=)\s*"
    rf"(?P<value>{_STRING}|rgb\s*\([^)]{{0,40}}\)|[(\[][^)\]]{{0,40}}[)\]]|[^,;{{}}\n]+)",
    FLAGS,
)


_BLOCKS = (re.compile(rf"\{{((?:{_STRING}|[^{{}}\"'])*)\}}"), re.compile(r"\{([^{}]*)\}"))


def _parse_braces(prompt: str) -> tuple[dict[str, Color], str] | None:
    """Read the first {...} that is almost JSON: single quotes, no quotes, round brackets."""
    for block in (match for pattern in _BLOCKS for match in pattern.finditer(prompt)):
        legend: dict[str, Color] = {}
        for entry in _BRACE_ENTRY.finditer(block[1]):
            _add_either_way(legend, _unquote(entry["key"]), _unquote(entry["value"]))
        if legend:
            return legend, prompt[: block.start()] + ";" + prompt[block.end() :]
    return None


def _add_either_way(legend: dict[str, Color], key: str, value: str) -> None:
    """Add name to colour, or colour to name: {"red": "cat"}; skip what holds no colour."""
    for name, text in ((key, value), (value, key)):
        try:
            color = parse_color(text)
        except InputError:
            continue
        _add(legend, name, color)
        return


def _unquote(text: str) -> str:
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] == '"':
        try:
            return str(json.loads(stripped))
        except ValueError:
            return stripped[1:-1]
    if len(stripped) >= 2 and stripped[0] == stripped[-1] == "'":
        return re.sub(r"\\(.)", r"\1", stripped[1:-1])
    return stripped


def _add(legend: dict[str, Color], name: str, color: Color) -> None:
    key = normal_name(name)
    if re.fullmatch(ELSE, key, FLAGS):
        key = BACKGROUND
    if legend.setdefault(key, color) != color:
        raise InputError(f"legend gives {key!r} two colors, {legend[key]} and {color}: name each class once")


class _Marks:
    """Colours and quoted names of a prompt, each replaced in its text by a private-use token with its number."""

    def __init__(self) -> None:
        self.colors: list[Color] = []
        self.originals: list[str] = []
        self.quotes: list[str] = []

    def mark(self, pattern: re.Pattern[str], text: str) -> str:
        """Replace what `pattern` finds, when it is a colour."""
        return pattern.sub(self._mark_color, text)

    def _mark_color(self, match: re.Match[str]) -> str:
        try:
            self.colors.append(parse_color(re.sub(r"(?<=\d)/(?=\d)", ",", match[0])))
        except InputError:
            return match[0]
        self.originals.append(match[0])
        return f"\ue000{len(self.colors) - 1}\ue001"

    def mark_quotes(self, text: str) -> str:
        """Replace quoted names; quotes around a colour are dropped."""
        return QUOTES.sub(self._mark_quote, text)

    def _mark_quote(self, match: re.Match[str]) -> str:
        inner = match[1] or match[2] or match[3]
        if TOKEN.fullmatch(inner.strip()):
            return inner
        self.quotes.append(self.restore(inner))
        return f"\ue002{len(self.quotes) - 1}\ue003"

    def restore(self, text: str, first: int = 0) -> str:
        """Put the words back, for colours from number `first` on."""
        text = QUOTED.sub(lambda match: self.quotes[int(match[1])], text)
        return TOKEN.sub(lambda match: self.originals[int(match[1])] if int(match[1]) >= first else match[0], text)


def _parse_text(prompt: str) -> dict[str, Color]:
    marks, background = _Marks(), None
    text = marks.mark(NUMERIC, re.sub("[\ue000-\ue003]", "", prompt))
    numbers = len(marks.colors)
    text = marks.mark(COLOR_NAME, text)
    for pattern in BACKGROUND_PATTERNS:
        if match := pattern.search(text):
            background = marks.colors[int(TOKEN.sub(r"\1", match[1]))]
            text = text[: match.start()] + "\n" + text[match.end() :]
            break
    in_numbers = marks.restore(text, first=numbers)
    if TOKEN.search(in_numbers):  # colour words beside numbers are part of names: "the red chair: #0000ff"
        text = in_numbers
    legend = _read_entries(marks.mark_quotes(text), marks)
    if background is not None:
        legend.setdefault(BACKGROUND, background)
    return legend


def _read_entries(text: str, marks: _Marks) -> dict[str, Color]:
    entries = _entries(text)
    color_first = 2 * sum(_is_color_first(piece) for piece, _ in entries) > len(entries)
    legend: dict[str, Color] = {}
    for piece, before in entries:
        tokens = list(TOKEN.finditer(piece))
        token = tokens[0] if color_first else tokens[-1]
        own = piece[: token.start()]
        name = _name_after(piece[token.end() :]) if color_first else _name_before(own)
        number = int(token[1])
        color = marks.colors[number]
        if PRONOUN.fullmatch(name):
            name = (_name_before(own) if color_first else "") or _name_before(before)
        if not name and (parts := re.fullmatch(rf"({MODIFIERS})[ -](.+)", marks.originals[number], FLAGS)):
            name, color = parts[1], parse_color(parts[2])  # "the sky blue": the name is not part of the colour
        if name:
            _add(legend, marks.restore(name), color)
    return legend


def _entries(text: str) -> list[tuple[str, str]]:
    """Cut into pieces with a colour, each with the colourless one before it ("find the cat")."""
    entries: list[tuple[str, str]] = []
    before = ""
    for piece in CUT.split(text):
        if TOKEN.search(piece):
            entries.append((piece, before))
            before = ""
        elif piece.strip():
            before = piece
    return entries


def _is_color_first(piece: str) -> bool:
    """Say whether the first colour stands before its name: "red for cat", "red = cat", "use red for the blue car"."""
    token = TOKEN.search(piece)
    if token is None or not AFTER.match(piece[token.end() :]):
        return False
    own = piece[: token.start()]
    return own.rstrip().endswith(":") or not _name_before(own)


def _name_after(text: str) -> str:
    text = text[:MAX_NAME]
    match = AFTER.match(text)
    rest = text[match.end() :] if match else text
    if quoted := QUOTED.search(rest):
        return quoted[0]
    return normal_name(rest.strip(ENDS))


def _name_before(text: str) -> str:
    text = text[-MAX_NAME:]
    while match := TAIL.search(text) or NAMED_TOO.search(text):  # "in red (255, 0, 0)"
        text = text[: match.start()]
    if quoted := list(QUOTED.finditer(text)):
        return quoted[-1][0]
    text = re.split(r":(?=\s|$)", text)[-1]
    text = _without_lead(INTRO.sub("", _without_lead(text.strip()), count=1).strip())
    return text.strip(ENDS)


def _without_lead(text: str) -> str:
    while match := LEAD.match(text) or QUANTIFIER.match(text):
        text = text[match.end() :]
    return text
