"""The benchmark side: folders of images -> a fingerprint pack without pixels, memory-mapped by every scan.

A pack is a folder of plain arrays beside `header.json`, which names the algorithm, the library versions and the sha256
of every array. `pixels.bin` (small JPEGs, for the pixel check and the report) is kept only when asked for.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.sample import InputError, UInt8Image
from mixing.audit.fingerprints import (
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
from mixing.images import decode_rgb
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic

PACK_SCHEMA = "cavendish-pack/1"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_OTHER_IMAGE_SUFFIXES = (".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".avif", ".jp2", ".exr")
MAX_FILE_BYTES = 256 * 2**20
_ARRAYS = {
    "pdq": (np.uint8, (8, 32)),
    "quality": (np.uint8, ()),
    "sizes": (np.uint32, (2,)),
    "descriptors": (np.uint8, (32,)),
    "points": (np.uint16, (2,)),
    "owners": (np.uint32, ()),
    "centroids": (np.uint8, (32,)),
    "offsets": (np.int64, ()),
}
_MIN_FEATURES_PER_LIST = 300
_TRAINED_PER_LIST = 40
_ROUNDS = 4
_NEIGHBOURS = 4
_PROBES = 8
_MAX_DISTANCE = 64


@dataclass(frozen=True)
class Matches:
    """Descriptor matches of one picture with one benchmark image: row i of `query` and of `benchmark` belong together.

    `query`, `benchmark` (N, 2) float32 x, y in 0..1; the benchmark's are of the mirrored image when `mirrored`.
    """

    image: int
    mirrored: bool
    query: NDArray[np.float32]
    benchmark: NDArray[np.float32]


@dataclass(frozen=True)
class Pack:
    """An open fingerprint pack. `header` is the json; `arrays` are memory-mapped; `digest` names the whole pack."""

    folder: Path
    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
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
        return self.header["pixels"] is not None

    def working_px(self, image: int) -> tuple[int, int]:
        """Return (width, height) of the grey picture an image's features were found on."""
        width, height = (int(side) for side in self.arrays["sizes"][image])
        return working_size(width, height)

    def thumbnail(self, image: int) -> UInt8Image:
        """Decode the kept small picture of an image, (H, W, 3) uint8 RGB, its longer side at most 640 px."""
        start, end = self.header["pixels"]["offsets"][image : image + 2]
        with (self.folder / "pixels.bin").open("rb") as file:
            data = os.pread(file.fileno(), end - start, start)
        return decode_rgb(data, f"{self.name}/{self.images[image]['id']} (kept picture)")


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders in sorted order, links followed once.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmark images")
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place) / name for name in sorted(names))


def build_pack(name: str, folder: Path, out: Path, pixels: bool = False) -> Pack:
    """Fingerprint every image of a folder and write the pack; a pack that holds just these files is kept as it is.

    Args:
        name: the benchmark's name in reports.
        folder: PNG, JPEG and WebP files, at any depth; anything else that looks like an image is noted as not read.
        out: the pack's folder.
        pixels: keep small pictures too. Without them findings end at "geometric, unverified pixels".

    Raises:
        InputError: no such folder, or no readable image in it.
    """
    source = _source_digest(folder)
    if (out / "header.json").exists():
        found = _pack_or_none(out)
        if found is not None and (found.header["source"], found.name, found.has_pixels) == (source, name, pixels):
            return found
    images: list[dict[str, Any]] = []
    unread: list[dict[str, str]] = []
    rows: list[tuple[Fingerprint, list[Features]]] = []
    thumbnails = io.BytesIO()
    offsets = [0]
    for path in image_files(folder):
        identity = path.relative_to(folder).as_posix()
        try:
            decoded = _read_image(path, identity)
        except InputError as error:
            unread.append({"id": identity, "reason": str(error)})
            continue
        if decoded is None:
            continue
        data, image = decoded
        print_ = fingerprint(image, data)
        rows.append((print_, features_both_ways(working_gray(image))))
        images.append({"id": identity, "file_sha256": print_.file_sha256, "pixel_sha256": print_.pixel_sha256})
        if pixels:
            thumbnails.write(_small_jpeg(image))
            offsets.append(thumbnails.tell())
    if not images:
        raise InputError(f"{folder}: no readable PNG, JPEG or WebP image for benchmark {name}")
    out.mkdir(parents=True, exist_ok=True)
    arrays = _arrays(rows)
    header: dict[str, Any] = {
        "schema": PACK_SCHEMA,
        "algorithm": ALGORITHM,
        "opencv": cv2.__version__,
        "name": name,
        "source": source,
        "images": images,
        "unread": unread,
        "weak": [images[i]["id"] for i in np.flatnonzero(arrays["quality"] < MIN_QUALITY)],
        "arrays": {key: _write_array(out / f"{key}.npy", array) for key, array in arrays.items()},
        "pixels": None,
    }
    if pixels:
        write_atomic(out / "pixels.bin", thumbnails.getvalue())
        header["pixels"] = {"sha256": hashlib.sha256(thumbnails.getvalue()).hexdigest(), "offsets": offsets}
    write_atomic(out / "header.json", canonical_json(header))
    return read_pack(out)


