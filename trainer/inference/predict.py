"""Asks a generator about a user's own pictures and writes what its answers mean: arrays, masks, clouds, a page to see.

For every picture NAME and the one question asked of all:

- `NAME.drawn.png`, what the generator drew (with more passes also `NAME.drawn-1.png`, ...);
- depth: `NAME.depth.npy`, (H, W) float32 planar metres, +inf where there is no surface; a coloured cloud if asked;
- normals: `NAME.normals.npy`, (H, W, 3) float32 in camera space;
- segmentation: `NAME.masks.json`, COCO results (compressed run lengths) with the names, and `NAME.labels.png`;
- `NAME.sheet.png`, the picture, the drawing and the decoded answer side by side;

and `predictions.json` over all of them. Arrays have the picture's own size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cavendish.encoders.augment import resize_image
from cavendish.encoders.sample import Example, InputError, UInt8Image
from cavendish.encoders.tasks.depth import DepthTask
from cavendish.encoders.tasks.registry import VISION_TASKS, decode_example, find_task, read_question
from cavendish.encoders.tasks.task import Question
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.mixture.draw import Sizes, nearest_size
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import write_atomic
from cavendish.mixing.visualize import Panel, grid
from cavendish.trainer.evaluation.tasks.task import Answer, find_evaluation, resize_nearest
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Precision, check_prompts
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.parallel import (
    SINGLE_PROCESS,
    Process,
    gather_to_rank0,
    init_distributed,
    move_generator,
    started_by_torchrun,
)

PREDICTIONS_SCHEMA = "cavendish-predictions/1"
MAX_FILE_BYTES = 200_000_000
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

Draw = Callable[[Sequence[Example]], list[UInt8Image]]
"""Draws the answer to each example's prompt and source."""


@dataclass(frozen=True)
class Request:
    """What to ask of which pictures, and how.

    Args:
        pictures: files, and folders of files (not searched deeper).
        task: see `encoders.tasks.registry.USAGE`.
        size: side of the pictures the generator draws, in pixels, or (height, width) of buckets; that of its training.
        steps: Euler steps.
        passes: how often each question is put, in other words and colours and with other noise; answers are voted on.
        points: also write a coloured cloud of a depth answer.
        fov_deg: horizontal field of view that the cloud is unprojected with.
        device: see `trainer.parallel.find_device`.
        precision: of the network.
        guidance: scale of classifier-free guidance; 1: none.
        batch: examples drawn at a time: passes times images.
    """

    pictures: tuple[Path, ...]
    task: str
    size: Sizes = 64
    steps: int = 4
    passes: int = 1
    seed: int = 0
    points: Literal["ply", "glb"] | None = None
    fov_deg: float = 55.0
    device: str = "cpu"
    precision: Precision = "float32"
    batch: int = 8
    guidance: float = 1.0


