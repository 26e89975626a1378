"""Cycles' own passes on real meshes against the ray cast's labels; the renderer in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.render.assets.gltf_file import GltfFile, png


def write_assets(folder: Path) -> None:
    """Write boxes with every way of coloring, wrapping and cutting out."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 255, (16, 16, 4), np.uint8)
    holes = noise.copy()
    holes[..., 3] = np.where(rng.random((16, 16)) < 0.5, 0, 255)
    uv = np.tile(np.array([[-0.4, 0], [1.7, 0], [1.7, 2.3], [-0.4, 2.3]], "<f4"), (6, 1))
    repeat, clamp, mirror = 10497, 33071, 33648
    for number, (wrap, mode, nearest) in enumerate([
        ((repeat, repeat), "OPAQUE", False), ((clamp, clamp), "OPAQUE", False), ((mirror, mirror), "OPAQUE", False),
        ((mirror, clamp), "OPAQUE", False), ((repeat, repeat), "OPAQUE", True), ((repeat, repeat), "MASK", False),
        ((mirror, repeat), "MASK", False), ((clamp, repeat), "BLEND", False),
    ]):  # fmt: skip
        file = GltfFile()
        file.attributes["TEXCOORD_0"] = file.array(uv, "VEC2")
        if number in (1, 5):
            file.attributes["COLOR_0"] = file.array(rng.random((24, 3), np.float32), "VEC3")
        sampler = {"wrapS": wrap[0], "wrapT": wrap[1], **({"magFilter": 9728, "minFilter": 9728} if nearest else {})}
        image = png((noise if mode == "OPAQUE" else holes)[..., : 3 if mode == "OPAQUE" else 4])
        pbr = {"baseColorTexture": {"index": file.texture(image, sampler=sampler)}, "metallicFactor": 0}
        relief = file.texture(png(np.full((4, 4, 3), (160, 100, 220))))
        file.material(pbr, alphaMode=mode, normalTexture={"index": relief})
        (folder / f"box{number}.glb").write_bytes(file.glb())


@pytest.mark.slow
def test_cycles_agrees_with_the_labels_of_foreign_assets(tmp_path: Path) -> None:
    write_assets(tmp_path / "in")
    command = [sys.executable, "-m", "tests.render.engines.cycles_passes", str(tmp_path / "in"), "0", "160"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(run.stdout)
    assert found["textured"] == 8
    # rays graze the edges of cut-outs: single precision decides there
    assert found["ids_differ"] <= 12
    assert found["depth_error_99"] < 1e-5
    assert found["scores"]["cycles_id_mismatch"] <= 1e-3
    assert found["scores"]["check_depth_error"] < 1e-5
    assert found["scores"]["check_normal_error_deg"] < 0.05
    assert found["albedo_mean"] < 0.5
    assert found["albedo_99"] < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("room", 3), ("outdoor", 4)])
def test_cycles_agrees_with_the_ray_cast_pixel_by_pixel(kind: str, seed: int) -> None:
    command = [sys.executable, "-m", "tests.render.engines.cycles_passes", kind, str(seed), "96"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(run.stdout)
    assert found["textured"] >= 3
    # at the pixels' very centres: the same ids everywhere, depth, triangle normals, base colours
    assert found["ids_differ_away_from_edges"] == 0
    assert found["ids_differ"] <= 2
    assert found["scores"]["check_id_mismatch"] <= 2 / 96**2
    assert found["depth_error_99"] < 1e-5
    assert found["scores"]["check_depth_error"] < 1e-5
    assert found["scores"]["check_normal_error_deg"] < 0.05
    assert found["albedo_mean"] < 0.5  # of 255: rounding alone is 0.25
    assert found["albedo_99"] < 1.0
    # the picture's own passes are compared where there is no lens blur, and the label pass in any case
    assert found["scores"]["cycles_id_mismatch"] <= 1e-3
    assert found["blurred_scores"] == {name: found["scores"][name] for name in found["blurred_scores"]}
    assert "cycles_id_mismatch" not in found["blurred_scores"]
    # a scene that stands is painted the same again, whatever was painted in between
    assert found["repeat"] < 1e-4
    assert found["after_blur"] < 1e-4
    assert found["blur_changes"] > 0.01
