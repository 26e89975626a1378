"""What labels, their checks and the camera's faults cost beside painting with Blender: CPU seconds of six scenes.

OMP_NUM_THREADS=1 python benchmarks/render_checks.py [SIDE]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cavendish.render.camera.sensor import Effects, draw_effects, take_picture
from cavendish.render.engines.blender import Cycles
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import ViewRejected, check_view
from cavendish.render.labels.passes import cast_scene
from cavendish.render.scenes.scenes import draw_palette, draw_recipe

SCENES = (("room", 0), ("table top", 1), ("outdoor", 1), ("room", 2), ("long range", 1), ("table top", 4))
STEPS = ("cast", "base colours", "checks of labels", "paint", "cross check", "effects")


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return CPU seconds and the result; a rejected view has cost what it cost."""
    start = time.process_time()
    try:
        result = work(*arguments)
    except ViewRejected as reason:
        result = reason
    return time.process_time() - start, result


def measure(cycles: Cycles, kind: str, seed: int, side: int) -> tuple[list[float], dict[str, float]]:
    """Return the CPU seconds of STEPS for one scene, and what the comparisons with Cycles found."""
    palette = draw_palette(np.random.default_rng([seed, 5]), 2000)
    recipe = draw_recipe({kind: 1.0}, np.random.default_rng([seed, 6]), palette, side, side)
    scene = build_scene(recipe)
    cast_scene(scene, recipe.camera)  # search trees are built once
    cast, truth = timed(cast_scene, scene, recipe.camera)
    colors, _ = timed(cast_scene, scene, recipe.camera, None, True)
    checks, _ = timed(check_view, recipe, scene, truth)
    both, picture = timed(cycles.paint, recipe, scene, truth)
    cross, _ = timed(cycles._check, recipe, truth)
    faults = draw_effects(
        dict.fromkeys(("sensor_noise", "motion_blur", "vignette", "white_balance", "jpeg"), 1.0),
        side,
        np.random.default_rng(1),
    )
    plain, _ = timed(take_picture, picture.light, 1.0, Effects())
    worn, _ = timed(take_picture, picture.light, 1.0, faults)
    return [cast, colors - cast, checks, both - cross, cross, worn - plain], picture.scores


def main(side: int) -> None:
    console = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Blender reports to stdout
    cycles = Cycles(side, side, 8, cross_check=True)
    rows = []
    for kind, seed in SCENES:
        seconds, found = measure(cycles, kind, seed, side)
        rows.append(seconds)
        print(f"{kind:11}", " ".join(f"{value:7.3f}" for value in seconds), found, file=console)
    print("median:", ", ".join(f"{n} {s:.3f}" for n, s in zip(STEPS, np.median(rows, axis=0))), file=console)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