def _source_digest(folder: Path) -> str:
    """Hash the names and bytes of all files of a folder."""
    return digest([[path.relative_to(folder).as_posix(), file_sha256(path)] for path in image_files(folder)])


def _pack_or_none(folder: Path) -> Pack | None:
    try:
        return read_pack(folder)
    except InputError:
        return None  # made by another version or damaged: it is made again


def features_both_ways(gray: NDArray[np.uint8]) -> list[Features]:
    """Return the features of a picture and of its mirror image: ORB is invariant to turns, not to reflection."""
    return [local_features(side, FEATURES_PER_CELL) for side in (gray, np.ascontiguousarray(gray[:, ::-1]))]


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
    arrays = {}
    try:
        for key, (dtype, shape) in _ARRAYS.items():
            path = folder / f"{key}.npy"
            if file_sha256(path) != header["arrays"][key]:
                raise InputError(f"{path}: its sha256 is not the header's; index the benchmark again")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype != dtype or array.shape[1:] != shape:
                raise InputError(
                    f"{path}: {array.dtype} {array.shape} where {np.dtype(dtype)} (N, *{shape}) is expected"
                )
            arrays[key] = array
        _check_sizes(folder, header, arrays)
        if header["pixels"] is not None and file_sha256(folder / "pixels.bin") != header["pixels"]["sha256"]:
            raise InputError(f"{folder / 'pixels.bin'}: its sha256 is not the header's; index the benchmark again")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged fingerprint pack: {error}") from None
    by_file: dict[str, list[int]] = {}
    by_pixels: dict[str, list[int]] = {}
    for number, image in enumerate(header["images"]):
        by_file.setdefault(image["file_sha256"], []).append(number)
        by_pixels.setdefault(image["pixel_sha256"], []).append(number)
    return Pack(folder, header, arrays, file_sha256(folder / "header.json"), by_file, by_pixels)


def nearest(pack: Pack, features: Features) -> list[Matches]:
    """Find the benchmark images that share most features with a picture, best first.

    Each feature votes through its four nearest descriptors within 64 of 256 bits, looked for in the eight inverted
    lists nearest to it.
    """
    if not len(features.descriptors) or not len(pack.arrays["descriptors"]):
        return []
    feature, row, distance = _neighbours(pack, features.descriptors)
    owner = np.asarray(pack.arrays["owners"][row])
    order = np.lexsort((row, distance, feature, owner))  # one match per feature and owner: the nearest
    feature, row, owner = feature[order], row[order], owner[order]
    first = np.ones(len(owner), bool)
    first[1:] = (owner[1:] != owner[:-1]) | (feature[1:] != feature[:-1])
    feature, row, owner = feature[first], row[first], owner[first]
    owners, starts, votes = np.unique(owner, return_index=True, return_counts=True)
    found = []
    for k in np.argsort(-votes, kind="stable"):
        span = slice(starts[k], starts[k] + votes[k])
        points = unpack_points(np.asarray(pack.arrays["points"][row[span]]))
        image, mirrored = divmod(int(owners[k]), 2)
        found.append(Matches(image, bool(mirrored), features.points[feature[span]], points))
    return found


