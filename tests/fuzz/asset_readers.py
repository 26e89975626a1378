"""Readers of meshes, environment maps and public benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cavendish.encoders.sample import InputError
from tests.fuzz.mutations import to_json
from tests.fuzz.readers import Reader, picture, png, put


def _write_meshes(folder: Path) -> None:
    import trimesh

    from tests.render.assets.test_folders import textured_box

    put(folder, "m/chair/box.glb", textured_box((0.5, 0.9, 0.4)).export(file_type="glb"))
    put(folder, "m/mug/red.obj", "mtllib red.mtl\nv 0 0 0\nv 80 0 0\nv 80 95 0\nv 0 95 40\nvt 0 0\nvt 1 0\nvt 1 1\n"
                                 "usemtl m\nf 1/1 2/2 3/3\nf 1/1 3/3 4/2\nvn 0 0 1\nf 1//1 2//1 3//1\n")  # fmt: skip
    put(folder, "m/mug/red.mtl", "newmtl m\nKd 0.8 0.1 0.1\nKs 0 0 0\nNs 10\nd 1\nPr 0.3\nPm 0.5\nmap_Kd red.png\n")
    put(folder, "m/mug/red.png", picture(side=32))
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.2)
    ball.visual.vertex_colors = np.tile(np.array([[200, 30, 60, 255]], np.uint8), (len(ball.vertices), 1))
    put(folder, "m/vase/ball.ply", ball.export(file_type="ply"))
    put(folder, "m/vase/text.ply", ball.export(file_type="ply", encoding="ascii"))
    rows = np.linspace(0.1, 3, 32)[:, None, None] * np.ones((32, 64, 3))
    put(folder, "m/skies/dawn.hdr", cv2.imencode(".hdr", rows.astype(np.float32))[1].tobytes())
    put(folder, "m/assets.yaml", "licence: CC0-1.0\nauthor: Ada\nfiles:\n  vase/ball.ply: {author: G, height_m: 0.3}\n")


def _read_meshes(folder: Path) -> None:
    from cavendish.render.assets.environments import load_environment
    from cavendish.render.assets.folders import find_files, fingerprint
    from cavendish.render.assets.prepare import prepare

    find_files.cache_clear()
    fingerprint((folder / "m",))
    for file in find_files((folder / "m",)).values():
        try:
            if file.is_map:
                load_environment(file)
            else:
                # all that reads it in our own code; Blender's importers run in a process that may die
                with tempfile.TemporaryDirectory() as scratch:
                    prepare(file.path, file.root, Path(scratch))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _benchmark(name: str, write: Callable[[Path], object], *broken: str, form: str = "") -> Reader:
    def read(folder: Path) -> None:
        from cavendish.trainer.evaluation.benchmarks import read_benchmark

        for item in read_benchmark(name, folder).items[:3]:
            if item.read_image is not None:
                try:
                    item.read_image()
                except InputError:
                    continue
            if item.read_truth is not None:
                item.read_truth()

    return Reader(f"benchmark: {name}{form}", write, broken, read)


def _write_refcocog(folder: Path) -> None:
    from tests.trainer.evaluation.benchmarks.test_mask_benchmarks import REFS, _refcocog

    _refcocog(folder, REFS, ".json")


def _write_saco(folder: Path) -> None:
    from tests.trainer.evaluation.benchmarks.test_mask_benchmarks import _saco

    _saco(folder)


def _write_nuscenes(folder: Path) -> None:
    from tests.trainer.evaluation.benchmarks.test_depth_benchmarks import _nuscenes

    _nuscenes(folder, np.array([[1.0, 0, 9], [2.0, 1, 5]]))


def _write_reasonseg(folder: Path) -> None:
    put(folder, "val/1.jpg", picture(kind=".jpg"))
    shapes = [
        {"label": "target", "points": [[5, 5], [25, 5], [25, 25]]},
        {"label": "ignore", "points": [[1, 1], [9, 9]]},
    ]
    put(folder, "val/1.json", to_json({"text": ["what holds tea?"], "is_sentence": True, "shapes": shapes}))


def _write_genai(folder: Path) -> None:
    put(folder, "genai_image.json", to_json({"00001": {"id": "00001", "prompt": "a"}, "2": {"id": "2", "prompt": "b"}}))


def _write_imgedit(folder: Path) -> None:
    put(folder, "Benchmark/singleturn/animal/1.jpg", picture(kind=".jpg"))
    entry = {"id": "animal/1.jpg", "prompt": "Change the shell.", "edit_type": "adjust"}
    put(folder, "Benchmark/singleturn/basic_edit.json", to_json({"1082": entry}))


def _write_cityscapes(folder: Path) -> None:
    stem = "val/frankfurt/frankfurt_000000_000294"
    put(folder, f"leftImg8bit/{stem}_leftImg8bit.png", picture(side=64))
    put(folder, f"gtFine/{stem}_gtFine_labelIds.png", png(np.full((64, 64), 7, np.uint8)))


def _write_kitti(folder: Path) -> None:
    from tests.trainer.evaluation.benchmarks.test_depth_benchmarks import _kitti

    _kitti(folder)


def _write_diode(folder: Path) -> None:
    stem = "val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
    put(folder, f"{stem}.png", picture(side=24))
    np.save(folder / f"{stem}_depth.npy", np.full((24, 24, 1), 2.0, np.float32))
    np.save(folder / f"{stem}_depth_mask.npy", np.ones((24, 24), np.float32))


def _write_nyuv2(folder: Path) -> None:
    import h5py
    import scipy.io

    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.zeros((3, 3, 16, 12), np.uint8)
        file["rawDepths"] = np.ones((3, 16, 12), np.float32)
    scipy.io.savemat(folder / "splits.mat", {"testNdxs": np.array([[1], [3]])})


def _write_ibims_mat(folder: Path) -> None:
    import scipy.io

    masks = {name: np.ones((12, 16), np.uint8) for name in ("mask_invalid", "mask_transp")}
    data = {"rgb": np.zeros((12, 16, 3), np.uint8), "depth": np.ones((12, 16)), **masks}
    (folder / "ibims1_core_mat").mkdir()
    scipy.io.savemat(folder / "ibims1_core_mat/a.mat", {"data": data})
    scipy.io.savemat(folder / "ibims1_core_mat/b.mat", {"data": data}, do_compression=True)


def _write_ibims_raw(folder: Path) -> None:
    put(folder, "ibims1_core_raw/rgb/a.png", picture(side=32))
    put(folder, "ibims1_core_raw/depth/a.png", png(np.full((32, 32), 9999, np.uint16)))
    for name in ("mask_invalid", "mask_transp"):
        put(folder, f"ibims1_core_raw/{name}/a.png", png(np.full((32, 32), 255, np.uint8)))


def _write_eth3d(folder: Path) -> None:
    put(folder, "office/images/dslr_images/a.JPG", picture(side=24, kind=".jpg"))
    put(folder, "office/ground_truth_depth/dslr_images/a.JPG", np.full((24, 24), 2, "<f4").tobytes())


def _write_depth_pngs(folder: Path) -> None:
    """Virtual KITTI 2 and ScanNet, whose depth is 16-bit PNG."""
    frames = "Scene01/clone/frames"
    put(folder, f"vkitti_2.0.3_rgb/{frames}/rgb/Camera_0/rgb_00000.jpg", picture(side=24, kind=".jpg"))
    put(folder, f"vkitti_2.0.3_depth/{frames}/depth/Camera_0/depth_00000.png", png(np.full((24, 24), 999, np.uint16)))
    put(folder, "scene0011_00/color/0.jpg", picture(side=32, kind=".jpg"))
    put(folder, "scene0011_00/depth/0.png", png(np.full((24, 24), 2500, np.uint16)))


def _write_normals(folder: Path) -> None:
    """DSINE's sets, of which NYUv2 is 8-bit PNG, Virtual KITTI 16-bit PNG and iBims-1 OpenEXR; DIODE's are .npy."""
    import OpenEXR

    toward = np.zeros((24, 24, 3), np.float32)
    toward[..., 2] = 1
    for place in ("nyuv2/test/1", "ibims/ibims/a", "vkitti/Scene01/1"):
        put(folder, f"dsine_eval/{place}_img.png", picture(side=24))
    put(folder, "dsine_eval/nyuv2/test/1_normal.png", png(np.round((toward[..., ::-1] + 1) * 127.5).astype(np.uint8)))
    put(
        folder,
        "dsine_eval/vkitti/Scene01/1_normal.png",
        png(np.round((toward[..., ::-1] + 1) * 32767.5).astype(np.uint16)),
    )
    exr = OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": toward})
    exr.write(str(folder / "dsine_eval/ibims/ibims/a_normal.exr"))
    put(folder, "val/indoors/scene_1/scan_1/1.png", picture(side=24))
    np.save(folder / "val/indoors/scene_1/scan_1/1_normal.npy", toward)


READERS: tuple[Reader, ...] = (
    Reader("GLB", _write_meshes, ("m/chair/*.glb",), _read_meshes),
    Reader("OBJ, MTL", _write_meshes, ("m/mug/*",), _read_meshes),
    Reader("PLY, HDR, assets.yaml", _write_meshes, ("m/vase/*", "m/skies/*", "m/*.yaml"), _read_meshes),
    _benchmark("refcocog", _write_refcocog, "refcocog/*"),
    _benchmark("saco-gold", _write_saco, "*.json"),
    _benchmark("nuscenes", _write_nuscenes, "v1.0-mini/*", "samples/LIDAR_TOP/*"),
    _benchmark("reasonseg", _write_reasonseg, "val/*"),
    _benchmark("genai-bench", _write_genai, "*.json"),
    _benchmark("imgedit", _write_imgedit, "Benchmark/singleturn/*.json"),
    _benchmark("cityscapes", _write_cityscapes, "*/val/*/*"),
    _benchmark("kitti", _write_kitti, "*.txt"),
    _benchmark("diode-indoor", _write_diode, "val/*/*/*/*"),
    _benchmark("nyuv2", _write_nyuv2, "*.mat"),
    _benchmark("ibims", _write_ibims_mat, "ibims1_core_mat/*", form=" (.mat)"),
    _benchmark("ibims", _write_ibims_raw, "ibims1_core_raw/*/*"),
    _benchmark("eth3d", _write_eth3d, "office/*/*/*"),
    _benchmark("vkitti2-depth", _write_depth_pngs, "vkitti*/Scene01/*/*/*/*/*"),
    _benchmark("scannet-depth", _write_depth_pngs, "scene*/*/*"),
    _benchmark("nyuv2-normals", _write_normals, "dsine_eval/nyuv2/*/*"),
    _benchmark("ibims-normals", _write_normals, "dsine_eval/ibims/*/*"),
    _benchmark("vkitti-normals", _write_normals, "dsine_eval/vkitti/*/*"),
    _benchmark("diode-normals", _write_normals, "val/*/*/*/*"),
)
