"""A view request to a Sample: draw the scene, cast the labels, check the view, paint it; edits.py changes one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Rejection, Sample
from cavendish.render.assets.catalogue import licences_of
from cavendish.render.camera.cameras import draw_camera
from cavendish.render.camera.lens import BentLens, bend, draw_aperture, draw_distortion, see_through_lens
from cavendish.render.camera.sensor import Effects, develop, draw_effects, effects_record, find_exposure, take_picture
from cavendish.render.config import RenderConfig, ViewRequest
from cavendish.render.edits import Done, Shot, make_edit
from cavendish.render.geometry.mesh import Placed
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import ViewRejected, check_view
from cavendish.render.labels.facts import find_instances, write_captions
from cavendish.render.labels.passes import Truth, cast_scene
from cavendish.render.scenes.presets import Palette, Style
from cavendish.render.scenes.recipe import Recipe, recipe_digest
from cavendish.render.scenes.scenes import add_own, draw_palette, draw_recipe, use_own_map

Paint = Callable[[Recipe, Sequence[Placed], Truth], "Picture"]
"""An engine: (recipe, scene, truth) -> linear light, with what it measured of itself."""
MIN_CONTRAST = 8.0
"""Standard deviation, of 255, below which an image is next to one color."""


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) linear light, and scores of the engine (for Blender: its disagreement with the ray cast)."""

    light: NDArray[Any]
    scores: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """A scene that stands, and what it was drawn from: seed of the job, shard, index, attempt; the user's own files."""

    seeds: tuple[int, int, int, int]
    own: Mapping[str, str]
    palette: Palette
    recipe: Recipe
    scene: tuple[Placed, ...]


@dataclass(frozen=True)
class View:
    """A view whose truth is known, before it is painted; `seeds` go on with the view's own for a further camera."""

    seeds: tuple[int, ...]
    recipe: Recipe
    scene: tuple[Placed, ...]
    lens: BentLens | None
    truth: Truth
    effects: Effects


