"""Resolve ratios of a mixture to exact shares: they add up to one, floors under them, mixtures inside mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from cavendish.encoders.sample import InputError
from cavendish.mixing.mixture.round_ratios import Schedule, share_at

Bends = Mapping[int, Fraction]
"""A share at every index where it may bend; straight lines between."""

Ratio = Fraction | tuple[tuple[int, Fraction], ...] | Literal["rest"]


@dataclass(frozen=True)
class Floor:
    """A least share of the streams numbered `members` together: `share` of all examples, or `draws` in `examples`."""

    name: str
    members: tuple[int, ...]
    share: Fraction | None = None
    draws: int = 0
    examples: int = 0


def resolve_ratios(ratios: Mapping[str, Ratio]) -> dict[str, dict[int, Fraction]]:
    """Return every ratio at every step where any of them bends; they add up to 1 everywhere.

    Raises:
        ValueError: they do not, with what would.
    """
    rests = [name for name, ratio in ratios.items() if ratio == "rest"]
    if len(rests) > 1:
        raise ValueError(f"ratios: only one kind can be the rest, not {' and '.join(rests)}")
    given = {
        name: ratio if isinstance(ratio, tuple) else ((0, ratio),)
        for name, ratio in ratios.items()
        if not isinstance(ratio, str)
    }
    for name, points in given.items():
        if points[0][0] < 0 or any(after <= before for (before, _), (after, _) in pairwise(points)):
            raise ValueError(f"the steps of {name} must rise from 0 on")
    steps = sorted({0, *(step for points in given.values() for step, _ in points)})
    found = {name: {step: share_at(points, step) for step in steps} for name, points in given.items()}
    for step in steps:
        total = sum((at[step] for at in found.values()), Fraction(0))
        if total > 1 or (total < 1 and not rests):
            raise ValueError(_sum_problem(total, step, {name: at[step] for name, at in found.items()}))
    for name in rests:
        found[name] = {step: 1 - sum((at[step] for at in found.values()), Fraction(0)) for step in steps}
    return found


def _sum_problem(total: Fraction, step: int, ratios: Mapping[str, Fraction]) -> str:
    largest = max(ratios, key=lambda name: ratios[name])
    would = ratios[largest] + 1 - total
    fix = f"{largest} {float(would):g} would do" if would >= 0 else "scale them down"
    parts = " + ".join(f"{name} {float(ratio):g}" for name, ratio in ratios.items())
    return f"ratios at step {step} add up to {float(total):g} ({parts}), not 1: {fix}, or write one of them as rest"


def draws_in(share: Bends, examples: int) -> Fraction:
    """Return the exact number of draws that a share is due in the first `examples`."""
    points = tuple(share.items())
    return Schedule([points, tuple((index, 1 - value) for index, value in points)]).quota(0, examples)


def multiply(share: Bends, ratio: Bends, name: str) -> dict[int, Fraction]:
    """Return `share` of what has `ratio` of the stream, exactly.

    Raises:
        InputError: both bend over one stretch, so that their product is no straight line.
    """
    inner, outer = tuple(share.items()), tuple(ratio.items())
    indices = sorted({*share, *ratio})
    product = {index: share_at(inner, index) * share_at(outer, index) for index in indices}
    for before, after in pairwise(indices):
        if all(share_at(points, before) != share_at(points, after) for points in (inner, outer)):
            raise InputError(
                f"mixture: from example {before} to {after} both the ratio of {name} and ratios inside it change, and "
                "the product of two ramps is no straight line: keep one of them constant there"
            )
    return product


def raise_to_floors(
    shares: Sequence[Bends], kinds: Sequence[str], floors: Sequence[Floor], step: int
) -> list[dict[int, Fraction]]:
    """Raise streams to their floors, and scale down the others of the same kind to make room.

    A floor of several streams is divided among them as their shares are, so that each kind keeps its ratio at every
    index. A floor in draws is met by the run of that length.

    Args:
        shares: of each stream, all with the same bends.
        kinds: of each stream.
        step: examples in a step, for messages.

    Raises:
        InputError: the floors of a kind ask for more than it has, with what would be possible.
    """
    raised: list[dict[int, Fraction]] = [dict(share) for share in shares]
    if not floors:
        return raised
    totals = {
        floor.name: sum((draws_in(shares[k], floor.examples) for k in floor.members), Fraction(0))
        for floor in floors
        if floor.share is None
    }
    for index in shares[0]:
        natural = [share[index] for share in shares]
        least, asking = _least_shares(natural, floors, totals, index // step)
        for kind in dict.fromkeys(kinds):
            members = [k for k, other in enumerate(kinds) if other == kind]
            _check_room(kind, index // step, [(natural[k], least[k], asking[k]) for k in members])
            for k, share in zip(members, _fill([natural[k] for k in members], [least[k] for k in members])):
                raised[k][index] = share
    return raised


def _least_shares(
    natural: Sequence[Fraction], floors: Sequence[Floor], totals: Mapping[str, Fraction], step: int
) -> tuple[list[Fraction], list[str]]:
    """Return the least share of each stream at one index, and the name of the floor that asks for it."""
    least, asking = [Fraction(0)] * len(natural), [""] * len(natural)
    for floor in floors:
        together = sum((natural[k] for k in floor.members), Fraction(0))
        if floor.share is not None and together == 0 and floor.share > 0:
            raise InputError(
                f"mixture: floors: {floor.name} has a floor of {float(floor.share):g}, but no share at step {step}: "
                "let its kind's ratio begin above zero, or give the floor in draws"
            )
        factor = floor.draws / totals[floor.name] if floor.share is None else floor.share / (together or 1)
        for k in floor.members:
            if natural[k] * factor > least[k]:
                least[k], asking[k] = natural[k] * factor, floor.name
    return least, asking


def _check_room(kind: str, step: int, streams: Sequence[tuple[Fraction, Fraction, str]]) -> None:
    has = sum((natural for natural, _, _ in streams), Fraction(0))
    asked: dict[str, Fraction] = {}
    for _, least, name in streams:
        if name:
            asked[name] = asked.get(name, Fraction(0)) + least
    needs = sum(asked.values(), Fraction(0))
    if needs > has:
        parts = ", ".join(f"{name} {float(share):.4g}" for name, share in asked.items())
        would = ", ".join(f"{name} {float(share * has / needs):.4g}" for name, share in asked.items())
        raise InputError(
            f"mixture: at step {step} the floors of {kind} need {float(needs):.4g} of all examples ({parts}), but "
            f"{kind} has {float(has):.4g}. Possible: {kind} at {float(needs):.4g}, or floors of at most {would}"
        )


def _fill(natural: Sequence[Fraction], least: Sequence[Fraction]) -> list[Fraction]:
    """Scale shares to the same sum, none below its least."""
    total = sum(natural, Fraction(0))
    held: set[int] = set()
    while True:
        free = [k for k in range(len(natural)) if k not in held]
        room = sum((natural[k] for k in free), Fraction(0))
        scale = (total - sum((least[k] for k in held), Fraction(0))) / room if room else Fraction(0)
        below = {k for k in free if least[k] > scale * natural[k]}
        if not below:
            return [least[k] if k in held else scale * natural[k] for k in range(len(natural))]
        held |= below
