"""Readers of meshes, environment maps and public benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from encoders.sample import InputError
from tests.fuzz.mutations import to_json
from tests.fuzz.readers import Reader, picture, put


def _write_meshes(folder: Path) -> None:
    import trimesh

    from tests.render.test_folders import textured_box

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
    from render.environments import load_environment
    from render.folders import find_files, fingerprint
    from render.meshfiles import read_mesh

    find_files.cache_clear()
    fingerprint((folder / "m",))
    for file in find_files((folder / "m",)).values():
        try:
            if file.is_map:
                load_environment(file)
            else:
                geometry, *_ = read_mesh(file)
                assert np.isfinite(geometry.positions).all()
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _benchmark(name: str, write: Callable[[Path], object], *broken: str) -> Reader:
    def read(folder: Path) -> None:
        from trainer.evaluation.benchmarks import read_benchmark

        for item in read_benchmark(name, folder).items[:3]:
            if item.read_image is not None:
                try:
                    item.read_image()
                except InputError:
                    continue
            if item.read_truth is not None:
                item.read_truth()

    return Reader(f"benchmark: {name}", write, broken, read)


def _write_refcocog(folder: Path) -> None:
    from tests.trainer.evaluation.test_mask_benchmarks import REFS, _refcocog

    _refcocog(folder, REFS, ".json")


def _write_saco(folder: Path) -> None:
    from tests.trainer.evaluation.test_mask_benchmarks import _saco

    _saco(folder)


def _write_nuscenes(folder: Path) -> None:
    from tests.trainer.evaluation.test_depth_benchmarks import _nuscenes

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
    labels = cv2.imencode(".png", np.full((64, 64), 7, np.uint8))[1].tobytes()
    put(folder, f"gtFine/{stem}_gtFine_labelIds.png", labels)


def _write_kitti(folder: Path) -> None:
    from tests.trainer.evaluation.test_depth_benchmarks import _kitti

    _kitti(folder)


def _write_diode(folder: Path) -> None:
    stem = "val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
    put(folder, f"{stem}.png", picture(side=24))
    np.save(folder / f"{stem}_depth.npy", np.full((24, 24, 1), 2.0, np.float32))
    np.save(folder / f"{stem}_depth_mask.npy", np.ones((24, 24), np.float32))


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
)
