"""Edits: one thing changes, the instruction is true of it and of nothing else, and nothing floats or meets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from cavendish.encoders.sample import UInt8Image
from cavendish.render.assets.catalogue import licences_of
from cavendish.render.edits import Done, EditKind, Shot, is_free, make_edit, rests
from cavendish.render.geometry.mesh import Placed
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.facts import find_instances
from cavendish.render.labels.passes import Truth, cast_scene
from cavendish.render.scenes.scenes import draw_palette, draw_recipe
from tests.render.scenes.test_scenes import shared_area

SIZE = 96


def flat_color(placed: Placed) -> NDArray[np.float64]:
    """Return a thing's paint, or a strong colour that depends on what it is."""
    if placed.thing.paint is not None:
        return np.array(placed.thing.paint) * 255
    hashed = hashlib.sha256(f"{placed.thing.category} {placed.thing.id}".encode()).digest()
    return np.array([(0, 128, 255)[byte % 3] for byte in hashed[:3]], np.float64)


def paint_flat(scene: Sequence[Placed], truth: Truth) -> UInt8Image:
    """Paint each thing in one colour: an engine whose pictures show exactly what the labels say."""
    table = np.zeros((max(placed.thing.id for placed in scene) + 1, 3))
    for placed in scene:
        table[placed.thing.id] = flat_color(placed)
    return table[truth.instance_ids].astype(np.uint8)


@cache
def shot_of(kind: str, seed: int) -> Shot:
    palette = draw_palette(np.random.default_rng([seed, 1]), 100)
    recipe = draw_recipe({kind: 1.0}, np.random.default_rng([seed, 2]), palette, SIZE, SIZE)
    scene = build_scene(recipe)
    truth = cast_scene(scene, recipe.camera)
    image = paint_flat(scene, truth)
    instances = find_instances(recipe, scene, truth, image)
    return Shot(
        recipe, scene, truth, instances, image, lambda changed: cast_scene(changed, recipe.camera), paint_flat, palette
    )


def edits_of(kind: EditKind, wanted: int) -> list[tuple[Shot, Done, list[Placed]]]:
    """Make edits of one kind; return them with the changed scenes."""
    found = []
    for seed in range(10):
        for scene in ("room", "table top", "outdoor"):
            drawn: list[Sequence[Placed]] = []
            shot = shot_of(scene, seed)
            kept = Shot(
                **{
                    **shot.__dict__,
                    "draw": lambda changed, truth: (drawn.append(changed), paint_flat(changed, truth))[1],  # noqa: B023
                }
            )
            done = make_edit(kept, {kind: 1.0}, np.random.default_rng(seed))
            if done is not None:
                found.append((shot, done, list(drawn[-1])))
            if len(found) == wanted:
                return found
    raise AssertionError(f"{len(found)} edits of {kind}, {wanted} wanted")


def thing_of(scene: Sequence[Placed], number: int) -> Placed:
    return next(placed for placed in scene if placed.thing.id == number)


def height_below(point: NDArray[np.float64], others: Sequence[Placed]) -> float:
    """Return the height of the highest surface under a point (by barycentric coordinates in plan, no ray caster)."""
    best = -np.inf
    for placed in others:
        vertices = placed.mesh.vertices @ placed.matrix[:3, :3].T + placed.matrix[:3, 3]
        a, b, c = (vertices[placed.mesh.faces[:, corner]] for corner in range(3))
        ab, ac, ap = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2], point[:2] - a[:, :2]
        area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
            w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
            z = a[:, 2] + v * (b - a)[:, 2] + w * (c - a)[:, 2]
            hit = (v >= 0) & (w >= 0) & (v + w <= 1) & (z < point[2] + 0.02)
        best = max(best, float(z[hit].max(initial=-np.inf)))
    return best


def assert_stands_clear(scene: Sequence[Placed], number: int) -> None:
    moved = thing_of(scene, number)
    others = [placed for placed in scene if placed.thing.id != number]
    assert abs(moved.thing.position_m[2] - height_below(np.array(moved.thing.position_m), others)) < 0.005
    for other in others:
        if not other.thing.is_thing or other.thing.id == moved.thing.rests_on or any(other.thing.tilt):
            continue
        low = max(moved.thing.position_m[2], other.thing.position_m[2])
        high = min(moved.thing.position_m[2] + moved.thing.size_m[2], other.thing.position_m[2] + other.thing.size_m[2])
        if high > low:
            assert shared_area(moved.thing, other.thing) < 1e-4


