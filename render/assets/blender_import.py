"""Imports 3D files of others by Blender's own importers, in a child process of its own: `python -m` this module.

A request names a file, the folder it may refer to and where the .npz goes; the answer holds the record of the import,
or the reason why the file is refused. Scripts and drivers of a file do not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.render.assets.asset import Asset, AssetMaterial, Rgb, check_asset, encode_asset
from cavendish.render.assets.prepare import MAX_TRIANGLES, Folder, Prepared, prepare
from cavendish.render.assets.shader_nodes import Coordinates, ImageTable, MaterialReader
from cavendish.render.engines.worker import leave_with_parent, receive, send, take_over_pipes
from cavendish.render.geometry.mesh import srgb_to_linear

MAX_OBJECTS = 20_000
FAR_RATIO = 1e5
"""Distance from the origin over size above which single precision would bend a shape."""
CONVERTIBLE = ("MESH", "CURVE", "SURFACE", "META", "FONT")
LOST = re.compile(r"(?i)invalid .*(index|indices)|ignoring face")
"""What importers print when they leave triangles out."""
_NOISE = re.compile(r"^(?:ERROR|WARN) \([\w.]+\): (?:\S+ )?(?:\w+: )?(.*)$")


def main() -> None:
    """Answer import requests until stdin closes."""
    requests, answers = take_over_pipes()
    leave_with_parent()
    send(answers, {"bpy": bpy.app.version_string}, b"")
    while (message := receive(requests)) is not None:
        try:
            answer = import_file(message[0])
        except InputError as error:
            answer = {"error": str(error)}
        except Exception as error:  # a file nobody foresaw must cost itself only
            answer = {"error": f"{type(error).__name__}: {_clean(str(error))}"}
        send(answers, answer, b"")
    os._exit(0)  # bpy can crash while the interpreter tears it down


def import_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Import `path`, which may refer to what is in `root`, and write the asset to `out`.

    Raises:
        InputError: it is refused; the reason is one line.
    """
    path, root = Path(request["path"]), Path(request["root"])
    with tempfile.TemporaryDirectory(prefix="cavendish-") as scratch:
        prepared = prepare(path, root, Path(scratch), request.get("allow_missing", False))
        _start_empty()
        with _caught_output() as said:
            _run_importer(prepared)
        lost = [line for line in said if LOST.search(line)]
        if lost and not request.get("allow_missing"):
            raise InputError(f"damaged: {lost[0]}")
        prepared.warnings.extend(said)
        _check_references(prepared, Folder(root), Path(scratch))
        asset = _bake(prepared)
    check_asset(asset)
    Path(request["out"]).write_bytes(encode_asset(asset))
    return {"files": dict(asset.files), "warnings": list(asset.warnings)}


def _start_empty() -> None:
    import addon_utils  # type: ignore[import-not-found]  # found once bpy is there

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
    addon_utils.enable("io_scene_gltf2", default_set=False)


def _run_importer(prepared: Prepared) -> None:
    path = str(prepared.path)
    try:
        match prepared.format:
            case "glb":
                bpy.ops.import_scene.gltf(filepath=path, disable_bone_shape=True)
            case "obj":
                bpy.ops.wm.obj_import(filepath=path)
            case "ply":
                bpy.ops.wm.ply_import(filepath=path)
            case "stl":
                bpy.ops.wm.stl_import(filepath=path, use_mesh_validate=False)  # which makes zeros of what is not finite
            case "fbx":
                bpy.ops.wm.fbx_import(filepath=path, use_anim=False)
            case _:
                bpy.ops.wm.usd_import(filepath=path, import_lights=False, create_world_material=False)
    except RuntimeError as error:  # what an operator reports as an error
        raise InputError(f"not a readable {prepared.format.upper()} file: {_clean(str(error))}") from None


