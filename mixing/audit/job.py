"""The audit as a job: index the benchmarks, scan every shard (one element = one shard), judge, write the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from encoders.sample import InputError
from mixing.audit.config import AuditConfig, Benchmark
from mixing.audit.controls import CONTROL_EDITS, run_clean, run_copies
from mixing.audit.fingerprints import ALGORITHM, MIN_QUALITY
from mixing.audit.index import IMAGE_SUFFIXES, Pack, build_pack, read_pack
from mixing.audit.report import Evidence, Verdict, exclusion, judge, read_decisions, write_report
from mixing.audit.scan import Thresholds, scan_picture
from mixing.audit.words import WordIndex, build_word_index, find_ids, find_texts, place_of, read_lines, record_texts
from mixing.beam import run_elements
from mixing.engine import Engine, Progress
from mixing.images import decode_rgb
from mixing.records import Parts
from mixing.shards import Row, committed_rows, read_parts, read_row
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic

__all__ = ["AuditConfig", "audit", "index_benchmarks", "report", "scan", "verify_report"]

SCAN_SCHEMA = "cavendish-audit-scan/1"
_NOT_PICTURES = ("depth.png", "normals.png", "instances.png")


@dataclass(frozen=True)
class Element:
    """One piece of a scan: a shard, the edited copies of one benchmark, or the clean controls."""

    kind: str
    name: str
    facts: Mapping[str, Any]

    def result_path(self, work: Path) -> Path:
        """Name the file that holds this element's result; other inputs have another name."""
        return work / "scan" / f"{self.digest[:32]}.json"

    @property
    def digest(self) -> str:
        """The digest of all that the result depends on."""
        return digest({"schema": SCAN_SCHEMA, "kind": self.kind, "name": self.name, **self.facts})


@dataclass(frozen=True)
class ScanPlan:
    """Everything a worker needs; picklable."""

    elements: tuple[Element, ...]
    packs: tuple[tuple[Path, str], ...]
    folders: tuple[Path | None, ...]
    missing: tuple[tuple[str, str], ...]
    words: WordIndex
    config: AuditConfig
    data: Path
    work: Path


def audit(
    config: AuditConfig,
    out: Path,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
) -> Verdict:
    """Run the whole audit: index, scan, report. What an earlier run finished is not done again.

    Returns:
        The verdict; `out` holds report.json, report.html, exclude.json, the packs and the scan's results.

    Raises:
        InputError: an input that must be there is not, or is damaged.
        JobFailed: the engine lost workers; run again to continue.
    """
    plan = _plan(config, out, data)
    _scan(plan, engine, progress)
    return _report(plan, out)


def index_benchmarks(config: AuditConfig, out: Path, data: Path = Path()) -> dict[str, str]:
    """Make or refresh the fingerprint pack of every benchmark whose images are here.

    Returns:
        Why each of the others could not be indexed, by name.
    """
    return dict(_packs(config, out, data)[1])


def scan(
    config: AuditConfig, out: Path, engine: Engine = Engine(), progress: Progress | None = None, data: Path = Path()
) -> None:
    """Compare every shard, and the controls, with the indexed benchmarks, and commit one json per element.

    With `engine.split` only a part of them; the parts may run on different machines that share the work folder.
    """
    _scan(_plan(config, out, data), engine, progress)


def report(config: AuditConfig, out: Path, data: Path = Path()) -> Verdict:
    """Judge what the scan found and write report.json, report.html and exclude.json.

    Raises:
        InputError: the scan of these inputs is not finished.
    """
    return _report(_plan(config, out, data), out)


