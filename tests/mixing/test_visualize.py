from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.sample import InputError
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.shards.dataset import Plan, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.visualize import fit, ids_picture, read_records, write_sheet
from tests.conftest import tiny_sample

PLAN = Plan("test", 1, {})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    start_dataset(directory, PLAN)
    with ShardWriter(directory, 0, PLAN.digest) as writer:
        for number in range(3):
            writer.add(tiny_sample(f"scene-{number}", seed=number))
    return directory


def test_pictures_show_what_the_arrays_say() -> None:
    sample = tiny_sample()
    assert sample.depth_m is not None
    assert sample.normals is not None
    assert sample.instance_ids is not None
    assert (encode_depth(sample.depth_m)[0] == 255).all()  # sky is the far end, white
    assert (encode_normals(sample.normals)[0] == 128).all()  # unknown
    np.testing.assert_array_equal(encode_normals(sample.normals)[-1, 0], (128, 255, 128))  # up is light green
    colors = ids_picture(sample.instance_ids)
    assert {tuple(color) for color in colors.reshape(-1, 3)} >= {(0, 0, 0)}
    assert len({tuple(color) for color in colors.reshape(-1, 3)}) == 3


def test_fit_keeps_the_aspect_and_hard_edges() -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 10:] = (255, 0, 0)
    fitted = fit(picture, 40, 40)
    assert fitted.shape == (40, 40, 3)
    inside = {tuple(color) for color in fitted[10:30].reshape(-1, 3)}
    assert inside == {(0, 0, 0), (255, 0, 0)}
    assert (fitted[:10] == 255).all()


@pytest.mark.parametrize("name", ["sheet.png", "sheet.html"])
def test_sheets_are_written_whole(dataset: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    write_sheet(read_records(dataset, 2), out)
    data = out.read_bytes()
    if name.endswith(".png"):
        assert decode_rgb(data, name).shape[1] > 4 * 160
    else:
        assert data.count(b"data:image/png;base64,") == 10
        assert b'src="http' not in data


def test_bad_requests_say_what_to_do(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.html"):
        write_sheet(read_records(dataset, 1), tmp_path / "sheet.pdf")
    with pytest.raises(InputError, match="no such shard"):
        read_records(tmp_path / "nowhere", 1)


def test_the_verb_shows_and_verifies(dataset: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["show", str(dataset), "--out", str(tmp_path / "s.png")])
    assert shown.exit_code == 0
    assert "scene-1" in shown.output
    assert runner.invoke(app, ["show", str(dataset), "--verify"]).exit_code == 0
    tar = dataset / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-10])
    damaged = runner.invoke(app, ["show", str(dataset), "--verify"])
    assert damaged.exit_code == 1
    assert "sha256 differs" in damaged.output
