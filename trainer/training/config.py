"""Configuration of a training run: one commented YAML, see examples/train_base.yaml and examples/train_tune.yaml."""

from __future__ import annotations

import re
from math import log
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.config import Config
from cavendish.mixing.mixture.draw import Buckets, Sizes
from cavendish.mixing.shards.reader import Reading
from cavendish.trainer.evaluation.settings import EvaluationSets, RetentionSettings
from cavendish.trainer.generators.protocol import Precision
from cavendish.trainer.generators.tiny import TinyConfig
from cavendish.trainer.parallel import Parallel


class SigmaConfig(Config):
    """Noise levels: the logit of sigma is normal with a mean per kind of example; a share of draws is at sigma 1."""

    generation: float = 0.0
    editing: float = 0.0
    vision: float = Field(default=1.2, description="dense answers are decided at high noise")
    std: float = Field(default=1.0, gt=0)
    vision_at_one: float = Field(
        default=0.0, ge=0, lt=1, description="share of vision draws at pure noise, where sampling begins"
    )

    @model_serializer(mode="wrap")
    def _as_before_the_key(self, dump: SerializerFunctionWrapHandler) -> dict[str, float]:
        """Leave `vision_at_one` out where it is 0: runs from before there was this key go on."""
        return {name: value for name, value in dump(self).items() if name != "vision_at_one" or value}

    def mean_of(self, kind: Kind) -> float:
        """Return the mean for a kind."""
        return {"generation": self.generation, "editing": self.editing, "vision": self.vision}[kind]

    def share_between(self, kind: Kind, low: float, high: float) -> float:
        """Return the share of the draws of a kind in low < sigma <= high."""
        at_one = self.vision_at_one if kind == "vision" else 0.0
        below = [NormalDist(self.mean_of(kind), self.std).cdf(log(s / (1 - s))) if s < 1 else 1.0 for s in (low, high)]
        return (1 - at_one) * (below[1] - below[0]) + (at_one if high == 1 else 0.0)


