"""Lists of image URLs in parquet, with the column names of LAION, DataComp and their kin; columns are known by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.sources.records import ending_of, walk_files
from cavendish.mixing.sources.tables import describe, is_bytes, is_text, is_text_or_list
from cavendish.mixing.sources.tars import read_slice
from cavendish.mixing.sources.text import clean_value

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "url": ("url", "URL", "image_url", "IMAGE_URL"),
    "text": ("text", "TEXT", "caption", "CAPTION", "alt", "ALT_TEXT"),
    "sha256": ("sha256", "SHA256"),
    "licence": ("licence", "license", "LICENSE"),
    "author": ("author", "AUTHOR"),
}
"""The names a column of texts may have, the first that is there counts."""

FACTS = ("uid", "key", "width", "WIDTH", "height", "HEIGHT", "NSFW", "nsfw", "punsafe", "similarity", "pwatermark",
         "original_width", "original_height", "clip_l14_similarity_score", "face_bboxes")  # fmt: skip
"""Columns that are kept beside the image; what is not a number is left out of them."""


@dataclass(frozen=True)
class Wanted:
    """One row of a list: `place` is its number over all files."""

    place: int
    url: str
    text: str = ""
    sha256: str = ""
    facts: Mapping[str, Any] | None = None


def list_files(path: Path) -> tuple[list[Path], dict[str, int]]:
    """Return the parquet files of a list in the order of their paths, and the other files there, counted by ending.

    A file, a folder of files, or a folder as Spark writes it: x.parquet/part-00000.parquet beside _SUCCESS.

    Raises:
        InputError: there are none.
    """
    if path.is_file():
        return [path], {}
    files = walk_files(path)
    left = Counter(files.left_aside)
    left.update(f"folder {item.name}: {item.problem}" for item in files.problems)
    found = []
    for file in files.paths:
        if file.name.startswith("_"):
            left["_SUCCESS and its kin: of the program that wrote the list"] += 1
        elif file.suffix.lower() not in (".parquet", ".pq") and read_slice(file, 0, 4) != b"PAR1":
            left[f"{ending_of(file.name)}: not parquet"] += 1
        else:
            found.append(file)
    if not found:
        others = "; ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
        raise InputError(f"{path}: no parquet file there{f'; {others}' if others else ''}")
    return found, dict(left)


def count_rows(files: Sequence[Path]) -> list[int]:
    """Return the number of rows of each file, after checking that each has a column of URLs.

    Raises:
        InputError: not parquet, or no such column; names the file and what would do.
    """
    counts = []
    for file in files:
        with _opened(file) as table:
            _columns(file, table.schema_arrow)
            counts.append(table.metadata.num_rows)
    return counts


def read_rows(files: Sequence[Path], counts: Sequence[int], start: int, stop: int) -> Iterator[Wanted]:
    """Yield the rows of places start to stop; only the row groups they are in are read.

    Raises:
        InputError: a file is damaged.
    """
    first = 0
    for file, count in zip(files, counts, strict=True):
        if first < stop and first + count > start:
            yield from _read_file(file, first, start, stop)
        first += count


def _read_file(file: Path, first: int, start: int, stop: int) -> Iterator[Wanted]:
    with _opened(file) as table:
        columns = _columns(file, table.schema_arrow)
        facts = [name for name in FACTS if name in table.schema_arrow.names]
        wanted = list(dict.fromkeys([*columns.values(), *facts]))
        for group in range(table.metadata.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                try:
                    read = _texts_as_bytes(table.read_row_group(group, columns=wanted).slice(low, high - low))
                    read.validate(full=True)
                    rows = read.to_pylist()
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise InputError(f"{file}: row group {group} cannot be read: {one_line(error, 160)}") from None
                for offset, row in enumerate(rows):
                    yield _wanted(first + low + offset, row, columns, facts)
            first += count


def _texts_as_bytes(table: pa.Table) -> pa.Table:
    """Let a text that is no UTF-8 cost its own row: arrow would refuse the whole table."""
    for place, field in enumerate(table.schema):
        if is_text(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.large_binary()))
    return table


def _wanted(place: int, row: Mapping[str, Any], columns: Mapping[str, str], facts: Sequence[str]) -> Wanted:
    def text(role: str) -> str:
        value = row.get(columns.get(role, ""))
        value = value[0] if isinstance(value, list) and value else value
        if role == "sha256" and isinstance(value, bytes) and len(value) == 32:
            return value.hex()
        value = _decoded(value)
        return value.strip() if isinstance(value, str) else ""

    kept = {name: value for name in facts if (value := clean_value(_decoded(row[name]))) is not None}
    kept |= {name: text(name) for name in ("licence", "author") if text(name)}
    return Wanted(place, text("url"), text("text"), text("sha256").lower(), kept)


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _columns(file: Path, schema: pa.Schema) -> dict[str, str]:
    """Choose a column for each role by its name, among those of a type that can hold it.

    Raises:
        InputError: no column of URLs.
    """

    def holds_texts(name: str) -> bool:
        kinds = [field.type for field in schema if field.name == name]
        return len(kinds) == 1 and (is_text_or_list(kinds[0]) or is_bytes(kinds[0]))

    named = {role: [name for name in names if holds_texts(name)] for role, names in COLUMNS.items()}
    if not named["url"]:
        raise InputError(
            f"{file}: no column of URLs, as text or bytes; it has {describe(schema)}; name one {COLUMNS['url'][0]!r}"
        )
    return {role: names[0] for role, names in named.items() if names}


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a parquet file: {one_line(error, 160)}") from None
