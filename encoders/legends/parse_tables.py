"""Legends as tables in a prompt: Markdown, tabs, and comma or semicolon separated lines with a header."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.legends.parse_colors import HOW, read_channels, read_color
from cavendish.encoders.legends.parse_structured import (
    COLOR_FIELDS,
    NAME_FIELDS,
    OTHER_FIELDS,
    Entry,
    agreed,
    field_name,
)
from cavendish.encoders.sample import InputError

_PLURALS = ("names", "classes", "labels", "categories", "objects", "classnames", "colors", "colours", "palette")
_HEADER = {
    *NAME_FIELDS,
    *COLOR_FIELDS,
    *OTHER_FIELDS,
    *_PLURALS,
    "r",
    "g",
    "b",
    "red",
    "green",
    "blue",
    "no",
    "nr",
    "",
}
_RULE = re.compile(r"[\s|:+=-]*-[\s|:+=-]*")


def read_tables(text: str) -> tuple[list[Entry], str]:
    """Read tables; return their entries and the text without them."""
    lines = text.split("\n")
    entries: list[Entry] = []
    for delimiter in ("|", "\t", ",", ";", "  "):
        rows = [_cells(line, delimiter) for line in lines]
        for has, group in itertools.groupby(range(len(lines)), key=lambda number: len(rows[number])):
            numbers = list(group)
            if has < 2 or len(numbers) < 2:
                continue
            found = _table_entries([rows[number] for number in numbers], delimiter in ("|", "\t"))
            if found:
                entries += found
                for number in numbers:
                    lines[number] = ""
    return entries, "\n".join(lines)


def _cells(line: str, delimiter: str) -> list[str]:
    """Split a line into cells; none when it is no row of a table."""
    if delimiter == "|":
        if "|" not in line:
            return []
        line = line.strip().removeprefix("|").removesuffix("|")
        parts = re.split(r"(?<!\\)\|", line)
    elif delimiter == "  ":
        parts = re.split(r"\s{2,}", line.strip())
    else:
        parts = line.split(delimiter) if delimiter in line else []
    return [part.strip().strip("*`\"'").strip() for part in parts]


def _table_entries(rows: list[list[str]], sure: bool) -> list[Entry]:
    """Read the rows of a table; without a header only when it is surely one."""
    rows = [row for row in rows if not _RULE.fullmatch("|".join(row))]
    first = [field_name(cell) for cell in rows[0]] if rows else []
    header = first if first and _HEADER.issuperset(first) else None
    if header is None and not sure:
        return []
    body = rows[1:] if header is not None else rows
    columns = list(zip(*body))
    if not columns:
        return []
    channels = _channel_columns(header, columns)
    colored = [
        number
        for number, column in enumerate(columns)
        if number not in channels
        and (header is None or header[number] in COLOR_FIELDS)
        and (header is not None or all(_is_color(cell) for cell in column))
    ]
    if not channels and not colored:
        return []
    name = _name_column(header, columns, {*channels, *colored})
    if name is None:
        return []
    return [(row[name], _row_color(row, channels, colored)) for row in body]


def _channel_columns(header: list[str] | None, columns: list[tuple[str, ...]]) -> list[int]:
    for names in (("r", "g", "b"), ("red", "green", "blue")):
        if header is not None and all(header.count(name) == 1 for name in names):
            return [header.index(name) for name in names]
    numeric = [number for number, cells in enumerate(columns) if all(re.fullmatch(r"\d{1,3}", cell) for cell in cells)]
    consecutive = len(numeric) == 3 and numeric[2] - numeric[0] == 2
    return numeric if header is None and consecutive else []


def _is_color(cell: str) -> bool:
    try:
        return read_color(cell) is not None
    except InputError:
        return True


def _name_column(header: list[str] | None, columns: list[tuple[str, ...]], taken: set[int]) -> int | None:
    if header is not None:
        known = [header.index(name) for name in (*NAME_FIELDS, *_PLURALS) if name in header]
        known = [number for number in known if number not in taken and not all(c.isdigit() for c in columns[number])]
        if known:
            return known[0]
    free = [n for n in range(len(columns)) if n not in taken and not all(c.isdigit() or not c for c in columns[n])]
    return free[0] if free else None


def _row_color(row: Sequence[str], channels: Sequence[int], colored: Sequence[int]) -> Color:
    where = " | ".join(row)
    colors: list[tuple[str, Color]] = []
    for number in colored:
        try:
            color = read_color(row[number])
        except InputError as error:
            raise InputError(f"prompt: row {where!r}: {error}") from None
        if color is None and (row[number] or len(colored) == 1):
            raise InputError(f"prompt: row {where!r}: {row[number]!r} is no color: {HOW}")
        colors += [] if color is None else [(row[number], color)]
    if channels:
        numbers = [row[number] for number in channels]
        if not all(re.fullmatch(r"\d+(?:\.\d+)?%?", number) for number in numbers):
            raise InputError(f"prompt: row {where!r}: {', '.join(numbers)} is no color: {HOW}")
        colors.append((", ".join(numbers), read_channels(numbers, ", ".join(numbers))))
    if not colors:
        raise InputError(f"prompt: row {where!r} has no color: {HOW}")
    return agreed(colors, where)