class ViewMaker:
    """Makes the views of one job, by one engine; the scene made last stands for its further views.

    Args:
        paint: the engine.
        versions: of the packages that make the images, for the provenance.
    """

    def __init__(self, config: RenderConfig, paint: Paint, versions: Mapping[str, str]) -> None:
        self._config, self._paint, self._versions = config, paint, dict(versions)
        self._stage: Stage | None = None

    def make(self, request: ViewRequest, own: Mapping[str, str]) -> Sample | Rejection:
        """Make one sample; a view that fails a check becomes a Rejection with its reason.

        Args:
            own: the user's files that scenes may use: name -> role.
        """
        try:
            return self._make(request, own)
        except ViewRejected as error:
            key = self._config.view_key(request.shard, request.index, request.view)
            return Rejection(key, f"attempt {request.attempt + request.view_attempt}: {error}")

    def _make(self, request: ViewRequest, own: Mapping[str, str]) -> Sample:
        stage = self._set_stage(request, own)
        view = self._look(stage, request)
        picture = self._paint_view(view, view.scene, view.truth)
        exposure = find_exposure(picture.light)
        clean = develop(picture.light, exposure)  # facts are read from it: no effect changes a word
        if clean.std() < MIN_CONTRAST:
            raise ViewRejected("no contrast: the picture is next to one colour")
        image = take_picture(picture.light, exposure, view.effects)
        instances = find_instances(view.recipe, view.scene, view.truth, clean)
        rng = _rng(view.seeds, 1)
        captions = write_captions(view.recipe, instances, rng)
        done = None
        if rng.random() < self._config.edits:
            shot = Shot(
                view.recipe, view.scene, view.truth, instances, image,
                lambda changed: cast_scene(changed, view.recipe.camera, view.lens),
                lambda changed, seen: take_picture(
                    self._paint_view(view, changed, seen).light, exposure, view.effects
                ),
                stage.palette,
            )  # fmt: skip
            done = make_edit(shot, self._config.edit_kinds, rng)
        licence, credits = licences_of(view.recipe, done.model if done else "")
        truth = view.truth
        normals = truth.geometric_normals.astype(np.float32) if self._config.geometric_normals else None
        return Sample(
            key=self._config.view_key(request.shard, request.index, request.view),
            image=image,
            source=f"render-{self._config.engine}",
            licence=licence,
            depth_m=truth.depth_m.astype(np.float32),
            normals=truth.normals.astype(np.float32),
            geometric_normals=normals,
            albedo=truth.albedo,
            instance_ids=truth.instance_ids,
            instances=instances,
            exhaustive=True,
            camera=view.recipe.camera,
            captions=captions,
            edit=done.edit if done else None,
            facts=self._facts(request, view),
            provenance={**self._provenance(view, exposure, done), "assets": credits},
            quality={"things": float(sum(i.is_thing for i in instances)), **picture.scores},
        )

    def _set_stage(self, request: ViewRequest, own: Mapping[str, str]) -> Stage:
        """Draw and build a scene, unless it is the one that stands."""
        config, seeds = self._config, (self._config.seed, request.shard, request.index, request.attempt)
        if self._stage is not None and (self._stage.seeds, self._stage.own) == (seeds, own):
            return self._stage
        share = config.assets.share if config.assets else 0.0
        palette = add_own(draw_palette(np.random.default_rng(list(seeds[:2])), config.max_model_kb), own, share)
        recipe = draw_recipe(
            dict(config.kinds.items()),
            np.random.default_rng(list(seeds)),
            palette,
            config.width,
            config.height,
            Style(dict(config.lenses.items()), dict(config.hours.items())),
        )
        recipe = use_own_map(recipe, own, share, _rng(seeds, 2))
        self._stage = Stage(seeds, dict(own), palette, recipe, build_scene(recipe))
        return self._stage

    def _look(self, stage: Stage, request: ViewRequest) -> View:
        """Draw a camera for a further view, the lens and its effects, and cast the truth."""
        config, recipe, scene = self._config, stage.recipe, stage.scene
        further = (request.view, request.view_attempt) if request.view else ()
        if further:
            camera = draw_camera(recipe, scene, _rng(stage.seeds, 5, *further))
            recipe = replace(recipe, camera=camera)
        lens_rng = _rng(stage.seeds, 3, *further)
        distortion = draw_distortion(recipe.camera, lens_rng)
        bent = lens_rng.random() < config.realism.lens_distortion
        lens = bend(recipe.camera, distortion) if bent else None
        truth = cast_scene(scene, recipe.camera, lens, config.albedo)
        check_view(recipe, scene, truth)
        if lens_rng.random() < config.depth_of_field:
            things = [thing.id for thing in recipe.things if thing.is_thing]
            recipe = replace(recipe, aperture=draw_aperture(truth.depth_m, truth.instance_ids, things, lens_rng))
        effects = draw_effects(config.realism.model_dump(), config.width, _rng(stage.seeds, 4, *further))
        return View((*stage.seeds, *further), recipe, scene, lens, truth, effects)

    def _paint_view(self, view: View, scene: Sequence[Placed], truth: Truth) -> Picture:
        """Paint a scene as the view sees it: with a bent lens, the wider pinhole image it comes from, then bent."""
        lens = view.lens
        if lens is None:
            return self._paint(view.recipe, scene, truth)
        wider = self._paint(replace(view.recipe, camera=lens.source), scene, cast_scene(scene, lens.source))
        return Picture(see_through_lens(wider.light, lens), wider.scores)

    def _provenance(self, view: View, exposure: float, done: Done | None) -> dict[str, Any]:
        """Return what an image was made from and by, but for its assets."""
        record: dict[str, Any] = {
            "seeds": [*view.seeds],
            "recipe_sha256": recipe_digest(view.recipe),
            "engine": self._config.engine,
            "samples": self._config.samples,
            "exposure": float(f"{exposure:.3g}"),
            "versions": self._versions,
        }
        if done is not None and done.after is not None:
            record["edit_result"] = asdict(done.after)
        if effects := effects_record(view.effects):
            record["effects"] = effects
        return record

    def _facts(self, request: ViewRequest, view: View) -> dict[str, Any]:
        """Return the facts about the whole image: of the scene, of its views, of a lens that is no pinhole."""
        recipe, lens = view.recipe, view.lens
        facts: dict[str, Any] = {"scene": recipe.kind, **dict(recipe.facts)}
        if self._config.views_per_scene > 1:
            facts.update(scene_key=self._config.scene_key(request.shard, request.index), view=request.view)
        if lens is not None:
            facts["distortion"] = {"model": "brown-conrady", "k1": lens.distortion.k1, "k2": lens.distortion.k2}
        if recipe.aperture is not None:
            facts["aperture"] = {"f_stop": recipe.aperture.f_stop, "focus_m": recipe.aperture.focus_m}
        return facts


def _rng(seeds: Sequence[int], purpose: int, *further: int) -> np.random.Generator:
    """Return the generator for one purpose of a scene, or of a further view of it."""
    return np.random.default_rng([*seeds[:4], purpose, *(seeds[4:] or further)])
