"""The mixture file: which shards, in what exact shares, drawn for which tasks; and locking it to what is on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from encoders.sample import TASKS, InputError
from mixing.config import Config, read_config
from mixing.lock import KIND_OF, Kind, Lock, LockedSource, Stream, read_lock, unpack_bits, write_lock
from mixing.pool import Limits, scan_source
from mixing.schedule import Schedule, share_at
from mixing.storage import digest, file_sha256, read_json

__all__ = ["Filter", "HoldOut", "Mixture", "Source", "load", "lock_mixture", "read_lock", "write_lock"]


def _fraction(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise ValueError('write a number, or a fraction in quotes such as "1/3"')
    try:
        return Fraction(str(value))  # of the text, so that 0.1 is one tenth
    except (ValueError, ZeroDivisionError):
        raise ValueError('write a number, or a fraction in quotes such as "1/3"') from None


Exact = Annotated[Fraction, BeforeValidator(_fraction), PlainSerializer(str)]
Positive = Annotated[Exact, Field(gt=0)]
Share = Annotated[Exact, Field(ge=0, le=1)]
Ratio = Share | Annotated[tuple[tuple[int, Share], ...], Field(min_length=2)] | Literal["rest"]
Task = Literal["depth", "normals", "semantic", "instance", "referring", "generate", "edit"]
KINDS: tuple[Kind, ...] = ("generation", "editing", "vision")


class HoldOut(Config):
    """Records that are never trained on: a share chosen by the hash of the key, and whole shards by number.

    The choice depends on the key and the share alone: mixtures with the same share hold out the same records.
    """

    share: Share = Fraction(0)
    shards: tuple[int, ...] = ()


class Filter(Config):
    """Which records of a raw source may be drawn: bounds on the picture's sides in pixels, and on quality scores."""

    min_side: int = Field(default=1, ge=1)
    max_side: int | None = None
    min_quality: dict[str, float] = Field(default_factory=dict)
    max_quality: dict[str, float] = Field(default_factory=dict)


class Source(Config):
    """One directory of shards."""

    path: Path = Field(description="directory of raw or instruction shards, relative to the data folder")
    tasks: dict[Task, Positive] | None = Field(
        None,
        description="what is drawn from it, with weights within the kind; instruction shards: as many as there are",
    )
    weight: Positive = Field(Fraction(1), description="times the weight of each task")
    hold_out: HoldOut = HoldOut()
    where: Filter = Filter()
    max_epochs: Positive | None = Field(None, description="how often a record may be drawn for one task in `examples`")


class Mixture(Config):
    """A mixture of sources. Ratios are exact: numbers are taken as written, 0.1 is one tenth.

    A ratio is a number, "rest" (for one kind), or points [[step, ratio], ...] that are joined by straight lines.
    """

    seed: int = Field(0, ge=0)
    ratios: dict[Kind, Ratio] = Field(min_length=1)
    examples_per_step: int = Field(1, ge=1, description="a step of the points of ratios is so many examples")
    examples: int | None = Field(None, ge=1, description="length of the run, for `max_epochs`; the stream has no end")
    licences: tuple[str, ...] | None = Field(None, description="allow-list; none: any licence")
    exclude: tuple[Path, ...] = Field((), description='lists of keys not to train on, json {"keys": [...]}')
    audit: Path | None = Field(None, description="report.json of the audit whose verdict goes into the lock")
    max_bad: Share = Field(Fraction(1, 100), description="stop when more of the draws met a damaged record")
    negatives: float = Field(default=0.1, ge=0, le=1, description="how often a prompt asks for what is not there")
    sources: dict[str, Source] = Field(min_length=1)

    @field_validator("ratios")
    @classmethod
    def _points_in_order(cls, ratios: dict[Kind, Ratio]) -> dict[Kind, Ratio]:
        for kind, ratio in ratios.items():
            steps = [step for step, _ in ratio] if isinstance(ratio, tuple) else [0]
            if steps[0] < 0 or any(after <= before for before, after in pairwise(steps)):
                raise ValueError(f"the steps of {kind} must rise from 0 on")
        return ratios

    @model_validator(mode="after")
    def _possible(self) -> Mixture:
        if any(source.max_epochs is not None for source in self.sources.values()) and self.examples is None:
            raise ValueError("max_epochs needs `examples`, the length of the run it is meant for")
        kind_points(self)
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> Mixture:
    """Read a mixture file, with `key=value` overrides.

    Raises:
        InputError: a key or value is wrong, or the ratios cannot be; the message says what would be possible.
    """
    return read_config(Mixture, path, overrides)


def kind_points(mixture: Mixture) -> dict[Kind, dict[int, Fraction]]:
    """Return the ratio of each kind at every index where any of them bends; they add up to 1 everywhere.

    Raises:
        ValueError: they do not, with what would.
    """
    rests = [kind for kind, ratio in mixture.ratios.items() if ratio == "rest"]
    if len(rests) > 1:
        raise ValueError(f"ratios: only one kind can be the rest, not {' and '.join(rests)}")
    given = {
        kind: ratio if isinstance(ratio, tuple) else ((0, ratio),)
        for kind, ratio in mixture.ratios.items()
        if not isinstance(ratio, str)
    }
    steps = sorted({0, *(step for points in given.values() for step, _ in points)})
    ratios = {kind: {step: share_at(points, step) for step in steps} for kind, points in given.items()}
    for step in steps:
        total = sum((at[step] for at in ratios.values()), Fraction(0))
        if total > 1 or (total < 1 and not rests):
            raise ValueError(_sum_problem(total, step, {kind: at[step] for kind, at in ratios.items()}))
    for kind in rests:
        ratios[kind] = {step: 1 - sum((at[step] for at in ratios.values()), Fraction(0)) for step in steps}
    return {
        kind: {step * mixture.examples_per_step: at for step, at in ratios[kind].items()}
        for kind in KINDS
        if kind in ratios and any(ratios[kind].values())
    }


