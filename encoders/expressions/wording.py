"""Referring expressions for a scene: short programs proved by execution, and the English for them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cavendish.encoders.codecs.palettes import COLOR_WORDS
from cavendish.encoders.draws import one_of, shuffled
from cavendish.encoders.expressions.programs import ATTRIBUTES, RELATIONS, SUPERLATIVES, Program, Thing, execute

MAX_ANCHORS = 4  # how many things a relation is tried with: more takes longer and changes nothing

KINDS = ("attribute", "superlative", "relation", "multi")
"""Sorts of expression with a target; "none" is the fifth, made from one of these so that nothing fits."""

ABSENT_CATEGORIES = (
    *("umbrella", "giraffe", "bicycle", "laptop", "pineapple", "teddy bear", "violin", "surfboard", "fire hydrant"),
    *("traffic light", "elephant", "guitar", "clock", "scissors", "toothbrush", "kite", "skateboard", "ladder"),
    *("wheelchair", "lighthouse"),
)
"""What a no-target expression may ask for."""


@dataclass(frozen=True)
class Expression:
    """A text, the ids it names (none for "none"), the program that proves it, and its sort."""

    text: str
    ids: tuple[int, ...]
    program: Program
    kind: str


def programs_for(
    target: Thing, table: tuple[Thing, ...], kind: str, anchors: Sequence[Thing] | None = None
) -> list[Program]:
    """List the short programs of one kind that single out `target`; for "multi", that name it among others.

    `anchors` limits what a relation may refer to (None: any clear thing).

    A word that is not needed is left out: redundant words let a model take shortcuts (Ref-Adv, arXiv 2602.23898).
    """
    if kind == "attribute":
        return _attribute_programs(target, table)
    if kind == "superlative":
        return [p for p in _superlative_programs(target, table) if execute(p, table) == frozenset({target.id})]
    if kind == "relation":
        return [
            p
            for p in _relation_programs(target, table, table if anchors is None else anchors)
            if execute(p, table) == frozenset({target.id})
        ]
    return _multi_programs(target, table)


def _filters(target: Thing) -> Iterator[Program]:
    """Yield every filter that fits the target, shortest first: with its category, then for "object"."""
    known = [name for name in ATTRIBUTES if getattr(target, name) is not None]
    for count in range(len(known) + 1):
        for category in (target.category, None):
            for names in itertools.combinations(known, count):
                yield replace(Program(category=category), **{name: getattr(target, name) for name in names})


def _is_part(small: Program, large: Program) -> bool:
    """Say whether every word of `small` is in `large`; a category includes "object"."""
    return all(getattr(small, name) in (None, getattr(large, name)) for name in ("category", *ATTRIBUTES))


def _attribute_programs(target: Thing, table: tuple[Thing, ...]) -> list[Program]:
    found: list[Program] = []
    for program in _filters(target):
        if not any(_is_part(shorter, program) for shorter in found) and execute(program, table) == frozenset(
            {target.id}
        ):
            found.append(program)
    return [program for program in found if program != Program()]


def _shared_filters(target: Thing, table: tuple[Thing, ...]) -> list[Program]:
    """Filters of at most one attribute that do not single out the target by themselves, so that more must be said."""
    filters = [p for p in _filters(target) if sum(getattr(p, name) is not None for name in ATTRIBUTES) <= 1]
    return [p for p in filters if execute(p, table) != frozenset({target.id})]


def _superlative_programs(target: Thing, table: tuple[Thing, ...]) -> Iterator[Program]:
    for program in _shared_filters(target, table):
        for name in SUPERLATIVES:
            yield replace(program, superlative=name)
        for name, rank in itertools.product(("leftmost", "rightmost"), (2, 3)):
            yield replace(program, superlative=name, rank=rank)


def _relation_programs(target: Thing, table: tuple[Thing, ...], anchors: Sequence[Thing]) -> Iterator[Program]:
    filters = _shared_filters(target, table)
    for anchor in anchors:
        if anchor is target or not anchor.clear:
            continue
        for description in _attribute_programs(anchor, table)[:2]:
            for program, relation in itertools.product(filters, RELATIONS):
                yield replace(program, relation=relation, anchor=description)


def _multi_programs(target: Thing, table: tuple[Thing, ...]) -> list[Program]:
    found: list[Program] = []
    for program in _filters(target):
        asked = replace(program, quantity="all")
        ids = execute(asked, table)
        if ids is not None and 2 <= len(ids) <= 12 and len(ids) < len(table) and program != Program():
            found.append(asked)
    return found


def find_expression(
    table: tuple[Thing, ...], rng: np.random.Generator, exhaustive: bool, complete: Collection[str] = ()
) -> Expression | None:
    """Draw an expression with a target: the kind uniformly first, then the object, then one of its shortest programs.

    Args:
        table: from `scene_table`.
        rng: all draws.
        exhaustive: False when things may be in the picture that are not in the table: then every expression has a
            class ("the red object" could be any), and rankings, counts and relations are said of `complete` ones only.
        complete: classes all of whose things are in the table, in a picture that is not exhaustive.

    Returns:
        None when no object that is clear to see can be singled out.
    """
    targets = [thing for thing in table if thing.clear]
    for kind in shuffled(KINDS if exhaustive or complete else ("attribute",), rng):
        for target in shuffled(targets, rng):
            programs = programs_for(target, table, kind, shuffled(targets, rng)[:MAX_ANCHORS])
            if programs := [program for program in programs if _is_provable(program, exhaustive, complete)]:
                program = _short(programs, rng)
                ids = execute(program, table) or frozenset()
                return Expression(write_expression(program, len(ids), rng), tuple(sorted(ids)), program, kind)
    return None


def describable(table: tuple[Thing, ...], exhaustive: bool, complete: Collection[str] = ()) -> bool:
    """Say whether `find_expression` is sure to find one, whatever it draws."""
    kinds = ("attribute", "superlative", "multi") if exhaustive or complete else ("attribute",)
    return any(
        _is_provable(program, exhaustive, complete)
        for kind in kinds
        for thing in table
        if thing.clear
        for program in programs_for(thing, table, kind)
    )


def _is_provable(program: Program, exhaustive: bool, complete: Collection[str]) -> bool:
    """Say whether things that are not in the table could make a program wrong."""
    if exhaustive or program.category in complete:
        return exhaustive or program.anchor is None or program.anchor.category in complete
    plain = program.superlative is None and program.relation is None and program.quantity == "one"
    return plain and program.category is not None


def _words(program: Program) -> int:
    own = sum(getattr(program, name) is not None for name in ATTRIBUTES) + (program.rank > 1)
    return own + (0 if program.anchor is None else _words(program.anchor))


def _short(programs: Sequence[Program], rng: np.random.Generator) -> Program:
    """Draw among the shortest, and now and then among those one word longer."""
    least = min(_words(program) for program in programs) + (rng.random() < 0.25)
    return one_of([program for program in programs if _words(program) <= least], rng)


def find_absent(table: tuple[Thing, ...], rng: np.random.Generator) -> Expression | None:
    """Draw an expression that surely nothing fits, for a scene where every object is in the table.

    Mostly a valid expression with one word changed (a red chair when the chairs are blue), which is harder to refuse
    than something that has nothing to do with the scene.
    """
    for _ in range(12):
        program = (
            _edited(table, rng) if table and rng.random() < 0.75 else Program(category=one_of(ABSENT_CATEGORIES, rng))
        )
        if program is not None and execute(program, table) == frozenset():
            return Expression(write_expression(program, 1, rng), (), program, "none")
    return None


def _edited(table: tuple[Thing, ...], rng: np.random.Generator) -> Program | None:
    """Change one word of a program that fits some thing: to that of another thing or, for colours, any basic one."""
    kind = one_of(("attribute", "attribute", "relation"), rng)
    programs = programs_for(one_of(table, rng), table, kind, shuffled(table, rng)[:MAX_ANCHORS])
    if not programs:
        return None
    program = _short(programs, rng)
    name = one_of(("category", *ATTRIBUTES), rng)
    values = {getattr(thing, name) for thing in table} - {None, getattr(program, name)}
    if name == "color":
        values |= set(COLOR_WORDS) - {program.color}
    if not values:
        return None
    edited = replace(program, **{name: one_of(sorted(values), rng)})
    # "the table in front of the table" is empty too, but nobody would say it
    return None if edited.anchor is not None and _is_part(edited.anchor, edited) else edited


_ADJECTIVES: Mapping[str, str] = {"wood": "wooden", "wool": "woolen", "gold": "golden"}
_ORDINALS = {2: "second", 3: "third"}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}

_SUPERLATIVE_TEXTS: Mapping[str, tuple[str, ...]] = {
    "leftmost": ("the leftmost {}", "the {} furthest to the left", "the {} on the far left", "the left-most {}"),
    "rightmost": ("the rightmost {}", "the {} furthest to the right", "the {} on the far right", "the right-most {}"),
    "highest": ("the highest {} in the picture", "the {} nearest the top", "the topmost {}", "the uppermost {}"),
    "lowest": ("the lowest {} in the picture", "the {} nearest the bottom", "the bottommost {}", "the {} lowest down"),
    "nearest": ("the nearest {}", "the closest {}", "the {} closest to the camera", "the {} nearest to the viewer"),
    "farthest": ("the farthest {}", "the {} furthest away", "the {} farthest from the camera", "the most distant {}"),
    "largest": ("the largest {}", "the biggest {}"),
    "smallest": ("the smallest {}", "the tiniest {}"),
}
_RELATION_TEXTS: Mapping[str, tuple[str, ...]] = {
    "left of": ("{} to the left of {}", "{} left of {}", "{} on the left side of {}"),
    "right of": ("{} to the right of {}", "{} right of {}", "{} on the right side of {}"),
    "behind": ("{} behind {}", "{} that is behind {}", "{} standing behind {}"),
    "in front of": ("{} in front of {}", "{} that is in front of {}"),
    "above": ("{} above {}", "{} that is above {}"),
    "below": ("{} below {}", "{} underneath {}"),
    "next to": ("{} next to {}", "{} beside {}", "{} right beside {}"),
}


def write_expression(program: Program, count: int, rng: np.random.Generator) -> str:
    """Say a program in English.

    Args:
        program: what is meant.
        count: how many things it names, for "both" and "the three".
        rng: draws the wording.
    """
    noun = program.category or one_of(("object", "thing", "item"), rng)
    words = [program.size, program.color, _ADJECTIVES.get(program.material or "", program.material)]
    phrase = " ".join([*(word for word in words if word), noun])
    if program.quantity == "all":
        return _all_of(" ".join([*(word for word in words if word), plural(noun)]), phrase, count, rng)
    if program.superlative is not None and program.rank > 1:
        side = "left" if program.superlative == "leftmost" else "right"
        return f"the {_ORDINALS[program.rank]} {phrase} from the {side}"
    if program.superlative is not None:
        return one_of(_SUPERLATIVE_TEXTS[program.superlative], rng).format(phrase)
    if program.relation is not None and program.anchor is not None:
        anchor = write_expression(program.anchor, 1, rng)
        return one_of(_RELATION_TEXTS[program.relation], rng).format(f"the {phrase}", anchor)
    return f"the {phrase}"


def _all_of(things: str, thing: str, count: int, rng: np.random.Generator) -> str:
    texts = [f"all the {things}", f"all {things}", f"every {thing}", f"all of the {things}"]
    if count == 2:
        texts.append(f"both {things}")
    if count in _NUMBERS:
        texts.append(f"the {_NUMBERS[count]} {things}")
    return one_of(texts, rng)


_IRREGULAR: Mapping[str, str] = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "knife": "knives",
    "shelf": "shelves",
    "leaf": "leaves",
    "loaf": "loaves",
    "calf": "calves",
    "wolf": "wolves",
    "half": "halves",
    "tooth": "teeth",
    "cactus": "cacti",
    "torus": "tori",
}
PLURAL_ONLY = (
    *("scissors", "glasses", "skis", "pants", "shorts", "jeans", "clothes", "slippers", "sneakers"),
    *("logs", "headphones"),
)
_UNCHANGED = (*PLURAL_ONLY, "sheep", "deer", "fish", "aircraft", "people", "bread", "butter", "furniture")


def plural(noun: str) -> str:
    """Return the plural of an English noun phrase; the head is its last word, or the last before "of"."""
    phrase, of, rest = noun.partition(" of ")
    start, _, head = phrase.rpartition(" ")
    lower = head.lower()
    if lower in _UNCHANGED:
        end = head
    elif lower in _IRREGULAR:
        end = _IRREGULAR[lower]
    elif lower.endswith(("s", "x", "z", "ch", "sh")) or lower in ("potato", "tomato", "mango", "buffalo"):
        end = head + "es"
    elif lower.endswith("y") and lower[-2:-1] not in "aeiou":
        end = head[:-1] + "ies"
    elif lower.endswith(("woman", "man")) and lower not in ("human", "german"):
        end = head[:-3] + "men"
    else:
        end = head + "s"
    return (f"{start} {end}" if start else end) + of + rest


def singular(noun: str) -> str:
    """Return what can follow "each": the noun, or "pair of scissors"."""
    last = noun.rpartition(" ")[2].lower()
    if last not in PLURAL_ONLY:
        return noun
    return f"{'pile' if last in ('clothes', 'logs') else 'pair'} of {noun}"
