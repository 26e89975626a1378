"""Vectors of pictures by an ONNX model that the user names by path and sha256: further evidence, never a verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.audit.benchmarks.image_pack import Pack, open_array, write_array
from cavendish.mixing.audit.config import Embedder
from cavendish.mixing.audit.matching.fingerprints import pixel_sha256
from cavendish.mixing.audit.signals.signal import Finding, Record, ShardResults, Signal, view_name
from cavendish.mixing.extras import require_extra
from cavendish.mixing.onnx import load_onnxruntime
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import file_sha256, read_json, write_atomic

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

VECTORS_SCHEMA = "cavendish-vectors/1"
MAX_SIMILAR = 5
_MAX_MODEL_BYTES = 2**31
_DEFAULT_SIDE_PX = 224


@dataclass(frozen=True)
class Model:
    """An open model. `side_px` is what pictures are squeezed to; `channels_last` and `is_uint8` what it wants."""

    embedder: Embedder
    session: Any
    input: str
    side_px: int
    channels_last: bool
    is_uint8: bool


@dataclass(frozen=True)
class Vectors:
    """One model's vectors of a benchmark: `values` (N, D) float16 of unit length, row i of the pack's image i."""

    name: str
    values: NDArray[np.float16]
    digest: str


def vectors_folder(pack: Path, embedder: Embedder) -> Path:
    """Name the folder, inside a fingerprint pack, of a model's vectors."""
    settings = hashlib.sha256(canonical_json(embedder.model_dump(exclude={"name", "file", "similarity"}))).hexdigest()
    return pack / f"vectors-{settings[:16]}"


def open_model(embedder: Embedder, data: Path) -> Model:
    """Open a model after checking its hash; it is read from memory, so it can bring no files of its own.

    Raises:
        InputError: no such file, another hash, not ONNX, or not one picture in and one vector out.
    """
    return _open_model(embedder, data / embedder.file)


