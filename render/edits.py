"""Edit pairs: the same scene a second time with one change, and the instruction that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.palettes import color_word
from encoders.sample import Edit, Instance, UInt8Image
from render.facts import PEOPLE, edit_instruction, name_uniquely
from render.layout import PAINTS
from render.meshes import Placed, largest_slot, place
from render.passes import Truth, cast_scene
from render.recipe import Recipe

Draw = Callable[[Sequence[Placed], Truth], UInt8Image]
"""Paints a changed scene the way the first picture was painted: same light, exposure and after-effects."""

MIN_REMOVAL_CHANGE = 12.0
"""Mean change, of 255, of the pixels where a thing was."""
RECOLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Candidate:
    """A thing that could be edited: its instance, the words that single it out, and its place in the scene."""

    instance: Instance
    words: str
    number: int


def make_edit(
    recipe: Recipe, scene: Sequence[Placed], truth: Truth, instances: Sequence[Instance], image: UInt8Image,
    draw: Draw, rng: np.random.Generator,
) -> Edit | None:  # fmt: skip
    """Recolour or remove one clearly visible thing that words can single out; None when the scene offers none.

    A recoloured thing must read as the colour asked for, a removed one must have changed its pixels; there are two
    tries, of one kind each.
    """
    kinds = ["recolor", "remove"] if rng.random() < 0.6 else ["remove", "recolor"]
    for kind in kinds:
        candidates = find_candidates(kind, scene, truth, instances)
        if not candidates:
            continue
        chosen = candidates[rng.integers(len(candidates))]
        before, thing, after = scene[: chosen.number], scene[chosen.number], scene[chosen.number + 1 :]
        mask = truth.instance_ids == chosen.instance.id
        color = ""
        if kind == "recolor":
            color = str(rng.choice([word for word in RECOLORS if word != chosen.instance.attributes.get("color")]))
            changed = [*before, place(replace(thing.thing, paint=PAINTS[color])), *after]
            edited = draw(changed, truth)
            done = color_word(edited[mask]) == color
        else:
            changed = [*before, *after]
            edited = draw(changed, cast_scene(changed, recipe.camera))
            done = np.abs(edited[mask].astype(int) - image[mask]).mean() >= MIN_REMOVAL_CHANGE
        if done:
            return Edit(kind, edit_instruction(kind, chosen.words, color, rng), chosen.instance.id, edited)
    return None


def find_candidates(kind: str, scene: Sequence[Placed], truth: Truth, instances: Sequence[Instance]) -> list[Candidate]:
    """List the things that can be recoloured, or removed: clearly visible, singled out by words, carrying nothing."""
    number_of = {placed.thing.id: number for number, placed in enumerate(scene)}
    carried = {placed.thing.rests_on for placed in scene}
    found = []
    for instance in instances:
        words = name_uniquely(instance, instances)
        clear = instance.visible_pixels > 0.01 * truth.instance_ids.size and (instance.visible_fraction or 0) > 0.55
        if not instance.is_thing or words is None or not clear:
            continue
        number = number_of[instance.id]
        if kind == "recolor":
            fits = instance.category not in PEOPLE and _painted_share(scene[number], truth) > 0.6
        else:
            fits = instance.id not in carried
        if fits:
            found.append(Candidate(instance, words, number))
    return found


def _painted_share(placed: Placed, truth: Truth) -> float:
    """Return the share of a thing's visible pixels that new paint would cover."""
    slot = largest_slot(placed.mesh) if placed.thing.shape == "model" else 0
    return float((truth.slots[truth.instance_ids == placed.thing.id] == slot).mean())
