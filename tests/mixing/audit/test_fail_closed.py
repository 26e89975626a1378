"""What an audit must not call clean: nothing read, nothing to look for, thresholds off, too few controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit
from tests.mixing.audit.photographs import BENCHMARK, picture, write_benchmark
from tests.shard_folder import write_shards

BASE: dict[str, Any] = {
    "benchmarks": [{"name": "photos", "folder": "benchmark"}],
    "shards": ["renders"],
    "work": "work",
    "controls": {"copies": 8, "clean": 4},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("closed")
    write_benchmark(data / "benchmark", BENCHMARK[:2])
    write_shards(data / "renders", [picture("r", procedural_picture(np.random.default_rng(1), 96, 128))])
    write_shards(data / "empty", [])
    return data


def run(data: Path, **changes: Any) -> Any:
    return audit(AuditConfig.model_validate({**BASE, **changes}), data / "out", data=data)


def test_it_is_clean_as_it_stands(data: Path) -> None:
    assert run(data).exit_code == 0


def test_shards_without_a_record_are_not_clean(data: Path) -> None:
    verdict = run(data, shards=["renders", "empty"])
    assert verdict.exit_code == 3
    assert "empty: no record was read" in verdict.incomplete


def test_prompts_without_a_text_to_look_for_are_not_clean(data: Path) -> None:
    for text in ("", "\n \n", "depth map\n", "\ufeff\u200b\n"):
        (data / "prompts.txt").write_text(text)
        verdict = run(data, benchmarks=[{**BASE["benchmarks"][0], "prompts": "prompts.txt"}])
        assert verdict.exit_code == 3, text
        assert "benchmark photos: prompts.txt holds no text that can be looked for" in verdict.incomplete
        assert json.loads(verdict.report.read_text())["benchmarks"][0]["verdict"] == "incomplete"


def test_fewer_controls_than_show_anything_are_not_clean(data: Path) -> None:
    weak = run(data, controls={"copies": 1, "clean": 1, "target_recall": 0})
    assert weak.exit_code == 3
    assert "benchmark photos, copies: 1 of 1 planted were found; at least 8 must be planted" in weak.incomplete
    assert any("1 clean controls were scanned" in reason for reason in weak.incomplete)
    assert run(data, controls={"copies": 0, "clean": 4, "target_recall": 0}).exit_code == 3


def test_thresholds_that_find_nothing_are_not_clean_and_flagged(data: Path) -> None:
    off = {"pdq_accept": -1, "pdq_candidate": -1, "pdq_verify": -1, "pdq_inverted": 999, "leak_score": 1e9}
    verdict = run(data, thresholds={**off, "review_score": 1e9}, controls={"copies": 8, "clean": 4, "target_recall": 0})
    assert verdict.exit_code == 3
    assert any("the recall may be as low as 0.00, under 0.6" in reason for reason in verdict.incomplete)
    assert "settings changed: thresholds.pdq_accept -1 (default 31)" in verdict.words
    assert "controls.target_recall 0 (default 0.9)" in verdict.words
    assert "thresholds.leak_score 1e+09 (default 8)" in json.loads(verdict.report.read_text())["changed_settings"]
    assert "leak_score 1e+09 (default 8)" in verdict.page.read_text()
