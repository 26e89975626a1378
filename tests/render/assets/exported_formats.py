"""Run as a program: Blender writes one textured object into a folder in every format that it exports.

`python -m tests.render.assets.exported_formats FOLDER`. bpy must not be imported into a process with other work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bpy
import numpy as np
from PIL import Image

COLOR, ROUGHNESS, METALLIC = (200, 40, 40), 77, 0.25
SIZE = (0.2, 0.3, 0.6)


def main(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import addon_utils

    for name in ("io_scene_gltf2", "io_scene_fbx"):
        addon_utils.enable(name, default_set=False)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((16, 16, 3), COLOR, np.uint8)
    Image.fromarray(pixels).save(folder / "color.png")
    Image.fromarray(np.full((8, 8), ROUGHNESS, np.uint8)).save(folder / "rough.png")
    Image.fromarray(np.full((8, 8, 3), (128, 128, 255), np.uint8)).save(folder / "normal.png")
    thing = bpy.data.objects.new("thing", _mesh())
    thing.data.materials.append(_material(folder))
    thing.scale = (1, 1, 2)
    bpy.context.scene.collection.objects.link(thing)
    bpy.context.view_layer.objects.active = thing
    thing.select_set(True)
    path = str(folder / "a.")
    for ending in ("usda", "usdc", "usdz"):
        bpy.ops.wm.usd_export(filepath=path + ending)
    bpy.ops.export_scene.gltf(filepath=path + "glb")
    bpy.ops.export_scene.gltf(filepath=str(folder / "draco.glb"), export_draco_mesh_compression_enable=True)
    (folder / "apart").mkdir()  # it writes textures under their names
    bpy.ops.export_scene.gltf(filepath=str(folder / "apart/a.gltf"), export_format="GLTF_SEPARATE")
    bpy.ops.export_scene.fbx(filepath=path + "fbx", path_mode="COPY", embed_textures=True)
    bpy.ops.export_scene.fbx(filepath=str(folder / "beside.fbx"), path_mode="RELATIVE")
    bpy.ops.wm.obj_export(filepath=path + "obj", export_pbr_extensions=True)
    bpy.ops.wm.ply_export(filepath=path + "ply")
    bpy.ops.wm.stl_export(filepath=path + "stl")
    os._exit(0)


def _mesh() -> bpy.types.Mesh:
    """Make an L-shaped prism of 0.2 x 0.3 x 0.3 m: its two ends are concave polygons."""
    outline = [(0, 0), (0.2, 0), (0.2, 0.1), (0.1, 0.1), (0.1, 0.3), (0, 0.3)]
    points = [(x - 0.1, y - 0.15, z) for z in (0, 0.3) for x, y in outline]
    sides = [(a, (a + 1) % 6, (a + 1) % 6 + 6, a + 6) for a in range(6)]
    mesh = bpy.data.meshes.new("mesh")
    mesh.from_pydata(points, [], [tuple(range(5, -1, -1)), tuple(range(6, 12)), *sides])
    layer = mesh.uv_layers.new(name="UVMap")
    for polygon in mesh.polygons:
        for corner in polygon.loop_indices:
            x, y, z = mesh.vertices[mesh.loops[corner].vertex_index].co
            layer.data[corner].uv = (x + y, z)
    return mesh


def _material(folder: Path) -> bpy.types.Material:
    material = bpy.data.materials.new("paint")
    material.use_nodes = True
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Metallic"].default_value = METALLIC

    def image(name: str, is_data: bool) -> bpy.types.NodeSocket:
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.load(str(folder / name))
        if is_data:
            node.image.colorspace_settings.name = "Non-Color"
        return node.outputs["Color"]

    tree.links.new(image("color.png", False), shader.inputs["Base Color"])
    tree.links.new(image("rough.png", True), shader.inputs["Roughness"])
    relief = tree.nodes.new("ShaderNodeNormalMap")
    tree.links.new(image("normal.png", True), relief.inputs["Color"])
    tree.links.new(relief.outputs["Normal"], shader.inputs["Normal"])
    return material


if __name__ == "__main__":
    main(Path(sys.argv[1]))
