"""Depth readers on files in the public formats: 16-bit PNG, v7.3 and v5 .mat, raw float32, .npy, LiDAR sweeps."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.metrics.depth import depth_metrics
from tests.trainer.evaluation.layouts import write_json, write_picture, write_png


def _nyu(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 480, 640, 3), dtype=np.uint8)
    depths = rng.uniform(0.7, 9.9, (3, 480, 640)).astype(np.float32)
    depths[:, 0] = 0
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)  # as MATLAB stores them: N, 3, 640, 480
        file["rawDepths"] = depths.transpose(0, 2, 1)
        file["depths"] = np.ones((3, 640, 480), np.float32)
    scipy.io.savemat(folder / "splits.mat", {"testNdxs": np.array([[1], [3]]), "trainNdxs": np.array([[2]])})
    return images, depths


def test_nyuv2_reads_raw_depths_of_the_test_frames_upright(tmp_path: Path):
    images, depths = _nyu(tmp_path)
    benchmark = read_benchmark("nyuv2", tmp_path)
    assert [item.name for item in benchmark.items] == ["0001", "0003"]
    assert (benchmark.items[1].read_image() == images[2]).all()
    truth = benchmark.items[1].read_truth()
    assert (truth.depth_m == depths[2]).all()
    assert benchmark.expected == 654
    assert depth_metrics(truth.depth_m, truth.depth_m, benchmark.depth)["pixels"] == (471 - 45) * (601 - 41)


def test_nyuv2_odd_files(tmp_path: Path):
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled\.mat: no such file"):
        read_benchmark("nyuv2", tmp_path)
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(InputError, match=r"not a MATLAB v7\.3"):
        read_benchmark("nyuv2", tmp_path)
    _nyu(tmp_path)
    scipy.io.savemat(tmp_path / "splits.mat", {"testNdxs": np.array([[9]])})
    with pytest.raises(InputError, match="testNdxs run from 9 to 9"):
        read_benchmark("nyuv2", tmp_path)
    scipy.io.savemat(tmp_path / "splits.mat", {"other": 1})
    with pytest.raises(InputError, match="no variable 'testNdxs'"):
        read_benchmark("nyuv2", tmp_path)


def test_ibims_raw_depth_is_50_m_over_65535_and_both_masks_count(tmp_path: Path):
    root = tmp_path / "ibims1_core_raw"
    image = write_picture(root / "rgb/corridor_01.png", 48, 64)
    codes = np.full((48, 64), 13107, np.uint16)  # 10 m
    write_png(root / "depth/corridor_01.png", codes)
    invalid, transparent = np.full((48, 64), 255, np.uint8), np.full((48, 64), 255, np.uint8)
    invalid[0], transparent[1] = 0, 0
    write_png(root / "mask_invalid/corridor_01.png", invalid)
    write_png(root / "mask_transp/corridor_01.png", transparent)
    benchmark = read_benchmark("ibims", tmp_path)
    truth = benchmark.items[0].read_truth()
    assert truth.depth_m[5, 5] == pytest.approx(10.0, abs=1e-5)
    assert truth.valid.sum() == 46 * 64
    assert (benchmark.items[0].read_image() == image).all()
    (root / "mask_transp/corridor_01.png").unlink()
    with pytest.raises(InputError, match="mask_transp"):
        benchmark.items[0].read_truth()


def test_ibims_mat_files(tmp_path: Path):
    data = {
        "rgb": np.full((6, 8, 3), 9, np.uint8),
        "depth": np.full((6, 8), 2.5),
        "mask_invalid": np.ones((6, 8), np.uint8),
        "mask_transp": np.eye(6, 8, dtype=np.uint8),
    }
    (tmp_path / "ibims1_core_mat").mkdir()
    scipy.io.savemat(tmp_path / "ibims1_core_mat/kitchen_02.mat", {"data": data})
    item = read_benchmark("ibims", tmp_path).items[0]
    assert item.name == "kitchen_02"
    assert item.read_image().shape == (6, 8, 3)
    assert item.read_truth().valid.sum() == 6
    assert (item.read_truth().depth_m == 2.5).all()


def test_eth3d_depth_is_raw_float32_named_jpg(tmp_path: Path):
    write_picture(tmp_path / "jpg/office/images/dslr_images/DSC_0219.JPG", 30, 40)
    depth = np.random.default_rng(1).uniform(1, 30, (30, 40)).astype("<f4")
    depth[0] = np.inf
    path = tmp_path / "depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    path.parent.mkdir(parents=True)
    path.write_bytes(depth.tobytes())
    benchmark = read_benchmark("eth3d", tmp_path)
    assert benchmark.items[0].name == "office/DSC_0219"
    truth = benchmark.items[0].read_truth()
    assert np.array_equal(truth.depth_m, depth)
    assert depth_metrics(truth.depth_m, truth.depth_m, benchmark.depth)["pixels"] == 29 * 40
    path.write_bytes(depth.tobytes()[:-4])
    with pytest.raises(InputError, match="expected 4800"):
        benchmark.items[0].read_truth()
    path.rename(path.with_name("DSC_0220.JPG"))
    with pytest.raises(InputError, match="office/DSC_0220"):
        read_benchmark("eth3d", tmp_path)


def test_diode_depth_and_mask_are_npy(tmp_path: Path):
    stem = tmp_path / "val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
    write_picture(stem.with_name(stem.name + ".png"), 24, 32)
    depth, mask = np.full((24, 32, 1), 3.0, np.float32), np.ones((24, 32))
    mask[:4] = 0
    np.save(str(stem) + "_depth.npy", depth)
    np.save(str(stem) + "_depth_mask.npy", mask)
    benchmark = read_benchmark("diode-indoor", tmp_path)
    truth = benchmark.items[0].read_truth()
    assert truth.depth_m.shape == (24, 32)
    result = depth_metrics(np.full((24, 32), np.inf), truth.depth_m, benchmark.depth, truth.valid)
    assert result["pixels"] == 20 * 32
    assert result["rmse_m"] == pytest.approx(347)  # clipped to 350 m
    np.save(str(stem) + "_depth_mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"not a plain \.npy"):
        benchmark.items[0].read_truth()


def _kitti(folder: Path) -> np.ndarray:
    image = write_picture(folder / "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png", 375, 1242)
    codes = np.zeros((375, 1242), np.uint16)
    codes[200:, ::2] = 256 * 12
    write_png(folder / "val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png", codes)
    (folder / "eigen_test_files_with_gt.txt").write_text(
        "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png "
        "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377\n"
        "2011_09_26/2011_09_26_drive_0009_sync/image_02/data/0000000385.png None 721.5377\n"
    )
    return image


def test_kitti_is_cropped_to_352_by_1216_at_the_bottom_centre(tmp_path: Path):
    image = _kitti(tmp_path)
    benchmark = read_benchmark("kitti", tmp_path)
    assert [item.name for item in benchmark.items] == ["2011_09_26_drive_0002_sync/0000000069"]
    assert (benchmark.items[0].read_image() == image[23:, 13:1229]).all()
    truth = benchmark.items[0].read_truth()
    assert truth.depth_m.shape == (352, 1216)
    assert truth.depth_m.max() == 12.0
    result = depth_metrics(np.full((352, 1216), 12.0), truth.depth_m, benchmark.depth)
    assert result["pixels"] == (349 - 177) * sum(1 for u in range(43, 1172) if (u + 13) % 2 == 0)


def test_kitti_needs_its_list_and_stays_in_its_folder(tmp_path: Path):
    with pytest.raises(InputError, match=r"no eigen_test_files_with_gt\.txt"):
        read_benchmark("kitti", tmp_path)
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("../secret.png a.png 1\n")
    with pytest.raises(InputError, match="leads out of the folder"):
        read_benchmark("kitti", tmp_path)
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("a.png b.png 1\n")
    with pytest.raises(InputError, match=r"line 1: no file a\.png"):
        read_benchmark("kitti", tmp_path)


def test_vkitti2_depth_is_centimetres_with_sky(tmp_path: Path):
    frames = "Scene01/clone/frames"
    write_picture(tmp_path / "vkitti_2.0.3_rgb" / frames / "rgb/Camera_0/rgb_00000.jpg", 10, 20)
    codes = np.full((10, 20), 1234, np.uint16)
    codes[0] = 65535
    write_png(tmp_path / "vkitti_2.0.3_depth" / frames / "depth/Camera_0/depth_00000.png", codes)
    item = read_benchmark("vkitti2-depth", tmp_path).items[0]
    assert item.name == "Scene01/00000"
    assert item.read_image().shape == (10, 20, 3)
    assert item.read_truth().depth_m[5, 5] == pytest.approx(12.34)
    assert np.isinf(item.read_truth().depth_m[0]).all()


def test_scannet_depth_is_millimetres_and_the_picture_takes_its_size(tmp_path: Path):
    write_picture(tmp_path / "scene0011_00/color/0.jpg", 968, 1296)
    write_png(tmp_path / "scene0011_00/depth/0.png", np.full((480, 640), 2500, np.uint16))
    item = read_benchmark("scannet-depth", tmp_path).items[0]
    assert item.read_image().shape == (480, 640, 3)
    assert (item.read_truth().depth_m == 2.5).all()


def _nuscenes(folder: Path, points: np.ndarray) -> None:
    """One sample; the LiDAR sits 1 m above the camera and looks along the car's x, the camera along it too."""
    cameras = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]
    forward = [0.5, -0.5, 0.5, -0.5]  # camera (x right, y down, z forward) to car (x forward, y left, z up)
    quarter = [np.cos(np.pi / 4), 0.0, 0.0, np.sin(np.pi / 4)]  # the car turned 90 degrees left in the world
    poses = [
        {"token": "at0", "translation": [100.0, 50.0, 0.0], "rotation": quarter},
        {"token": "at1", "translation": [100.0, 51.0, 0.0], "rotation": quarter},  # 1 m further ahead
    ]
    sensors = [{"token": f"s-{c}", "channel": c} for c in [*cameras, "LIDAR_TOP"]]
    calibrations = [
        {
            "token": f"k-{c}",
            "sensor_token": f"s-{c}",
            "translation": [0.0, 0.0, 1.0],
            "rotation": forward,
            "camera_intrinsic": [[50.0, 0, 32.0], [0, 50.0, 24.0], [0, 0, 1]],
        }
        for c in cameras
    ]
    calibrations.append(
        {
            "token": "k-LIDAR_TOP",
            "sensor_token": "s-LIDAR_TOP",
            "translation": [0.0, 0.0, 2.0],
            "rotation": [1.0, 0, 0, 0],
            "camera_intrinsic": [],
        }
    )
    data = [
        {
            "token": f"d-{c}",
            "sample_token": "sample",
            "calibrated_sensor_token": f"k-{c}",
            "ego_pose_token": "at0" if c == "LIDAR_TOP" else "at1",
            "is_key_frame": True,
            "filename": f"samples/{c}/frame.{'pcd.bin' if c == 'LIDAR_TOP' else 'jpg'}",
            "height": 48,
            "width": 64,
        }
        for c in [*cameras, "LIDAR_TOP"]
    ]
    data.append({**data[0], "token": "sweep", "is_key_frame": False})
    tables = {
        "scene": [{"token": "scene", "name": "scene-0103"}, {"token": "train", "name": "scene-0061"}],
        "sample": [{"token": "sample", "scene_token": "scene"}, {"token": "other", "scene_token": "train"}],
        "sample_data": data,
        "calibrated_sensor": calibrations,
        "sensor": sensors,
        "ego_pose": poses,
    }
    for name, rows in tables.items():
        write_json(folder / f"v1.0-mini/{name}.json", rows)
    for camera in cameras:
        write_picture(folder / f"samples/{camera}/frame.jpg", 48, 64)
    path = folder / "samples/LIDAR_TOP/frame.pcd.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(np.hstack([points, np.zeros((len(points), 2))]).astype("<f4").tobytes())


