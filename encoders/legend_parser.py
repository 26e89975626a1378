"""Read a legend back from the text of a prompt, in the notations people type.

How it works: colours are found first (numbers if there are any, else CSS colour names), the prompt is cut into entries
at commas, line ends and "and", each entry must hold one colour, and what remains beside the colour once connectors
("=", "should be", "in") and lead-ins ("paint", "use", "every") are gone is the name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from encoders.palettes import CSS_COLORS, Color, parse_color
from encoders.sample import InputError

Legend = Mapping[str, Color]
"""Name to colour, in order. The entry named "background" is the colour of everything else."""

BACKGROUND = "background"

_FLAGS = re.IGNORECASE

MODIFIERS = (
    "alice|antique|blanched|blue|burly|cadet|cornflower|dark|deep|dim|dodger|fire|floral|forest|ghost|green|hot|indian|"
    "lavender|lawn|lemon|light|lime|medium|midnight|mint|misty|navajo|old|olive|orange|pale|papaya|peach|powder|"
    "rebecca|rosy|royal|saddle|sandy|sea|sky|slate|spring|steel|violet|white|yellow|golden|goldenrod"
)
"""Words that start a colour name of several words: "sky blue", "light green"."""


def _spaced(name: str) -> str:
    """Return a pattern that allows a space or hyphen after leading modifiers: darkolivegreen, "dark olive green"."""
    match = re.match(rf"(?:{MODIFIERS})(?=[a-z])", name)
    if not match:
        return name
    return match[0] + "[ -]?" + _spaced(name[match.end() :])


_NAME_PATTERN = "|".join(_spaced(name) for name in sorted(CSS_COLORS, key=len, reverse=True))
COLOR_NAME = re.compile(
    rf"(?<![\w#-])(?:(?<=traffic )(?!light)|(?<=street )(?!light)|(?<!traffic )(?<!street ))"
    rf"(?:{_NAME_PATTERN})(?![\w-])",
    _FLAGS,
)
"""Any CSS colour name, standing alone."""

_BYTE = r"\d{1,3}"
_NUMERIC = re.compile(
    rf"""(?:\brgb\s*)?[(\[]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[)\]]
    | (?:\brgb\s+)?(?<![\w.])(?<!\d,){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?![\w]|\.\d)
    | \#(?:[0-9a-f]{{6}}|[0-9a-f]{{3}})(?!\w)""",
    _FLAGS | re.VERBOSE,
)

_TOKEN = re.compile("\ue000(\\d+)\ue001")  # a colour, by its number
_QUOTED = re.compile("\ue002(\\d+)\ue003")  # a quoted name, by its number
_ANY_TOKEN = r"(?:\ue000\d+\ue001)"

_ELSE = (
    r"(?:(?:everything|anything|all|whatever|everywhere)\s+else|(?:the\s+)?rest(?:\s+of\s+(?:the\s+|this\s+)?\w+)?"
    r"|(?:all\s+|any\s+)?(?:the\s+)?(?:other|others|remaining|unlabell?ed)(?:\s+(?:pixels?|areas?|regions?|parts?|things|stuff|objects|classes))?"
    r"|(?:the\s+)?background(?:\s+pixels?)?)"
)
_BETWEEN = (
    r"(?:\s+(?:is|are|in|as|on|at|to|with|should|must|be|being|stays?|staying|remains?|kept|left|painted|colou?red|gets?|goes|"
    r"becomes?|pure|plain|solid|completely|all|pixels?|of|the|this|that|image|picture|photo|scene))*"
    r"\s*(?:[:=(\[\"'|]|->|=>|→)*\s*"
)
_BACKGROUND_PATTERNS = (
    re.compile(
        rf"\b(?:on|over|onto|against|upon|with)\s+(?:an?\s+|the\s+)?(?:(?:plain|solid|uniform|flat|pure)\s+)?({_ANY_TOKEN})[)\]]?"
        r"[ -]+(?:colou?red\s+)?(?:background|backdrop|canvas)\b",
        _FLAGS,
    ),
    re.compile(
        rf"\ba(?:n|ll)?\s+(?:(?:plain|solid|uniform|flat|pure)\s+)?({_ANY_TOKEN})\s+(?:background|backdrop|canvas)\b",
        _FLAGS,
    ),
    re.compile(
        rf"({_ANY_TOKEN})[\"')\]]*(?: +(?:for|means|marks|on|is|as)| *(?:[:=]|->|=>|→))? +[\"']?{_ELSE}\b"
        rf"(?!\s*(?:[:=]|->|=>|→|{_ANY_TOKEN}))",
        _FLAGS,
    ),
    re.compile(rf"\b{_ELSE}\b[\"']?{_BETWEEN}({_ANY_TOKEN})", _FLAGS),
)

_CUT = re.compile(r"\s*(?:[,;\n|]|\.(?=\s|$|[\"'])|[!?](?=\s|$)|\s(?:and|while|plus|then|&)(?=\s))\s*", _FLAGS)

