"""Foreign 3D files against an independent reader and closed formulas; what is not drawn is refused or told."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from cavendish.encoders.sample import InputError
from cavendish.render.assets.asset import Asset, decode_asset, encode_asset
from cavendish.render.assets.importing import AssetImporter
from cavendish.render.geometry.mesh import ImageMap, sample_image, srgb_to_linear
from cavendish.render.geometry.triangles import triangle_areas
from tests.render.assets.gltf_file import GltfFile, pack_glb, png

L_AREA = 2 * 0.04 + 0.6 * (0.2 + 0.1 + 0.1 + 0.2 + 0.1 + 0.3)


@pytest.fixture(scope="module")
def importer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AssetImporter]:
    made = AssetImporter(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "tests.render.assets.exported_formats", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture
def read(importer: AssetImporter, tmp_path: Path) -> Callable[..., Asset]:
    def read_files(name: str, data: bytes | str, **beside: bytes | str) -> Asset:
        for file, content in {name: data, **{key.replace("__", "."): value for key, value in beside.items()}}.items():
            path = tmp_path / "in" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return importer.import_file(tmp_path / "in" / name, tmp_path / "in").load()

    return read_files


def area(asset: Asset) -> float:
    return float(triangle_areas(asset.positions.astype(np.float64), asset.faces).sum())


def shown_colors(asset: Asset) -> np.ndarray:
    """Return (F, 3) base colors in the middle of the triangles, 0..255, by the asset's own data."""
    colors = np.zeros((len(asset.faces), 3))
    for face in range(len(asset.faces)):
        material = asset.materials[asset.material_of[face]]
        linear = np.array(material.color)
        if (use := material.color_map) is not None:
            image = ImageMap(asset.images[use.image], use.uv, use.wrap, use.nearest)
            value = sample_image(image, asset.uv[use.uv, face].astype(float).mean(axis=0)[None])[0] / 255
            linear = srgb_to_linear(value)
        if material.corner_colors:
            assert asset.colors is not None
            corner = asset.colors[face] / 255
            linear = linear * np.where(corner <= 0.04045, corner / 12.92, ((corner + 0.055) / 1.055) ** 2.4).mean(
                axis=0
            )
        colors[face] = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return colors


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a.glb",
        "draco.glb",
        "apart/a.gltf",
        "a.fbx",
        "beside.fbx",
        "a.usda",
        "a.usdc",
        "a.usdz",
        "a.obj",
        "a.ply",
        "a.stl",
    ],
)
def test_every_format_gives_one_shape_and_the_material_it_can_hold(
    importer: AssetImporter, exported: Path, name: str
) -> None:
    entry = importer.import_file(exported / name, exported)
    asset = entry.load()
    assert asset.extent == pytest.approx((0.2, 0.3, 0.6), abs=1e-5)
    assert area(asset) == pytest.approx(L_AREA, rel=1e-4)  # a fan over the concave ends would cover more
    assert asset.unit == ("" if name in ("a.obj", "a.ply", "a.stl") else "meters")
    if name in ("a.ply", "a.stl"):
        return
    (material,) = asset.materials
    assert np.abs(shown_colors(asset) - (200, 40, 40)).max() < 1
    assert material.roughness_map is not None
    assert abs(int(asset.images[material.roughness_map.image].mean()) - 77) <= 1
    metal = material.metallic
    if material.metallic_map is not None:
        metal = asset.images[material.metallic_map.image].mean() / 255
    assert metal == pytest.approx(0.25, abs=0.01)
    assert material.normal_map is not None
    assert (asset.images[material.normal_map.image] == (128, 128, 255)).all()
    assert asset.warnings == ()


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_shapes_are_those_of_an_independent_reader(read: Callable[..., Asset], kind: str) -> None:
    scene = trimesh.Scene()
    rng = np.random.default_rng(4)
    for number in range(4):
        part = trimesh.creation.icosphere(subdivisions=1 + number % 2, radius=0.1 + 0.1 * number)
        matrix = trimesh.transformations.random_rotation_matrix(rng.random(3))
        matrix[:3, :3] *= rng.uniform(0.3, 2, 3)
        matrix[:3, 3] = rng.normal(0, 1, 3)
        if number == 2:
            matrix[:3, 0] *= -1  # mirrored
        scene.add_geometry(part, transform=matrix)
    peer = scene.to_geometry()
    data = scene.export(file_type="glb") if kind == "glb" else peer.export(file_type=kind)
    asset = read(f"a.{kind}", data)
    turned = peer.extents[[0, 2, 1]] if kind in ("glb", "obj") else peer.extents
    assert asset.extent == pytest.approx(turned, rel=1e-4)
    assert area(asset) == pytest.approx(peer.area, rel=1e-4)
    assert len(asset.faces) == len(peer.faces)
    # outside is outside: the volume by the triangles' order is the peer's
    volume = trimesh.Trimesh(asset.positions, asset.faces, process=False).volume
    assert volume == pytest.approx(peer.volume, rel=1e-3)


