"""Judges what a scan found: the findings with their status, the verdict, and what keeps it from being complete."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from scipy.stats import binom

from cavendish.mixing.audit.config import MIN_CLEAN, MIN_COPIES, MIN_RECALL_LOW, changed_settings
from cavendish.mixing.audit.controls import clopper_pearson
from cavendish.mixing.audit.matching.fingerprints import ALGORITHM
from cavendish.mixing.audit.matching.label_prints import LABELS_ALGORITHM
from cavendish.mixing.audit.report.accept import (
    ABOUT_SOURCES,
    EXIT_CODES,
    REPORT_SCHEMA,
    count_findings,
    decide_outcome,
    report_digest,
)
from cavendish.mixing.audit.report.coverage import benchmark_rows, incomplete_reasons, not_checked, shard_rows
from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.signals.images import Thresholds
from cavendish.mixing.audit.signals.lineage import lineage_row
from cavendish.mixing.audit.signals.registry import SIGNALS
from cavendish.mixing.audit.signals.signal import Finding, SourceFacts
from cavendish.mixing.audit.signals.texts import normalized, word_count
from cavendish.mixing.storage.files import digest

COMMONPLACE_WORDS = 5


def judge(evidence: Evidence) -> dict[str, Any]:
    """Return the report as a json-able map; docs/audit.md describes its fields."""
    lineage = lineage_rows(evidence)
    everything = judged_findings(evidence, lineage)
    findings = [finding for finding in everything if not is_commonplace(finding)]
    controls = _controls(evidence)
    shards = shard_rows(evidence)
    incomplete = incomplete_reasons(evidence, shards, controls, lineage)
    counts = count_findings(findings)
    outcome = decide_outcome(counts, incomplete)
    benchmarks = benchmark_rows(evidence, findings, controls)
    report = {
        "schema": REPORT_SCHEMA,
        "verdict": outcome,
        "exit_code": EXIT_CODES[outcome],
        "counts": {
            **counts,
            "excluded_keys": len(evidence.excluded),
            "commonplace_texts": len(everything) - len(findings),
        },
        "incomplete": incomplete,
        "benchmarks": benchmarks,
        "shards": shards,
        "controls": controls,
        "lineage": lineage,
        "findings": findings,
        "not_checked": not_checked(evidence),
        "thresholds": evidence.plan.config.thresholds.model_dump(),
        "changed_settings": changed_settings(evidence.plan.config),
        "chance": _chance(evidence.plan.config.thresholds, benchmarks, shards),
        "embedders": [one.model_dump(exclude={"file"}) for one in evidence.plan.config.embedders],
        "reviewer": evidence.decisions.reviewer,
        "decisions": dict(sorted(evidence.decisions.by_id.items())),
        "algorithm": f"{ALGORITHM}, {LABELS_ALGORITHM}",
        "versions": {
            "cavendish": importlib.metadata.version("cavendish"),
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }
    return {**report, "digest": report_digest(report)}


def finding_id(finding: Mapping[str, Any]) -> str:
    """Name a pair by what is in it, so that a decision outlives re-sharding."""
    return digest([finding["benchmark"], finding["image"], finding["pixel_sha256"]])[:16]


def lineage_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Compare what each source of the shards declares, or is named after, with what the benchmarks are made of.

    Sources that neither declare nor name a dataset are listed once any source is declared, or licences are asked for.
    """
    config = evidence.plan.config
    seen: dict[str, SourceFacts] = {}
    for result in evidence.results:
        for name, facts in result.get("sources", {}).items():
            seen.setdefault(name, SourceFacts()).add(facts)
    benchmarks = [(one.name, one.registry) for one in config.benchmarks if one.registry is not None]
    asked = bool(config.sources) or config.licences is not None
    return [
        lineage_row(name, facts, config.sources.get(name), benchmarks, config.licences)
        for name, facts in sorted(seen.items())
        if asked or facts.named
    ]


