"""The convert job: shards and folders made by others -> raw shards. Plain images pass through as the files they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import cv2
from pydantic import Field

from cavendish.encoders.codecs.normals import CONVENTIONS
from cavendish.encoders.sample import Edit, InputError, Rejection, UInt8Image
from cavendish.encoders.tasks.registry import tasks_of
from cavendish.mixing.accounting import Accounting
from cavendish.mixing.config import Config
from cavendish.mixing.extras import require_extra
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.jobs.beam import ShardJob, read_inputs, run
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.shards.dataset import Plan
from cavendish.mixing.shards.sample_format import StoredSample
from cavendish.mixing.sources.arrays import decode_depth_file, decode_normals_file
from cavendish.mixing.sources.decode import FILE_LIMITS, DecodedImage, decode_image
from cavendish.mixing.sources.items import Item, Listing, Part, read_part
from cavendish.mixing.sources.records import Fields, folders_of, list_records, list_source
from cavendish.mixing.sources.text import clean_text, clean_value, decode_text
from cavendish.mixing.storage.place import Place, file_sha256

_RECORDS = 5  # a probe makes so many times `units` of a shard: one record is a matter of milliseconds
_MAX_BYTES = {"caption": 1 << 16, "instruction": 1 << 16, "meta": 1 << 20}
_MAX_PIXEL_BYTES = 1 << 28
_IMAGES = ("jpg", "jpeg", "png", "webp")
_STORED = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_HARMLESS = {"grey", "icc", "icc_unusable", "exif_unusable"}
_ROUNDING = 2
Unit = Annotated[float, Field(gt=0)]


class FieldNames(Config):
    """Which file of a record is what: the endings of its name after the first dot; the first that is there wins."""

    image: tuple[str, ...] = (*_IMAGES, *(f"{name}.{end}" for name in ("image", "input") for end in _IMAGES))
    caption: tuple[str, ...] = ("txt", "caption.txt")
    meta: tuple[str, ...] = ("json",)
    edited: tuple[str, ...] = tuple(f"{name}.{end}" for name in ("edited", "output") for end in _IMAGES)
    instruction: tuple[str, ...] = ("instruction.txt", "edit.txt")
    depth: tuple[str, ...] = ("depth.png", "depth.exr", "depth.npy")
    normals: tuple[str, ...] = ("normals.png", "normals.exr", "normals.npy", "normal.png", "normal.exr", "normal.npy")


class ConvertConfig(Config):
    """What to convert. The path is relative to the data folder.

    Args:
        name: begins every key and is the `source` of every sample.
        path: a tar, or a folder with tars and files below it; or a list of them.
        licence: of every record whose own json does not state another (`license` or `licence`).
        depth_unit_m: metres that one unit of a depth file stands for: of all, or of each format, {png: 0.001, npy: 1}.
            A 16-bit PNG is in millimetres where nothing is stated; EXR and .npy do not say, and need it.
        depth_no_data: values of the depth files that mean unknown, beside 0, NaN, negative ones and 65535.
        sky_from_m: from this depth on there is no surface.
        normals_convention: whose axes the normals have.
        min_side: smaller images are rejected.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_]{1,24}$")
    path: Path | tuple[Path, ...]
    licence: str = Field(min_length=1)
    fields: FieldNames = FieldNames()
    depth_unit_m: Unit | dict[Literal["png", "exr", "npy"], Unit] | None = None
    depth_no_data: tuple[float, ...] = ()
    sky_from_m: float | None = Field(default=None, gt=0)
    normals_convention: str = "opengl"
    min_side: int = Field(default=64, ge=1)
    records_per_shard: int = Field(default=1000, ge=1, le=100_000)


