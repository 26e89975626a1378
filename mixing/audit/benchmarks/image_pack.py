"""The benchmark side: folders of images -> a fingerprint pack without pixels, memory-mapped by every scan.

A pack is a folder of plain arrays beside `header.json`, which names the algorithm, the library versions and the sha256
of every array. It never holds pixels. Small JPEGs for the pixel check and the report are kept in a folder of their own
beside it, `NAME.pictures`, only when asked for.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.audit.benchmarks.image_files import (
    BenchmarkFiles,
    list_benchmark,
    read_image_file,
    source_digest,
)
from cavendish.mixing.audit.matching.fingerprints import (
    ALGORITHM,
    FEATURES_PER_CELL,
    MIN_QUALITY,
    WORKING_MAX_PX,
    Features,
    Fingerprint,
    fingerprint,
    local_features,
    pack_points,
    unpack_points,
    working_gray,
    working_size,
)
from cavendish.mixing.audit.matching.postings import ARRAYS as POSTING_ARRAYS
from cavendish.mixing.audit.matching.postings import build_postings
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.storage.files import canonical_json, digest, naming
from cavendish.mixing.storage.place import file_sha256, read_json, write_atomic

PACK_SCHEMA = "cavendish-pack/3"
PICTURES_SCHEMA = "cavendish-pack-pictures/1"
_ARRAYS = {
    "pdq": (np.uint8, (8, 32)),
    "quality": (np.uint8, ()),
    "sizes": (np.uint32, (2,)),
    "starts": (np.int64, ()),
    **POSTING_ARRAYS,
}
FEATURE = np.dtype([("descriptor", "u1", 32), ("point", "<u2", 2), ("pose", "u1", 2)])
INDEXED_PER_IMAGE = 384
"""Features of an image in the inverted index: its strongest. All of them are compared once it is a candidate."""


@dataclass(frozen=True)
class Pack:
    """An open fingerprint pack.

    Args:
        header: the json; `arrays`: memory-mapped; `pictures`: the json of the small pictures, None without them.
        digest: names the fingerprints, and the pictures where there are any.
    """

    folder: Path
    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    pictures: Mapping[str, Any] | None
    digest: str
    by_file: Mapping[str, list[int]]
    by_pixels: Mapping[str, list[int]]

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.header["name"]

    @property
    def images(self) -> list[dict[str, Any]]:
        """For each benchmark image: id (path inside its folder), file_sha256, pixel_sha256."""
        return self.header["images"]

    @property
    def has_pixels(self) -> bool:
        """Whether small pictures are kept beside the fingerprints."""
        return self.pictures is not None

    def working_px(self, image: int) -> tuple[int, int]:
        """Return (width, height) of the grey picture an image's features were found on."""
        width, height = (int(side) for side in self.arrays["sizes"][image])
        return working_size(width, height)

    def thumbnail(self, image: int) -> UInt8Image:
        """Decode the kept small picture of an image, (H, W, 3) uint8 RGB, its longer side at most 640 px."""
        assert self.pictures is not None
        start, end = self.pictures["offsets"][image : image + 2]
        data = _read_span(_pictures_folder(self.folder) / "pictures.bin", start, end)
        return decode_rgb(data, f"{self.name}/{self.images[image]['id']} (kept picture)")

    def features(self, image: int) -> Features:
        """Read all features of an image. They are read, not mapped: the pages would stay in memory."""
        start, end = (int(row) for row in self.arrays["starts"][image : image + 2])
        data = _read_span(self.folder / "features.bin", start * FEATURE.itemsize, end * FEATURE.itemsize)
        rows = np.frombuffer(data, FEATURE)
        descriptors = np.ascontiguousarray(rows["descriptor"])
        return Features(descriptors, unpack_points(rows["point"]), np.ascontiguousarray(rows["pose"]))


