"""The real photographs that ship inside scikit-image and scikit-learn, as folders the jobs read like any other.

Training photographs go through annotation. The benchmark set is for evaluation only, so none of it may be trained on;
an edited copy of one of its pictures is planted among the training photographs, for the audit to find.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from cavendish.encoders.sample import Camera, Sample, UInt8Image
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.storage.place import write_atomic

PLANTED = "kitten_poster"
PLANTED_FROM = "chelsea"

# name: (package, file, licence, caption)
TRAINING = {
    "astronaut": ("skimage.data", "astronaut.png", "public domain (NASA)", "an astronaut in an orange suit, smiling"),
    "coffee": ("skimage.data", "coffee.png", "CC0-1.0", "a cup of espresso on a saucer, on a wooden table"),
    "rocket": ("skimage.data", "rocket.jpg", "CC0-1.0", "a white rocket on its launch pad at night"),
    "camera": ("skimage.data", "camera.png", "CC0-1.0", "a man behind a camera on a tripod, in black and white"),
    "horse": ("skimage.data", "horse.png", "CC0-1.0", "the black silhouette of a horse"),
    "china": ("sklearn.datasets.images", "china.jpg", "CC-BY-2.0", "a chinese pavilion under trees, by the water"),
}
BENCHMARK = {
    "motorcycle": ("skimage.data", "motorcycle_left.png", "Middlebury 2014 (evaluation only)", ""),
    "chelsea": ("skimage.data", "chelsea.png", "CC0-1.0", ""),
    "flower": ("sklearn.datasets.images", "flower.jpg", "CC-BY-2.0", ""),
    "coins": ("skimage.data", "coins.png", "public domain", ""),
}

# Middlebury 2014 "Motorcycle" at quarter size, as scikit-image documents it in `stereo_motorcycle`.
_FOCAL_PX = 994.978
_PRINCIPAL_PX = (311.193, 254.877)
_DISPARITY_OFFSET_PX = 31.086
_BASELINE_M = 0.193001


def write_photographs(data: Path) -> None:
    """Write `photos/` (to annotate, with the planted copy) and `benchmark/` (evaluation only) under `data`."""
    photos, benchmark = data / "photos", data / "benchmark"
    photos.mkdir(parents=True, exist_ok=True)
    benchmark.mkdir(parents=True, exist_ok=True)
    for name, (package, file, licence, caption) in TRAINING.items():
        _write_photo(photos, name, _read(package, file), licence, caption)
    for name, (package, file, _, _) in BENCHMARK.items():
        write_atomic(benchmark / f"{name}.png", encode_png(_read(package, file)))
    package, file, licence, _ = BENCHMARK[PLANTED_FROM]
    _write_photo(photos, PLANTED, planted_copy(_read(package, file)), licence, "a poster with a cat's face")


def _read(package: str, file: str) -> UInt8Image:
    return decode_rgb(files(package).joinpath(file).read_bytes(), file)


def _write_photo(folder: Path, name: str, picture: UInt8Image, licence: str, caption: str) -> None:
    write_atomic(folder / f"{name}.png", encode_png(picture))
    write_atomic(folder / f"{name}.txt", caption.encode())
    write_atomic(folder / f"{name}.json", json.dumps({"licence": licence}).encode())


def planted_copy(picture: UInt8Image) -> UInt8Image:
    """Edit a picture as a careless collector might: cropped, mirrored, warmer, captioned, saved as a poor JPEG."""
    height, width = picture.shape[:2]
    edited = picture[height // 10 :, width // 12 : width - width // 16][:, ::-1]
    warm = np.clip(edited.astype(np.float32) * (1.08, 1.0, 0.88) + 6, 0, 255).astype(np.uint8)
    warm = np.ascontiguousarray(warm)
    cv2.putText(warm, "good morning", (18, 46), cv2.FONT_HERSHEY_DUPLEX, 1.2, (255, 255, 255), 2, cv2.LINE_AA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(warm[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 40))
    return decode_rgb(jpeg.tobytes(), "planted copy")


def motorcycle() -> Sample:
    """Return the one real photograph with real depth: Middlebury 2014 Motorcycle, left view, (500, 741) px.

    Depth is planar: focal length * baseline / (disparity + principal point offset), NaN where there is no truth.
    Evaluation only. Source: Scharstein et al., GCPR 2014; disparity and calibration from `skimage.data`.
    """
    from skimage.data import stereo_motorcycle

    left, _, disparity_px = stereo_motorcycle()
    known = np.isfinite(disparity_px)
    depth_m = np.full(disparity_px.shape, np.nan, np.float32)
    depth_m[known] = _FOCAL_PX * _BASELINE_M / (disparity_px[known] + _DISPARITY_OFFSET_PX)
    height, width = depth_m.shape
    return Sample(
        key="motorcycle",
        image=np.ascontiguousarray(left),
        source="middlebury-2014",
        licence="evaluation only",
        depth_m=depth_m,
        camera=Camera(width, height, _FOCAL_PX, _FOCAL_PX, *_PRINCIPAL_PX),
        facts={"scene": "workshop"},
    )