def test_an_asset_is_stored_and_read_without_change(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    file.material({"baseColorTexture": {"index": file.texture(png(np.arange(48).reshape(4, 4, 3)))}})
    asset = read("a.glb", file.glb())
    data = encode_asset(asset)
    assert encode_asset(decode_asset(data)) == data
    with pytest.raises(InputError, match="not an imported asset"):
        decode_asset(data[:-100])


def test_what_was_imported_once_comes_from_the_cache_until_what_it_needs_changes(tmp_path: Path) -> None:
    importer = AssetImporter(tmp_path / "cache")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    (folder / "a.mtl").write_text("newmtl m\nKd 1 0 0\n")
    first = importer.import_file(folder / "a.obj", folder)
    importer.close()
    again = importer.import_file(folder / "a.obj", folder)
    assert importer._worker is None  # no child was needed
    assert (again.path, again.sha256) == (first.path, first.sha256)
    (folder / "a.mtl").write_text("newmtl m\nKd 0 1 0\n")
    changed = importer.import_file(folder / "a.obj", folder)
    importer.close()
    assert changed.path != first.path
    assert changed.load().materials[0].color == (0.0, 1.0, 0.0)


# ---- glTF -----------------------------------------------------------------------------------------------------------

RED, BLUE = (200, 20, 20), (20, 20, 200)


def halves() -> bytes:
    """A texture that is red on its left half and blue on its right."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = RED, BLUE
    return png(pixels)


def test_texture_transforms_and_second_coordinates_are_applied(read: Callable[..., Asset]) -> None:
    for transform in ({"scale": [0.25, 1]}, {"offset": [0.5, 0], "scale": [0.25, 1]}, {"texCoord": 1}):
        file = GltfFile()
        file.attributes["TEXCOORD_1"] = file.array(np.full((24, 2), (0.75, 0.5), "<f4"), "VEC2")
        file.extension("KHR_texture_transform")
        reference = {"index": file.texture(halves()), "extensions": {"KHR_texture_transform": transform}}
        file.material({"baseColorTexture": reference})
        wanted = RED if transform == {"scale": [0.25, 1]} else BLUE
        assert np.abs(shown_colors(read("a.glb", file.glb())) - wanted).max() < 3, transform


@pytest.mark.parametrize(
    ("wraps", "wanted"),
    [
        ((10497, 10497), RED),
        ((33071, 33071), BLUE),
        ((33648, 33648), BLUE),
        ((33648, 10497), BLUE),
        ((10497, 33071), RED),
    ],
)
def test_textures_wrap_as_their_samplers_say(
    read: Callable[..., Asset], wraps: tuple[int, int], wanted: tuple[int, ...]
) -> None:
    """At u = 1.1 to 1.4 repeating shows the left half, clamping the right edge, mirroring the right half."""
    file = GltfFile()
    uv = np.tile(np.array([[1.1, 0.2], [1.4, 0.2], [1.4, 0.8], [1.1, 0.8]], "<f4"), (6, 1))
    file.attributes["TEXCOORD_0"] = file.array(uv, "VEC2")
    number = file.texture(halves(), sampler={"wrapS": wraps[0], "wrapT": wraps[1]})
    file.material({"baseColorTexture": {"index": number}})
    assert np.abs(shown_colors(read("a.glb", file.glb())) - wanted).max() < 3


def test_base_color_is_factor_times_texture_times_vertex_color_in_linear_light(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    file.attributes["COLOR_0"] = file.array(np.full((24, 4), (0.5, 1, 0.25, 1), "<f4"), "VEC4")
    number = file.texture(png(np.full((4, 4, 3), (200, 100, 240))))
    file.material({"baseColorTexture": {"index": number}, "baseColorFactor": [1, 0.5, 1, 1]})
    texture = np.array((200, 100, 240)) / 255
    linear = ((texture + 0.055) / 1.055) ** 2.4 * (0.5, 0.5, 0.25)
    wanted = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(shown_colors(read("a.glb", file.glb())) - wanted).max() < 2


def test_roughness_metal_and_emission_keep_their_factors(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    number = file.texture(png(np.full((4, 4, 3), (0, 200, 100))))
    file.extension("KHR_materials_emissive_strength")
    file.material(
        {"metallicRoughnessTexture": {"index": number}, "metallicFactor": 0.5, "roughnessFactor": 0.8},
        emissiveFactor=[1, 0.5, 0], emissiveTexture={"index": file.texture(halves())},
        extensions={"KHR_materials_emissive_strength": {"emissiveStrength": 3}},
    )  # fmt: skip
    asset = read("a.glb", file.glb())
    (material,) = asset.materials
    assert material.roughness_map is not None
    assert material.metallic_map is not None
    assert material.emission_map is not None
    assert asset.images[material.roughness_map.image].mean() == pytest.approx(160, abs=1)
    assert asset.images[material.metallic_map.image].mean() == pytest.approx(50, abs=1)
    assert material.emission == pytest.approx((3, 1.5, 0))
    assert (asset.images[material.emission_map.image][0, 0] == RED).all()


def palette_image(hidden: bool) -> bytes:
    image = Image.new("P", (4, 4))
    image.putpalette([*RED, 0, 0, 0])
    image.putdata([0, 0, 1, 1] * 4)
    return png(image, transparency=1) if hidden else png(image)


def keyed_image() -> bytes:
    pixels = np.full((4, 4, 3), RED, np.uint8)
    pixels[:, 2:] = 0
    return png(pixels, transparency=(0, 0, 0))


def alpha_image() -> bytes:
    pixels = np.full((4, 4, 4), (*RED, 255), np.uint8)
    pixels[:, 2:] = 0
    return png(pixels)


@pytest.mark.parametrize("make", [lambda: palette_image(True), keyed_image, alpha_image])
@pytest.mark.parametrize("mode", ["MASK", "BLEND", "OPAQUE"])
def test_alpha_of_every_kind_of_png_cuts_out_where_the_mode_says_so(
    read: Callable[..., Asset], make: Callable[[], bytes], mode: str
) -> None:
    file = GltfFile()
    file.material({"baseColorTexture": {"index": file.texture(make())}}, alphaMode=mode)
    asset = read("a.glb", file.glb())
    (material,) = asset.materials
    if mode == "OPAQUE":
        assert material.cutout_map is None
        return
    assert material.cutout_map is not None
    cut = asset.images[material.cutout_map.image] < 128
    assert (cut == [False, False, True, True]).all()
    assert material.color_map is not None
    assert (asset.images[material.color_map.image] == RED).all()  # what is hidden shows at no edge


def test_the_cutoff_of_a_mask_is_the_files(read: Callable[..., Asset]) -> None:
    pixels = np.full((1, 4, 4), 255, np.uint8)
    pixels[0, :, 3] = (60, 90, 180, 220)
    for cutoff, hidden in ((0.2, 0), (0.3, 1), (0.5, 2), (0.8, 3)):
        file = GltfFile()
        file.material({"baseColorTexture": {"index": file.texture(png(pixels))}}, alphaMode="MASK", alphaCutoff=cutoff)
        asset = read("a.glb", file.glb())
        use = asset.materials[0].cutout_map
        assert (0 if use is None else int((asset.images[use.image] < 128).sum())) == hidden


def test_webp_textures_and_sixteen_bits_are_read(read: Callable[..., Asset]) -> None:
    webp = png(Image.new("RGB", (8, 8), RED), format="WEBP", lossless=True)
    file = GltfFile()
    number = file.texture(webp, "image/webp")
    file.tree["textures"][number] = {"extensions": {"EXT_texture_webp": {"source": 0}}}
    file.extension("EXT_texture_webp", required=True)
    file.material({"baseColorTexture": {"index": number}})
    assert np.abs(shown_colors(read("a.glb", file.glb())) - RED).max() < 1
    file = GltfFile()
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    file.material({"baseColorTexture": {"index": file.texture(png(deep))}})
    assert np.abs(shown_colors(read("b.glb", file.glb())) - 128).max() < 2


def test_nodes_keep_flat_tiny_and_mirrored_scales(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    file.tree["nodes"] = [{"children": [1, 2, 3]}, {"mesh": 0}, {"mesh": 0, "scale": [4, 0, 4]},
                          {"mesh": 0, "scale": [-1, 1, 1], "translation": [0.5, 0, 0]}]  # fmt: skip
    asset = read("a.glb", file.glb())
    assert asset.extent == pytest.approx((1.0, 0.8, 0.4), abs=1e-5)
    mesh = trimesh.Trimesh(asset.positions, asset.faces, process=False)
    assert mesh.volume == pytest.approx(2 * 0.2 * 0.4 * 0.2, rel=1e-4)
    file.tree["nodes"] = [{"mesh": 0, "scale": [1e-6, 1e-6, 1e-6]}]
    assert read("b.glb", file.glb()).extent == pytest.approx((2e-7, 2e-7, 4e-7), rel=1e-3)


def test_the_default_pose_is_drawn_morphs_skins_scenes_and_animations(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    grown = np.zeros((24, 3), "<f4")
    grown[:, 1] = 2 * file.points[:, 1]
    file.primitive["targets"] = [{"POSITION": file.array(grown, "VEC3")}]
    file.tree["meshes"][0]["weights"] = [0.5]
    assert read("morph.glb", file.glb()).extent == pytest.approx((0.2, 0.2, 0.8), abs=1e-5)
    file = GltfFile()
    file.tree["scenes"] = [{"nodes": [0]}, {"nodes": [1]}]
    file.tree["nodes"] = [{"mesh": 0, "scale": [5, 5, 5]}, {"mesh": 0}]
    file.tree["scene"] = 1
    assert read("scenes.glb", file.glb()).extent == pytest.approx((0.2, 0.2, 0.4), abs=1e-5)
    file = GltfFile()
    times, moves = (file.array(values, kind) for values, kind in (
        (np.array([0, 1], "<f4"), "SCALAR"), (np.array([[3, 3, 3], [9, 9, 9]], "<f4"), "VEC3")))  # fmt: skip
    file.tree["animations"] = [{
        "samplers": [{"input": times, "output": moves}],
        "channels": [{"sampler": 0, "target": {"node": 0, "path": "scale"}}],
    }]  # fmt: skip
    assert read("moving.glb", file.glb()).extent == pytest.approx((0.2, 0.2, 0.4), abs=1e-5)
    file = GltfFile()
    file.attributes["JOINTS_0"] = file.array(np.zeros((24, 4), np.uint8), "VEC4", 5121)
    file.attributes["WEIGHTS_0"] = file.array(np.tile(np.array([1, 0, 0, 0], "<f4"), (24, 1)), "VEC4")
    file.tree["skins"] = [
        {"joints": [1], "inverseBindMatrices": file.array(np.eye(4, dtype="<f4").reshape(1, 16), "MAT4")}
    ]
    file.tree["nodes"] = [{"mesh": 0, "skin": 0}, {"translation": [0, 1, 0]}]
    file.tree["scenes"] = [{"nodes": [0, 1]}]
    asset = read("skin.glb", file.glb())
    assert asset.extent == pytest.approx((0.2, 0.2, 0.4), abs=1e-5)
    assert asset.positions[:, 2].mean() == pytest.approx(1.0, abs=1e-4)


def test_instances_of_an_extension_are_drawn(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    places = file.array(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], "<f4"), "VEC3")
    file.tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": places}}}
    file.extension("EXT_mesh_gpu_instancing")
    asset = read("a.glb", file.glb())
    assert asset.extent == pytest.approx((2.2, 0.2, 0.4), abs=1e-5)
    assert len(asset.faces) == 36


def test_diffuse_of_specular_glossiness_is_the_base_color(read: Callable[..., Asset]) -> None:
    file = GltfFile()
    number = file.texture(halves())
    values = {"diffuseTexture": {"index": number}, "glossinessFactor": 0.25, "specularFactor": [0, 0, 0]}
    file.material(None, extensions={"KHR_materials_pbrSpecularGlossiness": values})
    file.extension("KHR_materials_pbrSpecularGlossiness")
    file.attributes["TEXCOORD_0"] = file.array(np.full((24, 2), (0.2, 0.5), "<f4"), "VEC2")
    asset = read("a.glb", file.glb())
    assert np.abs(shown_colors(asset) - RED).max() < 2
    assert asset.materials[0].roughness == pytest.approx(0.75, abs=0.01)
    assert any("KHR_materials_pbrSpecularGlossiness" in line for line in asset.warnings)


# ---- OBJ and PLY ----------------------------------------------------------------------------------------------------

QUAD = "v 0 0 0\nv .1 0 0\nv .1 .1 0\nv 0 .1 0\n"


@pytest.mark.parametrize(
    ("obj", "mtl", "color"),
    [
        ("mtllib a.mtl\n" + QUAD + "usemtl m\nf 1 2 3 4\n", "newmtl m\nKd .5 0 1\n", (127.5, 0, 255)),
        ("mtllib a.mtl\n" + QUAD + "usemtl a b\nf 1 2 3 4\n", "newmtl a b\n\tkd 1 0 0\n", (255, 0, 0)),
        ("mtllib none.mtl a.mtl\n" + QUAD + "usemtl m\nf 1 2 3 4\n", "newmtl m\nKd 0 1 0\n", (0, 255, 0)),
        ("mtllib b.mtl\nmtllib a.mtl\n" + QUAD + "usemtl m\nf 1 2 3 4\n", "newmtl m\nKd 0 1 0\n", (0, 255, 0)),
        ("\ufeffmtllib a.mtl\r\n" + QUAD + "usemtl m\nf 1 2 \\\r\n3 4\r\n", "newmtl m\r\nKd 0 1 0\r\n", (0, 255, 0)),
        (QUAD + "f 1 2 3 4\n", "", (204, 204, 204)),
        (QUAD.replace(" 0\n", " 0 1 .5 0\n") + "f 1 2 3 4 # all\n", "", (255, 127.5, 0)),
        (QUAD + "vt 0 0\nvt 1 0\nf -4/-2 -3/-1 -2/-1 -1/-2\n", "", (204, 204, 204)),
    ],
)
def test_obj_and_mtl_are_read_as_exporters_write_them(
    read: Callable[..., Asset], obj: str, mtl: str, color: tuple[float, ...]
) -> None:
    asset = read("a.obj", obj, a__mtl=mtl, b__mtl="newmtl other\nKd 1 1 1\n", none__mtl="# empty\n")
    assert asset.extent == pytest.approx((0.1, 0, 0.1), abs=1e-6)
    assert len(asset.faces) == 2
    assert np.abs(shown_colors(asset) - color).max() < 1


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd red.png",
        "MAP_KD red.png",
        "map_kd -s 2 2 1 red.png",
        "map_Kd -blendu on -o 0 0 red.png",
        "map_Kd .\\red.png",
    ],
)
def test_textures_of_mtl_files_are_found_in_any_notation(read: Callable[..., Asset], line: str) -> None:
    obj = "mtllib a.mtl\n" + QUAD + "vt 0 0\nvt 1 0\nvt 1 1\nusemtl m\nf 1/1 2/2 3/3\n"
    asset = read("a.obj", obj, a__mtl=f"newmtl m\nKd 1 1 1\n{line}\n", red__png=png(np.full((4, 4, 3), RED)))
    assert np.abs(shown_colors(asset) - RED).max() < 1
    assert set(asset.files) == {"a.obj", "a.mtl", "red.png"}


def test_concave_polygons_are_not_filled(read: Callable[..., Asset]) -> None:
    points = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nv 0 2 0\n"
    assert area(read("a.obj", points + "f 4 5 6 1 2 3\n")) == pytest.approx(3)
    rows = points.replace("v ", "")
    header = (
        "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    assert area(read("a.ply", header + rows + "6 3 4 5 0 1 2\n")) == pytest.approx(3)


def test_vertex_colors_of_a_ply_are_read(read: Callable[..., Asset]) -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    ball.visual.vertex_colors = np.tile(np.array([[200, 30, 60, 255]], np.uint8), (len(ball.vertices), 1))
    for encoding in ("binary_little_endian", "ascii"):
        asset = read(f"{encoding}.ply", ball.export(file_type="ply", encoding=encoding.partition("_")[0]))
        assert np.abs(shown_colors(asset) - (200, 30, 60)).max() < 1


# ---- what is refused ------------------------------------------------------------------------------------------------


def broken(change: Callable[[GltfFile], Any]) -> bytes:
    file = GltfFile()
    change(file)
    return file.glb()


def with_texture(source: dict[str, Any], data: bytes = b"") -> bytes:
    file = GltfFile()
    number = file.texture(data or halves())
    file.tree["textures"][number] = source
    file.material({"baseColorTexture": {"index": number}})
    return file.glb()


def colored_faces() -> bytes:
    box = trimesh.creation.box()
    data: bytes = trimesh.Trimesh(box.vertices, box.faces, face_colors=[255, 0, 0, 255]).export(file_type="ply")
    return data


GOOD = GltfFile().glb()
REFUSED: dict[str, tuple[bytes, str]] = {
    "cut.glb": (GOOD[:-40], "cut off"),
    "short.glb": (broken(lambda f: f.tree["bufferViews"][0].update(byteLength=10**6)), "readable|buffer|cut"),
    "count.glb": (broken(lambda f: f.tree["accessors"][0].update(count=4_000_000_000)), "an accessor of 4000000000"),
    "nan.glb": (
        broken(lambda f: f.attributes.update(POSITION=f.array(np.full((24, 3), np.nan, "<f4"), "VEC3"))),
        "finite",
    ),
    "future.glb": (broken(lambda f: f.extension("EXT_future", required=True)), "EXT_future"),
    "meshopt.glb": (
        broken(lambda f: f.tree["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}})),
        "EXT_meshopt_compression",
    ),
    "ktx.glb": (with_texture({"extensions": {"KHR_texture_basisu": {"source": 0}}}), "KHR_texture_basisu"),
    "ktx_inside.glb": (with_texture({"source": 0}, b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(64)), "KTX is not read"),
    "noimage.glb": (with_texture({}), "texture 0 has its image nowhere"),
    "badimage.glb": (with_texture({"source": 0}, b"no image at all, really"), "not an image of a known format"),
    "escape.gltf": (
        json.dumps({**GltfFile().tree, "buffers": [{"uri": "../../../etc/passwd", "byteLength": 36}]}).encode(),
        "outside of its folder",
    ),
    "missing.gltf": (
        json.dumps({**GltfFile().tree, "buffers": [{"uri": "gone.bin", "byteLength": 36}]}).encode(),
        "gone.bin, which is not there",
    ),
    "loop.glb": (broken(lambda f: f.tree.update(nodes=[{"children": [0]}])), "."),
    "words.glb": (b"glTF" + b"\2\0\0\0" + b"\x40\0\0\0" + b"nonsense" * 8, "not JSON|readable"),
    "old.glb": (b"glTF" + struct.pack("<II", 1, 20) + bytes(20), "version 1"),
    "empty.glb": (broken(lambda f: f.tree.update(nodes=[{}])), "no triangles"),
    "zip.glb": (b"PK\3\4" + b"\0" * 64, "zip archives are not read"),
    "no.ply": (b"ply\nformat ascii 1.0\n", "no header"),
    "huge.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nelement face 99999999999\nend_header\n",
        "announces 99999999999",
    ),
    "points.ply": (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "no triangles"),
    "faces.ply": (colored_faces(), "colors of its faces"),
    "cut.stl": (trimesh.creation.box().export(file_type="stl")[:-60], "cut off"),
    "out.obj": (b"mtllib ../../secret.mtl\n" + QUAD.encode() + b"f 1 2 3\n", "outside of its folder"),
    "mtl.obj": (b"mtllib gone.mtl\n" + QUAD.encode() + b"f 1 2 3\n", "gone.mtl, which is not there"),
    "index.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999\n", "damaged: |no triangles"),
    "nothing.obj": (QUAD.encode(), "no triangles"),
    "far.obj": (b"v 900000 0 0\nv 900000.1 0 0\nv 900000 .1 0\nf 1 2 3\n", "away from the origin"),
    "text.fbx": (b"; FBX 7.4.0 project file\n", "FBX text files"),
    "old.fbx": (b"Kaydara", "no FBX file"),
    "a.blend": (b"BLENDER-v405", "Blender files"),
    "a.dae": (b"<?xml version='1.0'?><COLLADA/>", r"\.dae is not read"),
    "cut.usdc": (b"PXR-USDC" + bytes(40), "."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line_that_names_it(
    read: Callable[..., Asset], name: str, tmp_path: Path
) -> None:
    data, reason = REFUSED[name]
    if name == "far.obj":
        data, reason = b"v 900000 0 0\nv 900000.1 0 0\nv 900000 .1 0\nf 1 2 3\n", "away from the origin"
    with pytest.raises(InputError, match=reason) as caught:
        read(name, data)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert "0x" not in message
    assert "Traceback" not in message


def test_unknown_extensions_that_are_not_required_are_told(read: Callable[..., Asset]) -> None:
    asset = read("a.glb", broken(lambda f: f.extension("EXT_glitter")))
    assert asset.warnings == ("EXT_glitter is not drawn",)


def test_what_its_content_is_not_its_name_decides(read: Callable[..., Asset]) -> None:
    assert len(read("a.obj", GOOD).faces) == 12
    assert len(read("b.ply", trimesh.creation.box().export(file_type="stl_ascii")).faces) == 12


@pytest.mark.slow
def test_no_damaged_byte_of_a_header_stops_the_importer(importer: AssetImporter, tmp_path: Path) -> None:
    tree = GltfFile()
    tree.material({"baseColorTexture": {"index": tree.texture(halves())}})
    good = bytearray(tree.glb())
    rng = np.random.default_rng(0)
    for number in range(150):
        data = bytearray(good)
        for at in rng.integers(0, min(len(data), 1600), 3):
            data[at] = rng.integers(256)
        path = tmp_path / f"{number}.glb"
        path.write_bytes(data)
        try:
            asset = importer.import_file(path, tmp_path).load()
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        assert np.isfinite(asset.positions).all()


def test_glb_builder_is_readable_by_the_independent_reader() -> None:
    peer = trimesh.load(trimesh.util.wrap_as_stream(GOOD), file_type="glb", force="mesh")
    assert peer.extents == pytest.approx((0.2, 0.4, 0.2))
    assert pack_glb({"asset": {}})[:4] == b"glTF"