def build_pack(name: str, folder: Path, out: Path, pixels: bool = False, label_suffix: str = "") -> Pack:
    """Fingerprint every image of a folder and write the pack; a pack that holds just these files is kept as it is.

    Args:
        name: the benchmark's name in reports.
        folder: images at any depth, also in tars, known by their contents; every frame of an animation counts as an
            image. What is or may be an image and cannot be read is noted as unread.
        out: the pack's folder.
        pixels: keep small pictures in a folder beside the pack. Without them findings end at "geometric, unverified
            pixels". The pack itself is the same either way.
        label_suffix: of label maps that lie among the images.

    Raises:
        InputError: no such folder, or no readable image in it.
    """
    source = source_digest(folder)
    if (out / "header.json").exists():
        found = _pack_or_none(out)
        if found is not None and (found.header["source"], found.name, found.has_pixels) == (source, name, pixels):
            return found
    out.mkdir(parents=True, exist_ok=True)
    (out / "header.json").unlink(missing_ok=True)
    beside = _pictures_folder(out)
    (beside / "pictures.json").unlink(missing_ok=True)
    (beside / "pictures.bin").unlink(missing_ok=True)
    if pixels:
        beside.mkdir(exist_ok=True)
    files = list_benchmark(folder, label_suffix)
    read = _fingerprint_folder(folder, files, out / "features.bin", beside / "pictures.bin" if pixels else None)
    if not read.prints:
        raise InputError(f"{folder}: no readable image for benchmark {name}")
    arrays: dict[str, NDArray[Any]] = {
        "pdq": np.stack([one.pdq.variants for one in read.prints.values()]),
        "quality": np.array([one.pdq.quality for one in read.prints.values()], np.uint8),
        "sizes": np.array([(one.width, one.height) for one in read.prints.values()], np.uint32),
    }
    header: dict[str, Any] = {
        "schema": PACK_SCHEMA,
        "algorithm": ALGORITHM,
        "opencv": cv2.__version__,
        "name": name,
        "source": source,
        "images": [
            {"id": identity, "file_sha256": one.file_sha256, "pixel_sha256": one.pixel_sha256}
            for identity, one in read.prints.items()
        ],
        "unread": [{"id": identity, "reason": f"{identity}: {reason}"} for identity, reason in read.unread],
        "left_aside": files.left_aside,
        "weak": [list(read.prints)[i] for i in np.flatnonzero(arrays["quality"] < MIN_QUALITY)],
    }
    if pixels:
        sha256 = file_sha256(beside / "pictures.bin")
        described = {"schema": PICTURES_SCHEMA, "sha256": sha256, "offsets": read.offsets}
        write_atomic(beside / "pictures.json", canonical_json(described))
    return finish_pack(out, header, arrays, np.cumsum([0, *read.counts], dtype=np.int64))


@dataclass
class _FolderRead:
    """The images of a folder: prints by id, features of each, ends of their small pictures; and what was not read."""

    prints: dict[str, Fingerprint] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=lambda: [0])
    unread: list[tuple[str, str]] = field(default_factory=list)


def _fingerprint_folder(folder: Path, files: BenchmarkFiles, features: Path, pictures: Path | None) -> _FolderRead:
    """Fingerprint the images of a folder, writing their features and small pictures one after another."""
    done = _FolderRead(unread=list(files.unread))
    with ExitStack() as opened:
        opened.enter_context(naming(features))
        features_file = opened.enter_context(features.open("wb"))
        pictures_file = None if pictures is None else opened.enter_context(pictures.open("wb"))
        for name, item in files.images.items():
            try:
                data, found = read_image_file(folder, item)
            except InputError as error:
                done.unread.append((name, str(error)))
                continue
            done.unread += [(name, problem) for problem in found.problems]
            for view in found.views:
                if view.name.startswith(("alpha", "colors")):
                    continue  # shapes of masks, which many icons share; a mixture's are compared with what is seen here
                identity = f"{name} ({view.name})" if view.name else name
                print_ = fingerprint(view.image, data)
                done.prints[identity] = replace(print_, file_sha256="") if view.name else print_
                features_of = local_features(working_gray(view.image), FEATURES_PER_CELL)
                done.counts.append(_write_features(features_file, features_of))
                if pictures_file is not None:
                    done.offsets.append(done.offsets[-1] + pictures_file.write(_small_jpeg(view.image)))
    return done


