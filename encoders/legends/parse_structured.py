"""Legends as data in a prompt: JSON and its relatives, YAML records.

Each reader takes a text, finds what it can read, and returns the entries together with the text around them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.encoders.codecs.palettes import Color, color_distance
from cavendish.encoders.legends.parse_colors import HOW, read_channels, read_color
from cavendish.encoders.legends.parse_patterns import FLAGS
from cavendish.encoders.sample import InputError

Entry = tuple[str, Color]

SAME_COLOR = 180.0
"""A color that is named and given in numbers is what the numbers say; farther from what the name says they disagree."""

NAME_FIELDS = (
    *("name", "class", "classname", "label", "labelname", "category", "categoryname", "object", "title", "displayname"),
    *("text", "expression", "description", "phrase", "key", "target", "item", "type", "id"),
)
COLOR_FIELDS = (
    *("rgb", "hex", "color", "colour", "hexcolor", "rgbcolor", "hexcode", "colorhex", "colorcode", "colorrgb"),
    *("colorname", "rgba", "hsl", "css", "html", "fill", "paint", "value", "code"),
)
OTHER_FIELDS = (
    *("id", "index", "idx", "count", "version", "isthing", "supercategory", "trainid", "ignore", "comment", "note"),
    *("notes", "description", "task", "type", "format", "alpha", "opacity", "prompt", "image", "instruction", "title"),
)
_MAX_DEPTH = 12
_MAX_STARTS = 20


def agreed(colors: Sequence[tuple[str, Color]], where: str) -> Color:
    """Return the one color that is said in several notations, such as "red (#ff0000)": what the numbers say.

    Raises:
        InputError: they are too far apart to be one.
    """
    exact = [color for text, color in colors if re.search(r"\d|#", text)] or [color for _, color in colors]
    if len({*exact}) > 1 or any(color_distance(exact[0], color) > SAME_COLOR for _, color in colors):
        raise InputError(f"prompt: {where!r} gives two colors, {' and '.join(text for text, _ in colors)}: write one")
    return exact[0]


# Data: objects and lists, as JSON, Python, JavaScript and people write them.


def read_data(text: str) -> tuple[list[Entry], str]:
    """Read every object or list that names colors; return their entries and the text without them."""
    entries: list[Entry] = []
    flat: list[tuple[list[Any], int, int]] = []
    position = 0
    for _ in range(_MAX_STARTS):
        match = re.compile(r"[{\[]").search(text, position)
        if match is None:
            break
        position = match.start() + 1
        found = _parse_at(text, match.start())
        if found is None:
            continue
        data, end = found
        read = [] if color_of(data) or _is_flat(data) else list(_entries(data, None))
        if read:
            entries += read
            text = text[: match.start()] + ";\n" + text[end:]
            position = match.start() + 2
        elif isinstance(data, list) and len(data) > 0 and not color_of(data):
            flat.append((data, match.start(), end))
            position = end
    if (
        not entries
        and len(flat) == 2
        and len(flat[0][0]) == len(flat[1][0])
        and (pairs := _zipped(flat[0][0], flat[1][0]))
    ):
        return pairs, text[: flat[0][1]] + "\n" + text[flat[1][2] :]  # classes = [...], colors = [...]
    return entries, text


def _parse_at(text: str, start: int) -> tuple[Any, int] | None:
    try:
        data, end = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(text, start)
        return data, end
    except InputError:
        raise
    except (ValueError, RecursionError):
        pass
    try:
        return _Data(text).value(start, 0)
    except ValueError:
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise InputError(f"legend gives {name!r} two colors, {found[name]} and {value}: name each class once")
    return found


def _is_flat(data: Any) -> bool:
    """Tell whether a list holds names alone or colors alone: "cat [red]"."""
    if not isinstance(data, list) or _row_entry(data) is not None:
        return False
    return not any(isinstance(item, Mapping | list) and color_of(item) is None for item in data)


_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.){0,300})\"|'((?:[^'\\\n]|\\.){0,300})'|“([^”\n]{0,300})”|`([^`\n]{0,300})`")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?![\w.%#])")
_BARE = re.compile(r"[^,;:={}\[\]()\"\n]{1,300}")
_CALL = re.compile(r"[a-z]{2,5}\s*\([^()\n]{0,90}\)", FLAGS)
_PAIR = re.compile(r"\s*(?::|=>|->|→|=|：)\s*")
_CLOSING = {"{": "}", "[": "]", "(": ")"}


@dataclass
class _Data:
    """A tolerant reader of nested values: quotes of any kind or none, round brackets, trailing commas, comments."""

    text: str

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the value that starts at a position, and where it ends; ValueError when there is none."""
        at = self.skip(at)
        if depth > _MAX_DEPTH or at >= len(self.text):
            raise ValueError
        if self.text[at] in _CLOSING:
            return self.container(at, depth)
        if match := _STRING.match(self.text, at):
            return _unescape(match), match.end()
        if match := _NUMBER.match(self.text, at):
            return (float(match[0]) if "." in match[0] else int(match[0])), match.end()
        match = _CALL.match(self.text, at) or _BARE.match(self.text, at)
        if match is None:
            raise ValueError
        return match[0].strip(), match.end()

    def container(self, at: int, depth: int) -> tuple[Any, int]:
        """Return a dict or a list; an opened bracket decides which."""
        opening, closing = self.text[at], _CLOSING[self.text[at]]
        pairs: dict[Any, Any] = {}
        items: list[Any] = []
        at = self.skip(at + 1)
        while not self.text.startswith(closing, at):
            item, at = self.value(at, depth + 1)
            match = _PAIR.match(self.text, at)
            if match is not None and opening != "(":
                value, at = self.value(match.end(), depth + 1)
                pairs = _unique([*pairs.items(), (str(item), value)])
            else:
                items.append(item)
            at = self.skip(at)
            if self.text[at : at + 1] in (",", ";", "，", "、"):
                at = self.skip(at + 1)
        if pairs and items:
            raise ValueError
        return (pairs if opening == "{" or pairs else items), at + 1

    def skip(self, at: int) -> int:
        """Return the position after white space and comments."""
        match = _SPACE.match(self.text, at)
        return at if match is None else match.end()