@contextlib.contextmanager
def _caught_output() -> Iterator[list[str]]:
    """Catch what importers print; the lines of errors and warnings come out, without the paths in them."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as caught:
        saved = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(caught.fileno(), number)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, kept in zip((1, 2), saved):
                os.dup2(kept, number)
                os.close(kept)
            caught.seek(0)
            text = caught.read(1_000_000).decode("utf-8", "replace")
    found = (_NOISE.match(line) for line in text.splitlines())
    lines.extend(list(dict.fromkeys(_clean(match[1]) for match in found if match))[:20])


def _clean(text: str) -> str:
    """Return a message in one line, without paths of this machine and addresses of memory."""
    if "Traceback" in text:
        text = text.strip().splitlines()[-1]
    text = re.sub(r"(?:/[^\s/'\":]+)+/([^\s/'\":]+)", r"\1", " ".join(text.split()))
    return re.sub(r" at 0x[0-9a-f]+", "", text).removeprefix("Error: ")[:300]


def _check_references(prepared: Prepared, folder: Folder, scratch: Path) -> None:
    """Refuse files whose importer read images or layers outside of their folder; note those inside."""
    paths = [Path(image.filepath_from_user()) for image in bpy.data.images if image.filepath]
    if prepared.format == "usd":
        paths.extend(_usd_layers(prepared.path))
    for path in paths:
        if path.resolve().is_relative_to(scratch.resolve()):
            continue
        if path.is_absolute() and path.is_file():
            folder.read(path)
    prepared.files |= folder.files


def _usd_layers(path: Path) -> list[Path]:
    """List the layers of a USD stage, the file itself and packages left out."""
    sys.path.append(str(Path(bpy.utils.resource_path("LOCAL")) / "python/lib/python3.11/site-packages"))
    try:
        from pxr import Usd  # type: ignore[import-not-found]
    except ImportError:
        return []
    stage = Usd.Stage.Open(str(path))
    layers = [layer.realPath for layer in stage.GetUsedLayers()] if stage else []
    return [Path(layer) for layer in layers if layer and "[" not in layer and Path(layer) != path]


class _Parts:
    """Triangles of all objects, joined."""

    def __init__(self) -> None:
        self.columns: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("positions", "faces", "normals", "colors", "has_colors", "material_of")
        }
        self.uv: list[dict[str, NDArray[np.float32]]] = []
        self.first_uv: list[str] = []
        self.materials: dict[str | None, int] = {}
        self.vertices = self.triangles = 0


def _bake(prepared: Prepared) -> Asset:
    """Evaluate the scene, and join its triangles, materials and images to an asset."""
    for thing in bpy.data.objects:
        thing.animation_data_clear()
    bpy.context.view_layer.update()
    parts = _Parts()
    for number, instance in enumerate(bpy.context.evaluated_depsgraph_get().object_instances):
        if number > MAX_OBJECTS:
            raise InputError(f"more than {MAX_OBJECTS} objects")
        thing = instance.object
        if thing.type in CONVERTIBLE and instance.show_self and not thing.hide_render:
            mesh = thing.to_mesh()
            if mesh is not None:
                _add_mesh(parts, mesh, thing, np.array(instance.matrix_world, np.float64))
                thing.to_mesh_clear()
    if not parts.triangles:
        raise InputError("it has no triangles")
    table = ImageTable()
    materials = _read_materials(parts, prepared, table)
    arrays = {name: np.concatenate(column) for name, column in parts.columns.items() if name != "colors"}
    _check_place(arrays["positions"][arrays["faces"].ravel()])
    has_colors = bool(arrays["has_colors"].any())
    return Asset(
        positions=arrays["positions"].astype(np.float32),
        faces=arrays["faces"].astype(np.int32),
        normals=arrays["normals"].astype(np.float32),
        uv=_texture_coordinates(parts, table.sets),
        colors=np.concatenate(parts.columns["colors"]) if has_colors else None,
        material_of=arrays["material_of"].astype(np.int32),
        materials=tuple(_with_corner_colors(material, prepared, has_colors) for material in materials),
        images=tuple(table.images),
        unit=prepared.unit,
        flat=prepared.format == "glb",
        warnings=tuple(dict.fromkeys(prepared.warnings)),
        files=dict(sorted(prepared.files.items())),
    )


def _check_place(points: NDArray[np.float64]) -> None:
    size, away = float(np.ptp(points, axis=0).max()), float(np.abs(points).max())
    if np.isfinite(away) and size > 0 and away / size > FAR_RATIO:
        raise InputError(
            f"it lies {away / size:.0e} times its size away from the origin: move it there before the export"
        )


def _add_mesh(parts: _Parts, mesh: Any, thing: Any, matrix: NDArray[np.float64]) -> None:
    """Add an evaluated mesh; polygons become triangles by Blender's own tessellation, which knows concave ones."""
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    parts.triangles += count
    if parts.triangles > MAX_TRIANGLES:
        raise InputError(f"more than {MAX_TRIANGLES} triangles")
    if not count:
        return
    loops = _read(mesh.loop_triangles, "loops", np.int32, 3)
    faces = _read(mesh.loop_triangles, "vertices", np.int32, 3)
    slots = _read(mesh.loop_triangles, "material_index", np.int32)
    points = _read(mesh.vertices, "co", np.float32, 3).astype(np.float64)
    turn = matrix[:3, :3]
    normals = np.full((count, 3, 3), np.nan)
    if mesh.has_custom_normals:
        corner = _read(mesh.corner_normals, "vector", np.float32, 3).astype(np.float64)[loops]
        normals = _turned(corner, turn)
    if np.linalg.det(turn) < 0:
        loops, faces, normals = (array[:, ::-1] for array in (loops, faces, normals))
    colors, has_colors = _corner_colors(mesh, loops)
    materials = [slot.material for slot in thing.material_slots] or [None]
    numbers = [parts.materials.setdefault(None if one is None else one.name, len(parts.materials)) for one in materials]
    columns = {
        "positions": points @ turn.T + matrix[:3, 3],
        "faces": faces + parts.vertices,
        "normals": normals,
        "colors": colors,
        "has_colors": np.full(count, has_colors),
        "material_of": np.array(numbers)[np.clip(slots, 0, len(numbers) - 1)],
    }
    for name, column in columns.items():
        parts.columns[name].append(column)
    layers = list(mesh.uv_layers)
    active = next((layer.name for layer in layers if layer.active_render), layers[0].name if layers else "")
    parts.first_uv.append(active)
    parts.uv.append({layer.name: _read(layer.uv, "vector", np.float32, 2)[loops] for layer in layers})
    parts.uv[-1].setdefault("", parts.uv[-1].get(active, np.zeros((count, 3, 2), np.float32)))
    parts.vertices += len(points)


