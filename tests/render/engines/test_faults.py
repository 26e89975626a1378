"""What goes wrong in real renderer processes costs one try of one scene, and is named in the shard's row."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cavendish.encoders.sample import Sample
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset
from cavendish.render.assets.folders import AssetsConfig
from cavendish.render.config import ViewRequest
from cavendish.render.engines import worker
from cavendish.render.engines.worker import Message, Worker
from cavendish.render.job import RenderConfig, close_workers, render, render_view

CONFIG = RenderConfig(
    engine="pyrender", seed=6, scenes=4, scenes_per_shard=4, width=48, height=48, max_model_kb=100, edits=0.0
)
FAULTS = {0: "kill", 1: "stop", 2: "memory"}
NAMED = {0: "killed by SIGKILL|died between", 1: r"hung: no answer in 1\.5 s", 2: r"MB of memory \(20 allowed\)"}


@pytest.mark.slow
def test_a_kill_a_hang_and_a_memory_hog_cost_one_try_each_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Worker._ask

    def spoil(self: Worker, header: Mapping[str, object]) -> Message:
        """Hurt the child at the first try of three scenes, at both of the worker's tries."""
        view: dict[str, int] = header["view"]  # type: ignore[assignment]
        fault = FAULTS.get(view["index"]) if view["attempt"] == 0 else None
        if fault is None:
            return ask(self, header)
        self.start()
        assert self._process is not None
        saved = self._limits
        if fault == "memory":
            self._limits = replace(saved, max_memory_mb=20)
        else:
            self._process.send_signal(signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
            # a busy machine is slow to bury the dead
            self._limits = replace(saved, request_timeout_s=30.0 if fault == "kill" else 1.5)
        try:
            return ask(self, header)
        finally:
            self._limits = saved

    monkeypatch.setattr(Worker, "_ask", spoil)
    monkeypatch.setattr(worker, "MEMORY_CHECK_S", 0.02)
    result = render(CONFIG, tmp_path / "out")
    close_workers()
    assert result.totals is not None
    assert result.totals["records"] == CONFIG.scenes
    (row,) = committed_rows(tmp_path / "out")
    for index, words in NAMED.items():
        reasons = [r.reason for r in row.rejected if r.key.endswith(f"{index:06d}") and "attempt 0" in r.reason]
        assert len(reasons) == 1
        assert re.search(words, reasons[0]), reasons


@pytest.mark.slow
def test_own_files_are_used_credited_and_repeatable_and_damaged_ones_are_named(
    tmp_path: Path, own_folder: Path
) -> None:
    config = CONFIG.model_copy(
        update={
            "assets": AssetsConfig(folders=(own_folder,), share=0.9),
            "edits": 1.0,
            "scenes_per_shard": 2,
            "kinds": {"room": 1.0, "table top": 1.0},
        }
    )
    render(config, tmp_path / "one")
    close_workers()
    moved = own_folder.rename(tmp_path / "elsewhere")
    moved.rename(own_folder)
    render(config, tmp_path / "two", Engine(workers=2))
    close_workers()
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    for row in committed_rows(tmp_path / "one"):
        named = {r.key: r.reason for r in row.rejected if r.key.startswith("own/")}
        assert set(named) == {"own/mine/chair/cut.glb", "own/mine/toy/old.fbx"}
        assert "cut off" in named["own/mine/chair/cut.glb"]
        assert "its content is no FBX file" in named["own/mine/toy/old.fbx"]
    samples = [record for record in read_dataset(tmp_path / "one") if isinstance(record, Sample)]
    own = [asset for sample in samples for asset in sample.provenance["assets"] if asset["name"].startswith("own/")]
    assert {asset["name"] for asset in own} >= {"own/mine/mug/ball.ply", "own/mine/skies/dawn.hdr"}
    assert all(asset["author"] == "Ada" and len(asset["sha256"]) == 64 for asset in own)
    assert all("CC-BY-4.0" in sample.licence for sample in samples if "own/" in str(sample.provenance["assets"]))


@pytest.mark.slow
def test_memory_of_a_worker_stays_flat_over_scenes() -> None:
    config = CONFIG.model_copy(update={"kinds": {"table top": 1.0}, "scenes": 30})
    used_mb = []
    for index in range(30):
        render_view(config, ViewRequest(0, index), {})
        (child,) = [
            one for one in psutil.Process().children() if "cavendish.render.engines.child" in " ".join(one.cmdline())
        ]
        used_mb.append(child.memory_info().rss / 1e6)
    close_workers()
    assert used_mb[-1] - used_mb[14] < 60, used_mb  # all models of the shard have been read by then
