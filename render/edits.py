"""Edit pairs: the same scene a second time with one change, and an instruction that is true of it and of nothing else.

Each kind of edit proposes a change that words can single out, checks it with the ray cast before anything is painted,
and looks at the painted picture afterwards. A change that fails is dropped, and the next kind is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.palettes import color_word
from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Camera, Edit, Instance, UInt8Image
from cavendish.render.config import EditKind
from cavendish.render.geometry.mesh import Placed, largest_slot
from cavendish.render.geometry.meshes import place
from cavendish.render.geometry.models import model_top
from cavendish.render.labels.facts import (
    PEOPLE,
    counted,
    find_instances,
    move_instruction,
    name_uniquely,
    recolor_instruction,
    remove_instruction,
    replace_instruction,
)
from cavendish.render.labels.passes import Truth, nearest_hit, project_box
from cavendish.render.scenes.layout import PAINTS, footprint, model, overlap, rounded
from cavendish.render.scenes.recipe import Recipe, Thing, pose_matrix

Rng = np.random.Generator
MIN_CHANGE = 12.0
"""Mean change, of 255, of the pixels where a thing was, and of those where it is now."""
MIN_SHARE = 0.01
"""Part of the picture that a thing to be edited covers."""
RECOLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
PLACES, MAX_WAYS = 6, 200
"""Changes of one kind that are looked at by ray cast before the kind is given up; and moves that are thought of."""
STAND_INS = {
    "room": ("chair", "stool", "armchair", "floor_item", "floor_plant", "low_storage", "high_storage", "floor_lamp"),
    "outdoor": ("street_item", "vehicle", "person"),
}
"""Roles of what may stand in for something on the floor or ground; on tops it is table items."""

REST_GAP_M = 0.004
"""A thing rests when what is below its middle and its four sides is at most this far down (or this far up)."""
LIFT_M = 0.05


@dataclass(frozen=True)
class Shot:
    """A finished picture and what it takes to make another of the changed scene.

    Args:
        cast: scene -> labels, through the same lens; draw: scene and labels -> picture, in the same light.
        palette: role -> models that may take a thing's place.
    """

    recipe: Recipe
    scene: Sequence[Placed]
    truth: Truth
    instances: Sequence[Instance]
    image: UInt8Image
    cast: Callable[[Sequence[Placed]], Truth]
    draw: Callable[[Sequence[Placed], Truth], UInt8Image]
    palette: Mapping[str, Sequence[str]]

    def placed(self, instance: Instance) -> Placed:
        """Return the thing of an instance."""
        return next(placed for placed in self.scene if placed.thing.id == instance.id)

    def without(self, instance: Instance) -> list[Placed]:
        """Return the scene but for one thing."""
        return [placed for placed in self.scene if placed.thing.id != instance.id]


@dataclass(frozen=True)
class Done:
    """An edit, the changed thing as the new picture shows it (None: gone), and the model it brought in, if any."""

    edit: Edit
    after: Instance | None
    model: str = ""


@dataclass(frozen=True)
class Candidate:
    """A thing that could be edited, and the words that single it out."""

    instance: Instance
    words: str


def make_edit(shot: Shot, weights: Mapping[EditKind, float], rng: Rng) -> Done | None:
    """Make one edit, of the first kind drawn by `weights` that works out; None when the scene offers none."""
    kinds = [kind for kind in weights if weights[kind] > 0]
    chances = np.array([weights[kind] for kind in kinds])
    makers = {"recolor": _recolor, "remove": _remove, "move": _move, "replace": _replace}
    for number in rng.choice(len(kinds), len(kinds), replace=False, p=chances / chances.sum()):
        done = makers[kinds[number]](shot, rng)
        if done is not None:
            return done
    return None


def find_candidates(shot: Shot) -> list[Candidate]:
    """List the things that are clearly visible and singled out by words."""
    found = []
    for instance in shot.instances:
        words = name_uniquely(instance, shot.instances)
        clear = instance.visible_pixels > MIN_SHARE * shot.truth.instance_ids.size
        if instance.is_thing and words is not None and clear and (instance.visible_fraction or 0) > 0.55:
            found.append(Candidate(instance, words))
    return found


def _recolor(shot: Shot, rng: Rng) -> Done | None:
    """Paint a thing; it must read as the colour asked for."""
    candidates = [
        candidate for candidate in find_candidates(shot)
        if candidate.instance.category not in PEOPLE and _painted_share(shot, candidate.instance) > 0.6
    ]  # fmt: skip
    if not candidates:
        return None
    chosen = one_of(candidates, rng)
    color = str(rng.choice([word for word in RECOLORS if word != chosen.instance.attributes.get("color")]))
    changed = [
        place(replace(placed.thing, paint=PAINTS[color])) if placed.thing.id == chosen.instance.id else placed
        for placed in shot.scene
    ]
    image = shot.draw(changed, shot.truth)
    mask = shot.truth.instance_ids == chosen.instance.id
    if color_word(image[mask]) != color:
        return None
    edit = Edit("recolor", recolor_instruction(chosen.words, color, rng), chosen.instance.id, image)
    return Done(edit, _after(shot, changed, shot.truth, edit))


def _painted_share(shot: Shot, instance: Instance) -> float:
    """Return the share of a thing's visible pixels that new paint would cover."""
    placed = shot.placed(instance)
    slot = largest_slot(placed.mesh) if placed.thing.shape == "model" else 0
    return float((shot.truth.slots[shot.truth.instance_ids == instance.id] == slot).mean())