def _neighbours(
    pack: Pack, descriptors: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return (feature, row, distance) of the matches of every descriptor, at most four each."""
    offsets, stored = pack.arrays["offsets"], pack.arrays["descriptors"]
    probes = min(_PROBES, len(pack.arrays["centroids"]))
    _, lists = cv2.batchDistance(
        descriptors, np.asarray(pack.arrays["centroids"]), cv2.CV_32S, normType=cv2.NORM_HAMMING, K=probes
    )
    feature = np.repeat(np.arange(len(descriptors)), probes)
    order = np.argsort(lists.reshape(-1), kind="stable")
    feature, wanted = feature[order], lists.reshape(-1)[order]
    found: list[tuple[NDArray[Any], ...]] = []
    bounds = np.flatnonzero(np.diff(wanted, prepend=-1, append=len(offsets)))
    for begin, end in pairwise(bounds):
        start, stop = int(offsets[wanted[begin]]), int(offsets[wanted[begin] + 1])
        if start == stop:
            continue
        mine = feature[begin:end]
        near = min(_NEIGHBOURS, stop - start)
        distance, local = cv2.batchDistance(
            descriptors[mine], np.asarray(stored[start:stop]), cv2.CV_32S, normType=cv2.NORM_HAMMING, K=near
        )
        close = distance < _MAX_DISTANCE
        found.append((np.repeat(mine, near)[close.reshape(-1)], local[close] + start, distance[close]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)
    feature, row, distance = (np.concatenate(part) for part in zip(*found))
    order = np.lexsort((row, distance, feature))
    feature, row, distance = feature[order], row[order].astype(np.int64), distance[order]
    rank = np.arange(len(feature)) - np.searchsorted(feature, feature, side="left")
    keep = rank < _NEIGHBOURS
    return feature[keep], row[keep], distance[keep]


def _arrays(rows: list[tuple[Fingerprint, list[Features]]]) -> dict[str, NDArray[Any]]:
    descriptors = np.concatenate([one.descriptors for _, both in rows for one in both])
    points = np.concatenate([pack_points(one.points) for _, both in rows for one in both])
    counts = [len(one.descriptors) for _, both in rows for one in both]
    owners = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    centroids = _centroids(descriptors)
    nearest_list = _assign(descriptors, centroids)
    order = np.argsort(nearest_list, kind="stable")
    return {
        "pdq": np.stack([print_.pdq.variants for print_, _ in rows]),
        "quality": np.array([print_.pdq.quality for print_, _ in rows], np.uint8),
        "sizes": np.array([(print_.width, print_.height) for print_, _ in rows], np.uint32),
        "descriptors": descriptors[order],
        "points": points[order],
        "owners": owners[order],
        "centroids": centroids,
        "offsets": np.searchsorted(nearest_list[order], np.arange(len(centroids) + 1)).astype(np.int64),
    }


def _centroids(descriptors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cluster descriptors: Lloyd's rounds in Hamming space, the centre of a list being the majority of each bit."""
    # both the lists to choose among and the features in each grow with the square root of the whole
    per_list = max(_MIN_FEATURES_PER_LIST, round(0.63 * len(descriptors) ** 0.5))
    count = max(len(descriptors) // per_list, 1)
    rng = np.random.default_rng(0)
    size = min(len(descriptors), count * _TRAINED_PER_LIST)
    sample = descriptors[np.sort(rng.choice(len(descriptors), size, replace=False))]
    if not len(sample):
        return np.zeros((1, 32), np.uint8)
    centroids = sample[np.sort(rng.choice(size, min(count, size), replace=False))]
    bits = np.unpackbits(sample, axis=1)
    for _ in range(_ROUNDS):
        lists = _assign(sample, centroids)
        order = np.argsort(lists, kind="stable")
        present, starts, sizes = np.unique(lists[order], return_index=True, return_counts=True)
        ones = np.add.reduceat(bits[order], starts, axis=0, dtype=np.int64)
        centroids = centroids.copy()
        centroids[present] = np.packbits(ones * 2 > sizes[:, None], axis=1)
    return centroids


def _assign(descriptors: NDArray[np.uint8], centroids: NDArray[np.uint8]) -> NDArray[np.int64]:
    if not len(descriptors):
        return np.zeros(0, np.int64)
    _, lists = cv2.batchDistance(descriptors, centroids, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
    return lists[:, 0].astype(np.int64)


def _check_sizes(folder: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    count, features = len(header["images"]), len(arrays["descriptors"])
    offsets = arrays["offsets"]
    sound = (
        all(len(arrays[key]) == count for key in ("pdq", "quality", "sizes"))
        and all(len(arrays[key]) == features for key in ("points", "owners"))
        and len(offsets) == len(arrays["centroids"]) + 1
        and offsets[0] == 0
        and offsets[-1] == features
        and bool((np.diff(offsets) >= 0).all())
        and (features == 0 or int(arrays["owners"].max()) < 2 * count)
        and all(isinstance(image["id"], str) and len(image["pixel_sha256"]) == 64 for image in header["images"])
        and (header["pixels"] is None or len(header["pixels"]["offsets"]) == count + 1)
    )
    if not sound:
        raise InputError(f"{folder}: damaged fingerprint pack: its arrays do not fit together")


def _read_image(path: Path, identity: str) -> tuple[bytes, UInt8Image] | None:
    suffix = path.suffix.lower()
    if suffix in _OTHER_IMAGE_SUFFIXES:
        raise InputError(f"{identity}: {suffix} is not read; convert it to PNG")
    if suffix not in IMAGE_SUFFIXES:
        return None
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{identity}: over {MAX_FILE_BYTES // 2**20} MB")
    data = path.read_bytes()
    return data, decode_rgb(data, identity)


def _small_jpeg(image: UInt8Image) -> bytes:
    height, width = image.shape[:2]
    scale = min(WORKING_MAX_PX / max(height, width), 1.0)
    if scale < 1.0:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 92))
    return data.tobytes()


def _write_array(path: Path, array: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
