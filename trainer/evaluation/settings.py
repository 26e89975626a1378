"""What to evaluate on, as configurations say it; reading it is up to `sets.py`, which needs more libraries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from cavendish.encoders.tasks.registry import VISION_TASKS
from cavendish.mixing.config import Config

if TYPE_CHECKING:
    SampleTask = str
else:
    SampleTask = Literal[VISION_TASKS]
_NAME = re.compile(r"[\w(][\w .,()+-]*")


class EvaluationSet(Config):
    """A directory of raw shards that no mixture holds and what to ask of it, or a public benchmark."""

    folder: Path = Field(description="the raw shards, or the benchmark as downloaded")
    tasks: tuple[SampleTask, ...] = Field(default=(), description="what to ask of raw shards")
    benchmark: str | None = Field(default=None, description="or the name of the benchmark, whose prompts are fixed")
    items: int | None = Field(default=None, ge=1, description="ask a random subset of so many of each task; none: all")

    @model_validator(mode="after")
    def _one_kind(self) -> EvaluationSet:
        if bool(self.tasks) == (self.benchmark is not None):
            raise ValueError("a set is either raw shards with tasks, or a benchmark with its name")
        return self


class EvaluationSets(Config):
    """Sets by the names that folders and tables show, and how their questions are put."""

    sets: dict[str, EvaluationSet] = Field(min_length=1, description="held-out sets by name")
    priors: Path | None = Field(
        default=None,
        description="raw shards whose truth the blind guesses for depth and normals are fitted on; none: that of the "
        "set itself, the best that guesses of their kind could be",
    )
    steps: int = Field(default=4, ge=1, description="Euler steps of an answer")
    guidance: float = Field(default=1, gt=0, description="scale of classifier-free guidance; 1: none")
    passes: int = Field(
        default=1, ge=1, description="how often a question is put, in other words and colours; answers are voted on"
    )

    @field_validator("sets")
    @classmethod
    def _named(cls, sets: dict[str, EvaluationSet]) -> dict[str, EvaluationSet]:
        for name in sets:
            if not _NAME.fullmatch(name) or name == "retention":
                raise ValueError(f"a set cannot be called {name!r}: letters, digits, spaces and .,()+- make a name")
        return sets


class RetentionSettings(Config):
    """How much of the base a tuned generator may lose, measured on held-out captions and edits."""

    samples: Path = Field(description="raw shards that no mixture holds, with captions or edits")
    items: int | None = Field(default=64, ge=1, description="measure on a random subset of so many samples; none: all")
    limit: float = Field(default=1.15, gt=0, description="of the loss over that of the base, for each task")
    level_limit: float | None = Field(default=None, gt=0, description="the same for each noise level alone")
    action: Literal["warn", "stop"] = Field(default="warn", description="what to do when a limit is passed")
    steps: int = Field(default=4, ge=0, description="Euler steps of the edits and pictures drawn; 0: losses only")
