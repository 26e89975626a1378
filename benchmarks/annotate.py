"""CPU seconds of the annotation job beside the models' own: python -m benchmarks.annotate [IMAGES]

Crops of the photographs that ship in scikit-image and scikit-learn, 480x360, in one process; all is counted: listing,
hashing, decoding, checks, PNG encoding, shards, Beam. A model's own time is that of its onnxruntime calls.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.annotate.annotators.detection import CenterNet, NanoDet
from cavendish.annotate.annotators.faces import CenterFace
from cavendish.annotate.annotators.nsfw import OpenNsfw
from cavendish.annotate.annotators.protocol import load_once
from cavendish.annotate.annotators.saliency import U2NetSaliency
from cavendish.annotate.annotators.text import TextLines
from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.job import annotate
from cavendish.mixing.images import encode_png
from tests.annotate.photographs import photo

NAMES = ("astronaut", "camera", "coffee", "rocket", "china", "flower", "motorcycle", "hopper")
MODELS: tuple[Callable[[], Any], ...] = (OpenNsfw, CenterFace, TextLines, NanoDet, CenterNet, U2NetSaliency)
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


class TimedSession:
    """An onnxruntime session whose runs are timed."""

    def __init__(self, session: Any) -> None:
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self._session = session
        self.spent_s, self.calls = 0.0, 0

    def run(self, *arguments: object) -> object:
        """Run the session."""
        start = time.process_time()
        result = self._session.run(*arguments)
        self.spent_s += time.process_time() - start
        self.calls += 1
        return result


def main(count: int) -> None:
    """Annotate the crops and print the times."""
    sessions: dict[str, TimedSession] = {}
    for kind in MODELS:
        annotator = load_once(kind)
        annotator._session = sessions[annotator.spec.id] = TimedSession(annotator._session)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        write_crops(data / "photos", count)
        source = {"name": "photos", "kind": "folder", "path": "photos", "licence": "mixed"}
        config = AnnotateConfig.model_validate({"sources": [source], "images_per_shard": 20})
        start = time.process_time()
        result = annotate(config, data / "out", data=data)
        total_s = time.process_time() - start
    assert result.totals is not None
    models_s = sum(session.spent_s for session in sessions.values())
    print(f"{count} images of {WIDTH}x{HEIGHT}: {result.totals['records']} kept, {result.totals['rejected']} rejected")
    for name, session in sessions.items():
        each_s = session.spent_s / max(1, session.calls)
        print(f"  {name:<18}{session.spent_s:7.2f} CPU s  {session.calls:4d} runs of {each_s:.3f} s")
    print(f"end to end    {total_s:7.2f} CPU s  {count / total_s:6.2f} images per CPU second")
    print(f"models alone  {models_s:7.2f} CPU s  {count / models_s:6.2f} images per CPU second")
    print(f"overhead      {100 * (total_s / models_s - 1):7.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
