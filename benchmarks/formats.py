"""Size, error and CPU time of what shards hold, beside other formats that could hold it.

    python benchmarks/formats.py [--size 512] [--shards DIR] [--rounds 5]

Without --shards: made scenes of balls over a floor with relief and grain. Times are process CPU time, one thread, the
least of the rounds, in milliseconds a picture. docs/shards.md has the figures.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import zstandard
from numpy.typing import NDArray
from PIL import Image

from cavendish.encoders.sample import Sample
from cavendish.mixing.images import decode_png16, decode_rgb, encode_png
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.shards.sample_format import pack_depth, pack_normals, unpack_depth, unpack_normals

Array = NDArray[Any]
Codec = tuple[Callable[[Array], bytes], Callable[[bytes], Array]]


def make_scene(seed: int, size: int) -> Sample:
    """Make balls over a floor with relief, in front of a sky."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size].astype(np.float32) / size
    relief = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 3)
    depth_m = np.where(v > 0.4, 2.0 / np.maximum(v - 0.35, 0.01), np.inf).astype(np.float32)
    ids = np.zeros((size, size), np.uint16)
    for number in range(1, 9):
        x, y, radius, distance = rng.uniform(0, 1), rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.2), rng.uniform(1, 6)
        inside = radius**2 - (u - x) ** 2 - (v - y) ** 2
        front = distance - 2 * np.sqrt(np.maximum(inside, 0))
        nearer = (inside > 0) & (front < depth_m)
        depth_m[nearer], ids[nearer] = front[nearer], number
    depth_m = np.where(np.isfinite(depth_m), depth_m + 0.02 * relief, np.inf).clip(0.05).astype(np.float32)
    known = np.where(np.isfinite(depth_m), depth_m, 40)
    slope_y, slope_x = np.gradient(known * size / 4)
    normals = np.dstack([-slope_x, slope_y, np.full_like(slope_x, 40)])
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    normals[np.isinf(depth_m)] = 0
    colours = rng.integers(40, 220, (9, 3))
    image = (
        colours[ids] * (0.6 + 0.4 * normals[..., 2:]) + 12 * rng.normal(size=(size, size, 1)) + 20 * relief[..., None]
    )
    return Sample(
        f"scene-{seed}", image.clip(0, 255).astype(np.uint8), "made", "CC0-1.0", depth_m, normals, instance_ids=ids
    )


def png(level: int) -> Codec:
    """PNG by OpenCV."""

    def encode(array: Array) -> bytes:
        return bytes(cv2.imencode(".png", array, (cv2.IMWRITE_PNG_COMPRESSION, level))[1])

    return encode, lambda data: np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def pillow(kind: str, **options: Any) -> Codec:
    """Any format of Pillow."""

    def encode(array: Array) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array).save(file, kind, **options)
        return file.getvalue()

    return encode, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exr(dtype: type) -> Codec:
    """OpenEXR, ZIP, through a file in memory (the library reads and writes files only)."""
    scratch = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)

    def encode(array: Array) -> bytes:
        channels = {"RGB": array.astype(dtype)} if array.ndim == 3 else {"Z": array.astype(dtype)}
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, channels).write(str(Path(scratch.name) / "a.exr"))
        return (Path(scratch.name) / "a.exr").read_bytes()

    def decode(data: bytes) -> Array:
        (Path(scratch.name) / "b.exr").write_bytes(data)
        return np.asarray(next(iter(OpenEXR.File(str(Path(scratch.name) / "b.exr")).channels().values())).pixels)

    return encode, decode


def zstd(shape: tuple[int, ...], dtype: type) -> Codec:
    """Differences down the columns, bytes by place, zstandard level 3."""

    def encode(array: Array) -> bytes:
        bits = array.astype(dtype, copy=False).view(f"u{np.dtype(dtype).itemsize}")
        delta = np.diff(bits, axis=0, prepend=np.zeros_like(bits[:1]))
        planes = np.ascontiguousarray(np.moveaxis(delta.view(np.uint8).reshape(*shape, -1), -1, 0))
        return zstandard.ZstdCompressor(level=3).compress(planes.tobytes())

    def decode(data: bytes) -> Array:
        planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8).reshape(-1, *shape)
        delta = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(f"u{np.dtype(dtype).itemsize}")[..., 0]
        return np.add.accumulate(delta, axis=0, dtype=delta.dtype).view(dtype)

    return encode, decode


def joined(first: Callable[[Array], Array], codec: Codec, last: Callable[[Array], Array]) -> Codec:
    """Quantise before a codec and undo it after."""
    return lambda array: codec[0](first(array)), lambda data: last(codec[1](data))


def depth_error(found: Array, wanted: Array) -> str:
    """Largest relative error of known depth."""
    known = np.isfinite(wanted)
    return f"{np.max(np.abs(found[known] - wanted[known]) / wanted[known]):.1e}"