_QUANTIFIER = re.compile(r"(?:every single|each and every|every|each|all of the|all the|all|any|the|an|a)\s+", _FLAGS)
_LEAD = re.compile(
    r"(?:please|then|now|also|and|next|but|i want|i'd like|you should|you|can|could|would|paint|painting|colou?r|"
    r"colou?rs|colou?ring|mark|marking|draw|drawing|fill|filling|make|making|shade|shading|render|tint|highlight|"
    r"highlighting|use|using|with|where|so that|map|assign|label|show|segment|put|give|let|set|turn|keep|leave|class|"
    r"of|[-*•–]|\d+[.)])(?=\s|\ue002|$)\s*",
    _FLAGS,
)
_INTRO = re.compile(
    r".*\b(?:image|picture|photo|photograph|scene|frame|view|pixel|this|it|legend|palette|colou?rs?|mask|map|code|key|class(?:es)?)\b"
    r".*?\b(?:with|using|where|so that|so|by|such that|as follows|follows|to)\s+",
    _FLAGS,
)
_TAIL = re.compile(
    r"(?:\s*(?:[:=(\[\"'|]|->|=>|→)|(?:^|\s+)(?:[-–—]|should|must|is|are|be|being|gets?|in|as|to|with|by|becomes?|painted|"
    r"colou?red|shown|drawn|filled|marked|goes|using|uses|has|have|colou?r|of|solid|pure|bright|plain|a|an|the|pixels?|regions?|areas?))\s*$",
    _FLAGS,
)
_AFTER = re.compile(
    r"[\"')\]]*(?:\s*(?:[:=]|->|=>|→)|\s+(?:for|means?|marks?|is|are|denotes?|represents?|indicates?|stands for|"
    r"shows?|on|goes to|goes on|to|-|–|—))\s*(?=[\w\ue002\"'])",
    _FLAGS,
)
_ENDS = " \t\r\n\"'`()[]{}<>:=.,;*"


_NAMED_TOO = re.compile(rf"\s(?:in|as|with|to)\s+(?:pure\s+|bright\s+|solid\s+)?(?:{COLOR_NAME.pattern})\s*$", _FLAGS)


def normal_name(name: str) -> str:
    """Return a legend name without its leading quantifiers ("every", "the", "all the") and doubled spaces."""
    text = " ".join(name.split())
    while match := _QUANTIFIER.match(text):
        text = text[match.end() :]
    return text


def is_plain_name(name: str) -> bool:
    """Say whether a name reads back without quotes: it holds no colour, connector, separator or lead-in."""
    text = normal_name(name)
    return bool(
        re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9' /-]{0,78}[A-Za-z0-9])?", text)
        and not COLOR_NAME.search(text)
        and not _NUMERIC.search(text)
        and not _CUT.search(text)
        and not _LEAD.match(text)
        and not _TAIL.search(text)
        and not _INTRO.match(text + " ")
        and not re.search(rf"\b{_ELSE}\b", text, _FLAGS)
        and not re.search(r"^(?:for|means?|marks?|is|denotes?|shows?|on|to)\s|\s-\s", text, _FLAGS)
    )


def parse_legend(prompt: str) -> dict[str, Color]:
    """Recover the legend that a prompt states.

    Reads JSON-like maps, lists ("cat: #ff0000; dog = (0, 255, 0)"), lines and tables, sentences ("paint every cat
    red"), colour-first lists ("red for cat"), with #rrggbb, triples in or without brackets, and CSS colour names (so
    "green" is (0, 128, 0) and "lime" (0, 255, 0)). "Everything else", "the rest" and "on a black background" give
    the entry "background".

    Args:
        prompt: the whole instruction, at most 20,000 characters.

    Returns:
        Name to colour in the order of the text, names without leading "the", "every", "all"; empty when there is none.

    Raises:
        InputError: too long, or one name with two colours.
    """
    if len(prompt) > 20_000:
        raise InputError(f"prompt of {len(prompt)} characters: at most 20000")
    if legend := _parse_braces(prompt):
        outside = _parse_text(re.sub(r"\{[^{}]*\}", ";", prompt))
        return (
            legend if BACKGROUND in legend or BACKGROUND not in outside else {**legend, BACKGROUND: outside[BACKGROUND]}
        )
    return _parse_text(prompt)


_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_BRACE_ENTRY = re.compile(
    rf"(?P<key>{_STRING}|[^\s,{{}}:=][^,{{}}:=\n]*?)\s*(?::|=>|=)\s*(?P<value>{_STRING}|rgb\s*\([^)]*\)|[(\[][^)\]]*[)\]]|[^,;{{}}\n]+)",
    _FLAGS,
)


def _parse_braces(prompt: str) -> dict[str, Color]:
    """Read the entries of the first {...} that holds any."""
    for block in re.finditer(r"\{((?:\"(?:[^\"\\]|\\.)*\"|[^{}\"])*)\}", prompt):
        legend: dict[str, Color] = {}
        for entry in _BRACE_ENTRY.finditer(block[1]):
            key, value = entry["key"], entry["value"]
            try:
                _add(legend, _unquote(key), parse_color(_unquote(value)))
            except InputError as error:
                if "two colors" in str(error):
                    raise
                try:  # {"red": "cat"}
                    _add(legend, _unquote(value), parse_color(_unquote(key)))
                except InputError:
                    continue
        if legend:
            return legend
    return {}


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
    if re.fullmatch(_ELSE, key, _FLAGS):
        key = BACKGROUND
    if legend.setdefault(key, color) != color:
        raise InputError(f"legend gives {key!r} two colors, {legend[key]} and {color}: name each class once")


