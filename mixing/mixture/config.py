"""The mixture file: which shards, in what exact shares, drawn for which tasks, and mixtures inside mixtures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from cavendish.encoders.codecs.colormaps import COLORMAPS
from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import TASK_NAMES
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.config import Config, ConfigLike, as_config, read_config
from cavendish.mixing.mixture.resolve_ratios import Bends, resolve_ratios


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
KINDS: tuple[Kind, ...] = get_args(Kind)
if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[TASK_NAMES]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


def _colormaps(value: dict[str, float]) -> dict[str, float]:
    unknown = sorted(value.keys() - set(COLORMAPS))
    if unknown:
        raise ValueError(f"no colour map {', '.join(unknown)}; there are {', '.join(COLORMAPS)}")
    if sum(value.values()) > 1:
        raise ValueError(f"the shares of colour maps add up to {sum(value.values()):g}, more than 1")
    return value


Maps = Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], AfterValidator(_colormaps)]


class HoldOut(Config):
    """Records that are never trained on: a share chosen by the hash of the key, and whole shards by number.

    The choice depends on the key and the share alone: mixtures with the same share hold out the same records.
    """

    share: Share = Fraction(0)
    shards: tuple[int, ...] = ()


class Filter(Config):
    """Which records of a raw source may be drawn: bounds on the image's sides in pixels, and on quality scores."""

    min_side: int = Field(default=1, ge=1)
    max_side: int | None = None
    min_quality: dict[str, float] = Field(default_factory=dict)
    max_quality: dict[str, float] = Field(default_factory=dict)


class TaskDraws(Config):
    """How much of one task is drawn from a source; a bare number is the weight."""

    weight: Positive = Fraction(1)
    max_epochs: Positive | None = Field(None, description="as that of the source, for this task alone")


