"""What a Sample or an Example is on disk: the parts of one WebDataset key, and back.

Formats (docs/shards.md has sizes and errors): depth as 16-bit PNG of log metres ("log16/1"), normals as 16-bit RGB PNG
("unit16/1"), ids as 16-bit PNG, albedo as RGB PNG, the weight as 8-bit grey PNG, everything else in `json`. Writing
quantises depth once, by at most 8.8e-5 relative, and the weight to 1/255; reading and writing again changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any

import numpy as np
from annotated_types import Len
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictBool, StrictStr, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from cavendish.encoders.sample import (
    EXAMPLE_SCHEMA,
    SAMPLE_SCHEMA,
    Camera,
    Edit,
    Example,
    InputError,
    Instance,
    Sample,
)
from cavendish.encoders.tasks.registry import TASK_NAMES, tasks_of
from cavendish.mixing.images import decode_grey, decode_png16, decode_rgb, encode_png
from cavendish.mixing.shards.dataset import Facts, first_problem
from cavendish.mixing.storage.files import canonical_json

Parts = dict[str, bytes]
IMAGE_PARTS = ("image.png", "image.jpg", "image.webp")
EDITED_PARTS = ("edited.png", "edited.jpg", "edited.webp")

DEPTH_MIN_M = 0.05
DEPTH_MAX_M = 5000.0
_FINITE_CODES = 65533  # codes 1..65534; 0 is unknown, 65535 no surface
_LOG_STEP = np.log(DEPTH_MAX_M / DEPTH_MIN_M) / _FINITE_CODES
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class StoredSample(Sample):
    """A Sample whose pictures are files already: `files` holds parts that are written as they are, by name."""

    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def pack_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Quantise planar metres to 16-bit log codes: 0 unknown (NaN), 65535 no surface (+inf), else log spaced.

    Raises:
        InputError: a finite depth outside 0.05 to 5000 m; nothing is clipped.
    """
    finite = np.isfinite(depth_m)
    values = depth_m[finite]
    if values.size and (values.min() < DEPTH_MIN_M or values.max() > DEPTH_MAX_M):
        raise InputError(
            f"depth from {values.min():.4g} to {values.max():.4g} m: shards hold {DEPTH_MIN_M} to {DEPTH_MAX_M} m; "
            "mark what lies outside as +inf or NaN"
        )
    codes = np.zeros(depth_m.shape, np.uint16)
    codes[finite] = 1 + np.rint(np.log(values.astype(np.float64) / DEPTH_MIN_M) / _LOG_STEP).astype(np.uint16)
    codes[np.isposinf(depth_m)] = 65535
    return codes


def unpack_depth(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return (H, W) float32 planar metres from `pack_depth` codes."""
    return _depth_table()[codes]


@cache
def _depth_table() -> NDArray[np.float32]:
    table = DEPTH_MIN_M * np.exp((np.arange(65536) - 1) * _LOG_STEP)
    table = np.clip(table, DEPTH_MIN_M, DEPTH_MAX_M).astype(np.float32)  # both ends exact: packing again is allowed
    table[0], table[65535] = np.nan, np.inf
    return table


def pack_normals(normals: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Quantise (H, W, 3) unit vectors to 16 bits a component; (0, 0, 0) is kept exactly."""
    if np.abs(normals).max(initial=0) > 1.0001:
        raise InputError("normals have components beyond [-1, 1]; they must be unit vectors or (0, 0, 0)")
    return np.rint((np.clip(normals, -1, 1).astype(np.float64) + 1) * 32767).astype(np.uint16)


def unpack_normals(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return (H, W, 3) float32 unit vectors, (0, 0, 0) where unknown."""
    vectors = codes.astype(np.float32)
    vectors /= np.float32(32767)
    vectors -= 1  # 32767 becomes 0 exactly
    x, y, z = (vectors[..., axis] for axis in range(3))
    length = np.sqrt(x * x + y * y + z * z)  # by hand: six times as fast as np.linalg.norm along the last axis
    length[length == 0] = 1
    vectors /= length[..., None]
    return vectors


def pack_weight(weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Quantise (H, W) weights in 0..1 to steps of 1/255."""
    if not (weight.min(initial=0) >= 0 and weight.max(initial=0) <= 1):
        raise InputError("weight has values outside 0..1")
    return np.rint(weight * 255).astype(np.uint8)


def _decode_normals(data: bytes, name: str) -> NDArray[np.float32]:
    return unpack_normals(decode_png16(data, name, 3))


@dataclasses.dataclass(frozen=True)
class _ArrayPart:
    """How an array of a Sample is stored: the part it is, and what `json` says of its format."""

    field: str
    part: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, str], NDArray[Any]]
    format: Mapping[str, str] = dataclasses.field(default_factory=dict)


