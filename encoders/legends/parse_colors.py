"""Colors in text: CSS names, hex codes, triples and CSS functions; and what looks like a color and cannot be one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cavendish.encoders.codecs.palettes import CSS_COLORS, Color
from cavendish.encoders.legends.parse_patterns import COLOR_NAME, FLAGS
from cavendish.encoders.sample import InputError

HOW = "write #rrggbb, (r, g, b) with 0 to 255, or a CSS color name"

_NUMBER = r"[-+]?\d{1,5}(?:\.\d{1,5})?%?"
_GAP = r"(?:\s*[,，、;/]\s*|\s+)"
_FUNCTION = (
    r"(?:\b(?:rgba?|hsla?|hwb|(?:ok)?lab|(?:ok)?lch)\s*|\bcolor(?=\((?:srgb|display|a98|prophoto|rec2020|xyz)))"
    r"\(\s*(?:[-+.\d]|none|srgb|display|a98|prophoto|rec2020|xyz)[^()\n]{0,80}\)"
)
_TRIPLE = rf"{_NUMBER}{_GAP}{_NUMBER}{_GAP}{_NUMBER}"
_BRACKETS = rf"(?:\brgba?\s*[:=]?\s*)?[(\[（【]\s*{_TRIPLE}(?:\s*[,，、/]\s*{_NUMBER})?\s*[)\]）】]"
_CHANNELS = r"\br\s*[:=]?\s*\d{1,4}%?\s*[,;/]?\s*g\s*[:=]?\s*\d{1,4}%?\s*[,;/]?\s*b\s*[:=]?\s*\d{1,4}%?(?!\w)"
_BARE = (
    r"(?:\brgb\s*[:=]?\s+|\brgb[:=]\s*)?(?<![\w.])(?<!\d,)\d{1,3}%?(?:\s*,\s*|[ /])\d{1,3}%?(?:\s*,\s*|[ /])\d{1,3}%?"
    r"(?![\w]|\.\d)"
)
_HEX = (
    r"\#[0-9a-f]{3,12}(?!\w)|\b0x[0-9a-f]{6,8}\b"
    r"|(?:(?<=[:=>→])|(?<=[:=>→]\s)|(?<=hex\s))(?=[0-9a-f]*\d)[0-9a-f]{6}(?![\w.])"
)

_MODIFIERS = (
    "light|dark|pale|deep|neon|medium|hot|pastel|vivid|soft|dusty|electric|dull|muted|warm|cool|baby|rich|faded|very|"
    "intense|brilliant|fluorescent|metallic|royal|burnt|jet|off|dirty|midnight|greyish|grayish|bluish|greenish|reddish|"
    "yellowish|brownish|purplish|pinkish"
)
_BASES = (
    "red|green|blue|yellow|orange|purple|pink|brown|gr[ae]y|black|white|cyan|magenta|teal|violet|gold|silver|beige|"
    "turquoise|maroon|navy|olive|lime|indigo|crimson|tan"
)
_OTHER_WORDS = (
    "scarlet|burgundy|amber|emerald|jade|lilac|mauve|ochre|vermilion|cerulean|cobalt|ultramarine|taupe|fuschia|"
    "charcoal|mustard|sapphire|ruby|apricot|aubergine|cerise|puce|sepia|umber|transparent|colou?rless|rainbow"
)
NO_COLOR = re.compile(
    rf"(?<![\w#-])(?<!traffic )(?<!street )(?:(?:(?:{_MODIFIERS})[ -]+)+(?:{_BASES})|{_OTHER_WORDS})(?![\w-])", FLAGS
)
"""Words for a color that CSS does not name: "light red", "scarlet"."""

NUMERIC = re.compile(f"{_FUNCTION}|{_BRACKETS}|{_CHANNELS}|{_BARE}|{_HEX}", FLAGS)
COLOR = re.compile(f"(?P<number>{NUMERIC.pattern})|(?P<name>{COLOR_NAME.pattern})|(?P<none>{NO_COLOR.pattern})", FLAGS)


@dataclass(frozen=True)
class FoundColor:
    """A color in a text: as written, its value (None: `problem` says why it has none), and whether in numbers."""

    text: str
    value: Color | None
    problem: str = ""
    numeric: bool = False


def find_color(match: re.Match[str]) -> FoundColor:
    """Read a match of COLOR."""
    text, numeric = match[0], match["number"] is not None
    try:
        value = read_color(text)
    except InputError as error:
        return FoundColor(text, None, str(error), numeric)
    return FoundColor(text, value, "" if value else f"color {text!r} is not one: {HOW}", numeric)


def read_color(text: str) -> Color | None:
    """Read one color in any CSS notation, as a triple in or without brackets, or as 0xrrggbb.

    Returns:
        sRGB; None when the text is no notation of a color.

    Raises:
        InputError: it is one, but its numbers are out of range, it is transparent, or CSS has no such name.
    """
    stripped = text.strip().strip("\"'`*“”‘’「」").strip()
    if (name := re.sub(r"[\s_-]+", "", stripped).lower()) in CSS_COLORS:
        return CSS_COLORS[name]
    if match := re.fullmatch(r"(?:#|0x)([0-9a-f]+)", stripped, FLAGS):
        return _read_hex(match[1], stripped)
    if re.fullmatch(r"(?=.*\d)[0-9a-f]{6}", stripped, FLAGS):
        return _read_hex(stripped, stripped)
    if re.fullmatch(_FUNCTION, stripped, FLAGS) and not re.match(r"rgb", stripped, FLAGS):
        return _read_function(stripped)
    if re.fullmatch(f"{_FUNCTION}|{_BRACKETS}|{_CHANNELS}|{_BARE}", stripped, FLAGS):
        return read_channels(re.findall(_NUMBER, re.sub(r"^rgba?", "", stripped, flags=FLAGS)), stripped)
    if NO_COLOR.fullmatch(stripped):
        raise InputError(f"color {stripped!r} is none that CSS names: {HOW}")
    return None


def read_channels(numbers: list[str], text: str) -> Color:
    """Read red, green, blue and perhaps alpha: integers from 0 to 255, or percentages.

    Raises:
        InputError: out of range, a fraction, or an alpha that is not whole.
    """
    if len(numbers) not in (3, 4):
        raise InputError(f"color {text!r} has {len(numbers)} numbers: {HOW}")
    if len(numbers) == 4 and float(numbers[3].rstrip("%")) not in ((100,) if "%" in numbers[3] else (1, 255)):
        raise InputError(f"color {text!r} is not opaque: a class needs one solid color")
    percent = [number.endswith("%") for number in numbers[:3]]
    if any(percent) and not all(percent):
        raise InputError(f"color {text!r} mixes percentages and numbers: {HOW}")
    values = [float(number.rstrip("%")) for number in numbers[:3]]
    most = 100 if any(percent) else 255
    if not all(0 <= value <= most for value in values):
        raise InputError(f"color {text!r} is out of range: {HOW}")
    if any(percent):
        values = [round(value * 2.55) for value in values]
    if any(value != int(value) for value in values) or any("." in number for number in numbers[:3] if not any(percent)):
        raise InputError(f"color {text!r} is in fractions: {HOW}")
    return int(values[0]), int(values[1]), int(values[2])


def _read_hex(digits: str, text: str) -> Color:
    if len(digits) in (3, 4):
        digits = "".join(2 * digit for digit in digits)
    if len(digits) not in (6, 8) or (text[1:2] in "xX" and len(digits) == 8):
        raise InputError(f"color {text!r} has not 3, 4, 6 or 8 digits: {HOW}")
    if digits[6:].lower() not in ("", "ff"):
        raise InputError(f"color {text!r} is not opaque: a class needs one solid color")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _read_function(text: str) -> Color:
    from coloraide import Color as CssColor  # takes 0.2 s to import, and few prompts need it

    match = CssColor.match(re.sub(r"\s+\(", "(", text.lower()), fullmatch=True)
    if match is None:
        raise InputError(f"color {text!r} is not valid CSS: {HOW}")
    color = match.color.convert("srgb")
    if color.alpha() != 1:
        raise InputError(f"color {text!r} is not opaque: a class needs one solid color")
    if not color.in_gamut(tolerance=0.002):
        raise InputError(f"color {text!r} is outside of sRGB: {HOW}")
    red, green, blue = (min(255, max(0, round(255 * value))) for value in color.coords(nans=False))
    return red, green, blue
