"""The job, end to end: both engines, restarts, worker counts, lost children."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset, verify
from cavendish.render import job
from cavendish.render.config import ViewRequest
from cavendish.render.job import (
    RealismConfig,
    RenderConfig,
    asset_warnings,
    close_workers,
    count_rejections,
    render,
    render_view,
)
from tests.render.assets.gltf_file import GltfFile

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
    ask = job.render_view
    lost = []

    def lose_the_child_once(*arguments: object) -> Sample | Rejection:
        children = [
            child
            for child in psutil.Process().children()
            if "cavendish.render.engines.child" in " ".join(child.cmdline())
        ]
        if children and not lost:
            lost.append(children[0].pid)
            children[0].kill()
        return ask(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "render_view", lose_the_child_once)
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
def test_views_of_a_scene_share_it_and_do_not_depend_on_what_was_built_before(tmp_path: Path) -> None:
    config = SMALL.model_copy(
        update={
            "scenes": 1,
            "kinds": {"table top": 1.0},
            "views_per_scene": 3,
            "edits": 0.3,
            "albedo": True,
            "geometric_normals": True,
            "cross_check": True,
            "realism": RealismConfig(
                sensor_noise=0.5, motion_blur=0.5, vignette=0.5, white_balance=0.5, jpeg=0.5, lens_distortion=1.0
            ),
        }
    )
    render(config, tmp_path / "one")
    # a fresh child for every second view: nothing is left of the first
    render(config.model_copy(update={"recycle_after": 2}), tmp_path / "two")
    assert shards_of(tmp_path / "one") == shards_of(tmp_path / "two")
    samples = [record for record in read_dataset(tmp_path / "one") if isinstance(record, Sample)]
    assert [sample.key[-3:] for sample in samples] == ["v00", "v01", "v02"]
    assert sum(count_rejections(tmp_path / "one").values()) == sum(
        len(row.rejected) for row in committed_rows(tmp_path / "one")
    )
    assert {sample.facts["scene_key"] for sample in samples} == {samples[0].key[:-4]}
    assert [sample.facts["view"] for sample in samples] == [0, 1, 2]
    assert len({sample.camera.fx for sample in samples if sample.camera}) == 1
    assert len({sample.camera.camera_to_world for sample in samples if sample.camera}) == 3
    categories: dict[int, str] = {}
    for sample in samples:
        for instance in sample.instances:
            assert categories.setdefault(instance.id, instance.category) == instance.category
    assert all("distortion" in sample.facts for sample in samples)
    assert any("effects" in sample.provenance for sample in samples)
    for sample in samples:
        assert sample.albedo is not None
        assert sample.geometric_normals is not None
        assert sample.normals is not None
        assert sample.quality["pyrender_depth_error"] < 1e-4
        seen = sample.instance_ids > 0
        assert ((sample.normals * sample.geometric_normals).sum(axis=-1)[seen] > 0).all()


@pytest.mark.slow
def test_effects_change_the_picture_and_nothing_else(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"scenes": 1, "edits": 0.0, "kinds": {"table top": 1.0}})
    effects = RealismConfig(sensor_noise=1, motion_blur=1, vignette=1, white_balance=1, jpeg=1)
    clean, worn = tmp_path / "clean", tmp_path / "worn"
    render(config, clean)
    render(config.model_copy(update={"realism": effects}), worn)
    (first,), (second,) = ([r for r in read_dataset(folder) if isinstance(r, Sample)] for folder in (clean, worn))
    assert np.abs(first.image.astype(int) - second.image).mean() > 3
    assert np.array_equal(first.depth_m, second.depth_m)
    assert np.array_equal(first.normals, second.normals)
    assert np.array_equal(first.instance_ids, second.instance_ids)
    assert (first.instances, first.captions, first.facts, first.camera) == (
        second.instances,
        second.captions,
        second.facts,
        second.camera,
    )
    assert set(second.provenance) - set(first.provenance) == {"effects"}


def test_only_blender_blurs_what_is_out_of_focus() -> None:
    with pytest.raises(InputError, match="depth_of_field"):
        read_config(RenderConfig, EXAMPLES / "render_pyrender.yaml", ["depth_of_field=0.5"])


@pytest.mark.slow
def test_what_is_not_drawn_of_own_files_is_in_provenance_and_printed_by_name(tmp_path: Path) -> None:
    box = GltfFile()
    box.extension("EXT_glitter")
    chair = tmp_path / "own/chair/box.glb"
    chair.parent.mkdir(parents=True)
    chair.write_bytes(box.glb())
    (tmp_path / "own/assets.yaml").write_text("licence: CC0-1.0\nauthor: Ada\n")
    config = tmp_path / "render.yaml"
    values = {"engine": "pyrender", "seed": 5, "scenes": 3, "width": 48, "height": 48, "kinds": {"room": 1}}
    config.write_text(json.dumps({**values, "assets": {"folders": [str(tmp_path / "own")], "share": 1.0}}))
    ran = CliRunner().invoke(app, ["render", str(config), "--out", str(tmp_path / "raw"), "--workers", "1"])
    assert ran.exit_code == 0, ran.output
    assert "own/own/chair/box.glb: EXT_glitter is not drawn" in ran.output
    assert asset_warnings(tmp_path / "raw") == {"own/own/chair/box.glb": "EXT_glitter is not drawn"}


@pytest.mark.slow
def test_rejected_views_are_reported_and_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = job.render_view

    def refuse_the_first(config: RenderConfig, request: ViewRequest, own: dict[str, str]) -> Sample | Rejection:
        if request.attempt == 0:
            return Rejection(config.view_key(request.shard, request.index), "attempt 0: too dark")
        return ask(config, request, own)

    monkeypatch.setattr(job, "render_view", refuse_the_first)
    config = SMALL.model_copy(update={"scenes": 2, "edits": 0.0})
    render(config, tmp_path)
    (row,) = committed_rows(tmp_path)
    assert row.count == 2
    assert [rejection.reason for rejection in row.rejected].count("attempt 0: too dark") == 2
    assert count_rejections(tmp_path)["too dark"] == 2
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
            made = render_view(config, ViewRequest(0, 0, attempt), {})
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
    assert (first.instances, first.captions, first.facts) == (second.instances, second.captions, second.facts)
    for name in ("seeds", "recipe_sha256", "assets"):
        assert first.provenance[name] == second.provenance[name]
    assert first.image.std() > 10
