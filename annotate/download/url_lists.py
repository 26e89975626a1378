"""Lists of picture URLs in parquet, with the column names of LAION, DataComp and their kin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cavendish.encoders.sample import InputError, one_line

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "url": ("url", "URL", "image_url", "IMAGE_URL"),
    "text": ("text", "TEXT", "caption", "CAPTION", "alt", "ALT_TEXT"),
    "sha256": ("sha256", "SHA256"),
    "licence": ("licence", "license", "LICENSE"),
    "author": ("author", "AUTHOR"),
}
"""The names a column may have, the first that is there counts."""

FACTS = ("uid", "key", "width", "WIDTH", "height", "HEIGHT", "NSFW", "nsfw", "punsafe", "similarity", "pwatermark",
         "original_width", "original_height", "clip_l14_similarity_score", "face_bboxes")  # fmt: skip
"""Columns that are kept beside the picture as they are."""


@dataclass(frozen=True)
class Wanted:
    """One row of a list: `place` is its number over all files."""

    place: int
    url: str
    text: str = ""
    sha256: str = ""
    facts: Mapping[str, Any] | None = None


def list_files(path: Path) -> list[Path]:
    """Return the parquet files of a list, in the order of their names.

    Raises:
        InputError: there are none.
    """
    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(f"{path}: no parquet file there")
    return files


def count_rows(files: Sequence[Path]) -> list[int]:
    """Return the number of rows of each file, after checking that each has a column of URLs.

    Raises:
        InputError: not parquet, or no such column; names the file and what would do.
    """
    counts = []
    for file in files:
        with _opened(file) as table:
            _columns(file, table.schema_arrow.names)
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
        columns = _columns(file, table.schema_arrow.names)
        facts = [name for name in FACTS if name in table.schema_arrow.names]
        wanted = list(dict.fromkeys([*columns.values(), *facts]))
        for group in range(table.metadata.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                try:
                    read = table.read_row_group(group, columns=wanted).slice(low, high - low)
                    read.validate(full=True)
                    rows = read.to_pylist()
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise InputError(f"{file}: row group {group} cannot be read: {one_line(error, 160)}") from None
                for offset, row in enumerate(rows):
                    yield _wanted(first + low + offset, row, columns, facts)
            first += count


def _wanted(place: int, row: Mapping[str, Any], columns: Mapping[str, str], facts: Sequence[str]) -> Wanted:
    def text(name: str) -> str:
        value = row.get(columns.get(name, ""))
        return value.strip() if isinstance(value, str) else ""

    kept = {name: row[name] for name in facts if isinstance(row[name], str | int | float | bool)}
    kept |= {name: text(name) for name in ("licence", "author") if text(name)}
    return Wanted(place, text("url"), text("text"), text("sha256").lower(), kept)


def _columns(file: Path, names: Sequence[str]) -> dict[str, str]:
    found = {
        role: next(name for name in spellings if name in names)
        for role, spellings in COLUMNS.items()
        if any(name in names for name in spellings)
    }
    if "url" not in found:
        raise InputError(f"{file}: no column of URLs; it has {', '.join(names[:12])}; name one {COLUMNS['url'][0]!r}")
    return found


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a parquet file: {one_line(error, 160)}") from None
