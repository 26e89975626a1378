"""kill -9 in the middle of a scan: what is committed stays, the next run finishes, and the report is the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cavendish.mixing.audit.scan as scan_module
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.job import AuditConfig, audit
from tests.mixing.audit.photographs import (
    BENCHMARK,
    SKIMAGE,
    photograph,
    picture,
    poster,
    write_benchmark,
)
from tests.shard_folder import write_shards

SETTINGS = {
    "benchmarks": [{"name": "photos", "folder": "benchmark"}],
    "shards": ["shards"],
    "controls": {"copies": 8, "clean": 4},
}
SHARDS = 6
CODE = """
import sys, time
from pathlib import Path
import cavendish.mixing.audit.scan as scan_module
from cavendish.mixing.audit.job import AuditConfig, audit
from tests.mixing.audit.test_resume import SETTINGS
scan = scan_module.scan_shard
scan_module.scan_shard = lambda *arguments: (time.sleep(0.7), scan(*arguments))[1]  # time enough to be killed in
audit(AuditConfig.model_validate(SETTINGS), Path(sys.argv[1]) / "out", data=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_scan_continues_and_writes_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_benchmark(tmp_path / "benchmark", BENCHMARK[:1])
    samples = [
        picture(f"r-{seed}", procedural_picture(np.random.default_rng(seed), 96, 96)) for seed in range(SHARDS - 1)
    ]
    write_shards(tmp_path / "shards", [*samples, picture("p", poster(photograph(SKIMAGE, "chelsea.png")))], SHARDS)
    results = tmp_path / "out/scan"
    killed = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path)], cwd=Path(__file__).parents[3], start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(results.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert 2 <= len(before) < SHARDS + 2
    assert not (tmp_path / "out/report.json").exists()

    scanned = []
    real = scan_module.scan_shard
    monkeypatch.setattr(
        scan_module, "scan_shard", lambda *arguments: scanned.append(arguments[1].name) or real(*arguments)
    )
    settings = AuditConfig.model_validate(SETTINGS)
    verdict = audit(settings, tmp_path / "out", data=tmp_path)
    assert len(scanned) <= SHARDS + 2 - len(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert verdict.exit_code == 1
    whole = audit(settings, tmp_path / "whole", data=tmp_path)
    for name in ("report.json", "report.html", "exclude.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.leaks == 1