def _loose(shot: Shot) -> list[Candidate]:
    """List the candidates that carry nothing."""
    carried = {number for placed in shot.scene for number in (placed.thing.rests_on, *placed.thing.leans_on)}
    return [candidate for candidate in find_candidates(shot) if candidate.instance.id not in carried]


def _remove(shot: Shot, rng: Rng) -> Done | None:
    """Take a thing away."""
    candidates = _loose(shot)
    if not candidates:
        return None
    chosen = one_of(candidates, rng)
    changed = shot.without(chosen.instance)
    truth = shot.cast(changed)
    image = shot.draw(changed, truth)
    if not _has_changed(shot, truth, image, chosen.instance.id):
        return None
    return Done(Edit("remove", remove_instruction(chosen.words, rng), chosen.instance.id, image), None)


def _move(shot: Shot, rng: Rng) -> Done | None:
    """Move a thing to the left or right, of where it is or of another one, or onto another one."""
    ways = [
        (one, other, relation)
        for one in _movable(shot)
        for other in find_candidates(shot)
        for relation in ("left", "right", "on")
        if relation != "on" or one.instance.id != other.instance.id
    ]
    looked_at = 0
    for number in rng.permutation(len(ways))[:MAX_WAYS]:
        chosen, reference, relation = ways[number]
        moved = _new_place(shot, chosen.instance, reference.instance, relation, rng)
        if moved is None or looked_at == PLACES:
            continue
        looked_at += 1
        changed = [moved if one.thing.id == chosen.instance.id else one for one in shot.scene]
        truth = shot.cast(changed)
        seen = {one.id: one for one in find_instances(shot.recipe, changed, truth, shot.image)}
        if not _well_seen(chosen.instance, seen, truth) or reference.instance.id not in seen:
            continue
        alone = chosen.instance.id == reference.instance.id
        anchor = reference.instance if alone else seen[reference.instance.id]
        if anchor.visible_pixels < 0.6 * reference.instance.visible_pixels:
            continue
        if not _holds(relation, seen[chosen.instance.id], anchor, moved):
            continue
        image = shot.draw(changed, truth)
        if not _has_changed(shot, truth, image, chosen.instance.id):
            return None
        text = move_instruction(chosen.words, relation, "" if alone else reference.words, rng)
        edit = Edit("move", text, chosen.instance.id, image)
        return Done(edit, _after(shot, changed, truth, edit))
    return None


def _movable(shot: Shot) -> list[Candidate]:
    """List the candidates that carry nothing, rest on something and are wholly inside the picture."""
    height, width = shot.truth.instance_ids.shape
    return [
        one
        for one in _loose(shot)
        if _is_inside(one.instance, height, width)
        and not any(shot.placed(one.instance).thing.tilt)
        and rests(shot.placed(one.instance), shot.without(one.instance))
    ]


def _is_inside(instance: Instance, height: int, width: int) -> bool:
    x0, y0, x1, y1 = instance.box
    return x0 > 0 and y0 > 0 and x1 < width and y1 < height


def _new_place(shot: Shot, chosen: Instance, reference: Instance, relation: str, rng: Rng) -> Placed | None:
    """Place a thing beside another one (or its old self), or on top of one; None where that cannot be or already is."""
    placed, anchor = shot.placed(chosen), shot.placed(reference)
    longest, other = max(placed.thing.size_m), max(anchor.thing.size_m)
    same_support = placed.thing.rests_on == anchor.thing.rests_on
    if relation == "on":
        fits = longest < 0.6 and longest < 0.6 * other and reference.category not in PEOPLE
    else:
        fits = longest < (6 if same_support else 2.5) * other and other < 8 * longest
    if not fits or (chosen.id != reference.id and _holds(relation, chosen, reference, placed)):
        return None
    for _ in range(4):
        if relation == "on":
            moved = on_top_of(placed, anchor, shot.recipe.camera, shot.without(chosen), rng)
        else:
            moved = beside(placed, anchor, shot.recipe.camera, relation, shot.without(chosen), rng)
        if moved is not None:
            return moved
    return None


