"""Surface normal sets: NYUv2, ScanNet, iBims-1 and Virtual KITTI as released by DSINE, and DIODE."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.normals import CONVENTIONS, normals_from
from cavendish.encoders.sample import InputError
from cavendish.mixing.images import decode_png16
from cavendish.trainer.evaluation.benchmarks.files import (
    need_files,
    need_folder,
    read_bytes,
    read_exr,
    read_npy,
    read_rgb,
    safe_name,
    same_size,
)
from cavendish.trainer.evaluation.benchmarks.prompts import normals_prompt
from cavendish.trainer.evaluation.items import Benchmark, Item
from cavendish.trainer.evaluation.tasks.normals import NormalsTruth

_DSINE_COUNTS = {"nyuv2": 654, "scannet": 300, "ibims": 100, "vkitti": 1000}


def read_dsine(folder: Path, name: str) -> Benchmark:
    """Read one set of DSINE's evaluation archive: NAME/SCENE/*_img.{png,jpg} beside *_normal.{png,exr}.

    NYUv2 and ScanNet are 8-bit PNG, Virtual KITTI 16-bit PNG, iBims-1 OpenEXR; all hold the axes left, up, toward the
    viewer. A PNG pixel counts when it is not black, an EXR pixel when its vector is longer than 0.5.
    """
    scenes = {"nyuv2": "test", "ibims": "ibims"}.get(name, "scene*" if name == "scannet" else "Scene*")
    root = need_folder(folder, f"dsine_eval/{name}", name, ".", what=f"{name}-normals")
    found = [path for ending in ("png", "jpg") for path in root.glob(f"{scenes}/*_img.{ending}")]
    paths = need_files(found, root, f"{scenes}/N_img.png", f"{name}-normals")
    return Benchmark(
        f"{name}-normals", "normals", tuple(_dsine_item(path, name) for path in paths), expected=_DSINE_COUNTS[name]
    )


def _dsine_item(image: Path, name: str) -> Item:
    stem = image.stem.removesuffix("_img")
    truth = image.with_name(f"{stem}_normal.{'exr' if name == 'ibims' else 'png'}")
    prompt, spec = normals_prompt()
    return Item(
        name=safe_name(image.parent.name, stem),
        prompt=prompt,
        read_image=partial(read_rgb, image),
        read_truth=partial(_dsine_truth, truth, name),
        spec=spec,
    )


def _dsine_truth(path: Path, name: str) -> NormalsTruth:
    if name == "ibims":
        vectors = read_exr(path)
        valid = np.linalg.norm(vectors, axis=-1) > 0.5
    else:
        codes: NDArray[Any] = (
            decode_png16(read_bytes(path), str(path), 3).astype(np.float64) / 65535
            if name == "vkitti"
            else read_rgb(path).astype(np.float64) / 255
        )
        valid = codes.sum(axis=-1) > 0
        vectors = (codes * 2 - 1).astype(np.float32)
    return NormalsTruth(_facing(normals_from(vectors, "dsine"), valid, path), valid)


def read_diode_normals(folder: Path, convention: str = "opengl") -> Benchmark:
    """Read DIODE val normals, indoors: NAME.png beside NAME_normal.npy (H, W, 3), (0, 0, 0) where unknown.

    Args:
        convention: axes of the files, a name of `encoders.codecs.normals.CONVENTIONS`; not stated by the data set.
            Files whose normals mostly point away from the camera under it are refused.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"diode-normals: axes {convention!r} are not known; known: {', '.join(CONVENTIONS)}")
    root = need_folder(folder, "val/indoors", "indoors", what="diode-normals")
    pattern = "scene_*/scan_*/*_normal.npy"
    paths = need_files(list(root.glob(pattern)), root, pattern, "diode-normals")
    prompt, spec = normals_prompt()
    items = []
    for path in paths:
        stem = path.name.removesuffix("_normal.npy")
        image = path.with_name(f"{stem}.png")
        items.append(
            Item(
                safe_name(stem), prompt, partial(read_rgb, image), partial(_diode_truth, path, image, convention), spec
            )
        )
    return Benchmark(
        "diode-normals",
        "normals",
        tuple(items),
        expected=325,
        notes=(
            f"axes taken as {convention!r}: the data set does not state them",
            "published figures are for 8-bit PNG copies of this truth",
        ),
    )


def _diode_truth(path: Path, image: Path, convention: str) -> NormalsTruth:
    vectors = read_npy(path)
    if vectors.ndim != 3 or vectors.shape[2] != 3 or vectors.dtype.kind != "f":
        raise InputError(f"{path}: {vectors.dtype} {vectors.shape}, expected (H, W, 3) floating point")
    same_size(image, read_rgb(image), vectors)
    vectors = np.nan_to_num(vectors.astype(np.float32))
    valid = np.linalg.norm(vectors, axis=-1) > 0.5
    return NormalsTruth(_facing(normals_from(vectors, convention), valid, path), valid)


def _facing(normals: NDArray[np.float32], valid: NDArray[np.bool_], path: Path) -> NDArray[np.float32]:
    """Return `normals`, refusing a map that mostly points away from the viewer: its axes are not what we think."""
    if valid.any() and float((normals[..., 2][valid] < 0).mean()) > 0.5:
        raise InputError(f"{path}: most normals point away from the camera: the file has other axes than expected")
    return normals
