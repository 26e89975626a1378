"""One draw: a sample, a task and an epoch make one example, on the fly and in frozen shards alike."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from encoders.instructions import make_example

from encoders.augment import resize_sample
from encoders.sample import Example, Sample

PARTS_OF = {
    "generate": ("json", "image.png"),
    "edit": ("json", "image.png", "edited.png"),
}
"""Tasks that need only some parts of a sample; the others read them all."""


def draw_rng(seed: int, key: str, task: str, epoch: int) -> np.random.Generator:
    """Return the generator of one draw: a function of (seed, key, task, epoch) and nothing else."""
    name = hashlib.sha256(f"{seed}/{key}/{task}/{epoch}".encode()).digest()
    return np.random.default_rng(np.frombuffer(name, np.uint32))


def draw_example(sample: Sample, task: str, seed: int, epoch: int, size: int) -> Example:
    """Make the example of a sample for a task in an epoch, at size x size pixels; resized before it is encoded.

    The example's key is `SAMPLE.TASK.EPOCH`, and its spec says under `origin` where the picture is from.

    Raises:
        InputError: the sample cannot serve the task.
    """
    if sample.image.shape[:2] != (size, size):
        sample = resize_sample(sample, size, size)
    example = make_example(sample, task, draw_rng(seed, sample.key, task, epoch))
    origin = {"key": sample.key, "source": sample.source, "licence": sample.licence}
    return dataclasses.replace(example, key=f"{sample.key}.{task}.{epoch}", spec={**example.spec, "origin": origin})
