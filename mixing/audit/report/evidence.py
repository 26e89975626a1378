"""All that a report is a function of: the plan, what the scan found, what is excluded and what a reviewer decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.plan import ScanPlan
from cavendish.mixing.storage.place import read_json

DECISIONS_SCHEMA = "cavendish-audit-decisions/1"
_MAX_TEXT = 2000


@dataclass(frozen=True)
class Decisions:
    """A reviewer's decisions: finding id to "confirm" or "dismiss", notes by finding id, and the reviewer's name."""

    by_id: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    reviewer: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that a report is a function of.

    Args:
        plan: what was compared with what.
        results: the json of every scanned element.
        uncommitted: planned shards that are not there, by directory.
        excluded: keys that the mixture leaves out.
        decisions: a reviewer's.
    """

    plan: ScanPlan
    results: tuple[dict[str, Any], ...]
    uncommitted: Mapping[str, int]
    excluded: frozenset[str]
    decisions: Decisions

    @property
    def missing(self) -> dict[str, list[str]]:
        """Why a benchmark, or a part of it, is not there: name to reasons."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.plan.missing:
            reasons.setdefault(name, []).append(reason)
        return reasons

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the results of one kind of element."""
        return [result for result in self.results if result["kind"] == kind]


def read_decisions(name: str | None, data: Path) -> Decisions:
    """Read the decisions a reviewer saved from the page.

    Raises:
        InputError: not such a file.
    """
    if name is None:
        return Decisions()
    values = read_json(data / name, "a reviewer's decisions")
    if not isinstance(values, dict) or values.get("schema") != DECISIONS_SCHEMA:
        raise InputError(f"{data / name}: not a {DECISIONS_SCHEMA} file")
    decisions = values.get("decisions")
    if not isinstance(decisions, dict) or not all(value in ("confirm", "dismiss") for value in decisions.values()):
        raise InputError(f"{data / name}: `decisions` must map finding ids to confirm or dismiss")
    notes, reviewer = values.get("notes", {}), values.get("reviewer", "")
    texts = [*notes.values(), reviewer] if isinstance(notes, dict) else [None]
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts):
        raise InputError(f"{data / name}: `notes` and `reviewer` must be texts of at most {_MAX_TEXT} letters")
    return Decisions(decisions, notes, reviewer)