def convert(
    config: ConvertConfig,
    out: Place,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
) -> JobResult:
    """Convert every record of a source into raw shards under `out`; an unfinished run is continued.

    The plan names every input file by its sha256, so that a changed input is another plan.

    Raises:
        InputError: nothing at the path, or an unknown convention.
        JobFailed: see `mixing.jobs.beam.run`.
    """
    folders = folders_of(config.path, data)
    listed = _list(config, folders)
    if any(part.suffix.endswith("exr") for item in listed for part in item.parts.values()):
        require_extra("evaluate", "OpenEXR")
    files = sorted({(part.folder, part.path) for item in listed for part in item.parts.values()})
    inputs = [
        [f"{number}:{path}" if number else path, file_sha256(folders[number] / path if path else folders[number])]
        for number, path in files
    ]
    starts = range(0, len(listed), config.records_per_shard)
    plan = Plan("convert", len(starts), {**config.model_dump(mode="json"), "inputs": inputs})
    inputs_of_shards = ([asdict(item) for item in listed.items[at : at + config.records_per_shard]] for at in starts)
    build = partial(convert_shard, config, folders, out)
    return run(ShardJob(plan, build, out, inputs_of_shards, listed.found, listed.left_aside), engine, progress)


def _list(config: ConvertConfig, folders: Sequence[Path]) -> Listing:
    """List the records of a source.

    Raises:
        InputError: nothing at a path that could be one, or an unknown convention.
    """
    if config.normals_convention not in CONVENTIONS:
        raise InputError(f"normals_convention {config.normals_convention!r}: known are {', '.join(CONVENTIONS)}")
    fields = Fields(config.fields.model_dump())
    listed = list_source(config.name, folders, partial(list_records, fields=fields))
    if not any(item.parts for item in listed):
        endings = ", ".join(ending for endings in fields.endings.values() for ending in endings)
        problem = next((item.problem for item in listed), f"no tar and no file that ends in any of {endings}")
        account = Accounting(sum(listed.left_aside.values()), 0, 0, listed.left_aside)
        raise InputError(f"{', '.join(map(str, folders))}: {problem}; {account}")
    return listed


def convert_shard(
    config: ConvertConfig, folders: Sequence[Path], out: Place, index: int
) -> Iterator[StoredSample | Rejection]:
    """Make the samples of shard `index` of `out`."""
    return convert_records(config, folders, map(Item.of_dict, read_inputs(out, index)))


def convert_records(
    config: ConvertConfig, folders: Sequence[Path], records: Iterable[Item]
) -> Iterator[StoredSample | Rejection]:
    """Make a sample of each record."""
    for record in records:
        try:
            yield _convert_record(config, folders, record)
        except InputError as error:
            yield Rejection(record.key, str(error))


def _convert_record(config: ConvertConfig, folders: Sequence[Path], record: Item) -> StoredSample:
    if record.problem:
        raise InputError(record.problem)
    if record.image is None:
        raise InputError("no image")
    pieces = {field: _read_field(folders, field, part) for field, part in record.parts.items()}
    names = {field: f"{record.name}.{part.suffix}" for field, part in record.parts.items()}
    image, files = _decode(pieces["image"], names["image"], "image")
    if min(image.shape[:2]) < config.min_side:
        raise InputError(f"{image.shape[1]}x{image.shape[0]} pixels, min_side is {config.min_side}")
    meta = _read_meta(pieces.get("meta"))
    caption = decode_text(pieces["caption"]) if "caption" in pieces else _first(meta, "caption", "text")
    given = "instruction" in pieces
    instruction = decode_text(pieces["instruction"]) if given else _first(meta, "instruction", "edit")
    edit = None
    if "edited" in pieces and instruction:
        edited, edited_files = _decode(pieces["edited"], names["edited"], "edited")
        if edited.shape != image.shape:
            raise InputError(f"the edited image is {edited.shape[:2]}, the image {image.shape[:2]}")
        files |= edited_files
        edit = Edit("given", instruction, 0, edited)
    depth_m = normals = None
    if "depth" in pieces:
        depth_m = decode_depth_file(
            pieces["depth"], names["depth"], config.depth_unit_m, config.sky_from_m, config.depth_no_data
        )
    if "normals" in pieces:
        normals = decode_normals_file(pieces["normals"], names["normals"], config.normals_convention)
    sample = StoredSample(
        key=record.key,
        image=image,
        source=config.name,
        licence=_first(meta, "licence", "license") or config.licence,
        depth_m=depth_m,
        normals=normals,
        captions=(caption,) if caption else (),
        edit=edit,
        provenance={"converted_from": record.name, **{x: meta[x] for x in ("url", "author") if x in meta}},
        files=files,
    )
    if not tasks_of(sample):
        raise InputError("serves no task: no caption, no edit with an instruction, no depth, no normals")
    return sample


