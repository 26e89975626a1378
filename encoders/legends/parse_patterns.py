"""The words around names and colors in prompts, as regular expressions."""

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
PLAIN_NUMERIC = re.compile(
    rf"""(?:\brgb\s*)?[(\[]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[, ]\s*{_BYTE}\s*[)\]]
    | (?:\brgb\s+)?(?<![\w.])(?<!\d,){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?:\s*,\s*|[ /]){_BYTE}(?![\w]|\.\d)
    | \#(?:[0-9a-f]{{6}}|[0-9a-f]{{3}})(?!\w)""",
    FLAGS | re.VERBOSE,
)
"""What a plain name must not hold: a triple in brackets, a bare one, a hex code. `colors.NUMERIC` reads more."""

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

_VERBS = _any(
    *("for", "means?", "marks?", "is", "are", "denotes?", "represents?", "indicates?", "stands? for", "shows?", "on"),
    *("goes to", "goes on", "goes with", "refers to", "corresponds to", "signifies", "will be", "to", "-", "–", "—"),
)
AFTER = re.compile(
    rf"[\"')\]]*(?:\s+(?:colou?rs?|masks?|fill|paint|overlay|label|pixels))?(?:\s*(?:{_ARROW})|\s+{_VERBS})\s*"
    r"(?=[\w\ue002\"'“(])",
    FLAGS,
)
"""What stands between a colour and its name when the colour comes first."""

PRONOUN = re.compile(
    r"(?:it|them|this|that|these|those|one|each|answer|mask|(?:the\s+)?mask colou?r|(?:the\s+)?colou?r|fill|target|"
    r"(?:what|whatever|the thing)\s+(?:it|this|that|the phrase)\s+(?:describes?|means|refers to))?",
    FLAGS,
)
"""Stands for a name that came before: "find the cat and paint it red"."""

NO_NAME = re.compile(r"(?:(?:these|those|my|your|following|only)\s+)*(?:colou?rs?|palettes?|legends?|or|either)", FLAGS)
"""Stands where a name does, and is none."""

MORE_ELSE = re.compile(
    r"bg|void|none|nothing|else|otherwise|no class|back ?ground|backdrop|canvas|everything|anything|all pixels"
    r"|(?:whole|entire|full) (?:image|picture|photo|scene)|other classes|not labell?ed|unlabell?ed|remainder(?: of .*)?"
    r"|(?:background|bg) colou?r|every other pixel",
    FLAGS,
)
"""More ways to say "background" as a name."""

# Cuts.

READ_CUT = re.compile(
    r"(\s*(?:[,;\n|]|(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\b[Nn]o)(?<!\b[Nn]r)(?<!\bvs)"
    r"\.(?=\s|$|[\"'])|[!?](?=\s|$))\s*)"
)
"""Between pieces of a text."""

WORD_CUT = re.compile(r"(\s+(?:and|while|plus|then|&)\s+(?:then\s+)?|(?<=\ue001)\s*[&+/]\s*(?=\w))", FLAGS)
"""Between pieces that are entries by themselves; else a part of a name: "salt and pepper"."""

JOINT = r"(?:and|while|plus|then|&)"

VALUE = re.compile(r"\s*(?::=|::?(?=[\s\ue000\ue002\"']|$)|:(?=\D)|=>|->|=|→)\s*|\s+[-–—]\s+|\t+")
"""Between a name and its value in a list."""

# What stands around a color.

READ_TAIL = re.compile(
    r"[\s(\[]*(?<![\w-])(?:(?:hex(?:adecimal)?|rgb|html|css)(?:\s+colou?r)?(?:\s+(?:codes?|values?))?"
    r"|colou?r\s+(?:codes?|values?)|colou?rs?|colou?r-coded|will|shall|would|needs?|ought|appears?|rendered|tinted"
    r"|highlighted|labell?ed|assigned|coded|represented|displayed|outlined|covered|tagged|via|completely|dyed|entirely"
    r"|fully|simply)[\s:=#]*$",
    FLAGS,
)
"""More of what stands between a name and its color: "will be", "hex code"."""

