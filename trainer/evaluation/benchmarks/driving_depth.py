"""KITTI (Eigen test split) and Virtual KITTI 2 depth, and ScanNet depth as exported from its .sens files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.trainer.evaluation.benchmarks.files import (
    need_files,
    need_folder,
    read_bytes,
    read_png16,
    read_rgb,
    safe_name,
)
from cavendish.trainer.evaluation.benchmarks.indoor_depth import depth_item
from cavendish.trainer.evaluation.items import Benchmark
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol
from cavendish.trainer.evaluation.tasks.depth import DepthTruth

KITTI = DepthProtocol(min_m=1e-3, max_m=80.0, crop="garg")
VKITTI2 = DepthProtocol(min_m=1e-3, max_m=80.0)
SCANNET = DepthProtocol(min_m=1e-3, max_m=10.0)
KB_SIZE = (352, 1216)
_LISTS = ("eigen_test_files_with_gt.txt", "eigen_test_files.txt")
_RAW = ("", "raw", "raw_data", "kitti_raw", "input")
_ANNOTATED = ("", "train", "val", "data_depth_annotated/train", "data_depth_annotated/val", "gt_depth")


def kb_crop(array: NDArray[Any]) -> NDArray[Any]:
    """Cut the 352x1216 "KITTI benchmark" rectangle out of a frame: bottom, centred.

    Raises:
        InputError: the frame is smaller.
    """
    top, left = array.shape[0] - KB_SIZE[0], (array.shape[1] - KB_SIZE[1]) // 2
    if top < 0 or left < 0:
        raise InputError(f"KITTI frame {array.shape[:2]} is smaller than the {KB_SIZE[0]}x{KB_SIZE[1]} crop")
    return np.ascontiguousarray(array[top:, left : left + KB_SIZE[1]])


def read_kitti(folder: Path) -> Benchmark:
    """Read the KITTI Eigen test split: raw frames, the annotated depth PNGs (metres * 256) and the split's list.

    `eigen_test_files_with_gt.txt` (697 lines "IMAGE DEPTH FOCAL", DEPTH "None" where there is none: 652 remain) must
    lie in the folder. Picture and truth are cut to 352x1216, where the Garg rectangle counts.
    """
    listing = next((folder / name for name in _LISTS if (folder / name).is_file()), None)
    if listing is None:
        raise InputError(f"kitti: no {_LISTS[0]} in {folder}; it comes with the BTS and Marigold evaluation codes")
    items = []
    for number, line in enumerate(read_bytes(listing).decode("utf-8", errors="replace").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 2:
            raise InputError(f"{listing}: line {number} is not 'IMAGE DEPTH FOCAL'")
        if fields[1] == "None":
            continue
        image = _find(folder, _RAW, fields[0], f"{listing}: line {number}")
        depth = _find(folder, _ANNOTATED, fields[1], f"{listing}: line {number}")
        drive, frame = Path(fields[1]).parts[0], Path(fields[1]).stem
        items.append(depth_item(safe_name(drive, frame), partial(_kitti_image, image), partial(_kitti_truth, depth)))
    if not items:
        raise InputError(f"{listing}: lists no frame with depth")
    return Benchmark("kitti", "depth", tuple(items), expected=652, depth=KITTI)


def _find(folder: Path, places: tuple[str, ...], name: str, where: str) -> Path:
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{where}: {name!r} leads out of the folder")
    for place in places:
        if (folder / place / relative).is_file():
            return folder / place / relative
    raise InputError(f"{where}: no file {name} in {folder} (looked in {', '.join(p or '.' for p in places)})")


def _kitti_image(path: Path) -> UInt8Image:
    return kb_crop(read_rgb(path))


def _kitti_truth(path: Path) -> DepthTruth:
    return DepthTruth(kb_crop(read_png16(path)).astype(np.float32) / np.float32(256))


def read_vkitti2_depth(folder: Path, variation: str = "clone") -> Benchmark:
    """Read Virtual KITTI 2: SceneNN/VARIATION/frames/{rgb,depth}/Camera_0; depth is a 16-bit PNG in centimetres.

    The rgb and depth archives may lie in one folder or in vkitti_2.0.3_rgb and vkitti_2.0.3_depth. 65535 (655.35 m) is
    the sky.
    """
    depths = need_folder(folder, "vkitti_2.0.3_depth", ".", what="vkitti2")
    images = need_folder(folder, "vkitti_2.0.3_rgb", ".", what="vkitti2")
    pattern = f"Scene*/{variation}/frames/depth/Camera_0/depth_*.png"
    paths = need_files(list(depths.glob(pattern)), depths, pattern, "vkitti2")
    items = []
    for path in paths:
        scene, number = path.parents[4].name, path.stem.removeprefix("depth_")
        image = images / scene / variation / "frames/rgb/Camera_0" / f"rgb_{number}.jpg"
        items.append(depth_item(safe_name(scene, number), partial(read_rgb, image), partial(_vkitti_truth, path)))
    return Benchmark(
        "vkitti2-depth", "depth", tuple(items), depth=VKITTI2, notes=(f"variation {variation}, Camera_0, full frame",)
    )


def _vkitti_truth(path: Path) -> DepthTruth:
    codes = read_png16(path)
    return DepthTruth(np.where(codes == 65535, np.inf, codes / 100.0).astype(np.float32))


def read_scannet_depth(folder: Path) -> Benchmark:
    """Read exported ScanNet frames: SCENE/color/N.jpg (1296x968) and SCENE/depth/N.png (640x480, millimetres).

    The picture is brought to the size of the depth map by area averaging.
    """
    paths = need_files(list(folder.glob("scene*/depth/*.png")), folder, "SCENE/depth/N.png", "scannet-depth")
    items = []
    for path in paths:
        image = path.parents[1] / "color" / f"{path.stem}.jpg"
        items.append(
            depth_item(
                safe_name(path.parents[1].name, path.stem),
                partial(_scannet_image, image, path),
                partial(_scannet_truth, path),
            )
        )
    return Benchmark("scannet-depth", "depth", tuple(items), depth=SCANNET, notes=("frames as found in the folder",))


def _scannet_image(path: Path, depth: Path) -> UInt8Image:
    height, width = read_png16(depth).shape
    image = read_rgb(path)
    return (
        image
        if image.shape[:2] == (height, width)
        else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    )


def _scannet_truth(path: Path) -> DepthTruth:
    return DepthTruth(read_png16(path).astype(np.float32) / np.float32(1000))
