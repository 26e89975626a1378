"""Win rate: people or a model compare the pictures of two generators, prompt by prompt.

The protocol: the same prompt and seed for both generators, the two pictures shown side by side with the sides shuffled,
an answer "a", "b" or "tie". A tie is half a win. The interval is a bootstrap over prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cavendish.encoders.sample import InputError

PROTOCOL = "win-rate/1;paired prompt and seed;sides shuffled;tie=.5;bootstrap over prompts"
_POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Judgement:
    """One answer: which of generator a's and b's pictures for a prompt is better. `group` is the kind of prompt."""

    prompt: str
    winner: str
    group: str = ""


def shuffle_sides(names: Sequence[str], rng: np.random.Generator) -> list[tuple[str, bool]]:
    """Return the items in a random order, each with whether generator a is shown on the left."""
    order = rng.permutation(len(names))
    left = rng.random(len(names)) < 0.5
    return [(names[int(i)], bool(left[int(i)])) for i in order]


def read_judgements(path: Path) -> list[Judgement]:
    """Read a json-lines file of {"prompt", "winner": "a" | "b" | "tie", "group" (optional)}.

    Raises:
        InputError: no such file, or a line that is not so.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (judgements, json lines)")
    judgements = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            judgement = Judgement(str(values["prompt"]), values["winner"], str(values.get("group", "")))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not a judgement: {error!r}") from None
        if judgement.winner not in _POINTS:
            raise InputError(f"{path}: line {number}: winner {judgement.winner!r}; write a, b or tie")
        judgements.append(judgement)
    return judgements


def win_rate(judgements: Sequence[Judgement], rng: np.random.Generator, draws: int = 2000) -> dict[str, Any]:
    """Return how often generator a wins against b.

    Several answers to one prompt are averaged first, so that a prompt weighs the same however often it was judged.

    Returns:
        protocol, prompts, judgements, win_rate in 0..1, low and high (its 95 % bootstrap interval), wins, ties,
        losses, and `groups` with the win rate of each kind of prompt.

    Raises:
        InputError: no judgement.
    """
    if not judgements:
        raise InputError("win rate: no judgements")
    by_prompt: dict[str, list[float]] = {}
    by_group: dict[str, list[float]] = {}
    for judgement in judgements:
        by_prompt.setdefault(judgement.prompt, []).append(_POINTS[judgement.winner])
        by_group.setdefault(judgement.group, []).append(_POINTS[judgement.winner])
    points = np.array([np.mean(values) for values in by_prompt.values()])
    means = [float(points[rng.integers(len(points), size=len(points))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, (0.025, 0.975))
    winners = [judgement.winner for judgement in judgements]
    return {
        "protocol": PROTOCOL,
        "prompts": len(points),
        "judgements": len(judgements),
        "win_rate": float(points.mean()),
        "low": float(low),
        "high": float(high),
        "wins": winners.count("a"),
        "ties": winners.count("tie"),
        "losses": winners.count("b"),
        "groups": {group: float(np.mean(values)) for group, values in sorted(by_group.items())},
    }
