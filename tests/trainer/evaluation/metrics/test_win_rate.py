"""Win rates: ties are half, prompts weigh the same, the interval covers, sides are shuffled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.metrics.win_rate import Judgement, read_judgements, shuffle_sides, win_rate


def test_ties_are_half_and_repeated_prompts_do_not_weigh_more():
    judgements = [Judgement("p", "a")] * 10 + [Judgement("q", "b"), Judgement("r", "tie", "style")]
    result = win_rate(judgements, np.random.default_rng(0))
    assert result["win_rate"] == pytest.approx(0.5)
    assert (result["prompts"], result["wins"], result["ties"], result["losses"]) == (3, 10, 1, 1)
    assert result["groups"]["style"] == 0.5


def test_interval_is_that_of_a_proportion():
    judgements = [Judgement(str(i), "a" if i % 4 else "b") for i in range(400)]
    result = win_rate(judgements, np.random.default_rng(0))
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert result["low"] == pytest.approx(0.75 - half, abs=0.01)
    assert result["high"] == pytest.approx(0.75 + half, abs=0.01)


def test_sides_are_shuffled_and_every_item_is_shown_once():
    names = [f"{i:03d}" for i in range(400)]
    shown = shuffle_sides(names, np.random.default_rng(1))
    assert sorted(name for name, _ in shown) == names
    assert [name for name, _ in shown] != names
    assert 150 < sum(left for _, left in shown) < 250


def test_reading_judgements(tmp_path: Path):
    path = tmp_path / "judgements.jsonl"
    path.write_text('{"prompt": "1", "winner": "a"}\n\n{"prompt": "2", "winner": "tie", "group": "add"}\n')
    assert read_judgements(path) == [Judgement("1", "a"), Judgement("2", "tie", "add")]
    path.write_text('{"prompt": "1", "winner": "left"}\n')
    with pytest.raises(InputError, match="line 1: winner 'left'; write a, b or tie"):
        read_judgements(path)
    path.write_text("[]\n")
    with pytest.raises(InputError, match="line 1 is not a judgement"):
        read_judgements(path)
    with pytest.raises(InputError, match="no judgements"):
        win_rate([], np.random.default_rng(0))