CONNECTED = re.compile(r"(?:[:=]|->|→|\b(?:is|are|in|as|be|with|becomes?|gets?|to|stays?))\s*[(\[\"']?\s*$", FLAGS)
"""Before a color: it is meant as a value."""

NEGATION = re.compile(r"\b(?:don't|do not|not|never|instead of|rather than|no longer|nor|neither)\b", FLAGS)
"""A color beside it is one that is not meant."""

_ENDS = r"[\s\"'”’()\]}<>）】.,;:!?*/]*"
TRAIL = re.compile(
    rf"{_ENDS}(?:(?:please|pls|colou?r(?:ed)?|colou?rs|pixels?|masks?|regions?|areas?|only|too|now|flat|solid|opaque|pure"
    rf"|instead|thanks|thank you|as well|overlay|fill|silhouette|shape|paint|it|tone){_ENDS})*",
    FLAGS,
)
"""What may follow a color at the end of a piece."""

DESCRIBING = re.compile(
    r"(?:^|\b)(?:the|an?|and|of|in|with|on|near|behind|beside|under|above|below|to|wearing|his|her|its|their|big|small"
    r"|large|tall|little|old|new|long|short|dark|(?<!traffic )(?<!street )light|bright|shiny|leftmost|rightmost|nearest"
    r"|farthest|closest|largest"
    r"|smallest|highest|lowest|other|first|second|third|two|three|both|only|wooden|metal|plastic|round|empty|parked"
    r"|single|biggest|furthest)\s+$",
    FLAGS,
)
"""Before a color word that is a part of a name."""

QUALIFIER = re.compile(r"\s+(?!(?:respectively|or|and|each|on|in|at|to|over|with|is|are|for)\b)[^\W\d_]", FLAGS)
"""After a color word: it describes a thing ("the red mug")."""

NOUN = re.compile(
    r"orange|olive|plum|lime|salmon|coral|chocolate|tomato|violet|orchid|lavender|thistle|wheat|peru|gold|silver|linen"
    r"|snow|ivory|turquoise|seashell|bisque",
    FLAGS,
)
"""Colors that are things as well."""

COUNTED = re.compile(r"\b(?:each|every|every single|all|any|class|(?:instances?|segmentation|masks?) of)\s+$", FLAGS)
"""Before a word: it is a thing."""

# Words that belong to no name.

FILLER = re.compile(
    r"(?<![\w-])(?:segment(?:ation|ed|s|ing)?|paint(?:ed|ing)?|draw(?:n|ing)?|colou?r(?:ed|ing|s)?|mark(?:ed|ing)?"
    r"|fill(?:ed|ing)?|make|create|generate|produce|show(?:n|ing)?|find|locate|highlight|mask(?:s|ed)?|map(?:ping)?"
    r"|legend|palette|class(?:es)?|labels?|images?|pictures?|photos?|scene|pixels?|please|pls|thanks?|you|i|want|need"
    r"|would|can|could|use|using|follow(?:s|ing)?|these|those|this|that|it|them|nothing|no|not|don't|do|only|just|flat"
    r"|solid|textures?|shading|outlines?|background|output|return|answer|reply|task|input|example|here|below|above"
    r"|where|which|what|how|is|are|be|should|must|keep|leave|everything|anything|whatever|rest|others?|otherwise|format"
    r"|json|table|names?|hex|rgb|values?|key|code|notes?|targets?|goal|prompt|question|instructions?|descriptions?"
    r"|expressions?|phrases?|categor(?:y|ies)|objects?|render|given|assign|give|tell|look(?:ing)?|isolate"
    r"|ground(?: each)?|title|id|ids|index|number|each (?:in|with|gets?|a)|in (?:its|their) own|as|so|if|then"
    r"|refers? to|describes?|means?|put|set|hello|hi|ok|ignore|skip|exclude|omit|except|without|remove|avoid|semantic"
    r"|referring|instance|perform|go|dear|color-coded|edges?|sharp|plain)(?![\w-])",
    FLAGS,
)
"""Words that speak of the task: a piece with one of them is no bare name."""

SMALL = re.compile(r"\b(?:refers?|the|an?|of|in|on|at|to|for|with|by|and|what)\b", FLAGS)
"""Words that make no name by themselves."""
