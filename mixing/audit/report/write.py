"""Write report.json, report.html and exclude.json (the same bytes for the same inputs), check them again, and the short
reports of `audit text` and `audit lineage`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.plan import ScanPlan
from cavendish.mixing.audit.report.accept import ABOUT_SOURCES, EXIT_CODES, Outcome, count_findings
from cavendish.mixing.audit.report.coverage import shard_rows, shortfall
from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.report.page import render_page
from cavendish.mixing.audit.report.verdict import (
    is_commonplace,
    judge,
    judged_findings,
    lineage_rows,
    recall_of,
)
from cavendish.mixing.audit.scan import is_done, scan_record
from cavendish.mixing.audit.signals.registry import SIGNALS
from cavendish.mixing.audit.signals.signal import ShardResults
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import file_sha256, join, read_json, with_suffix, write_atomic

EXCLUDE_SCHEMA = "cavendish-exclude/1"
WORDS_SCHEMA = "cavendish-audit-words/1"


@dataclass(frozen=True)
class Verdict:
    """The answer. `leaks` and `review` are open, `removed` under excluded keys; `incomplete` says what is missing."""

    outcome: Outcome
    leaks: int
    review: int
    removed: int
    dismissed: int
    incomplete: tuple[str, ...]
    changed_settings: tuple[str, ...]
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
            "clean": "clean: nothing of the benchmarks found, coverage complete",
            "leak": f"leak: benchmark images, labels or texts in {self.leaks} place{'' if self.leaks == 1 else 's'}",
            "incomplete": f"not fully checked: {'; '.join(self.incomplete)}",
            "review": f"{self.review} {'pair' if self.review == 1 else 'pairs'} to review, no certain leak",
        }[self.outcome]
        if self.review and self.outcome != "review":
            said += f"; {self.review} to review"
        if self.removed:
            said += f"; {self.removed} already excluded"
        if self.changed_settings:
            said += f"; settings changed: {'; '.join(self.changed_settings)}"
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
        changed_settings=tuple(report["changed_settings"]),
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


def recheck_report(plan: ScanPlan, evidence: Callable[[], Evidence], out: Path) -> list[str]:
    """Return what is wrong with the report in `out` (nothing: it stands).

    Both sides are hashed anew: every shard, and every pack's arrays. Then the report must be what the committed results
    give, byte for byte, and each of its pairs must be found again in its shard.
    """
    problems = changed_inputs(plan, out)
    for number, task in enumerate(plan.tasks):
        if task.kind == "shard":
            path = join(join(plan.data, task.facts["directory"]), task.name)
            if file_sha256(path) != task.facts["sha256"]:
                problems.append(f"{task.facts['directory']}/{task.name}: changed after it was committed")
        if not is_done(plan, number):
            problems.append(f"{task.kind} {task.name} is not scanned as it is now")
    if problems:
        return problems
    expected = judge(evidence())
    for name, values in (("report.json", expected), ("exclude.json", exclusion(expected))):
        if not (out / name).exists() or (out / name).read_bytes() != canonical_json(values):
            problems.append(f"{name} is not what these inputs give")
    return problems + _recheck(expected["findings"], plan)


def changed_inputs(plan: ScanPlan, out: Path) -> list[str]:
    """Compare the digests that the report names with those of the shards and benchmarks as they are."""
    report = read_json(out / "report.json", "the report of an audit")
    if not isinstance(report, dict) or not isinstance(report.get("benchmarks"), list):
        raise InputError(f"{out / 'report.json'}: not the report of `cavendish audit`")
    problems = []
    for row in report["benchmarks"]:
        index = next((index for index in plan.indexes if index.name == row.get("name")), None)
        for what, pack in (("digest", index and index.pack), ("labels_digest", index and index.labels)):
            if row.get(what) != (pack[1] if pack else None):
                problems.append(f"benchmark {row.get('name')}: not the {what.replace('_', ' ')} that the report names")
    for row in report.get("shards", ()):
        rows = [task for task in plan.tasks if task.facts.get("directory") == row.get("directory")]
        if row.get("digest") != digest([task.facts["sha256"] for task in rows]):
            problems.append(f"{row.get('directory')}: other shards than those that the report names")
    return problems


def _recheck(findings: list[dict[str, Any]], plan: ScanPlan) -> list[str]:
    """Find every pair again in its record."""
    problems = []
    by_record = lambda finding: (finding["directory"], finding["shard"], finding["key"])
    records = sorted((one for one in findings if one["kind"] not in ABOUT_SOURCES), key=by_record)
    for (directory, shard, key), expected in groupby(records, key=by_record):
        path = join(join(plan.data, directory), shard)
        results = ShardResults(Counter())
        with open_file(path) as file:
            scan_record(plan, key, read_parts(file, read_row(with_suffix(path, ".json")), key), SIGNALS, results)
        found = {(one["member"], one["benchmark"], one["image"], one["stage"]) for one in results.findings}
        problems += [
            f"{key}.{one['member']}: not found again as {one['image']}"
            for one in expected
            if (one["member"], one["benchmark"], one["image"], one["stage"]) not in found
        ]
    return problems


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
    counts, shards = count_findings(findings), shard_rows(evidence)
    gaps = [f"{row['directory']}: {row['failed']} records could not be read" for row in shards if row["failed"]]
    gaps += [f"{name}: {reason}" for name, reason in evidence.plan.missing] if about_texts else []
    gaps += [
        f"{row['directory']}: {row['uncommitted']} planned shards are not there" for row in shards if row["uncommitted"]
    ]
    recall = recall_of(evidence, "texts") if about_texts else {}
    target = evidence.plan.config.controls.target_recall
    gaps += [f"{name}, texts: {short}" for name, one in recall.items() if (short := shortfall(one, target))]
    gaps += [f"{row['directory']}: no record was read" for row in shards if not row["records"]]
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
