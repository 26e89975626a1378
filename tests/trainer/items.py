"""Endless items over a few analytic scenes, with plain prompts: what the trainer needs of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.codecs.palettes import COLOR_NAMES
from cavendish.encoders.codecs.semantic import encode_semantic
from cavendish.encoders.sample import Example, Rejection, Sample
from cavendish.encoders.tasks.task import Kind
from tests.trainer.scenes import analytic_sample

KINDS: Mapping[str, Kind] = {"generate": "generation", "edit": "editing"}


@dataclass(frozen=True)
class FakeItem:
    example: Example
    source: str
    kind: Kind
    index: int
    replaced: tuple[Rejection, ...] = ()


def semantic_labels(sample: Sample, categories: list[str]) -> np.ndarray:
    """Positions in `categories`, -1 elsewhere."""
    labels = np.full(sample.image.shape[:2], -1)
    for instance in sample.instances:
        if instance.category in categories:
            labels[sample.instance_ids == instance.id] = categories.index(instance.category)
    return labels


def example_of(sample: Sample, task: str, rng: np.random.Generator) -> Example:
    """The example of a task; only "semantic" draws anything, its legend."""
    assert sample.depth_m is not None
    assert sample.normals is not None
    assert sample.edit is not None
    if task == "semantic":
        names = ["ball", "box"]
        words = [str(word) for word in rng.choice(sorted(COLOR_NAMES), 3, replace=False)]
        legend = {name: COLOR_NAMES[word] for name, word in zip(names, words)}
        target = encode_semantic(semantic_labels(sample, names), legend, COLOR_NAMES[words[2]])
        prompt = f"ball: {words[0]}, box: {words[1]}, everything else: {words[2]}"
        spec = {"legend": legend, "background": COLOR_NAMES[words[2]], "names": names}
        return Example(f"{sample.key}.semantic", task, prompt, sample.image, target, spec)
    prompt, source, target = {
        "depth": ("metric depth as a cube walk", sample.image, encode_depth(sample.depth_m)),
        "normals": ("surface normals of the scene", sample.image, encode_normals(sample.normals)),
        "edit": (sample.edit.instruction, sample.image, sample.edit.image),
        "generate": (sample.captions[0], None, sample.image),
    }[task]
    return Example(f"{sample.key}.{task}", task, prompt, source, target, {})


@dataclass
class FakeItems:
    """Item i: a scene of `scenes` and a task of `weights`, both functions of i."""

    scenes: range
    weights: Mapping[str, float]
    size: int = 64
    legend_per_item: bool = True
    cache: dict[int, Sample] = field(default_factory=dict)

    def __getitem__(self, index: int) -> FakeItem:
        rng = np.random.default_rng([11, index])
        shares = np.array(list(self.weights.values()))
        task = str(rng.choice(list(self.weights), p=shares / shares.sum()))
        k = int(rng.choice(self.scenes))
        if k not in self.cache:
            self.cache[k] = analytic_sample(f"scene-{k}", k, self.size)
        if not self.legend_per_item:
            rng = np.random.default_rng([12, k])
        return FakeItem(example_of(self.cache[k], task, rng), "scenes", KINDS.get(task, "vision"), index)