@dataclass
class _Marked:
    """A prompt with its colours and quoted names replaced by private-use tokens."""

    text: str
    colors: list[Color]
    originals: list[str]
    quotes: list[str]

    def restore(self, text: str) -> str:
        text = _TOKEN.sub(lambda match: self.originals[int(match[1])], text)
        return _QUOTED.sub(lambda match: self.quotes[int(match[1])], text)


def _mark(prompt: str) -> _Marked:
    marked = _Marked(re.sub("[\ue000-\ue003]", "", prompt), [], [], [])

    def color(match: re.Match[str]) -> str:
        try:
            value = parse_color(re.sub(r"(?<=\d)/(?=\d)", ",", match[0]))
        except InputError:
            return match[0]
        marked.colors.append(value)
        marked.originals.append(match[0])
        return f"\ue000{len(marked.colors) - 1}\ue001"

    def quote(match: re.Match[str]) -> str:
        inner = match[1] or match[2] or match[3]
        if _TOKEN.fullmatch(inner.strip()):
            return inner
        marked.quotes.append(marked.restore(inner))
        return f"\ue002{len(marked.quotes) - 1}\ue003"

    quotes = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)")
    numeric = _NUMERIC.sub(color, marked.text)
    if marked.colors:
        backgrounds = re.compile(
            rf"({_ELSE}\b[\"']?{_BETWEEN}|\b(?:on|over|onto|against|with)\s+an?\s+(?:\w+\s+)?)({COLOR_NAME.pattern})",
            _FLAGS,
        )
        numeric = backgrounds.sub(lambda m: m[1] + (COLOR_NAME.sub(color, m[2])), numeric)
        marked.text = quotes.sub(quote, numeric)
    else:
        marked.text = quotes.sub(quote, COLOR_NAME.sub(color, numeric))
    return marked


def _parse_text(prompt: str) -> dict[str, Color]:
    marked = _mark(prompt)
    text, background = marked.text, None
    for pattern in _BACKGROUND_PATTERNS:
        if match := pattern.search(text):
            background = marked.colors[int(_TOKEN.search(match[1])[1])]  # type: ignore[index]
            text = text[: match.start()] + "\n" + text[match.end() :]
            break
    entries = _entries(text)
    color_first = 2 * sum(_is_color_first(entry) for entry in entries) > len(entries)
    legend: dict[str, Color] = {}
    for entry in entries:
        tokens = list(_TOKEN.finditer(entry))
        token = tokens[0] if color_first else tokens[-1]
        name = _name_after(entry[token.end() :]) if color_first else _name_before(entry[: token.start()])
        color = marked.colors[int(token[1])]
        if not name and (parts := re.fullmatch(rf"({MODIFIERS})[ -](.+)", marked.originals[int(token[1])], _FLAGS)):
            name, color = parts[1], parse_color(parts[2])  # "the sky blue": the name is not part of the colour
        if name:
            _add(legend, marked.restore(name), color)
    if background is not None:
        legend.setdefault(BACKGROUND, background)
    return legend


def _entries(text: str) -> list[str]:
    """Cut into pieces with a colour; a piece that is only a colour ("cat, #ff0000") is joined to the one before."""
    entries: list[str] = []
    before = ""
    for piece in _CUT.split(text):
        if not _TOKEN.search(piece):
            before = piece
            continue
        bare = not _TOKEN.sub("", piece).strip(_ENDS)
        entries.append(f"{before} {piece}" if bare and before else piece)
        before = ""
    return entries


def _is_color_first(entry: str) -> bool:
    """Say whether the first colour stands before its name: "red for cat", "red = cat", "use red for the blue car"."""
    token = _TOKEN.search(entry)
    return token is not None and bool(_AFTER.match(entry[token.end() :])) and not _name_before(entry[: token.start()])


def _name_after(text: str) -> str:
    match = _AFTER.match(text)
    rest = text[match.end() :] if match else text
    if quoted := _QUOTED.search(rest):
        return quoted[0]
    return normal_name(rest.strip(_ENDS))


def _name_before(text: str) -> str:
    while match := _TAIL.search(text) or _NAMED_TOO.search(text):  # "in red (255, 0, 0)"
        text = text[: match.start()]
    if (quoted := list(_QUOTED.finditer(text))) and not text[quoted[-1].end() :].strip(_ENDS):
        return quoted[-1][0]
    text = re.split(r":(?=\s|$)", text)[-1]
    text = _without_lead(_INTRO.sub("", _without_lead(text.strip()), count=1).strip())
    return text.strip(_ENDS)


def _without_lead(text: str) -> str:
    while match := _LEAD.match(text) or _QUANTIFIER.match(text):
        text = text[match.end() :]
    return text
