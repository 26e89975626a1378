"""Measures the audit against a benchmark of very many images: memory, speed, and what recall is left among them.

    python benchmarks/audit_scale.py --photos FOLDER --images 100000 [--photographs 60] [--work FOLDER]

The pack holds real photographs first; the rest are stand-ins whose features are those of half of the photographs kept
out, drawn at random with one bit in eight flipped, so that lists fill as with real ones. Copies of the real ones, the
other half and synthetic pictures are then looked for. Small pictures for the pixel check are kept of the real ones
(stand-ins share a grey one).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.audit import SEED, _at_most, _folder
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import (
    FEATURE,
    PICTURES_SCHEMA,
    Pack,
    build_pack,
    finish_pack,
    read_pack,
)
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.matching.fingerprints import FEATURES_PER_CELL, local_features, pack_points, working_gray
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import file_sha256

COPIES = ("jpeg 30", "crop 50 %", "three lines of text", "screenshot", "pasted on a picture", "2 x 2 sheet")
PER_IMAGE = 1000


def main() -> None:
    """Build, scan, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--photographs", type=int, default=60, help="use at most so many of the folder")
    parser.add_argument("--work", type=Path, help="where to put the pack (about 43 kB an image); default: temporary")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    benchmark, kept_out = _folder(arguments.photos, arguments.photographs)
    sources = dict(list(kept_out.items())[::2])
    foreign = [image for name, image in kept_out.items() if name not in sources]
    foreign += [procedural_picture(np.random.default_rng([SEED, 9, i]), 384, 512) for i in range(20)]
    with tempfile.TemporaryDirectory(dir=arguments.work) as place:
        began = time.process_time()
        pack = enlarged_pack(benchmark, sources, Path(place), arguments.images)
        print(f"{len(pack.images)} images indexed in {time.process_time() - began:.0f} CPU seconds", flush=True)
        size = sum(path.stat().st_size for path in pack.folder.iterdir())
        print(f"pack: {size / len(pack.images) / 1000:.1f} kB an image, {len(pack.arrays['words'])} words")
        del pack
        run_in_child(benchmark, foreign, Path(place) / "pack")


def enlarged_pack(benchmark: dict[str, UInt8Image], sources: dict[str, UInt8Image], place: Path, count: int) -> Pack:
    """Write a pack of the benchmark's photographs and of stand-ins for the rest."""
    images = place / "images"
    images.mkdir()
    for name, image in benchmark.items():
        (images / f"{name}.png").write_bytes(encode_png(image))
    real = build_pack("photographs", images, place / "pack", pixels=True)
    rng = np.random.default_rng(SEED)
    others = np.concatenate([feature_rows(image) for image in sources.values()])
    starts = [int(row) for row in real.arrays["starts"]]
    with (real.folder / "features.bin").open("ab") as file:
        while len(starts) <= count:
            number = min(100, count + 1 - len(starts)) * PER_IMAGE
            rows = others[rng.integers(0, len(others), number)]
            rows["descriptor"] ^= np.packbits(rng.random((number, 256), np.float32) < 0.125, axis=1)
            rows["pose"][:, 0] = rng.integers(0, 256, number)
            file.write(rows.tobytes())
            starts += [starts[-1] + PER_IMAGE * (i + 1) for i in range(number // PER_IMAGE)]
    made = count - len(benchmark)
    header = dict(real.header)
    header["images"] = [
        *real.images,
        *({"id": f"{i:08d}", "file_sha256": f"{i:064x}", "pixel_sha256": f"{i + 10**9:064x}"} for i in range(made)),
    ]
    arrays = {
        "pdq": np.concatenate([real.arrays["pdq"], rng.integers(0, 256, (made, 8, 32), np.uint8)]),
        "quality": np.concatenate([real.arrays["quality"], np.full(made, 100, np.uint8)]),
        "sizes": np.concatenate([real.arrays["sizes"], np.full((made, 2), 640, np.uint32)]),
    }
    _, gray = cv2.imencode(".jpg", np.full((32, 32, 3), 128, np.uint8))
    beside = real.folder.with_name("pack.pictures")
    assert real.pictures is not None
    with (beside / "pictures.bin").open("ab") as file:
        file.write(gray.tobytes() * made)
    offsets = [*real.pictures["offsets"], *(real.pictures["offsets"][-1] + len(gray) * (i + 1) for i in range(made))]
    described = {"schema": PICTURES_SCHEMA, "sha256": file_sha256(beside / "pictures.bin"), "offsets": offsets}
    (beside / "pictures.json").write_bytes(canonical_json(described))
    return finish_pack(real.folder, header, arrays, np.array(starts, np.int64))


def feature_rows(image: UInt8Image) -> NDArray[np.void]:
    """Return the features of a picture as a pack keeps them."""
    features = local_features(working_gray(image), FEATURES_PER_CELL)
    rows = np.zeros(len(features.descriptors), FEATURE)
    rows["descriptor"], rows["point"], rows["pose"] = features.descriptors, pack_points(features.points), features.poses
    return rows


def run_in_child(benchmark: dict[str, UInt8Image], foreign: list[UInt8Image], folder: Path) -> None:
    """Scan in a process of its own, whose memory is then that of a scan."""
    process = multiprocessing.get_context("spawn").Process(target=scan, args=(benchmark, foreign, folder))
    process.start()
    process.join()


def scan(benchmark: dict[str, UInt8Image], foreign: list[UInt8Image], folder: Path) -> None:
    """Look for copies and for foreign pictures; print recall, speed and memory."""
    cv2.setNumThreads(1)
    began = time.process_time()
    pack = read_pack(folder)
    print(f"opened (every byte hashed) in {time.process_time() - began:.1f} CPU seconds")
    scanned_s, shown = 0.0, 0
    for number, image in enumerate(foreign):
        data = encode_png(image)
        began = time.process_time()
        found = scan_image(decode_rgb(data, "foreign"), data, (pack,), Thresholds())[1]
        scanned_s += time.process_time() - began
        shown += 1
        if found:
            print(f"foreign picture {number}: {found[0].level} {found[0].kind} as {found[0].image}, {found[0].score}")
    print(f"foreign pictures: {shown / scanned_s:.1f} a CPU second with decoding", flush=True)
    for edit in COPIES:
        hits = 0
        for number, (name, image) in enumerate(benchmark.items()):
            copy = _at_most(EDITS[edit](image, np.random.default_rng([SEED, number])))
            found = scan_image(copy, b"", (pack,), Thresholds())[1]
            hits += any(finding.level == "leak" and finding.image == f"{name}.png" for finding in found)
        print(f"{edit}: {hits / len(benchmark):.3f}", flush=True)
    print(f"largest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
