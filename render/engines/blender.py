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

from cavendish.render.geometry.mesh import CUT, ImageMap, Mesh, Placed, Surface, is_pane, srgb_to_linear
from cavendish.render.labels.checks import compare_exactly, compare_passes
from cavendish.render.labels.passes import MAX_CUT_LAYERS, Truth
from cavendish.render.light.skies import add_haze, environment
from cavendish.render.scenes.recipe import Light, Recipe, pose_matrix
from cavendish.render.views import Picture

RENDER_TIME_LIMIT_S = 240.0
FILTER_WIDTH = 1.5
NORMAL_PASS = "true_normal"
CUT_NODE = "cut"
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
        # only glass pays for the transmission bounces, only window panes and cut-outs for the transparent ones
        cycles.transmission_bounces, cycles.volume_bounces = 8, 0
        cycles.transparent_max_bounces = MAX_CUT_LAYERS
        cycles.min_transparent_bounces = MAX_CUT_LAYERS  # else some paths end at a pane, and have no depth and index
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
    normal, cut = geometry.outputs["True Normal"], tree.nodes.get(CUT_NODE)
    if cut is not None:  # of all surfaces that a ray goes through, that of the one that is there
        scaled = tree.nodes.new("ShaderNodeVectorMath")
        scaled.operation = "SCALE"
        tree.links.new(normal, scaled.inputs[0])
        tree.links.new(cut.outputs[0], scaled.inputs["Scale"])
        normal = scaled.outputs["Vector"]
    tree.links.new(normal, writer.inputs["Color"])


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
        material = _MaterialMaker(surface, images).make()
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
    for number, coordinates in enumerate(mesh.uv):
        layer = data.uv_layers.new(name=f"uv{number}")
        layer.uv.foreach_set("vector", coordinates[mesh.faces].ravel())
    if mesh.colors is not None:
        colors = data.color_attributes.new("colors", "BYTE_COLOR", "POINT")
        rgba = np.ones((len(mesh.vertices), 4), np.float32)
        rgba[:, :3] = mesh.colors / np.float32(255)
        colors.data.foreach_set("color_srgb", rgba.ravel())
    data.update()
    data.normals_split_custom_set_from_vertices(mesh.normals)
    return data


