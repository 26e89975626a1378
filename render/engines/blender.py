"""Colour pictures by Blender's path tracer (Cycles on the CPU); the only file that imports bpy.

Runs in the worker child, on its main thread. Cycles also writes depth and object indices for each pixel's centre;
they are compared with the ray cast's, and a view where they differ is rejected.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from cavendish.render.geometry.meshes import Mesh, Placed, Surface, is_pane
from cavendish.render.labels.checks import compare_exactly, compare_passes
from cavendish.render.labels.passes import Truth
from cavendish.render.light.skies import add_haze, environment, srgb_to_linear
from cavendish.render.scenes.recipe import Light, Recipe, pose_matrix
from cavendish.render.views import Picture

RENDER_TIME_LIMIT_S = 240.0
FILTER_WIDTH = 1.5
NORMAL_PASS = "true_normal"
SENSOR_MM = 36.0


class Cycles:
    """The renderer: one size, one number of samples; every setting that matters is set here, none is left to defaults.

    Measured on one core at 256 x 256: 8 samples with the balanced denoiser look like 32 without; sampling the
    environment by a map of 256 instead of automatically saves 1 to 3 CPU seconds for each new environment.
    """

    def __init__(self, width: int, height: int, samples: int, cross_check: bool = False) -> None:
        sys.path.append(str(Path(bpy.utils.resource_path("LOCAL")) / "python/lib/python3.11/site-packages"))
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        render, cycles = scene.render, scene.cycles
        render.engine = "CYCLES"
        render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
        render.threads_mode, render.threads = "FIXED", 1
        render.use_compositing = render.use_sequencer = render.use_motion_blur = False
        render.film_transparent = False
        render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
        render.image_settings.color_depth, render.image_settings.exr_codec = "32", "NONE"
        cycles.device = "CPU"
        cycles.samples, cycles.use_adaptive_sampling = samples, False
        cycles.time_limit = RENDER_TIME_LIMIT_S
        cycles.seed, cycles.use_animated_seed = 0, False
        cycles.use_light_tree = False  # a quarter of the time for 0.2 to 0.9 dB (docs/rendering.md)
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 8, 3, 2
        # only glass pays for the transmission bounces, only window panes for the transparent ones
        cycles.transmission_bounces, cycles.transparent_max_bounces, cycles.volume_bounces = 8, 8, 0
        cycles.min_transparent_bounces = 8  # else some paths end at a pane, and depth and index stay empty there
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.sample_clamp_direct, cycles.sample_clamp_indirect = 0.0, 6.0
        cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", FILTER_WIDTH
        cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
        cycles.denoising_input_passes, cycles.denoising_prefilter = "RGB_ALBEDO_NORMAL", "FAST"
        cycles.denoising_quality, cycles.denoising_use_gpu = "BALANCED", False
        layer = bpy.context.view_layer
        layer.use_pass_z = layer.use_pass_object_index = True
        self._folder = tempfile.TemporaryDirectory(prefix="cavendish-")
        self._cross_check = cross_check
        if cross_check:
            layer.aovs.add().name = NORMAL_PASS
        self._light: tuple[Any, ...] = ()
        self._things: dict[Placed, Any] = {}
        self._images: dict[int, Any] = {}

    def paint(self, recipe: Recipe, scene: Sequence[Placed], truth: Truth) -> Picture:
        """Render a scene.

        Raises:
            ViewRejected: Cycles saw other objects or depths than the ray cast.
        """
        self._stand(recipe, scene)
        channels = self._render()
        pixels = np.stack([channels[f"Combined.{name}"] for name in "RGB"], axis=-1)
        scores: dict[str, float] = {}
        if recipe.aperture is None:  # else sample 0 starts anywhere on the lens
            indices = channels["IndexOB.X"].astype(np.int64)
            scores = compare_passes(channels["Depth.Z"], indices, truth)
        if self._cross_check:
            scores |= self._check(recipe, truth)
        return Picture(add_haze(pixels, truth.depth_m, recipe), scores)

    def _stand(self, recipe: Recipe, scene: Sequence[Placed]) -> None:
        """Bring Blender's scene from the last view's to this one's: another camera, a changed thing, or all anew."""
        light = (recipe.lights, recipe.sky)
        if light != self._light or not self._things.keys() & set(scene):
            bpy.context.scene.render.use_persistent_data = False  # lets go of what Cycles keeps of the last scene
            _clear()
            self._things, self._images, self._light = {}, {}, light
            _add_environment(environment(recipe.sky), recipe.sky.kind == "map")
            for lamp in recipe.lights:
                _add_light(lamp)
        bpy.context.scene.render.use_persistent_data = True
        for placed in self._things.keys() - set(scene):
            bpy.data.objects.remove(self._things.pop(placed))
        for placed in scene:
            if placed not in self._things:
                self._things[placed] = _add_thing(placed, self._images, self._cross_check)
        _set_camera(recipe)

    def _render(self) -> dict[str, NDArray[np.float32]]:
        path = Path(self._folder.name) / "view.exr"
        bpy.context.scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        return _read_channels(path)

    def _check(self, recipe: Recipe, truth: Truth) -> dict[str, float]:
        """Render once more for the labels alone: one sample at each pixel's centre, no lens, no light.

        Raises:
            ViewRejected: see `checks.compare_exactly`.
        """
        cycles, lens = bpy.context.scene.cycles, bpy.context.scene.camera.data
        samples, blurred = cycles.samples, lens.dof.use_dof
        panes = [thing for placed, thing in self._things.items() if is_pane(placed)]
        cycles.samples, cycles.use_denoising, cycles.filter_width, lens.dof.use_dof = 1, False, 0.01, False
        for pane in panes:
            pane.hide_render = True
        try:
            channels = self._render()
        finally:
            cycles.samples, cycles.use_denoising, cycles.filter_width = samples, True, FILTER_WIDTH
            lens.dof.use_dof = blurred
            for pane in panes:
                pane.hide_render = False
        world = np.stack([channels[f"{NORMAL_PASS}.{name}"] for name in "RGB"], axis=-1)
        normals = world @ pose_matrix(recipe.camera)[:3, :3].astype(np.float32)
        return compare_exactly(channels["Depth.Z"], channels["IndexOB.X"].astype(np.int64), normals, truth)


