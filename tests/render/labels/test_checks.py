"""What counts as agreement between an engine and the ray cast, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from cavendish.render.labels.checks import (
    ViewRejected,
    away_from_edges,
    compare_exactly,
    compare_passes,
    compare_raster,
)
from cavendish.render.labels.passes import Truth, cast_scene
from cavendish.render.scenes.recipe import look_at
from tests.render.labels.test_passes import quad

CAMERA = look_at((0.3, -4.0, 1.7), (0.0, 0.0, 0.6), 60, 96, 64)


def answers() -> tuple[Truth, dict[str, Any]]:
    """Return the ray cast of two quads, and an engine's answers that are equal to it."""
    scene = [quad((0, 0, 0), (40, 0, 0), (0, 40, 0), 1), quad((0, 0, 0.6), (0.5, 0, 0), (0, 0, 0.5), 2)]
    truth = cast_scene(scene, CAMERA)
    return truth, {
        "depth_m": np.where(np.isfinite(truth.depth_m), truth.depth_m, 1e10).astype(np.float32),
        "indices": truth.instance_ids.astype(np.int64),
        "normals": truth.geometric_normals.astype(np.float32),
    }


def test_equal_answers_agree() -> None:
    truth, found = answers()
    assert compare_exactly(**found, truth=truth)["check_depth_error"] < 1e-6
    del found["normals"]
    assert compare_passes(**found, truth=truth)["cycles_id_mismatch"] == 0
    assert compare_raster(**found, truth=truth)["pyrender_id_mismatch"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth_m": lambda depth: depth * np.float32(1.0002)},
        {"depth_m": lambda depth: np.where(np.arange(64)[:, None] > 50, depth * np.float32(1.01), depth)},
        {"indices": lambda ids: np.where((np.arange(64) > 60)[:, None], 7, ids)},
        {"indices": lambda ids: np.roll(ids, 3, axis=1)},
    ],
)
def test_another_depth_or_id_rejects_a_view(wrong: Mapping[str, Any]) -> None:
    truth, found = answers()
    found |= {name: change(found[name]) for name, change in wrong.items()}
    with pytest.raises(ViewRejected, match="cross check failed"):
        compare_exactly(**found, truth=truth)
    del found["normals"]
    with pytest.raises(ViewRejected, match="Cycles and the ray cast differ"):
        compare_passes(**found, truth=truth)
    with pytest.raises(ViewRejected, match="pyrender and the ray cast differ"):
        compare_raster(**found, truth=truth)


@pytest.mark.parametrize("wrong", [np.negative, np.zeros_like, lambda n: n[..., [1, 0, 2]], lambda n: n * 0.5])
def test_other_normals_fail_the_cross_check(wrong: Any) -> None:
    truth, found = answers()
    with pytest.raises(ViewRejected, match="normals by"):
        compare_exactly(**{**found, "normals": wrong(found["normals"])}, truth=truth)


def test_one_wrong_pixel_away_from_edges_fails_the_cross_check_and_one_at_an_edge_does_not() -> None:
    truth, found = answers()
    row, column = np.argwhere(truth.instance_ids == 2)[0]  # the quad's upper left corner
    at_edge = found["indices"].copy()
    at_edge[row, column] = truth.instance_ids[row - 1, column]
    assert compare_exactly(**{**found, "indices": at_edge}, truth=truth)["check_id_mismatch"] > 0
    away = found["indices"].copy()
    away[60, 48] = 9
    assert away_from_edges(truth.instance_ids, away).sum() == 1
    with pytest.raises(ViewRejected, match="1 pixels away from edges"):
        compare_exactly(**{**found, "indices": away}, truth=truth)
