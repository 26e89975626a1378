"""Writes report.json, report.html and exclude.json: the same bytes for the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.report.page import render_page
from cavendish.mixing.audit.report.verdict import ABOUT_SOURCES, EXIT_CODES, Outcome, judge
from cavendish.mixing.storage.files import canonical_json, digest, write_atomic

EXCLUDE_SCHEMA = "cavendish-exclude/1"


@dataclass(frozen=True)
class Verdict:
    """The answer. `leaks` and `review` are open, `removed` under excluded keys; `incomplete` says what is missing."""

    outcome: Outcome
    leaks: int
    review: int
    removed: int
    dismissed: int
    incomplete: tuple[str, ...]
    report: Path
    page: Path
    exclude: Path

    @property
    def exit_code(self) -> int:
        """0 clean and complete, 1 leak, 3 incomplete coverage or controls under target, 4 only items to review."""
        return EXIT_CODES[self.outcome]

    @property
    def words(self) -> str:
        """The answer in one line."""
        said = {
            "clean": "clean: no benchmark image found, coverage complete",
            "leak": f"leak: benchmark images, labels or texts in {self.leaks} place{'' if self.leaks == 1 else 's'}",
            "incomplete": f"not fully checked: {'; '.join(self.incomplete)}",
            "review": f"{self.review} {'pair' if self.review == 1 else 'pairs'} to review, no certain leak",
        }[self.outcome]
        if self.review and self.outcome != "review":
            said += f"; {self.review} to review"
        if self.removed:
            said += f"; {self.removed} already excluded"
        return said


def write_report(evidence: Evidence, out: Path, data: Path) -> Verdict:
    """Judge, and write report.json, exclude.json and report.html into `out`."""
    report = judge(evidence)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "report.json", canonical_json(report))
    write_atomic(out / "exclude.json", canonical_json(exclusion(report)))
    write_atomic(out / "report.html", render_page(report, evidence.plan, data).encode())
    counts = report["counts"]
    return Verdict(
        outcome=report["verdict"],
        leaks=counts["leaks"],
        review=counts["review"],
        removed=counts["removed"],
        dismissed=counts["dismissed"],
        incomplete=tuple(report["incomplete"]),
        report=out / "report.json",
        page=out / "report.html",
        exclude=out / "exclude.json",
    )


def exclusion(report: Mapping[str, Any]) -> dict[str, Any]:
    """List the samples to leave out, by key: every leak that no reviewer dismissed, excluded already or not."""
    keys = sorted(
        {
            finding["sample"]
            for finding in report["findings"]
            if finding["level"] == "leak" and not finding["dismissed"] and finding["kind"] not in ABOUT_SOURCES
        }
    )
    return {"schema": EXCLUDE_SCHEMA, "keys": keys, "digest": digest(keys)}
