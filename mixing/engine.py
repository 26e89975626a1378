"""Where a job runs and what came of it; importing this does not import Beam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class JobFailed(RuntimeError):
    """A job ended before its plan was complete; the message names the shards that are missing."""


@dataclass(frozen=True)
class Engine:
    """Where a job runs.

    Args:
        workers: processes on this machine; 1 runs in this process.
        runner: a Beam runner; "FnApiRunner" is the embedded one.
        split: (i, n): do only the shards i, i + n, ... (a job array without an engine).
        stall_timeout_s: give up when no shard was committed for so long.
        options: further Beam options, as on its command line.
    """

    workers: int = 1
    runner: str = "FnApiRunner"
    split: tuple[int, int] = (0, 1)
    stall_timeout_s: float = 1800.0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobResult:
    """What a run did: shards that were there already, shards it made, and the totals when the plan is complete."""

    already: int
    made: int
    totals: dict[str, Any] | None


Progress = Callable[[int, int], None]
"""Told (committed, planned) as shards are committed."""
