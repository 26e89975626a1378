"""A user's own meshes and maps: read like other libraries read them, at a sensible size, and never trusted."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from cavendish.encoders.sample import InputError
from cavendish.render.assets import catalogue as assets
from cavendish.render.assets.catalogue import licences_of, load_map, load_model, model_info
from cavendish.render.assets.environments import OWN_MAP_RADIANCE
from cavendish.render.assets.folders import categories, find_files, fingerprint, open_folders, role_of
from cavendish.render.geometry import models
from cavendish.render.geometry.meshes import place
from cavendish.render.geometry.models import model_mesh
from cavendish.render.scenes.recipe import Recipe, Sky, Thing, look_at
from cavendish.render.scenes.scenes import add_own, use_own_map

LICENCE = "licence: CC-BY-4.0\nauthor: Ada\n"


def checks(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def textured_box(size: tuple[float, float, float]) -> trimesh.Trimesh:
    box = trimesh.creation.box(size)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=checks(1), metallicFactor=0.25, roughnessFactor=0.4)
    uv = np.random.default_rng(0).random((len(box.vertices), 2))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return box


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with one file of each format, and open it."""
    root = tmp_path / "mine"
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(0.7, (0, 1, 0), (0, 0, 0))
    turn[:3, 3] = 0.1, 0.5, 0
    scene.add_geometry(textured_box((0.5, 0.9, 0.4)), transform=turn)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.2)
    scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix((0, 1.1, 0)))
    write(root, "chairs/one.glb", scene.export(file_type="glb"))
    write(root, "mug/red.obj", "mtllib red.mtl\nv 0 0 0\nv 80 0 0\nv 80 95 0\nv 0 95 40\nvt 0 0\nvt 1 0\nvt 1 1\n"
                               "usemtl m\nf 1/1 2/2 3/3\nf 1/1 3/3 4/2\n")  # fmt: skip
    write(root, "mug/red.mtl", "newmtl m\nKd 0.8 0.1 0.1\nPr 0.3\nPm 0.5\nmap_Kd red.png\n")
    buffer = io.BytesIO()
    checks(2).save(buffer, "PNG")
    write(root, "mug/red.png", buffer.getvalue())
    ball.visual.vertex_colors = np.tile(np.array([[200, 30, 60, 255]], np.uint8), (len(ball.vertices), 1))
    write(root, "vase/ball.ply", ball.export(file_type="ply"))
    rows = np.linspace(0.1, 3, 64)[:, None, None] * np.ones((64, 128, 3))
    rows[..., 0] *= 2
    write(root, "skies/dawn.hdr", cv2.imencode(".hdr", rows[..., ::-1].astype(np.float32))[1].tobytes())
    write(root, "assets.yaml", LICENCE + "files:\n  vase/ball.ply: {author: Grace, licence: CC0-1.0, height_m: 0.3}\n")
    open_folders([root])
    for cached in (load_model, load_map, assets.map_sha256, assets._own_info):
        cached.cache_clear()
    models._models.clear()
    return root


def test_a_glb_has_the_shape_trimesh_finds_and_keeps_its_metres(folder: Path) -> None:
    name = "own/mine/chairs/one.glb"
    peer = trimesh.load(folder / "chairs/one.glb", force="mesh")
    mesh, surfaces = model_mesh(name)
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx(peer.extents[[0, 2, 1]], abs=1e-6)
    assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-9)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).area == pytest.approx(peer.area, rel=1e-6)
    # glTF looks along +z with y up, things look along -y with z up: x stays, and what is at +z comes to -y
    middle = (peer.bounds[0] + peer.bounds[1]) / 2
    peer_points = (peer.vertices - [middle[0], peer.bounds[0, 1], middle[2]])[:, [0, 2, 1]] * [1, -1, 1]
    distance, _ = trimesh.proximity.ProximityQuery(trimesh.Trimesh(mesh.vertices, mesh.faces)).vertex(peer_points)
    assert distance.max() < 1e-5
    box, _ = surfaces
    assert box.texture is not None
    assert (box.texture.pixels == np.asarray(checks(1))).all()
    assert (box.roughness, box.metallic) == pytest.approx((0.4, 0.25), abs=0.01)
    info = model_info(name)
    assert (info.noun, info.scale_from, info.author) == ("chair", "metres", "Ada")


