"""The proof of docs/proof.md: its configuration, its questions and its summary; the page says what was measured."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.proof import (
    ProofConfig,
    Tuning,
    mixture_of,
    run_base,
    run_tuning,
    scored,
    tunings,
)
from benchmarks.proof_data import freeze_legends, semantic_questions
from benchmarks.proof_page import best_guess, retention_table, spread, vision_table
from cavendish.encoders.codecs.semantic import encode_semantic
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.mixing.mixture.config import ratio_bends
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.place import read_json
from tests.trainer.scenes import analytic_sample

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples/tiny.yaml"
LEGEND = {"floor": (0, 128, 0), "wall": (220, 40, 40), "object": (255, 215, 0)}


def test_every_tuning_differs_in_its_share_of_vision_alone() -> None:
    config = read_config(ProofConfig, CONFIG)
    assert len(tunings(config)) == (len(config.ratios) + 1) * len(config.seeds)
    for tuning in tunings(config):
        shares, _ = ratio_bends(mixture_of(config, tuning.ratio, tuning.arm == "fixed legend", tuning.seed))
        at_start = {kind: bends[0] for kind, bends in shares.items()}
        assert at_start.get("vision", 0) == Fraction(str(tuning.ratio))
        rest = 1 - Fraction(str(tuning.ratio))
        assert at_start.get("editing", 0) == rest * Fraction(str(config.editing))
    assert len({tuning.folder for tuning in tunings(config)}) == len(tunings(config))


def test_testing_on_the_training_rooms_is_refused() -> None:
    with pytest.raises(InputError, match="the same rooms"):
        read_config(ProofConfig, CONFIG, ["held_out_scenes.seed=11"])


def test_answers_in_learnt_colours_score_only_when_these_are_asked_for() -> None:
    samples = [analytic_sample(f"scene-{k}", k, 32) for k in range(6)]
    asked = {fixed: semantic_questions(samples, list(LEGEND), LEGEND if fixed else None) for fixed in (True, False)}
    for questions in asked.values():
        truth = [example.target for example in questions.examples]
        assert scored(questions, truth, {})["prediction"] == {"miou": 1.0, "pixel_accuracy": 1.0}
    by_rote = []
    for sample in samples:
        names = {instance.id: "object" if instance.is_thing else instance.category for instance in sample.instances}
        labels = np.vectorize(lambda i, names=names: list(LEGEND).index(names[i]))(sample.instance_ids)
        by_rote.append(encode_semantic(labels, LEGEND))
    assert scored(asked[True], by_rote, {})["prediction"]["miou"] == 1.0
    assert scored(asked[False], by_rote, {})["prediction"]["miou"] < 0.5


def made_up() -> dict[str, Any]:
    def measured(value: float) -> dict[str, Any]:
        tasks = {task: {"loss_ratio": value} for task in ("generate", "edit")}
        psnr = {who: {"all_pixels": 20 + value, "changed_pixels": 10.0} for who in ("tuned", "base", "identity")}
        return {
            "depth": {"abs_rel": value, "delta1": 1 - value},
            "normals": {"mean_deg": 10 * value},
            "semantic, fixed legend": {"miou": value},
            "semantic, other colours": {"miou": value / 2},
            "retention": {"tasks": tasks, "edit_psnr_db": psnr},
        }

    def run(arm: str, seed: int, value: float) -> dict[str, Any]:
        examples = {"depth": 3, "semantic": 5, "edit": 90}
        return {"arm": arm, "seed": seed, "cpu_s": 1800, "examples": examples, "measured": measured(value)}

    guess = {name: dict.fromkeys(metrics, 0.5) for name, metrics in measured(0).items() if name != "retention"}
    better = copy.deepcopy(guess)
    better["depth"]["abs_rel"] = better["semantic, fixed legend"]["miou"] = 0.4
    return {
        "config": {"fixed_legend_ratio": 0.5},
        "guesses": {name: {"a": guess[name], "b": better[name]} for name in guess},
        "base": {"cpu_s": 1800, "measured": measured(0.9)},
        "tuned": [run("0.5", 1, 0.4), run("0.5", 0, 0.2), run("0.5", 2, 0.3), run("fixed legend", 0, 0.1)],
    }


def test_mean_and_spread_over_seeds() -> None:
    assert spread([0.2, 0.4, 0.3]) == pytest.approx((0.3, 0.1))
    assert spread([7.0]) == (7.0, 0.0)
    rows = vision_table(made_up()).splitlines()
    assert rows[4] == "| 50 % | 8 | 0.300 ± 0.100 | 0.700 ± 0.100 | 3.0 ± 1.0 | 0.300 ± 0.100 | 0.150 ± 0.050 |"
    assert rows[5].startswith("| 50 %, one legend | 8 | 0.100 ± 0.000 |")
    assert "| 50 % | 0.30 ± 0.10 | 0.30 ± 0.10 | 20.3 ± 0.1 | 10.0 ± 0.0 |" in retention_table(made_up())


def test_the_best_blind_guess_is_the_lowest_error_and_the_highest_score() -> None:
    assert best_guess(made_up(), "depth", "abs_rel") == 0.4
    assert best_guess(made_up(), "semantic, fixed legend", "miou") == 0.5


def test_a_finished_tuning_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.proof.time.process_time", lambda: 0.0)
    for name, scenes in (("training", range(6)), ("heldout", range(6, 10))):
        plan = Plan("analytic", 1, {"scenes": list(scenes)})
        start_dataset(tmp_path / "raw" / name, plan)
        with ShardWriter(tmp_path / "raw" / name, 0, plan.digest) as writer:
            for k in scenes:
                writer.add(analytic_sample(f"scene-{k}", k, 32))
        finish_dataset(tmp_path / "raw" / name, plan)
    small = ["size=32", "generator.width=16", "base.steps=2", "tuning.steps=3", "tuning.batch=8", "base.batch=4"]
    config = read_config(ProofConfig, CONFIG, small)
    freeze_legends(tmp_path / "raw/training", tmp_path / "legends/fixed", list(config.classes), 2, config.legend)
    run_base(config, tmp_path, "identity")
    tuning = Tuning("fixed legend", 0.5, 0)
    first = run_tuning(config, tmp_path, tuning, "identity")
    assert sum(first["examples"].values()) == 24
    assert first["examples"]["semantic"] in (7, 8)  # three of five of the half that is vision
    weights = (tmp_path / tuning.folder / "generator/weights.pt").stat().st_mtime_ns
    assert run_tuning(config, tmp_path, tuning, "identity") == first
    assert (tmp_path / tuning.folder / "generator/weights.pt").stat().st_mtime_ns == weights


def test_the_page_shows_the_committed_figures() -> None:
    results = read_json(ROOT / "docs/proof.json", "the results of the proof")
    page = (ROOT / "docs/proof.md").read_text()
    assert vision_table(results) in page
    assert retention_table(results) in page
    config = read_config(ProofConfig, CONFIG)
    assert {(run["arm"], run["seed"]) for run in results["tuned"]} == {(t.arm, t.seed) for t in tunings(config)}
    assert says(results["config"], yaml.safe_load(CONFIG.read_text()))


def says(resolved: Any, written: Any) -> bool:
    """Whether a resolved configuration has every value that is written; it may have keys that are not."""
    if isinstance(written, dict):
        return all(says(resolved[key], value) for key, value in written.items())
    return bool(np.array_equal(resolved, written))