def _read_field(folders: Sequence[Path], field: str, part: Part) -> bytes:
    """Read the bytes of one file of a record, within the limit of its field."""
    try:
        return read_part(folders, part, _MAX_BYTES.get(field, _MAX_PIXEL_BYTES))
    except InputError as error:
        raise InputError(f"{field}: {error}") from None


def _decode(data: bytes, name: str, part: str) -> tuple[UInt8Image, dict[str, bytes]]:
    """Decode an image, and return the file to store: itself where our readers see the same pixels in it, else a PNG."""
    try:
        decoded = decode_image(data, limits=FILE_LIMITS)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    pixels = _decode_as_stored(data, decoded)
    if pixels is None:
        return decoded.rgb_u8, {f"{part}.png": encode_png(decoded.rgb_u8)}
    return pixels, {f"{part}.{_STORED[decoded.format]}": data}


def _decode_as_stored(data: bytes, decoded: DecodedImage) -> UInt8Image | None:
    """Decode a file as readers of shards do; None where that gives other pixels than the image has.

    Up to two levels apart are the same: what rounding in a color profile makes that is sRGB.
    """
    if decoded.format not in _STORED or decoded.mode not in ("RGB", "L") or not _HARMLESS.issuperset(decoded.flags):
        return None
    try:
        pixels = decode_rgb(data, "image")
    except InputError:
        return None
    same = pixels.shape == decoded.rgb_u8.shape and int(cv2.absdiff(pixels, decoded.rgb_u8).max()) <= _ROUNDING
    return pixels if same else None


def _read_meta(data: bytes | None) -> Mapping[str, str]:
    """Return the facts in the json of a record: its texts, of lists of texts the first."""
    try:
        meta = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"its json cannot be read: {error}") from None
    if not isinstance(meta, dict):
        raise InputError("its json is no map of facts, such as caption, licence and url")
    firsts = {key: value[0] if isinstance(value, list) and value else value for key, value in meta.items()}
    return {key: clean_value(value) for key, value in firsts.items() if isinstance(value, str)}


def _first(meta: Mapping[str, str], *names: str) -> str:
    return clean_text(next((meta[name] for name in names if name in meta), ""))


def convert_probe(config: ConvertConfig, data: Path, units: int) -> Probe:
    """Return a probe of a convert job: three stretches of its records.

    Raises:
        InputError: nothing at the path, fewer than two records, or an unknown convention.
    """
    folders = folders_of(config.path, data)
    records = _list(config, folders).items
    if len(records) < 2:
        raise InputError(f"{folders[0]}: {len(records)} record: a probe needs two")
    shards = min(3, len(records))
    each = min(_RECORDS * units, len(records) // shards)
    starts = [shard * len(records) // shards for shard in range(shards)]
    chosen = tuple(tuple(records[start : start + each]) for start in starts)
    return Probe(
        verb="convert",
        unit="record",
        units=len(records),
        units_per_shard=config.records_per_shard,
        build=partial(_convert_chosen, config, folders, chosen),
        trial_shards=shards,
        trial_units=each,
        count_rejected=True,
    )


def _convert_chosen(
    config: ConvertConfig, folders: Sequence[Path], chosen: Sequence[Sequence[Item]], index: int
) -> Iterator[StoredSample | Rejection]:
    """Convert some records; their files are hashed too, as the job does before it starts."""
    for record in chosen[index]:
        for field, part in record.parts.items():
            with suppress(InputError):  # told by the record itself
                hashlib.sha256(_read_field(folders, field, part))
        yield from convert_records(config, folders, [record])
