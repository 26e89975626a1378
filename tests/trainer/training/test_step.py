"""A step over buckets: exactly the batch, whatever the sizes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.augment import resize_sample
from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.sample import InputError
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.draw import draw_example, nearest_size
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.trainer.parallel import init_distributed
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.dry_run import dry_run
from cavendish.trainer.training.run import Run
from cavendish.trainer.training.step import split_passes, train_step
from cavendish.trainer.training.train import open_mixture, train, train_on
from tests.conftest import tiny_sample
from tests.shard_folder import write_shards
from tests.trainer.items import FakeItem, FakeItems
from tests.trainer.training.test_train import ITEMS, Interrupted, changed, stop_at

BUCKETS = ((16, 16), (24, 16), (16, 32))


@given(st.lists(st.sampled_from(BUCKETS), min_size=1, max_size=40), st.integers(1, 40))
def test_passes_hold_every_place_once_and_one_size_each(sizes: list[tuple[int, int]], most: int) -> None:
    passes = split_passes(sizes, most)
    assert sorted(place for places in passes for place in places) == list(range(len(sizes)))
    for places in passes:
        assert len({sizes[place] for place in places}) == 1
        assert 1 <= len(places) <= most
    assert len(passes) == sum(math.ceil(sizes.count(size) / most) for size in set(sizes))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_picture_goes_to_the_nearest_aspect_then_the_nearest_area(height: int, width: int) -> None:
    sizes = ((64, 64), (48, 80), (80, 48), (128, 128))
    chosen = nearest_size(height, width, sizes)

    def distance(size: tuple[int, int]) -> float:
        return abs(math.log(size[1] / size[0]) - math.log(width / height))

    assert distance(chosen) <= min(map(distance, sizes)) + 1e-9
    if chosen in ((64, 64), (128, 128)):
        assert chosen == ((64, 64) if height * width <= 64 * 128 else (128, 128))
    assert nearest_size(height, width, 32) == (32, 32)


def test_an_example_of_a_bucket_is_encoded_from_the_resized_arrays() -> None:
    sample = tiny_sample(size=48)
    wide = resize_sample(sample, 30, 48)
    example = draw_example(wide, "depth", 0, 0, BUCKETS, colormaps={})
    assert example.target.shape[:2] == (16, 32)
    exact = resize_sample(wide, 16, 32)
    assert exact.depth_m is not None
    np.testing.assert_array_equal(example.target, encode_depth(exact.depth_m))
    np.testing.assert_array_equal(example.source, exact.image)


class Mixed:
    """Items of several sizes."""

    group_by_size = tuple(FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=size) for size in (16, 24))

    def __getitem__(self, index: int) -> FakeItem:
        return self.group_by_size[index % 3 == 0][index]


def gradients(items: object, config: TrainConfig, folder: Path) -> dict[str, torch.Tensor]:
    with init_distributed("none", "cpu") as process:
        run = Run(config, folder, process)
        train_step(run, [items[i] for i in range(config.batch)], config)  # type: ignore[index]
    return {name: p.grad for name, p in run.parameters.items() if p.grad is not None}


def test_the_gradient_of_a_step_over_buckets_is_the_mean_of_those_of_its_examples(tmp_path: Path) -> None:
    config = changed(batch=6, buckets=BUCKETS, clip_norm=1e9)
    whole = gradients(Mixed(), config, tmp_path)
    parts = gradients(Mixed(), changed(batch=6, buckets=BUCKETS, clip_norm=1e9, accumulate=6), tmp_path)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-4)


def test_over_buckets_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    config = changed(batch=6, buckets=BUCKETS, steps=15, checkpoint_every=5)
    whole = train_on(Mixed(), "lock", config, tmp_path / "whole", tmp_path)
    with pytest.raises(Interrupted):
        train_on(Mixed(), "lock", config, tmp_path / "cut", tmp_path, stop_at(8))
    train_on(Mixed(), "lock", config, tmp_path / "cut", tmp_path)
    for name in ("generator/weights.pt", "loss.csv", "train.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert whole.examples == 90


def locked_sizes(data: Path) -> None:
    """Raw shards of squares, tall and wide pictures, and a mixture of them."""
    sizes = [(48, 48), (40, 26), (30, 64), (64, 64), (24, 50)]
    scenes = (tiny_sample(f"scene-{k}", size=64, seed=k) for k in range(len(sizes)))
    write_shards(data / "raw", (resize_sample(scene, *size) for scene, size in zip(scenes, sizes)))
    sources = {"scenes": {"path": "raw", "tasks": {"generate": 1, "edit": 1, "depth": 1}}}
    mixture = Mixture.model_validate({"ratios": {"vision": "1/3", "editing": "rest"}, "sources": sources})
    write_lock(data / "mixture.lock", lock_mixture(mixture, data))


def test_buckets_of_a_mixture_hold_what_the_schedule_deals_and_nothing_else(tmp_path: Path) -> None:
    locked_sizes(tmp_path)
    config = changed(buckets=BUCKETS, steps=10, checkpoint_every=10, batch=6)
    result = train(config, tmp_path / "run", tmp_path)
    lock, items = open_mixture(config, tmp_path / "run", tmp_path)
    square = MixtureDataset(lock, tmp_path, 16)
    counts: dict[str, int] = {}
    found = set()
    for index in range(60):
        item, other = items[index], square[index]
        assert (item.source, item.example.key, item.example.task) == (
            other.source,
            other.example.key,
            other.example.task,
        )
        counts[item.example.task] = counts.get(item.example.task, 0) + 1
        found.add(item.example.target.shape[:2])
    assert result.counts == {"scenes": counts}
    assert found == set(BUCKETS)


def test_a_bucket_that_the_generator_cannot_draw_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"buckets: 20x16 .*multiples of 8"):
        train_on(ITEMS, "lock", changed(buckets=[[16, 16], [20, 16]]), tmp_path / "run", tmp_path)
    with pytest.raises(ValueError, match="twice"):
        changed(buckets=[[16, 16], [16, 16]])


def test_a_dry_run_shows_every_size(tmp_path: Path) -> None:
    found = dry_run(Mixed(), changed(batch=6, buckets=BUCKETS), tmp_path / "out", tmp_path)
    assert found.bytes_of["activations"] > 0
    assert found.picture.exists()