def test_a_moved_thing_is_where_the_instruction_says_and_stands_there() -> None:
    for shot, done, changed in edits_of("move", 5):
        number = done.edit.instance_id
        assert_stands_clear(changed, number)
        assert [placed.thing.id for placed in changed] == [placed.thing.id for placed in shot.scene]
        after = cast_scene(changed, shot.recipe.camera).instance_ids
        match = re.search(r"(left|right|onto|on)( of)?( the (.*?))?\.?$", done.edit.instruction)
        assert match, done.edit.instruction
        columns = np.flatnonzero((after == number).any(axis=0))
        old = np.flatnonzero((shot.truth.instance_ids == number).any(axis=0))
        if match[1] in ("on", "onto"):
            support = thing_of(changed, thing_of(changed, number).thing.rests_on)
            assert match[4].endswith(support.thing.category)
            continue
        anchor = old
        if match[2]:
            (reference,) = [
                i for i in shot.instances if match[4] in (i.category, f"{i.attributes.get('color')} {i.category}")
            ]
            anchor = np.flatnonzero((after == reference.id).any(axis=0))
        if match[1] == "left":
            assert columns.mean() < anchor.min()
        else:
            assert columns.mean() > anchor.max()
        assert done.after is not None
        assert done.after.box[0] == columns[0]


def test_a_replaced_thing_is_what_the_instruction_names_and_stands_there() -> None:
    for shot, done, changed in edits_of("replace", 5):
        new, old = (thing_of(scene, done.edit.instance_id) for scene in (changed, shot.scene))
        assert_stands_clear(changed, new.thing.id)
        assert new.thing.category != old.thing.category
        assert new.thing.category in done.edit.instruction
        assert old.thing.category in done.edit.instruction
        assert new.thing.category not in {placed.thing.category for placed in shot.scene}
        assert done.after is not None
        assert done.after.category == new.thing.category
        named = re.findall(
            r"\b(red|green|blue|yellow|white|black|gray|orange|purple|pink|brown|cyan)\b", done.edit.instruction
        )
        assert done.after.attributes.get("color") in (named[-1:] or [done.after.attributes.get("color")])
        assert any(credit["name"] == done.model for credit in licences_of(shot.recipe, done.model)[1])


@pytest.mark.parametrize("kind", ["recolor", "remove", "move", "replace"])
def test_only_the_pixels_of_the_changed_thing_change(kind: EditKind) -> None:
    for shot, done, changed in edits_of(kind, 3):
        after = cast_scene(changed, shot.recipe.camera)
        number = done.edit.instance_id
        mask = (shot.truth.instance_ids == number) | (after.instance_ids == number)
        assert (done.edit.image[~mask] == shot.image[~mask]).all()
        assert np.abs(done.edit.image[mask].astype(int) - shot.image[mask]).mean() > 12
        assert (done.after is None) == (kind == "remove")
        assert done.edit.kind == kind


def test_words_single_out_the_thing() -> None:
    for shot, done, _ in edits_of("remove", 4):
        category = next(i.category for i in shot.instances if i.id == done.edit.instance_id)
        same = [i for i in shot.instances if i.category == category]
        color = next(i.attributes.get("color") for i in same if i.id == done.edit.instance_id)
        assert len(same) == 1 or f"{color} {category}" in done.edit.instruction


def test_equal_seeds_give_equal_edits() -> None:
    weights: dict[EditKind, float] = {"recolor": 0.3, "remove": 0.25, "move": 0.25, "replace": 0.2}
    for seed in range(3):
        first, again = (make_edit(shot_of("room", seed), weights, np.random.default_rng(seed)) for _ in range(2))
        assert (first is None) == (again is None)
        if first is not None and again is not None:
            assert first.edit.instruction == again.edit.instruction
            assert (first.edit.image == again.edit.image).all()
            assert first.after == again.after


def test_a_thing_over_an_edge_or_inside_another_does_not_rest() -> None:
    from dataclasses import replace

    from cavendish.render.geometry.meshes import place
    from cavendish.render.scenes.layout import GAP_M
    from cavendish.render.scenes.recipe import Material, Thing

    wood = (Material("wood", (0.5, 0.3, 0.2)),)
    floor = place(Thing(1, "floor", "box", (0, 0, -0.1), (4, 4, 0.1), materials=wood, is_thing=False))
    block = place(Thing(2, "box", "box", (0, 0, GAP_M), (1, 1, 0.5), materials=wood))
    cube = Thing(3, "cube", "box", (0, 0, 0.5 + 2 * GAP_M), (0.2, 0.2, 0.2), materials=wood)
    assert rests(place(cube), [floor, block])
    assert is_free(place(cube), [floor, block])
    over = place(replace(cube, position_m=(0.48, 0, cube.position_m[2])))
    assert not rests(over, [floor, block])
    assert not rests(place(replace(cube, position_m=(0, 0, 0.7))), [floor, block])
    inside = place(replace(cube, position_m=(0.45, 0.45, GAP_M)))
    assert not is_free(inside, [floor, block])
    sunk = place(replace(cube, position_m=(1.5, 0, -0.05)))
    assert not is_free(sunk, [floor, block])
