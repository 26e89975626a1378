"""The convert job: shards and folders made by others -> raw shards. Pictures pass through as the files they are."""

from __future__ import annotations

import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from cavendish.encoders.codecs.normals import CONVENTIONS
from cavendish.encoders.sample import Edit, InputError, Rejection, UInt8Image
from cavendish.encoders.tasks.registry import tasks_of
from cavendish.mixing.config import Config
from cavendish.mixing.extras import require_extra
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.jobs.beam import read_inputs, run, write_inputs
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.shards.dataset import Plan, start_dataset
from cavendish.mixing.shards.sample_format import StoredSample
from cavendish.mixing.sources.arrays import decode_depth_file, decode_normals_file
from cavendish.mixing.sources.records import Found, Piece, list_records
from cavendish.mixing.storage.place import Place, file_sha256

_RECORDS = 5  # a probe makes so many times `units` of a shard: one record is a matter of milliseconds
_MAX_BYTES = {"caption": 1 << 16, "instruction": 1 << 16, "meta": 1 << 20}
_MAX_PIXEL_BYTES = 1 << 28
_MAX_TEXT_CHARS = 2000
_PICTURES = ("jpg", "jpeg", "png", "webp")


class FieldNames(Config):
    """Which file of a record is what: the endings of its name after the first dot; the first that is there wins."""

    image: tuple[str, ...] = (*_PICTURES, *(f"{name}.{end}" for name in ("image", "input") for end in _PICTURES))
    caption: tuple[str, ...] = ("txt", "caption.txt")
    meta: tuple[str, ...] = ("json",)
    edited: tuple[str, ...] = tuple(f"{name}.{end}" for name in ("edited", "output") for end in _PICTURES)
    instruction: tuple[str, ...] = ("instruction.txt", "edit.txt")
    depth: tuple[str, ...] = ("depth.png", "depth.exr", "depth.npy")
    normals: tuple[str, ...] = ("normals.png", "normals.exr", "normals.npy", "normal.png", "normal.exr", "normal.npy")