def finish_pack(
    out: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], starts: NDArray[np.int64]
) -> Pack:
    """Index the features already written to `features.bin` and write everything else; the header comes last.

    Args:
        out: the pack's folder.
        header: what is not a digest of a file.
        arrays: pdq, quality and sizes, of every image.
        starts: (images + 1,) rows of `features.bin` where each image's features begin.

    Raises:
        InputError: more features than a pack can number.
    """
    features = out / "features.bin"
    if starts[-1] > np.iinfo(np.uint32).max:
        raise InputError(f"{features}: over 4 billion features; split the benchmark into several")
    stored = np.memmap(features, FEATURE, "r", shape=(int(starts[-1]),)) if starts[-1] else np.zeros(0, FEATURE)
    counts = np.minimum(np.diff(starts), INDEXED_PER_IMAGE)
    indexed = np.repeat(starts[:-1] - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
    every = {
        **arrays,
        "starts": starts,
        **build_postings(stored["descriptor"], stored["pose"], indexed.astype(np.uint32)),
    }
    files = write_arrays(out, every)
    write_atomic(out / "header.json", canonical_json({**header, "arrays": files, "features": file_sha256(features)}))
    return read_pack(out)


def _pictures_folder(pack: Path) -> Path:
    return pack.with_name(f"{pack.name}.pictures")


def _pack_or_none(folder: Path) -> Pack | None:
    try:
        return read_pack(folder)
    except InputError:
        return None  # made by another version or damaged: it is made again


def read_pack(folder: Path) -> Pack:
    """Open a pack, checking its schema, versions and the hash of every array.

    Raises:
        InputError: not a pack, made by another algorithm or OpenCV version, or damaged.
    """
    header = read_json(folder / "header.json", "the header of a fingerprint pack")
    if not isinstance(header, dict) or header.get("schema") != PACK_SCHEMA:
        raise InputError(f"{folder}: not a {PACK_SCHEMA} fingerprint pack")
    made_with = (header.get("algorithm"), header.get("opencv"))
    if made_with != (ALGORITHM, cv2.__version__):
        raise InputError(
            f"{folder}: made with {made_with[0]}, OpenCV {made_with[1]}; this is {ALGORITHM}, OpenCV "
            f"{cv2.__version__}: features differ between them. Index the benchmark again"
        )
    try:
        arrays = open_arrays(folder, header["arrays"], _ARRAYS)
        _check_sizes(folder, header, arrays)
        if file_sha256(folder / "features.bin") != header["features"]:
            raise InputError(f"{folder / 'features.bin'}: its sha256 is not the header's; index the benchmark again")
        pictures = _read_pictures(folder, len(header["images"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged fingerprint pack: {error}") from None
    by_file: dict[str, list[int]] = {}
    by_pixels: dict[str, list[int]] = {}
    for number, image in enumerate(header["images"]):
        if image["file_sha256"]:
            by_file.setdefault(image["file_sha256"], []).append(number)
        by_pixels.setdefault(image["pixel_sha256"], []).append(number)
    name = file_sha256(folder / "header.json")
    if pictures is not None:
        name = digest([name, pictures["sha256"]])
    return Pack(folder, header, arrays, pictures, name, by_file, by_pixels)


def _read_pictures(pack: Path, images: int) -> dict[str, Any] | None:
    """Read the description of the small pictures beside a pack; None when there are none."""
    folder = _pictures_folder(pack)
    if not (folder / "pictures.json").exists():
        return None
    pictures = read_json(folder / "pictures.json", "the list of a benchmark's small pictures")
    if not isinstance(pictures, dict) or pictures.get("schema") != PICTURES_SCHEMA:
        raise InputError(f"{folder}: not {PICTURES_SCHEMA}")
    offsets = pictures["offsets"]
    if (
        len(offsets) != images + 1
        or not all(type(at) is int and at >= 0 for at in offsets)
        or offsets != sorted(offsets)
        or offsets[-1] > (folder / "pictures.bin").stat().st_size
    ):
        raise InputError(f"{folder / 'pictures.json'}: damaged; index the benchmark again")
    if file_sha256(folder / "pictures.bin") != pictures["sha256"]:
        raise InputError(f"{folder / 'pictures.bin'}: not what pictures.json says; index the benchmark again")
    return pictures


def _check_sizes(folder: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    count, features = len(header["images"]), (folder / "features.bin").stat().st_size // FEATURE.itemsize
    postings = len(arrays["posting_rows"])
    sound = (
        all(len(arrays[key]) == count for key in ("pdq", "quality", "sizes"))
        and len(arrays["posting_bits"]) == len(arrays["posting_poses"]) == postings
        and _are_offsets(arrays["starts"], count, features)
        and _are_offsets(arrays["branch_offsets"], len(arrays["branches"]), len(arrays["words"]))
        and _are_offsets(arrays["word_offsets"], len(arrays["words"]), postings)
        and (postings == 0 or int(arrays["posting_rows"].max()) < features)
        and all(
            isinstance(image[key], str) for image in header["images"] for key in ("id", "file_sha256", "pixel_sha256")
        )
        and all(len(image["pixel_sha256"]) == 64 for image in header["images"])
    )
    if not sound:
        raise InputError(f"{folder}: damaged fingerprint pack: its arrays do not fit together")


def _are_offsets(offsets: NDArray[np.int64], spans: int, end: int) -> bool:
    return bool(len(offsets) == spans + 1 and offsets[0] == 0 and offsets[-1] == end and (np.diff(offsets) >= 0).all())


def _write_features(file: BinaryIO, features: Features) -> int:
    """Append the features of an image; return how many."""
    rows = np.zeros(len(features.descriptors), FEATURE)
    rows["descriptor"], rows["point"], rows["pose"] = features.descriptors, pack_points(features.points), features.poses
    file.write(rows.tobytes())
    return len(rows)


def _read_span(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), end - start, start)


def _small_jpeg(image: UInt8Image) -> bytes:
    height, width = image.shape[:2]
    scale = min(WORKING_MAX_PX / max(height, width), 1.0)
    if scale < 1.0:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 92))
    return data.tobytes()


def write_array(path: Path, array: NDArray[Any]) -> str:
    """Write an array as `.npy`; return the sha256 of the file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Write arrays by name; return the sha256 of each file."""
    return {name: write_array(folder / f"{name}.npy", array) for name, array in arrays.items()}


def open_array(path: Path) -> NDArray[Any]:
    """Map a `.npy` file into memory: a size that is not true takes none.

    Raises:
        InputError: not an array, pickled, or cut.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python and raises whatever it leads to
        told = one_line(f"{type(error).__name__} {error}", 300)
        raise InputError(f"{path}: not a plain .npy array: {told}") from None


def open_arrays(
    folder: Path, hashes: Mapping[str, str], wanted: Mapping[str, tuple[type, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    """Map the arrays of a pack into memory, each checked against its hash.

    Args:
        hashes: what `write_arrays` returned.
        wanted: dtype, and the shape of a row, of each array.

    Raises:
        InputError: a file of another hash, dtype or shape.
        OSError, KeyError: a file or a hash is not there.
    """
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        path = folder / f"{name}.npy"
        if file_sha256(path) != hashes[name]:
            raise InputError(f"{path}: its sha256 is not the header's; index the benchmark again")
        array = open_array(path)
        if array.dtype != dtype or array.shape[1:] != shape:
            raise InputError(f"{path}: {array.dtype} {array.shape} where {np.dtype(dtype)} (N, *{shape}) is expected")
        arrays[name] = array
    return arrays