def verify_report(config: AuditConfig, out: Path, data: Path = Path()) -> list[str]:
    """Check a report again from its inputs; return the problems (none: it stands).

    Every shard's hash, every pack's hashes, every finding by comparing its picture anew, and the bytes of report.json
    and exclude.json.
    """
    problems = []
    plan = _plan(config, out, data)
    packs = {name.name: name for name in (_open(str(folder), pack_digest) for folder, pack_digest in plan.packs)}
    for element in plan.elements:
        if element.kind == "shard":
            path = data / element.facts["directory"] / element.name
            if file_sha256(path) != element.facts["sha256"]:
                problems.append(f"{element.facts['directory']}/{element.name}: changed after it was committed")
        if not element.result_path(plan.work).exists():
            problems.append(f"{element.kind} {element.name} is not scanned as it is now")
    if problems:
        return problems
    evidence = _evidence(plan)
    expected = judge(evidence)
    for name, values in (("report.json", expected), ("exclude.json", exclusion(expected))):
        if not (out / name).exists() or (out / name).read_bytes() != canonical_json(values):
            problems.append(f"{name} is not what these inputs give")
    for finding in expected["findings"]:
        pack = packs.get(finding["benchmark"])
        if pack is not None and finding["stage"] not in ("text", "id"):
            problems += _recheck(finding, pack, data, config.thresholds)
    return problems


def _recheck(finding: Mapping[str, Any], pack: Pack, data: Path, thresholds: Thresholds) -> list[str]:
    path = data / finding["directory"] / finding["shard"]
    row = read_row(path.with_suffix(".json"))
    with path.open("rb") as file:
        member = read_parts(file, row, finding["key"])[finding["member"]]
    _, found = scan_picture(decode_rgb(member, finding["key"]), member, (pack,), thresholds)
    again = [one for one in found if (one.image, one.stage) == (finding["image"], finding["stage"])]
    return [] if again else [f"{finding['key']}.{finding['member']}: not found again as {finding['image']}"]


def _scan(plan: ScanPlan, engine: Engine, progress: Progress | None) -> None:
    (plan.work / "scan").mkdir(parents=True, exist_ok=True)
    indices = range(engine.split[0], len(plan.elements), engine.split[1])
    pending = [index for index in indices if not _is_done(plan, index)]
    already = len(indices) - len(pending)
    if pending:
        told = None if progress is None else lambda done, _: progress(already + done, len(indices))
        run_elements(partial(scan_element, plan), pending, engine, is_done=partial(_is_done, plan), progress=told)
    elif progress is not None:
        progress(len(indices), len(indices))


def _report(plan: ScanPlan, out: Path) -> Verdict:
    return write_report(_evidence(plan), out, plan.data)


def _evidence(plan: ScanPlan) -> Evidence:
    """Collect everything a report is a function of."""
    results = []
    for element in plan.elements:
        path = element.result_path(plan.work)
        if not path.exists():
            raise InputError(f"{plan.work}: {element.kind} {element.name} is not scanned yet; run the scan first")
        results.append(read_json(path, "a result of the scan"))
    uncommitted = {name: _uncommitted(plan.data / name) for name in plan.config.shards}
    return Evidence(
        packs=tuple(_open(str(folder), digest) for folder, digest in plan.packs),
        results=tuple(results),
        missing=dict(plan.missing),
        uncommitted=uncommitted,
        excluded=_excluded_keys(plan.config, plan.data),
        decisions=read_decisions(plan.config.decisions, plan.data),
        thresholds=plan.config.thresholds,
        target_recall=plan.config.controls.target_recall,
        benchmarks=tuple(
            {"name": one.name, "registry": one.registry, "prompts": one.prompts is not None, "ids": one.ids is not None}
            for one in plan.config.benchmarks
        ),
        declared=plan.config.sources,
        synthetic_clean=plan.config.controls.clean_folder is None,
    )


def scan_element(plan: ScanPlan, index: int) -> None:
    """Do one element and commit its result."""
    cv2.setNumThreads(1)
    if _is_done(plan, index):
        return
    element = plan.elements[index]
    packs = tuple(_open(str(folder), pack_digest) for folder, pack_digest in plan.packs)
    thresholds, controls = plan.config.thresholds, plan.config.controls
    if element.kind == "shard":
        directory = plan.data / element.facts["directory"]
        result = scan_shard(directory / element.name, packs, thresholds, plan.words)
    elif element.kind == "copies":
        number = [pack.name for pack in packs].index(element.name)
        result = {"planted": run_copies(packs[number], plan.folders[number], controls, thresholds)}
    else:
        result = {"clean": run_clean(packs, controls, thresholds, plan.data)}
    facts = {"schema": SCAN_SCHEMA, "plan": element.digest, "kind": element.kind, "name": element.name}
    directory_name = element.facts.get("directory")
    write_atomic(element.result_path(plan.work), canonical_json({**facts, "directory": directory_name, **result}))