def test_an_obj_in_millimetres_is_noticed_and_its_texture_is_read(folder: Path) -> None:
    mesh, (surface,) = model_mesh("own/mine/mug/red.obj")
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx([0.08, 0.04, 0.095])
    assert model_info("own/mine/mug/red.obj").scale_from == "millimetres"
    assert surface.texture is not None
    assert (surface.texture.pixels == np.asarray(checks(2))).all()
    assert (surface.roughness, surface.metallic) == pytest.approx((0.3, 0.5))


def test_a_ply_has_its_vertex_colours_and_the_height_it_was_given(folder: Path) -> None:
    mesh, (surface,) = model_mesh("own/mine/vase/ball.ply")
    assert np.ptp(mesh.vertices[:, 2]) == pytest.approx(0.3)
    assert surface.corner_colors
    assert mesh.colors is not None
    assert (mesh.colors == [200, 30, 60]).all()


def test_a_map_is_resized_set_to_a_common_brightness_and_keeps_its_colours(folder: Path) -> None:
    pixels = load_map("own/mine/skies/dawn.hdr")
    assert pixels.shape == (512, 1024, 3)
    around = np.cos(((np.arange(512) + 0.5) / 512 - 0.5) * np.pi)[:, None, None] * np.ones_like(pixels)
    assert np.average(pixels, weights=around) == pytest.approx(OWN_MAP_RADIANCE, rel=1e-3)
    assert pixels[-1, 0, 0] / pixels[-1, 0, 1] == pytest.approx(2, rel=0.02)
    assert pixels[-1].mean() > 5 * pixels[0].mean()


def test_samples_name_licence_author_and_hash_of_own_files(folder: Path) -> None:
    names = ("own/mine/chairs/one.glb", "own/mine/vase/ball.ply")
    things = tuple(Thing(1, "x", "model", (0, 0, 0), (1, 1, 1), model=name) for name in names)
    camera = look_at((0, -1, 1), (0, 0, 0), 60, 32, 32)
    recipe = Recipe("room", things, (), Sky("map", 1.0, "own/mine/skies/dawn.hdr"), camera)
    licence, credits = licences_of(recipe)
    assert licence == "CC-BY-4.0"
    assert [credit["author"] for credit in credits] == ["Ada", "Grace", "Ada"]
    assert all(len(credit["sha256"]) == 64 for credit in credits)
    before = fingerprint([folder])
    write(folder, "mug/red.mtl", "newmtl m\nKd 0 0 0\n")
    assert fingerprint([folder]) != before


@pytest.mark.parametrize(
    ("category", "longest", "expected_m"),
    [("chair", 0.95, 0.95), ("chair", 88.0, 0.88), ("chair", 910.0, 0.91), ("car", 4300.0, 4.3), ("mug", 0.12, 0.12)],
)
def test_units_are_those_that_make_a_plausible_thing(category: str, longest: float, expected_m: float) -> None:
    from cavendish.render.assets.folders import OwnFile, scale_of

    file = OwnFile("own/a/b.obj", Path("b.obj"), Path(), category, "", "", None, None, "", 1.0)
    scale, _ = scale_of(file, np.array([longest, longest / 2, longest / 3]))
    assert scale * longest == pytest.approx(expected_m)


def test_a_mesh_of_no_known_unit_gets_its_categorys_length_and_unknown_ones_are_refused() -> None:
    from cavendish.render.assets.folders import OwnFile, scale_of

    file = OwnFile("own/a/b.obj", Path("b.obj"), Path(), "chair", "", "", None, None, "", 1.0)
    scale, origin = scale_of(file, np.array([17.0, 9.0, 3.0]))
    assert scale * 17 == pytest.approx(categories()["chair"][1])
    assert "typical" in origin
    odd = OwnFile("own/a/b.obj", Path("b.obj"), Path(), "gizmo", "", "", None, None, "", 1.0)
    with pytest.raises(InputError, match="how large a 'gizmo' is"):
        scale_of(odd, np.array([1.0, 1.0, 1.0]))
    glb = OwnFile("own/a/b.glb", Path("b.glb"), Path(), "gizmo", "", "", None, None, "", 1.0)
    with pytest.raises(InputError, match="1800 m"):
        scale_of(glb, np.array([1800.0, 1.0, 1.0]), "meters")
    assert [role_of("gizmo", size) for size in ((0.1, 0.1, 0.1), (1, 1, 1), (1, 1, 3))] == [
        "table_item", "floor_item", "street_item",
    ]  # fmt: skip


