"""One seed -> one Sample: draw the scene, cast the truth, check the view, paint it; edits.py changes one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.sample import Rejection, Sample, UInt8Image
from render.assets import licences_of
from render.develop import develop, find_exposure
from render.edits import make_edit
from render.facts import find_instances, write_captions
from render.meshes import Placed, build_scene
from render.passes import Truth, camera_rays, cast_scene
from render.recipe import Recipe, recipe_digest
from render.scenes import add_own, draw_palette, draw_recipe, use_own_map

Paint = Callable[[Recipe, Sequence[Placed], Truth], "Picture"]
"""An engine: (recipe, scene, truth) -> linear light, with what it measured of itself."""

MIN_DEPTH_M = 0.12
MIN_THING_SHARE = 0.004


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) linear light, and scores of the engine (for Blender: its disagreement with the ray cast)."""

    light: NDArray[Any]
    scores: dict[str, float]


class ViewRejected(Exception):
    """This view is not worth keeping, or its passes disagree; the message says why."""


@dataclass(frozen=True)
class ViewRequest:
    """Which view: the sample's key, the numbers its randomness comes from, and what the job asks of it."""

    key: str
    engine: str
    seed: int
    shard: int
    index: int
    attempt: int
    width: int
    height: int
    kinds: dict[str, float]
    edits: float
    own: dict[str, str]
    own_share: float
    samples: int
    max_model_kb: int
    versions: dict[str, str]


def make_view(request: ViewRequest, paint: Paint) -> Sample | Rejection:
    """Make one sample; a view that fails a check becomes a Rejection with its reason."""
    try:
        return _make(request, paint)
    except ViewRejected as error:
        return Rejection(request.key, f"attempt {request.attempt}: {error}")


def _make(request: ViewRequest, paint: Paint) -> Sample:
    seeds = [request.seed, request.shard, request.index, request.attempt]
    palette = draw_palette(np.random.default_rng([request.seed, request.shard]), request.max_model_kb)
    palette = add_own(palette, request.own, request.own_share)
    recipe = draw_recipe(request.kinds, np.random.default_rng(seeds), palette, request.width, request.height)
    recipe = use_own_map(recipe, request.own, request.own_share, np.random.default_rng([*seeds, 2]))
    scene = build_scene(recipe)
    truth = cast_scene(scene, recipe.camera)
    check_truth(recipe, truth)
    picture = paint(recipe, scene, truth)
    exposure = find_exposure(picture.light)
    image = develop(picture.light, exposure)
    if image.std() < 8:
        raise ViewRejected("the picture has next to no contrast")
    instances = find_instances(recipe, scene, truth, image)
    rng = np.random.default_rng([*seeds, 1])
    captions = write_captions(recipe, instances, rng)
    edit = None
    if rng.random() < request.edits:

        def draw(changed: Sequence[Placed], seen: Truth) -> UInt8Image:
            return develop(paint(recipe, changed, seen).light, exposure)

        edit = make_edit(recipe, scene, truth, instances, image, draw, rng)
    licence, credits = licences_of(recipe)
    return Sample(
        key=request.key,
        image=image,
        source=f"render-{request.engine}",
        licence=licence,
        depth_m=truth.depth_m.astype(np.float32),
        normals=truth.normals.astype(np.float32),
        instance_ids=truth.instance_ids,
        instances=instances,
        exhaustive=True,
        camera=recipe.camera,
        captions=captions,
        edit=edit,
        facts={"scene": recipe.kind, **dict(recipe.facts)},
        provenance={
            "seeds": seeds,
            "recipe_sha256": recipe_digest(recipe),
            "engine": request.engine,
            "samples": request.samples,
            "exposure": float(f"{exposure:.3g}"),
            "assets": credits,
            "versions": request.versions,
        },
        quality={"things": float(sum(i.is_thing for i in instances)), **picture.scores},
    )


def check_truth(recipe: Recipe, truth: Truth) -> None:
    """Check a view before it is painted.

    Raises:
        ViewRejected: too near, too empty, filled by one thing, or labels that contradict each other.
    """
    pixels = truth.instance_ids.size
    seen = truth.instance_ids > 0
    nearest = float(truth.depth_m.min())
    if not seen.any() or nearest < MIN_DEPTH_M:
        raise ViewRejected(f"something is {nearest:.2f} m before the camera (at least {MIN_DEPTH_M} m)")
    counts = np.bincount(truth.instance_ids.ravel(), minlength=len(recipe.things) + 1)
    things = [thing for thing in recipe.things if thing.is_thing]
    shares = [(counts[thing.id] / pixels, thing) for thing in things]
    large = sum(share >= MIN_THING_SHARE for share, _ in shares)
    wanted = 2 if recipe.kind == "outdoor" else 3
    if large < wanted:
        raise ViewRejected(f"{large} things of at least {MIN_THING_SHARE:.1%} of the picture, {wanted} wanted")
    for share, thing in shares:
        most = 0.7 if thing.category in ("table", "desk", "coffee table") and recipe.kind == "table top" else 0.4
        if share > most:
            raise ViewRejected(f"a {thing.category} fills {share:.0%} of the picture")
    structures = max((counts[thing.id] / pixels for thing in recipe.things if not thing.is_thing), default=0)
    if structures > 0.8:
        raise ViewRejected(f"one surface fills {structures:.0%} of the picture")
    check_normals(recipe, truth)


def check_normals(recipe: Recipe, truth: Truth) -> None:
    """Check that normals have unit length, face the viewer, and are zero exactly where there is no surface.

    Raises:
        ViewRejected: they do not.
    """
    seen = truth.instance_ids > 0
    if (np.isfinite(truth.depth_m) != seen).any() or truth.normals[~seen].any():
        raise ViewRejected("depth, normals and ids disagree on where there is a surface")
    length = np.linalg.norm(truth.normals[seen], axis=-1)
    if np.abs(length - 1).max() > 1e-4:
        raise ViewRejected("normals are not unit vectors")
    if ((truth.normals * camera_rays(recipe.camera)).sum(axis=-1)[seen] > 1e-6).any():
        raise ViewRejected("normals look away from the viewer")