class _MaterialMaker:
    """Makes the nodes of one material."""

    def __init__(self, surface: Surface, images: dict[int, Any]) -> None:
        self.material = bpy.data.materials.new("material")
        self.material.use_nodes = True
        self._surface, self._images, self._tree = surface, images, self.material.node_tree
        self._shader = self._tree.nodes["Principled BSDF"]

    def make(self) -> Any:
        """Return the material."""
        surface, inputs = self._surface, self._shader.inputs
        if surface.see_through:
            return _pane(self.material, surface)
        inputs["Transmission Weight"].default_value = surface.transmission
        inputs["Coat Weight"].default_value = surface.coat
        inputs["Coat Roughness"].default_value = 0.06
        inputs["Roughness"].default_value = surface.roughness
        inputs["Metallic"].default_value = surface.metallic
        color = self._add_color()
        for used, name in ((surface.roughness_map, "Roughness"), (surface.metallic_map, "Metallic")):
            if used is not None:
                self._link(self._image(used, is_data=True).outputs["Color"], inputs[name])
        self._add_emission(color)
        self._add_relief(color)
        if surface.cutout is not None:
            self._cut(surface.cutout)
        return self.material

    def _link(self, output: Any, socket: Any) -> None:
        self._tree.links.new(output, socket)

    def _new(self, kind: str) -> Any:
        return self._tree.nodes.new(f"ShaderNode{kind}")

    def _add_color(self) -> Any:
        """Set the base color; return the output that gives it, None where it is one color."""
        surface, socket = self._surface, self._shader.inputs["Base Color"]
        linear = srgb_to_linear(np.array(surface.color, np.float64))
        socket.default_value = (*linear, 1.0)
        output = None
        if surface.texture is not None:
            output = self._image(surface.texture).outputs["Color"]
        if surface.corner_colors:
            corners, product = self._new("VertexColor"), self._new("Mix")
            corners.layer_name = "colors"
            product.data_type, product.blend_type = "RGBA", "MULTIPLY"
            product.inputs[0].default_value = 1.0
            product.inputs[6].default_value = (*linear, 1.0)
            if output is not None:
                self._link(output, product.inputs[6])
            self._link(corners.outputs["Color"], product.inputs[7])
            output = product.outputs[2]
        if output is not None:
            self._link(output, socket)
        return output

    def _add_emission(self, color: Any) -> None:
        surface, inputs = self._surface, self._shader.inputs
        if surface.emission <= 0:
            return
        shown = surface.color if surface.emission_color is None else surface.emission_color
        inputs["Emission Color"].default_value = (*srgb_to_linear(np.array(shown, np.float64)), 1.0)
        inputs["Emission Strength"].default_value = surface.emission
        if surface.emission_map is not None:
            product = self._new("Mix")
            product.data_type, product.blend_type = "RGBA", "MULTIPLY"
            product.inputs[0].default_value = 1.0
            product.inputs[6].default_value = inputs["Emission Color"].default_value
            self._link(self._image(surface.emission_map).outputs["Color"], product.inputs[7])
            self._link(product.outputs[2], inputs["Emission Color"])
        elif surface.emission_color is None and color is not None:
            self._link(color, inputs["Emission Color"])

    def _add_relief(self, color: Any) -> None:
        surface = self._surface
        if surface.normal_map is not None:
            relief = self._new("NormalMap")
            relief.uv_map = f"uv{surface.normal_map.uv}"
            relief.inputs["Strength"].default_value = surface.normal_strength
            self._link(self._image(surface.normal_map, is_data=True).outputs["Color"], relief.inputs["Color"])
        elif surface.relief_m > 0 and color is not None:
            relief = self._new("Bump")
            relief.inputs["Distance"].default_value = surface.relief_m
            self._link(color, relief.inputs["Height"])
        else:
            return
        self._link(relief.outputs["Normal"], self._shader.inputs["Normal"])

    def _cut(self, used: ImageMap) -> None:
        """Leave no surface where the map is under its threshold."""
        step, clear, mixed = self._new("Math"), self._new("BsdfTransparent"), self._new("MixShader")
        step.name = CUT_NODE
        step.operation, step.inputs[1].default_value = "GREATER_THAN", (CUT - 1e-3) / 255
        self._link(self._image(used, is_data=True).outputs["Color"], step.inputs[0])
        self._link(step.outputs[0], mixed.inputs["Fac"])
        self._link(clear.outputs["BSDF"], mixed.inputs[1])
        self._link(self._shader.outputs["BSDF"], mixed.inputs[2])
        self._link(mixed.outputs[0], self._tree.nodes["Material Output"].inputs["Surface"])

    def _image(self, used: ImageMap, is_data: bool = False) -> Any:
        """Add the node of an image, with its texture coordinates and how they wrap."""
        node = self._new("TexImage")
        node.image = self._blender_image(used, is_data)
        node.interpolation = "Closest" if used.nearest else "Linear"
        if used.uv == 0 and used.wrap == ("repeat", "repeat"):
            return node
        coordinates = self._new("UVMap")
        coordinates.uv_map = f"uv{used.uv}"
        output = coordinates.outputs[0]
        if used.wrap[0] == used.wrap[1]:
            node.extension = {"repeat": "REPEAT", "clamp": "EXTEND", "mirror": "MIRROR"}[used.wrap[0]]
        else:
            node.extension = "EXTEND"
            output = self._wrap_axes(output, used.wrap)
        self._link(output, node.inputs["Vector"])
        return node

    def _wrap_axes(self, output: Any, wrap: tuple[str, str]) -> Any:
        apart, together = self._new("SeparateXYZ"), self._new("CombineXYZ")
        self._link(output, apart.inputs[0])
        for axis in range(2):
            end = apart.outputs[axis]
            if wrap[axis] != "clamp":
                math = self._new("Math")
                math.operation = "WRAP" if wrap[axis] == "repeat" else "PINGPONG"
                math.inputs[1].default_value, math.inputs[2].default_value = float(wrap[axis] == "mirror"), 1.0
                self._link(end, math.inputs[0])
                end = math.outputs[0]
            self._link(end, together.inputs[axis])
        return together.outputs[0]

    def _blender_image(self, used: ImageMap, is_data: bool) -> Any:
        key = id(used.pixels)
        if key not in self._images:  # with the pixels beside it, so that their id stays their own
            height, width = used.pixels.shape[:2]
            image = bpy.data.images.new("texture", width, height, is_data=is_data)
            pixels = used.pixels.reshape(height, width, -1).astype(np.float32) / 255
            _fill(image, np.broadcast_to(pixels, (height, width, 3)))
            self._images[key] = used.pixels, image
        return self._images[key][1]


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
