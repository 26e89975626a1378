"""One seed -> one Sample: draw the scene, cast the truth, check the view, paint it; edits.py changes one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Rejection, Sample
from cavendish.render.assets.catalogue import licences_of
from cavendish.render.camera.cameras import draw_camera
from cavendish.render.camera.lens import BentLens, bend, draw_aperture, draw_distortion, see_through_lens
from cavendish.render.camera.realism import Effects, draw_effects, effects_record, take_picture
from cavendish.render.edits import Done, EditKind, Shot, make_edit
from cavendish.render.geometry.meshes import Placed, build_scene
from cavendish.render.labels.checks import ViewRejected, check_view
from cavendish.render.labels.facts import find_instances, write_captions
from cavendish.render.labels.passes import Truth, cast_scene
from cavendish.render.light.develop import develop, find_exposure
from cavendish.render.scenes.presets import Palette, Style
from cavendish.render.scenes.recipe import Recipe, recipe_digest
from cavendish.render.scenes.scenes import add_own, draw_palette, draw_recipe, use_own_map

Paint = Callable[[Recipe, Sequence[Placed], Truth], "Picture"]
"""An engine: (recipe, scene, truth) -> linear light, with what it measured of itself."""

Seeds = tuple[int, int, int, int]
"""What a scene is drawn from: seed of the job, shard, index in it, attempt."""


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) linear light, and scores of the engine (for Blender: its disagreement with the ray cast)."""

    light: NDArray[Any]
    scores: dict[str, float]


@dataclass(frozen=True)
class ViewRequest:
    """Which view: the sample's key, the numbers its randomness comes from, and what the job asks of it.

    `view` counts the views of a scene from 0, which has the camera its recipe was drawn with; `view_attempt` the tries
    at a further view; `scene_key` is what the views of a scene share, empty where a scene has one only. `realism` is
    the share of pictures that each step of realism.py, or "lens_distortion", is done to.
    """

    key: str
    engine: str
    seed: int
    shard: int
    index: int
    attempt: int
    width: int
    height: int
    kinds: dict[str, float]
    lenses: dict[str, float]
    hours: dict[str, float]
    edits: float
    edit_kinds: dict[EditKind, float]
    own: dict[str, str]
    own_share: float
    samples: int
    max_model_kb: int
    versions: dict[str, str]
    scene_key: str = ""
    view: int = 0
    view_attempt: int = 0
    depth_of_field: float = 0.0
    albedo: bool = False
    geometric_normals: bool = False
    realism: Mapping[str, float] = field(default_factory=dict)


def make_view(request: ViewRequest, paint: Paint) -> Sample | Rejection:
    """Make one sample; a view that fails a check becomes a Rejection with its reason."""
    try:
        return _make(request, paint)
    except ViewRejected as error:
        return Rejection(request.key, f"attempt {request.attempt + request.view_attempt}: {error}")


@lru_cache(maxsize=1)
def _stand(
    kinds: tuple[tuple[str, float], ...],
    lenses: tuple[tuple[str, float], ...],
    hours: tuple[tuple[str, float], ...],
    own: tuple[tuple[str, str], ...],
    own_share: float,
    seeds: Seeds,
    max_model_kb: int,
    size: tuple[int, int],
) -> tuple[Recipe, tuple[Placed, ...]]:
    """Draw and build a scene; the one built last is kept for its further views."""
    palette = _palette(own, own_share, seeds, max_model_kb)
    recipe = draw_recipe(
        dict(kinds), np.random.default_rng(list(seeds)), palette, *size, Style(dict(lenses), dict(hours))
    )
    recipe = use_own_map(recipe, dict(own), own_share, np.random.default_rng([*seeds, 2]))
    return recipe, build_scene(recipe)


def _palette(own: tuple[tuple[str, str], ...], own_share: float, seeds: Seeds, max_model_kb: int) -> Palette:
    """Draw the models of the scene's shard."""
    return add_own(draw_palette(np.random.default_rng(list(seeds[:2])), max_model_kb), dict(own), own_share)


def _draw_scene(request: ViewRequest, seeds: Seeds, further: tuple[int, ...]) -> tuple[Recipe, tuple[Placed, ...]]:
    """Draw and build the scene of a view; a further view has a camera of its own."""
    recipe, scene = _stand(
        tuple(request.kinds.items()),
        tuple(request.lenses.items()),
        tuple(request.hours.items()),
        tuple(request.own.items()),
        request.own_share,
        seeds,
        request.max_model_kb,
        (request.width, request.height),
    )
    if further:
        recipe = replace(recipe, camera=draw_camera(recipe, scene, np.random.default_rng([*seeds, 5, *further])))
    return recipe, scene


@dataclass(frozen=True)
class _View:
    """A view whose truth is known, before it is painted; `further` is empty for the first of a scene."""

    seeds: Seeds
    further: tuple[int, ...]
    recipe: Recipe
    scene: tuple[Placed, ...]
    lens: BentLens | None
    truth: Truth
    effects: Effects


