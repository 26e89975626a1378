from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cavendish.mixing.audit.benchmarks.image_pack import build_pack
from cavendish.mixing.audit.config import ControlSettings
from cavendish.mixing.audit.controls import clopper_pearson, scan_clean_controls
from cavendish.mixing.audit.edits import EDITS
from cavendish.mixing.audit.signals.images import CONTROL_EDITS, Thresholds, plant_copies
from tests.mixing.audit.photographs import write_benchmark


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # exact limits as tabulated, e.g. R's binom.test
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487), (18, 20, 0.6830, 0.9877)],
)
def test_clopper_pearson_limits(hits: int, trials: int, low: float, high: float) -> None:
    interval = clopper_pearson(hits, trials)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_controls_plant_every_edit_and_are_the_same_again(tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "images")
    pack = build_pack("photos", folder, tmp_path / "pack", pixels=True)
    first = plant_copies(pack, folder, 18, 0, Thresholds())
    assert Counter(control["edit"] for control in first) == Counter(CONTROL_EDITS)
    assert {control["image"] for control in first} == {image["id"] for image in pack.images}
    assert sum(control["found"] == "leak" for control in first) >= 17
    assert first == plant_copies(pack, folder, 18, 0, Thresholds())
    clean = scan_clean_controls((pack,), ControlSettings(clean=4), Thresholds(), tmp_path)
    assert [control["found"] for control in clean] == [None] * 4


def test_control_edits_are_edits() -> None:
    assert set(CONTROL_EDITS) <= set(EDITS)
