"""What both engines share: words, skies, light; and pyrender's own depth and ids against the ray cast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cavendish.encoders.sample import Instance, Rejection
from cavendish.render.camera.sensor import develop, find_exposure
from cavendish.render.engines.child import decode_answer, encode_answer
from cavendish.render.geometry.mesh import ImageMap
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import ViewRejected, away_from_edges, check_view, compare_raster
from cavendish.render.labels.facts import article, find_instances, name_uniquely, plural
from cavendish.render.labels.passes import cast_scene
from cavendish.render.light.skies import environment, harmonic_light, irradiance, pixel_directions, radiance
from cavendish.render.scenes.recipe import Sky
from cavendish.render.scenes.scenes import KINDS, draw_palette, draw_recipe
from tests.conftest import tiny_sample


def scene_of(kind: str, seed: int, size: int = 96):  # type: ignore[no-untyped-def]
    palette = draw_palette(np.random.default_rng([seed, 5]), 300)
    recipe = draw_recipe({kind: 1.0}, np.random.default_rng([seed, 6]), palette, size, size)
    scene = build_scene(recipe)
    return recipe, scene, cast_scene(scene, recipe.camera)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pyrender_and_the_ray_cast_see_the_same_depth_and_ids(kind: str) -> None:
    from cavendish.render.engines.pyrender import Raster

    raster = Raster(96, 96)
    recipe, scene, truth = scene_of(kind, 3)
    raster.surface_colors(recipe, scene)  # leaves nothing that the segments could see
    ids, depth_m = raster.segment(recipe, scene, 0.9 * truth.depth_m.min())
    raster.close()
    scores = compare_raster(depth_m, ids, truth)
    leaves = {"outdoor": 0.01, "long range": 0.02}.get(kind, 0.001)  # those thinner than a pixel
    assert scores["pyrender_id_mismatch"] <= leaves
    assert scores["pyrender_depth_error"] < 1e-5
    assert away_from_edges(truth.instance_ids, ids).mean() <= leaves / 4


@pytest.mark.slow
def test_pictures_are_exposed_like_photographs() -> None:
    from cavendish.render.engines.pyrender import Raster
    from cavendish.render.light.lighting import paint_with

    raster = Raster(64, 64)
    paint = paint_with(raster)
    means, clipped = [], []
    for kind in KINDS:
        for seed in (1, 4):
            recipe, scene, truth = scene_of(kind, seed, 64)
            light = paint(recipe, scene, truth).light
            image = develop(light, find_exposure(light))
            means.append(image.mean())
            clipped.append((image.min(axis=-1) == 255).mean() + (image.max(axis=-1) <= 2).mean())
    raster.close()
    assert 40 < min(means) < max(means) < 200, means
    assert 80 < np.median(means) < 150, means
    assert np.median(clipped) < 0.01, clipped
    assert max(clipped) < 0.15, clipped


def test_textures_of_odd_width_are_drawn_straight() -> None:
    from cavendish.render.engines.pyrender import Raster

    recipe, scene, _ = scene_of("room", 3)
    stripes = np.zeros((32, 37, 3), np.uint8)
    stripes[:, :18] = (255, 0, 0)
    raster = Raster(96, 96)
    drawn = []
    for texture in (stripes, stripes.repeat(4, axis=1)):  # 111 and 444 bytes a row
        dressed = tuple(
            replace(placed, surfaces=tuple(replace(surface, texture=ImageMap(texture)) for surface in placed.surfaces))
            for placed in scene
        )
        drawn.append(raster.surface_colors(recipe, dressed))
    raster.close()
    assert np.abs(drawn[0] - drawn[1]).mean() < 0.03  # a sheared texture is 0.15 off


def test_instances_describe_their_pixels() -> None:
    recipe, scene, truth = scene_of("room", 4)
    image = np.full((96, 96, 3), 128, np.uint8)
    instances = find_instances(recipe, scene, truth, image)
    assert {instance.id for instance in instances} == set(np.unique(truth.instance_ids)) - {0}
    for instance in instances:
        mask = truth.instance_ids == instance.id
        assert instance.visible_pixels == mask.sum()
        x0, y0, x1, y1 = instance.box
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any()
        assert mask[:, x1 - 1].any()
        assert instance.visible_fraction is not None
        assert 0 < instance.visible_fraction <= 1
        if instance.category in ("man", "woman"):
            assert "color" not in instance.attributes
    assert any(not instance.is_thing for instance in instances)


def test_words() -> None:
    assert (article("armchair"), article("TV stand")) == ("an armchair", "a TV stand")
    plurals = {"bookcase": "bookcases", "bench": "benches", "box": "boxes", "woman": "women", "puppy": "puppies",
               "stack of books": "stacks of books", "toy": "toys", "wood logs": "wood logs"}  # fmt: skip
    assert {noun: plural(noun) for noun in plurals} == plurals


def test_a_name_fits_one_instance_only() -> None:
    def chair(number: int, color: str | None) -> Instance:
        return Instance(number, "chair", 50, (0, 0, 5, 5), {"color": color} if color else {})

    red, blue, unclear = chair(1, "red"), chair(2, "blue"), chair(3, None)
    assert name_uniquely(red, [red]) == "chair"
    assert name_uniquely(red, [red, blue]) == "red chair"
    assert name_uniquely(red, [red, replace(blue, attributes={"color": "red"})]) is None
    assert name_uniquely(red, [red, unclear]) is None


@pytest.mark.parametrize("name", ["courtyard", "studio"])
def test_irradiance_agrees_with_summing_the_map(name: str) -> None:
    image = environment(Sky("map", 1.0, name, 0.7))
    directions = pixel_directions(*image.shape[:2])
    weight = np.sqrt(1 - directions[..., 2] ** 2)
    weight *= 4 * np.pi / weight.sum()
    normals = np.random.default_rng(0).standard_normal((80, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    cosine = np.maximum(directions @ normals.T, 0)
    expected = np.einsum("hwn,hwc,hw->nc", cosine, image.astype(float), weight, optimize=True) / np.pi
    found = irradiance(harmonic_light(image), normals.astype(np.float32))
    # nine coefficients are good to about 9 % of the brightest for any map (Ramamoorthi and Hanrahan 2001)
    assert np.abs(found - expected).max() < 0.1 * expected.max()


def test_a_turned_map_is_the_same_map_seen_from_another_side() -> None:
    turn = 2 * np.pi * 64 / 1024
    still, turned = environment(Sky("map", 1.0, "forest")), environment(Sky("map", 1.0, "forest", turn))
    angles = np.linspace(0, 6, 40)
    level = np.stack([np.cos(angles), np.sin(angles), np.zeros(40)], axis=1)
    back = np.stack([np.cos(angles + turn), np.sin(angles + turn), np.zeros(40)], axis=1)
    assert np.abs(radiance(turned, level) - radiance(still, back)).max() < 1e-4


def test_developing_is_monotonic_and_exposure_undoes_brightness() -> None:
    light = np.linspace(0, 4, 64)[:, None, None].repeat(3, axis=2)
    image = develop(light, 1.0)
    assert (np.diff(image[:, 0, 0].astype(int)) >= 0).all()
    rng = np.random.default_rng(0)
    scene = rng.gamma(2.0, 0.2, (32, 32, 3))
    bright, dark = (develop(scene * k, find_exposure(scene * k)) for k in (1.0, 0.1))
    assert np.abs(bright.astype(int) - dark).max() <= 1


def test_views_without_enough_to_see_are_rejected() -> None:
    recipe, scene, _ = scene_of("room", 4)
    structures = [placed for placed in scene if not placed.thing.is_thing]
    with pytest.raises(ViewRejected, match="too empty: 0 things"):
        check_view(recipe, structures, cast_scene(structures, recipe.camera))
    close = replace(recipe, camera=replace(recipe.camera, fx=1e5, fy=1e5))  # a few millimetres of one surface
    with pytest.raises(ViewRejected, match=r"too empty|filled by one"):
        check_view(close, scene, cast_scene(scene, close.camera))


def test_labels_that_contradict_each_other_reject_a_view() -> None:
    recipe, scene, truth = scene_of("room", 4)
    check_view(recipe, scene, truth)
    turned = truth.geometric_normals[..., [1, 0, 2]]  # a frame mixed up
    turned = np.where((turned * truth.rays).sum(axis=-1, keepdims=True) > 0, -turned, turned)
    swapped = np.where(truth.instance_ids > 0, truth.instance_ids[:, ::-1], 0)
    swapped = np.where(swapped > 0, swapped, truth.instance_ids)
    along_the_ray = truth.depth_m * np.linalg.norm(truth.rays, axis=-1)
    for wrong, reason in (
        ({"normals": truth.normals * 1.1}, "not unit vectors"),
        ({"normals": -truth.normals}, "look away"),
        ({"geometric_normals": turned}, "normals and depth"),
        ({"depth_m": along_the_ray}, "normals and depth|outside its box"),
        ({"depth_m": np.where(np.arange(96) < 9, np.inf, truth.depth_m)}, "depth and ids"),
        ({"instance_ids": swapped.astype(np.uint16)}, "normals and|outside its box"),
    ):
        with pytest.raises(ViewRejected, match="labels disagree: .*(" + reason + ")"):
            check_view(recipe, scene, replace(truth, **wrong))


def test_answers_survive_the_pipe() -> None:
    import json

    sample = tiny_sample()
    header, blob = encode_answer(sample)
    back = decode_answer(json.loads(json.dumps(header)), blob)
    assert not isinstance(back, Rejection)
    for name in ("image", "depth_m", "normals", "instance_ids"):
        assert np.array_equal(getattr(back, name), getattr(sample, name))
        assert getattr(back, name).dtype == getattr(sample, name).dtype
    assert back.edit is not None
    assert sample.edit is not None
    assert np.array_equal(back.edit.image, sample.edit.image)
    assert back.instances == sample.instances
    assert (back.camera, back.facts, back.captions) == (
        sample.camera,
        sample.facts,
        sample.captions,
    )
    header, blob = encode_answer(Rejection("k", "too dark"))
    assert decode_answer(header, blob) == Rejection("k", "too dark")
