"""Recipes: nothing meets, everything rests, sizes are those of the catalogue, equal seeds give equal scenes."""

from __future__ import annotations

import itertools
import json
import math
from functools import lru_cache

import cv2
import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.render.assets.catalogue import catalogue
from cavendish.render.geometry.mesh import Placed
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.geometry.models import model_mesh, model_top
from cavendish.render.job import RenderConfig
from cavendish.render.labels.passes import cast_scene
from cavendish.render.scenes.layout import GAP_M
from cavendish.render.scenes.presets import LENSES, PRESETS, Style
from cavendish.render.scenes.recipe import Recipe, Thing, recipe_digest, recipe_json, rotation
from cavendish.render.scenes.scenes import KINDS, draw_palette, draw_recipe

SEEDS = range(6)


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


def by_shape_top(recipe: Recipe) -> float:
    """Return the height of the ceiling."""
    return next(thing.position_m[2] for thing in recipe.things if thing.category == "ceiling")


def is_thin(thing: Thing) -> bool:
    return thing.category in ("rug", "road", "road marking")


UPRIGHT = [kind for kind in KINDS if kind != "clutter"]


@pytest.mark.parametrize("kind", UPRIGHT)
def test_no_two_things_share_space(kind: str) -> None:
    for seed in SEEDS:
        things = [thing for thing in recipe_of(kind, seed).things if thing.is_thing and not is_thin(thing)]
        for a, b in itertools.combinations(things, 2):
            low = max(a.position_m[2], b.position_m[2])
            high = min(a.position_m[2] + a.size_m[2], b.position_m[2] + b.size_m[2])
            if high > low:
                assert shared_area(a, b) < 1e-4, f"{kind} {seed}: {a.category} {a.id} and {b.category} {b.id}"


@pytest.mark.parametrize("kind", UPRIGHT)
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
            elif thing.shape == "pendant":
                assert z + thing.size_m[2] == pytest.approx(by_shape_top(recipe) - GAP_M, abs=2e-5)
            elif z > GAP_M + 1e-6:  # hangs: its back is at a wall
                assert kind in ("room", "corridor")
                walls = [other for other in recipe.things if other.category == "wall"]
                gaps = []
                for wall in walls:
                    dx, dy = thing.position_m[0] - wall.position_m[0], thing.position_m[1] - wall.position_m[1]
                    away = abs(-math.sin(wall.yaw_rad) * dx + math.cos(wall.yaw_rad) * dy)
                    gaps.append(away - thing.size_m[1] / 2 - wall.size_m[1] / 2)
                assert min(gaps) < 0.035


def test_equal_seeds_give_equal_recipes_and_others_differ() -> None:
    palette = draw_palette(np.random.default_rng(1), 300)
    first, again, other = (
        draw_recipe({"room": 1, "outdoor": 1}, np.random.default_rng([3, s]), palette, 64, 64) for s in (0, 0, 1)
    )
    assert recipe_digest(first) == recipe_digest(again) != recipe_digest(other)
    assert json.loads(json.dumps(recipe_json(first)))["kind"] == first.kind


def test_depths_of_the_presets_go_from_a_hand_to_beyond_200_m_and_the_sky() -> None:
    nearest, farthest, sky = [], [], []
    kinds = sorted({kind for preset in PRESETS.values() for kind in preset.kinds})
    for seed, kind in [(0, kind) for kind in kinds] + [(13, "clutter")]:
        recipe = recipe_of(kind, seed)
        depth = cast_scene(build_scene(recipe), recipe.camera).depth_m
        nearest.append(depth.min())
        farthest.append(depth[np.isfinite(depth)].max())
        sky.append(np.isinf(depth).any())
    assert min(nearest) < 0.25
    assert max(farthest) > 200
    assert any(sky)


def points_on(placed: Placed, count: int) -> NDArray[np.float64]:
    """Return points on the surface in world space, by trimesh."""
    mesh = trimesh.Trimesh(placed.mesh.vertices, placed.mesh.faces, process=False)
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=1)
    points = np.concatenate([points, placed.mesh.vertices])
    return points @ placed.matrix[:3, :3].T + placed.matrix[:3, 3]


