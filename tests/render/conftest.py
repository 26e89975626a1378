"""A folder of a user's own meshes and maps, some of them damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Write three good meshes, a good map, and two files that cannot be read."""
    root = tmp_path / "mine"
    for name in ("chair", "mug", "toy", "skies"):
        (root / name).mkdir(parents=True)
    (root / "chair/seat.glb").write_bytes(trimesh.creation.box((0.5, 0.9, 0.5)).export(file_type="glb"))
    ball = trimesh.creation.icosphere(subdivisions=2, radius=40)
    ball.visual.vertex_colors = np.tile(np.array([[200, 30, 60, 255]], np.uint8), (len(ball.vertices), 1))
    (root / "mug/ball.ply").write_bytes(ball.export(file_type="ply"))
    (root / "toy/cone.obj").write_text(trimesh.creation.cone(0.1, 0.2).export(file_type="obj"))
    rows = np.linspace(0.1, 3, 64)[:, None, None] * np.ones((64, 128, 3))
    (root / "skies/dawn.hdr").write_bytes(cv2.imencode(".hdr", rows.astype(np.float32))[1].tobytes())
    (root / "chair/cut.glb").write_bytes((root / "chair/seat.glb").read_bytes()[:-40])
    (root / "toy/old.fbx").write_bytes(b"Kaydara")
    (root / "assets.yaml").write_text("licence: CC-BY-4.0\nauthor: Ada\n")
    return root