def test_nuscenes_projects_through_both_poses_and_keeps_the_nearest_point(tmp_path: Path):
    # 11 m ahead of the car at LiDAR time is 10 m ahead at camera time; 1 m below the LiDAR is the camera's height.
    points = np.array([[11.0, 0.0, -1.0], [21.0, 0.0, -1.0], [11.0, 2.0, -1.0], [-5.0, 0.0, 0.0]])
    _nuscenes(tmp_path, points)
    benchmark = read_benchmark("nuscenes", tmp_path)
    assert len(benchmark.items) == 6
    truth = benchmark.items[0].read_truth()
    known = np.argwhere(np.isfinite(truth.depth_m))
    assert known.tolist() == [[24, 22], [24, 32]]  # 2 m to the left: 50 * 2 / 10 = 10 columns
    assert truth.depth_m[24, 32] == pytest.approx(10.0, abs=1e-4)
    assert benchmark.items[0].name == "CAM_FRONT/frame"


def test_nuscenes_trainval_needs_the_list_of_val_scenes(tmp_path: Path):
    _nuscenes(tmp_path, np.zeros((1, 3)))
    (tmp_path / "v1.0-mini").rename(tmp_path / "v1.0-trainval")
    with pytest.raises(InputError, match=r"val_scenes\.txt"):
        read_benchmark("nuscenes", tmp_path)
    (tmp_path / "val_scenes.txt").write_text("scene-0103\n")
    assert len(read_benchmark("nuscenes", tmp_path).items) == 6
    (tmp_path / "v1.0-trainval/ego_pose.json").write_text("[]")
    with pytest.raises(InputError, match="do not fit together"):
        read_benchmark("nuscenes", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ibims", "no file rgb/NAME.png"),
        ("eth3d", "ground_truth_depth"),
        ("diode-indoor", "val/indoors"),
        ("vkitti2-depth", r"Scene\*/clone"),
        ("scannet-depth", "SCENE/depth"),
        ("nuscenes", "v1.0-trainval or v1.0-mini"),
        ("nothing", "known: cityscapes"),
    ],
)
def test_an_empty_folder_gets_one_line(tmp_path: Path, name: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        read_benchmark(name, tmp_path)
    assert "\n" not in str(caught.value)