class LoraSettings(Config):
    """Low-rank matrices beside frozen layers; what they add is scaled by alpha / rank."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=16, gt=0)
    targets: str | list[str] | None = Field(
        default=None, description="layers: a regular expression for whole names, or ends of names; none: the adapter's"
    )


class PrecomputedSettings(Config):
    """Text embeddings and latents that `cavendish precompute` wrote; of another model they are refused."""

    folder: Path
    missing: Literal["error", "compute"] = Field(
        default="error", description="when a prompt or picture is not there; with error no text encoder is loaded"
    )


class TrainConfig(Config):
    """One training run: what it starts from, what it reads, and how it steps. Paths are relative to the data."""

    lock: Path = Field(description="lock file of the mixture to train on")
    relock: bool = Field(default=False, description="lock the mixture again when shards are not as locked, and go on")
    base: Path | None = Field(default=None, description="folder of the generator to start from")
    generator: TinyConfig | None = Field(default=None, description="or the shape of a fresh one")
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=64, ge=16, description="side of the pictures in pixels")
    buckets: Buckets | None = Field(
        default=None, description="[height, width] sizes instead; each picture takes that of the nearest aspect"
    )
    steps: int = Field(ge=1)
    batch: int = Field(default=32, ge=1)
    repeats: int = Field(default=1, ge=1, description="steps on one batch, each with new noise")
    learning_rate: float = Field(default=4e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    final_learning_rate: float = Field(default=0.05, ge=0, le=1, description="end of the cosine, share of the peak")
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    max_skipped_steps: int = Field(
        default=5, ge=0, description="steps in a row that may be skipped, their gradients not finite, before it stops"
    )
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    sigma: SigmaConfig = SigmaConfig()
    log_every: int = Field(default=10, ge=1, description="steps per row group of loss.csv")
    checkpoint_every: int = Field(default=200, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    threads: int = Field(default=2, ge=1)
    workers: int = Field(default=1, ge=0, description="processes that read examples; 0 reads them between the steps")
    shards: str | None = Field(
        default=None, description="where the paths of the lock are, when not in the data: a folder or an fsspec URL"
    )
    reading: Reading = Field(default=Reading(), description="cache of remote shards, read-ahead, what to do on damage")

    lora: LoraSettings | None = Field(default=None, description="train low-rank matrices, and nothing else")
    trainable: float | str | None = Field(
        default=None, description="train a share of the parameters, those nearest the output, or those a regex finds"
    )
    accumulate: int = Field(default=1, ge=1, description="parts that a batch is computed in, to save memory")
    precomputed: PrecomputedSettings | None = Field(default=None, description="what frozen parts computed before")
    pixel_weights: bool = Field(default=False, description="count pixels in the loss by the weight of their sample")
    gradient_checkpointing: bool = Field(default=False, description="compute activations twice, to save memory")
    precision: Precision = Field(default="float32", description="of computation and of frozen weights")
    device: Literal["cpu", "cuda"] = "cpu"
    compile: bool = Field(default=False, description="torch.compile the network")
    parallel: Parallel = Field(default="none", description="how processes of torchrun share")
    track: list[Literal["tensorboard", "wandb"]] = Field(default=[], description="also log losses there")

    evaluate_every: int | None = Field(default=None, ge=1, description="steps between evaluations; none: none")
    evaluate: EvaluationSets | None = Field(default=None, description="held-out sets to decode and score")
    retention: RetentionSettings | None = Field(default=None, description="what may be lost of the base")
    evaluate_batch: int = Field(default=16, ge=1, description="pictures that a process draws at a time")

    @property
    def needs_text_encoder(self) -> bool:
        """Whether prompts may have to be encoded."""
        return self.precomputed is None or self.precomputed.missing == "compute"

    @property
    def sizes(self) -> Sizes:
        """The sizes that pictures are brought to."""
        return self.size if self.buckets is None else self.buckets

    @field_validator("trainable")
    @classmethod
    def _usable(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError("a share lies between 0 and 1")
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    @field_validator("buckets")
    @classmethod
    def _different(cls, value: Buckets | None) -> Buckets | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("a size is there twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if (self.base is None) == (self.generator is None):
            raise ValueError("give either base (a folder to start from) or generator (the shape of a fresh one)")
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every, so that a resumed loss.csv is the same")
        self._check_evaluation()
        if self.lora is not None and self.trainable is not None:
            raise ValueError("give either lora or trainable: a LoRA leaves every other weight as it is")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be cut into accumulate {self.accumulate} equal parts")
        return self

    def _check_evaluation(self) -> None:
        if self.evaluate_every is not None and not self.needs_text_encoder:
            raise ValueError(
                "evaluation puts prompts that were not computed before: set precomputed.missing to compute"
            )
        if (self.evaluate_every is None) != (self.evaluate is None and self.retention is None):
            raise ValueError("evaluate_every says when, and evaluate or retention what: give both or neither")
        if self.evaluate_every is not None and self.evaluate_every % self.log_every:
            raise ValueError("evaluate_every must be a multiple of log_every, so that a resumed loss.csv is the same")
        if self.retention is not None and self.base is None:
            raise ValueError("retention compares with a base; a fresh generator has none")


RESUMABLE_KEYS = frozenset(
    (
        *("shards", "reading"),
        *("lock", "relock", "base", "threads", "workers", "checkpoint_every", "keep_checkpoints", "accumulate"),
        *("gradient_checkpointing", "device", "compile", "parallel", "track", "precomputed"),
        *("evaluate_every", "evaluate", "retention", "evaluate_batch", "max_skipped_steps"),
    )
)
"""Keys that may change between interruption and resumption: they do not decide what is learned, beyond rounding (what
the lock and the base hold does, and is compared by its digest)."""
