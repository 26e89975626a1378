"""Words for what is seen: instances with attributes, captions, and the wording of edits, all from the exact masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cavendish.encoders.codecs.palettes import color_word
from cavendish.encoders.sample import Instance, UInt8Image
from cavendish.render.geometry.mesh import Placed
from cavendish.render.labels.passes import Truth
from cavendish.render.scenes.recipe import Recipe, pose_matrix

SPOKEN_MATERIALS = ("ceramic", "fabric", "metal", "paper", "plastic", "stone", "wood", "brick", "tile", "carpet")
PEOPLE = ("man", "woman")
"""Never given a colour word: it would be read as one for the person, not the clothes."""
Rng = np.random.Generator


def find_instances(recipe: Recipe, scene: Sequence[Placed], truth: Truth, image: UInt8Image) -> tuple[Instance, ...]:
    """Describe every thing that has at least one pixel, in the order of ids."""
    to_camera = np.linalg.inv(pose_matrix(recipe.camera))
    found = []
    counts = np.bincount(truth.instance_ids.ravel(), minlength=len(scene) + 2)
    for placed in scene:
        thing = placed.thing
        if counts[thing.id] == 0:
            continue
        mask = truth.instance_ids == thing.id
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        center = to_camera @ placed.matrix @ np.array([0, 0, thing.size_m[2] / 2, 1])
        attributes = {}
        color = None if thing.category in PEOPLE else color_word(image[mask])
        if color is not None:
            attributes["color"] = color
        if thing.materials and thing.materials[0].word in SPOKEN_MATERIALS and thing.paint is None:
            attributes["material"] = thing.materials[0].word
        found.append(
            Instance(
                id=thing.id,
                category=thing.category,
                visible_pixels=int(counts[thing.id]),
                box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
                attributes=attributes,
                visible_fraction=round(float(counts[thing.id]) / truth.silhouettes[thing.id], 4),
                center_camera_m=tuple(round(float(value), 4) for value in center[:3]),  # type: ignore[arg-type]
                size_m=thing.size_m,
                is_thing=thing.is_thing,
            )
        )
    return _with_sizes(found)


def _with_sizes(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Call the largest and the smallest of a category so, where they are 1.3 times the next one's length."""
    words: dict[int, str] = {}
    for category in {instance.category for instance in instances if instance.is_thing}:
        same = sorted((i for i in instances if i.category == category), key=lambda i: np.prod(i.size_m or (0.0,)))
        lengths = [float(np.prod(i.size_m or (0.0,))) ** (1 / 3) for i in same]
        if len(same) > 1 and lengths[-1] > 1.3 * lengths[-2]:
            words[same[-1].id] = "large"
        if len(same) > 1 and lengths[1] > 1.3 * lengths[0]:
            words[same[0].id] = "small"
    return tuple(
        replace(instance, attributes={**instance.attributes, "size": words[instance.id]})
        if instance.id in words
        else instance
        for instance in instances
    )


