"""What was compared with what, and what was not: the rows of benchmarks and shards, and every gap in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
from cavendish.mixing.audit.config import MIN_CLEAN, MIN_COPIES, MIN_RECALL_LOW, Benchmark
from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.signals.lineage import UNSTATED, Entry, registry
from cavendish.mixing.audit.signals.registry import SIGNALS
from cavendish.mixing.storage.files import digest

NEVER_CHECKED = (
    "What the base generator saw in its own pretraining.",
    "Benchmarks that are not named in this report.",
    "Pictures that a generator drew anew after a benchmark image, or a new photograph or rendering of the same place: "
    "no pixels are shared.",
    "Crops under about 40 % of a benchmark image, or copies shown very small.",
    "Masks and depth that were cropped, or whose shapes are plain (boxes, ellipses, bands, smooth slopes); normals.",
    "Texts that were paraphrased or translated.",
)
_FAILURES_KEPT = 50
CONTROL_KINDS = {"recall": "copies", "texts": "texts", "labels": "labels"}
"""What is planted, by its field in the report's `controls`."""


def shard_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Add up what was read, for each directory of shards."""
    directories = []
    shards = [result for result in evidence.results if result["kind"] in ("shard", "metadata")]
    for name, uncommitted in evidence.uncommitted.items():
        results = [result for result in shards if result["directory"] == name]
        total = Counter[str]()
        for result in results:
            total.update(result["counts"])
        counted = ("records", "images", "labels", "texts", "failed", "weak", "plain")
        directories.append(
            {
                "directory": name,
                "shards": len(results),
                "uncommitted": uncommitted,
                **{key: total[key] for key in counted},
                "members": _add_members(results),
                "failures": [failure for result in results for failure in result["failures"]][:_FAILURES_KEPT],
                "digest": digest([result["sha256"] for result in results]),
            }
        )
    return directories


def _add_members(results: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the parts of all records by kind: compared, or not in full."""
    members: dict[str, Counter[str]] = {}
    for result in results:
        for name, counts in result["members"].items():
            members.setdefault(name, Counter()).update(counts)
    return {
        name: {how: counts[how] for how in ("compared", "not compared")} for name, counts in sorted(members.items())
    }