def scan_shard(path: Path, packs: tuple[Pack, ...], thresholds: Thresholds, words: WordIndex) -> dict[str, Any]:
    """Scan every picture and text of one committed shard.

    Returns:
        counts (records, pictures, texts, failed, weak: too little structure), sources {name: records}, failures
        [{member, reason}], and findings: each a `Finding` as json with its key, member and pixel_sha256.
    """
    row = read_row(path.with_suffix(".json"))
    counts = {"records": len(row.samples), "pictures": 0, "texts": 0, "failed": 0, "weak": 0}
    sources = Counter[str]()
    failures: list[dict[str, str]] = []
    findings: list[dict[str, Any]] = []
    if file_sha256(path) != row.sha256:
        failures.append({"member": path.name, "reason": "its sha256 is not the one it was committed with"})
    with path.open("rb") as file:
        for key in row.samples:
            try:
                parts = read_parts(file, row, key)
            except InputError as error:
                failures.append({"member": key, "reason": str(error)})
                continue
            said, source = _scan_words(key, parts, words, counts)
            findings += said
            sources.update([source] if source else [])
            for member, data in parts.items():
                if not is_picture(member):
                    continue
                counts["pictures"] += 1
                try:
                    image = decode_rgb(data, f"{key}.{member}")
                except InputError as error:
                    failures.append({"member": f"{key}.{member}", "reason": str(error)})
                    continue
                print_, found = scan_picture(image, data, packs, thresholds)
                counts["weak"] += print_.pdq.quality < MIN_QUALITY
                place = {"key": key, "member": member, "pixel_sha256": print_.pixel_sha256}
                findings += [{**place, **finding.as_json()} for finding in found]
    counts["failed"] = len(failures)
    return {
        "sha256": row.sha256,
        "counts": counts,
        "sources": dict(sorted(sources.items())),
        "failures": failures,
        "findings": findings,
    }


def _scan_words(
    key: str, parts: Parts, words: WordIndex, counts: dict[str, int]
) -> tuple[list[dict[str, Any]], str | None]:
    """Compare what a record says and is named with the benchmarks' texts and ids; return also its source."""
    found = []
    for member, text in record_texts(parts):
        counts["texts"] += 1
        found += [{"key": key, **place_of(member, text), **one.as_json()} for one in find_texts(words, text)]
    for finding in find_ids(words, key, parts):
        found.append({"key": key, **place_of("json", finding.image), **finding.as_json()})
    source = json.loads(parts["json"]).get("source") if "json" in parts else None
    return found, source if isinstance(source, str) else None


def is_picture(member: str) -> bool:
    """Tell whether a part of a record is a picture to compare: image, edited, source, target, any other picture."""
    return member.lower().endswith(IMAGE_SUFFIXES) and member not in _NOT_PICTURES


def _packs(config: AuditConfig, out: Path, data: Path) -> tuple[list[tuple[Pack, Path | None]], list[tuple[str, str]]]:
    """Open or make every pack; return them with their folders, and (name, reason) of those that could not be made."""
    packs: list[tuple[Pack, Path | None]] = []
    missing = []
    for benchmark in config.benchmarks:
        if benchmark.folder is None and benchmark.pack is None:
            if benchmark.prompts is None and benchmark.ids is None:
                missing.append((benchmark.name, "neither images nor prompts nor ids of it are named"))
            continue
        try:
            pack = _open_pack(benchmark, config, out, data)
            packs.append((pack, None if benchmark.folder is None else data / benchmark.folder))
        except InputError as error:
            missing.append((benchmark.name, str(error).replace(f"{data}/", "")))  # no machine paths in a report
    return packs, missing


