"""Looks into shards: a contact sheet as PNG or HTML, and a table for the terminal."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from jinja2 import Environment, PackageLoader

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.mixing.images import encode_png
from cavendish.mixing.provenance.trace import split_place
from cavendish.mixing.shards.sample_format import parse_record
from cavendish.mixing.shards.writer import committed_rows, open_tar, read_dataset, read_parts, read_shard
from cavendish.mixing.storage.files import write_atomic
from cavendish.mixing.storage.place import Place, exists, is_url, join
from cavendish.mixing.visualize import data_uri, fit, grid, record_panels

TableRow = tuple[str, str, str, str]
"""Key, size, what is there, words."""


def is_directory(path: Place) -> bool:
    """Tell a directory of shards from a shard."""
    return not str(path).endswith(".tar") if is_url(path) else Path(path).is_dir()


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
            with open_tar(join(directory, row.shard)) as file:
                return parse_record(stored, read_parts(file, row, stored))
    raise InputError(f"{path}: no record with key {key}")


def describe(record: Sample | Example) -> TableRow:
    """Say in a table's row what a record is."""
    if isinstance(record, Example):
        size = f"{record.target.shape[1]}x{record.target.shape[0]}"
        return record.key, size, f"{record.task} ({record.spec.get('codec', 'plain picture')})", record.prompt
    there = [name for name, value in (("depth", record.depth_m), ("normals", record.normals)) if value is not None]
    things = [instance.category for instance in record.instances if instance.is_thing]
    if things:
        there.append(f"{len(things)} instances")
    if record.edit is not None:
        there.append(f"{record.edit.kind} edit")
    words = record.captions[0] if record.captions else ", ".join(things)
    return record.key, f"{record.image.shape[1]}x{record.image.shape[0]}", ", ".join(there) or "image only", words


def summary(path: Place) -> str:
    """Say in one line what a directory of shards holds."""
    rows = committed_rows(path)
    megabytes = sum(row.bytes for row in rows) / 1e6
    rejected = sum(len(row.rejected) for row in rows)
    return f"{len(rows)} shards, {sum(row.count for row in rows)} records, {megabytes:.1f} MB, {rejected} rejected"


def write_sheet(records: list[Sample | Example], out: Place, cell: int = 160) -> None:
    """Write a contact sheet: `.png` one picture, `.html` one self-contained page.

    Raises:
        InputError: another file ending, no such folder, or no records.
    """
    if not records:
        raise InputError(f"{out}: nothing to show")
    check_sheet(out)
    if str(out).endswith(".png"):
        rows = [(" · ".join(part for part in _words(record) if part), record_panels(record)) for record in records]
        write_atomic(out, encode_png(grid(rows, cell)))
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


def _words(record: Sample | Example) -> tuple[str, str]:
    key, _, _, words = describe(record)
    return key, words


def _page(records: list[Sample | Example], cell: int) -> str:
    template = Environment(loader=PackageLoader("cavendish.mixing", "."), autoescape=True).get_template("show.html")
    rows = [
        {
            "key": describe(record)[0],
            "facts": " · ".join(describe(record)[1:3]),
            "words": describe(record)[3],
            "panels": [(name, data_uri(fit(picture, cell, cell))) for name, picture in record_panels(record)],
        }
        for record in records
    ]
    return template.render(rows=rows, cell=cell)
