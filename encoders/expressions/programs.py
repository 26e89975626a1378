"""Referring expressions as small programs, executed on a table of scene facts so that each is proved to fit.

A comparison that is too close to call, or a fact that is not known, makes `execute` answer None ("borderline"), never a
guess: an expression is only used when it singles out its objects by a margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.palettes import color_word
from cavendish.encoders.sample import Instance, Sample

MIN_VISIBLE_PIXELS = 24
MIN_VISIBLE_SHARE = 0.001
MIN_VISIBLE_FRACTION = 0.5

POSITION_MARGIN = 0.04  # of the picture's width or height
DEPTH_RATIO_MARGIN = 1.1
AREA_RATIO_MARGIN = 1.35
VOLUME_RATIO_MARGIN = 1.25

ATTRIBUTES = ("size", "color", "material")

PEOPLE = frozenset({"person", "man", "woman", "child", "boy", "girl", "human", "pedestrian", "rider", "player"})
"""Nobody is given a colour word: said of clothes, it would be read of people."""

NO, MAYBE, YES = 0, 1, 2
"""Whether a statement holds of a thing; the conjunction of two is their minimum."""


@dataclass(frozen=True)
class Thing:
    """One object as seen in the picture.

    Args:
        u, v: centroid of the visible pixels as a fraction of width and height, from the top left.
        box: (u0, v0, u1, v1) around the visible pixels, same units.
        area: share of the picture's pixels.
        depth_m, front_m: median and 5 % quantile of the visible planar depth; None when unknown.
        volume_m3: of the bounding box; None when unknown.
        clear: enough of it is visible to be talked about.
    """

    id: int
    category: str
    color: str | None
    material: str | None
    size: str | None
    u: float
    v: float
    box: tuple[float, float, float, float]
    area: float
    depth_m: float | None
    front_m: float | None
    volume_m3: float | None
    clear: bool


@dataclass(frozen=True)
class Program:
    """What an expression means: filter, then relate, then rank.

    Args:
        category: None for any thing ("the red object").
        superlative: a key of SUPERLATIVES, or None; `rank` 1 is the first by it.
        relation: a key of RELATIONS to the one thing `anchor` describes, or None.
        quantity: "one" names a single thing, "all" every match.
    """

    category: str | None = None
    color: str | None = None
    material: str | None = None
    size: str | None = None
    relation: str | None = None
    anchor: Program | None = None
    superlative: str | None = None
    rank: int = 1
    quantity: Literal["one", "all"] = "one"


def scene_table(sample: Sample) -> tuple[Thing, ...]:
    """List the countable objects with visible pixels.

    Colours are the instances' own `color` attribute, which holds for the picture. Where no instance has one, they are
    the words for the visible pixels; where some have, one without has no clear colour, or none that is said of it.
    """
    if sample.instance_ids is None:
        return ()
    look = not any("color" in instance.attributes for instance in sample.instances)
    ids = sample.instance_ids
    things = (_thing(sample, ids, instance, look) for instance in sample.instances if instance.is_thing)
    return tuple(thing for thing in things if thing is not None)


def _thing(sample: Sample, ids: NDArray[np.uint16], instance: Instance, look: bool) -> Thing | None:
    height, width = ids.shape
    x0, y0, x1, y1 = instance.box
    rows, columns = np.nonzero(ids[y0:y1, x0:x1] == instance.id)
    if not len(rows):
        return None
    rows, columns = rows + y0, columns + x0
    depth_m = front_m = None
    if sample.depth_m is not None:
        known = sample.depth_m[rows, columns]
        known = known[np.isfinite(known)]
        if len(known) * 2 >= len(rows):
            depth_m, front_m = float(np.median(known)), float(np.quantile(known, 0.05))
    attributes = instance.attributes
    fraction = instance.visible_fraction
    least = max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * ids.size)
    return Thing(
        id=instance.id,
        category=instance.category,
        color=_color_of(sample.image[rows, columns], instance, look),
        material=attributes.get("material"),
        size=attributes.get("size"),
        u=float(columns.mean() + 0.5) / width,
        v=float(rows.mean() + 0.5) / height,
        box=(x0 / width, y0 / height, x1 / width, y1 / height),
        area=len(rows) / ids.size,
        depth_m=depth_m,
        front_m=front_m,
        volume_m3=None if instance.size_m is None else float(np.prod(instance.size_m)),
        clear=len(rows) >= least and (fraction is None or fraction >= MIN_VISIBLE_FRACTION),
    )


def _color_of(pixels: NDArray[np.uint8], instance: Instance, look: bool) -> str | None:
    if head_noun(instance.category) in PEOPLE:
        return None
    return color_word(pixels) if look else instance.attributes.get("color")


SYNONYMS = (
    ("person", "man", "human", "pedestrian", "rider", "player"),
    ("person", "woman", "human", "pedestrian", "rider", "player"),
    ("person", "child", "boy", "human", "kid"),
    ("person", "child", "girl", "human", "kid"),
    ("sofa", "couch", "armchair", "loveseat"),
    ("chair", "armchair", "seat", "stool"),
    ("bench", "seat", "stool"),
    ("table", "desk", "counter", "nightstand"),
    ("cupboard", "cabinet", "wardrobe", "dresser", "drawer"),
    ("shelf", "bookcase", "bookshelf", "cabinet"),
    ("lamp", "light", "lantern", "chandelier", "streetlight"),
    ("cup", "mug", "glass", "goblet", "tumbler"),
    ("bowl", "dish", "plate"),
    ("vase", "pot", "jar", "jug", "pitcher", "urn", "planter"),
    ("bottle", "jug", "flask"),
    ("plant", "flower", "tree", "bush", "vegetation"),
    ("car", "van", "vehicle", "taxi", "suv"),
    ("truck", "van", "vehicle", "lorry"),
    ("bus", "van", "vehicle"),
    ("bicycle", "bike"),
    ("motorcycle", "motorbike", "scooter", "bike"),
    ("tv", "television", "monitor", "screen", "display"),
    ("laptop", "computer", "notebook"),
    ("dog", "puppy", "animal"),
    ("cat", "kitten", "animal"),
    ("box", "crate", "cube", "block", "cuboid", "package", "carton", "chest", "brick"),
    ("ball", "sphere", "orb", "globe"),
    ("cylinder", "pillar", "column", "tube", "pipe", "drum", "barrel", "disk"),
    ("can", "tin", "cylinder", "drum", "barrel"),
    ("bin", "bucket", "basket", "trash can"),
    ("cone", "pyramid"),
    ("torus", "ring", "donut", "doughnut", "bagel", "tire", "wheel"),
    ("rug", "carpet", "mat"),
    ("bag", "backpack", "handbag", "purse"),
    ("luggage", "suitcase", "bag"),
    ("painting", "picture", "poster", "picture frame", "frame"),
    ("pillow", "cushion"),
    ("monkey", "ape", "suzanne"),
    ("bunny", "rabbit", "hare"),
    ("phone", "telephone"),
    ("oven", "stove", "cooker"),
    ("washing machine", "dryer"),
    ("ball", "basketball", "football"),
    ("hat", "cap", "helmet"),
    ("house", "hut", "building", "tower"),
    ("statue", "figurine", "doll", "toy"),
    ("hill", "mountain"),
    ("rock", "stone", "boulder"),
    ("boat", "ship"),
    ("salient object", "main subject", "object", "thing", "item"),
)
"""Words that one and the same object may go by."""


def head_noun(category: str) -> str:
    """Return the word that says what it is: "office chair" is a chair, "bowl of fruit" a bowl."""
    return category.lower().partition(" of ")[0].split()[-1]


@lru_cache(maxsize=1 << 16)  # asked for every pair of things of every scene; a vocabulary has few pairs
def category_match(asked: str, category: str) -> int:
    """Say whether a thing of `category` is an `asked`: YES, MAYBE (same head noun, or synonyms) or NO."""
    one, two = asked.lower(), category.lower()
    if one == two:
        return YES
    heads = head_noun(one), head_noun(two)
    if heads[0] == heads[1]:
        return MAYBE
    synonyms = any({one, heads[0]} & set(group) and {two, heads[1]} & set(group) for group in SYNONYMS)
    return MAYBE if synonyms else NO


def _attribute_match(asked: str | None, value: str | None) -> int:
    if asked is None:
        return YES
    if value is None:
        return MAYBE
    return YES if asked == value else NO


def _size_match(program: Program, thing: Thing, table: tuple[Thing, ...]) -> int:
    """Sizes are relative to a category: "large object" says nothing, and next to a large chair the others are not."""
    if program.size is None:
        return YES
    if program.category is None:
        return MAYBE
    compared = any(other.size is not None for other in table if other.category == thing.category)
    return NO if thing.size is None and compared else _attribute_match(program.size, thing.size)


def _matches(program: Program, thing: Thing, table: tuple[Thing, ...]) -> int:
    return min(
        YES if program.category is None else category_match(program.category, thing.category),
        _attribute_match(program.color, thing.color),
        _attribute_match(program.material, thing.material),
        _size_match(program, thing, table),
    )


def _sideways(sign: int) -> Callable[[Thing, Thing], int]:
    """Left (-1) or right (+1): the centroid beyond the anchor's edge is YES, on the wrong side of its centre is NO."""

    def relation(thing: Thing, anchor: Thing) -> int:
        edge = anchor.box[0] if sign < 0 else anchor.box[2]
        if sign * (thing.u - edge) > 0 and sign * (thing.u - anchor.u) > POSITION_MARGIN:
            return YES
        return NO if sign * (thing.u - anchor.u) < -POSITION_MARGIN else MAYBE

    return relation


