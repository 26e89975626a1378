"""Legends in sentences and lists of a prompt: "paint every cat red and the dog (0, 0, 255)", "cat: red; dog: #00f".

Colors are found first, and stand as marks in the text; the text is cut into pieces at commas, line ends and "and"; each
piece has to hold one color beside one name, once connectors ("=", "should be", "in") and lead-ins ("paint", "use") are
gone. What does not fit is refused, and the refusal quotes it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.legends.parse_colors import COLOR, NO_COLOR, FoundColor, find_color, read_color
from cavendish.encoders.legends.parse_patterns import (
    AFTER,
    BACKGROUND_PATTERNS,
    CONNECTED,
    COUNTED,
    DESCRIBING,
    ELSE,
    FILLER,
    FLAGS,
    INTRO,
    JOINT,
    LEAD,
    MODIFIERS,
    MORE_ELSE,
    NEGATION,
    NO_NAME,
    NOUN,
    PRONOUN,
    QUALIFIER,
    QUANTIFIER,
    QUOTED,
    QUOTES,
    READ_CUT,
    READ_TAIL,
    SMALL,
    TAIL,
    TOKEN,
    TRAIL,
    VALUE,
    WORD_CUT,
)
from cavendish.encoders.legends.parse_structured import Entry, agreed
from cavendish.encoders.sample import InputError

MAX_NAME = 300  # characters: what stands farther from a color is not its name; it bounds the time of every search
HINT = "write such as 'mug: #ff0000', a name with commas in quotes"


@dataclass
class Marks:
    """The colors and quoted names of a text, each replaced in it by a private-use token with its number."""

    colors: list[FoundColor] = field(default_factory=list)
    quotes: list[tuple[str, str]] = field(default_factory=list)

    def mark_colors(self, text: str) -> str:
        """Replace every color."""
        return COLOR.sub(self._mark_color, text)

    def _mark_color(self, match: re.Match[str]) -> str:
        self.colors.append(find_color(match))
        return f"\ue000{len(self.colors) - 1}\ue001"

    def mark_quotes(self, text: str) -> str:
        """Replace quoted names; quotes around a color, or around a legend, are dropped."""
        return QUOTES.sub(self._mark_quote, text)

    def _mark_quote(self, match: re.Match[str]) -> str:
        inner = next(group for group in match.groups() if group is not None)
        if TOKEN.fullmatch(inner.strip()):
            return inner
        if re.search(r"(?:[:=]|->|→)\s*\ue000|\ue001\s*(?:[:=]|->|→)", inner):
            return inner if match[0][0] != "'" and not re.search(r"\w$", match.string[: match.start()]) else match[0]
        self.quotes.append((self.restore(inner), self.restore(match[0])))
        return f"\ue002{len(self.quotes) - 1}\ue003"

    def restore(self, text: str) -> str:
        """Put the words back; quotes stay around a part of a text, not around all of it."""
        whole = QUOTED.fullmatch(text) is not None
        text = QUOTED.sub(lambda match: self.quotes[int(match[1])][0 if whole else 1], text)
        return TOKEN.sub(lambda match: self.colors[int(match[1])].text, text)

    def color(self, token: re.Match[str]) -> FoundColor:
        """Return the color of a token."""
        return self.colors[int(token[1])]


def read_sentences(text: str) -> tuple[list[Entry], Color | None]:
    """Read the entries of a text, and the color that it gives everything else.

    Raises:
        InputError: a color that belongs to no name, a piece of a list without a color, or a color that is none.
    """
    marks = Marks()
    text = marks.mark_colors(text)
    background: Color | None = None
    for pattern in BACKGROUND_PATTERNS:
        if match := pattern.search(text):
            token = TOKEN.search(match[1])
            assert token is not None
            background = _value(marks, marks.color(token), match[0])
            text = text[: match.start()] + "\n" + text[match.end() :]
            break
    return _Reader(marks).read(marks.mark_quotes(text)), background


def _value(marks: Marks, found: FoundColor, piece: str) -> Color:
    if found.value is None:
        raise InputError(f"prompt: {_quote(marks.restore(piece))}: {found.problem}")
    return found.value


def _quote(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 80 else short[:79] + "…")


@dataclass
class _Piece:
    """A part of the text between two cuts, and the cut before it."""

    text: str
    cut: str
    used: bool = False


class _Reader:
    """Reads pieces one by one; keeps what a pronoun may stand for."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.entries: list[Entry] = []

    def read(self, text: str) -> list[Entry]:
        """Read a marked text."""
        pieces = self._pieces(text)
        before: _Piece | None = None
        for piece in pieces:
            colored = TOKEN.search(piece.text) is not None and self._in_position(piece.text)
            if colored:
                for part in self._split(piece.text):
                    self._read_piece(part, before)
                piece.used = True
                before = None
            elif piece.text.strip():
                before = piece
        self._refuse_leftovers(pieces)
        return self.entries

    def _pieces(self, text: str) -> list[_Piece]:
        """Cut a text; a word such as "and" cuts only between what are entries by themselves."""
        pieces: list[_Piece] = []
        cut = ""
        for position, part in enumerate(READ_CUT.split(text)):
            if position % 2:
                cut = part
                continue
            part = re.sub(rf"^\s*{JOINT}\s+", "", part, flags=FLAGS)
            words = WORD_CUT.split(re.sub(rf"(?:^|\s+){JOINT}\s*$", "", part, flags=FLAGS))
            current, between = words[0], cut
            for joint, word in zip(words[1::2], words[2::2]):
                if (self._is_entry(current) and (TOKEN.search(word) or not _bare(word))) or (
                    LEAD.match(word.strip()) and TOKEN.search(word) and not self._in_position(current)
                ):
                    pieces.append(_Piece(current, between))
                    current, between = word, joint
                else:
                    current += joint + word
            pieces.append(_Piece(current, between))
        return pieces

    def _is_entry(self, text: str) -> bool:
        tokens = list(TOKEN.finditer(text))
        if not tokens or not self._in_position(text):
            return False
        if _is_color_first(text):
            return bool(_name_after(text[tokens[0].end() :]))
        name = _name_before(text[: tokens[-1].start()])
        return bool(name) or len(tokens) > 1 or _split_modifier(self.marks.color(tokens[-1]).text) is not None

    def _in_position(self, text: str) -> bool:
        """Tell whether a color of a piece stands where a value does, rather than before a noun ("the red mug")."""
        tokens = list(TOKEN.finditer(text))
        if len(tokens) == 1 and self._is_thing(text[: tokens[0].start()], tokens[0]):
            return False
        return bool(tokens) and (
            any(self.marks.color(token).numeric for token in tokens)
            or TRAIL.fullmatch(text[tokens[-1].end() :]) is not None
            or AFTER.match(text[tokens[-1].end() :]) is not None
            or AFTER.match(text[tokens[0].end() :]) is not None
        )

    def _is_thing(self, own: str, token: re.Match[str]) -> bool:
        """Tell whether a color word is a thing: "each orange", "find the orange"."""
        if not NOUN.fullmatch(self.marks.color(token).text):
            return False
        counted = COUNTED.search(own) is not None
        return counted or (re.search(r"\b(?:the|an?)\s+$", own, FLAGS) is not None and not _name_before(own))

    def _split(self, text: str) -> list[str]:
        """Split a piece that holds several entries without anything between them: "cat: red dog: blue"."""
        tokens = self._value_tokens(text)
        parts: list[str] = []
        start = 0
        for token, following in itertools.pairwise(tokens):
            before, between = text[start : token.start()], text[token.end() : following.start()]
            if VALUE.search(before) and re.search(r"\w", between) and VALUE.search(between):
                parts.append(text[start : token.end()])
                start = token.end()
        return [*parts, text[start:]]

    def _value_tokens(self, text: str) -> list[re.Match[str]]:
        """Return the tokens that may be values: those in numbers where there are any, else all."""
        tokens = list(TOKEN.finditer(text))
        numeric = [token for token in tokens if self.marks.color(token).numeric]
        return numeric or tokens

    def _read_piece(self, piece: str, before: _Piece | None) -> None:
        tokens = self._value_tokens(piece)
        color_first = _is_color_first(piece)
        if not color_first and _is_color_first(piece[tokens[0].start() :]) and len(tokens) == 1:
            color_first = not _name_before(self._words(piece[: tokens[0].start()]))
        token = tokens[0] if color_first else tokens[-1]
        own, rest = piece[: token.start()], piece[token.end() :]
        if NEGATION.search(own) and not VALUE.search(own):
            self._refuse(piece, "it says what is not meant")
        leading = self.marks.color(token).numeric and not own.strip(" -*") and len(tokens) == 1  # "#ff0000 cat"
        color_first = color_first or (
            leading and re.search(r"\w", TOKEN.sub("", rest)) is not None and not TRAIL.fullmatch(rest)
        )
        color = _value(self.marks, self.marks.color(token), piece)
        if color_first:
            own, rest, color = self._twice_said(own, rest, token, piece, color)
            name = _name_after(self._words(rest))
            intro = own.rstrip().endswith(":") and FILLER.search(own) is not None
            left_over = "" if intro or PRONOUN.fullmatch(name) else _name_before(self._words(own))
        else:
            own, rest, color = self._twice_said(own, rest, token, piece, color)
            name = self._name_of(own, piece, token)
            left_over = "" if TRAIL.fullmatch(rest) else rest
        others = [other for other in tokens if other is not token and other[0] in (own + rest)]
        stated = any(
            self._is_value(own[: other.start()]) and not VALUE.search(own[other.end() :])
            for other in TOKEN.finditer(own)
        )
        if left_over or stated or (others and self.marks.color(token).numeric):
            self._refuse(piece, "it is not clear which name the color belongs to")
        if NO_NAME.fullmatch(name):
            self._refuse(piece, "its color belongs to no name")
        if PRONOUN.fullmatch(name):
            name = (_name_before(own) if color_first else "") or self._referred(before)
        if not name and (parts := _split_modifier(self.marks.color(token).text)) is not None:
            name, color = parts
        if not name and (match := re.fullmatch(r"\s*(\w+)\s*(?:[:=]|->|→)\s*", own)):
            name = match[1]  # "a: red"
        if not name:
            self._refuse(piece, f"no name for the color {self.marks.color(token).text!r}")
        self.entries.append((self.marks.restore(name), color))

    def _is_value(self, before: str) -> bool:
        """Tell whether a color word after this text is a value of its own, not a part of a name ("the big red bus")."""
        name = _name_before(self._words(before))
        return CONNECTED.search(before) is not None or (bool(name) and not DESCRIBING.search(before))

    def _words(self, text: str) -> str:
        """Put back color words that are parts of a name."""
        return TOKEN.sub(lambda token: self.marks.color(token).text, text)

    def _twice_said(
        self, own: str, rest: str, token: re.Match[str], piece: str, color: Color
    ) -> tuple[str, str, Color]:
        """Take away the same color in another notation right before or after: "red (#ff0000)", "#f00 (red)"."""
        said = [(self.marks.color(token).text, color)]
        if match := re.search(r"\ue000(\d+)\ue001\s*[(\[（/,=-]?\s*$", own):
            kept = own[: match.start()]
            beside = re.fullmatch(r"\ue000\d+\ue001\s*", match[0]) is None
            if beside or _name_before(self._words(kept)):
                said.append(self._also(int(match[1]), piece))
                own = kept
        if match := re.match(r"\s*[(\[（/=-]\s*\ue000(\d+)\ue001\s*[)\]）]?", rest):
            said.append(self._also(int(match[1]), piece))
            rest = rest[match.end() :]
        return own, rest, agreed(said, self.marks.restore(piece).strip())

    def _also(self, number: int, piece: str) -> tuple[str, Color]:
        found = self.marks.colors[number]
        return found.text, _value(self.marks, found, piece)

    def _name_of(self, own: str, piece: str, token: re.Match[str]) -> str:
        """Return what stands before a color, without connectors; refuse a value of which the color is only a part."""
        words = self._words(own)
        *earlier, label, value = ["", "", *VALUE.split(words)]
        if earlier and _name_before(value) and clean_name(label) and not (FILLER.search(label) or LEAD.match(value)):
            self._refuse(piece, f"{_quote(value + self.marks.color(token).text)} is no color")
        return _name_before(words)

    def _referred(self, before: _Piece | None) -> str:
        if before is None:
            return ""
        before.used = True
        return _name_before(self._words(before.text))

    def _is_stray(self, text: str, token: re.Match[str]) -> bool:
        """Tell whether a color that no name took is meant as one, rather than to describe a thing."""
        if CONNECTED.search(text[: token.start()]):
            return True
        return not NOUN.fullmatch(self.marks.color(token).text) and not QUALIFIER.match(text[token.end() :])

    def _refuse(self, piece: str, why: str) -> None:
        raise InputError(f"prompt: {_quote(self.marks.restore(piece).strip())} is not understood: {why}; {HINT}")

    def _refuse_leftovers(self, pieces: list[_Piece]) -> None:
        """Refuse colors that no name took, and names of a list that have no color."""
        for number, piece in enumerate(pieces):
            if piece.used:
                continue
            following = next((p for p in pieces[number + 1 : number + 2]), None)
            listed = piece.cut.strip() in (",", ";", "|", "and", "&") or piece.cut == "\n"
            beside = (number > 0 and pieces[number - 1].used and listed) or (
                following is not None and following.used and following.cut.strip() in (",", ";", "and", "&")
            )
            words = self.marks.restore(piece.text).strip()
            if any(self._is_stray(piece.text, token) for token in TOKEN.finditer(piece.text)):
                self._refuse(piece.text, "its color belongs to no name")
            if beside and _bare(words):
                self._refuse(piece.text, "it has no color")
            match = VALUE.search(words)
            if self.entries and match and words[match.end() :].strip() and not FILLER.search(words[: match.start()]):
                self._refuse(piece.text, f"{_quote(words[match.end() :])} is no color")