def article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the plural of one of the nouns in use."""
    head, of, rest = noun.partition(" of ")
    irregular = {"man": "men", "woman": "women", "shelf": "shelves", "scissors": "pairs of scissors"}
    if head in irregular:
        head = irregular[head]
    elif not head.endswith(("clothes", "slippers", "sneakers", "logs", "headphones")):
        if head.endswith(("s", "x", "ch", "sh")):
            head += "es"
        elif head.endswith("y") and head[-2] not in "aeiou":
            head = head[:-1] + "ies"
        else:
            head += "s"
    return head + of + rest


_PLURAL_ONLY = ("clothes", "slippers", "sneakers", "logs", "headphones", "scissors")


def counted(noun: str, count: int) -> str:
    """Return a noun with its number in words: "a cup", "two cups", "scissors"."""
    if count == 1:
        return noun if noun.endswith(_PLURAL_ONLY) else article(noun)
    numbers = {2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{numbers.get(count, 'several')} {plural(noun)}"


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def write_captions(recipe: Recipe, instances: Sequence[Instance], rng: Rng) -> tuple[str, ...]:
    """Write three captions: the main things, the things with their colours, and the scene in one line."""
    facts = dict(recipe.facts)
    pixels = recipe.camera.width * recipe.camera.height
    things = sorted(
        (
            i
            for i in instances
            if i.is_thing
            and i.visible_pixels > 0.004 * pixels
            and not (recipe.kind == "table top" and i.category in ("table", "desk", "coffee table"))
        ),
        key=lambda i: -i.visible_pixels,
    )[:6]
    if not things:
        return (_where(recipe.kind, facts),)
    counts = Counter(thing.category for thing in things)
    plain = _listed([counted(noun, count) for noun, count in counts.items()])
    described = []
    for thing in things[:4]:
        noun = " ".join([*([thing.attributes["color"]] if "color" in thing.attributes else []), thing.category])
        described.append(noun)
    colored = _listed([counted(noun, count) for noun, count in Counter(described).items()])
    return tuple(
        str(rng.choice(options))
        for options in (
            (f"{_where(recipe.kind, facts)} with {plain}", f"{plain} in {_where(recipe.kind, facts)}"),
            (f"a picture of {colored}", f"{colored}, in {_where(recipe.kind, facts)}", f"a rendering with {colored}"),
            (f"{_setting(recipe.kind, facts)}: {plain}", f"{_setting(recipe.kind, facts)}, with {colored}"),
        )
    )


def _where(kind: str, facts: Mapping[str, str]) -> str:
    if kind in ("room", "corridor", "clutter"):
        return article(facts["place"])
    if kind == "table top":
        return "a close-up of a table"
    known = {"open land": "an open landscape", "fields": "a landscape with fields", "hills": "hilly country"}
    return known.get(facts["place"]) or article(facts["place"])


def _setting(kind: str, facts: Mapping[str, str]) -> str:
    if kind in ("room", "corridor"):
        return f"indoors, {article(facts['place'])}"
    if kind == "clutter":
        return "many things on top of each other"
    if kind == "table top":
        return "things on a table"
    sky = {"clear": "under a clear sky", "hazy": "on a hazy day", "overcast": "under an overcast sky"}
    sky |= {"dusk": "at dusk", "night": "at night"}
    return f"outdoors, {facts['place']} {sky.get(facts['weather'], 'in low sunlight')}"


def name_uniquely(instance: Instance, instances: Sequence[Instance]) -> str | None:
    """Return words that fit this instance and no other visible one, or None."""
    same = [other for other in instances if other.category == instance.category]
    if len(same) == 1:
        return instance.category
    color = instance.attributes.get("color")
    # another one whose colour has no clear word could be taken for this colour
    if color is not None and all(
        other.attributes.get("color") not in (color, None) for other in same if other.id != instance.id
    ):
        return f"{color} {instance.category}"
    return None


def recolor_instruction(words: str, color: str, rng: Rng) -> str:
    """Word the change of a colour."""
    options = (
        f"Make the {words} {color}.",
        f"Change the color of the {words} to {color}.",
        f"Paint the {words} {color}.",
        f"Turn the {words} {color}.",
        f"make the {words} {color}",
    )
    return str(rng.choice(options))


def remove_instruction(words: str, rng: Rng) -> str:
    """Word a removal."""
    options = (
        f"Remove the {words}.",
        f"Take away the {words}.",
        f"Erase the {words} from the picture.",
        f"Delete the {words}.",
        f"remove the {words} from the scene",
    )
    return str(rng.choice(options))


def move_instruction(words: str, relation: str, reference: str, rng: Rng) -> str:
    """Word a move: `relation` is "left" or "right" of, or "on", the reference; without one, of where the thing is."""
    where = f"onto the {reference}" if relation == "on" else f"to the {relation} of the {reference}"
    if not reference:
        sentence = f"{rng.choice(('Move', 'Shift'))} the {words} {rng.choice(('', 'further '))}to the {relation}"
        return str(rng.choice((f"{sentence}.", f"{sentence[0].lower()}{sentence[1:]}")))
    verbs = ("Move", "Put", "Place") if relation == "on" else ("Move", "Shift", "Put")
    where_put = where.replace("onto", "on")
    verb = str(rng.choice(verbs))
    sentence = f"{verb} the {words} {where if verb in ('Move', 'Shift') else where_put}"
    return str(rng.choice((f"{sentence}.", f"{sentence[0].lower()}{sentence[1:]}")))


def replace_instruction(words: str, by: str, rng: Rng) -> str:
    """Word a replacement; `by` comes with its article."""
    options = (
        f"Replace the {words} with {by}.",
        f"Swap the {words} for {by}.",
        f"Put {by} in place of the {words}.",
        f"Exchange the {words} for {by}.",
        f"replace the {words} by {by}",
    )
    return str(rng.choice(options))
