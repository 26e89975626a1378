"""Normal readers: 8-bit and 16-bit PNG, OpenEXR, .npy, and the axes each is stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.metrics.normals import angular_errors_deg
from tests.trainer.evaluation.layouts import write_picture, write_png


def _normals(height: int = 20, width: int = 30) -> np.ndarray:
    """Unit normals toward the viewer: more to the right on the right, more up on top."""
    y, x = np.mgrid[0.8 : -0.8 : height * 1j, -0.8 : 0.8 : width * 1j]
    vectors = np.stack([x, y, np.ones_like(x)], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _left_up_back(normals: np.ndarray) -> np.ndarray:
    return normals * (-1, 1, 1)


def test_dsine_png_has_the_colours_of_the_paper(tmp_path: Path):
    normals = _normals()
    write_picture(tmp_path / "dsine_eval/nyuv2/test/000000_img.png", 20, 30)
    codes = np.rint((_left_up_back(normals) + 1) / 2 * 255).astype(np.uint8)
    codes[0] = 0
    write_png(tmp_path / "dsine_eval/nyuv2/test/000000_normal.png", codes)
    item = read_benchmark("nyuv2-normals", tmp_path).items[0]
    truth = item.read_truth()
    assert item.name == "test/000000"
    assert truth.valid.sum() == 19 * 30
    assert angular_errors_deg(normals, truth.normals, truth.valid).max() < 0.5
    assert np.abs(encode_normals(normals.astype(np.float32))[1:].astype(int) - codes[1:]).max() <= 1


def test_vkitti_is_16_bit(tmp_path: Path):
    normals = _normals()
    write_picture(tmp_path / "vkitti/Scene01/000000_img.jpg", 20, 30)
    write_png(
        tmp_path / "vkitti/Scene01/000000_normal.png",
        np.rint((_left_up_back(normals) + 1) / 2 * 65535).astype(np.uint16),
    )
    truth = read_benchmark("vkitti-normals", tmp_path).items[0].read_truth()
    assert angular_errors_deg(normals, truth.normals, truth.valid).max() < 0.01


def test_scannet_scenes(tmp_path: Path):
    for scene in ("scene0532_00", "scene0220_02"):
        write_picture(tmp_path / f"scannet/{scene}/000000_img.png", 8, 8)
        write_png(tmp_path / f"scannet/{scene}/000000_normal.png", np.full((8, 8, 3), (128, 128, 255), np.uint8))
    names = [item.name for item in read_benchmark("scannet-normals", tmp_path).items]
    assert names == ["scene0220_02/000000", "scene0532_00/000000"]


def test_ibims_is_openexr(tmp_path: Path):
    normals = _normals()
    stored = _left_up_back(normals).astype(np.float32)
    stored[:2] = 0
    write_picture(tmp_path / "dsine_eval/ibims/ibims/corridor_01_img.png", 20, 30)
    path = tmp_path / "dsine_eval/ibims/ibims/corridor_01_normal.exr"
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": stored}).write(str(path))
    truth = read_benchmark("ibims-normals", tmp_path).items[0].read_truth()
    assert truth.valid.sum() == 18 * 30
    assert angular_errors_deg(normals, truth.normals, truth.valid).max() < 1e-3
    path.write_bytes(b"not an exr")
    with pytest.raises(InputError, match="not an OpenEXR file"):
        read_benchmark("ibims-normals", tmp_path).items[0].read_truth()


def test_diode_npy_and_the_check_of_its_axes(tmp_path: Path):
    stem = tmp_path / "val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
    write_picture(stem.with_name(stem.name + ".png"), 20, 30)
    normals = _normals().astype(np.float32)
    normals[0] = 0
    np.save(str(stem) + "_normal.npy", normals)
    truth = read_benchmark("diode-normals", tmp_path).items[0].read_truth()
    assert truth.valid.sum() == 19 * 30
    assert np.array_equal(truth.normals, normals)
    np.save(str(stem) + "_normal.npy", -normals)
    with pytest.raises(InputError, match="point away from the camera"):
        read_benchmark("diode-normals", tmp_path).items[0].read_truth()


@pytest.mark.parametrize("name", ["nyuv2-normals", "scannet-normals", "ibims-normals", "vkitti-normals"])
def test_an_empty_folder_gets_one_line(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"no file .*N_img\.png"):
        read_benchmark(name, tmp_path)
