"""Judges what a scan found, and writes report.json, exclude.json and the page: the same bytes for the same inputs."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from encoders.sample import InputError
from mixing.audit.controls import clopper_pearson
from mixing.audit.fingerprints import ALGORITHM
from mixing.audit.index import Pack
from mixing.audit.lineage import registry, shared_datasets
from mixing.audit.page import render_page
from mixing.audit.scan import Thresholds
from mixing.storage import canonical_json, digest, read_json, write_atomic

REPORT_SCHEMA = "cavendish-audit/1"
DECISIONS_SCHEMA = "cavendish-audit-decisions/1"
EXCLUDE_SCHEMA = "cavendish-exclude/1"
Outcome = Literal["clean", "leak", "incomplete", "review"]
_EXIT_CODES = {"clean": 0, "leak": 1, "incomplete": 3, "review": 4}

NEVER_CHECKED = (
    "What the base generator saw in its own pretraining.",
    "Benchmarks that are not named in this report.",
    "Pictures that a generator drew anew after a benchmark image, or a new photograph or rendering of the same place: "
    "no pixels are shared.",
    "Crops under about 40 % of a benchmark image, or copies shown very small.",
    "Depth, normals and instance maps of raw shards, as maps; pictures made of them (targets) are checked.",
    "Masks, depth and other annotations compared with one another without their pictures.",
)


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
        return _EXIT_CODES[self.outcome]

    @property
    def words(self) -> str:
        """The answer in one line."""
        said = {
            "clean": "clean: no benchmark image found, coverage complete",
            "leak": f"leak: benchmark images or texts in {self.leaks} {'place' if self.leaks == 1 else 'places'}",
            "incomplete": f"not fully checked: {'; '.join(self.incomplete)}",
            "review": f"{self.review} pairs to review, no certain leak",
        }[self.outcome]
        if self.review and self.outcome != "review":
            said += f"; {self.review} to review"
        if self.removed:
            said += f"; {self.removed} already excluded"
        return said


@dataclass(frozen=True)
class Evidence:
    """All that a report is a function of.

    Args:
        packs: the open fingerprint packs.
        results: the json of every scanned element.
        missing: why each benchmark that was not checked was not.
        uncommitted: planned shards that are not there, by directory.
        excluded: keys that the mixture leaves out.
        decisions: finding id to "confirm" or "dismiss".
        benchmarks: of each configured benchmark: name, registry (or None), and whether prompts and ids were given.
        declared: the datasets that each source of the mixture says it comes from.
    """

    packs: tuple[Pack, ...]
    results: tuple[dict[str, Any], ...]
    missing: Mapping[str, str]
    uncommitted: Mapping[str, int]
    excluded: frozenset[str]
    decisions: Mapping[str, str]
    thresholds: Thresholds
    target_recall: float
    synthetic_clean: bool
    benchmarks: tuple[dict[str, Any], ...] = ()
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_decisions(name: str | None, data: Path) -> dict[str, str]:
    """Read the decisions a reviewer saved from the page.

    Raises:
        InputError: not such a file.
    """
    if name is None:
        return {}
    values = read_json(data / name, "a reviewer's decisions")
    if not isinstance(values, dict) or values.get("schema") != DECISIONS_SCHEMA:
        raise InputError(f"{data / name}: not a {DECISIONS_SCHEMA} file")
    decisions = values.get("decisions")
    if not isinstance(decisions, dict) or not set(decisions.values()) <= {"confirm", "dismiss"}:
        raise InputError(f"{data / name}: `decisions` must map finding ids to confirm or dismiss")
    return decisions


def finding_id(finding: Mapping[str, Any]) -> str:
    """Name a pair by what is in it, so that a decision outlives re-sharding."""
    return digest([finding["benchmark"], finding["image"], finding["pixel_sha256"]])[:16]


def write_report(evidence: Evidence, out: Path, data: Path) -> Verdict:
    """Judge, and write report.json, exclude.json and report.html into `out`."""
    report = judge(evidence)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "report.json", canonical_json(report))
    write_atomic(out / "exclude.json", canonical_json(exclusion(report)))
    write_atomic(out / "report.html", render_page(report, evidence.packs, data).encode())
    status = Counter((finding["status"], finding["level"]) for finding in report["findings"])
    return Verdict(
        outcome=report["verdict"],
        leaks=report["counts"]["leaks"],
        review=report["counts"]["review"],
        removed=report["counts"]["removed"],
        dismissed=sum(count for (state, _), count in status.items() if state == "dismissed"),
        incomplete=tuple(report["incomplete"]),
        report=out / "report.json",
        page=out / "report.html",
        exclude=out / "exclude.json",
    )


def exclusion(report: Mapping[str, Any]) -> dict[str, Any]:
    """List the keys to leave out: every leak that no reviewer dismissed, whether it is excluded already or not."""
    keys = sorted(
        {finding["key"] for finding in report["findings"] if finding["level"] == "leak" and not finding["dismissed"]}
    )
    return {"schema": EXCLUDE_SCHEMA, "keys": keys, "digest": digest(keys)}


def judge(evidence: Evidence) -> dict[str, Any]:
    """Return the report as a json-able map; docs/audit.md describes its fields."""
    findings = _findings(evidence)
    controls = _controls(evidence)
    shards = _coverage(evidence)
    benchmarks = _benchmarks(evidence, findings, controls)
    lineage = _lineage(evidence)
    incomplete = _incomplete(evidence, shards, controls, lineage)
    counts = {
        "leaks": sum(finding["status"] == "open" and finding["level"] == "leak" for finding in findings),
        "review": sum(finding["status"] == "open" and finding["level"] == "review" for finding in findings)
        + sum(bool(row["shared"]) for row in lineage),
        "removed": sum(finding["status"] == "removed" for finding in findings),
        "dismissed": sum(finding["status"] == "dismissed" for finding in findings),
        "excluded_keys": len(evidence.excluded),
    }
    outcome: Outcome = "clean"
    if counts["leaks"]:
        outcome = "leak"
    elif incomplete:
        outcome = "incomplete"
    elif counts["review"]:
        outcome = "review"
    return {
        "schema": REPORT_SCHEMA,
        "verdict": outcome,
        "exit_code": _EXIT_CODES[outcome],
        "counts": counts,
        "incomplete": incomplete,
        "benchmarks": benchmarks,
        "shards": shards,
        "controls": controls,
        "lineage": lineage,
        "findings": findings,
        "not_checked": _not_checked(evidence),
        "thresholds": evidence.thresholds.model_dump(),
        "algorithm": ALGORITHM,
        "versions": {
            "cavendish": importlib.metadata.version("cavendish"),
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }


def _findings(evidence: Evidence) -> list[dict[str, Any]]:
    found = []
    for result in evidence.results:
        for raw in result.get("findings", ()):
            finding = {**raw, "id": finding_id(raw), "directory": result["directory"], "shard": result["name"]}
            decision = evidence.decisions.get(finding["id"])
            if decision == "confirm":
                finding["level"] = "leak"
            finding["dismissed"] = decision == "dismiss"
            finding["decision"] = decision
            finding["status"] = (
                "dismissed" if decision == "dismiss" else "removed" if raw["key"] in evidence.excluded else "open"
            )
            found.append(finding)
    _mark_annotation_leaks(found)
    order = {"open": 0, "removed": 1, "dismissed": 2}
    return sorted(
        found,
        key=lambda one: (
            order[one["status"]],
            one["level"],
            one["benchmark"],
            one["image"],
            one["directory"],
            one["shard"],
            one["key"],
            one["member"],
        ),
    )


def _mark_annotation_leaks(findings: list[dict[str, Any]]) -> None:
    """A benchmark's text beside a benchmark's picture in one record is a leak, however short the text is."""
    pictures = {(one["key"], one["benchmark"]) for one in findings if one["level"] == "leak" and one["kind"] != "text"}
    for finding in findings:
        if finding["kind"] == "text" and (finding["key"], finding["benchmark"]) in pictures:
            finding["level"], finding["kind"] = "leak", "annotation"


def _coverage(evidence: Evidence) -> list[dict[str, Any]]:
    """Add up what was read, for each directory of shards."""
    directories = []
    for name, uncommitted in evidence.uncommitted.items():
        mine = [result for result in evidence.results if result["kind"] == "shard" and result["directory"] == name]
        total = Counter[str]()
        for result in mine:
            total.update(result["counts"])
        directories.append(
            {
                "directory": name,
                "shards": len(mine),
                "uncommitted": uncommitted,
                **{key: total[key] for key in ("records", "pictures", "texts", "failed", "weak")},
                "failures": [failure for result in mine for failure in result["failures"]][:50],
                "digest": digest([result["sha256"] for result in mine]),
            }
        )
    return directories


def _controls(evidence: Evidence) -> dict[str, Any]:
    """Measure recall per benchmark and false positives, from what was planted."""
    recall = {}
    for result in evidence.results:
        if result["kind"] != "copies" or not result["planted"]:
            continue
        planted = result["planted"]
        edits: dict[str, list[int]] = {}
        for control in planted:
            tally = edits.setdefault(control["edit"], [0, 0])
            tally[0] += control["found"] == "leak"
            tally[1] += 1
        hits = sum(control["found"] == "leak" for control in planted)
        recall[result["name"]] = {
            **asdict(clopper_pearson(hits, len(planted))),
            "to_review": sum(control["found"] == "review" for control in planted),
            "edits": {edit: {"found": tally[0], "planted": tally[1]} for edit, tally in sorted(edits.items())},
            "missed": [control for control in planted if control["found"] != "leak"],
        }
    clean = [control for result in evidence.results if result["kind"] == "clean" for control in result["clean"]]
    wrong = [control for control in clean if control["found"] == "leak"]
    return {
        "target_recall": evidence.target_recall,
        "recall": recall,
        "false_positives": {
            **(asdict(clopper_pearson(len(wrong), len(clean))) if clean else {"hits": 0, "trials": 0}),
            "to_review": sum(control["found"] == "review" for control in clean),
            "synthetic": evidence.synthetic_clean,
            "wrong": wrong,
        },
    }


def _benchmarks(
    evidence: Evidence, findings: list[dict[str, Any]], controls: Mapping[str, Any]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for pack in evidence.packs:
        mine = [finding for finding in findings if finding["benchmark"] == pack.name and finding["status"] == "open"]
        leaks = sum(finding["level"] == "leak" for finding in mine)
        rows.append(
            {
                "name": pack.name,
                "verdict": "leak" if leaks else "review" if mine else "clean",
                "images": len(pack.images),
                "unread": len(pack.header["unread"]),
                "weak": len(pack.header["weak"]),
                "pixels": pack.has_pixels,
                "digest": pack.digest,
                "leaks": leaks,
                "review": len(mine) - leaks,
                "images_hit": len({finding["image"] for finding in mine if finding["level"] == "leak"}),
            }
        )
        if rows[-1]["verdict"] == "clean" and (pack.header["unread"] or not _controls_hold(pack.name, controls)):
            rows[-1]["verdict"] = "incomplete"
    for one in evidence.benchmarks:
        if one["name"] not in {pack.name for pack in evidence.packs} and one["name"] not in evidence.missing:
            mine = [
                finding for finding in findings if finding["benchmark"] == one["name"] and finding["status"] == "open"
            ]
            leak = any(finding["level"] == "leak" for finding in mine)
            rows.append(
                {
                    "name": one["name"],
                    "verdict": "leak" if leak else "review" if mine else "words only",
                    "reason": "Only its texts and ids were compared; no images of it are named.",
                }
            )
    rows += [{"name": name, "verdict": "not checked", "reason": reason} for name, reason in evidence.missing.items()]
    return sorted(rows, key=lambda row: row["name"])


def _lineage(evidence: Evidence) -> list[dict[str, Any]]:
    """Compare what each source of the shards declares to come from with what the benchmarks are made of."""
    seen = Counter[str]()
    for result in evidence.results:
        seen.update(result.get("sources", {}))
    rows = []
    for source in sorted(seen) if evidence.declared else ():
        parents = evidence.declared.get(source)
        shared = {
            one["name"]: common
            for one in evidence.benchmarks
            if one["registry"] is not None and (common := shared_datasets(parents or (), one["registry"]))
        }
        declared = None if parents is None else list(parents)
        rows.append({"source": source, "records": seen[source], "declared": declared, "shared": shared})
    return rows


def _controls_hold(name: str, controls: Mapping[str, Any]) -> bool:
    recall = controls["recall"].get(name)
    return recall is not None and recall["hits"] >= controls["target_recall"] * recall["trials"]


def _incomplete(
    evidence: Evidence, shards: list[dict[str, Any]], controls: Mapping[str, Any], lineage: list[dict[str, Any]]
) -> list[str]:
    """Say everything that keeps the answer from being complete."""
    said = [f"benchmark {name} was not checked: {reason}" for name, reason in sorted(evidence.missing.items())]
    for pack in evidence.packs:
        if pack.header["unread"]:
            said.append(f"benchmark {pack.name}: {len(pack.header['unread'])} of its images could not be read")
        recall = controls["recall"].get(pack.name)
        if recall is None:
            said.append(f"benchmark {pack.name}: no controls could be planted, so its recall is not known")
        elif not _controls_hold(pack.name, controls):
            said.append(
                f"benchmark {pack.name}: {recall['hits']} of {recall['trials']} planted copies were found; "
                f"the target is {controls['target_recall']:.0%}"
            )
    said += _size_gaps(evidence)
    said += [
        f"source {row['source']} ({row['records']} records) does not declare where its pictures come from"
        for row in lineage
        if row["declared"] is None
    ]
    for row in shards:
        if row["uncommitted"]:
            said.append(f"{row['directory']}: {row['uncommitted']} planned shards are not there")
        if row["failed"]:
            said.append(f"{row['directory']}: {row['failed']} pictures or records could not be read")
    positives = controls["false_positives"]
    if evidence.packs and not positives["trials"]:
        said.append("no clean controls were planted, so the rate of false positives is not known")
    if positives["hits"]:
        said.append(f"{positives['hits']} of {positives['trials']} clean controls were called a leak")
    return said


def _size_gaps(evidence: Evidence) -> list[str]:
    """Name the benchmarks that hold fewer images than were published."""
    held = {pack.name: len(pack.images) for pack in evidence.packs}
    said = []
    for one in evidence.benchmarks:
        published = None if one["registry"] is None else registry()[one["registry"]].images
        if published is not None and one["name"] in held and held[one["name"]] < published:
            said.append(f"benchmark {one['name']}: {held[one['name']]} of its {published} published images are here")
    return said


def _not_checked(evidence: Evidence) -> list[str]:
    said = list(NEVER_CHECKED)
    said += [f"Benchmark {name}: {reason}" for name, reason in sorted(evidence.missing.items())]
    without = [one["name"] for one in evidence.benchmarks if not one["prompts"]]
    if without:
        said.append(f"Texts of {', '.join(without)}: no prompts were given.")
    without = [one["name"] for one in evidence.benchmarks if not one["ids"]]
    if without:
        said.append(f"Ids of pictures and sequences of {', '.join(without)}: none were given.")
    if not evidence.declared:
        said.append("Lineage: the configuration declares no sources.")
    for pack in evidence.packs:
        weak = pack.header["weak"]
        if weak:
            names = ", ".join(weak[:10]) + (", ..." if len(weak) > 10 else "")
            said.append(f"Benchmark {pack.name}: {len(weak)} images have too little structure to be cleared: {names}.")
        said += [f"Benchmark {pack.name}: {item['reason']}" for item in pack.header["unread"][:20]]
        if not pack.has_pixels:
            said.append(f"Benchmark {pack.name}: its pack holds no pixels; findings end at matching geometry.")
    return said
