"""The job, end to end: both engines, restarts, worker counts, lost children."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from encoders.sample import InputError, Rejection, Sample
from mixing.config import read_config
from mixing.engine import Engine
from mixing.shards import committed_rows, read_dataset, verify
from render import job
from render.job import RenderConfig, ask_for_view, close_workers, render

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = RenderConfig(
    engine="pyrender", seed=5, scenes=6, scenes_per_shard=2, width=64, height=64, max_model_kb=200, edits=1.0
)


def shards_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", ["render_blender", "render_pyrender"])
def test_the_examples_are_valid(name: str) -> None:
    config = read_config(RenderConfig, EXAMPLES / f"{name}.yaml")
    assert name.endswith(config.engine)


def test_an_unknown_kind_of_scene_is_refused() -> None:
    with pytest.raises(InputError, match="kinds"):
        read_config(RenderConfig, EXAMPLES / "render_pyrender.yaml", ["kinds={cave: 1}"])


@pytest.mark.slow
def test_shards_are_the_same_bytes_on_two_workers_and_after_a_lost_renderer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = job.ask_for_view
    lost = []

    def lose_the_child_once(*arguments: object) -> Sample | Rejection:
        children = [child for child in psutil.Process().children() if "render.child" in " ".join(child.cmdline())]
        if children and not lost:
            lost.append(children[0].pid)
            children[0].kill()
        return ask(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "ask_for_view", lose_the_child_once)
    result = render(SMALL, tmp_path / "one")
    monkeypatch.undo()
    assert lost
    assert result.totals is not None
    assert result.totals["records"] == 6
    render(SMALL, tmp_path / "two", Engine(workers=2))
    assert shards_of(tmp_path / "one") == shards_of(tmp_path / "two")
    assert verify(tmp_path / "one") == []
    samples = [record for record in read_dataset(tmp_path / "one") if isinstance(record, Sample)]
    assert all(sample.exhaustive and sample.camera and len(sample.captions) == 3 for sample in samples)
    assert any(sample.edit is not None for sample in samples)
    for sample in samples:
        assert sample.licence in ("CC-BY-3.0", "CC0-1.0")
        assets = sample.provenance["assets"]
        assert all(len(asset["sha256"]) == 64 and asset["author"] for asset in assets)
        assert (sample.licence == "CC0-1.0") == all(asset["licence"] == "CC0-1.0" for asset in assets)
        if sample.edit is not None:
            changed = np.abs(sample.edit.image.astype(int) - sample.image).mean(axis=-1)
            mask = sample.instance_ids == sample.edit.instance_id
            assert changed[mask].mean() > 2 * changed[~mask].mean()


@pytest.mark.slow
def test_rejected_views_are_reported_and_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = job.ask_for_view

    def refuse_the_first(
        config: RenderConfig, key: str, shard: int, index: int, attempt: int, own: dict[str, str]
    ) -> Sample | Rejection:
        if attempt == 0:
            return Rejection(key, "attempt 0: too dark")
        return ask(config, key, shard, index, attempt, own)

    monkeypatch.setattr(job, "ask_for_view", refuse_the_first)
    config = SMALL.model_copy(update={"scenes": 2, "edits": 0.0})
    render(config, tmp_path)
    (row,) = committed_rows(tmp_path)
    assert row.count == 2
    assert [rejection.reason for rejection in row.rejected].count("attempt 0: too dark") == 2
    assert len({rejection.key for rejection in row.rejected}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["room", "outdoor"])
def test_blender_sees_what_the_ray_cast_sees_and_repeats_its_colours(kind: str) -> None:
    config = RenderConfig.model_validate(
        {
            "engine": "blender",
            "seed": 2,
            "scenes": 1,
            "width": 96,
            "height": 96,
            "samples": 2,
            "kinds": {kind: 1},
            "edits": 0,
        }
    )
    views = []
    for _ in range(2):
        for attempt in range(6):
            made = ask_for_view(config, "view", 0, 0, attempt, {})
            if isinstance(made, Sample):
                break
        assert isinstance(made, Sample), made
        views.append(made)
        close_workers()  # the second picture comes from another process
    first, second = views
    assert first.quality["cycles_id_mismatch"] <= 2 / 96**2
    assert first.quality["cycles_depth_error"] < 1e-4
    assert np.abs(first.image.astype(int) - second.image).max() <= 1
    for name in ("depth_m", "normals", "instance_ids"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert first.instances == second.instances
    assert first.image.std() > 10