def _words(config: AuditConfig, data: Path) -> tuple[WordIndex, list[tuple[str, str]]]:
    """Read the benchmarks' prompts and ids; return also (name, reason) of those that could not be read."""
    lines: dict[str, dict[str, list[str]]] = {"prompts": {}, "ids": {}}
    missing = []
    for benchmark in config.benchmarks:
        for kind, name in (("prompts", benchmark.prompts), ("ids", benchmark.ids)):
            try:
                if name is not None:
                    lines[kind][benchmark.name] = read_lines(data / name, kind)
            except InputError as error:
                missing.append((benchmark.name, str(error).replace(f"{data}/", "")))
    return build_word_index(lines["prompts"], lines["ids"]), missing


def _plan(config: AuditConfig, out: Path, data: Path) -> ScanPlan:
    packs, missing = _packs(config, out, data)
    words, unread = _words(config, data)
    missing += unread
    compared = {
        "algorithm": ALGORITHM,
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "thresholds": config.thresholds.model_dump(),
        "packs": [pack.digest for pack, _ in packs],
    }
    controls = {"settings": config.controls.model_dump(exclude={"target_recall"}), "edits": CONTROL_EDITS}
    elements = [
        Element("shard", row.shard, {**compared, "words": words.digest, "directory": name, "sha256": row.sha256})
        for name in config.shards
        for row in _rows(data / name)
    ]
    for pack, folder in packs:
        if pack.has_pixels or folder is not None:
            elements.append(Element("copies", pack.name, {**compared, **controls}))
    if packs and config.controls.clean:
        elements.append(
            Element("clean", "clean controls", {**compared, **controls, "source": _clean_source(config, data)})
        )
    return ScanPlan(
        elements=tuple(elements),
        packs=tuple((pack.folder, pack.digest) for pack, _ in packs),
        folders=tuple(folder for _, folder in packs),
        missing=tuple(missing),
        words=words,
        config=config,
        data=data,
        work=_work(config, out, data),
    )


def _work(config: AuditConfig, out: Path, data: Path) -> Path:
    return out if config.work is None else data / config.work


def _open_pack(benchmark: Benchmark, config: AuditConfig, out: Path, data: Path) -> Pack:
    if benchmark.folder is not None:
        place = _work(config, out, data) / "packs" / benchmark.name
        return build_pack(benchmark.name, data / benchmark.folder, place, config.pixels)
    assert benchmark.pack is not None
    pack = read_pack(data / benchmark.pack)
    if pack.name != benchmark.name:
        raise InputError(f"{data / benchmark.pack}: a pack of {pack.name}, not of {benchmark.name}")
    return pack


@lru_cache(maxsize=64)
def _open(folder: str, pack_digest: str) -> Pack:
    """Open a pack once in each process."""
    pack = read_pack(Path(folder))
    if pack.digest != pack_digest:
        raise InputError(f"{folder}: the pack changed while the scan ran; run again")
    return pack


def _clean_source(config: AuditConfig, data: Path) -> str | None:
    folder = config.controls.clean_folder
    if folder is None:
        return None
    return digest([[path.name, file_sha256(path)] for path in sorted((data / folder).rglob("*")) if path.is_file()])


def _is_done(plan: ScanPlan, index: int) -> bool:
    return plan.elements[index].result_path(plan.work).exists()


def _rows(directory: Path) -> list[Row]:
    rows = committed_rows(directory)
    if not rows:
        raise InputError(f"{directory}: no committed shards here")
    return rows


def _excluded_keys(config: AuditConfig, data: Path) -> frozenset[str]:
    keys: set[str] = set()
    for name in config.exclude:
        values = read_json(data / name, "an exclusion list")
        if not isinstance(values, dict) or not isinstance(values.get("keys"), list):
            raise InputError(f"{data / name}: an exclusion list is a json map with a list `keys`")
        keys.update(values["keys"])
    return frozenset(keys)


def _uncommitted(directory: Path) -> int:
    planned = read_json(directory / "dataset.json", "the plan of a shard directory")["shards"]
    return planned - len(committed_rows(directory))
