"""Run as a program by test_blender.py: Cycles' own passes beside the ray cast's labels, printed as json.

`python -m tests.render.engines.cycles_passes KIND SEED SIDE`. bpy must not be imported into a process with other work.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import bpy
import numpy as np

from cavendish.render.engines.blender import Cycles
from cavendish.render.geometry.mesh import linear_to_srgb
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import away_from_edges, depth_errors
from cavendish.render.labels.passes import cast_scene
from cavendish.render.scenes.recipe import Aperture
from cavendish.render.scenes.scenes import draw_palette, draw_recipe


def main(kind: str, seed: int, side: int) -> None:
    palette = draw_palette(np.random.default_rng([seed, 5]), 400)
    recipe = draw_recipe({kind: 1.0}, np.random.default_rng([seed, 6]), palette, side, side)
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