def _depthwise(sign: int) -> Callable[[Thing, Thing], int]:
    """Behind (+1) or in front (-1): YES needs overlapping columns too, since further off to the side is arguable."""

    def relation(thing: Thing, anchor: Thing) -> int:
        if thing.depth_m is None or anchor.depth_m is None:
            return MAYBE
        ratio = (thing.depth_m / anchor.depth_m) ** sign
        if ratio < 1 / DEPTH_RATIO_MARGIN:
            return NO
        overlap = min(thing.box[2], anchor.box[2]) - max(thing.box[0], anchor.box[0])
        return YES if ratio > DEPTH_RATIO_MARGIN and overlap > 0 else MAYBE

    return relation


def _above(thing: Thing, anchor: Thing) -> int:
    overlap = min(thing.box[2], anchor.box[2]) - max(thing.box[0], anchor.box[0])
    if thing.v > anchor.v - POSITION_MARGIN / 2 or overlap < -POSITION_MARGIN:
        return NO if thing.v > anchor.v + POSITION_MARGIN / 2 or overlap < -POSITION_MARGIN else MAYBE
    return YES if thing.box[3] <= anchor.box[1] + POSITION_MARGIN / 2 and overlap > 0 else MAYBE


def _below(thing: Thing, anchor: Thing) -> int:
    return _above(anchor, thing)


