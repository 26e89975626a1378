"""Read a legend back from a prompt, in the notations people type: each color belongs to a name, or is refused.

Data (`parse_structured`, `parse_tables`) is read first, then the text around it as sentences and lists
(`parse_sentences`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cavendish.encoders.codecs.palettes import BLACK, Color, color_distance
from cavendish.encoders.legends.parse_patterns import COLOR_NAME, CUT, ELSE, FLAGS, INTRO, LEAD, PLAIN_NUMERIC, TAIL
from cavendish.encoders.legends.parse_sentences import is_background, normal_name, read_sentences
from cavendish.encoders.legends.parse_structured import read_data, read_records
from cavendish.encoders.legends.parse_tables import read_tables
from cavendish.encoders.sample import InputError

__all__ = ["BACKGROUND", "Legend", "is_plain_name", "normal_name", "parse_legend", "quote_if_needed"]

Legend = Mapping[str, Color]
"""Name to color, in order. The entry named "background" is the color of everything else."""

BACKGROUND = "background"

MAX_PROMPT = 10_000
EQUAL_DISTANCE = 10.0
"""Colors of one legend that are nearer than this in RGB are refused: two levels of noise mix them up."""

NEAR_DISTANCE = 40.0
"""Nearer than this they are warned of."""


def is_plain_name(name: str) -> bool:
    """Say whether a name reads back without quotes: it holds no color, connector, separator or lead-in."""
    text = normal_name(name)
    return bool(
        re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9' /-]{0,78}[A-Za-z0-9])?", text)
        and not COLOR_NAME.search(text)
        and not PLAIN_NUMERIC.search(text)
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

    Reads JSON of any usual shape (name to color, color to name, lists of objects, nested, pairs, parallel lists),
    Python and YAML, tables, lists ("cat: #ff0000; dog = (0, 255, 0)"), sentences ("paint every cat red") and
    color-first lists ("red for cat"); colors in any CSS notation, as triples, or by CSS name (so "green" is
    (0, 128, 0) and "lime" (0, 255, 0)). "Everything else", "the rest" and "on a black background" give the entry
    "background".

    Args:
        prompt: the whole instruction, at most 10,000 characters.

    Returns:
        Name to color in the order of the text, names without leading "the", "every", "all"; empty when there is none.

    Raises:
        InputError: too long, one name with two colors, or a piece that is not understood; the message quotes it.
    """
    if len(prompt) > MAX_PROMPT:
        raise InputError(f"prompt of {len(prompt)} characters: at most {MAX_PROMPT}")
    entries, text = read_data(_INVISIBLE.sub("", prompt).replace("\r\n", "\n"))
    text = _plain_text(text)
    for read in (read_records, read_tables):
        found, text = read(text)
        entries += found
    found, background = read_sentences(re.sub(r"[^\S\n]+", " ", text))
    legend: dict[str, Color] = {}
    for name, color in [*entries, *found, *([] if background is None else [(BACKGROUND, background)])]:
        _add(legend, name, color)
    return legend


def _add(legend: dict[str, Color], name: str, color: Color) -> None:
    key = normal_name(name)
    if is_background(key):
        key = BACKGROUND
    if not key:
        raise InputError(f"prompt: the color {color} has an empty name")
    if legend.setdefault(key, color) != color:
        raise InputError(f"legend gives {key!r} two colors, {legend[key]} and {color}: name each class once")


def near_colors(legend: Legend, background: Color = BLACK) -> list[str]:
    """Say which colors of a legend are so near to each other that a drawn answer may mix them up, one line each.

    Raises:
        InputError: two are equal, or practically so; the message names both.
    """
    rows = [*((name, color) for name, color in legend.items() if name != BACKGROUND), (BACKGROUND, background)]
    warnings = []
    for number, (name, color) in enumerate(rows):
        for other, beside in rows[number + 1 :]:
            distance = color_distance(color, beside)
            if distance >= NEAR_DISTANCE:
                continue
            pair = f"{name!r} and {other!r}"
            if distance < EQUAL_DISTANCE:
                raise InputError(f"legend: {pair} have the same color, {color} and {beside}: give each its own")
            warnings.append(f"legend: the colors of {pair}, {color} and {beside}, are near: answers may mix them up")
    return warnings


_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ue000-\ue003\x00-\x08\x0b-\x1f]"
)
_WIDE = str.maketrans(
    {
        **dict(zip("：；，、＝｜＃％＆。！？　", ":;,,=|#%&\n!? ")),
        **dict(zip("０１２３４５６７８９", "0123456789")),
        **dict(zip("⇒➔➜⟶➡⟹", "→→→→→→")),
        **dict(zip("「」『』«»„‟", "“”“”“”““")),
        **dict(zip("\u2028\u2029\u0085", "\n\n\n")),
    }
)


def _plain_text(text: str) -> str:
    """Take away what only shapes a text: full-width separators, Markdown marks, simple HTML tags."""
    text = text.translate(_WIDE).replace("\\n", "\n")
    text = re.sub(r"<br\s*/?>|</(?:li|p|tr|div)>", "\n", text, flags=FLAGS)
    text = re.sub(
        r"</?(?:b|i|em|strong|u|code|li|ul|ol|p|span|div|td|tr|th|table|tbody|thead)>", " ", text, flags=FLAGS
    )
    text = re.sub(r"^[ \t]*(?:#{1,6}(?=\s)|[>+](?=\s)|[-*+][ \t]+\[[ xX]?\])[ \t]*", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*|__(?=\S)|(?<=\S)__|~~|`", "", text)
    text = re.sub(r"\b\w+\(\s*(?=\w+\s*=\s*[\"'(\[#])", "", text)  # dict(cat="red")
    text = re.sub(
        r"(?:^[ \t]*\d{1,3}[ \t:.)-]+(?=[^\s\d(\[]).*(?:\n|$)){2,}", _without_numbers, text, flags=re.MULTILINE
    )
    return re.sub(r"(?<![\w*])\*(\S(?:[^*\n]{0,80}\S)?)\*(?![\w*])", r"\1", text)


def _without_numbers(match: re.Match[str]) -> str:
    """Take away the numbers of numbered lines, when each is one more than that before."""
    lines = match[0].split("\n")
    found = [re.match(r"\s*(\d+)[\s:.)-]+", line) for line in lines if line.strip()]
    numbers = [int(one[1]) for one in found if one is not None]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return match[0]
    return "\n".join(re.sub(r"^\s*\d+[\s:.)-]+", "", line) for line in lines)
