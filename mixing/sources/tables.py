"""Tables of others: which column is what, by its type and contents; images of a Hugging Face dataset saved to disk.

The files of a saved dataset are uncompressed arrow streams, so that every image is a range of bytes of a file; the
listing finds it, and the image is read where it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.sources.decode import image_kind
from cavendish.mixing.sources.items import Item, Listing, Part
from cavendish.mixing.sources.records import ending_of, walk_files
from cavendish.mixing.sources.text import clean_text
from cavendish.mixing.storage.place import read_json

CAPTION_COLUMNS = ("text", "TEXT", "caption", "captions", "sentence", "alt")
FACT_COLUMNS = {"license": "licence", "licence": "licence", "url": "url", "author": "author"}
_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
_OWN_FILES = ("state.json", "dataset_info.json", "dataset_dict.json")
_LOOKED_AT = 5


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds texts, in any of the ways that arrow has for them."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column holds bytes, in any of the ways that arrow has for them."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text_or_list(kind: pa.DataType) -> bool:
    """Tell whether a column holds texts, or lists of them."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_text(kind) or bool(is_list and is_text(kind.value_type))


def describe(schema: pa.Schema) -> str:
    """Name the columns of a table with their types, the first few."""
    return ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in list(schema)[:12])


def list_arrow(root: Path) -> Listing:
    """List the images of a saved dataset, or of every split of a saved dictionary of datasets, in order.

    Raises:
        InputError: nothing that `save_to_disk` wrote, or no column of images in it.
    """
    splits: Any = [""]
    if (root / "dataset_dict.json").exists():
        splits = _json(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(isinstance(split, str) and "/" not in split for split in splits):
            raise InputError(f"{root / 'dataset_dict.json'}: no list of splits in it")
    used = set[str]()
    items = [item for split in splits for item in _list_split(root, split, used)]
    files = walk_files(root)
    for path in files.paths:
        if path.relative_to(root).as_posix() not in used and path.name not in _OWN_FILES:
            files.left_aside[f"{ending_of(path.name)}: a file that state.json does not name"] += 1
    return Listing([*files.problems, *items], files.left_aside)


def _list_split(root: Path, split: str, used: set[str]) -> Iterator[Item]:
    state = _json(root / split / "state.json")
    listed = state.get("_data_files")
    files = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if not files or not all(isinstance(name, str) and "/" not in name and ".." not in name for name in files):
        raise InputError(f"{root / split / 'state.json'}: names no arrow files")
    if state.get("_indices_data_files"):
        raise InputError(
            f"{root / split}: rows are chosen by an index beside the files; flatten_indices() and save anew"
        )
    row = 0
    for name in files:
        relative = f"{split}/{name}" if split else str(name)
        used.add(relative)
        column = ""
        for batch, base, size in _batches(root / relative):
            column = column or _image_column(relative, batch)
            for item in _items(relative, batch, column, base, size, row, split):
                yield item
                row += 1


def _batches(path: Path) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Yield the batches of an arrow stream, with the address and the size of the file in memory."""
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
            for batch in pa.ipc.open_stream(pa.BufferReader(whole)):
                batch.validate(full=True)  # pyarrow trusts offsets: one beyond the file would end the process
                yield batch, whole.address, whole.size
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not an arrow stream: {one_line(error, 160)}") from None


def _items(path: str, batch: pa.RecordBatch, column: str, base: int, size: int, row: int, split: str) -> Iterator[Item]:
    images = batch.column(column)
    data = images.field("bytes") if pa.types.is_struct(images.type) else images
    places = _places(data, base)
    texts = (name for name in CAPTION_COLUMNS if name in batch.schema.names)
    named = next((name for name in texts if is_text_or_list(batch.schema.field(name).type)), None)
    captions = None if named is None else batch.column(named)
    facts = {FACT_COLUMNS[name]: batch.column(name) for name in FACT_COLUMNS if name in batch.schema.names}
    for number in range(len(batch)):
        name = f"{split + '/' if split else ''}row {row + number:09d}"
        known = {
            role: clean_text(value)
            for role, values in facts.items()
            if isinstance(value := values[number].as_py(), str)
        }
        caption = _text(None if captions is None else captions[number].as_py())
        if not data[number].is_valid or not images[number].is_valid:
            yield Item("", name, problem="holds no bytes, only the name of a file")
            continue
        start, length = places[number]
        if not 0 <= start <= start + length <= size:
            yield Item("", name, problem="compressed inside the arrow file; save the dataset without compression")
            continue
        yield Item("", name, {"image": Part(path, start, length)}, "", caption, {k: v for k, v in known.items() if v})


def _places(data: pa.Array, base: int) -> list[tuple[int, int]]:
    """Return where each value of a binary column lies in the file: (offset, size)."""
    wide = pa.types.is_large_binary(data.type)
    _, offsets, values = data.buffers()
    kind = "<i8" if wide else "<i4"
    bounds = np.frombuffer(offsets, kind)[data.offset : data.offset + len(data) + 1].astype(np.int64)
    start = (0 if values is None else values.address) - base
    return [(int(start + low), int(high - low)) for low, high in pairwise(bounds)]


def _image_column(path: str, batch: pa.RecordBatch) -> str:
    """Choose the column of images: bytes that begin like an image; among several the one that is called so."""
    if len(set(batch.schema.names)) < len(batch.schema.names):
        raise InputError(f"{path}: two columns have one name; it has {describe(batch.schema)}")
    holds_images: dict[str, bool] = {}
    for field in batch.schema:
        kind, values = field.type, batch.column(field.name)
        if pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]:
            values = values.field("bytes")
        if is_bytes(values.type) and not pa.types.is_binary_view(values.type):
            heads = (value.as_buffer()[:64].to_pybytes() for value in values if value.is_valid)
            holds_images[field.name] = any(image_kind(head) for head in islice(heads, _LOOKED_AT))
    named = [name for name in holds_images if name.lower() in _IMAGE_COLUMNS]
    found = [name for name, holds in holds_images.items() if holds] or named
    if not found:
        raise InputError(f"{path}: no column of images; it has {describe(batch.schema)}")

    def rank(name: str) -> tuple[bool, bool]:
        return name.lower() not in _IMAGE_COLUMNS, not ("image" in name.lower() or "img" in name.lower())

    return min(found, key=rank)


def _text(value: Any) -> str:
    """Return a caption, the first that says something where a row has several."""
    texts = value if isinstance(value, list) else [value]
    return next(filter(None, (clean_text(text) for text in texts if isinstance(text, str))), "")


def _json(path: Path) -> dict[str, Any]:
    if not isinstance(values := read_json(path, "a part of a dataset saved with save_to_disk"), dict):
        raise InputError(f"{path}: not a json map")
    return values