def predict(generator: Path, request: Request, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Ask a saved generator; write what the module's docstring lists. Returns the content of predictions.json.

    An image of a folder that cannot be read is skipped and listed under "failed" with its reason. The processes of
    torchrun share the images; the first returns what all have written, the others nothing.

    Raises:
        InputError: no generator or no image there, a task that is not known, or an image named by itself is bad.
    """
    with init_distributed(started_by_torchrun(), request.device) as process:
        loaded = move_generator(load_generator(generator, request.precision), process.device)
        sizes = [(request.size, request.size)] if isinstance(request.size, int) else request.size
        for height, width in sizes:
            if height % loaded.spec.pixel_multiple or width % loaded.spec.pixel_multiple:
                raise InputError(
                    f"{height}x{width}: {loaded.spec.name} draws multiples of {loaded.spec.pixel_multiple}"
                )
        check_prompts(loaded, [read_question(request.task, number).prompt for number in range(request.passes)])

        def draw(examples: Sequence[Example]) -> list[UInt8Image]:
            return predict_examples(
                loaded,
                examples,
                request.steps,
                request.seed,
                request.batch,
                indices=[position % request.passes for position in range(len(examples))],  # alike for every image
                precision=request.precision,
                guidance=request.guidance,
            )

        return predict_with(draw, request, out, progress, process)


def predict_with(
    draw: Draw, request: Request, out: Path, progress: Progress | None = None, process: Process = SINGLE_PROCESS
) -> dict[str, Any]:
    """Ask whatever draws; see `predict`."""
    questions = [read_question(request.task, number) for number in range(request.passes)]
    if request.passes > 1 and questions[0].task not in VISION_TASKS:
        raise InputError(f"--passes {request.passes}: pictures cannot be voted on; use 1 for {questions[0].task}")
    if request.points is not None and questions[0].task != DepthTask.name:
        raise InputError(f"--points needs the task depth, not {request.task!r}")
    paths = list(enumerate(sorted(_named(_find(request.pictures)).items())))[process.rank :: process.world]
    out.mkdir(parents=True, exist_ok=True)
    entries: dict[int, dict[str, Any]] = {}
    at_once = max(1, request.batch // request.passes)
    for start in range(0, len(paths), at_once):
        pictures: dict[int, tuple[str, Path, UInt8Image]] = {}
        for number, (name, path) in paths[start : start + at_once]:
            try:
                pictures[number] = name, path, _read(path)
            except InputError as error:
                if path in request.pictures:
                    raise
                entries[number] = {"file": path.name, "reason": str(error)}
        answers = _ask(draw, pictures, questions, request.size)
        for (number, (name, path, picture)), (drawn, answer) in zip(pictures.items(), answers, strict=True):
            written = _write(drawn, answer, questions[0], picture, name, request, out)
            entries[number] = {"file": path.name, **written}
        if progress is not None:
            progress(min(start + at_once, len(paths)), len(paths))
    gathered = gather_to_rank0(entries, process)
    values = {
        "schema": PREDICTIONS_SCHEMA,
        "task": request.task,
        "questions": [{"prompt": question.prompt, "spec": dict(question.spec)} for question in questions],
        "size": request.size,
        "steps": request.steps,
        "seed": request.seed,
        "predictions": [entry for entry in gathered if "reason" not in entry],
        "failed": [entry for entry in gathered if "reason" in entry],
    }
    if process.rank == 0:
        write_atomic(out / "predictions.json", canonical_json(values))
    return values


def _find(pictures: Sequence[Path]) -> list[Path]:
    """List the files to ask about; a folder stands for the pictures in it."""
    found: list[Path] = []
    for path in pictures:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
            if not inside:
                raise InputError(f"{path}: no {', '.join(_SUFFIXES)} in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such picture or folder")
    return found


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Name the files to write after the pictures."""
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise InputError(f"{path} and {named[path.stem]} would both write {path.stem}.*; rename one of them")
        named[path.stem] = path
    return named


def _read(path: Path) -> UInt8Image:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes is over the limit of {MAX_FILE_BYTES}")
    return decode_rgb(path.read_bytes(), str(path))


def _ask(
    draw: Draw, pictures: Mapping[int, tuple[str, Path, UInt8Image]], questions: Sequence[Question], sizes: Sizes
) -> Iterator[tuple[list[UInt8Image], Answer]]:
    """Ask every question about some images in one batch; yield what was drawn of each, and one answer made of it."""
    examples: list[Example] = []
    for name, _, picture in pictures.values():
        small = resize_image(picture, *nearest_size(picture.shape[0], picture.shape[1], sizes))
        examples += [
            Example(
                f"{name}.{question.task}.{number}",
                question.task,
                question.prompt,
                small if find_task(question.task).has_source else None,
                np.zeros_like(small),
                question.spec,
            )
            for number, question in enumerate(questions)
        ]
    images = draw(examples) if examples else []
    for start in range(0, len(images), len(questions)):
        drawn = images[start : start + len(questions)]
        if questions[0].task not in VISION_TASKS:
            yield drawn, Answer()
            continue
        decoded = [decode_example(question.spec, rgb) for question, rgb in zip(questions, drawn, strict=True)]
        yield drawn, find_evaluation(questions[0].task).answer(questions[0].spec, decoded)


def _write(
    drawn: Sequence[UInt8Image],
    answer: Answer,
    question: Question,
    picture: UInt8Image,
    name: str,
    request: Request,
    out: Path,
) -> dict[str, Any]:
    """Write the files of one image; return its entry of predictions.json."""
    size = picture.shape[:2]
    files: list[str] = []
    notes: dict[str, str] = {}

    def put(ending: str, data: bytes) -> None:
        write_atomic(out / f"{name}.{ending}", data)
        files.append(f"{name}.{ending}")

    for number, image in enumerate(drawn):
        put(f"drawn-{number}.png" if number else "drawn.png", encode_png(image))
    for ending, array in answer.arrays.items():
        put(f"{ending}.npy", _npy(resize_nearest(array, size)))
    if request.points is not None:
        cloud = _cloud(answer, picture, request)
        if cloud is None:
            notes["points"] = "none: no pixel of the answer stands for a depth"
        else:
            put(f"points.{request.points}", cloud)
    if answer.labels is not None:
        labels = resize_nearest(answer.labels, size).astype(np.uint16)
        put("labels.png", encode_png(labels))
        put("masks.json", canonical_json(_coco_results(labels, answer, name)))
    panels: list[Panel] = [("picture", picture), ("drawn", drawn[0])]
    if answer.arrays or answer.labels is not None:
        panels.append(find_evaluation(question.task).draw_answer(answer, picture))
    put("sheet.png", encode_png(grid([(f"{name}: {question.prompt}", panels)], cell=320)))
    return {"name": name, "width": size[1], "height": size[0], "files": files, **notes}


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _coco_results(labels: NDArray[np.uint16], answer: Answer, name: str) -> list[dict[str, Any]]:
    """Return one COCO result for every name that has pixels; boxes are (x, y, width, height)."""
    classes = list(dict.fromkeys(answer.names))
    results = []
    for number, (category, score) in enumerate(zip(answer.names, answer.scores, strict=True), start=1):
        mask = labels == number
        if not mask.any():
            continue
        run_lengths = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        results.append(
            {
                "image_id": name,
                "category_id": classes.index(category) + 1,
                "category": category,
                "segmentation": {"size": list(labels.shape), "counts": run_lengths["counts"].decode()},
                "bbox": [float(v) for v in coco_mask.toBbox(run_lengths)],
                "area": int(mask.sum()),
                "score": round(score, 6),
            }
        )
    return results


def _cloud(answer: Answer, picture: UInt8Image, request: Request) -> bytes | None:
    """Unproject confident pixels to camera space (x right, y up, z toward the viewer), metres; None without any."""
    import trimesh  # takes a second, and few ask for clouds

    assert answer.confident is not None
    depth_m = answer.arrays["depth"]
    height, width = depth_m.shape
    keep = np.isfinite(depth_m) & answer.confident
    if not keep.any():
        return None
    focal = 0.5 * picture.shape[1] / np.tan(np.radians(request.fov_deg) / 2)
    x = ((np.arange(width) + 0.5) / width - 0.5) * picture.shape[1] / focal
    y = (0.5 - (np.arange(height) + 0.5) / height) * picture.shape[0] / focal
    rays = np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], axis=-1)
    points = (rays * depth_m[..., None])[keep]
    colors = np.insert(resize_image(picture, height, width)[keep], 3, 255, axis=1)
    cloud = trimesh.PointCloud(points, colors)
    exported = cloud.export(file_type=request.points)
    assert isinstance(exported, bytes)
    return exported