def _holds(relation: str, moved: Instance, reference: Instance, placed: Placed) -> bool:
    """Tell whether a thing is seen to the left or right of another one, at its height, or stands on it."""
    if relation == "on":
        return placed.thing.rests_on == reference.id
    (x0, y0, x1, y1), (u0, v0, u1, v1) = moved.box, reference.box
    level = min(y1, v1) - max(y0, v0) > 0.3 * min(y1 - y0, v1 - v0)
    middle = (u0 + u1) / 2
    beyond = (x0 + x1) / 2 < u0 and x1 < middle if relation == "left" else (x0 + x1) / 2 > u1 and x0 > middle
    return level and beyond


def _well_seen(before: Instance, seen: Mapping[int, Instance], truth: Truth) -> bool:
    """Tell whether a thing is clearly seen in the new picture, wholly inside it."""
    after = seen.get(before.id)
    if after is None or (after.visible_fraction or 0) < 0.5 or not _is_inside(after, *truth.instance_ids.shape):
        return False
    return after.visible_pixels >= 0.5 * MIN_SHARE * truth.instance_ids.size


def _replace(shot: Shot, rng: Rng) -> Done | None:
    """Put a model of another category in a thing's place."""
    candidates = _movable(shot)
    for _ in range(PLACES if candidates else 0):
        chosen = one_of(candidates, rng)
        placed = shot.placed(chosen.instance)
        stand_in = _draw_stand_in(shot, placed, rng)
        others = shot.without(chosen.instance)
        if stand_in is None or not is_free(stand_in, others) or not rests(stand_in, others):
            continue
        changed = [stand_in if one is placed else one for one in shot.scene]
        truth = shot.cast(changed)
        seen = {one.id: one for one in find_instances(shot.recipe, changed, truth, shot.image)}
        if not _well_seen(chosen.instance, seen, truth):
            continue
        image = shot.draw(changed, truth)
        if not _has_changed(shot, truth, image, chosen.instance.id):
            return None
        after = next(one for one in find_instances(shot.recipe, changed, truth, image) if one.id == chosen.instance.id)
        # the colour is read from the picture, so that naming it is true
        color = after.attributes.get("color") if rng.random() < 0.5 else None
        words = counted(f"{color} {after.category}" if color else after.category, 1)
        edit = Edit("replace", replace_instruction(chosen.words, words, rng), chosen.instance.id, image)
        return Done(edit, after, stand_in.thing.model)
    return None


def _draw_stand_in(shot: Shot, placed: Placed, rng: Rng) -> Placed | None:
    """Draw a model of about the same size, of a category that the scene does not have."""
    thing = placed.thing
    support = next((one.thing for one in shot.scene if one.thing.id == thing.rests_on), None)
    on_a_top = support is not None and support.size_m[2] > 0.2
    roles = ("table_item",) if on_a_top else STAND_INS.get(_setting(shot.recipe), STAND_INS["room"])
    there = {one.thing.category for one in shot.scene}
    fitting = []
    for name in sorted({name for role in roles for name in shot.palette.get(role, ())}):
        other = model(name)
        words = set(other.category.split())
        ratio = max(other.size_m) / max(thing.size_m)
        if 0.6 < ratio < 1.7 and not any(words & set(category.split()) for category in there):
            fitting.append(other)
    if not fitting:
        return None
    drawn = one_of(fitting, rng)
    return place(
        replace(drawn, id=thing.id, position_m=thing.position_m, yaw_rad=thing.yaw_rad, rests_on=thing.rests_on)
    )


def _setting(recipe: Recipe) -> str:
    return "room" if recipe.kind in ("room", "table top") else "outdoor"


def _has_changed(shot: Shot, truth: Truth, image: UInt8Image, number: int) -> bool:
    """Tell whether the picture differs clearly where the thing was, and where it is now."""
    change = np.abs(image.astype(int) - shot.image).mean(axis=-1)
    masks = [shot.truth.instance_ids == number, truth.instance_ids == number]
    return all(change[mask].mean() >= MIN_CHANGE for mask in masks if mask.any())


