import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from cavendish.encoders.sample import Example, InputError
from cavendish.trainer.evaluation.retention import (
    LEVELS,
    compare_figures,
    frechet_distance,
    kernel_distance,
    layout_features,
    measure_figures,
    picture_distances,
)
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from cavendish.trainer.loss import make_batch
from tests.trainer.items import FakeItems
from tests.trainer.oracles import Oracle, knows, spec_of

ITEMS = FakeItems(range(5), {"generate": 1, "edit": 1}, size=16)
EXAMPLES = [ITEMS[i].example for i in range(12)]


def offset(error: float) -> Oracle:
    """Knows a black picture up to `error`."""
    return Oracle(spec_of("x"), lambda noisy, s: torch.full_like(noisy, -1.0 + error))


def black(key: str, source: int | None = None) -> Example:
    picture = np.zeros((16, 16, 3), np.uint8)
    if source is None:
        return Example(f"{key}.generate", "generate", "night", None, picture, {})
    before = picture.copy()
    before[:4] = source
    return Example(f"{key}.edit", "edit", "switch it off", before, picture, {})


def measure_retention(
    tuned: Generator, base: Generator, examples: Sequence[Example], batch_size: int = 32
) -> dict[str, Any]:
    figures = [measure_figures(each, examples, 0, 4, batch_size) for each in (tuned, base)]
    return compare_figures(figures[0], figures[1], 0)


def test_a_generator_retains_itself_exactly() -> None:
    generator = TinyGenerator(TinyConfig(width=16, text_width=16), seed=0)
    result = measure_retention(generator, generator, EXAMPLES)
    for task in ("generate", "edit"):
        assert result["tasks"][task]["loss_ratio"] == 1
        assert result["tasks"][task]["loss_ratio_interval"] == [1, 1]
        assert [level["ratio"] for level in result["tasks"][task]["levels"]] == [1] * len(LEVELS)
    assert result["edit_psnr_db"]["tuned"] == result["edit_psnr_db"]["base"]
    json.dumps(result, allow_nan=False)


def test_the_ratio_is_that_of_the_losses() -> None:
    examples = [black(f"k{i}") for i in range(5)]
    result = measure_retention(offset(0.3), offset(0.1), examples, batch_size=2)
    night = result["tasks"]["generate"]
    assert night["examples"] == 5
    assert night["loss_ratio"] == pytest.approx(9, rel=1e-4)
    assert night["loss_ratio_interval"] == pytest.approx([9, 9], rel=1e-4)
    for level in night["levels"]:
        assert level["base"] == pytest.approx(0.01, rel=1e-4)
        assert level["tuned"] == pytest.approx(0.09, rel=1e-4)
    assert "edit_psnr_db" not in result


def test_psnr_of_edits_beside_handing_the_source_back() -> None:
    result = measure_retention(offset(20 / 127.5), offset(2 / 127.5), [black("k", source=100)])["edit_psnr_db"]
    db = lambda error: 10 * np.log10(255**2 / error)
    assert result["tuned"] == pytest.approx({"all_pixels": db(20**2), "changed_pixels": db(20**2)})
    assert result["identity"] == pytest.approx({"all_pixels": db(100**2 / 4), "changed_pixels": db(100**2)})
    assert result["base"] == pytest.approx({"all_pixels": db(4), "changed_pixels": db(4)})


def test_both_models_meet_the_same_noise_whatever_the_batch() -> None:
    seen: dict[int, list[torch.Tensor]] = {3: [], 12: []}

    for size, noisy_seen in seen.items():

        def watch(noisy: torch.Tensor, s: torch.Tensor, into: list[torch.Tensor] = noisy_seen) -> torch.Tensor:
            into.extend(noisy)
            return torch.zeros_like(noisy)

        generates = [e for e in EXAMPLES if e.task == "generate"]
        measure_retention(Oracle(spec_of("x"), watch), Oracle(spec_of("x"), watch), generates, batch_size=size)
    key = lambda picture: picture.flatten().tolist()
    assert sorted(map(key, seen[3])) == sorted(map(key, seen[12]))
    half = len(seen[12]) // 2
    assert sorted(map(key, seen[12][:half])) == sorted(map(key, seen[12][half:]))


def test_only_generation_and_editing_count() -> None:
    oracle = knows(make_batch(offset(0), EXAMPLES[:1]).clean_BCHW, "x")
    with pytest.raises(InputError, match="got none"):
        measure_retention(oracle, oracle, [])
    depth = FakeItems(range(1), {"depth": 1}, size=16)[0].example
    with pytest.raises(InputError, match="got depth"):
        measure_retention(oracle, oracle, [*EXAMPLES, depth])


@pytest.fixture
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (300, 12)), rng.normal(0.3, 1.4, (260, 12)) @ rng.normal(0, 0.5, (12, 12))


def test_frechet_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    moments = [torch.from_numpy(value) for rows in features for value in (rows.mean(0), np.cov(rows, rowvar=False))]
    assert frechet_distance(*features) == pytest.approx(float(_compute_fid(*moments)), rel=1e-6)


def test_frechet_of_one_column_is_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(2, 3, (50_000, 1)), rng.normal(-1, 0.5, (50_000, 1))
    assert frechet_distance(one, other) == pytest.approx(3**2 + 2.5**2, rel=0.03)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_kernel_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (torch.from_numpy(rows) for rows in features)
    gamma = 1 / one.shape[1]
    k = [(gamma * a @ b.T + 1) ** 3 for a, b in ((one[:260], one[:260]), (one[:260], other), (other, other))]
    from torchmetrics.image.kid import maximum_mean_discrepancy

    assert kernel_distance(features[0][:260], features[1]) == pytest.approx(
        float(maximum_mean_discrepancy(*k)), rel=1e-9
    )
    assert poly_mmd(one[:260], other) > 0


def test_equal_sets_are_near_and_others_far() -> None:
    rng = np.random.default_rng(0)
    dark, dark_too = (rng.integers(0, 90, (60, 40, 50, 3), dtype=np.uint8) for _ in range(2))
    light = rng.integers(150, 255, (60, 40, 50, 3), dtype=np.uint8)
    assert layout_features(dark).shape == (60, 256)
    near, far = picture_distances(dark, dark_too), picture_distances(dark, light)
    assert far["frechet"] > 100 * near["frechet"]
    assert abs(near["kernel"]) < 1e-3 < far["kernel"]
    with pytest.raises(InputError, match="shapes"):
        kernel_distance(np.zeros((1, 3)), np.zeros((4, 3)))
