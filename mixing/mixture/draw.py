"""One draw: a sample, a task and an epoch make one example, on the fly and in frozen shards alike."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated

import numpy as np
from pydantic import Field

from cavendish.encoders.augment import resize_sample
from cavendish.encoders.sample import Example, Sample
from cavendish.encoders.tasks.registry import find_task, make_example
from cavendish.mixing.shards.sample_format import EDITED_PARTS, IMAGE_PARTS, Origin, parse_sample

_PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "depth_m": ("depth.png",),
    "normals": ("normals.png",),
    "albedo": ("albedo.png",),
    "instance_ids": ("instances.png",),
    "weight": ("weight.png",),
    "edit": EDITED_PARTS,
}
"""The parts of a raw record that hold a field of a Sample."""

Buckets = Annotated[tuple[tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]], ...], Field(min_length=1)]
"""(height, width) of the sizes that images may be brought to, in pixels."""

Sizes = int | Sequence[tuple[int, int]]
"""The side of a square in pixels, or the (height, width) of several buckets."""


def nearest_size(height: int, width: int, sizes: Sizes) -> tuple[int, int]:
    """Return the (height, width) that an image is brought to: the bucket whose aspect is nearest to its own.

    Of several with the same aspect it is the one whose area is nearest; in ratios, and exact.
    """
    if isinstance(sizes, int):
        return sizes, sizes

    def apart(size: tuple[int, int]) -> tuple[Fraction, Fraction]:
        aspect = Fraction(size[1] * height, size[0] * width)
        area = Fraction(size[0] * size[1], height * width)
        return max(aspect, 1 / aspect), max(area, 1 / area)

    return min(sizes, key=apart)


def parts_of(task: str) -> tuple[str, ...]:
    """Name the parts of a raw record that a draw for `task` reads: decoding the others would be most of its time."""
    return ("json", *IMAGE_PARTS, *(part for field in find_task(task).fields for part in _PARTS_OF[field]))


def parse_sample_for(task: str, key: str, parts: Mapping[str, bytes]) -> Sample:
    """Rebuild as much of a Sample as `task` needs, from at least `parts_of(task)`."""
    needed = parts_of(task)
    sample = parse_sample(key, {name: data for name, data in parts.items() if name in needed})
    return sample if "instances.png" in needed else dataclasses.replace(sample, instances=())


def draw_rng(seed: int, key: str, task: str, epoch: int) -> np.random.Generator:
    """Return the generator of one draw: a function of (seed, key, task, epoch) and nothing else."""
    name = hashlib.sha256(f"{seed}/{key}/{task}/{epoch}".encode()).digest()
    return np.random.default_rng(np.frombuffer(name, np.uint32))


def draw_example(
    sample: Sample,
    task: str,
    seed: int,
    epoch: int,
    sizes: Sizes,
    negatives: float = 0.1,
    colormaps: Mapping[str, float] | None = None,
) -> Example:
    """Make the example of a sample for a task in an epoch, at a size of `sizes`; resized before it is encoded.

    Args:
        sizes: side of the image in pixels, or buckets (see `nearest_size`).
        negatives: how often a prompt asks for what is not there, where that is known (see `make_example`).
        colormaps: share of depth answers in each colour map; None: a quarter in any (see `make_example`).

    The example's key is `SAMPLE.TASK.EPOCH`, and its spec says under `origin` where the image is from.

    Raises:
        InputError: the sample cannot serve the task.
    """
    sample = resize_sample(sample, *nearest_size(sample.image.shape[0], sample.image.shape[1], sizes))
    example = make_example(sample, task, draw_rng(seed, sample.key, task, epoch), negatives, colormaps)
    spec = {**example.spec, "origin": Origin.of_sample(sample).as_dict()}
    return dataclasses.replace(example, key=f"{sample.key}.{task}.{epoch}", spec=spec)
