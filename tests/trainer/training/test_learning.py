"""The whole trainer learns: what it draws is decoded and measured. Minutes, not seconds."""

from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.codecs.depth import decode_depth
from cavendish.encoders.codecs.normals import decode_normals
from cavendish.encoders.codecs.semantic import decode_semantic
from cavendish.trainer.evaluation.metrics.depth import depth_metrics
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.generators.tiny import TinyConfig
from cavendish.trainer.inference.sampler import predict_examples
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.train import train_on
from tests.trainer.evaluation.test_retention import measure_retention
from tests.trainer.items import FakeItems, example_of, semantic_labels
from tests.trainer.scenes import analytic_sample


def config_of(**values: object) -> TrainConfig:
    shape = {} if "base" in values else {"generator": TinyConfig(width=32)}
    fixed = {"lock": Path("none"), "batch": 16, "warmup_steps": 20, "threads": 1, "workers": 0}
    return TrainConfig.model_validate({**fixed, **shape, **values})


def answers(generator: Generator, scenes: range, task: str) -> list[tuple]:
    """Return (sample, example, answer) for each scene."""
    samples = [analytic_sample(f"scene-{k}", k) for k in scenes]
    examples = [example_of(sample, task, np.random.default_rng([12, k])) for k, sample in zip(scenes, samples)]
    return list(zip(samples, examples, predict_examples(generator, examples, steps=4, seed=0)))


def degrees_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((one * other).sum(-1), -1, 1)))


def mean_iou(found: np.ndarray, truth: np.ndarray) -> float:
    classes = np.unique(truth)
    return float(np.mean([((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in classes]))


@pytest.mark.slow
def test_four_scenes_are_learnt_by_heart(tmp_path: Path) -> None:
    items = FakeItems(range(4), {"depth": 1, "normals": 1, "semantic": 1, "edit": 1}, legend_per_item=False)
    result = train_on(items, "overfit", config_of(steps=400), tmp_path, tmp_path)
    generator = load_generator(result.generator)
    depth = answers(generator, range(4), "depth")
    abs_rel = np.mean([depth_metrics(decode_depth(rgb).depth_m, s.depth_m)["abs_rel"] for s, _, rgb in depth])
    assert abs_rel < 0.05
    normals = answers(generator, range(4), "normals")
    assert np.mean([degrees_between(decode_normals(rgb), s.normals).mean() for s, _, rgb in normals]) < 8
    semantic = answers(generator, range(4), "semantic")
    scores = [
        mean_iou(
            decode_semantic(rgb, example.spec["legend"], example.spec["background"]),
            semantic_labels(sample, example.spec["names"]),
        )
        for sample, example, rgb in semantic
    ]
    assert np.mean(scores) > 0.9
    edits = answers(generator, range(4), "edit")
    error = np.mean([((rgb.astype(float) - example.target) ** 2).mean() for _, example, rgb in edits])
    identity = np.mean([((sample.image.astype(float) - example.target) ** 2).mean() for sample, example, _ in edits])
    assert error < identity / 4  # 6 dB better than handing the picture back


@pytest.mark.slow
def test_a_mixture_keeps_generation_and_vision_alone_loses_it(tmp_path: Path) -> None:
    generation = {"generate": 1.0, "edit": 1.0}
    vision = {"depth": 1.0, "normals": 1.0}
    base = train_on(FakeItems(range(24), generation), "base", config_of(steps=250), tmp_path / "base", tmp_path)
    held_out = FakeItems(range(1000, 1012), generation)
    examples = [held_out[i].example for i in range(24)]
    ratios = {}
    for name, weights in {"mix": {**generation, **vision}, "alone": vision}.items():
        config = config_of(base="base/generator", steps=80, learning_rate=2e-3)
        tuned = train_on(FakeItems(range(24), weights), name, config, tmp_path / name, tmp_path)
        result = measure_retention(load_generator(tuned.generator), load_generator(base.generator), examples)
        ratios[name] = result["tasks"]["generate"]["loss_ratio"]
    assert ratios["alone"] > 3 * ratios["mix"]
    assert ratios["mix"] < 1.5
