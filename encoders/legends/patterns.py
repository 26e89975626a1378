"""The regular expressions with which `legend_parser` reads prompts."""

from __future__ import annotations

import re

from cavendish.encoders.codecs.palettes import CSS_COLORS

FLAGS = re.IGNORECASE


def _any(*words: str) -> str:
    return f"(?:{'|'.join(words)})"


MODIFIERS = _any(
    *("alice", "antique", "blanched", "blue", "burly", "cadet", "cornflower", "dark", "deep", "dim", "dodger", "fire"),
    *("floral", "forest", "ghost", "green", "hot", "indian", "lavender", "lawn", "lemon", "light", "lime", "medium"),
    *("midnight", "mint", "misty", "navajo", "old", "olive", "orange", "pale", "papaya", "peach", "powder", "rebecca"),
    *("rosy", "royal", "saddle", "sandy", "sea", "sky", "slate", "spring", "steel", "violet", "white", "yellow"),
    *("golden", "goldenrod"),
)
"""Words that start a colour name of several words: "sky blue", "light green"."""


def _spaced(name: str) -> str:
    """Return a pattern that allows a space or hyphen after leading modifiers: darkolivegreen, "dark olive green"."""
    match = re.match(rf"{MODIFIERS}(?=[a-z])", name)
    return name if match is None else match[0] + "[ -]?" + _spaced(name[match.end() :])


COLOR_NAME = re.compile(
    r"(?<![\w#-])(?:(?<=traffic )(?!light)|(?<=street )(?!light)|(?<!traffic )(?<!street ))"
    + _any(*(_spaced(name) for name in sorted(CSS_COLORS, key=len, reverse=True)))
    + r"(?![\w-])",
    FLAGS,
)
"""Any CSS colour name, standing alone; in "traffic light blue" that is blue."""

_BYTE = r"\d{1,3}"
NUMERIC = re.compile(
    rf"""(?:\brgb\s*)?[(\[]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[)\]]
    | (?:\brgb\s+)?(?<![\w.])(?<!\d,){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?![\w]|\.\d)
    | \#(?:[0-9a-f]{{6}}|[0-9a-f]{{3}})(?!\w)""",
    FLAGS | re.VERBOSE,
)
"""A triple in brackets, a bare one, a hex code."""

TOKEN = re.compile("\ue000(\\d+)\ue001")
"""Stands for a colour, by its number."""
QUOTED = re.compile("\ue002(\\d+)\ue003")
"""Stands for a quoted name, by its number."""
QUOTES = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)")

_COLOR = "(\ue000\\d+\ue001)"
_ARROW = r"[:=]|->|=>|→"
_PLACES = _any("pixels?", "areas?", "regions?", "parts?", "things", "stuff", "objects", "classes")
ELSE = _any(
    r"(?:everything|anything|all|whatever|everywhere)\s+else",
    r"(?:the\s+)?rest(?:\s+of\s+(?:the\s+|this\s+)?\w+)?",
    rf"(?:all\s+|any\s+)?(?:the\s+)?(?:others?|remaining|unlabell?ed)(?:\s+{_PLACES})?",
    r"(?:the\s+)?background(?:\s+pixels?)?",
)
"""How people say "background"."""

_BETWEEN_WORDS = _any(
    *("is", "are", "in", "as", "on", "at", "to", "with", "should", "must", "be", "being", "stays?"),
    *("staying", "remains?"),
    *("kept", "left", "painted", "colou?red", "gets?", "goes", "becomes?", "pure", "plain", "solid"),
    *("completely", "all"),
    *("pixels?", "of", "the", "this", "that", "image", "picture", "photo", "scene"),
)
_PLAIN = r"(?:(?:plain|solid|uniform|flat|pure)\s+)?"
_CANVAS = _any("background", "backdrop", "canvas")
BACKGROUND_PATTERNS = (
    re.compile(rf"\beverything\s+{_COLOR}\s+(?:except|but)\b", FLAGS),
    re.compile(
        rf"\b(?:on|over|onto|against|upon|with)\s+(?:(?:an?|the)\s+)?{_PLAIN}{_COLOR}[)\]]?"
        rf"[ -]+(?:colou?red\s+)?{_CANVAS}\b",
        FLAGS,
    ),
    re.compile(rf"\ban?\s+{_PLAIN}{_COLOR}\s+{_CANVAS}\b", FLAGS),
    re.compile(
        rf"{_COLOR}[\"')\]]*(?: +(?:for|means|marks|on|is|as)| *(?:{_ARROW}))? +[\"']?{ELSE}\b"
        rf"(?![ \t]*(?:{_ARROW}|\ue000))",
        FLAGS,
    ),
    re.compile(
        rf"\b{ELSE}\b[\"']?(?:[ \t]+{_BETWEEN_WORDS})*[ \t]*(?:(?:[(\[\"'|]|{_ARROW}|[-–—] )[ \t]*)*{_COLOR}", FLAGS
    ),
)
"""Each finds the colour of the background, as its first group."""

