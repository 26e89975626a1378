"""Real photographs from the scikit-image and scikit-learn wheels, and shards made of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.mixing.images import decode_rgb

SKIMAGE = "skimage.data"
SKLEARN = "sklearn.datasets.images"
BENCHMARK = (
    (SKIMAGE, "chelsea.png"),
    (SKIMAGE, "motorcycle_left.png"),
    (SKIMAGE, "rocket.jpg"),
    (SKLEARN, "flower.jpg"),
)
OTHERS = (
    (SKIMAGE, "coffee.png"),
    (SKIMAGE, "astronaut.png"),
    (SKIMAGE, "camera.png"),
    (SKIMAGE, "ihc.png"),
    (SKIMAGE, "coins.png"),
    (SKIMAGE, "grass.png"),
    (SKIMAGE, "retina.jpg"),
    (SKIMAGE, "page.png"),
    (SKLEARN, "china.jpg"),
)


def photograph(package: str, name: str) -> UInt8Image:
    return decode_rgb(files(package).joinpath(name).read_bytes(), name)


def write_benchmark(folder: Path, names: Sequence[tuple[str, str]] = BENCHMARK) -> Path:
    folder.mkdir(parents=True)
    for package, name in names:
        (folder / name).write_bytes(files(package).joinpath(name).read_bytes())
    return folder


def poster(image: UInt8Image) -> UInt8Image:
    """Crop, mirror, caption and recompress: what a web copy of a photograph looks like."""
    height, width = image.shape[:2]
    edited = np.ascontiguousarray(image[height // 10 :, width // 12 : -width // 16][:, ::-1])
    cv2.putText(edited, "good morning", (18, 46), cv2.FONT_HERSHEY_DUPLEX, 1.2, (255, 255, 255), 2, cv2.LINE_AA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(edited[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 40))
    return decode_rgb(jpeg.tobytes(), "poster")


def picture(key: str, image: UInt8Image) -> Sample:
    return Sample(key, image, source="tests", licence="CC0-1.0")