def _unescape(match: re.Match[str]) -> str:
    if match[1] is not None:
        try:
            return str(json.loads(match[0]))
        except ValueError:
            return match[1]
    inner = next(group for group in match.groups() if group is not None)
    return re.sub(r"\\(.)", r"\1", inner)


def color_of(value: Any) -> Color | None:
    """Return the color that a value is: a text, three numbers, or an object of r, g and b."""
    if isinstance(value, str):
        return read_color(value)
    if isinstance(value, Mapping):
        fields = {field_name(key): number for key, number in value.items()}
        names = next((n for n in (("r", "g", "b"), ("red", "green", "blue")) if {*n} <= {*fields}), None)
        if names is None or not {*fields} <= {*names, "a", "alpha"}:
            return None
        value = [fields[name] for name in names]
    if isinstance(value, list) and len(value) in (3, 4) and all(_is_number(number) for number in value):
        return read_channels([str(number) for number in value], str(value))
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def field_name(key: object) -> str:
    return re.sub(r"[\s_-]+", "", str(key)).lower()


def _entries(data: Any, key: str | None) -> Iterator[Entry]:
    """Yield name and color of everything in a value; `key` is what it stands under."""
    if isinstance(data, Mapping):
        yield from _object_entries(data, key)
    elif isinstance(data, list):
        yield from _list_entries(data, key)


def _object_entries(data: Mapping[str, Any], key: str | None) -> Iterator[Entry]:
    fields = {field_name(name): value for name, value in data.items()}
    columns = [value for value in data.values() if isinstance(value, list) and len(value) > 0]
    if len(columns) == 2 and len(columns[0]) == len(columns[1]) and (pairs := _zipped(*columns)):
        yield from pairs
        columns_used = {id(columns[0]), id(columns[1])}
        data = {name: value for name, value in data.items() if id(value) not in columns_used}
    elif (record := _record(fields, key)) is not None:
        yield record
        return
    direct = [name for name, value in data.items() if color_of(value) is not None or color_of(name) is not None]
    for name, value in data.items():
        if (color := color_of(value)) is not None:
            yield name, color
        elif (color := color_of(name)) is not None and isinstance(value, str):
            yield value, color
        elif color is not None and isinstance(value, list) and all(isinstance(item, str) for item in value):
            yield from ((item, color) for item in value)
        elif isinstance(value, list) and len(value) == 1 and (color := color_of(value[0])) is not None:
            yield name, color
        elif isinstance(value, Mapping | list) and value:
            yield from _entries(value, name)
        elif direct and field_name(name) not in OTHER_FIELDS:
            raise InputError(f"prompt: {name!r}: {value!r} is no color: {HOW}")


def _zipped(first: list[Any], second: list[Any]) -> list[Entry] | None:
    """Pair a list of names with a list of colors."""
    for names, colors in ((first, second), (second, first)):
        values = [color_of(color) for color in colors]
        plain = all(isinstance(name, str) and name and read_color(name) is None for name in names)
        if plain and all(value is not None for value in values):
            return [(name, value) for name, value in zip(names, values) if value is not None]
    return None