@lru_cache(maxsize=8)
def _open_model(embedder: Embedder, path: Path) -> Model:
    require_extra("annotate", "onnxruntime")
    onnxruntime = load_onnxruntime()
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= _MAX_MODEL_BYTES else b""
    except OSError as error:
        raise InputError(f"embedder {embedder.name}: {error}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != embedder.sha256.lower():
        raise InputError(f"embedder {embedder.name}: {path} has sha256 {found}, not {embedder.sha256}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise InputError(f"embedder {embedder.name}: not a usable ONNX model: {one_line(error, 300)}") from None
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    channels_last = len(shape) == 4 and shape[3] == 3
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        raise InputError(
            f"embedder {embedder.name}: wants {[(one.type, one.shape) for one in inputs]}; give a model of one "
            "float or uint8 picture, (N, 3, H, W) or (N, H, W, 3)"
        )
    fixed = shape[1] if channels_last else shape[2]
    side_px = embedder.side_px or (fixed if isinstance(fixed, int) and fixed > 0 else _DEFAULT_SIDE_PX)
    return Model(embedder, session, inputs[0].name, side_px, channels_last, inputs[0].type == "tensor(uint8)")


def embed(model: Model, image: UInt8Image) -> NDArray[np.float32]:
    """Return the (D,) vector of unit length of a picture.

    Raises:
        InputError: the model does not take the picture, or gives no finite vector.
    """
    small = cv2.resize(image, (model.side_px, model.side_px), interpolation=cv2.INTER_AREA)
    values: NDArray[Any] = small[None]
    mean, std = np.array(model.embedder.mean, np.float32), np.array(model.embedder.std, np.float32)
    if not model.is_uint8:
        values = (values.astype(np.float32) / 255 - mean) / std
    if not model.channels_last:
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    try:
        vector = np.asarray(model.session.run(None, {model.input: values})[0], np.float32).reshape(-1)
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise InputError(f"embedder {model.embedder.name}: {one_line(error, 300)}") from None
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise InputError(f"embedder {model.embedder.name}: gives no finite vector other than zero")
    return vector / length


def build_vectors(model: Model, pictures: Iterable[UInt8Image], pack: Pack) -> Vectors:
    """Embed a benchmark's pictures, in the order of its pack, and write them into the pack's folder."""
    folder = vectors_folder(pack.folder, model.embedder)
    known = _read_or_none(pack, model.embedder)
    if known is not None:
        return known
    values = np.stack([embed(model, image) for image in pictures]).astype(np.float16)
    if len(values) != len(pack.images):
        raise InputError(f"embedder {model.embedder.name}: {len(values)} pictures for {len(pack.images)} of the pack")
    folder.mkdir(parents=True, exist_ok=True)
    header = {
        "schema": VECTORS_SCHEMA,
        "model": model.embedder.sha256.lower(),
        "pack": pack.digest,
        "vectors": write_array(folder / "vectors.npy", values),
    }
    write_atomic(folder / "header.json", canonical_json(header))
    return read_vectors(pack, model.embedder)


def read_vectors(pack: Pack, embedder: Embedder) -> Vectors:
    """Open a model's vectors of a pack.

    Raises:
        InputError: not there, made of another pack or by another model, or damaged.
    """
    folder = vectors_folder(pack.folder, embedder)
    header = read_json(folder / "header.json", f"vectors of {pack.name} by embedder {embedder.name}")
    wanted = {"schema": VECTORS_SCHEMA, "model": embedder.sha256.lower(), "pack": pack.digest}
    if not isinstance(header, dict) or {key: header.get(key) for key in wanted} != wanted:
        raise InputError(f"{folder}: vectors of another pack or model; index again")
    path = folder / "vectors.npy"
    if not path.exists() or file_sha256(path) != header.get("vectors"):
        raise InputError(f"{path}: its sha256 is not the header's; index again")
    values = open_array(path)
    if values.dtype != np.float16 or values.ndim != 2 or len(values) != len(pack.images):
        raise InputError(f"{path}: {values.dtype} {values.shape} does not fit the pack")
    return Vectors(embedder.name, values, header["vectors"])


def similar_images(
    vector: NDArray[np.float32], vectors: Vectors, pack: Pack, embedder: Embedder, found: Iterable[str]
) -> tuple[dict[str, float], list[Finding]]:
    """Compare a picture's vector with a benchmark's.

    Returns:
        the cosine of each image among `found`, by id; and findings for review of the most similar others.

    Args:
        found: ids of images of the pack that other signals found.
    """
    cosine = np.asarray(vectors.values, np.float32) @ vector
    wanted = set(found)
    numbers = {image["id"]: number for number, image in enumerate(pack.images)}
    known = {image: round(float(cosine[numbers[image]]), 3) for image in sorted(wanted & set(numbers))}
    more: list[Finding] = []
    for number in np.argsort(-cosine, kind="stable")[: MAX_SIMILAR + len(known)].tolist():
        identity, value = pack.images[number]["id"], float(cosine[number])
        if identity in wanted or value < embedder.similarity or len(more) == MAX_SIMILAR:
            continue
        reason = (
            f"{embedder.name} finds the two pictures alike: cosine {value:.3f}, asked for {embedder.similarity:g}; no "
            "pixels were shown to be the same."
        )
        more.append(Finding(pack.name, identity, "review", "similar", "embedding", reason, score=round(value, 3)))
    return known, more


def _read_or_none(pack: Pack, embedder: Embedder) -> Vectors | None:
    try:
        return read_vectors(pack, embedder)
    except InputError:
        return None  # not there, or of another state of the pack: made again


class EmbeddingSignal(Signal):
    """Adds cosines to what the image signal found, and sends images that a model alone finds alike to review."""

    name = "embeddings"

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Name the models and their vectors."""
        return {
            "vectors": [list(index.vectors) for index in plan.indexes if index.vectors],
            "embedders": [embedder.model_dump(exclude={"file"}) for embedder in plan.config.embedders],
        }

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Compare every image of a record that can be decoded."""
        for member in record.parts if plan.config.embedders else ():
            for view in record.views(member).views:
                try:
                    self._compare_image(plan, record, view_name(member, view), view.image, results)
                except InputError as error:
                    results.fail(f"{record.key}.{member}", error)

    def _compare_image(
        self, plan: ScanPlan, record: Record, member: str, image: UInt8Image, results: ShardResults
    ) -> None:
        content = pixel_sha256(image)
        for embedder in plan.config.embedders:
            vector = embed(open_model(embedder, plan.data), image)
            for index in plan.indexes:
                if embedder.name not in dict(index.vectors):
                    continue
                pack, found = index.open_pack(), results.of(record, member)
                images = [finding["image"] for finding in found if finding["benchmark"] == pack.name]
                known, more = similar_images(vector, index.open_vectors(embedder), pack, embedder, images)
                for finding in more:
                    results.add(record, member, content, finding)
                for row in results.of(record, member):
                    if row["benchmark"] == pack.name and row["image"] in known:
                        row["similarity"][embedder.name] = known[row["image"]]

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Name the models."""
        return {"embedders": [name for name, _ in index.vectors]}
