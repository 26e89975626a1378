"""The peers of rendering.py: the same scenes rendered the way a lab writes it, by BlenderProc or by plain bpy.

    PYTHON benchmarks/rendering_peers.py bpy|blenderproc|blenderproc-equal SCENES SIZE SAMPLES BLENDERPROC_DIR

Each scene is a .blend file. Every frame: load, render colour, depth, normals and object indices, write HDF5 (plain
bpy: npz). blenderproc-equal has the light's and the denoiser's settings of render/engines/blender.py. Prints one line
of
json: frames, CPU seconds, and those it takes to make the scenes (none).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def plain_bpy(paths: list[Path], size: int, samples: int, out: Path) -> int:
    import bpy

    sys.path.append(str(Path(bpy.utils.resource_path("LOCAL")) / "python/lib/python3.11/site-packages"))
    import OpenImageIO

    for path in paths:
        bpy.ops.wm.open_mainfile(filepath=str(path))
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.render.threads_mode, scene.render.threads = "FIXED", 1
        _blender_defaults(scene.cycles)
        scene.cycles.samples, scene.cycles.use_adaptive_sampling = samples, False
        scene.cycles.use_denoising = True
        layer = bpy.context.view_layer
        layer.use_pass_z = layer.use_pass_normal = layer.use_pass_object_index = True
        scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
        scene.render.filepath = str(out / "frame.exr")
        bpy.ops.render.render(write_still=True)
        file = OpenImageIO.ImageInput.open(str(out / "frame.exr"))
        pixels = file.read_image(OpenImageIO.FLOAT)
        names = file.spec().channelnames
        file.close()
        passes = {name.partition(".")[2]: pixels[..., number] for number, name in enumerate(names)}
        np.savez_compressed(out / f"{path.stem}.npz", **passes)
    return len(paths)


def blenderproc(paths: list[Path], size: int, samples: int, out: Path, equal: bool) -> Any:
    import blenderproc as bproc
    import bpy

    bproc.init()
    bproc.renderer.set_render_devices(use_only_cpu=True)
    bproc.renderer.set_cpu_threads(1)
    bproc.renderer.set_max_amount_of_samples(samples)
    bproc.renderer.set_noise_threshold(0)
    if equal:
        _our_settings(bproc, bpy.context.scene)
    bproc.renderer.enable_depth_output(activate_antialiasing=False)
    bproc.renderer.enable_normals_output()
    bproc.renderer.enable_segmentation_output(map_by=["category_id", "instance"], default_values={"category_id": 0})
    yield  # what is before is paid once
    for path in paths:
        bproc.loader.load_blend(str(path), obj_types=["mesh", "light"])
        with bpy.data.libraries.load(str(path)) as (there, wanted):
            wanted.worlds = there.worlds
            wanted.objects = [name for name in there.objects if name.startswith("camera")]  # some are cameras on tables
        bpy.context.scene.world = wanted.worlds[0]
        (placed,) = (thing for thing in wanted.objects if thing.type == "CAMERA")
        lens = placed.data
        bproc.camera.set_intrinsics_from_blender_params(lens.lens, size, size, lens_unit="MILLIMETERS")
        bproc.camera.add_camera_pose(np.array(placed.matrix_basis))
        data = bproc.renderer.render()
        bproc.writer.write_hdf5(str(out), data, append_to_existing_output=True)
        bproc.clean_up()
    yield len(paths)


def _our_settings(bproc: Any, scene: Any) -> None:
    """Set what render/engines/blender.py sets and BlenderProc does not: the work of a sample, and of the denoiser."""
    bproc.renderer.set_light_bounces(
        diffuse_bounces=3, glossy_bounces=2, max_bounces=8, transmission_bounces=8, transparent_max_bounces=8
    )
    cycles = scene.cycles
    cycles.use_light_tree, cycles.min_transparent_bounces, cycles.sample_clamp_indirect = False, 8, 6.0
    cycles.caustics_reflective = cycles.caustics_refractive = False
    (denoiser,) = (node for node in scene.node_tree.nodes if node.bl_idname == "CompositorNodeDenoise")
    denoiser.prefilter, denoiser.quality = "FAST", "BALANCED"


def _blender_defaults(cycles: Any) -> None:
    """Undo what our scene files set: what a fresh Blender file has."""
    for name in (
        "max_bounces", "diffuse_bounces", "glossy_bounces", "transmission_bounces", "transparent_max_bounces",
        "denoising_quality", "denoising_prefilter", "denoising_input_passes", "sample_clamp_indirect",
    ):  # fmt: skip
        cycles.property_unset(name)


def main() -> None:
    name, folder, size, samples, source = sys.argv[1:6]
    paths = sorted(Path(folder).glob("*.blend"))
    out = Path(folder) / f"peer-{name}"
    out.mkdir(exist_ok=True)
    if name == "bpy":
        import bpy  # noqa: F401

        start = time.process_time()
        count = plain_bpy(paths, int(size), int(samples), out)
    else:
        os.environ["USE_EXTERNAL_BPY_MODULE"] = "1"
        sys.path.insert(0, source)
        steps = blenderproc(paths, int(size), int(samples), out, name.endswith("equal"))
        next(steps)
        start = time.process_time()
        count = next(steps)
    print("\n" + json.dumps({"frames": count, "cpu_s": time.process_time() - start, "making_s": 0}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