CUT = re.compile(r"\s*(?:[,;\n|]|\.(?=\s|$|[\"'])|[!?](?=\s|$)|\s(?:and|while|plus|then|&)(?=\s))\s*", FLAGS)
"""Between entries."""

QUANTIFIER = re.compile(
    _any("every single", "each and every", "every", "each", "all of the", "all the", "all", "any", "the", "an", "a")
    + r"\s+",
    FLAGS,
)

_MASK_WORDS = _any("flat", "segmentation", "referring", "semantic", "binary", "image")
LEAD = re.compile(
    _any(
        *("please", "then", "now", "also", "and", "next", "but", "only", "just", "i want", "i need", "i'd like"),
        *("i'm looking for", "if you can see", "you should", "you", "can", "could", "would"),
        *("paint(?:ing)?", "colou?rs?"),
        *("colou?ring", "mark(?:ing)?", "draw(?:ing)?", "fill(?:ing)?", "mak(?:e|ing)", "shad(?:e|ing)"),
        *("render", "tint"),
        *("highlight(?:ing)?", "us(?:e|ing)", "with", "where(?: is| are|'s)?", "so that", "map", "assign", "label"),
        *("(?:show|tell|give)(?: me)?", "segment", "put", "let", "set", "turn", "keep", "leave", "class"),
        *("find", "locate"),
        *("isolate", "ground", "generate", "create", "produce", "do", "(?:pick|cut|point) out", "of", "for", "palette"),
        *("legend", "(?:which|what|the) pixels belong to", "pixels of", r"mask(?= \S)", "[-*•–]", r"\d+[.)]"),
        rf"(?:{_MASK_WORDS} )*(?:mask|segmentation)(?: image)?(?= of| for| where| with| using)",
    )
    + r"(?=\s|\ue002|$)\s*",
    FLAGS,
)
"""One word or phrase that leads up to a name: "please", "paint", "a mask of"."""

_PICTURE = _any(
    *("image", "picture", "photo", "photograph", "scene", "frame", "view", "pixel", "this", "it", "legend", "palette"),
    *("colou?rs?", "mask", "map", "code", "key", "class(?:es)?"),
)
_RUNNING_IN = _any("with", "using", "where", "so that", "so", "by", "such that", "as follows", "follows", "to")
INTRO = re.compile(rf".*\b{_PICTURE}\b.*?\b{_RUNNING_IN}\s+", FLAGS)
"""A sentence that runs into the first entry: "segment this image with cats in red"."""

TAIL = re.compile(
    _any(
        r"\s+(?:(?:is|are)\s+)?by\s+\w+ing\s+(?:it|them)",
        r"\s+in\s+(?:the|this)\s+(?:image|picture|photo|scene)",
        rf"\s*(?:[(\[\"'|]|{_ARROW})",
        r"(?:^|\s+)"
        + _any(
            *("[-–—]", "should", "must", "is", "are", "be", "being", "gets?", "in", "as", "to", "with"),
            *("by", "becomes?"),
            *("painted", "colou?red", "shown", "drawn", "filled", "marked", "goes", "using", "uses", "has", "have"),
            *("colou?r", "of", "flat", "solid", "pure", "bright", "plain", "a", "an", "the", "pixels?"),
            *("regions?", "areas?"),
        ),
    )
    + r"\s*$",
    FLAGS,
)
"""What stands between a name and its colour."""

NAMED_TOO = re.compile(rf"\s(?:in|as|with|to)\s+(?:(?:pure|bright|solid)\s+)?(?:{COLOR_NAME.pattern})\s*$", FLAGS)
"""A colour said twice: "in red (255, 0, 0)"."""

_VERBS = _any(
    *("for", "means?", "marks?", "is", "are", "denotes?", "represents?", "indicates?", "stands for", "shows?", "on"),
    *("goes to", "goes on", "to", "-", "–", "—"),
)
AFTER = re.compile(rf"[\"')\]]*(?:\s*(?:{_ARROW})|\s+{_VERBS})\s*(?=[\w\ue002\"'])", FLAGS)
"""What stands between a colour and its name when the colour comes first."""

ENDS = " \t\r\n\"'`()[]{}<>:=.,;*"
"""What may be left at the ends of a name."""

PRONOUN = re.compile(
    r"(?:it|them|this|that|these|those|one|each|answer|mask|(?:the\s+)?mask colou?r|(?:the\s+)?colou?r|fill|target|"
    r"(?:what|whatever|the thing)\s+(?:it|this|that|the phrase)\s+(?:describes?|means|refers to))?",
    FLAGS,
)
"""Stands for a name that came before: "find the cat and paint it red"."""
