"""Checks a report again: the inputs' hashes, the packs, every pair compared anew, and the report's own bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.plan import ScanPlan
from cavendish.mixing.audit.report.evidence import Evidence
from cavendish.mixing.audit.report.verdict import judge
from cavendish.mixing.audit.report.write import exclusion
from cavendish.mixing.audit.scan import is_done
from cavendish.mixing.audit.signals.images import scan_picture
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.shards.writer import open_tar, read_parts, read_row
from cavendish.mixing.storage.files import canonical_json, digest, file_sha256, read_json
from cavendish.mixing.storage.place import join, with_suffix


def recheck_report(plan: ScanPlan, evidence: Callable[[], Evidence], out: Path) -> list[str]:
    """Return what is wrong with the report in `out` (nothing: it stands).

    Both sides are hashed anew: every shard, and every pack's arrays. Then the report must be what the committed results
    give, byte for byte, and each of its pairs must be found again in its shard.
    """
    problems = changed_sides(plan, out)
    for index, element in enumerate(plan.elements):
        if element.kind == "shard":
            path = join(join(plan.data, element.facts["directory"]), element.name)
            if file_sha256(path) != element.facts["sha256"]:
                problems.append(f"{element.facts['directory']}/{element.name}: changed after it was committed")
        if not is_done(plan, index):
            problems.append(f"{element.kind} {element.name} is not scanned as it is now")
    if problems:
        return problems
    expected = judge(evidence())
    for name, values in (("report.json", expected), ("exclude.json", exclusion(expected))):
        if not (out / name).exists() or (out / name).read_bytes() != canonical_json(values):
            problems.append(f"{name} is not what these inputs give")
    for finding in expected["findings"]:
        problems += _recheck(finding, plan)
    return problems


def changed_sides(plan: ScanPlan, out: Path) -> list[str]:
    """Compare the digests that the report names with those of the shards and benchmarks as they are."""
    report = read_json(out / "report.json", "the report of an audit")
    if not isinstance(report, dict) or not isinstance(report.get("benchmarks"), list):
        raise InputError(f"{out / 'report.json'}: not the report of `cavendish audit`")
    problems = []
    for row in report["benchmarks"]:
        side = next((side for side in plan.sides if side.name == row.get("name")), None)
        for what, pack in (("digest", side and side.pack), ("labels_digest", side and side.labels)):
            if row.get(what) != (pack[1] if pack else None):
                problems.append(f"benchmark {row.get('name')}: not the {what.replace('_', ' ')} that the report names")
    for row in report.get("shards", ()):
        rows = [element for element in plan.elements if element.facts.get("directory") == row.get("directory")]
        if row.get("digest") != digest([element.facts["sha256"] for element in rows]):
            problems.append(f"{row.get('directory')}: other shards than those that the report names")
    return problems


def _recheck(finding: Mapping[str, Any], plan: ScanPlan) -> list[str]:
    """Find a pair of pictures again; labels, texts and ids are compared when the scan's results are."""
    if finding["stage"] not in ("file", "pixels", "pdq", "pdq-inverted", "local"):
        return []
    path = join(join(plan.data, finding["directory"]), finding["shard"])
    row = read_row(with_suffix(path, ".json"))
    with open_tar(path) as file:
        member = read_parts(file, row, finding["key"])[finding["member"]]
    packs = tuple(pack for pack in plan.packs if pack.name == finding["benchmark"])
    _, found = scan_picture(decode_rgb(member, finding["key"]), member, packs, plan.config.thresholds)
    again = [one for one in found if (one.image, one.stage) == (finding["image"], finding["stage"])]
    return [] if again else [f"{finding['key']}.{finding['member']}: not found again as {finding['image']}"]
