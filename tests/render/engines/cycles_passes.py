"""Run as a program by test_blender.py: Cycles' own passes beside the ray cast's labels, printed as json.

`python -m tests.render.engines.cycles_passes KIND SEED SIDE`; KIND may be a folder of assets.
bpy must not be imported into a process with other work.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np

from cavendish.render.assets.catalogue import model_info
from cavendish.render.assets.folders import find_files, open_folders
from cavendish.render.engines.blender import Cycles
from cavendish.render.geometry.mesh import linear_to_srgb
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import away_from_edges, depth_errors
from cavendish.render.labels.passes import cast_scene
from cavendish.render.scenes.recipe import Aperture, Light, Material, Recipe, Sky, Thing, look_at
from cavendish.render.scenes.scenes import draw_palette, draw_recipe


def main(kind: str, seed: int, side: int) -> None:
    recipe = assets_recipe(Path(kind), side) if "/" in kind else drawn_recipe(kind, seed, side)
    scene = build_scene(recipe)
    truth = cast_scene(scene, recipe.camera, albedo=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Blender reports to stdout
    cycles = Cycles(side, side, 2, cross_check=True)
    picture = cycles.paint(recipe, scene, truth)
    again = cycles.paint(recipe, scene, truth)
    blurred = cycles.paint(replace(recipe, aperture=Aperture(0.5, float(truth.depth_m.min()))), scene, truth)
    sharp = cycles.paint(recipe, scene, truth)
    colors, depth_m, indices = base_colors(cycles)
    same = (indices == truth.instance_ids) & (truth.instance_ids > 0)
    off = np.abs(linear_to_srgb(colors.astype(float)) * 255 - truth.albedo)[same]
    errors = depth_errors(depth_m, same, truth)
    json.dump(
        {
            "scores": picture.scores,
            "blurred_scores": blurred.scores,
            "repeat": float(np.abs(picture.light - again.light).max()),
            "after_blur": float(np.abs(picture.light - sharp.light).max()),
            "blur_changes": float(np.abs(picture.light - blurred.light).mean() / picture.light.mean()),
            "ids_differ": int((indices != truth.instance_ids).sum()),
            "ids_differ_away_from_edges": int(away_from_edges(truth.instance_ids, indices).sum()),
            "depth_error_99": float(np.quantile(errors, 0.99)),
            "textured": sum(part.texture is not None for placed in scene for part in placed.surfaces),
            "albedo_mean": float(off.mean()),
            "albedo_99": float(np.quantile(off, 0.99)),
        },
        answers,
    )
    answers.flush()
    os._exit(0)


def drawn_recipe(kind: str, seed: int, side: int) -> Recipe:
    palette = draw_palette(np.random.default_rng([seed, 5]), 400)
    return draw_recipe({kind: 1.0}, np.random.default_rng([seed, 6]), palette, side, side)


def assets_recipe(folder: Path, side: int) -> Recipe:
    """All models of a folder in rows on a floor, turned, under a sun."""
    open_folders([folder])
    names = sorted(find_files((folder,)))
    floor = Thing(1, "floor", "box", (0, 0, -0.1), (6, 6, 0.1), materials=(Material("floor", (0.5, 0.5, 0.5)),))
    things = [floor]
    for number, name in enumerate(names):
        info = model_info(name)
        at = (0.5 * (number % 4) - 0.75, 0.6 * (number // 4) - 0.6, 0.0)
        things.append(Thing(number + 2, info.noun, "model", at, info.size_m, 0.4 * number, model=name))
    camera = look_at((0.4, -2.6, 1.5), (0, 0, 0.1), 45, side, side)
    sun = Light("sun", (1, 1, 1), 3.0, (0.3, 0.5, -0.8), size_m=0.01)
    sky = Sky("painted", 1.0, colors=((0.3, 0.5, 0.8), (0.8, 0.8, 0.9), (1, 1, 1)))
    return Recipe("clutter", tuple(things), (sun,), sky, camera)


def base_colors(cycles: Cycles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Have Cycles write its diffuse colour at the pixels' very centres; all else that takes from it is switched off."""
    for material in bpy.data.materials:
        shader = material.node_tree.nodes.get("Principled BSDF")
        if shader is not None:
            for name in ("Metallic", "Specular IOR Level", "Coat Weight", "Transmission Weight"):
                shader.inputs[name].default_value = 0.0
    bpy.context.view_layer.use_pass_diffuse_color = True
    settings = bpy.context.scene.cycles
    settings.samples, settings.use_denoising, settings.filter_width = 1, False, 0.01
    channels = cycles._render()
    colors = np.stack([channels[f"DiffCol.{name}"] for name in "RGB"], axis=-1)
    return colors, channels["Depth.Z"], channels["IndexOB.X"].astype(np.int64)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
