"""A report of an audit as a lock takes it, without an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cavendish.mixing.audit.report.accept import (
    EXIT_CODES,
    REPORT_SCHEMA,
    count_findings,
    decide_outcome,
    report_digest,
)
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.storage.files import canonical_json, digest


def make_report(
    data: Path,
    directories: Sequence[str],
    findings: Sequence[Mapping[str, Any]] = (),
    incomplete: Sequence[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Return a report of directories of shards with the fields that a lock looks at, changes included in its digest."""
    rows = {name: committed_rows(data / name) for name in directories}
    counts = count_findings(findings)
    outcome = decide_outcome(counts, incomplete)
    report: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "verdict": outcome,
        "exit_code": EXIT_CODES[outcome],
        "counts": counts,
        "incomplete": list(incomplete),
        "benchmarks": [{"name": "photos"}],
        "shards": [
            {
                "directory": name,
                "records": sum(row.count for row in found),
                "digest": digest([row.sha256 for row in found]),
            }
            for name, found in rows.items()
        ],
        "findings": list(findings),
        "changed_settings": [],
        **changes,
    }
    return {**report, "digest": report_digest(report)}


def write_report(path: Path, *arguments: Any, **changes: Any) -> None:
    path.write_bytes(canonical_json(make_report(*arguments, **changes)))