def _or_bare(key: str, model: type[Config]) -> BeforeValidator:
    """Take a bare value for a map with this one key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict | model) else {key: value})


Draws = Annotated[TaskDraws, _or_bare("weight", TaskDraws)]


class Floor(Config):
    """A least share of all examples (a bare number), or a least number of draws in a run of `examples`."""

    share: Share | None = None
    draws: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_either(self) -> Floor:
        if (self.share is None) == (self.draws is None):
            raise ValueError("write a share, or {draws: NUMBER}")
        return self


LeastShare = Annotated[Floor, _or_bare("share", Floor)]


class Floors(Config):
    """What tasks (over all sources) and sources (over all tasks) get at least; others of the kind make room."""

    tasks: dict[Task, LeastShare] = Field(default_factory=dict)
    sources: dict[str, LeastShare] = Field(default_factory=dict)


class Source(Config):
    """One directory of shards."""

    path: Path | str = Field(
        description="directory of raw or instruction shards, relative to the data folder, or an fsspec URL"
    )
    tasks: dict[Task, Draws] | None = Field(
        None,
        description="what is drawn from it, with weights within the kind; instruction shards: as many as there are",
    )
    weight: Positive = Field(Fraction(1), description="times the weight of each task")
    hold_out: HoldOut = HoldOut()
    where: Filter = Filter()
    max_epochs: Positive | None = Field(None, description="how often a record may be drawn for one task in `examples`")
    negatives: float | None = Field(None, ge=0, le=1, description="instead of the mixture's")
    colormaps: Maps | None = Field(None, description="instead of the mixture's")


class Nested(Config):
    """A mixture inside a mixture: its streams keep their shares of each other, times its ratio of the whole."""

    file: Path = Field(description="a mixture file, relative to the one that names it")
    ratio: Ratio
    mixture: Mixture | None = Field(None, description="what the file says; `load` fills it in")


class Mixture(Config):
    """A mixture of sources. Ratios are exact: numbers are taken as written, 0.1 is one tenth.

    A ratio is a number, "rest" (for one kind), or points [[step, ratio], ...] that are joined by straight lines.
    """

    seed: int = Field(0, ge=0)
    ratios: dict[Kind, Ratio] = Field(default_factory=dict)
    examples_per_step: int = Field(1, ge=1, description="a step of the points of ratios is so many examples")
    examples: int | None = Field(
        None, ge=1, description="length of the run, for caps and floors; the stream has no end"
    )
    licences: tuple[str, ...] | None = Field(None, description="allow-list; none: any licence")
    exclude: tuple[Path, ...] = Field((), description='lists of keys not to train on, json {"keys": [...]}')
    audit: Path | None = Field(None, description="report.json of the audit whose verdict goes into the lock")
    max_bad: Share = Field(Fraction(1, 100), description="stop when more of the draws met a damaged record")
    negatives: float = Field(default=0.1, ge=0, le=1, description="how often a prompt asks for what is not there")
    colormaps: Maps | None = Field(
        None,
        description="share of depth answers in each colour map, the rest is the cube walk; none: a quarter, evenly",
    )
    floors: Floors = Floors()
    sources: dict[Name, Source] = Field(default_factory=dict)
    mixtures: dict[Name, Nested] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _possible(self) -> Mixture:
        if not self.sources and not self.mixtures:
            raise ValueError("a mixture needs `sources` or `mixtures`")
        if self.examples is None and any(
            cap is not None
            for source in self.sources.values()
            for cap in (source.max_epochs, *(draws.max_epochs for draws in (source.tasks or {}).values()))
        ):
            raise ValueError("max_epochs needs `examples`, the length of the run it is meant for")
        floors = (*self.floors.tasks.values(), *self.floors.sources.values())
        if self.examples is None and any(floor.draws is not None for floor in floors):
            raise ValueError("a floor in draws needs `examples`, the length of the run it is meant for")
        ratio_bends(self)
        return self


def load(config: ConfigLike, overrides: Sequence[str] = ()) -> Mixture:
    """Read a mixture, and the files of the mixtures in it, with `key=value` overrides.

    Raises:
        InputError: a key or value is wrong, a mixture contains itself, or the ratios cannot be; the message says what
            would be possible.
    """
    if isinstance(config, str | os.PathLike):
        return _load(Path(config), overrides, ())
    if isinstance(config, Mixture) and not overrides:
        return config
    return _with_nested(as_config(Mixture, config, overrides), Path(), ())


def _load(path: Path, overrides: Sequence[str], outer: tuple[Path, ...]) -> Mixture:
    if path.resolve() in outer:
        chain = " -> ".join(str(file) for file in (*outer[outer.index(path.resolve()) :], path.resolve()))
        raise InputError(f"mixture: {path} contains itself: {chain}")
    return _with_nested(read_config(Mixture, path, overrides), path.parent, (*outer, path.resolve()))


def _with_nested(mixture: Mixture, folder: Path, outer: tuple[Path, ...]) -> Mixture:
    nested = {
        name: inner.model_copy(update={"mixture": _load(folder / inner.file, (), outer)})
        for name, inner in mixture.mixtures.items()
    }
    return mixture.model_copy(update={"mixtures": nested})


def ratio_bends(mixture: Mixture) -> tuple[dict[Kind, Bends], dict[str, Bends]]:
    """Return the ratio of each kind of own sources, and of each mixture inside, at every index where any bends.

    They add up to 1 everywhere; a kind that never has a share is left out.

    Raises:
        ValueError: they do not add up, with what would.
    """
    ratios: dict[str, Ratio] = {str(kind): ratio for kind, ratio in mixture.ratios.items()}
    ratios |= {f"mixtures.{name}": nested.ratio for name, nested in mixture.mixtures.items()}
    resolved = resolve_ratios(ratios)
    bends: dict[str, Bends] = {
        name: {step * mixture.examples_per_step: share for step, share in at.items()} for name, at in resolved.items()
    }
    kinds = {kind: bends[kind] for kind in KINDS if kind in bends and any(bends[kind].values())}
    return kinds, {name: bends[f"mixtures.{name}"] for name in mixture.mixtures}
