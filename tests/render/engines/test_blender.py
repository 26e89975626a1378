"""Cycles' own passes on real meshes against the ray cast's labels; the renderer in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


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