def test_every_category_has_a_role_that_scenes_draw_from() -> None:
    assert {role for role, _ in categories().values()} <= set(assets.roles())
    assert all(0.01 <= length <= 20 for _, length in categories().values())


def glb_of(tree: dict[str, object], blob: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


ACCESSOR = {"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 3}
TRIANGLE = {
    "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}], "buffers": [{"byteLength": 36}],
    "bufferViews": [{"buffer": 0, "byteLength": 36}],
    "accessors": [ACCESSOR],
}  # fmt: skip
POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
HOSTILE = {
    "bad.hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 200000\n", "no size for an environment map"),
    "square.hdr": (cv2.imencode(".hdr", np.ones((8, 8, 3), np.float32))[1].tobytes(), "equirectangular"),
    "cut.exr": (b"\x76\x2f\x31\x01" + b"\0" * 50, "not an OpenEXR"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_map_that_cannot_be_trusted_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, reason = HOSTILE[name]
    write(tmp_path / "f", f"chair/{name}", data)
    open_folders([tmp_path / "f"])
    load_map.cache_clear()
    with pytest.raises(InputError, match=reason) as caught:
        load_map(f"own/f/chair/{name}")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "secret.glb", glb_of(TRIANGLE, POINTS))
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a.glb").symlink_to(tmp_path / "secret.glb")
    open_folders([tmp_path / "f"])
    with pytest.raises(InputError, match="outside of its folder"):
        load_model("own/f/a.glb")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("files: {gone.glb: {}}", "no 'gone.glb'"),
        ("colour: red", "colour"),
        ("files: {a.glb: {up: x}}", "up"),
        ("[", "not valid YAML"),
    ],
)
def test_a_wrong_assets_yaml_is_one_clear_error(tmp_path: Path, text: str, match: str) -> None:
    write(tmp_path / "f", "a.glb", glb_of(TRIANGLE, POINTS))
    write(tmp_path / "f", "assets.yaml", text)
    with pytest.raises(InputError, match=match):
        find_files((tmp_path / "f",))


def test_no_folder_and_an_empty_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_files((tmp_path / "gone",))
    with pytest.raises(InputError, match=r"no \.glb"):
        find_files((tmp_path,))


def test_own_meshes_get_their_share_of_a_role() -> None:
    palette = {"chair": ("a", "b", "c", "d"), "bed": ("e",)}
    for share in (0.2, 0.5, 0.8, 1.0):
        mixed = add_own(palette, {"own/x": "chair", "own/y": "chair", "own/m": "map"}, share)
        part = np.mean([name.startswith("own/") for name in mixed["chair"]])
        assert part == pytest.approx(share, abs=0.07)
        assert mixed["bed"] == ("e",)


def test_own_maps_replace_daylight_and_no_night() -> None:
    camera = look_at((0, -1, 1), (0, 0, 0), 60, 32, 32)
    day = Recipe("room", (), (), Sky("map", 1.0, "city"), camera)
    night = Recipe("room", (), (), Sky("map", 1.0, "night"), camera)
    own = {"own/x.hdr": "map"}
    assert use_own_map(day, own, 1.0, np.random.default_rng(0)).sky.name == "own/x.hdr"
    assert use_own_map(night, own, 1.0, np.random.default_rng(0)).sky.name == "night"


def test_a_repainted_own_mesh_keeps_its_other_surfaces(folder: Path) -> None:
    thing = Thing(1, "chair", "model", (0, 0, 0), (1, 1, 1), model="own/mine/chairs/one.glb", paint=(1.0, 0.0, 0.0))
    plain, painted = place(Thing(**{**thing.__dict__, "paint": None})), place(thing)
    changed = [a != b for a, b in zip(plain.surfaces, painted.surfaces)]
    assert sum(changed) == 1