def _next_to(thing: Thing, anchor: Thing) -> int:
    """Side by side: small gap in the picture and similar depth. Far apart in either is NO, in between MAYBE."""
    gap = max(thing.box[0] - anchor.box[2], anchor.box[0] - thing.box[2], 0.0)
    rise = max(thing.box[1] - anchor.box[3], anchor.box[1] - thing.box[3], 0.0)
    if max(gap, rise) > 0.2:
        return NO
    if thing.depth_m is None or anchor.depth_m is None:
        return MAYBE
    ratio = max(thing.depth_m / anchor.depth_m, anchor.depth_m / thing.depth_m)
    if ratio > 1.6:
        return NO
    beside = gap < 0.06 and rise == 0 and abs(thing.u - anchor.u) > POSITION_MARGIN
    return YES if beside and ratio < 1.15 else MAYBE


RELATIONS: Mapping[str, Callable[[Thing, Thing], int]] = MappingProxyType(
    {
        "left of": _sideways(-1),
        "right of": _sideways(1),
        "behind": _depthwise(1),
        "in front of": _depthwise(-1),
        "above": _above,
        "below": _below,
        "next to": _next_to,
    }
)


@dataclass(frozen=True)
class Measure:
    """One quantity a superlative compares: a field of Thing, towards which end, and the margin that settles it."""

    field: str
    sign: int
    margin: float
    ratio: bool = False
    optional: bool = False

    def beats(self, first: float, second: float) -> bool:
        """Say whether `first` is further along than `second` by the margin."""
        if not self.ratio:
            return self.sign * (first - second) > self.margin
        return first > second * self.margin if self.sign > 0 else first * self.margin < second


