"""A few records of a convert job, for `cavendish plan`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from cavendish.encoders.codecs.normals import CONVENTIONS
from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.jobs.convert import ConvertConfig, convert_records, read_piece
from cavendish.mixing.jobs.estimate import Stage
from cavendish.mixing.jobs.probe import Trial
from cavendish.mixing.shards.sample_format import StoredSample
from cavendish.mixing.sources.records import Found, list_records

_RECORDS = 5  # a trial makes so many times `units` of a shard: one record is a matter of milliseconds


def convert_stage(config: ConvertConfig, data: Path, units: int) -> Stage:
    """Return what a convert job is, with a trial on three stretches of its records.

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
    return Stage(
        verb="convert",
        unit="record",
        units=len(records),
        units_per_shard=config.records_per_shard,
        shard_key="records_per_shard",
        trial=Trial(partial(_convert_some, config, root, chosen), shards=shards, units=each, count_rejected=True),
        more="several configurations, each with a part of the tars and a directory of its own",
    )


def _convert_some(
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
