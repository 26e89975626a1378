"""Settings of a mixture that decide how an example is drawn."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from cavendish.encoders.augment import resize_sample
from cavendish.encoders.tasks.depth import COLORMAP_PROBABILITY
from cavendish.mixing.mixture.draw import draw_example, parse_sample_for
from cavendish.mixing.shards.sample_format import example_parts, parse_example, sample_parts
from tests.conftest import tiny_sample

SAMPLE = tiny_sample(size=16)


def codecs(count: int, **settings: object) -> Counter[str]:
    specs = (draw_example(SAMPLE, "depth", 5, epoch, 16, **settings).spec for epoch in range(count))  # type: ignore[arg-type]
    return Counter(str(spec["codec"]).partition("/")[0] for spec in specs)


def test_depth_is_drawn_in_colour_maps_as_often_as_asked() -> None:
    found = codecs(600, colormaps={"turbo": 0.5, "grey": 0.2})
    assert set(found) == {"turbo", "grey", "cube-walk"}
    assert abs(found["turbo"] / 600 - 0.5) < 0.07
    assert abs(found["grey"] / 600 - 0.2) < 0.05
    assert set(codecs(50, colormaps={})) == {"cube-walk"}
    assert set(codecs(50, colormaps={"plasma": 1.0})) == {"plasma"}


def test_without_a_setting_a_quarter_is_in_any_colour_map() -> None:
    found = codecs(600)
    assert abs(1 - found["cube-walk"] / 600 - COLORMAP_PROBABILITY) < 0.06
    assert len(found) == 6


@pytest.mark.parametrize("task", ["normals", "semantic", "generate", "edit", "referring"])
def test_colour_maps_change_no_other_task(task: str) -> None:
    one, other = (draw_example(SAMPLE, task, 5, 3, 16, colormaps=maps) for maps in (None, {"turbo": 1.0}))
    assert (one.prompt, one.spec) == (other.prompt, other.spec)
    assert (one.target == other.target).all()


def test_weights_go_with_the_tasks_whose_targets_they_are_about_and_through_shards() -> None:
    weight = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.float32) / 255
    sample = dataclasses.replace(tiny_sample(size=32), weight=weight)
    parts = sample_parts(sample)
    for task in ("depth", "normals", "semantic", "instance", "referring"):
        example = draw_example(parse_sample_for(task, sample.key, parts), task, 5, 0, 16)
        resized = resize_sample(sample, 16, 16)
        np.testing.assert_array_equal(example.weight, resized.weight)
        frozen = parse_example("key", example_parts(example))
        np.testing.assert_array_equal(frozen.weight, example.weight)
        plain = draw_example(dataclasses.replace(sample, weight=None), task, 5, 0, 16)
        assert plain.weight is None
        assert (plain.prompt, plain.spec) == (example.prompt, example.spec)
        assert "weight.png" not in example_parts(plain)
    for task in ("generate", "edit"):
        assert draw_example(parse_sample_for(task, sample.key, parts), task, 5, 0, 16).weight is None
