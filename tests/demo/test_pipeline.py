"""The whole pipeline at a small size: every stage real, run twice, then read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cavendish.demo.photographs import motorcycle, planted_copy
from cavendish.demo.pipeline import run_demo
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.shards.reader import verify

SMALL = {
    "render_blender.yaml": ("scenes=4", "scenes_per_shard=2", "width=96", "height=96", "samples=2"),
    "render_pyrender.yaml": ("scenes=16", "scenes_per_shard=8", "width=96", "height=96", "edits=0.8"),
    "encode.yaml": ("size=96",),
    "train_base.yaml": ("steps=20", "checkpoint_every=10", "batch=8", "log_every=5", "warmup_steps=5"),
    "train_tune.yaml": ("steps=20", "checkpoint_every=10", "batch=8", "log_every=5", "warmup_steps=5"),
}


@contextmanager
def no_bar(title: str) -> Iterator[Progress]:
    yield lambda done, planned: None


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("demo")
    said: list[str] = []
    report = run_demo(data, 2, no_bar, said.append, SMALL)
    assert said[-1] == str(report)
    return data


pytestmark = pytest.mark.slow


def test_every_shard_verifies(demo: Path) -> None:
    for folder in ("raw/blender", "raw/pyrender", "raw/heldout", "raw/photos", "examples"):
        assert verify(demo / folder) == [], folder


def test_the_planted_picture_is_found_and_left_out(demo: Path) -> None:
    first = json.loads((demo / "audit/first/report.json").read_text())
    final = json.loads((demo / "audit/final/report.json").read_text())
    leaks = [one for one in first["findings"] if one["level"] == "leak"]
    assert leaks
    assert all("kitten" in one["key"] and "chelsea" in one["image"] for one in leaks)
    assert (first["verdict"], final["verdict"]) == ("leak", "clean")
    excluded = json.loads((demo / "audit/first/exclude.json").read_text())["keys"]
    lock = json.loads((demo / "mixture/tune.lock.json").read_text())
    assert lock["audit"]["verdict"] == "clean"
    photos = next(source for source in lock["sources"] if source["name"] == "photos")
    assert (
        sum(photos["left_out"].values()) >= len([key for key in excluded if "_kitten" in key or "-kitten" in key]) > 0
    )


def test_running_again_changes_nothing_that_is_committed(demo: Path) -> None:
    kept = [path for path in demo.rglob("*") if path.is_file() and path.suffix in (".tar", ".pt", ".csv")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    page = (demo / "report.html").read_bytes()
    run_demo(demo, 2, no_bar, lambda line: None, SMALL)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert (demo / "report.html").read_bytes() == page


def test_the_report_is_one_file_with_every_part(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page
    for words in ("Leakage audit", "Metric depth: held-out scenes", "Metric depth: real photograph", "Retention"):
        assert words in page
    assert page.count("data:image/png;base64,") > 80


def test_the_real_photograph_has_plausible_metres() -> None:
    sample = motorcycle()
    assert sample.depth_m is not None
    known = sample.depth_m[np.isfinite(sample.depth_m)]
    assert 0.92 < known.size / sample.depth_m.size < 0.93
    assert 1.8 < known.min() < 2.6  # the wheel, at 994.978 px * 0.193001 m / disparity
    assert 4 < known.max() < 7  # the workshop's back wall


def test_the_planted_copy_is_another_picture_of_the_same_cat() -> None:
    from skimage.data import chelsea

    copy = planted_copy(chelsea())
    assert copy.shape != chelsea().shape
    assert abs(copy.astype(float).mean() - chelsea().mean()) < 15
