"""The short answers of `audit text` and `audit lineage`: findings without pictures, and never a clean verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cavendish.mixing.audit.report.coverage import holds, shard_rows
from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.report.verdict import count, is_commonplace, judged_findings, lineage_rows, recall_of
from cavendish.mixing.storage.files import canonical_json, write_atomic

WORDS_SCHEMA = "cavendish-audit-words/1"


@dataclass(frozen=True)
class WordsVerdict:
    """What was found: exit code as for the audit (0: nothing of this kind), and a line for each thing to say."""

    exit_code: int
    lines: tuple[str, ...]
    file: Path


def write_words_report(evidence: Evidence, kinds: Sequence[str], out: Path) -> WordsVerdict:
    """Judge findings of some kinds and write them to text.json or lineage.json in `out`.

    The file holds an `outcome`, no `verdict`: it stands for no audit, and no mixture's lock takes it for one.
    """
    lineage = lineage_rows(evidence)
    findings = [one for one in judged_findings(evidence, lineage) if one["kind"] in kinds]
    findings = [one for one in findings if not is_commonplace(one)]
    about_texts = "text" in kinds
    counts, shards = count(findings), shard_rows(evidence)
    gaps = [f"{row['directory']}: {row['failed']} records could not be read" for row in shards if row["failed"]]
    gaps += [f"{name}: {reason}" for name, reason in evidence.plan.missing] if about_texts else []
    gaps += [
        f"{row['directory']}: {row['uncommitted']} planned shards are not there" for row in shards if row["uncommitted"]
    ]
    recall = recall_of(evidence, "texts", ("leak", "review")) if about_texts else {}
    target = evidence.plan.config.controls.target_recall
    gaps += [
        f"{name}: {one['hits']} of {one['trials']} planted texts were found; the target is {target:.0%}"
        for name, one in recall.items()
        if not holds(one, target)
    ]
    exit_code = 1 if counts["leaks"] else 3 if gaps else 4 if counts["review"] else 0
    outcome = {0: "nothing found", 1: "leak", 3: "incomplete", 4: "review"}[exit_code]
    values: dict[str, Any] = {
        "schema": WORDS_SCHEMA,
        "outcome": outcome,
        "compared": "texts and ids only; no picture" if about_texts else "what sources declare and name; no picture",
        "counts": counts,
        "incomplete": gaps,
        "shards": shards,
        "findings": findings,
    }
    values |= {"recall": recall} if about_texts else {"lineage": lineage}
    out.mkdir(parents=True, exist_ok=True)
    file = out / ("text.json" if about_texts else "lineage.json")
    write_atomic(file, canonical_json(values))
    texts = sum(row["texts"] for row in shards)
    records = sum(row["records"] for row in shards)
    read = f"{texts} texts of {records} records" if about_texts else f"{len(lineage)} sources of {records} records"
    lines = [f"{outcome}: {counts['leaks']} leaks, {counts['review']} to review in {read}; no picture was compared"]
    lines += [
        f"{one['level']}: {one['benchmark']}: {one['key']}: {one['reason']}"
        for one in findings
        if one["status"] == "open"
    ]
    return WordsVerdict(exit_code, (*lines, *gaps), file)