def _bare(text: str) -> bool:
    """Tell whether a piece is a bare name: a few words, none of which speaks of the task."""
    words = text.split()
    return 0 < len(words) <= 5 and any(re.search(r"[^\W\d_]", word) for word in words) and not FILLER.search(text)


def _split_modifier(text: str) -> tuple[str, Color] | None:
    """Split "sky blue" into a name and its color: "the sky blue"."""
    parts = re.fullmatch(rf"({MODIFIERS})[ -](.+)", text, FLAGS)
    color = None if parts is None or NO_COLOR.fullmatch(parts[2]) else read_color(parts[2])
    return None if parts is None or color is None else (parts[1], color)


def _is_color_first(piece: str) -> bool:
    """Tell whether the first color stands before its name: "red for cat", "red = cat", "use red for the blue car"."""
    token = TOKEN.search(piece)
    if token is None:
        return False
    rest = re.sub(r"^\s*[(\[（]\s*\ue000\d+\ue001\s*[)\]）]", "", piece[token.end() :])
    if not AFTER.match(rest):
        return False
    own = piece[: token.start()]
    return own.rstrip().endswith(":") or not _name_before(own)


def _name_after(text: str) -> str:
    text = text[:MAX_NAME]
    match = AFTER.match(text)
    return clean_name(text[match.end() :] if match else text)