def judged_findings(evidence: Evidence, lineage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Collect all findings with their ids, status and the reviewer's decisions, open leaks first."""
    found = []
    for result in evidence.results:
        for raw in result.get("findings", ()):
            found.append(_judged(raw, result["directory"], result["name"], evidence))
    found += [_judged(raw, "", "", evidence) for row in lineage for raw in _about_source(row)]
    _mark_annotation_leaks(found)
    order = {"open": 0, "removed": 1, "dismissed": 2}
    by = ("level", "benchmark", "image", "directory", "shard", "key", "member", "stage", "id")
    return sorted(found, key=lambda one: (order[one["status"]], *(one[name] for name in by)))


def is_commonplace(finding: Mapping[str, Any]) -> bool:
    """Tell an equal text of fewer than five words beside no picture of its benchmark: "the red cup" proves nothing."""
    return finding["kind"] == "text" and word_count(normalized(finding["image"])) < COMMONPLACE_WORDS


def _judged(raw: Mapping[str, Any], directory: str, shard: str, evidence: Evidence) -> dict[str, Any]:
    finding = {**raw, "id": finding_id(raw), "directory": directory, "shard": shard}
    decision = evidence.decisions.by_id.get(finding["id"])
    if decision == "confirm":
        finding["level"] = "leak"
    removed = not evidence.excluded.isdisjoint((raw["key"], raw["sample"])) and raw["kind"] not in ABOUT_SOURCES
    finding["decision"] = decision
    finding["note"] = evidence.decisions.notes.get(finding["id"], "")
    finding["dismissed"] = decision == "dismiss"
    finding["status"] = "dismissed" if decision == "dismiss" else "removed" if removed else "open"
    return finding


def _about_source(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write what is odd about a source as findings, so that a reviewer can settle it."""
    source = row["source"] or "(no source named)"
    told = "declares" if row["declared"] else "is named after"
    found = []
    for benchmark, shared in row["shared"].items():
        same = benchmark in row["same"]
        what = ", ".join(shared)
        reason = (
            f"Source {source} ({row['records']} records) {told} {what}, which the benchmark is made of too"
            f"{': it is made of the benchmark itself. Take the source out of the mixture' if same else ''}."
        )
        found.append(Finding(benchmark, what, "leak" if same else "review", "lineage", "lineage", reason))
    for problem in row["problems"]:
        found.append(Finding("", "licence", "review", "licence", "lineage", f"Source {source}: {problem}"))
    place = {"key": row["source"], "sample": "", "member": "", "text": "", "similarity": {}}
    return [{**one.as_json(), **place, "pixel_sha256": digest([source, one.kind, one.reason])} for one in found]


def _mark_annotation_leaks(findings: list[dict[str, Any]]) -> None:
    """A benchmark's text beside a benchmark's picture in one record is a leak, however short the text is."""
    pictures = {
        (one["key"], one["benchmark"])
        for one in findings
        if one["level"] == "leak" and one["kind"] != "text" and not one["dismissed"]
    }
    for finding in findings:
        if finding["kind"] == "text" and (finding["key"], finding["benchmark"]) in pictures:
            finding["level"], finding["kind"] = "leak", "annotation"


def _controls(evidence: Evidence) -> dict[str, Any]:
    """Measure recall per benchmark and false positives, from what was planted."""
    clean = [control for result in evidence.of_kind("clean") for control in result["clean"]]
    wrong = [control for control in clean if control["found"] == "leak"]
    return {
        "target_recall": evidence.plan.config.controls.target_recall,
        "floors": {"copies": MIN_COPIES, "clean": MIN_CLEAN, "recall_low": MIN_RECALL_LOW},
        "recall": recall_of(evidence, "images"),
        "texts": recall_of(evidence, "texts"),
        "labels": recall_of(evidence, "labels"),
        "false_positives": {
            **(asdict(clopper_pearson(len(wrong), len(clean))) if clean else {"hits": 0, "trials": 0}),
            "to_review": sum(control["found"] == "review" for control in clean),
            "synthetic": evidence.plan.config.controls.clean_folder is None,
            "wrong": wrong,
        },
    }


def recall_of(evidence: Evidence, name: str) -> dict[str, Any]:
    """Return the recall of a signal's planted controls, by benchmark."""
    levels = next(signal.control_levels for signal in SIGNALS if signal.name == name)
    recall = {}
    for result in evidence.of_kind("controls"):
        planted = result["planted"]
        if result["signal"] != name or not planted:
            continue
        edits: dict[str, list[int]] = {}
        for control in planted:
            tally = edits.setdefault(control["edit"], [0, 0])
            tally[0] += control["found"] in levels
            tally[1] += 1
        hits = sum(control["found"] in levels for control in planted)
        recall[result["name"]] = {
            **asdict(clopper_pearson(hits, len(planted))),
            "to_review": sum(control["found"] == "review" for control in planted),
            "edits": {edit: {"found": tally[0], "planted": tally[1]} for edit, tally in sorted(edits.items())},
            "missed": [control for control in planted if control["found"] not in levels],
        }
    return recall


def _chance(thresholds: Thresholds, benchmarks: list[dict[str, Any]], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Bound what chance alone would give: PDQ distances of unrelated pictures act as 242 fair bits."""
    pairs = sum(row["images"] for row in shards) * sum(row["images"] for row in benchmarks) * 8
    exponents = {
        name: int(-(binom.logcdf(int(bound * 242 / 256), 242, 0.5) / np.log(10)))
        for name in ("pdq_accept", "pdq_candidate")
        if (bound := getattr(thresholds, name)) >= 0
    }
    return {"pdq_pairs": pairs, "pdq_pair_exponent": exponents}