SUPERLATIVES: Mapping[str, tuple[Measure, ...]] = MappingProxyType(
    {
        "leftmost": (Measure("u", -1, POSITION_MARGIN),),
        "rightmost": (Measure("u", 1, POSITION_MARGIN),),
        "highest": (Measure("v", -1, POSITION_MARGIN),),
        "lowest": (Measure("v", 1, POSITION_MARGIN),),
        "nearest": tuple(Measure(name, -1, DEPTH_RATIO_MARGIN, ratio=True) for name in ("depth_m", "front_m")),
        "farthest": tuple(Measure(name, 1, DEPTH_RATIO_MARGIN, ratio=True) for name in ("depth_m", "front_m")),
        "largest": (
            Measure("area", 1, AREA_RATIO_MARGIN, ratio=True),
            Measure("volume_m3", 1, VOLUME_RATIO_MARGIN, ratio=True, optional=True),
        ),
        "smallest": (
            Measure("area", -1, AREA_RATIO_MARGIN, ratio=True),
            Measure("volume_m3", -1, VOLUME_RATIO_MARGIN, ratio=True, optional=True),
        ),
    }
)
"""Each must be won on all of its measures: the nearest by its median and by its front, the largest in the picture and
in the scene (when sizes are known)."""


def execute(program: Program, table: tuple[Thing, ...]) -> frozenset[int] | None:
    """Run a program on a scene.

    Args:
        program: what is asked.
        table: every thing with visible pixels.

    Returns:
        The ids it names, empty when surely nothing fits; None when borderline: an unknown fact, a comparison within its
        margin, or hardly visible things among those that would have to be counted.
    """
    truth = {thing.id: _matches(program, thing, table) for thing in table}
    if program.relation is not None and program.anchor is not None:
        anchors = execute(program.anchor, table)
        if anchors is None or len(anchors) != 1:
            return None
        anchor = next(thing for thing in table if thing.id in anchors)
        relation = RELATIONS[program.relation]
        for thing in table:
            truth[thing.id] = NO if thing is anchor else min(truth[thing.id], relation(thing, anchor))
    candidates = [thing for thing in table if truth[thing.id] > NO]
    if program.superlative is not None:
        winner = _winner(candidates, SUPERLATIVES[program.superlative], program.rank)
        if winner is None or truth[winner.id] < YES:
            return None
        counted = program.rank == 1 or all(thing.clear and truth[thing.id] == YES for thing in candidates)
        return frozenset({winner.id}) if counted else None
    if any(truth[thing.id] == MAYBE for thing in candidates):
        return None
    if program.quantity == "all" and not all(thing.clear for thing in candidates):
        return None
    return frozenset(thing.id for thing in candidates)


def _winner(candidates: list[Thing], measures: tuple[Measure, ...], rank: int) -> Thing | None:
    """Return the candidate at `rank` when it is apart from all others, on every measure, by the margin."""
    if len(candidates) <= rank:
        return None
    first = measures[0]
    if any(getattr(thing, first.field) is None for thing in candidates):
        return None
    ordered = sorted(candidates, key=lambda thing: -first.sign * float(getattr(thing, first.field)))
    winner, ahead, behind = ordered[rank - 1], ordered[: rank - 1], ordered[rank:]
    for measure in measures:
        if any(getattr(thing, measure.field) is None for thing in candidates):
            if measure.optional:
                continue
            return None
        value = float(getattr(winner, measure.field))
        if not all(measure.beats(value, float(getattr(thing, measure.field))) for thing in behind):
            return None
        if not all(measure.beats(float(getattr(thing, measure.field)), value) for thing in ahead):
            return None
    return winner
