"""The labels of a benchmark as a pack of fingerprints, and the comparison of one record's labels with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.image_pack import image_files
from cavendish.mixing.audit.benchmarks.pack_arrays import open_array, open_arrays, write_arrays
from cavendish.mixing.audit.matching.verify import dihedral_alignment
from cavendish.mixing.audit.signals.images import Finding
from cavendish.mixing.audit.signals.labels import (
    DEPTH_SIDE,
    LABELS_ALGORITHM,
    MASK_SIDE,
    LabelKind,
    LabelPrint,
    complexity,
    print_depth,
    print_ids,
    turned_back,
)
from cavendish.mixing.images import check_png
from cavendish.mixing.storage.files import canonical_json, digest, file_sha256, read_json, write_atomic

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
_UNKNOWN = -128
_MIN_JOINT = 0.4

SAME_MASK_IOU = 0.9
LONE_MASK_IOU = 0.95
LONE_COMPLEXITY = 1.6
DEPTH_LEAK = 0.92
DEPTH_REVIEW = 0.85
"""Of 1 584 telling masks and 311 depth maps of rendered scenes no two of different scenes come near: the best of 10
million pairs of masks, turns counted, has IoU 0.893, the best of 386 thousand pairs of depth correlation 0.752."""
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
        known = stored != _UNKNOWN
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


def compare_labels(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    """Compare one record's masks or depth with a benchmark's, in eight turns."""
    return _same_masks(one, pack) + _same_depth(one, pack)


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
    return np.where(one.known, np.rint(one.relief * _RELIEF_STEPS), _UNKNOWN).astype(np.int8)


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
        rows, _ = _similar(bits[row], int(areas[row]), bits, areas)
        keep[row] = len(set(owners[rows].tolist()) - {int(owners[row])}) <= MAX_RECURRENCE
    return keep


def _similar(
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


def _same_masks(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    pairs: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    for variant in range(8):
        for number, mask in enumerate(turned_back(one.masks, variant)):
            rows, ious = _similar(np.packbits(mask), int(mask.sum()), pack.arrays["masks"], pack.arrays["mask_areas"])
            for row, iou in zip(rows.tolist(), ious.tolist()):
                pairs[int(pack.arrays["mask_owners"][row]), variant].append((iou, number, row))
    best: dict[int, Finding] = {}
    weights: dict[int, float] = {}  # of several turns the one in which most agrees
    held = Counter(np.asarray(pack.arrays["mask_owners"]).tolist()) if pairs else Counter()
    for (owner, variant), found in sorted(pairs.items()):
        paired = _one_to_one(found)
        weight = sum(paired.values())
        if weight <= weights.get(owner, 0.0):
            continue
        weights[owner] = weight
        certain = len(paired) > 1 or any(
            iou >= LONE_MASK_IOU and complexity(one.masks[number]) >= LONE_COMPLEXITY for number, iou in paired.items()
        )
        reason = (
            f"{len(paired)} of its {len(one.masks)} telling masks are among the benchmark picture's {held[owner]}"
            f"{_TURNS[variant]}: mean IoU {weight / len(paired):.3f}."
        )
        level = "leak" if certain else "review"
        value = round(weight / len(paired), 4)
        best[owner] = _finding(pack, owner, level, "masks", reason, value, variant, len(paired))
    return list(best.values())


def _one_to_one(found: Iterable[tuple[float, int, int]]) -> dict[int, float]:
    """Pair masks, the best first, each once; return the IoU by number of the record's mask."""
    used: set[int] = set()
    ious: dict[int, float] = {}
    for iou, number, row in sorted(found, key=lambda item: (-item[0], item[1], item[2])):
        if number not in ious and row not in used:
            ious[number] = iou
            used.add(row)
    return ious


def _same_depth(one: LabelPrint, pack: LabelPack) -> list[Finding]:
    if one.relief is None or not len(pack.arrays["reliefs"]):
        return []
    theirs, theirs_known, theirs_squared = pack.relief_rows
    values = np.stack([turned_back(pack_relief(one), variant).reshape(-1) for variant in range(8)], axis=1)
    mine_known = (values != _UNKNOWN).astype(np.float32)
    mine = np.where(values != _UNKNOWN, values, 0).astype(np.float32)
    spread = np.sqrt((theirs_known @ mine**2) * (theirs_squared @ mine_known))
    joint = theirs_known @ mine_known / DEPTH_SIDE**2
    correlation = np.where(joint >= _MIN_JOINT, theirs @ mine / np.maximum(spread, 1e-6), 0)
    best: dict[int, Finding] = {}
    for row, variant in np.argwhere(correlation >= DEPTH_REVIEW).tolist():
        owner = int(pack.arrays["relief_owners"][row])
        value = round(float(correlation[row, variant]), 4)
        if owner in best and (best[owner].score or 0) >= value:
            continue
        reason = f"The relief of its depth is that of the benchmark's{_TURNS[variant]}: correlation {value:.3f}."
        level = "leak" if value >= DEPTH_LEAK else "review"
        best[owner] = _finding(pack, owner, level, "depth", reason, value, variant, None)
    return [best[owner] for owner in sorted(best)]


_TURNS = (
    "",
    ", upside down",
    ", mirrored",
    ", turned by half",
    ", transposed",
    ", turned by a quarter",
    ", turned by a quarter",
    ", transposed and turned",
)


def _finding(
    pack: LabelPack, owner: int, level: str, stage: str, reason: str, value: float, variant: int, count: int | None
) -> Finding:
    return Finding(
        benchmark=pack.name,
        image=pack.images[owner],
        level=level,
        kind="labels",
        stage=stage,
        reason=reason,
        score=value,
        agreeing=count,
        affine=tuple(float(number) for number in dihedral_alignment(variant).affine.reshape(-1)),
    )