def benchmark_rows(
    evidence: Evidence, findings: list[dict[str, Any]], controls: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Say for each benchmark what of it was compared, and its verdict."""
    rows = []
    for benchmark, index in zip(evidence.plan.config.benchmarks, evidence.plan.indexes):
        open_ = [one for one in findings if one["benchmark"] == benchmark.name and one["status"] == "open"]
        leaks = sum(finding["level"] == "leak" for finding in open_)
        row = {**_compared(evidence, benchmark, index), "leaks": leaks, "review": len(open_) - leaks}
        row["items_hit"] = len({one["image"] for one in open_ if one["level"] == "leak"})
        row["reason"] = _gap(evidence, benchmark, index)
        row["gaps"] = evidence.missing.get(benchmark.name, [])
        row["verdict"] = _verdict(row, controls)
        rows.append(row)
    return sorted(rows, key=lambda row: row["name"])


def incomplete_reasons(
    evidence: Evidence, shards: list[dict[str, Any]], controls: Mapping[str, Any], lineage: list[dict[str, Any]]
) -> list[str]:
    """Say everything that keeps the answer from being complete."""
    said: list[str] = []
    for benchmark, index in zip(evidence.plan.config.benchmarks, evidence.plan.indexes):
        said += _benchmark_gaps(evidence, benchmark, index, controls)
    said += _lineage_gaps(evidence, lineage)
    for row in shards:
        if not row["records"]:
            said.append(f"{row['directory']}: no record was read")
        if row["uncommitted"]:
            said.append(f"{row['directory']}: {row['uncommitted']} planned shards are not there")
        if row["failed"]:
            kinds = [f"{n['not compared']} {name}" for name, n in row["members"].items() if n["not compared"]]
            of = f", of them parts of records: {', '.join(kinds)}" if kinds else ""
            said.append(f"{row['directory']}: {row['failed']} times something could not be read or compared{of}")
    positives = controls["false_positives"]
    if any(index.pack is not None for index in evidence.plan.indexes) and positives["trials"] < MIN_CLEAN:
        said.append(
            f"{positives['trials']} clean controls were scanned: with fewer than {MIN_CLEAN} the rate of false "
            "positives is not known"
        )
    if positives["hits"]:
        said.append(f"{positives['hits']} of {positives['trials']} clean controls were called a leak")
    return said


def not_checked(evidence: Evidence) -> list[str]:
    """List what no audit sees, and what this one was not given."""
    plan = evidence.plan
    said = list(NEVER_CHECKED)
    said += [f"Benchmark {name}: {reason}" for name, reasons in sorted(evidence.missing.items()) for reason in reasons]
    with_texts = {name for name, _ in plan.words.texts}
    with_ids = {name for names in plan.ids.values() for name in names}
    for what, had in (("Texts", with_texts), ("Ids of pictures and sequences", with_ids)):
        without = [one.name for one in plan.config.benchmarks if one.name not in had]
        if without:
            said.append(f"{what} of {', '.join(without)}: none were given.")
    without = [index.name for index in plan.indexes if index.labels is None]
    if without:
        said.append(f"Labels of {', '.join(without)}: none were given.")
    if not plan.config.sources:
        said.append("Lineage: the configuration declares no sources; only names of datasets were looked for.")
    for index in plan.indexes:
        said += _not_cleared(evidence, index)
    return said


def shortfall(recall: Mapping[str, Any], target: float) -> str:
    """Say why planted controls do not show enough; empty when they do."""
    found = f"{recall['hits']} of {recall['trials']}"
    if recall["trials"] < MIN_COPIES:
        return f"{found} planted were found; at least {MIN_COPIES} must be planted"
    if recall["hits"] < target * recall["trials"]:
        return f"{found} planted were found; the target is {target:.0%}"
    if recall["low"] < MIN_RECALL_LOW:
        return f"{found} planted were found: the recall may be as low as {recall['low']:.2f}, under {MIN_RECALL_LOW}"
    return ""


def _compared(evidence: Evidence, benchmark: Benchmark, index: BenchmarkIndex) -> dict[str, Any]:
    entry = _entry(benchmark)
    row = {
        "name": benchmark.name,
        "title": "" if entry is None else entry.title,
        "citation": "" if entry is None else entry.citation,
        "licence": "" if entry is None else entry.licence,
        "images_published": None if entry is None else entry.images,
        "texts_published": None if entry is None else entry.prompts,
        "unread": len(_unread(index)),
    }
    for signal in SIGNALS:
        row |= signal.coverage(evidence.plan, index)
    return row


def _verdict(row: Mapping[str, Any], controls: Mapping[str, Any]) -> str:
    if row["leaks"]:
        return "leak"
    if row["reason"]:
        return "not checked"
    target = controls["target_recall"]
    planted = [controls[kind][row["name"]] for kind in CONTROL_KINDS if row["name"] in controls[kind]]
    short = (row["images"] and row["name"] not in controls["recall"]) or any(
        shortfall(recall, target) for recall in planted
    )
    fewer = any(
        row[f"{what}_published"] and row[what] and row[what] < row[f"{what}_published"] for what in ("images", "texts")
    )
    if row["gaps"] or row["unread"] or short or fewer:
        return "incomplete"
    return "review" if row["review"] else "clean"


def _gap(evidence: Evidence, benchmark: Benchmark, index: BenchmarkIndex) -> str:
    """Say why a benchmark counts as not checked; empty when it was: its images, or its texts where it has no images."""
    if index.pack is not None:
        return ""
    entry = _entry(benchmark)
    has_texts = any(name == benchmark.name for name, _ in evidence.plan.words.texts)
    if entry is not None and entry.images == 0 and has_texts:
        return ""
    reasons = evidence.missing.get(benchmark.name, [])
    only = [what for what, there in (("texts", has_texts), ("labels", index.labels is not None)) if there]
    only += ["ids"] if any(benchmark.name in names for names in evidence.plan.ids.values()) else []
    if not reasons:
        reasons = ["no images of it are named" + (f"; only its {' and '.join(only)} were compared" if only else "")]
    return "; ".join(reasons)


def _benchmark_gaps(
    evidence: Evidence, benchmark: Benchmark, index: BenchmarkIndex, controls: Mapping[str, Any]
) -> list[str]:
    name, target = benchmark.name, controls["target_recall"]
    gap = _gap(evidence, benchmark, index)
    said = [f"benchmark {name} was not checked: {gap}"] if gap else []
    if not gap:
        said += [f"benchmark {name}: {reason}" for reason in evidence.missing.get(name, [])]
    if unread := _unread(index):
        said.append(f"benchmark {name}: {len(unread)} of its images or labels could not be read")
    if index.pack is not None and name not in controls["recall"]:
        said.append(f"benchmark {name}: no controls could be planted, so its recall is not known")
    for kind, what in CONTROL_KINDS.items():
        short = shortfall(controls[kind][name], target) if name in controls[kind] else ""
        if short:
            said.append(f"benchmark {name}, {what}: {short}")
    return said + _size_gaps(evidence, benchmark, index)


def _size_gaps(evidence: Evidence, benchmark: Benchmark, index: BenchmarkIndex) -> list[str]:
    """Say where less of a benchmark is here than was published."""
    entry = _entry(benchmark)
    if entry is None:
        return []
    images = 0 if index.pack is None else len(index.open_pack().images)
    texts = sum(name == benchmark.name for name, _ in evidence.plan.words.texts)
    said = []
    for held, published, what in ((images, entry.images, "images"), (texts, entry.prompts, "texts")):
        if published and held and held < published:
            said.append(f"benchmark {benchmark.name}: {held} of its {published} published {what} are here")
    return said


def _lineage_gaps(evidence: Evidence, lineage: list[dict[str, Any]]) -> list[str]:
    said = []
    for row in lineage:
        source = row["source"] or "(none named)"
        if evidence.plan.config.sources and row["declared"] is None:
            said.append(f"source {source} ({row['records']} records) does not declare where its pictures come from")
        unstated = sum(count for licence, count in row["licences"].items() if licence.casefold() in UNSTATED)
        if unstated:
            said.append(f"source {source}: {unstated} records state no licence")
    return said


def _not_cleared(evidence: Evidence, index: BenchmarkIndex) -> list[str]:
    reasons = [f"Benchmark {index.name}: {reason}" for reason in _unread(index)[:20]]
    return reasons + [reason for signal in SIGNALS for reason in signal.not_cleared(evidence.plan, index)]


def _unread(index: BenchmarkIndex) -> list[str]:
    return [*(reason for _, reason in index.unread), *(reason for signal in SIGNALS for reason in signal.unread(index))]


def _entry(benchmark: Benchmark) -> Entry | None:
    return None if benchmark.registry is None else registry()[benchmark.registry]
