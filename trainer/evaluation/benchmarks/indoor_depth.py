"""NYUv2, iBims-1, ETH3D and DIODE: depth as the data sets are downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.trainer.evaluation.benchmarks.files import (
    need_files,
    need_folder,
    read_float32,
    read_gray,
    read_npy,
    read_png16,
    read_rgb,
    safe_name,
    same_size,
)
from cavendish.trainer.evaluation.benchmarks.matlab import mat73_shapes, read_mat, read_mat73
from cavendish.trainer.evaluation.benchmarks.prompts import depth_prompt
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.metrics.depth import DepthProtocol
from cavendish.trainer.evaluation.tasks.depth import DepthTruth

NYUV2 = DepthProtocol(min_m=1e-3, max_m=10.0, crop="eigen_nyu")
IBIMS = DepthProtocol(min_m=1e-3, max_m=25.0)
ETH3D = DepthProtocol(min_m=1e-5, fit_max_side=1024)
DIODE = DepthProtocol(min_m=1e-3, clip_m=(0.6, 350.0))
_IBIMS_METRES = 50.0 / 65535
_NYU_MAT = "nyu_depth_v2_labeled.mat"


def depth_item(name: str, read_image: Callable[[], UInt8Image], read_truth: Callable[[], DepthTruth]) -> Item:
    """Make an item with the depth prompt."""
    prompt, spec = depth_prompt()
    return Item(name=name, prompt=prompt, read_image=read_image, read_truth=read_truth, spec=spec)


def read_nyuv2(folder: Path) -> Benchmark:
    """Read NYUv2: `nyu_depth_v2_labeled.mat` (v7.3) and `splits.mat`; the 654 test frames, rawDepths in metres.

    Public evaluation codes score against rawDepths (0 = no measurement), not against the in-painted depths.
    """
    path = folder / _NYU_MAT
    images, depths = mat73_shapes(path, ("images", "rawDepths"))
    if len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]):
        raise InputError(f"{path}: expected images (N, 3, W, H) and rawDepths (N, W, H), found {images} and {depths}")
    count = images[0]
    test = read_mat(folder / "splits.mat", ["testNdxs"])[0].ravel()
    if test.size and not 1 <= test.min() <= test.max() <= count:
        raise InputError(f"{folder / 'splits.mat'}: testNdxs run from {test.min()} to {test.max()}, {path} has {count}")
    if not np.array_equal(np.unique(test), np.sort(test.astype(np.int64))):
        raise InputError(f"{folder / 'splits.mat'}: testNdxs must be whole numbers, each of them once")
    items = tuple(
        depth_item(f"{index:04d}", partial(_nyu_image, path, index - 1), partial(_nyu_truth, path, index - 1))
        for index in (int(i) for i in test)
    )
    return Benchmark("nyuv2", "depth", items, expected=654, depth=NYUV2)


def _nyu_image(path: Path, index: int) -> UInt8Image:
    image = read_mat73(path, "images", index)
    if image.dtype != np.uint8:
        raise InputError(f"{path}: images are of {image.dtype}, expected uint8")
    return np.ascontiguousarray(image.T)  # MATLAB stores columns first


def _nyu_truth(path: Path, index: int) -> DepthTruth:
    return DepthTruth(read_mat73(path, "rawDepths", index).T.astype(np.float32))


def read_ibims(folder: Path) -> Benchmark:
    """Read iBims-1: ibims1_core_raw (rgb, depth as 16-bit PNG of 50 m / 65535, mask_invalid, mask_transp), or the
    .mat files of ibims1_core_mat. Both masks are nonzero where a pixel counts.
    """
    for choice in ("ibims1_core_raw", "."):
        if (folder / choice / "rgb").is_dir():
            root = folder / choice
            paths = need_files(list((root / "rgb").glob("*.png")), root / "rgb", "NAME.png", "ibims")
            items = [depth_item(safe_name(p.stem), partial(read_rgb, p), partial(_ibims_raw, root, p)) for p in paths]
            return Benchmark("ibims", "depth", tuple(items), expected=100, depth=IBIMS)
    root = need_folder(folder, "ibims1_core_mat", ".", what="ibims")
    found = list(root.glob("*.mat"))
    paths = need_files(found, root, "rgb/NAME.png (ibims1_core_raw) or NAME.mat (ibims1_core_mat)", "ibims")
    items = [depth_item(safe_name(p.stem), partial(_ibims_mat_image, p), partial(_ibims_mat, p)) for p in paths]
    return Benchmark("ibims", "depth", tuple(items), expected=100, depth=IBIMS)


def _ibims_raw(root: Path, image: Path) -> DepthTruth:
    depth_m = read_png16(root / "depth" / image.name).astype(np.float32) * np.float32(_IBIMS_METRES)
    masks = [read_gray(root / name / image.name) > 0 for name in ("mask_invalid", "mask_transp")]
    for mask in masks:
        same_size(image, depth_m, mask)
    return DepthTruth(depth_m, masks[0] & masks[1])


def _ibims_mat_image(path: Path) -> UInt8Image:
    (image,) = read_mat(path, ["data.rgb"])
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"{path}: data.rgb is {image.shape} of {image.dtype}, expected (H, W, 3) of uint8")
    return image


def _ibims_mat(path: Path) -> DepthTruth:
    depth_m, *masks = read_mat(path, ["data.depth", "data.mask_invalid", "data.mask_transp"])
    if depth_m.ndim != 2 or any(mask.shape != depth_m.shape for mask in masks):
        raise InputError(f"{path}: data.depth {depth_m.shape} and its masks must be one (H, W)")
    return DepthTruth(depth_m.astype(np.float32), (masks[0] > 0) & (masks[1] > 0))


def read_eth3d(folder: Path) -> Benchmark:
    """Read ETH3D high-resolution multi-view training: SCENE/images/dslr_images/*.JPG and
    SCENE/ground_truth_depth/dslr_images/*.JPG, the latter raw float32 metres in spite of their name.

    The archives may lie side by side; pictures and depths are matched by scene and file name.
    """
    if not folder.is_dir():
        raise InputError(f"eth3d: no folder {folder}")
    depths: dict[tuple[str, str], Path] = {}
    images: dict[tuple[str, str], Path] = {}
    for path in folder.rglob("dslr_images/*"):
        kind, scene = path.parent.parent.name, path.parent.parent.parent.name
        if kind in ("ground_truth_depth", "images"):
            (depths if kind == "ground_truth_depth" else images)[scene, path.name] = path
    need_files(list(depths.values()), folder, "SCENE/ground_truth_depth/dslr_images/NAME.JPG", "eth3d")
    lonely = sorted(set(depths) - set(images))
    if lonely:
        raise InputError(
            f"eth3d: no SCENE/images/dslr_images picture for {'/'.join(lonely[0])} ({len(lonely)} missing)"
        )
    items = tuple(
        depth_item(
            safe_name(scene, Path(name).stem),
            partial(read_rgb, images[scene, name]),
            partial(_eth3d_truth, depths[scene, name], images[scene, name]),
        )
        for scene, name in sorted(depths)
    )
    return Benchmark("eth3d", "depth", items, expected=454, depth=ETH3D)


def _eth3d_truth(path: Path, image: Path) -> DepthTruth:
    height, width = read_rgb(image).shape[:2]
    return DepthTruth(read_float32(path, (height, width)))


def read_diode(folder: Path, domain: str = "indoors") -> Benchmark:
    """Read DIODE val: DOMAIN/scene_*/scan_*/NAME.png with NAME_depth.npy (metres) and NAME_depth_mask.npy."""
    root = need_folder(folder, f"val/{domain}", domain, what="diode")
    pattern = "scene_*/scan_*/*_depth.npy"
    paths = need_files(list(root.glob(pattern)), root, pattern, "diode")
    items = tuple(
        depth_item(
            safe_name(path.name.removesuffix("_depth.npy")),
            partial(read_rgb, path.with_name(path.name.removesuffix("_depth.npy") + ".png")),
            partial(_diode_truth, path),
        )
        for path in paths
    )
    return Benchmark(
        "diode-indoor" if domain == "indoors" else "diode-outdoor",
        "depth",
        items,
        expected=325 if domain == "indoors" else 446,
        depth=DIODE,
    )


def _diode_truth(path: Path) -> DepthTruth:
    depth_m = read_npy(path)
    mask = read_npy(path.with_name(path.name.replace("_depth.npy", "_depth_mask.npy")))
    depth_m = depth_m[..., 0] if depth_m.ndim == 3 else depth_m
    if depth_m.ndim != 2 or mask.shape != depth_m.shape:
        raise InputError(f"{path}: depth {depth_m.shape} and mask {mask.shape} must be one (H, W)")
    return DepthTruth(depth_m.astype(np.float32), mask > 0)