def angle_error(found: Array, wanted: Array) -> str:
    """Largest angle between known normals."""
    known = wanted.any(axis=-1)
    sine = np.linalg.norm(np.cross(found[known].astype(float), wanted[known].astype(float)), axis=-1)
    cosine = (found[known].astype(float) * wanted[known]).sum(axis=-1)
    return f"{np.degrees(np.arctan2(sine, cosine)).max():.3f} deg"


def pixel_error(found: Array, wanted: Array) -> str:
    """Largest difference of a value."""
    return f"{int(np.abs(found.astype(int) - wanted.astype(int)).max())}"


def formats(shape: tuple[int, int]) -> list[tuple[str, str, Codec, Callable[[Array, Array], str]]]:
    """List (field, name, codec, error); the first of each field is what shards hold."""
    u8 = lambda n: np.rint((n + 1) * 127.5).astype(np.uint8)
    from_u8 = lambda c: c.astype(np.float32) / 127.5 - 1
    swap = lambda array: np.ascontiguousarray(array[..., ::-1])
    log_zstd = joined(pack_depth, zstd(shape, np.uint16), unpack_depth)
    own = (encode_png, lambda data: decode_png16(data, "", 1))
    own3 = (encode_png, lambda data: decode_png16(data, "", 3))
    rows: list[tuple[str, str, Codec, Callable[[Array, Array], str]]] = [
        ("depth_m", "log16 PNG (shards)", joined(pack_depth, own, unpack_depth), depth_error),
        ("depth_m", "log16, zstd", log_zstd, depth_error),
        ("depth_m", "float16, zstd", zstd(shape, np.float16), depth_error),
        ("depth_m", "float16 EXR, ZIP", exr(np.float16), depth_error),
        ("depth_m", "float32 EXR, ZIP", exr(np.float32), depth_error),
        ("depth_m", "float32, zstd", zstd(shape, np.float32), depth_error),
        ("depth_m", "float32 .npy", (_npy, lambda data: np.load(io.BytesIO(data))), depth_error),
        ("normals", "unit16 PNG (shards)", joined(pack_normals, own3, unpack_normals), angle_error),
        ("normals", "8-bit PNG", joined(lambda n: swap(u8(n)), png(3), lambda c: from_u8(swap(c))), angle_error),
        ("normals", "8-bit WebP, lossless", joined(u8, pillow("WEBP", lossless=True, method=0), from_u8), angle_error),
        ("normals", "unit16, zstd", joined(pack_normals, zstd((*shape, 3), np.uint16), unpack_normals), angle_error),
        ("normals", "float16 EXR, ZIP", exr(np.float16), angle_error),
        ("instance_ids", "16-bit PNG (shards)", own, pixel_error),
        ("instance_ids", "8-bit PNG", joined(lambda a: a.astype(np.uint8), png(3), lambda a: a), pixel_error),
        ("instance_ids", "16 bits, zstd", zstd(shape, np.uint16), pixel_error),
        ("image", "PNG (shards, rendered)", (encode_png, lambda data: decode_rgb(data, "")), pixel_error),
        ("image", "JPEG 92 (shards, passed through)", _jpeg(), pixel_error),
        ("image", "WebP 90", pillow("WEBP", quality=90), pixel_error),
        ("image", "WebP, lossless", pillow("WEBP", lossless=True, method=0), pixel_error),
        ("image", "AVIF 80", pillow("AVIF", quality=80), pixel_error),
    ]
    return rows


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _jpeg() -> Codec:
    return pillow("JPEG", quality=92)[0], lambda data: decode_rgb(data, "")


def cpu_ms(function: Callable[[], Any], rounds: int) -> float:
    """Return the least process CPU time of a call."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=512)
    arguments.add_argument("--shards", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--count", type=int, default=3)
    given = arguments.parse_args()
    cv2.setNumThreads(1)
    samples = [make_scene(seed, given.size) for seed in range(given.count)]
    if given.shards is not None:
        records = (record for record in read_dataset(given.shards) if isinstance(record, Sample))
        samples = [record for record, _ in zip(records, range(given.count))]
    print("| field | format | KB | encode ms | decode ms | largest error |\n|---|---|---|---|---|---|")
    for field, name, (encode, decode), error in formats(samples[0].image.shape[:2]):
        sizes, writes, reads, worst = [], [], [], ""
        for array in [getattr(sample, field) for sample in samples if getattr(sample, field) is not None]:
            data = encode(array)
            with np.errstate(invalid="ignore"):
                worst = max(worst, error(decode(data), array), key=lambda text: float(text.split()[0] if text else -1))
            sizes.append(len(data) / 1000)
            writes.append(cpu_ms(lambda: encode(array), given.rounds))  # noqa: B023 - called at once
            reads.append(cpu_ms(lambda: decode(data), given.rounds))  # noqa: B023
        means = [float(np.mean(values)) for values in (sizes, writes, reads)]
        print(f"| {field} | {name} | {means[0]:.1f} | {means[1]:.1f} | {means[2]:.1f} | {worst} |")


if __name__ == "__main__":
    main()
