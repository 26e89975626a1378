"""Arrays as images for people: depth, normals and ids of a Sample, captions, grids, data URIs for reports."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.codecs.palettes import lattice
from cavendish.encoders.sample import Example, InputError, Sample, UInt8Image
from cavendish.mixing.images import encode_png
from cavendish.mixing.provenance.lineage import split_place
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset, read_parts, read_shard
from cavendish.mixing.shards.sample_format import parse_record
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, exists, is_file, join, name_of, write_atomic

Panel = tuple[str, UInt8Image]
"""A title and an (H, W, 3) uint8 picture."""

_INK = (28, 32, 38)
_PAPER = (255, 255, 255)


def ids_picture(ids: NDArray[np.uint16]) -> UInt8Image:
    """Draw (H, W) instance ids, each in a colour of its own; 0 is black."""
    present = np.unique(ids[ids > 0])
    table = np.zeros((int(ids.max(initial=0)) + 1, 3), np.uint8)
    if present.size:
        table[present] = lattice(int(present.size))
    return table[ids]


def record_panels(record: Sample | Example) -> list[Panel]:
    """List what there is to see of one record, image first."""
    if isinstance(record, Example):
        source = [] if record.source is None else [("source", record.source)]
        return [*source, (f"target: {record.task}", record.target)]
    panels: list[Panel] = [("image", record.image)]
    if record.depth_m is not None:
        panels.append(("depth", encode_depth(record.depth_m)))
    if record.normals is not None:
        panels.append(("normals", encode_normals(record.normals)))
    if record.instance_ids is not None:
        panels.append(("instances", ids_picture(record.instance_ids)))
    if record.edit is not None:
        panels.append((f"edit: {record.edit.kind}", record.edit.image))
    return panels


def fit(picture: UInt8Image, width: int, height: int) -> UInt8Image:
    """Scale an image into width x height on white, keeping its aspect; targets keep hard edges when enlarged."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas


def grid(rows: Sequence[tuple[str, Sequence[Panel]]], cell: int = 160) -> UInt8Image:
    """Lay rows of titled panels out as one image, each row under its caption."""
    columns = max((len(panels) for _, panels in rows), default=1)
    gap, caption, title = 6, 20, 16
    width = columns * (cell + gap) + gap
    row_height = caption + title + cell + gap
    canvas = Image.new("RGB", (width, max(1, len(rows)) * row_height + gap), _PAPER)
    draw = ImageDraw.Draw(canvas)
    strong, small = ImageFont.load_default(13), ImageFont.load_default(11)
    for number, (text, panels) in enumerate(rows):
        top = gap + number * row_height
        draw.text((gap, top), _shorten(draw, text, strong, width - 2 * gap), _INK, strong)
        for column, (name, picture) in enumerate(panels):
            left = gap + column * (cell + gap)
            draw.text((left, top + caption), _shorten(draw, name, small, cell), (110, 118, 129), small)
            canvas.paste(Image.fromarray(fit(picture, cell, cell)), (left, top + caption + title))
    return np.asarray(canvas)


def _shorten(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: int
) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-4]
    return text + "…"


def data_uri(picture: UInt8Image) -> str:
    """Return an image as a `data:` URI for a self-contained page."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()


class Description(NamedTuple):
    """A record in a table: key, size, what is there, words."""

    key: str
    size: str
    content: str
    words: str


def is_directory(path: Place) -> bool:
    """Tell a directory of shards from a shard."""
    return not name_of(path).endswith(".tar") and not is_file(path)


def read_records(path: Place, count: int) -> list[Sample | Example]:
    """Read the first `count` records of a shard (.tar) or of a directory of shards.

    Raises:
        InputError: nothing committed at `path`, or a damaged record.
    """
    if is_directory(path):
        return list(islice(read_dataset(path), count))
    if not exists(path):
        raise InputError(f"{path}: no such shard or directory")
    return list(islice(read_shard(path), count))


def read_one(path: Place, key: str) -> Sample | Example:
    """Read one record of a shard (.tar) or of a directory of shards by its key.

    Raises:
        InputError: no record with that key there, or a damaged one.
    """
    stored = key.replace(".", "_")
    directory, shard = split_place(path)
    for row in committed_rows(directory):
        if stored in row.samples and shard in ("", row.shard):
            with open_file(join(directory, row.shard)) as file:
                return parse_record(stored, read_parts(file, row, stored))
    raise InputError(f"{path}: no record with key {key}")


def describe(record: Sample | Example) -> Description:
    """Say in a table's row what a record is."""
    if isinstance(record, Example):
        size = f"{record.target.shape[1]}x{record.target.shape[0]}"
        return Description(
            record.key, size, f"{record.task} ({record.spec.get('codec', 'plain image')})", record.prompt
        )
    there = [name for name, value in (("depth", record.depth_m), ("normals", record.normals)) if value is not None]
    things = [instance.category for instance in record.instances if instance.is_thing]
    if things:
        there.append(f"{len(things)} instances")
    if record.edit is not None:
        there.append(f"{record.edit.kind} edit")
    words = record.captions[0] if record.captions else ", ".join(things)
    size = f"{record.image.shape[1]}x{record.image.shape[0]}"
    return Description(record.key, size, ", ".join(there) or "image only", words)


def summary(path: Place) -> str:
    """Say in one line what a directory of shards holds."""
    rows = committed_rows(path)
    megabytes = sum(row.bytes for row in rows) / 1e6
    rejected = sum(len(row.rejected) for row in rows)
    return f"{len(rows)} shards, {sum(row.count for row in rows)} records, {megabytes:.1f} MB, {rejected} rejected"


def write_sheet(records: list[Sample | Example], out: Place, cell: int = 160) -> None:
    """Write a contact sheet: `.png` one image, `.html` one self-contained page.

    Raises:
        InputError: another file ending, no such folder, or no records.
    """
    if not records:
        raise InputError(f"{out}: nothing to show")
    check_sheet(out)
    if str(out).endswith(".png"):
        texts = [describe(record) for record in records]
        captions = [" · ".join(part for part in (text.key, text.words) if part) for text in texts]
        write_atomic(out, encode_png(grid(list(zip(captions, map(record_panels, records))), cell)))
    else:
        write_atomic(out, _page(records, cell).encode())


def check_sheet(out: Place) -> None:
    """Check, before anything is read, that a sheet can be written to `out`.

    Raises:
        InputError: another file ending, or no such folder.
    """
    if not str(out).endswith((".png", ".html")):
        raise InputError(f"{out}: a sheet is written as .png or .html")
    if isinstance(out, Path) and not out.parent.is_dir():
        raise InputError(f"{out}: no folder {out.parent} to write it to")


def _page(records: list[Sample | Example], cell: int) -> str:
    template = Environment(loader=PackageLoader("cavendish.mixing", "."), autoescape=True).get_template("show.html")
    rows = []
    for record in records:
        panels = [(name, data_uri(fit(image, cell, cell))) for name, image in record_panels(record)]
        rows.append({"text": describe(record), "panels": panels})
    return template.render(rows=rows, cell=cell)