_LOG16, _UNIT16 = {"depth_format": "log16/1"}, {"normals_format": "unit16/1"}
_WEIGHT = _ArrayPart(
    "weight",
    "weight.png",
    lambda weight: encode_png(pack_weight(weight)),
    lambda data, name: decode_grey(data, name).astype(np.float32) / 255,
)
_ARRAY_PARTS = (
    _ArrayPart(
        "depth_m",
        "depth.png",
        lambda depth_m: encode_png(pack_depth(depth_m)),
        lambda data, name: unpack_depth(decode_png16(data, name, 1)),
        _LOG16,
    ),
    *(
        _ArrayPart(name, f"{name}.png", lambda normals: encode_png(pack_normals(normals)), _decode_normals, _UNIT16)
        for name in ("normals", "geometric_normals")
    ),
    _ArrayPart("albedo", "albedo.png", encode_png, decode_rgb),
    _WEIGHT,
    _ArrayPart(
        "instance_ids",
        "instances.png",
        lambda ids: encode_png(ids.astype(np.uint16, casting="safe")),
        lambda data, name: decode_png16(data, name, 1),
    ),
)
_ARRAY_FIELDS = ("image", *(array.field for array in _ARRAY_PARTS))


def check_key(key: str) -> str:
    """Return `key` when it can be a WebDataset key and a file name, else raise InputError."""
    if not _KEY.fullmatch(key) or ".." in key or len(key) > 90:
        raise InputError(f"key {key!r}: use at most 90 letters, digits, '-', '_' and single dots")
    return key


def sample_parts(sample: Sample) -> Parts:
    """Serialise a Sample to the parts of its key, without the key in their names."""
    if "." in check_key(sample.key):
        raise InputError(f"key {sample.key!r}: a sample's key has no dot")
    files = sample.files if isinstance(sample, StoredSample) else {}
    parts: Parts = dict(files)
    meta = {"schema": SAMPLE_SCHEMA, **_meta(sample)}
    arrays = _arrays(sample)
    if not any(name in files for name in IMAGE_PARTS):
        parts["image.png"] = encode_png(sample.image)
    for stored in _ARRAY_PARTS:
        if stored.field in arrays:
            parts[stored.part] = stored.encode(arrays[stored.field])
            meta |= stored.format
    if sample.edit is not None and not any(name in files for name in EDITED_PARTS):
        parts["edited.png"] = encode_png(sample.edit.image)
    parts["json"] = _json(sample.key, meta)
    return parts


def raw_sample(sample: Sample) -> tuple[dict[str, Any], bytes]:
    """Serialise a Sample without compression, for a pipe: a json-able header, and the bytes of its arrays."""
    arrays = _arrays(sample)
    shapes = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    blob = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    return {"key": sample.key, "meta": _meta(sample), "arrays": shapes}, blob


def parse_raw_sample(header: Mapping[str, Any], blob: bytes) -> Sample:
    """Undo `raw_sample`, after its header has been through json."""
    arrays, offset = dict[str, Any](), 0
    for name, kind, shape in header["arrays"]:
        array = np.frombuffer(blob, kind, math.prod(shape), offset).reshape(shape)
        arrays[name], offset = array, offset + array.nbytes
    return _build_sample(header["key"], header["meta"], arrays)


def _meta(sample: Sample) -> dict[str, Any]:
    """Return all of a Sample but its key and its arrays, json-able."""
    apart = (*_ARRAY_FIELDS, "edit", "key", "files")
    meta = {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample) if f.name not in apart}
    meta["camera"] = None if sample.camera is None else dataclasses.asdict(sample.camera)
    meta["instances"] = [dataclasses.asdict(instance) for instance in sample.instances]
    if sample.edit is not None:
        meta["edit"] = {name: getattr(sample.edit, name) for name in ("kind", "instruction", "instance_id")}
    return meta


def _arrays(sample: Sample) -> dict[str, Any]:
    """Return the arrays that a Sample has, by field; the image of its edit as `edited`.

    Raises:
        InputError: one is not of the size of the image.
    """
    found = {name: array for name in _ARRAY_FIELDS if (array := getattr(sample, name)) is not None}
    _check_size(sample, found)
    return found if sample.edit is None else {**found, "edited": sample.edit.image}