class ConvertConfig(Config):
    """What to convert. The path is relative to the data folder.

    Args:
        name: begins every key and is the `source` of every sample.
        path: a tar, a folder of tars, or a folder of files.
        licence: of every record whose own json does not state another (`license` or `licence`).
        depth_unit_m: metres that one unit of the depth files stands for; 0.001 for millimetres.
        sky_from_m: from this depth on there is no surface.
        normals_convention: whose axes the normals have.
        min_side: smaller pictures are left out.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_]{1,24}$")
    path: Path
    licence: str = Field(min_length=1)
    fields: FieldNames = FieldNames()
    depth_unit_m: float = Field(default=0.001, gt=0)
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
    if config.normals_convention not in CONVENTIONS:
        raise InputError(f"normals_convention {config.normals_convention!r}: known are {', '.join(CONVENTIONS)}")
    root = data / config.path
    records = list_records(root, config.name, config.fields.model_dump())
    if any(piece.suffix.endswith("exr") for record in records for piece in record.pieces.values()):
        require_extra("evaluate", "OpenEXR")
    files = sorted({piece.path for record in records for piece in record.pieces.values()})
    inputs = [[path, file_sha256(root / path if path else root)] for path in files]
    starts = range(0, len(records), config.records_per_shard)
    plan = Plan("convert", len(starts), {**config.model_dump(mode="json"), "inputs": inputs})
    start_dataset(out, plan)
    write_inputs(out, ([asdict(one) for one in records[at : at + config.records_per_shard]] for at in starts))
    return run(plan, partial(convert_shard, config, root, out), out, engine, progress)


def convert_shard(config: ConvertConfig, root: Path, out: Place, index: int) -> Iterator[StoredSample | Rejection]:
    """Make the samples of shard `index` of `out`."""
    return convert_records(config, root, map(_found, read_inputs(out, index)))


def _found(fields: Mapping[str, Any]) -> Found:
    return Found(**{**fields, "pieces": {field: Piece(**piece) for field, piece in fields["pieces"].items()}})


def convert_records(config: ConvertConfig, root: Path, records: Iterable[Found]) -> Iterator[StoredSample | Rejection]:
    """Make a sample of each record."""
    for record in records:
        try:
            yield _convert_record(config, root, record)
        except InputError as error:
            yield Rejection(record.key, str(error))


def _convert_record(config: ConvertConfig, root: Path, record: Found) -> StoredSample:
    if record.problem:
        raise InputError(record.problem)
    if "image" not in record.pieces:
        raise InputError("no image")
    pieces = {field: read_piece(root, field, piece) for field, piece in record.pieces.items()}
    names = {field: f"{record.name}.{piece.suffix}" for field, piece in record.pieces.items()}
    image, files = _picture(pieces["image"], names["image"], "image")
    if min(image.shape[:2]) < config.min_side:
        raise InputError(f"{image.shape[1]}x{image.shape[0]} pixels, min_side is {config.min_side}")
    meta = _meta(pieces.get("meta"))
    caption = _text(pieces["caption"]) if "caption" in pieces else _words(meta, ("caption", "text"))
    instruction = _text(pieces["instruction"]) if "instruction" in pieces else _words(meta, ("instruction", "edit"))
    edit = None
    if "edited" in pieces and instruction:
        edited, edited_files = _picture(pieces["edited"], names["edited"], "edited")
        if edited.shape != image.shape:
            raise InputError(f"the edited picture is {edited.shape[:2]}, the image {image.shape[:2]}")
        files |= edited_files
        edit = Edit("given", instruction, 0, edited)
    depth_m = normals = None
    if "depth" in pieces:
        depth_m = decode_depth_file(pieces["depth"], names["depth"], config.depth_unit_m, config.sky_from_m)
    if "normals" in pieces:
        normals = decode_normals_file(pieces["normals"], names["normals"], config.normals_convention)
    sample = StoredSample(
        key=record.key,
        image=image,
        source=config.name,
        licence=_words(meta, ("licence", "license")) or config.licence,
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


def read_piece(root: Path, field: str, piece: Piece) -> bytes:
    """Read the bytes of one file of a record, within the limit of its field."""
    limit = _MAX_BYTES.get(field, _MAX_PIXEL_BYTES)
    if piece.size > limit:
        raise InputError(f"{field}: {piece.size} bytes is over the limit of {limit}")
    with (root / piece.path if piece.path else root).open("rb") as file:
        data = os.pread(file.fileno(), piece.size, piece.offset)
    if len(data) != piece.size:
        raise InputError(f"{field}: the file has changed since it was listed")
    return data


def _picture(data: bytes, name: str, part: str) -> tuple[UInt8Image, dict[str, bytes]]:
    """Decode a picture, and return the file to store: itself when it is plain 8-bit RGB or grey, else a PNG."""
    pixels = decode_rgb(data, name)
    with Image.open(io.BytesIO(data)) as header:
        suffix = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[str(header.format)]
        upright = header.getexif().get(0x0112, 1) == 1
        plain = header.mode in ("RGB", "L") and upright and not getattr(header, "is_animated", False)
    return pixels, {f"{part}.{suffix}": data} if plain else {f"{part}.png": encode_png(pixels)}


def _text(data: bytes) -> str:
    """Return text on one line without control characters, cut at `_MAX_TEXT_CHARS`."""
    try:
        text = unicodedata.normalize("NFC", data.decode())
    except UnicodeDecodeError:
        raise InputError("a text that is not UTF-8") from None
    shown = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    return " ".join(shown.split())[:_MAX_TEXT_CHARS].rstrip()


def _meta(data: bytes | None) -> Mapping[str, Any]:
    try:
        meta = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"its json cannot be read: {error}") from None
    return {key: value for key, value in meta.items() if isinstance(value, str)} if isinstance(meta, dict) else {}


def _words(meta: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = next((meta[name] for name in names if name in meta), "")
    return _text(found.encode("utf-8", "replace"))


def convert_probe(config: ConvertConfig, data: Path, units: int) -> Probe:
    """Return a probe of a convert job: three stretches of its records.

    Raises:
        InputError: nothing at the path, fewer than two records, or an unknown convention.
    """
    if config.normals_convention not in CONVENTIONS:
        raise InputError(f"normals_convention {config.normals_convention!r}: known are {', '.join(CONVENTIONS)}")
    root = data / config.path
    records = list_records(root, config.name, config.fields.model_dump())
    if len(records) < 2:
        raise InputError(f"{root}: {len(records)} record: a probe needs two")
    shards = min(3, len(records))
    each = min(_RECORDS * units, len(records) // shards)
    starts = [shard * len(records) // shards for shard in range(shards)]
    chosen = tuple(tuple(records[start : start + each]) for start in starts)
    return Probe(
        verb="convert",
        unit="record",
        units=len(records),
        units_per_shard=config.records_per_shard,
        build=partial(_convert_chosen, config, root, chosen),
        trial_shards=shards,
        trial_units=each,
        count_rejected=True,
    )


def _convert_chosen(
    config: ConvertConfig, root: Path, chosen: Sequence[Sequence[Found]], index: int
) -> Iterator[StoredSample | Rejection]:
    """Convert some records; their files are hashed too, as the job does before it starts."""
    for record in chosen[index]:
        for field, piece in record.pieces.items():
            try:
                hashlib.sha256(read_piece(root, field, piece))
            except InputError:  # told by the record itself
                continue
        yield from convert_records(config, root, [record])
