"""Which records of a source may be drawn, and for which tasks: from the rows of its shards, without their pixels."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import Form, LockedShard, LockedSource, pack_bits
from cavendish.mixing.mixture.config import Filter, Source
from cavendish.mixing.shards.dataset import Row, load_dataset, parse_row, row_names
from cavendish.mixing.shards.reader import read_shard
from cavendish.mixing.shards.sample_format import record_facts, record_key
from cavendish.mixing.storage.place import Place, join, read_all

HELD_OUT = "held out"
EXCLUDED = "excluded"
LICENCE = "licence not allowed"
FILTERED = "filtered"
UNFIT = "serve no task"


@dataclass(frozen=True)
class ResolvedSource:
    """A source of a mixture, or of one inside it, with what it inherits.

    Args:
        name: begins with the mixtures that it is in.
        excluded: keys of samples that are not drawn.
        licences: that may be drawn; None: any.
        negatives, colormaps: how its examples will be drawn; they go into the lock as they are.
    """

    name: str
    source: Source
    excluded: frozenset[str]
    licences: frozenset[str] | None
    negatives: float
    colormaps: Mapping[str, float] | None


@dataclass(frozen=True)
class Candidate:
    """What a mixture chooses a record by; see `mixing.shards.sample_format.record_facts`.

    Args:
        scene: views of one scene are held out together; the sample itself where it is no view.
        size: (height, width) in pixels.
    """

    sample: str
    scene: str
    licence: str
    tasks: frozenset[str]
    size: tuple[int, int]
    quality: Mapping[str, float]

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Candidate:
        """Read the facts of a row.

        Raises:
            KeyError, TypeError, ValueError: they are damaged.
        """
        height, width = facts["size"]
        return cls(
            sample=facts["sample"],
            scene=str(facts.get("scene", facts["sample"])),
            licence=facts["licence"],
            tasks=frozenset(facts["tasks"]),
            size=(height, width),
            quality=facts["quality"],
        )

    def wanted(self, source: Source) -> frozenset[str]:
        """Return the tasks that it can serve and that are asked for."""
        return self.tasks if source.tasks is None else self.tasks & source.tasks.keys()

    def reason_against(self, shard: int, resolved: ResolvedSource) -> str | None:
        """Return why it may not be drawn from shard number `shard`, or None."""
        source = resolved.source
        if self.sample in resolved.excluded:
            return EXCLUDED
        if shard in source.hold_out.shards or is_held_out(self.scene, source.hold_out.share):
            return HELD_OUT
        if resolved.licences is not None and self.licence not in resolved.licences:
            return LICENCE
        if not self._passes(source.where):
            return FILTERED
        return None if self.wanted(source) else UNFIT

    def _passes(self, where: Filter) -> bool:
        short, long = sorted(self.size)
        return (
            short >= where.min_side
            and (where.max_side is None or long <= where.max_side)
            and all(self.quality.get(name, -math.inf) >= least for name, least in where.min_quality.items())
            and all(self.quality.get(name, math.inf) <= most for name, most in where.max_quality.items())
        )


def is_held_out(key: str, share: Fraction) -> bool:
    """Tell whether a sample, or a scene of samples, is kept for evaluation: by its key alone, nested in the share."""
    value = int.from_bytes(hashlib.sha256(f"hold-out/{key}".encode()).digest()[:8], "big")
    return value < share * 2**64


def size_range(height: int, width: int) -> str:
    """Name the range of pixels, a factor of two wide, that the shorter side of an image is in."""
    low = 1 << min(height, width).bit_length() - 1
    return f"{low}-{2 * low - 1}"


def scan_source(resolved: ResolvedSource, data: Place) -> LockedSource:
    """Read the rows of a source's directory, which is relative to `data` or a URL.

    Raises:
        InputError: the directory is not complete or holds both kinds of record, or a setting of the source has no
            effect on what is there.
    """
    path, directory = resolved.source.path, join(data, resolved.source.path)
    plan_digest, shards = _read_shards(resolved.name, directory)
    parts_of_records = (parts for shard in shards for parts in shard.row.samples.values())
    forms: set[Form] = {"instructions" if "instruction.json" in parts else "raw" for parts in parts_of_records}
    if len(forms) > 1:
        raise InputError(f"{directory}: raw samples and instruction examples in one directory; keep them apart")
    form: Form = "raw" if "raw" in forms else "instructions"
    _check_settings(resolved.name, resolved.source, form, len(shards))
    licences: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    locked = []
    for index, shard in enumerate(shards):
        candidates = shard.candidates(join(directory, shard.row.shard))
        reasons = [candidate.reason_against(index, resolved) for candidate in candidates]
        for candidate, reason in zip(candidates, reasons):
            if reason is None:
                licences[candidate.licence] += 1
                sizes[size_range(*candidate.size)] += 1
            else:
                left_out[reason] += 1
        locked.append(_lock_shard(shard, candidates, reasons, resolved.source))
    return LockedSource(
        name=resolved.name,
        path=str(join(Path(), path)),
        form=form,
        plan=plan_digest,
        records=sum(shard.row.count for shard in shards),
        licences=dict(sorted(licences.items())),
        left_out=dict(sorted(left_out.items())),
        sizes=dict(sorted(sizes.items())),
        negatives=resolved.negatives,
        colormaps=resolved.colormaps,
        shards=tuple(locked),
    )


def _check_settings(name: str, source: Source, form: Form, shards: int) -> None:
    if source.tasks is None and form == "raw":
        raise InputError(f"mixture: source {name} holds raw samples: say in `tasks` what is drawn from them")
    for key in ("negatives", "colormaps"):
        if getattr(source, key) is not None and form == "instructions":
            raise InputError(f"mixture: sources.{name}.{key} has no effect: its prompts are frozen; take it out")
    if beyond := [str(shard) for shard in source.hold_out.shards if not 0 <= shard < shards]:
        raise InputError(f"mixture: sources.{name}.hold_out.shards: no shard {', '.join(beyond)} of 0 to {shards - 1}")


@dataclass(frozen=True)
class _Shard:
    """A committed shard: its row, and the sha256 of the row's bytes."""

    row: Row
    row_sha256: str

    def candidates(self, tar: Place) -> list[Candidate]:
        """Return its records in the order of their keys; of a row without facts the records of `tar` are read."""
        facts = self.row.facts or {record_key(record): record_facts(record) for record in read_shard(tar)}
        try:
            return [Candidate.of_facts(facts.get(key, {})) for key in sorted(self.row.samples)]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{tar}: damaged facts in the row: {error}") from None