def _look(request: ViewRequest) -> _View:
    """Draw a scene, its camera, lens and effects, and cast the truth."""
    seeds = (request.seed, request.shard, request.index, request.attempt)
    further = (request.view, request.view_attempt) if request.view else ()
    recipe, scene = _draw_scene(request, seeds, further)
    lens_rng = np.random.default_rng([*seeds, 3, *further])
    lens = _draw_lens(request, recipe, lens_rng)
    truth = cast_scene(scene, recipe.camera, lens, request.albedo)
    check_view(recipe, scene, truth)
    if lens_rng.random() < request.depth_of_field:
        things = [thing.id for thing in recipe.things if thing.is_thing]
        recipe = replace(recipe, aperture=draw_aperture(truth.depth_m, truth.instance_ids, things, lens_rng))
    effects = draw_effects(request.realism, request.width, np.random.default_rng([*seeds, 4, *further]))
    return _View(seeds, further, recipe, scene, lens, truth, effects)


def _make(request: ViewRequest, paint: Paint) -> Sample:
    view = _look(request)
    recipe, lens, truth = view.recipe, view.lens, view.truth
    picture = _paint_through(lens, paint, recipe, view.scene, truth)
    exposure = find_exposure(picture.light)
    clean = develop(picture.light, exposure)  # facts are read from it: no effect changes a word
    if clean.std() < 8:
        raise ViewRejected("no contrast: the picture is next to one colour")
    image = take_picture(picture.light, exposure, view.effects)
    instances = find_instances(recipe, view.scene, truth, clean)
    rng = np.random.default_rng([*view.seeds, 1, *view.further])
    captions = write_captions(recipe, instances, rng)
    done = None
    if rng.random() < request.edits:
        shot = Shot(
            recipe, view.scene, truth, instances, image,
            lambda changed: cast_scene(changed, recipe.camera, lens),
            lambda changed, seen: take_picture(
                _paint_through(lens, paint, recipe, changed, seen).light, exposure, view.effects
            ),
            _palette(tuple(request.own.items()), request.own_share, view.seeds, request.max_model_kb),
        )  # fmt: skip
        done = make_edit(shot, request.edit_kinds, rng)
    licence, credits = licences_of(recipe, done.model if done else "")
    return Sample(
        key=request.key,
        image=image,
        source=f"render-{request.engine}",
        licence=licence,
        depth_m=truth.depth_m.astype(np.float32),
        normals=truth.normals.astype(np.float32),
        geometric_normals=truth.geometric_normals.astype(np.float32) if request.geometric_normals else None,
        albedo=truth.albedo,
        instance_ids=truth.instance_ids,
        instances=instances,
        exhaustive=True,
        camera=recipe.camera,
        captions=captions,
        edit=done.edit if done else None,
        facts={"scene": recipe.kind, **dict(recipe.facts), **_lens_facts(request, recipe, lens)},
        provenance={**_provenance(request, view, exposure, done), "assets": credits},
        quality={"things": float(sum(i.is_thing for i in instances)), **picture.scores},
    )


def _provenance(request: ViewRequest, view: _View, exposure: float, done: Done | None) -> dict[str, Any]:
    """Return what a picture was made from and by, but for its assets."""
    told: dict[str, Any] = {
        "seeds": [*view.seeds, *view.further],
        "recipe_sha256": recipe_digest(view.recipe),
        "engine": request.engine,
        "samples": request.samples,
        "exposure": float(f"{exposure:.3g}"),
        "versions": request.versions,
    }
    if done is not None and done.after is not None:
        told["edit_result"] = asdict(done.after)
    if record := effects_record(view.effects):
        told["effects"] = record
    return told


def _draw_lens(request: ViewRequest, recipe: Recipe, rng: np.random.Generator) -> BentLens | None:
    distortion = draw_distortion(recipe.camera, rng)
    bent = rng.random() < request.realism.get("lens_distortion", 0.0)
    return bend(recipe.camera, distortion) if bent else None


def _paint_through(
    lens: BentLens | None, paint: Paint, recipe: Recipe, scene: Sequence[Placed], truth: Truth
) -> Picture:
    """Paint a view; with a bent lens, paint the wider pinhole picture it comes from and bend that."""
    if lens is None:
        return paint(recipe, scene, truth)
    wider = paint(replace(recipe, camera=lens.source), scene, cast_scene(scene, lens.source))
    return Picture(see_through_lens(wider.light, lens), wider.scores)


def _lens_facts(request: ViewRequest, recipe: Recipe, lens: BentLens | None) -> dict[str, Any]:
    """Return the facts about the picture as a whole that go beyond its pinhole camera."""
    facts: dict[str, Any] = {}
    if request.scene_key:
        facts.update(scene_key=request.scene_key, view=request.view)
    if lens is not None:
        facts["distortion"] = {"model": "brown-conrady", "k1": lens.distortion.k1, "k2": lens.distortion.k2}
    if recipe.aperture is not None:
        facts["aperture"] = {"f_stop": recipe.aperture.f_stop, "focus_m": recipe.aperture.focus_m}
    return facts
