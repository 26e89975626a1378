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
import os
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
from cavendish.mixing.accounting import Accounting, add_counts
from cavendish.mixing.images import encode_png
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.mixture.draw import Sizes, nearest_size
from cavendish.mixing.sources.decode import FILE_LIMITS, decode_image
from cavendish.mixing.sources.items import Item, Part, read_part
from cavendish.mixing.sources.records import list_images
from cavendish.mixing.sources.text import output_names, printable
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

Draw = Callable[[Sequence[Example]], list[UInt8Image]]
"""Draws the answer to each example's prompt and source."""


@dataclass(frozen=True)
class Request:
    """What to ask of which pictures, and how.

    Args:
        pictures: files, and folders: every image below one, by its contents.
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


@dataclass(frozen=True)
class _Input:
    """An image to ask about: the name of its answers, its file, where it is; `alone` if it was named by itself."""

    name: str
    file: str
    folder: Path
    item: Item
    alone: bool

    def read(self) -> UInt8Image:
        try:
            if self.item.problem or self.item.image is None:
                raise InputError(self.item.problem)
            return decode_image(read_part([self.folder], self.item.image, MAX_FILE_BYTES), limits=FILE_LIMITS).rgb_u8
        except InputError as error:
            raise InputError(f"{self.folder if self.alone else self.folder / self.file}: {error}") from None


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
    inputs, left_aside = _list_inputs(request.pictures)
    paths = list(enumerate(inputs))[process.rank :: process.world]
    out.mkdir(parents=True, exist_ok=True)
    entries: dict[int, dict[str, Any]] = {}
    at_once = max(1, request.batch // request.passes)
    for start in range(0, len(paths), at_once):
        pictures: dict[int, tuple[_Input, UInt8Image]] = {}
        for number, each in paths[start : start + at_once]:
            try:
                pictures[number] = each, each.read()
            except InputError as error:
                if each.alone:
                    raise
                entries[number] = {"file": each.file, "reason": str(error)}
        answers = _ask(draw, pictures, questions, request.size)
        for (number, (each, picture)), (drawn, answer) in zip(pictures.items(), answers, strict=True):
            written = _write(drawn, answer, questions[0], picture, each.name, request, out)
            entries[number] = {"file": each.file, **written}
        if progress is not None:
            progress(min(start + at_once, len(paths)), len(paths))
    gathered = gather_to_rank0(entries, process)
    failed = [entry for entry in gathered if "reason" in entry]
    values: dict[str, Any] = {
        "schema": PREDICTIONS_SCHEMA,
        "task": request.task,
        "questions": [{"prompt": question.prompt, "spec": dict(question.spec)} for question in questions],
        "size": request.size,
        "steps": request.steps,
        "seed": request.seed,
        "predictions": [entry for entry in gathered if "reason" not in entry],
        "failed": failed,
    }
    if process.rank == 0:
        found = len(inputs) + sum(left_aside.values())
        accounting = Accounting(found, len(gathered) - len(failed), len(failed), left_aside)
        values["inputs"] = accounting.as_dict()
        write_atomic(out / "predictions.json", canonical_json(values))
    return values


def _list_inputs(images: Sequence[Path]) -> tuple[list[_Input], dict[str, int]]:
    """List the images to ask about, a folder for all in it, in the order of their output names; and what is none."""
    found: list[tuple[str, Path, Item, bool]] = []
    left: list[Mapping[str, int]] = []
    for path in images:
        if path.is_dir():
            listing = list_images(path)
            found += [(item.name, path, item, False) for item in listing]
            left.append(listing.left_aside)
        elif path.is_file():
            item = Item("", path.name, {"image": Part("", 0, path.stat().st_size)})
            found.append((printable(path.name), path, item, True))
        else:
            raise InputError(f"{path}: no such image or folder")
    if not found:
        account = Accounting(sum(add_counts(left).values()), 0, 0, add_counts(left))
        raise InputError(f"{', '.join(map(str, images))}: no image; {account}")
    names = output_names([os.path.splitext(file)[0].replace("/", "-") for file, *_ in found])
    inputs = [_Input(name, *each) for name, each in zip(names, found, strict=True)]
    return sorted(inputs, key=lambda each: each.name), add_counts(left)


def _ask(
    draw: Draw, pictures: Mapping[int, tuple[_Input, UInt8Image]], questions: Sequence[Question], sizes: Sizes
) -> Iterator[tuple[list[UInt8Image], Answer]]:
    """Ask every question about some images in one batch; yield what was drawn of each, and one answer made of it."""
    examples: list[Example] = []
    for each, picture in pictures.values():
        small = resize_image(picture, *nearest_size(picture.shape[0], picture.shape[1], sizes))
        examples += [
            Example(
                f"{each.name}.{question.task}.{number}",
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