def _name_before(text: str) -> str:
    text = text[-MAX_NAME:]
    while match := TAIL.search(text) or READ_TAIL.search(text):
        if match[0].strip() == "A" and text[: match.start()].strip():
            break  # "building A"
        text = text[: match.start()]
    text = re.split(r":(?=\s|$)", text)[-1]
    name = clean_name(_without_lead(INTRO.sub("", _without_lead(text.strip()), count=1).strip()))
    quoted = list(QUOTED.finditer(name))
    if quoted and not re.search(r"\w", SMALL.sub("", FILLER.sub("", QUOTED.sub("", name)))):
        return quoted[-1][0]
    return name


_BRACKETS = {")": "(", "]": "[", "}": "{", "）": "（"}


def clean_name(text: str) -> str:
    """Return a name without leading quantifiers, and without what is left over at its ends."""
    text = text.strip(' \t\r\n"`<>:=.,;*/·…')
    while text and ((text[-1] in _BRACKETS and _BRACKETS[text[-1]] not in text) or text[-1] in "([{（"):
        text = text[:-1].rstrip(" :=.,;*-–—")
    while text and (
        (text[0] in "([{（" and not any(_BRACKETS[c] == text[0] for c in text if c in _BRACKETS)) or text[0] in ")]}）"
    ):
        text = text[1:].lstrip()
    text = re.sub(r"^'(?!\w)|(?<!\w)'$|\s+[-–—]+$|(?<=\w)[-–—]$", "", text).strip()
    return normal_name(text)


def normal_name(name: str) -> str:
    """Return a legend name without its leading quantifiers ("every", "the", "all the") and doubled spaces."""
    text = " ".join(name.split())
    while match := QUANTIFIER.match(text):
        text = text[match.end() :]
    return text


def _without_lead(text: str) -> str:
    while match := LEAD.match(text) or QUANTIFIER.match(text):
        text = text[match.end() :]
    return text


def is_background(name: str) -> bool:
    """Tell whether a name stands for everything else."""
    words = name.replace("_", " ").strip()
    return re.fullmatch(ELSE, words, FLAGS) is not None or MORE_ELSE.fullmatch(words) is not None