def _sum_problem(total: Fraction, step: int, ratios: Mapping[Kind, Fraction]) -> str:
    largest = max(ratios, key=lambda kind: ratios[kind])
    would = ratios[largest] + 1 - total
    fix = f"{largest} {float(would):g} would do" if would >= 0 else "scale them down"
    parts = " + ".join(f"{kind} {float(ratio):g}" for kind, ratio in ratios.items())
    return f"ratios at step {step} add up to {float(total):g} ({parts}), not 1: {fix}, or write one of them as rest"


def lock_mixture(mixture: Mixture, data: Path) -> Lock:
    """Look at every shard and fix what may be drawn from it.

    Args:
        data: folder that the paths in the mixture are relative to.

    Raises:
        InputError: a source or list is not there, the audit's verdict is not clean, or the ratios cannot be met from
            what is there; the message says what would be possible.
    """
    excluded: set[str] = set()
    exclusions = {}
    for path in mixture.exclude:
        excluded |= read_exclusions(data / path)
        exclusions[path.as_posix()] = file_sha256(data / path)
    exclusions["keys"] = digest(sorted(excluded))
    sources = tuple(
        scan_source(name, data, source.path, _limits(mixture, source, excluded))
        for name, source in mixture.sources.items()
    )
    values = mixture.model_dump(mode="json")
    return Lock(
        mixture=values,
        mixture_digest=digest(values),
        seed=mixture.seed,
        max_bad=str(mixture.max_bad),
        negatives=mixture.negatives,
        sources=sources,
        streams=_streams(mixture, sources),
        exclusions=exclusions,
        audit=None if mixture.audit is None else _read_verdict(data / mixture.audit),
    )


def _limits(mixture: Mixture, source: Source, excluded: set[str]) -> Limits:
    return Limits(
        tasks=None if source.tasks is None else tuple(sorted(source.tasks, key=TASKS.index)),
        excluded=frozenset(excluded),
        licences=None if mixture.licences is None else frozenset(mixture.licences),
        held_out_share=source.hold_out.share,
        held_out_shards=frozenset(source.hold_out.shards),
        min_side=source.where.min_side,
        max_side=source.where.max_side,
        min_quality=source.where.min_quality,
        max_quality=source.where.max_quality,
    )


def read_exclusions(path: Path) -> set[str]:
    """Read a list of sample keys not to train on.

    Raises:
        InputError: not json of the form {"keys": [...]}.
    """
    values = read_json(path, "a list of keys to exclude")
    keys = values.get("keys") if isinstance(values, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f'{path}: expected {{"keys": [...]}}, a list of keys to exclude')
    return set(keys)


def _read_verdict(path: Path) -> dict[str, str]:
    values = read_json(path, "the report of an audit")
    if not isinstance(values, dict) or "verdict" not in values:
        raise InputError(f"{path}: no verdict in it; it should be the report.json of `cavendish audit`")
    return {"sha256": file_sha256(path), "verdict": str(values["verdict"])}


def _streams(mixture: Mixture, sources: Sequence[LockedSource]) -> tuple[Stream, ...]:
    streams = []
    for kind, points in kind_points(mixture).items():
        weights: list[tuple[LockedSource, str, Fraction]] = []
        for locked in sources:
            source = mixture.sources[locked.name]
            for task, weight in (source.tasks or _natural_weights(locked)).items():
                if KIND_OF[task] == kind:
                    weights.append((locked, task, weight * source.weight))
        if not weights:
            raise InputError(f"mixture: {kind} has a ratio, but no source has a task of that kind")
        total = sum((weight for _, _, weight in weights), Fraction(0))
        for locked, task, weight in weights:
            share = tuple((index, str(ratio * weight / total)) for index, ratio in points.items())
            stream = Stream(locked.name, task, kind, pool_size(locked, task), share)
            _check_stream(mixture, locked, stream, weight / total)
            streams.append(stream)
    return tuple(streams)


def _natural_weights(source: LockedSource) -> dict[str, Fraction]:
    tasks = {task for shard in source.shards for task in shard.usable}
    return {task: Fraction(pool_size(source, task)) for task in sorted(tasks, key=TASKS.index)}


def pool_size(source: LockedSource, task: str) -> int:
    """Return how many records of a source may be drawn for a task."""
    return sum(int(unpack_bits(shard.usable.get(task, "none"), shard.count).sum()) for shard in source.shards)


def _check_stream(mixture: Mixture, source: LockedSource, stream: Stream, within: Fraction) -> None:
    if stream.pool == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.left_out.items()) or "no record serves it"
        raise InputError(
            f"mixture: source {source.name} has nothing to draw for task {stream.task} "
            f"({source.records} records; {reasons}): take {stream.task} out of its tasks"
        )
    cap = mixture.sources[source.name].max_epochs
    if cap is None or mixture.examples is None:
        return
    other = tuple((index, 1 - share) for index, share in stream.points)
    wanted = Schedule([stream.points, other]).quota(0, mixture.examples)
    allowed = cap * stream.pool
    if wanted > allowed:
        mean = wanted / mixture.examples / within
        raise InputError(
            f"mixture: {mixture.examples} examples would draw {float(wanted):g} of {stream.name}, but {stream.pool} "
            f"records at max_epochs {float(cap):g} give {float(allowed):g}. Possible: {stream.kind} at "
            f"{float(mean * allowed / wanted):.4g} instead of {float(mean):.4g}, or max_epochs "
            f"{float(wanted / stream.pool):.4g}, or examples {int(mixture.examples * allowed / wanted)}"
        )