def _record(fields: Mapping[str, Any], key: str | None) -> Entry | None:
    """Read an object that is one class: a field for its color, one for its name (or the key that it stands under)."""
    colors = [
        (str(fields[name]), color)
        for name in COLOR_FIELDS
        if name in fields and (color := color_of(fields[name])) is not None
    ]
    if not colors:
        return None
    named = [fields[name] for name in NAME_FIELDS if isinstance(fields.get(name), str) and fields[name].strip()]
    texts = [
        value
        for name, value in fields.items()
        if isinstance(value, str) and name not in (*COLOR_FIELDS, *OTHER_FIELDS) and read_color(value) is None
    ]
    if not named and key is None and len(texts) != 1:
        others = [name for name in fields if name not in (*COLOR_FIELDS, *OTHER_FIELDS)]
        if others:
            return None  # {"cat": "red", "value": "blue"}: names that are words for fields too
        raise InputError(f"prompt: color {colors[0][0]!r} has no name beside it: give each object a name and a color")
    known = {*COLOR_FIELDS, *NAME_FIELDS, *OTHER_FIELDS}
    if not named and key is not None and not {*fields} <= known:
        return None
    if not named and key is None and any(name not in known for name in fields if fields[name] != texts[0]):
        return None
    name = named[0] if named else key if key is not None else texts[0]
    return name, agreed(colors, name)


def _list_entries(data: list[Any], key: str | None) -> Iterator[Entry]:
    if (row := _row_entry(data)) is not None:
        yield row
        return
    for item in data:
        if color_of(item) is not None:
            where = "" if key is None else f"{key!r}: "
            raise InputError(f"prompt: {where}color {item!r} has no name beside it")
        if isinstance(item, Mapping | list):
            yield from _entries(item, None)


def _row_entry(data: list[Any]) -> Entry | None:
    """Read ["cat", "red"], ["cat", [255, 0, 0]], ["cat", 255, 0, 0], [1, "cat", "red"]."""
    names = [item for item in data if isinstance(item, str) and read_color(item) is None]
    rest = [item for item in data if item not in names]
    numbers = [item for item in rest if _is_number(item)]
    colors = [(str(item), color) for item in rest if (color := color_of(item)) is not None]
    if len(names) != 1 or not names[0].strip():
        return None
    if colors and len(colors) + len(numbers) == len(rest) and len(numbers) <= 1:
        return names[0], agreed(colors, names[0])
    if not colors and len(numbers) == len(rest) == 3 and (color := color_of(numbers)) is not None:
        return names[0], color
    return None


# Records: lines of "color: red" below the line that names the class, as YAML has them.

_RECORD_LINE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<dash>-[ \t]+)?(?P<key>[^\s:#][^:\n]{0,100}?)[ \t]*:[ \t]*(?P<value>.*)$"
)


def read_records(text: str) -> tuple[list[Entry], str]:
    """Read YAML-like records; return their entries and the text without their lines."""
    lines = text.split("\n")
    entries: list[Entry] = []
    used: set[int] = set()
    heads: list[tuple[int, str, int]] = []  # indent, name and line of what a color line may belong to
    for number, line in enumerate(lines):
        match = _RECORD_LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"].expandtabs()) + len(match["dash"] or "")
        field, value = field_name(match["key"].strip("\"'*`")), match["value"].strip()
        if field in COLOR_FIELDS and heads and indent >= heads[-1][0] and (color := read_color(value)) is not None:
            entries.append((heads[-1][1], color))
            used |= {heads[-1][2], number}
            continue
        if field in ("color", "colour", "rgb", "hex") and entries and heads and indent >= heads[-1][0]:
            raise InputError(f"prompt: {heads[-1][1]!r}: {value!r} is no color: {HOW}")
        if field in NAME_FIELDS[:-1] and value and read_color(value) is None:
            heads.append((indent, value.strip("\"'"), number))
        elif not value and not match["dash"] and number + 1 < len(lines) and _indent(lines[number + 1]) > indent:
            heads.append((indent + 1, match["key"].strip("\"'*`"), number))
        elif heads and indent >= heads[-1][0] and field in OTHER_FIELDS:
            used.add(number)
    if not entries:
        return [], text
    return entries, "\n".join("" if number in used else line for number, line in enumerate(lines))


def _indent(line: str) -> int:
    return len(line.expandtabs()) - len(line.expandtabs().lstrip())