def _check_size(sample: Sample, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.shape[:2] != sample.image.shape[:2]:
            raise InputError(f"{sample.key}: {name} is {array.shape[:2]}, the image is {sample.image.shape[:2]}")


def _build_sample(key: str, meta: Mapping[str, Any], arrays: dict[str, Any]) -> Sample:
    edited = arrays.pop("edited", None)
    try:
        facts: dict[str, Any] = {**_FACTS.validate_python(meta)}
        edit = None if edited is None else Edit(image=edited, **_EDIT.validate_python(meta.get("edit")))
    except ValidationError as error:
        raise InputError(f"{key}.json: field missing or of the wrong kind: {first_problem(error)}") from None
    facts["camera"] = None if facts["camera"] is None else Camera(**facts["camera"])
    facts["instances"] = tuple(Instance(**instance) for instance in facts["instances"])
    sample = Sample(key=key, edit=edit, **facts, **arrays)
    _check_size(sample, _arrays(sample))
    return sample


_Int = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)]
_Number = _Int | Annotated[float, Field(strict=True, allow_inf_nan=False)]  # an int stays one, so that bytes stay
_Point = tuple[_Number, _Number, _Number]
_Pixels = Annotated[int, Field(strict=True, ge=0, le=1 << 20)]


@with_config(ConfigDict(extra="forbid"))
class _CameraFacts(TypedDict):
    width: _Int
    height: _Int
    fx: _Number
    fy: _Number
    cx: _Number
    cy: _Number
    camera_to_world: Annotated[tuple[_Number, ...], Len(16, 16)] | None


@with_config(ConfigDict(extra="forbid"))
class _InstanceFacts(TypedDict):
    id: Annotated[int, Field(strict=True, ge=0, le=65535)]
    category: StrictStr
    visible_pixels: _Int
    box: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    attributes: dict[str, StrictStr]
    visible_fraction: _Number | None
    center_camera_m: _Point | None
    size_m: _Point | None
    is_thing: StrictBool


@with_config(ConfigDict(extra="forbid"))
class _EditFacts(TypedDict):
    kind: StrictStr
    instruction: StrictStr
    instance_id: _Int


class _SampleFacts(TypedDict):
    source: StrictStr
    licence: StrictStr
    exhaustive: StrictBool
    captions: tuple[StrictStr, ...]
    facts: dict[str, Any]
    provenance: dict[str, Any]
    quality: dict[str, _Number]
    camera: _CameraFacts | None
    instances: tuple[_InstanceFacts, ...]


class _ExampleFacts(TypedDict):
    key: StrictStr
    task: StrictStr
    prompt: StrictStr
    spec: dict[str, Any]


_FACTS, _EDIT, _EXAMPLE = TypeAdapter(_SampleFacts), TypeAdapter(_EditFacts), TypeAdapter(_ExampleFacts)