def _clear() -> None:
    data = bpy.data
    for collection in (data.objects, data.meshes, data.materials, data.images, data.lights, data.cameras, data.worlds):
        data.batch_remove(list(collection))


def _set_camera(recipe: Recipe) -> None:
    camera, scene = recipe.camera, bpy.context.scene
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        scene.collection.objects.link(scene.camera)
    lens = scene.camera.data
    lens.sensor_fit, lens.sensor_width = "HORIZONTAL", SENSOR_MM
    lens.lens = camera.fx * SENSOR_MM / camera.width
    lens.clip_start, lens.clip_end = 0.01, 10_000.0
    lens.dof.use_dof = recipe.aperture is not None
    if recipe.aperture is not None:
        lens.dof.aperture_fstop, lens.dof.focus_distance = recipe.aperture.f_stop, recipe.aperture.focus_m
    scene.camera.matrix_world = Matrix(pose_matrix(camera).tolist())


def _write_normals(material: Any) -> None:
    """Have a material write the triangles' world-space normals into the pass for them."""
    tree = material.node_tree
    writer, geometry = tree.nodes.new("ShaderNodeOutputAOV"), tree.nodes.new("ShaderNodeNewGeometry")
    writer.aov_name = NORMAL_PASS
    tree.links.new(geometry.outputs["True Normal"], writer.inputs["Color"])


def _add_environment(pixels: NDArray[np.float32], has_lamps: bool) -> None:
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    # a painted sky is smooth, its sun being a lamp: rays that surfaces scatter find it, and none have to be aimed at it
    # (7 % of the time, and 0.1 to 0.3 dB less noise)
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL" if has_lamps else "NONE", 256
    tree = world.node_tree
    texture = tree.nodes.new("ShaderNodeTexEnvironment")
    image = bpy.data.images.new("environment", pixels.shape[1], pixels.shape[0], float_buffer=True)
    image.colorspace_settings.name = "Linear Rec.709"
    _fill(image, pixels)
    texture.image = image
    tree.links.new(texture.outputs["Color"], tree.nodes["Background"].inputs["Color"])


def _fill(image: Any, pixels: NDArray[np.float32]) -> None:
    rgba = np.ones((*pixels.shape[:2], 4), np.float32)
    rgba[..., :3] = pixels[::-1]
    image.pixels.foreach_set(rgba.ravel())
    image.update()


def _add_light(light: Light) -> None:
    lamp = bpy.data.lights.new("light", {"sun": "SUN", "point": "POINT", "area": "AREA"}[light.kind])
    lamp.color, lamp.energy = light.color, light.power
    if light.kind == "sun":
        lamp.angle = light.size_m
    elif light.kind == "point":
        lamp.shadow_soft_size = light.size_m
    else:
        lamp.shape, lamp.size = "SQUARE", light.size_m
    placed = bpy.data.objects.new("light", lamp)
    back = -np.array(light.direction)
    side = np.cross((0.0, 1.0, 0.0) if abs(back[1]) < 0.9 else (1.0, 0.0, 0.0), back)
    side /= np.linalg.norm(side)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = side, np.cross(back, side), back, light.position_m
    placed.matrix_world = Matrix(pose.tolist())
    placed.visible_camera = False
    bpy.context.scene.collection.objects.link(placed)


