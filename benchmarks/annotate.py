"""CPU seconds of the annotation job beside the model's own: python -m benchmarks.annotate [IMAGES]

Crops of the photographs that ship in scikit-image and scikit-learn, 480x360, in one process; all is counted: listing,
hashing, decoding, checks, PNG encoding, shards, Beam. The model's own time is that of its three onnxruntime calls.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from annotate import job
from annotate.annotators.saliency import U2NetSaliency
from annotate.job import AnnotateConfig, annotate
from mixing.images import encode_png
from tests.annotate.photographs import photo

NAMES = ("astronaut", "camera", "coffee", "rocket", "china", "flower")
WIDTH, HEIGHT = 480, 360


def write_crops(folder: Path, count: int) -> None:
    """Write `count` different crops as PNG."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        picture = photo(NAMES[number % len(NAMES)])
        top, left = (int(rng.integers(0, size - crop + 1)) for size, crop in zip(picture.shape, (HEIGHT, WIDTH)))
        crop = picture[top : top + HEIGHT, left : left + WIDTH]
        (folder / f"{number:05d}.png").write_bytes(encode_png(np.ascontiguousarray(crop)))


def main(count: int) -> None:
    """Annotate the crops and print the times."""
    annotator = job._loaded_annotator()
    assert isinstance(annotator, U2NetSaliency)
    session, model_s = annotator._session, 0.0

    class TimedSession:
        get_inputs, get_outputs = session.get_inputs, session.get_outputs

        @staticmethod
        def run(*arguments: object) -> object:
            nonlocal model_s
            start = time.process_time()
            result = session.run(*arguments)
            model_s += time.process_time() - start
            return result

    annotator._session = TimedSession
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        write_crops(data / "photos", count)
        source = {"name": "photos", "kind": "folder", "path": "photos", "licence": "mixed"}
        config = AnnotateConfig.model_validate({"sources": [source], "images_per_shard": 20})
        start = time.process_time()
        result = annotate(config, data / "out", data=data)
        total_s = time.process_time() - start
    assert result.totals is not None
    print(f"{count} images of {WIDTH}x{HEIGHT}: {result.totals['records']} kept, {result.totals['rejected']} rejected")
    print(f"end to end    {total_s:7.2f} CPU s  {count / total_s:6.2f} images per CPU second")
    print(f"model alone   {model_s:7.2f} CPU s  {count / model_s:6.2f} images per CPU second")
    print(f"overhead      {100 * (total_s / model_s - 1):7.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
