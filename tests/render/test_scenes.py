"""Recipes: nothing meets, everything rests, sizes are those of the catalogue, equal seeds give equal scenes."""

from __future__ import annotations

import itertools
import json
import math
from functools import lru_cache

import cv2
import numpy as np
import pytest

from encoders.sample import InputError
from render.assets import catalogue
from render.layout import GAP_M
from render.meshes import build_scene, model_mesh, model_top
from render.recipe import Recipe, Thing, recipe_digest, recipe_json
from render.scenes import KINDS, draw_palette, draw_recipe

SEEDS = range(12)


@lru_cache
def recipe_of(kind: str, seed: int) -> Recipe:
    palette = draw_palette(np.random.default_rng([seed, 5]), 300)
    return draw_recipe({kind: 1.0}, np.random.default_rng([seed, 6]), palette, 96, 96)


def shared_area(a: Thing, b: Thing) -> float:
    """Intersect two boxes' plans with OpenCV (the layout uses separating axes)."""
    rectangles = [
        ((t.position_m[0] - a.position_m[0], t.position_m[1] - a.position_m[1]), t.size_m[:2], math.degrees(t.yaw_rad))
        for t in (a, b)
    ]
    kind, points = cv2.rotatedRectangleIntersection(*rectangles)
    return 0.0 if kind == cv2.INTERSECT_NONE or points is None else float(cv2.contourArea(cv2.convexHull(points)))


def is_thin(thing: Thing) -> bool:
    return thing.category in ("rug", "road", "road marking")


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_things_share_space(kind: str) -> None:
    for seed in SEEDS:
        things = [thing for thing in recipe_of(kind, seed).things if thing.is_thing and not is_thin(thing)]
        for a, b in itertools.combinations(things, 2):
            low = max(a.position_m[2], b.position_m[2])
            high = min(a.position_m[2] + a.size_m[2], b.position_m[2] + b.size_m[2])
            if high > low:
                assert shared_area(a, b) < 1e-4, f"{kind} {seed}: {a.category} {a.id} and {b.category} {b.id}"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_stands_on_something_or_hangs_on_a_wall(kind: str) -> None:
    for seed in SEEDS:
        recipe = recipe_of(kind, seed)
        by_id = {thing.id: thing for thing in recipe.things}
        for thing in recipe.things:
            z = thing.position_m[2]
            if not thing.is_thing:
                continue
            if thing.rests_on:
                support = by_id[thing.rests_on]
                top = model_top(support.model) if support.model else None
                height = top.height_m if top else support.size_m[2]
                assert z == pytest.approx(support.position_m[2] + height + GAP_M, abs=2e-5)
                x, y = thing.position_m[0] - support.position_m[0], thing.position_m[1] - support.position_m[1]
                cos, sin = math.cos(support.yaw_rad), math.sin(support.yaw_rad)
                assert abs(cos * x + sin * y) < support.size_m[0] / 2
                assert abs(-sin * x + cos * y) < support.size_m[1] / 2
            elif z > GAP_M + 1e-6:  # hangs: its back is at a wall
                assert kind == "room"
                walls = [other for other in recipe.things if other.category == "wall"]
                gaps = []
                for wall in walls:
                    dx, dy = thing.position_m[0] - wall.position_m[0], thing.position_m[1] - wall.position_m[1]
                    away = abs(-math.sin(wall.yaw_rad) * dx + math.cos(wall.yaw_rad) * dy)
                    gaps.append(away - thing.size_m[1] / 2 - wall.size_m[1] / 2)
                assert min(gaps) < 0.03


def test_equal_seeds_give_equal_recipes_and_others_differ() -> None:
    palette = draw_palette(np.random.default_rng(1), 300)
    first, again, other = (
        draw_recipe({"room": 1, "outdoor": 1}, np.random.default_rng([3, s]), palette, 64, 64) for s in (0, 0, 1)
    )
    assert recipe_digest(first) == recipe_digest(again) != recipe_digest(other)
    assert json.loads(json.dumps(recipe_json(first)))["kind"] == first.kind


def test_depths_go_from_an_arm_to_beyond_200_m() -> None:
    from render.passes import cast_scene

    nearest, farthest = [], []
    for seed in range(6):
        for kind in KINDS:
            recipe = recipe_of(kind, seed)
            depth = cast_scene(build_scene(recipe), recipe.camera).depth_m
            nearest.append(depth.min())
            farthest.append(depth[np.isfinite(depth)].max())
    assert min(nearest) < 0.8
    assert max(farthest) > 200


def test_meshes_have_the_size_their_recipe_says() -> None:
    for kind in KINDS:
        for placed in build_scene(recipe_of(kind, 2)):
            size = np.ptp(placed.mesh.vertices, axis=0)
            slack = 0.05 if placed.thing.shape == "wall" else 1e-3  # skirting boards and window frames stand out
            assert np.abs(size - placed.thing.size_m).max() <= slack + 1e-6, placed.thing.category
            assert placed.mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-3)
            assert np.abs(np.linalg.norm(placed.mesh.normals, axis=1) - 1).max() < 1e-4
            assert placed.mesh.slot_of.max() < len(placed.surfaces)


def test_furniture_has_its_catalogue_size_in_metres() -> None:
    for name in ("Scopia/suv", "BlendSwap-CC-BY/table", "KatorLegaz/coffee-mug", "Reallusion/male01"):
        mesh, _ = model_mesh(name)
        assert np.ptp(mesh.vertices, axis=0) == pytest.approx(np.array(catalogue()[name].size_m), abs=1e-6)
    assert catalogue()["Reallusion/male01"].size_m[2] == pytest.approx(1.86, abs=0.02)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match=r"'cave'.*room"):
        draw_recipe({"cave": 1.0}, np.random.default_rng(0), {}, 64, 64)


def test_no_triangle_uses_a_vertex_twice() -> None:
    for name in ("BlendSwap-CC-0/plant", "Scopia/suv", "BlendSwap-CC-BY/lamp", "Scopia/sugar"):
        mesh, _ = model_mesh(name)
        assert (np.diff(np.sort(mesh.faces, axis=1), axis=1) > 0).all()