def _read_shards(name: str, directory: Place) -> tuple[str, list[_Shard]]:
    """Return the digest of the plan of a finished directory, and its shards."""
    try:
        dataset = load_dataset(directory)
    except InputError as error:
        raise InputError(f"{error} (the shards of source {name})") from None
    places = [join(directory, row_name) for row_name in row_names(directory)]
    texts = zip(places, read_all(places))
    shards = [_Shard(parse_row(text, place), hashlib.sha256(text).hexdigest()) for place, text in texts]
    if len(shards) < dataset.shards or not shards:
        raise InputError(f"{directory}: {len(shards)} of {dataset.shards} shards are committed; finish the job first")
    return dataset.digest, shards


def _lock_shard(
    shard: _Shard, candidates: Sequence[Candidate], reasons: Sequence[str | None], source: Source
) -> LockedShard:
    """Say which records of a shard may be drawn for what, given the reason against each."""
    wanted = [candidate.wanted(source) for candidate in candidates]
    usable = {
        task: pack_bits(np.array([reason is None and task in tasks for tasks, reason in zip(wanted, reasons)], bool))
        for task in sorted(set().union(*wanted))
    }
    held_out = pack_bits(np.array([reason == HELD_OUT for reason in reasons], bool)) if candidates else "none"
    row = shard.row
    return LockedShard(row.shard, row.sha256, shard.row_sha256, row.bytes, row.count, usable, held_out)
