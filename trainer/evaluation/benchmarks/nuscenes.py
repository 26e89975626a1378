"""nuScenes val: LiDAR points projected into the six key-frame cameras."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import MAX_PIXELS
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.evaluation.benchmarks.files import ODD, read_bytes, read_rgb, safe_name
from cavendish.trainer.evaluation.benchmarks.indoor_depth import depth_item
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol
from cavendish.trainer.evaluation.tasks.depth import DepthTruth

NUSCENES = DepthProtocol(min_m=1e-3, max_m=80.0)
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
_MINI_VAL = ("scene-0103", "scene-0916")
_VERSIONS = ("v1.0-trainval", "v1.0-mini")
_TABLES = ("scene", "sample", "sample_data", "calibrated_sensor", "sensor", "ego_pose")


def read_nuscenes(folder: Path) -> Benchmark:
    """Read nuScenes: the tables of v1.0-trainval (with `val_scenes.txt`, one scene name per line) or v1.0-mini, and
    samples/CAM_*, samples/LIDAR_TOP.

    The names of the 150 val scenes are those of the development kit's splits; the tables do not hold them.
    """
    version = next((v for v in _VERSIONS if (folder / v).is_dir()), None)
    if version is None:
        raise InputError(f"nuscenes: no folder {' or '.join(_VERSIONS)} in {folder}")
    scenes = _val_scenes(folder, version)
    tables = {name: _table(folder / version / f"{name}.json") for name in _TABLES}
    try:
        items = _items(folder, tables, scenes)
    except (np.linalg.LinAlgError, *ODD) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder / version}: tables do not fit together: {error!r}") from None
    if not items:
        raise InputError(f"{folder / version}: none of the val scenes is in scene.json")
    return Benchmark(
        "nuscenes",
        "depth",
        tuple(items),
        depth=NUSCENES,
        notes=(
            f"{version}: all key frames of all six cameras of {len(scenes)} scenes; the published subset is not stated",
            "truth is one LiDAR sweep projected with the pose at each sensor's own time; occlusion is not removed",
        ),
    )


def _val_scenes(folder: Path, version: str) -> set[str]:
    if version == "v1.0-mini":
        return set(_MINI_VAL)
    path = folder / "val_scenes.txt"
    if not path.is_file():
        raise InputError(f"nuscenes: no {path}; write the 150 val scene names of the development kit, one a line")
    return set(read_bytes(path).decode("utf-8", errors="replace").split())


def _table(path: Path) -> dict[str, Any]:
    rows = read_json(path, "a nuScenes table")
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of rows")
    try:
        return {row["token"]: row for row in rows if row.get("is_key_frame", True)}
    except ODD as error:
        raise InputError(f"{path}: a row without token: {error!r}") from None


def _items(folder: Path, tables: dict[str, dict[str, Any]], scenes: set[str]) -> list[Item]:
    wanted = {token for token, row in tables["scene"].items() if row["name"] in scenes}
    samples = {token for token, row in tables["sample"].items() if row["scene_token"] in wanted}
    frames: dict[str, dict[str, Any]] = {}
    for row in tables["sample_data"].values():
        if row["sample_token"] in samples:
            sensor = tables["calibrated_sensor"][row["calibrated_sensor_token"]]["sensor_token"]
            frames.setdefault(row["sample_token"], {})[tables["sensor"][sensor]["channel"]] = row
    items = []
    for token in sorted(frames):
        lidar = frames[token].get("LIDAR_TOP")
        for camera in CAMERAS:
            row = frames[token].get(camera)
            if row is None or lidar is None:
                raise InputError(
                    f"{folder}: sample {token} has no {camera if lidar is not None else 'LIDAR_TOP'} key frame"
                )
            image = _inside(folder, row["filename"])
            size = int(row["height"]), int(row["width"])
            if not 0 < size[0] * size[1] <= MAX_PIXELS or min(size) < 1:
                raise ValueError(f"a picture of {size[1]}x{size[0]} pixels")
            calibration = tables["calibrated_sensor"][row["calibrated_sensor_token"]]
            intrinsics = np.array(calibration["camera_intrinsic"], np.float64)
            if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
                raise ValueError(f"camera_intrinsic of {camera} is no 3 x 3 matrix")
            truth = partial(
                _project,
                _inside(folder, lidar["filename"]),
                _lidar_to_camera(tables, lidar, row),
                intrinsics,
                size,
            )
            items.append(depth_item(safe_name(camera, Path(row["filename"]).stem), partial(read_rgb, image), truth))
    return items


def _inside(folder: Path, name: str) -> Path:
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"nuscenes: file name {name!r} leads out of the folder")
    return folder / relative


def _pose(row: dict[str, Any]) -> NDArray[np.float64]:
    """Return the 4x4 matrix of a row's unit quaternion (w, x, y, z) and translation in metres."""
    w, x, y, z = np.array(row["rotation"], np.float64) / np.linalg.norm(row["rotation"])
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = row["translation"]
    if not np.isfinite(matrix).all():
        raise ValueError("a pose that is not finite")
    return matrix


def _lidar_to_camera(
    tables: dict[str, dict[str, Any]], lidar: dict[str, Any], camera: dict[str, Any]
) -> NDArray[np.float64]:
    """Go from the LiDAR through the car at its time and the world to the car at the camera's time and the camera."""
    lidar_to_world = _pose(tables["ego_pose"][lidar["ego_pose_token"]]) @ _pose(
        tables["calibrated_sensor"][lidar["calibrated_sensor_token"]]
    )
    camera_to_world = _pose(tables["ego_pose"][camera["ego_pose_token"]]) @ _pose(
        tables["calibrated_sensor"][camera["calibrated_sensor_token"]]
    )
    return np.asarray(np.linalg.inv(camera_to_world) @ lidar_to_world)


def _project(
    path: Path, lidar_to_camera: NDArray[np.float64], intrinsics: NDArray[np.float64], size: tuple[int, int]
) -> DepthTruth:
    """Project one .pcd.bin sweep (float32 x, y, z, intensity, ring) to planar depth, nearest point per pixel."""
    data = read_bytes(path)
    if len(data) % 20:
        raise InputError(f"{path}: {len(data)} bytes is no whole number of 5-float points")
    points = np.frombuffer(data, "<f4").reshape(-1, 5)[:, :3].astype(np.float64)
    camera = points @ lidar_to_camera[:3, :3].T + lidar_to_camera[:3, 3]  # OpenCV axes: z is planar depth
    camera = camera[camera[:, 2] > 1.0]
    pixels = camera @ intrinsics.T
    # Projected coordinates count from the centre of the first pixel, as in the development kit.
    columns = np.rint(pixels[:, 0] / pixels[:, 2]).astype(np.int64)
    rows = np.rint(pixels[:, 1] / pixels[:, 2]).astype(np.int64)
    inside = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    depth_m = np.full(size, np.inf, np.float32)
    np.minimum.at(depth_m, (rows[inside], columns[inside]), camera[inside, 2].astype(np.float32))
    depth_m[np.isinf(depth_m)] = np.nan
    return DepthTruth(depth_m)