def _read(collection: Any, name: str, dtype: Any, width: int = 1) -> NDArray[Any]:
    values = np.empty(len(collection) * width, dtype)
    collection.foreach_get(name, values)
    return values if width == 1 else values.reshape(-1, width)


def _turned(normals: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn (F, 3, 3) normals by the cofactors of a matrix, which exist where its inverse does not (flat scales)."""
    x, y, z = turn.T
    cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)], axis=1)
    if np.linalg.det(turn) < 0:
        cofactors = -cofactors
    turned = normals @ cofactors.T
    length = np.linalg.norm(turned, axis=-1, keepdims=True)
    return np.asarray(np.divide(turned, length, out=np.full_like(turned, np.nan), where=length > 1e-12), np.float64)


def _corner_colors(mesh: Any, loops: NDArray[np.int32]) -> tuple[NDArray[np.uint8], bool]:
    """Return (F, 3, 3) sRGB colors of the corners by the mesh's first set of them; white without one."""
    attributes = mesh.color_attributes
    if not len(attributes):
        return np.full((len(loops), 3, 3), 255, np.uint8), False
    number = attributes.render_color_index
    attribute = attributes[number if 0 <= number < len(attributes) else 0]
    colors = _read(attribute.data, "color_srgb", np.float32, 4)[:, :3]
    if attribute.domain == "POINT":
        colors = colors[_read(mesh.loops, "vertex_index", np.int32)]
    return (np.clip(colors[loops], 0, 1) * 255 + 0.5).astype(np.uint8), True


def _read_materials(parts: _Parts, prepared: Prepared, table: ImageTable) -> list[AssetMaterial]:
    materials = []
    for name in parts.materials:
        material = None if name is None else bpy.data.materials[name]
        if material is None or material.node_tree is None or name == "DefaultMaterial":
            white = prepared.format == "glb"
            color = (1.0, 1.0, 1.0) if white else _as_shown((0.8, 0.8, 0.8))
            materials.append(AssetMaterial(color=color, phong=not white, roughness=0.8))
            continue
        read = MaterialReader(material, table, prepared.warnings).read()
        if prepared.format == "obj" and read.color_map is None:  # colors of MTL files are meant as they are shown
            read = replace(read, color=_as_shown(read.color))
        materials.append(replace(read, phong=prepared.format == "obj" and not prepared.pbr))
    return materials


def _as_shown(color: Rgb) -> Rgb:
    red, green, blue = srgb_to_linear(np.array(color))
    return float(red), float(green), float(blue)


def _with_corner_colors(material: AssetMaterial, prepared: Prepared, has_colors: bool) -> AssetMaterial:
    """Have corner colors drawn where a format gives them without saying for which material."""
    if not has_colors or material.corner_colors or (prepared.format == "glb" and material.name):
        return material
    if material.color_map is None and (prepared.format in ("obj", "ply", "stl", "fbx") or not material.name):
        return replace(material, corner_colors=True, color=(1.0, 1.0, 1.0))
    return material


def _texture_coordinates(parts: _Parts, sets: list[Coordinates]) -> NDArray[np.float32]:
    """Return (K, F, 3, 2) texture coordinates with their maps applied; zero where a mesh lacks a set."""
    made = []
    for coordinates in sets:
        matrix = np.array(coordinates.matrix).reshape(2, 3)
        columns = [uv.get(coordinates.uv_map, np.zeros_like(uv[""])) for uv in parts.uv]
        made.append(np.concatenate(columns).astype(np.float64) @ matrix[:, :2].T + matrix[:, 2])
    return np.asarray(np.stack(made), np.float32)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the parent is gone
        os._exit(3)
