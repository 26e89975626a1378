"""Models and maps of installed packages: found, licensed, read safely."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from cavendish.encoders.sample import InputError
from cavendish.render.assets import catalogue as assets
from cavendish.render.assets.catalogue import LICENCES, MAPS, catalogue, load_map, load_model, map_path, roles
from cavendish.render.geometry.models import model_mesh
from cavendish.render.geometry.triangles import crease_normals, triangle_areas


def test_models_have_the_area_and_the_colors_that_trimesh_finds(tmp_path: Path) -> None:
    name = "Scopia/simple_sofa"
    model = load_model(name)
    with zipfile.ZipFile(assets.FURNITURE / "Scopia.sh3f") as archive:
        (tmp_path / "a.obj").write_bytes(archive.read(model.info.member))
    peer = trimesh.load(tmp_path / "a.obj", force="mesh", process=False, skip_materials=True)
    asset = model.asset
    positions = asset.positions.astype(np.float64)
    assert triangle_areas(positions, asset.faces).sum() == pytest.approx(peer.area, rel=1e-6)
    mesh, surfaces = model_mesh(name)
    assert len(mesh.faces) <= len(peer.faces)
    assert len(surfaces) == mesh.slot_of.max() + 1
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx(model.info.size_m, abs=1e-6)


def test_every_curated_model_is_in_the_catalogue_with_a_licence_and_an_author() -> None:
    for models in roles().values():
        for name, noun in models.items():
            info = catalogue()[name]
            assert info.noun == noun
            assert info.author
            assert info.licence == LICENCES[name.partition("/")[0]]
            assert all(0.001 < side < 30 for side in info.size_m), name


def test_a_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "FURNITURE", tmp_path)
    assets._archive.cache_clear()
    assets.catalogue.cache_clear()
    try:
        with pytest.raises(InputError, match="apt-get install sweethome3d-furniture"):
            catalogue()
    finally:
        assets._archive.cache_clear()
        assets.catalogue.cache_clear()


def test_a_member_that_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "Scopia.sh3f", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("PluginFurnitureCatalog.properties", b"0" * (assets.MAX_MEMBER_BYTES + 1))
    monkeypatch.setattr(assets, "FURNITURE", tmp_path)
    assets._archive.cache_clear()
    try:
        with pytest.raises(InputError, match="over the limit"):
            assets._read_member("Scopia", "PluginFurnitureCatalog.properties")
    finally:
        assets._archive.cache_clear()


def test_environment_maps_come_from_the_bpy_wheel_without_importing_it() -> None:
    import sys

    for name in MAPS:
        assert map_path(name).name == f"{name}.exr"
    pixels = load_map("courtyard")
    assert pixels.shape == (512, 1024, 3)
    assert np.isfinite(pixels).all()
    assert pixels.max() > 5  # high dynamic range
    assert "bpy" not in sys.modules


def test_smoothing_keeps_edges_and_rounds_curves() -> None:
    box = trimesh.creation.box()
    normals = crease_normals(box.vertices[box.faces], box.faces, np.cos(np.radians(40)))
    assert np.abs(normals - box.face_normals[:, None]).max() < 1e-9  # 90 degrees stay sharp
    ball = trimesh.creation.icosphere(subdivisions=3)
    normals = crease_normals(ball.vertices[ball.faces], ball.faces, np.cos(np.radians(40)))
    exact = ball.vertices[ball.faces] / np.linalg.norm(ball.vertices[ball.faces], axis=-1, keepdims=True)
    assert np.degrees(np.arccos(np.clip((normals * exact).sum(-1), -1, 1))).max() < 1.0
