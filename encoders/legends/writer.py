"""Write a legend, class or expression to color, in the notations people type; `legends.parser` reads them back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cavendish.encoders.codecs.palettes import Color, format_hex, format_triple, name_of
from cavendish.encoders.draws import one_of
from cavendish.encoders.legends.parse_colors import read_color
from cavendish.encoders.legends.parse_patterns import MODIFIERS
from cavendish.encoders.legends.parser import BACKGROUND, Legend, is_plain_name
from cavendish.encoders.sample import InputError

COLOR_FORMATS = ("hex", "HEX", "(r, g, b)", "[r, g, b]", "r, g, b", "r g b", "rgb(r, g, b)", "name")
"""How one colour is written. "name" needs every colour to be in COLOR_NAMES."""

STRUCTURES = ("json", "python", "colon", "equals", "arrow", "parentheses", "lines", "table", "color-first", "sentence")
"""How the entries are put together."""


def format_color(color: Color, color_format: str) -> str:
    """Write one colour in one of COLOR_FORMATS.

    Raises:
        InputError: "name" for a colour that has none, or an unknown format.
    """
    if color_format == "name":
        if (name := name_of(color)) is None:
            raise InputError(f"color {color} has no name in COLOR_NAMES: write it in numbers")
        return name
    if color_format in ("hex", "HEX"):
        return format_hex(color, upper=color_format == "HEX")
    if color_format == "r g b":
        return "{} {} {}".format(*color)
    brackets = {"(r, g, b)": "()", "[r, g, b]": "[]", "r, g, b": "", "rgb(r, g, b)": "rgb()"}
    if color_format not in brackets:
        raise InputError(f"color format {color_format!r}: known are {', '.join(COLOR_FORMATS)}")
    return format_triple(color, brackets[color_format])


@dataclass(frozen=True)
class Notation:
    """How one legend is written: a structure of STRUCTURES, a colour format of COLOR_FORMATS."""

    structure: str
    color_format: str


def notations_for(legend: Legend) -> tuple[Notation, ...]:
    """Return the notations that can carry this legend so that it reads back.

    Names with commas, quotes, colour words and the like only go into quotes ("json", "python"); colours without a name
    are not written by name; triples without brackets never share their commas with the list.
    """
    plain = all(name == BACKGROUND or is_plain_name(name) for name in legend)
    named = all(name_of(color) is not None for color in legend.values())
    structures = STRUCTURES if plain else ("json", "python")
    formats = tuple(text for text in COLOR_FORMATS if named or text != "name")
    return tuple(
        Notation(s, f) for s in structures for f in formats if not (s == "table" and f in ("r, g, b", "r g b"))
    )


def write_legend(legend: Legend, notation: Notation, rng: np.random.Generator, every: str = "") -> str:
    """Write a legend so that `parse_legend` reads it back.

    Args:
        legend: name to colour, in order; "background" may be one of the names.
        notation: one of `notations_for(legend)`.
        rng: draws separators, connectors and sentence wordings.
        every: for sentences, what stands before a class name ("every ", "the "); empty for expressions.
    """
    entries = [(name, format_color(color, notation.color_format)) for name, color in legend.items()]
    return _WRITERS[notation.structure](entries, notation.color_format, rng, every)


Entries = Sequence[tuple[str, str]]


def _separator(color_format: str, rng: np.random.Generator) -> str:
    return one_of(("; ", "\n"), rng) if color_format in ("r, g, b", "r g b") else one_of((", ", "; ", "\n", ", "), rng)


def _written(text: str) -> Color:
    color = read_color(text)
    assert color is not None
    return color


def _write_json(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    lists = color_format in ("(r, g, b)", "[r, g, b]", "r, g, b", "r g b")
    data = {name: list(_written(color)) if lists else color for name, color in entries}
    if rng.random() < 0.3:
        rows = [f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(value)}" for name, value in data.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    return json.dumps(data, ensure_ascii=False, separators=(",", ":") if rng.random() < 0.2 else None)


def _write_python(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    numbers = color_format not in ("hex", "HEX", "name", "rgb(r, g, b)")
    rows = [f"{name!r}: {format_triple(_written(color)) if numbers else repr(color)}" for name, color in entries]
    return "{" + ", ".join(rows) + "}"


def _write_joined(connectors: Sequence[str]) -> Callable[[Entries, str, np.random.Generator, str], str]:
    def write(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
        connector, separator = one_of(connectors, rng), _separator(color_format, rng)
        return separator.join(f"{name}{connector}{color}" for name, color in entries)

    return write


def _write_parentheses(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    bracketed = color_format in ("(r, g, b)", "[r, g, b]")
    return ", ".join(f"{name} {color}" if bracketed else f"{name} ({color})" for name, color in entries)


def _write_lines(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    bullet, connector = one_of(("- ", "* ", "  ", ""), rng), one_of((": ", " = ", " -> ", " - "), rng)
    return "\n".join(f"{bullet}{name}{connector}{color}" for name, color in entries)


def _write_table(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    if rng.random() < 0.5:
        return "\n".join(["| class | color |", "|---|---|", *(f"| {name} | {color} |" for name, color in entries)])
    return "\n".join(["class\tcolor", *(f"{name}\t{color}" for name, color in entries)])


def _write_color_first(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    connector = one_of((" for ", " = ", ": ", " -> ", " means ", " for "), rng)
    separator = _separator(color_format, rng)
    return separator.join(f"{color}{connector}{name}" for name, color in entries)


_SENTENCES = (
    ("Paint ", "{every}{name} {color}", ", ", " and ", "."),
    ("Paint ", "{every}{name} in {color}", ", ", " and ", "."),
    ("Color ", "{every}{name} {color}", ", ", ", and ", "."),
    ("Make ", "{every}{name} {color}", ", ", " and ", "."),
    ("Draw ", "{every}{name} in {color}", ", ", ", ", "."),
    ("Fill ", "{every}{name} with {color}", ", ", " and ", "."),
    ("Mark ", "{every}{name} in {color}", "; mark ", "; mark ", "."),
    ("Show ", "{every}{name} as {color}", ", ", " and ", "."),
    ("", "{name} should be {color}", ", ", " and ", "."),
    ("", "{name} is {color}", ". ", ". ", "."),
    ("", "{name} in {color}", ", ", " and ", "."),
    ("", "{name} gets {color}", ", ", ", ", "."),
    ("Use ", "{color} for {every}{name}", ", ", " and ", "."),
    ("Put ", "{color} on {every}{name}", ", ", " and ", "."),
)


_FUSES = re.compile(rf"\b(?:{MODIFIERS})$", re.IGNORECASE)  # "every sky blue": the sky in blue, or sky blue?


def _write_sentence(entries: Entries, color_format: str, rng: np.random.Generator, every: str) -> str:
    fused = color_format == "name" and any(_FUSES.search(name) for name, _ in entries)
    sentences = [row for row in _SENTENCES if not fused or "{name} {color}" not in row[1]]
    start, item, separator, last, end = one_of(sentences, rng)
    items = [item.format(every="" if name == BACKGROUND else every, name=name, color=color) for name, color in entries]
    if color_format in ("r, g, b", "r g b"):
        separator, last = "; ", "; "
    text = separator.join(items[:-1]) + (last if len(items) > 1 else "") + items[-1]
    return start + text + end


_WRITERS: Mapping[str, Callable[[Entries, str, np.random.Generator, str], str]] = {
    "json": _write_json,
    "python": _write_python,
    "colon": _write_joined((": ", ":", " : ")),
    "equals": _write_joined((" = ", "=")),
    "arrow": _write_joined((" -> ", " => ", " → ")),
    "parentheses": _write_parentheses,
    "lines": _write_lines,
    "table": _write_table,
    "color-first": _write_color_first,
    "sentence": _write_sentence,
}
