"""Accounting of inputs: found = written + rejected by name + left aside by reason. Nothing is dropped in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 8


@dataclass(frozen=True)
class LeftAside:
    """Inputs that were found and are no input of this job, by a reason without names, such as ".md: not an image"."""

    reason: str
    count: int = 1


@dataclass(frozen=True)
class Accounting:
    """What became of every input that a job found. It refuses counts that do not add up.

    An input is a file below a folder that is no sidecar of another, a member of a tar, a row of a table, an object of
    a json list or an image of a benchmark.

    Args:
        found: inputs, counted where they were listed.
        written: those that gave what the job makes.
        rejected: those that did not; each is named with its reason elsewhere.
        left_aside: the others, counted by reason.

    Raises:
        ValueError: an input is missing from the counts, or counted twice: a fault of the job.
    """

    found: int
    written: int
    rejected: int
    left_aside: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counted = self.written + self.rejected + sum(self.left_aside.values())
        if self.found != counted:
            raise ValueError(f"{self.found} inputs were found and {counted} are accounted for: {self.as_dict()}")

    def __str__(self) -> str:
        """One line, as every job prints it at its end."""
        aside = sum(self.left_aside.values())
        reasons = sorted(self.left_aside.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [f"{count:,} {reason}" for reason, count in reasons[:_SHOWN]]
        if len(reasons) > _SHOWN:
            shown.append(f"{sum(count for _, count in reasons[_SHOWN:]):,} for {len(reasons) - _SHOWN} other reasons")
        why = f" ({'; '.join(shown)})" if shown else ""
        return (
            f"found {self.found:,} = {self.written:,} written + {self.rejected:,} rejected + {aside:,} left aside{why}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the json-able form, as reports hold it under "inputs"."""
        left_aside = dict(sorted(self.left_aside.items()))
        return {"found": self.found, "written": self.written, "rejected": self.rejected, "left_aside": left_aside}

    @classmethod
    def of_totals(cls, totals: Mapping[str, Any]) -> Accounting:
        """Read the accounting of a finished directory of shards out of the totals of its dataset.json."""
        return cls(totals["found"], totals["records"], totals["rejected"], totals["left_aside"])


def kind_of(reason: str) -> str:
    """Return what a rejection has in common with others of its kind: its reason without the try and the details."""
    return re.sub(r"^attempt \d+: ", "", reason).partition(":")[0]


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by name, sorted by name."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
