"""The labels of a benchmark as a pack of fingerprints, memory-mapped by every scan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.image_files import image_files
from cavendish.mixing.audit.benchmarks.image_pack import open_array, open_arrays, write_arrays
from cavendish.mixing.audit.matching.label_prints import (
    DEPTH_SIDE,
    LABELS_ALGORITHM,
    MASK_SIDE,
    LabelKind,
    LabelPrint,
    print_depth,
    print_ids,
)
from cavendish.mixing.images import check_png
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import file_sha256, read_json, write_atomic

LABEL_PACK_SCHEMA = "cavendish-label-pack/1"
_ARRAYS = {
    "masks": (np.uint8, (MASK_SIDE * MASK_SIDE // 8,)),
    "mask_areas": (np.int32, ()),
    "mask_owners": (np.uint32, ()),
    "reliefs": (np.int8, (DEPTH_SIDE, DEPTH_SIDE)),
    "relief_owners": (np.uint32, ()),
}
_MAX_FILE_BYTES = 256 * 2**20
_RELIEF_STEPS = 31.0
UNKNOWN = -128

SAME_MASK_IOU = 0.9
MAX_RECURRENCE = 2
"""A mask that more pictures of the same benchmark share (a bonnet, a frame) tells nothing."""


@dataclass(frozen=True)
class LabelPack:
    """Open fingerprints of a benchmark's labels; rows of masks in the order of their areas."""

    name: str
    folder: Path
    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    digest: str

    @property
    def images(self) -> list[str]:
        """The pictures' ids."""
        return self.header["images"]

    @cached_property
    def relief_rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The reliefs as rows, 0 where not known; 1 where known; and their squares."""
        stored = np.asarray(self.arrays["reliefs"]).reshape(-1, DEPTH_SIDE**2)
        known = stored != UNKNOWN
        rows = np.where(known, stored, 0).astype(np.float32)
        return rows, known.astype(np.float32), rows**2


def build_label_pack(
    name: str, maps: Iterable[tuple[str, LabelPrint]], out: Path, source: str, unread: Sequence[Mapping[str, str]] = ()
) -> LabelPack:
    """Write the fingerprints of a benchmark's label maps: (picture's id, print); a picture may have several.

    Args:
        source: digest of what the maps were made of, kept to tell whether the pack is still theirs.
        unread: maps that could not be read, with reasons.
    """
    images: dict[str, int] = {}
    masks: list[tuple[int, NDArray[np.bool_]]] = []
    reliefs: list[tuple[int, NDArray[np.int8]]] = []
    plain = 0
    for identity, one in maps:
        owner = images.setdefault(identity, len(images))
        masks += [(owner, mask) for mask in one.masks]
        plain += one.plain
        if one.relief is not None:
            reliefs.append((owner, pack_relief(one)))
    masks.sort(key=lambda item: (int(item[1].sum()), item[0], item[1].tobytes()))
    bits = np.array([np.packbits(mask) for _, mask in masks], np.uint8).reshape(-1, MASK_SIDE**2 // 8)
    areas = np.array([int(mask.sum()) for _, mask in masks], np.int32)
    owners = np.array([owner for owner, _ in masks], np.uint32)
    keep = _telling(bits, areas, owners)
    arrays: dict[str, NDArray[Any]] = {
        "masks": bits[keep],
        "mask_areas": areas[keep],
        "mask_owners": owners[keep],
        "reliefs": np.array([relief for _, relief in reliefs], np.int8).reshape(-1, DEPTH_SIDE, DEPTH_SIDE),
        "relief_owners": np.array([owner for owner, _ in reliefs], np.uint32),
    }
    out.mkdir(parents=True, exist_ok=True)
    hashes = write_arrays(out, arrays)
    header = {
        "schema": LABEL_PACK_SCHEMA,
        "algorithm": LABELS_ALGORITHM,
        "name": name,
        "source": source,
        "images": list(images),
        "plain": plain,
        "recurring": int((~keep).sum()),
        "unread": [dict(item) for item in unread],
        "arrays": hashes,
    }
    write_atomic(out / "header.json", canonical_json(header))
    return read_label_pack(out)


def read_label_pack(folder: Path) -> LabelPack:
    """Open a pack of label fingerprints, checking schema, algorithm and hashes.

    Raises:
        InputError: not such a pack, of another algorithm, or damaged.
    """
    header = read_json(folder / "header.json", "the header of a pack of label fingerprints")
    if not isinstance(header, dict) or header.get("schema") != LABEL_PACK_SCHEMA:
        raise InputError(f"{folder}: not a {LABEL_PACK_SCHEMA} pack of label fingerprints")
    if header.get("algorithm") != LABELS_ALGORITHM:
        raise InputError(f"{folder}: made with {header.get('algorithm')}, this is {LABELS_ALGORITHM}; index again")
    try:
        arrays = open_arrays(folder, header["arrays"], _ARRAYS)
        for rows, owners in (("masks", "mask_owners"), ("masks", "mask_areas"), ("reliefs", "relief_owners")):
            if len(arrays[rows]) != len(arrays[owners]):
                raise InputError(f"{folder}: damaged pack of label fingerprints: {rows} and {owners} do not fit")
        for key in ("mask_owners", "relief_owners"):
            if len(arrays[key]) and int(arrays[key].max()) >= len(header["images"]):
                raise InputError(f"{folder}: damaged pack of label fingerprints: {key} names pictures it has not")
        if not all(isinstance(text, str) for text in (header["name"], *header["images"])):
            raise InputError(f"{folder}: damaged pack of label fingerprints: names that are no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged pack of label fingerprints: {error}") from None
    return LabelPack(header["name"], folder, header, arrays, file_sha256(folder / "header.json"))


def read_label_files(
    folder: Path, kind: LabelKind, suffix: str
) -> tuple[list[tuple[str, LabelPrint]], list[dict[str, str]]]:
    """Fingerprint the label maps of a folder: PNG of ids or 16-bit depth, or `.npy` arrays.

    Returns:
        (picture's id, print) of each, and (id, reason) of those that could not be read.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    found: list[tuple[str, LabelPrint]] = []
    unread: list[dict[str, str]] = []
    for path in image_files(folder):
        if not path.name.endswith(suffix):
            continue
        identity = path.relative_to(folder).as_posix()
        try:
            values = _read_map(path, identity)
            found.append((identity, print_ids(values) if kind == "masks" else print_depth(values)))
        except InputError as error:
            unread.append({"id": identity, "reason": str(error)})
    if not found:
        raise InputError(f"{folder}: no readable label map that ends in {suffix}")
    return found, unread


def label_files_digest(folder: Path, kind: LabelKind, suffix: str) -> str:
    """Hash the names and bytes of the label maps of a folder."""
    files = [path for path in image_files(folder) if path.name.endswith(suffix)]
    return digest([kind, *([path.relative_to(folder).as_posix(), file_sha256(path)] for path in files)])


def pack_relief(one: LabelPrint) -> NDArray[np.int8]:
    """Quantise a print's relief to steps of 1/31 of its standard deviation; -128 is not known."""
    assert one.relief is not None
    assert one.known is not None
    return np.where(one.known, np.rint(one.relief * _RELIEF_STEPS), UNKNOWN).astype(np.int8)


def _read_map(path: Path, identity: str) -> NDArray[Any]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise InputError(f"{identity}: over {_MAX_FILE_BYTES // 2**20} MB")
    values: NDArray[Any] | None
    if path.suffix == ".npy":
        values = open_array(path)
        values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    else:
        data = path.read_bytes()
        check_png(data, identity)
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim not in (2, 3) or values.dtype.kind not in "uif":
        raise InputError(f"{identity}: not a label map (PNG of one or three channels, or .npy)")
    if values.ndim == 3:  # ids written as colours
        values = values[..., :3].astype(np.int64) @ (1, 256, 65536)
    return values


def _telling(bits: NDArray[np.uint8], areas: NDArray[np.int32], owners: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell the masks that at most `MAX_RECURRENCE` other pictures of the benchmark share."""
    keep = np.ones(len(bits), bool)
    for row in range(len(bits)):
        rows, _ = similar_masks(bits[row], int(areas[row]), bits, areas)
        keep[row] = len(set(owners[rows].tolist()) - {int(owners[row])}) <= MAX_RECURRENCE
    return keep


def similar_masks(
    query: NDArray[np.uint8], area: int, bits: NDArray[np.uint8], areas: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rows whose IoU with the query is at least 0.9, and the IoUs; `areas` are sorted."""
    start = int(np.searchsorted(areas, np.floor(area * SAME_MASK_IOU), "left"))
    stop = int(np.searchsorted(areas, np.ceil(area / SAME_MASK_IOU), "right"))
    if start == stop:
        return np.zeros(0, np.int64), np.zeros(0)
    near = np.asarray(bits[start:stop])
    differing, _ = cv2.batchDistance(near, query[None], cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
    total = area + np.asarray(areas[start:stop], np.float64)
    iou = (total - differing[:, 0]) / (total + differing[:, 0])
    rows = np.flatnonzero(iou >= SAME_MASK_IOU)
    return rows + start, iou[rows]
