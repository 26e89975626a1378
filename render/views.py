"""One seed -> one Sample: draw the scene, cast the truth, check the view, paint it, and make one edit of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.palettes import color_word
from encoders.sample import Edit, Instance, Rejection, Sample, UInt8Image
from render.assets import LICENCES, catalogue, load_model, map_sha256
from render.develop import develop, find_exposure
from render.facts import PEOPLE, edit_instruction, find_instances, name_uniquely, write_captions
from render.layout import PAINTS
from render.meshes import Placed, build_scene, largest_slot, place
from render.passes import Truth, camera_rays, cast_scene
from render.recipe import Recipe, recipe_digest
from render.scenes import draw_palette, draw_recipe

Paint = Callable[[Recipe, Sequence[Placed], Truth], "Picture"]
"""An engine: (recipe, scene, truth) -> linear light, with what it measured of itself."""

MIN_DEPTH_M = 0.12
MIN_THING_SHARE = 0.004
MIN_REMOVAL_CHANGE = 12.0
"""Mean change, of 255, of the pixels where a thing was."""
RECOLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


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
    recipe = draw_recipe(request.kinds, np.random.default_rng(seeds), palette, request.width, request.height)
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
        edit = make_edit(recipe, scene, truth, instances, image, exposure, paint, rng)
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


@dataclass(frozen=True)
class Candidate:
    """A thing that could be edited: its instance, the words that single it out, and its place in the scene."""

    instance: Instance
    words: str
    number: int


def make_edit(
    recipe: Recipe, scene: Sequence[Placed], truth: Truth, instances: Sequence[Instance], image: UInt8Image,
    exposure: float, paint: Paint, rng: np.random.Generator,
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
            edited = develop(paint(recipe, changed, truth).light, exposure)
            done = color_word(edited[mask]) == color
        else:
            changed = [*before, *after]
            edited = develop(paint(recipe, changed, cast_scene(changed, recipe.camera)).light, exposure)
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


def licences_of(recipe: Recipe) -> tuple[str, list[dict[str, str]]]:
    """Return the licence a picture of this scene may be used under, and its models and maps with author and sha256.

    CC-BY models make the picture CC-BY; without any it is CC0-1.0.
    """
    names = sorted({thing.model for thing in recipe.things if thing.model})
    credits = [
        {
            "name": name,
            "author": catalogue()[name].author,
            "licence": catalogue()[name].licence,
            "sha256": load_model(name).sha256,
        }
        for name in names
    ]
    if recipe.sky.kind == "map":
        credits.append(
            {
                "name": f"studiolights/world/{recipe.sky.name}.exr",
                "author": "Greg Zaal (Poly Haven)",
                "licence": "CC0-1.0",
                "sha256": map_sha256(recipe.sky.name),
            }
        )
    found = {credit["licence"] for credit in credits}
    assert found <= {*LICENCES.values(), "CC0-1.0"}
    return ("CC-BY-3.0" if found - {"CC0-1.0"} else "CC0-1.0"), credits
