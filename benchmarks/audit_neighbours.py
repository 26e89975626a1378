"""Measures what the audit calls pictures of the same place that are no copies: stereo pairs, frames, other views.

    python benchmarks/audit_neighbours.py [--opencv-data FOLDER] [--scenes 12]

FOLDER is `examples/data` of Debian's opencv-doc, whose stereo pairs, photographs of the same object and videos are used
when it is given. Renders are rooms, table tops and outdoor scenes of `render` in unlit surface colours, 480 x 360 px.
The first picture of every pair is a benchmark image, the second is looked for; pairs of different scenes are negatives.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from benchmarks.audit import _working
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import build_pack
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.render.camera.cameras import draw_camera
from cavendish.render.engines.pyrender import Raster
from cavendish.render.geometry.mesh import linear_to_srgb
from cavendish.render.geometry.meshes import build_scene
from cavendish.render.labels.checks import ViewRejected
from cavendish.render.scenes.recipe import Recipe
from cavendish.render.scenes.scenes import draw_palette, draw_recipe

Pair = tuple[str, UInt8Image, UInt8Image]
STEREO = (("aloeL.jpg", "aloeR.jpg"), *((f"left{n:02d}.jpg", f"right{n:02d}.jpg") for n in (1, 3, 5, 7, 9, 12)))
OTHER_PHOTO = (("basketball1.png", "basketball2.png"), ("leuvenA.jpg", "leuvenB.jpg"), ("graf1.png", "graf3.png"))
VIDEOS = {"vtest.avi": (0, 100, 250), "Megamind.avi": (20, 100, 180), "tree.avi": (5, 25)}
LAGS = (1, 5, 30)
KINDS = ("room", "table top", "outdoor")
VERDICTS = ("same scene", "leak", "other review", "clean")
SIZE_PX = (480, 360)


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opencv-data", type=Path)
    parser.add_argument("--scenes", type=int, default=12, help="rendered scenes")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs: list[Pair] = [("stereo pair", *(_wheel(f"motorcycle_{side}.png") for side in ("left", "right")))]
    if arguments.opencv_data is not None:
        pairs += photographs(arguments.opencv_data)
    pairs += renders(arguments.scenes)
    print(measure(pairs))


def measure(pairs: list[Pair]) -> str:
    """Return the table."""
    counts: dict[str, Counter[str]] = {}
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for number, (_, first, _) in enumerate(pairs):
            (folder / f"{number:04d}.png").write_bytes(encode_png(first))
        pack = build_pack("neighbours", folder, Path(place) / "pack", pixels=True)
        for number, (group, first, second) in enumerate(pairs):
            findings = scan_image(second, b"", (pack,), Thresholds())[1]
            mine = [finding for finding in findings if pairs[int(finding.image[:4])][1] is first]
            kinds = {"same scene" if f.kind == "same-scene" else f.level for f in mine}
            verdict = next(
                (kind for kind in ("leak", "same scene") if kind in kinds), "other review" if mine else "clean"
            )
            counts.setdefault(group, Counter())[verdict] += 1
            wrong += [
                f"{group} {number} as {pairs[int(f.image[:4])][0]} {int(f.image[:4])} ({f.level}, {f.kind}, {f.score})"
                for f in findings
                if f not in mine and not _same_source(pairs, number, int(f.image[:4]))
            ]
    lines = ["| pairs | number | " + " | ".join(VERDICTS) + " |", "|---" * (2 + len(VERDICTS)) + "|"]
    for group, found in counts.items():
        cells = " | ".join(str(found[verdict]) for verdict in VERDICTS)
        lines.append(f"| {group} | {sum(found.values())} | {cells} |")
    return "\n".join([*lines, "", f"Between different scenes: {len(wrong)} findings. {'; '.join(wrong)}"])


def _same_source(pairs: list[Pair], a: int, b: int) -> bool:
    """Tell pairs of one video or of one kind of calibration board, which show the same things."""
    first, second = (pairs[number][0].partition(",")[0] for number in (a, b))
    return first == second and first != "render"


def photographs(folder: Path) -> list[Pair]:
    """Read stereo pairs, other photographs of an object, and frames of videos."""
    read = lambda name: _working(decode_rgb((folder / name).read_bytes(), name))
    pairs: list[Pair] = [("stereo pair", read(a), read(b)) for a, b in STEREO]
    pairs += [("other photograph of the object", read(a), read(b)) for a, b in OTHER_PHOTO]
    for name, starts in VIDEOS.items():
        frames = _frames(folder / name)
        for lag in LAGS:
            pairs += [
                (f"frames of {name}, {lag} apart", frames[start], frames[start + lag])
                for start in starts
                if start + lag < len(frames)
            ]
    return pairs


def _frames(path: Path) -> list[UInt8Image]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < 300:
        there, frame = video.read()
        if not there:
            break
        frames.append(_working(np.ascontiguousarray(frame[..., ::-1])))
    return frames


def renders(scenes: int) -> list[Pair]:
    """Draw scenes from a camera, from the same one moved sideways, and from elsewhere."""
    raster = Raster(*SIZE_PX)
    pairs: list[Pair] = []
    for number in range(scenes):
        rng = np.random.default_rng([20_260, number])
        recipe = draw_recipe({KINDS[number % len(KINDS)]: 1.0}, rng, draw_palette(rng, 300), *SIZE_PX)
        first = _drawn(raster, recipe)
        pairs += [
            (f"render, camera moved {round(100 * move_m)} cm", first, _drawn(raster, _moved(recipe, move_m)))
            for move_m in (0.02, 0.1, 0.3)
        ]
        try:
            camera = draw_camera(recipe, build_scene(recipe), rng)
        except ViewRejected:
            continue
        pairs.append(("render, from elsewhere", first, _drawn(raster, replace(recipe, camera=camera))))
    raster.close()
    return pairs


def _drawn(raster: Raster, recipe: Recipe) -> UInt8Image:
    light = linear_to_srgb(raster.surface_colors(recipe, build_scene(recipe)))
    return np.clip(np.rint(255 * light), 0, 255).astype(np.uint8)


def _moved(recipe: Recipe, move_m: float) -> Recipe:
    """Move the camera along its own x axis."""
    assert recipe.camera.camera_to_world is not None
    pose = np.array(recipe.camera.camera_to_world).reshape(4, 4).copy()
    pose[:3, 3] += move_m * pose[:3, 0]
    return replace(recipe, camera=replace(recipe.camera, camera_to_world=tuple(pose.reshape(-1).tolist())))


def _wheel(name: str) -> UInt8Image:
    return _working(decode_rgb(files("skimage.data").joinpath(name).read_bytes(), name))


if __name__ == "__main__":
    main()