def _json(key: str, meta: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json(meta)
    except ValueError as error:  # NaN, infinity, or half of a surrogate pair
        raise InputError(f"{key}: json has no word for a value of it: {error}") from None


def parse_sample(key: str, parts: Mapping[str, bytes]) -> Sample:
    """Rebuild a Sample from its parts.

    Raises:
        InputError: a part is missing, damaged or of another schema; the message names the key and the part.
    """
    meta = _parse_json(key, parts, "json", SAMPLE_SCHEMA)
    image, edited = (next((x for x in names if x in parts), None) for names in (IMAGE_PARTS, EDITED_PARTS))
    if image is None:
        raise InputError(f"{key}: no image.png, .jpg or .webp")
    arrays: dict[str, Any] = {"image": decode_rgb(parts[image], f"{key}.{image}")}
    for stored in _ARRAY_PARTS:
        if stored.part in parts:
            arrays[stored.field] = stored.decode(parts[stored.part], f"{key}.{stored.part}")
    if edited is not None:
        arrays["edited"] = decode_rgb(parts[edited], f"{key}.{edited}")
    return _build_sample(key, meta, arrays)


def _parse_json(key: str, parts: Mapping[str, bytes], name: str, schema: str) -> dict[str, Any]:
    if name not in parts:
        raise InputError(f"{key}: no {name}; its parts are {', '.join(sorted(parts)) or 'none'}")
    try:
        meta = json.loads(parts[name])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{key}.{name}: not valid json: {error}") from None
    if not isinstance(meta, dict) or meta.get("schema") != schema:
        found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
        raise InputError(f"{key}.{name}: schema {found!r}, this version reads {schema!r}")
    return meta


def example_parts(example: Example) -> Parts:
    """Serialise an Example to the parts of its key; dots of the key become `_`, since a WebDataset key has none."""
    parts: Parts = {"target.png": encode_png(example.target)}
    if example.source is not None:
        parts["source.png"] = encode_png(example.source)
    if example.weight is not None:
        parts["weight.png"] = _WEIGHT.encode(example.weight)
    meta = {
        "schema": EXAMPLE_SCHEMA,
        "key": check_key(example.key),
        "task": example.task,
        "prompt": example.prompt,
        "spec": dict(example.spec),
    }
    parts["instruction.json"] = _json(example.key, meta)
    return parts


def parse_example(key: str, parts: Mapping[str, bytes]) -> Example:
    """Rebuild an Example from its parts.

    Raises:
        InputError: a part is missing, damaged or of another schema; the message names the key and the part.
    """
    meta = _parse_json(key, parts, "instruction.json", EXAMPLE_SCHEMA)
    if "target.png" not in parts:
        raise InputError(f"{key}: no target.png")
    if meta.get("task") not in TASK_NAMES:
        raise InputError(f"{key}.instruction.json: unknown task {meta.get('task')!r}; known: {', '.join(TASK_NAMES)}")
    try:
        facts = _EXAMPLE.validate_python(meta)
    except ValidationError as error:
        raise InputError(
            f"{key}.instruction.json: field missing or of the wrong kind: {first_problem(error)}"
        ) from None
    check_key(facts["key"])
    return Example(
        source=decode_rgb(parts["source.png"], f"{key}.source.png") if "source.png" in parts else None,
        target=decode_rgb(parts["target.png"], f"{key}.target.png"),
        weight=_WEIGHT.decode(parts["weight.png"], f"{key}.weight.png") if "weight.png" in parts else None,
        **facts,
    )


@dataclasses.dataclass(frozen=True)
class Origin:
    """The raw sample that an example was drawn from, as its spec says under `origin`; None for what it does not say.

    Args:
        key, source, licence: of the sample.
        scene: key of the scene that the sample shares with other views.
    """

    key: str | None = None
    source: str | None = None
    licence: str | None = None
    scene: str | None = None

    @classmethod
    def of_sample(cls, sample: Sample) -> Origin:
        """Return the origin of an example that is drawn from `sample`."""
        scene = sample.facts.get("scene_key")
        return cls(sample.key, sample.source, sample.licence, None if scene is None else str(scene))

    @classmethod
    def of_spec(cls, spec: object) -> Origin:
        """Read the origin out of the spec of an example."""
        stated = spec.get("origin") if isinstance(spec, Mapping) else None
        values = stated if isinstance(stated, Mapping) else {}
        fields = {field.name: values.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**{name: None if value is None else str(value) for name, value in fields.items()})

    def as_dict(self) -> dict[str, str]:
        """Return what a spec holds under `origin`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def sample_of(self, key: str) -> str:
        """Return the key of the raw sample; where the spec does not say, the key of the example begins with it."""
        return key.partition(".")[0] if self.key is None else self.key


def record_facts(record: Sample | Example) -> Facts:
    """Return what a mixture has to know of a record to choose it, json-able: rows of shards carry it.

    `sample` is the key of the raw sample it is of, `scene` that of the scene it shares with other views if it does,
    `size` its height and width in pixels, `tasks` what it can serve.
    """
    if isinstance(record, Sample):
        origin, image, tasks, quality = Origin.of_sample(record), record.image, list(tasks_of(record)), record.quality
    else:
        origin, image, tasks, quality = Origin.of_spec(record.spec), record.target, [record.task], {}
    facts: Facts = {
        "sample": origin.sample_of(record.key),
        "licence": "unknown" if origin.licence is None else origin.licence,
        "tasks": tasks,
        "size": list(image.shape[:2]),
        "quality": dict(quality),
    }
    if origin.scene is not None:
        facts["scene"] = origin.scene
    return facts


def record_key(record: Sample | Example) -> str:
    """Return the WebDataset key of a record."""
    return record.key.replace(".", "_")


def record_parts(record: Sample | Example) -> Parts:
    """Serialise either kind of record."""
    return sample_parts(record) if isinstance(record, Sample) else example_parts(record)


def parse_record(key: str, parts: Mapping[str, bytes]) -> Sample | Example:
    """Rebuild whichever kind of record these parts are."""
    return parse_example(key, parts) if "instruction.json" in parts else parse_sample(key, parts)