def _add_thing(placed: Placed, images: dict[int, Any], write_normals: bool) -> Any:
    data = _mesh_data(placed.mesh)
    for surface in placed.surfaces:
        material = _material(surface, images)
        if write_normals:
            _write_normals(material)
        data.materials.append(material)
    thing = bpy.data.objects.new(placed.thing.category, data)
    thing.pass_index = placed.thing.id
    thing.matrix_world = Matrix(placed.matrix.tolist())
    bpy.context.scene.collection.objects.link(thing)
    return thing


def _mesh_data(mesh: Mesh) -> Any:
    data = bpy.data.meshes.new("mesh")
    count = len(mesh.faces)
    data.vertices.add(len(mesh.vertices))
    data.vertices.foreach_set("co", mesh.vertices.astype(np.float32).ravel())
    data.loops.add(3 * count)
    data.loops.foreach_set("vertex_index", mesh.faces.ravel())
    data.polygons.add(count)
    data.polygons.foreach_set("loop_start", np.arange(0, 3 * count, 3, dtype=np.int32))
    data.polygons.foreach_set("material_index", mesh.slot_of)
    data.polygons.foreach_set("use_smooth", np.ones(count, bool))
    uv = data.uv_layers.new(name="uv")
    uv.uv.foreach_set("vector", mesh.uv[mesh.faces].astype(np.float32).ravel())
    data.update()
    data.normals_split_custom_set_from_vertices(mesh.normals)
    return data


def _material(surface: Surface, images: dict[int, Any]) -> Any:
    material = bpy.data.materials.new("material")
    material.use_nodes = True
    tree = material.node_tree
    if surface.see_through:
        return _pane(material, surface)
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Transmission Weight"].default_value = surface.transmission
    shader.inputs["Coat Weight"].default_value = surface.coat
    shader.inputs["Coat Roughness"].default_value = 0.06
    shader.inputs["Roughness"].default_value = surface.roughness
    shader.inputs["Metallic"].default_value = surface.metallic
    linear = srgb_to_linear(np.array(surface.color, np.float64))
    shader.inputs["Base Color"].default_value = (*linear, 1.0)
    if surface.emission > 0:
        shader.inputs["Emission Color"].default_value = (*linear, 1.0)
        shader.inputs["Emission Strength"].default_value = surface.emission
    if surface.texture is not None:
        texture = tree.nodes.new("ShaderNodeTexImage")
        if id(surface.texture) not in images:  # with the texture beside it, so that its id stays its own
            height, width = surface.texture.shape[:2]
            image = bpy.data.images.new("texture", width, height)
            _fill(image, surface.texture.astype(np.float32) / 255)
            images[id(surface.texture)] = surface.texture, image
        texture.image = images[id(surface.texture)][1]
        tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
        if surface.emission > 0:
            tree.links.new(texture.outputs["Color"], shader.inputs["Emission Color"])
        if surface.relief_m > 0:
            relief = tree.nodes.new("ShaderNodeBump")
            relief.inputs["Distance"].default_value = surface.relief_m
            tree.links.new(texture.outputs["Color"], relief.inputs["Height"])
            tree.links.new(relief.outputs["Normal"], shader.inputs["Normal"])
    return material


def _pane(material: Any, surface: Surface) -> Any:
    """Make a clear pane: it only tints. A reflection would need rays that stop here, and passes would show it."""
    tree = material.node_tree
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    clear.inputs["Color"].default_value = (*srgb_to_linear(np.array(surface.color, np.float64)), 1.0)
    tree.links.new(clear.outputs["BSDF"], tree.nodes["Material Output"].inputs["Surface"])
    return material


def _read_channels(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the passes of Blender's multilayer EXR with the reader that comes with bpy; names without the layer."""
    import OpenImageIO  # type: ignore[import-not-found]

    file = OpenImageIO.ImageInput.open(str(path))
    if file is None:
        raise RuntimeError(f"{path}: {OpenImageIO.geterror()}")
    pixels = file.read_image(OpenImageIO.FLOAT)
    names = file.spec().channelnames
    file.close()
    return {name.partition(".")[2]: pixels[..., number] for number, name in enumerate(names)}
