"""The lock of a mixture: every shard with its hashes, which records may be drawn for what, and the exact shares.

A lock is canonical json. Training reads nothing but a lock, so that one file tells what a model saw.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import find_task
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.mixture.round_ratios import Points, Schedule
from cavendish.mixing.shards.dataset import differences
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import Place, file_sha256, join, read_json, size_of, write_atomic

LOCK_SCHEMA = "cavendish-lock/2"  # /1 had no settings by source; lock again

_MAX_SHARD_RECORDS = 10_000_000
_SHOWN_SHARDS = 50  # lines of a diff

Form = Literal["raw", "instructions"]


@dataclass(frozen=True)
class LockedShard:
    """One shard: `row_sha256` is the hash of its json row (the index); bits follow the keys of the row in sorted order.

    Args:
        usable: for each task the bits of the records that may be drawn for it (see `pack_bits`).
        held_out: bits of the records kept for evaluation.
    """

    name: str
    sha256: str
    row_sha256: str
    bytes: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=0, le=_MAX_SHARD_RECORDS)]
    usable: Mapping[str, str]
    held_out: str


@dataclass(frozen=True)
class LockedSource:
    """One source: its shards, how many records of each licence may be drawn, and how many may not, by reason.

    Args:
        sizes: how many of the records that may be drawn have their shorter side in each range of pixels, by its name.
        negatives: how often a prompt asks for what is not there.
        colormaps: share of depth answers in each colour map; None: as `encoders.tasks.depth` does it.
    """

    name: str
    path: str
    form: Form
    plan: str
    records: int
    licences: Mapping[str, int]
    left_out: Mapping[str, int]
    sizes: Mapping[str, int]
    negatives: Annotated[float, Field(ge=0, le=1)]
    colormaps: Mapping[str, float] | None
    shards: tuple[LockedShard, ...]


@dataclass(frozen=True)
class Stream:
    """What the schedule draws from: one task of one source, its pool of records and its share of all examples.

    `share` are (global index, fraction) points as text, linear between them.
    """

    source: str
    task: str
    kind: Kind
    pool: Annotated[int, Field(ge=1)]
    share: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """`source/task`."""
        return f"{self.source}/{self.task}"

    @property
    def points(self) -> Points:
        """The share as exact fractions."""
        return tuple((index, Fraction(share)) for index, share in self.share)


@dataclass(frozen=True)
class Lock:
    """A mixture made definite.

    Args:
        mixture: the resolved mixture file; `mixture_digest` is its digest.
        exclusions: sha256 of each exclusion list, by path, and under `keys` the digest of all keys together.
        audit: sha256 of the audit's report and its verdict, or None when the mixture names no audit.
        max_bad: share of draws that may meet a damaged record before a run stops.
    """

    mixture: Mapping[str, Any]
    mixture_digest: str
    seed: Annotated[int, Field(ge=0)]
    max_bad: str
    sources: tuple[LockedSource, ...]
    streams: tuple[Stream, ...]
    exclusions: Mapping[str, str]
    audit: Mapping[str, str] | None = None

    @cached_property
    def digest(self) -> str:
        """The sha256 that names this lock."""
        return digest(_values(self))

    def schedule(self) -> Schedule:
        """Return the order in which its streams are drawn."""
        return Schedule([stream.points for stream in self.streams])

    def source(self, name: str) -> LockedSource:
        """Return a source by its name."""
        return next(source for source in self.sources if source.name == name)


def pack_bits(flags: NDArray[np.bool_]) -> str:
    """Write flags as text: "all", "none", or base64 of the deflated bits."""
    if flags.all():
        return "all"
    if not flags.any():
        return "none"
    return base64.b64encode(zlib.compress(np.packbits(flags).tobytes(), 9)).decode()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """Read `count` flags from the text of `pack_bits`.

    Raises:
        InputError: the text is not that of `count` flags.
    """
    if text in ("all", "none"):
        return np.full(count, text == "all")
    size = (count + 7) // 8
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), size + 1)
    except (zlib.error, binascii.Error, ValueError) as error:
        raise InputError(f"damaged bits in a lock: {error}") from None
    if len(data) != size:
        raise InputError(f"bits in a lock are for another number of records than {count}")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool)


def _values(lock: Lock) -> dict[str, Any]:
    return {"schema": LOCK_SCHEMA, **asdict(lock)}


def write_lock(path: Place, lock: Lock) -> None:
    """Write a lock as canonical json with its digest."""
    write_atomic(path, canonical_json({**_values(lock), "digest": lock.digest}))


def read_lock(path: Place) -> Lock:
    """Read a lock.

    Raises:
        InputError: missing, of another schema, or changed since it was written.
    """
    values = read_json(path, "the lock of a mixture")
    schema = values.pop("schema", None) if isinstance(values, dict) else None
    if schema != LOCK_SCHEMA:
        raise InputError(f"{path}: schema {schema!r}, this version reads {LOCK_SCHEMA!r}: lock the mixture again")
    written = values.pop("digest", None)
    try:
        lock = _LOCK.validate_json(canonical_json(values), strict=True)
        if lock.digest == written:
            _check_lock(lock)
            return lock
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f", and {error.error_count() - 1} more problems" if error.error_count() > 1 else ""
        raise InputError(f"{path}: damaged lock: {where}: {first['msg']}{more}") from None
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"{path}: damaged lock: {error}") from None
    raise InputError(f"{path}: edited since it was written (its digest differs): lock the mixture again")


_LOCK = TypeAdapter(Lock)


def _check_lock(lock: Lock) -> None:
    """Check what the types of a lock do not: its digest can be anybody's.

    Raises:
        ValueError, ArithmeticError: naming what is wrong.
    """
    if not 0 <= Fraction(lock.max_bad) <= 1:
        raise ValueError("max_bad outside 0 to 1")
    sources = {source.name for source in lock.sources}
    for stream in lock.streams:
        if stream.source not in sources or not stream.points or find_task(stream.task).kind != stream.kind:
            raise ValueError(f"stream {stream.name} of no source, without a share, or of another kind")
        if any(index < 0 or not 0 <= share <= 1 for index, share in stream.points):
            raise ValueError(f"stream {stream.name} has shares outside 0 to 1")


def verify_lock(lock: Lock, data: Place, full: bool = False) -> list[str]:
    """Compare the shards with a lock; return what differs, an empty list when nothing does.

    Args:
        data: folder, or URL of one, that the paths of sources are relative to.
        full: hash every tar too (about 600 MB/s); otherwise only rows are hashed and tars weighed.
    """
    problems = []
    for source in lock.sources:
        for shard in source.shards:
            tar = join(join(data, source.path), shard.name)
            row = str(tar).removesuffix(".tar") + ".json"
            try:
                size = size_of(tar)
                if file_sha256(row) != shard.row_sha256:
                    problems.append(f"{row}: changed since the mixture was locked")
                elif size != shard.bytes:
                    problems.append(f"{tar}: {size} bytes, locked with {shard.bytes}")
                elif full and file_sha256(tar) != shard.sha256:
                    problems.append(f"{tar}: its sha256 is not the locked one")
            except InputError as error:
                problems.append(str(error))
    return problems


def diff_locks(before: Lock, after: Lock) -> list[str]:
    """List what changed from one lock to another; an empty list when nothing did."""
    if before.digest == after.digest:
        return []
    lines = [*differences(before.mixture, after.mixture, "mixture"), *_diff_streams(before, after)]
    sources = {source.name: source for source in after.sources}
    for source in sorted(before.sources, key=lambda source: source.name):
        if now := sources.get(source.name):
            lines += differences(source.licences, now.licences, f"source {source.name}, licences")
            lines += differences(source.left_out, now.left_out, f"source {source.name}, left out")
    shards = list(_diff_shards(before, after))
    lines += shards[:_SHOWN_SHARDS]
    if len(shards) > _SHOWN_SHARDS:
        lines.append(f"and {len(shards) - _SHOWN_SHARDS} more shards")
    lines += differences(before.exclusions, after.exclusions, "exclusions")
    lines += differences(before.audit or {}, after.audit or {}, "audit")
    return lines


def _diff_streams(before: Lock, after: Lock) -> Iterator[str]:
    old, new = ({stream.name: stream for stream in lock.streams} for lock in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"stream {name}: gone"
        elif name not in old:
            yield f"stream {name}: new, pool {new[name].pool}, share {_share_text(new[name])}"
        else:
            if old[name].pool != new[name].pool:
                yield f"stream {name}: pool {old[name].pool} -> {new[name].pool}"
            if old[name].share != new[name].share:
                yield f"stream {name}: share {_share_text(old[name])} -> {_share_text(new[name])}"


def _diff_shards(before: Lock, after: Lock) -> Iterator[str]:
    old, new = (
        {f"{source.path}/{shard.name}": shard for source in lock.sources for shard in source.shards}
        for lock in (before, after)
    )
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"shard {name}: gone"
        elif name not in old:
            yield f"shard {name}: new, {new[name].count} records"
        elif old[name].sha256 != new[name].sha256:
            yield f"shard {name}: other bytes, {old[name].count} -> {new[name].count} records"
        elif old[name] != new[name]:
            yield f"shard {name}: other records may be drawn"


def _share_text(stream: Stream) -> str:
    if len(stream.share) == 1:
        return f"{float(Fraction(stream.share[0][1])):.6g}"
    return ", ".join(f"{float(Fraction(share)):.6g} at {index}" for index, share in stream.share)
