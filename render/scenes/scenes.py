"""Draws recipes: which kind of scene, and which models it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import InputError
from cavendish.render.assets.catalogue import catalogue, roles
from cavendish.render.scenes.clutter import draw_clutter
from cavendish.render.scenes.corridors import draw_corridor
from cavendish.render.scenes.outdoors import draw_long_range, draw_outdoor
from cavendish.render.scenes.presets import Palette, Style
from cavendish.render.scenes.recipe import Material, Recipe
from cavendish.render.scenes.rooms import draw_room
from cavendish.render.scenes.tabletops import draw_tabletop

KINDS: Mapping[str, Callable[[np.random.Generator, Palette, int, int, Style], Recipe]] = {
    "room": draw_room,
    "corridor": draw_corridor,
    "table top": draw_tabletop,
    "outdoor": draw_outdoor,
    "long range": draw_long_range,
    "clutter": draw_clutter,
}
PALETTE_SIZE = {
    "table_item": 16,
    "floor_item": 8,
    "street_item": 9,
    "chair": 4,
    "vehicle": 5,
    "person": 3,
    "wall_hung": 1,
}


def draw_palette(rng: np.random.Generator, max_model_kb: int) -> Palette:
    """Draw the models that the scenes of one shard share (three of most roles), so that few have to be read.

    Models whose OBJ file is larger than `max_model_kb` are left out, as long as a role has smaller ones.
    """
    sizes = {name: info.member_bytes for name, info in catalogue().items()}
    palette = {}
    for role, models in roles().items():
        small = sorted(name for name in models if sizes[name] <= 1024 * max_model_kb)
        names = small or [min(sorted(models), key=lambda name: sizes[name])]
        count = min(len(names), PALETTE_SIZE.get(role, 3))
        palette[role] = tuple(names[index] for index in sorted(rng.permutation(len(names))[:count]))
    return palette


def add_own(palette: Palette, own: Mapping[str, str], share: float) -> Palette:
    """Add a user's own meshes to a palette, so that about `share` of the draws of their roles are theirs.

    Args:
        own: name -> role; those of role "map" are environment maps, and stay out.
    """
    mixed = dict(palette)
    for role in sorted(set(own.values()) - {"map"}):
        names = tuple(sorted(name for name in own if own[name] == role))
        others = tuple(palette.get(role, ()))
        if share >= 1 or not others:
            mixed[role] = names
            continue
        # every name is as likely as another: repeat one side until the shares are about right
        wanted = share / (1 - share) * len(others) / len(names)
        mixed[role] = others * max(1, round(1 / wanted)) + names * max(1, round(wanted))
    return mixed


def use_own_map(recipe: Recipe, own: Mapping[str, str], share: float, rng: np.random.Generator) -> Recipe:
    """Light a daylight scene that has an environment map by one of the user's, with probability `share`."""
    maps = sorted(name for name, role in own.items() if role == "map")
    if recipe.sky.kind != "map" or recipe.sky.name == "night" or not maps or rng.random() >= share:
        return recipe
    return replace(recipe, sky=replace(recipe.sky, name=one_of(maps, rng)))


def draw_recipe(
    kinds: Mapping[str, float],
    rng: np.random.Generator,
    palette: Palette,
    width: int,
    height: int,
    style: Style = Style(),
) -> Recipe:
    """Draw one scene with its camera.

    Args:
        kinds: kind of scene -> relative weight; see KINDS.
        palette: role -> names of the models it may use.
        width, height: of the picture, pixels.
        style: weights of lenses and hours; each kind's own where it has none.

    Raises:
        InputError: a kind that is not in KINDS.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise InputError(f"scene kind {unknown[0]!r}: known are {', '.join(KINDS)}")
    weights = np.array([kinds[kind] for kind in kinds], np.float64)
    kind = list(kinds)[rng.choice(len(weights), p=weights / weights.sum())]
    return _with_texture_side(KINDS[kind](rng, palette, width, height, style), max(width, height))


def _with_texture_side(recipe: Recipe, longest: int) -> Recipe:
    """Paint textures no finer than the picture: to the next power of two of its longer side, at least 64."""
    limit = max(64, 1 << (longest - 1).bit_length())

    def fit(material: Material) -> Material:
        if material.texture is None or material.texture.side <= limit:
            return material
        return replace(material, texture=replace(material.texture, side=limit))

    things = tuple(replace(thing, materials=tuple(fit(one) for one in thing.materials)) for thing in recipe.things)
    return replace(recipe, things=things)