def depth_inside(placed: Placed, points: NDArray[np.float64]) -> float:
    """Return how deep the deepest of world points is inside a box, ball or cylinder."""
    local = (points - placed.matrix[:3, 3]) @ placed.matrix[:3, :3]
    half = np.array(placed.thing.size_m) / 2
    local = local - [0, 0, half[2]]
    match placed.thing.shape:
        case "sphere":
            return float((half.min() * (1 - np.linalg.norm(local / half, axis=1))).max())
        case "cylinder":
            return float(np.minimum(half[0] - np.hypot(local[:, 0], local[:, 1]), half[2] - np.abs(local[:, 2])).max())
    return float((half - np.abs(local)).min(axis=1).max())


@pytest.mark.parametrize("seed", range(3))
def test_things_in_a_pile_touch_without_meeting(seed: int) -> None:
    scene = build_scene(recipe_of("clutter", seed))
    pile = [placed for placed in scene if placed.thing.is_thing and any(placed.thing.tilt)]
    assert len(pile) >= 8
    solid = [placed for placed in pile if placed.thing.shape in ("box", "sphere", "cylinder")]
    for one, other in itertools.product(solid, pile):
        if one is not other:
            assert depth_inside(one, points_on(other, 1500)) < 0.004, f"{one.thing.id} {other.thing.id}"
    everything = trimesh.util.concatenate(
        [trimesh.Trimesh(p.mesh.vertices, p.mesh.faces, process=False).apply_transform(p.matrix) for p in scene]
    )
    owner = np.repeat([placed.thing.id for placed in scene], [len(placed.mesh.faces) for placed in scene])
    clouds = {placed.thing.id: points_on(placed, 2000) for placed in scene}
    below = trimesh.ray.ray_pyembree.RayMeshIntersector(everything)
    for placed in pile:
        number, start = placed.thing.id, clouds[placed.thing.id]
        places, ray, face = below.intersects_location(start, np.tile([0.0, 0.0, -1.0], (len(start), 1)))
        gaps = (start[ray, 2] - places[:, 2])[owner[face] != number]
        # and where a corner of another thing is what holds it, from there upward
        start = np.concatenate([points for other, points in clouds.items() if other != number])
        own = trimesh.Trimesh(placed.mesh.vertices, placed.mesh.faces, process=False).apply_transform(placed.matrix)
        above = trimesh.ray.ray_pyembree.RayMeshIntersector(own)
        places, ray, _ = above.intersects_location(start, np.tile([0.0, 0.0, 1.0], (len(start), 1)))
        nearest = min(gaps.min(), (places[:, 2] - start[ray, 2]).min(initial=1.0))
        assert nearest < 0.015, f"{placed.thing.category} {number} floats {nearest:.4f} m"


def test_labels_look_through_window_panes() -> None:
    recipe = next(
        r for r in (recipe_of("room", s) for s in SEEDS) if any(t.category == "window pane" for t in r.things)
    )
    scene = build_scene(recipe)
    clear = [placed for placed in scene if placed.thing.category != "window pane"]
    assert len(clear) < len(scene)
    with_panes, without = cast_scene(scene, recipe.camera), cast_scene(clear, recipe.camera)
    assert np.array_equal(with_panes.depth_m, without.depth_m)
    assert np.array_equal(with_panes.instance_ids, without.instance_ids)


def test_rotation_vectors_are_those_of_opencv() -> None:
    for vector in np.random.default_rng(0).normal(0, 1.5, (20, 3)):
        expected, _ = cv2.Rodrigues(vector)
        assert np.abs(rotation(tuple(vector)) - expected).max() < 1e-12


def test_a_preset_names_kinds_lenses_and_hours_and_they_are_used() -> None:
    values = {"engine": "pyrender", "seed": 0, "scenes": 1}
    for name, preset in PRESETS.items():
        config = RenderConfig.model_validate({**values, "preset": name})
        assert (config.kinds, config.lenses, config.hours) == (preset.kinds, preset.lenses, preset.hours)
    assert RenderConfig.model_validate(values).kinds == {"room": 0.45, "table top": 0.25, "outdoor": 0.3}
    palette = draw_palette(np.random.default_rng(1), 300)
    for kind in KINDS:
        recipe = draw_recipe(
            {kind: 1.0}, np.random.default_rng(2), palette, 64, 48, Style({"wide": 1.0}, {"night": 1.0})
        )
        fov = math.degrees(2 * math.atan(recipe.camera.width / 2 / recipe.camera.fx))
        assert LENSES["wide"][0] <= fov <= LENSES["wide"][1]
        assert "night" in dict(recipe.facts).values()


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