def _after(shot: Shot, changed: Sequence[Placed], truth: Truth, edit: Edit) -> Instance:
    """Describe the changed thing from the new picture."""
    found = find_instances(shot.recipe, changed, truth, edit.image)
    return next(instance for instance in found if instance.id == edit.instance_id)


def world_box(placed: Placed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest corner of a thing's box along the world's axes, metres."""
    points = placed.mesh.vertices @ placed.matrix[:3, :3].T + placed.matrix[:3, 3]
    return points.min(axis=0), points.max(axis=0)


def is_free(placed: Placed, others: Sequence[Placed]) -> bool:
    """Tell whether a thing stands clear of all others: of the boxes of things, of the triangles of structures."""
    low, high = world_box(placed)
    for other in others:
        if any(other.thing.tilt) or any(placed.thing.tilt):
            other_low, other_high = world_box(other)
            apart = bool((low >= other_high).any() or (other_low >= high).any())
        elif other.thing.is_thing:
            apart = not overlap(footprint(placed.thing), footprint(other.thing), 0.005)
        else:
            apart = _clear_of_triangles(low, high, other)
        if not apart:
            return False
    return True


def _clear_of_triangles(low: NDArray[np.float64], high: NDArray[np.float64], other: Placed) -> bool:
    points = other.mesh.vertices @ other.matrix[:3, :3].T + other.matrix[:3, 3]
    corners = points[other.mesh.faces]
    first, last = corners.min(axis=1), corners.max(axis=1)
    return not bool(((first < high) & (last > low)).all(axis=1).any())


def rests(placed: Placed, others: Sequence[Placed]) -> bool:
    """Tell whether a thing stands on something level: rays down from its middle and near its four sides."""
    thing = placed.thing
    half = np.array(thing.size_m[:2]) * 0.4
    down = np.array([0.0, 0.0, -1.0])
    for x, y in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        local = np.array([x * half[0], y * half[1], 0.0])
        start = placed.matrix[:3, :3] @ local + placed.matrix[:3, 3] + [0, 0, LIFT_M]
        if abs(nearest_hit(others, start, down) - LIFT_M) > REST_GAP_M:
            return False
    return True


def beside(
    placed: Placed, reference: Placed, camera: Camera, side: str, others: Sequence[Placed], rng: np.random.Generator
) -> Placed | None:
    """Place a thing to the "left" or "right", as the camera sees it, of another one, on what that one stands on.

    Args:
        others: all of the scene but the thing itself.
    """
    right = pose_matrix(camera)[:3, 0].copy()
    right[2] = 0
    right /= np.linalg.norm(right)
    away = right if side == "right" else -right
    back = np.array([-right[1], right[0], 0.0])
    reach = sum(_reach(one, away) for one in (placed, reference))
    gap = float(rng.uniform(0.05, 0.5)) * max(reach, 0.05)
    shift = float(rng.uniform(-0.25, 0.25)) * _reach(reference, back)
    at = np.array(reference.thing.position_m) + (reach + gap) * away + shift * back
    moved = replace(placed.thing, position_m=rounded(at), rests_on=reference.thing.rests_on)
    return _if_possible(moved, camera, others)


def on_top_of(
    placed: Placed, support: Placed, camera: Camera, others: Sequence[Placed], rng: np.random.Generator
) -> Placed | None:
    """Place a thing somewhere on the flat top of another one."""
    top = model_top(support.thing.model) if support.thing.shape == "model" else None
    if top is None:
        return None
    reach = float(np.hypot(*placed.thing.size_m[:2])) / 2
    free = np.array([top.half_x_m, top.half_y_m]) - reach
    if (free < 0).any():
        return None
    local = np.array([*rng.uniform(-free, free), top.height_m + 0.0005])
    at = support.matrix[:3, :3] @ local + support.matrix[:3, 3]
    return _if_possible(replace(placed.thing, position_m=rounded(at), rests_on=support.thing.id), camera, others)


def _reach(placed: Placed, direction: NDArray[np.float64]) -> float:
    """Return how far a thing's box reaches from its middle along a horizontal direction."""
    local = np.abs(direction @ placed.matrix[:3, :3])[:2]
    return float((local * np.array(placed.thing.size_m[:2]) / 2).sum())


def _if_possible(thing: Thing, camera: Camera, others: Sequence[Placed]) -> Placed | None:
    """Place a thing if it is then in the picture, clear of all others, and at rest."""
    moved = place(thing)
    x0, y0, x1, y1 = project_box(moved, camera)
    inside = 0 < x0 < x1 < camera.width and 0 < y0 < y1 < camera.height
    return moved if inside and is_free(moved, others) and rests(moved, others) else None
