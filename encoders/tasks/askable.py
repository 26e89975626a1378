"""What a sample can be asked for: the tasks it serves, its classes and its subject, and what is surely not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cavendish.encoders.expressions.programs import NO, category_match, scene_table
from cavendish.encoders.expressions.wording import describable
from cavendish.encoders.legends.categories import SALIENT_CATEGORIES, absent_categories, spoken
from cavendish.encoders.sample import TASKS, Instance, Sample

MAX_INSTANCES = 60
"""A class with more of them is not asked for one by one."""

MIN_KNOWN_SHARE = 0.5
"""Depth needs this share of pixels that are not NaN; normals a tenth that are not (0, 0, 0)."""


def tasks_of(sample: Sample) -> tuple[str, ...]:
    """Return which of TASKS this sample can serve, in the order of TASKS."""
    return tuple(task for task in TASKS if serves(sample, task))


def serves(sample: Sample, task: str) -> bool:
    """Tell whether this sample can serve a task."""
    return _SERVES[task](sample)


def present_instances(sample: Sample) -> list[Instance]:
    """Return the instances with at least one pixel."""
    if sample.instance_ids is None:
        return []
    pixels = np.bincount(sample.instance_ids.reshape(-1), minlength=65536)
    return [instance for instance in sample.instances if pixels[instance.id]]


def classes_of(sample: Sample) -> dict[str, tuple[int, ...]]:
    """Return class name to the ids of its visible instances."""
    classes: dict[str, tuple[int, ...]] = {}
    for instance in present_instances(sample):
        name = spoken(instance.category)
        classes[name] = (*classes.get(name, ()), instance.id)
    return classes


def countable_classes(sample: Sample) -> dict[str, tuple[int, ...]]:
    """Return the classes of things, without those another class of the picture could be meant by, to their ids."""
    things = {spoken(instance.category) for instance in sample.instances if instance.is_thing}
    everything = {spoken(instance.category) for instance in sample.instances}
    return {
        name: ids
        for name, ids in classes_of(sample).items()
        if name in things
        and len(ids) <= MAX_INSTANCES
        and all(category_match(name, other) == NO for other in everything - {name})
    }


def salient_instance(sample: Sample) -> Instance | None:
    """Return the one instance of a photo whose main subject is all that is known of it."""
    present = present_instances(sample)
    return present[0] if len(present) == 1 and present[0].category in SALIENT_CATEGORIES else None


def main_subject(sample: Sample) -> Instance | None:
    """Return the instance that facts["main_subject"] names."""
    named = sample.facts.get("main_subject")
    return next((instance for instance in present_instances(sample) if instance.id == named), None)


def complete_classes(sample: Sample) -> tuple[str, ...]:
    """Return the classes of which a sample that is not exhaustive has all."""
    return tuple(sample.facts.get("complete", ()))


def knows_absence(sample: Sample) -> bool:
    """Tell whether it is known of some class that it is not in the picture."""
    return sample.exhaustive or bool(sample.facts.get("absent"))


def draw_absent(sample: Sample, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw classes that are not in the picture: any of the vocabulary when every object is known, else such as the
    sample says are absent."""
    present = [instance.category for instance in sample.instances]
    if sample.exhaustive:
        return absent_categories(present, count, rng)
    named = [category for category in present if category not in SALIENT_CATEGORIES]
    return absent_categories(named, count, rng, sample.facts["absent"])


def _known_depth(sample: Sample) -> bool:
    depth_m = sample.depth_m
    return depth_m is not None and bool(
        (~np.isnan(depth_m)).mean() >= MIN_KNOWN_SHARE and np.isfinite(depth_m).mean() >= 0.01
    )


def _known_normals(sample: Sample) -> bool:
    return sample.normals is not None and bool(sample.normals.any(axis=-1).mean() >= 0.1)


_SERVES: Mapping[str, Callable[[Sample], bool]] = {
    "depth": _known_depth,
    "normals": _known_normals,
    "semantic": lambda sample: bool(present_instances(sample)),
    "instance": lambda sample: bool(countable_classes(sample)),
    "referring": lambda sample: (
        bool(salient_instance(sample) or main_subject(sample))
        or describable(scene_table(sample), sample.exhaustive, complete_classes(sample))
    ),
    "generate": lambda sample: any(caption.strip() for caption in sample.captions),
    "edit": lambda sample: sample.edit is not None and bool(sample.edit.instruction.strip()),
}
