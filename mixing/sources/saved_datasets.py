"""Images in a Hugging Face dataset that was saved to disk: read where they lie in its arrow files, without a copy.

The files are uncompressed arrow streams, so that every image is a range of bytes of a file; the listing finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.sources.items import Item, Part, clean_text

CAPTION_COLUMNS = ("text", "TEXT", "caption", "captions", "sentence", "alt")
FACT_COLUMNS = {"license": "licence", "licence": "licence", "url": "url", "author": "author"}


def list_arrow(root: Path) -> Iterator[Item]:
    """Yield the images of a saved dataset, or of every split of a saved dictionary of datasets, in order.

    Raises:
        InputError: nothing that `save_to_disk` wrote, or no column of images in it.
    """
    if (root / "dataset_dict.json").exists():
        splits = _json(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(isinstance(split, str) and "/" not in split for split in splits):
            raise InputError(f"{root / 'dataset_dict.json'}: no list of splits in it")
        for split in splits:
            yield from _list_split(root, split)
    else:
        yield from _list_split(root, "")


def _list_split(root: Path, split: str) -> Iterator[Item]:
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
        for batch, base, size in _batches(root / relative):
            for item in _items(relative, batch, base, size, row, split):
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


def _items(path: str, batch: pa.RecordBatch, base: int, size: int, row: int, split: str) -> Iterator[Item]:
    column = _image_column(path, batch)
    images = batch.column(column)
    data = images.field("bytes") if pa.types.is_struct(images.type) else images
    places = _places(data, base)
    captions = _column(batch, CAPTION_COLUMNS)
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
        yield Item(
            "", name, image=Part(path, start, length), caption=caption, facts={k: v for k, v in known.items() if v}
        )


def _places(data: pa.Array, base: int) -> list[tuple[int, int]]:
    """Return where each value of a binary column lies in the file: (offset, size)."""
    wide = pa.types.is_large_binary(data.type)
    _, offsets, values = data.buffers()
    kind = "<i8" if wide else "<i4"
    bounds = np.frombuffer(offsets, kind)[data.offset : data.offset + len(data) + 1].astype(np.int64)
    start = (0 if values is None else values.address) - base
    return [(int(start + low), int(high - low)) for low, high in pairwise(bounds)]


def _image_column(path: str, batch: pa.RecordBatch) -> str:
    def holds_images(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            names = [kind.field(i).name for i in range(kind.num_fields)]
            return "bytes" in names and pa.types.is_binary(kind.field("bytes").type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    found = [field.name for field in batch.schema if holds_images(field.type)]
    named = [
        name for name in found if "image" in name.lower() or "img" in name.lower() or name.lower() in ("jpg", "png")
    ]
    if not found:
        raise InputError(f"{path}: no column of images; it has {', '.join(batch.schema.names[:12])}")
    return str((named or found)[0])


def _column(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array | None:
    return next((batch.column(name) for name in names if name in batch.schema.names), None)


def _text(value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[0]
    return clean_text(value) if isinstance(value, str) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; is it a dataset saved with save_to_disk?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid json: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a json map")
    return values
