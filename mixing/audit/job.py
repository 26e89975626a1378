"""The audit as a job: index the benchmarks, scan every shard (one element = one shard), judge, write the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import model_validator

from encoders.sample import InputError
from mixing.audit.controls import CONTROL_EDITS, ControlSettings, run_clean, run_copies
from mixing.audit.fingerprints import ALGORITHM, MIN_QUALITY
from mixing.audit.index import IMAGE_SUFFIXES, Pack, build_pack, read_pack
from mixing.audit.report import Evidence, Verdict, read_decisions, write_report
from mixing.audit.scan import Thresholds, scan_picture
from mixing.beam import run_elements
from mixing.config import Config
from mixing.engine import Engine, Progress
from mixing.images import decode_rgb
from mixing.shards import Row, committed_rows, read_parts, read_row
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic

SCAN_SCHEMA = "cavendish-audit-scan/1"
_NOT_PICTURES = ("depth.png", "normals.png", "instances.png")


class Benchmark(Config):
    """A benchmark's images: a folder, or a fingerprint pack that someone made of it."""

    name: str
    folder: str | None = None
    pack: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Benchmark:
        if (self.folder is None) == (self.pack is None):
            raise ValueError(f"benchmark {self.name}: give either folder or pack")
        if not self.name or any(letter in self.name for letter in "/\\\0") or self.name.startswith("."):
            raise ValueError(f"benchmark name {self.name!r}: use letters, digits, '-' and '_'")
        return self


class AuditConfig(Config):
    """What is compared with what. Paths are relative to the data folder.

    Args:
        benchmarks: what must not be in the mixture.
        shards: directories of shards; every picture of every record is scanned.
        exclude: exclusion lists already applied to the mixture; findings under their keys count as removed.
        decisions: a reviewer's decisions, as saved from the report.
        pixels: keep small pictures of benchmark images beside their fingerprints (for pixel checks and the report).
        work: folder of the fingerprint packs and the scan's results, for several reports to share; else the report's.
        controls, thresholds: see there.
    """

    benchmarks: tuple[Benchmark, ...]
    shards: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    decisions: str | None = None
    pixels: bool = True
    work: str | None = None
    controls: ControlSettings = ControlSettings()
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _distinct(self) -> AuditConfig:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError("two benchmarks have the same name")
        if not names or not self.shards:
            raise ValueError("give at least one benchmark and one directory of shards")
        return self


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
    results = []
    for element in plan.elements:
        path = element.result_path(plan.work)
        if not path.exists():
            raise InputError(f"{plan.work}: {element.kind} {element.name} is not scanned yet; run the scan first")
        results.append(read_json(path, "a result of the scan"))
    uncommitted = {name: _uncommitted(plan.data / name) for name in plan.config.shards}
    evidence = Evidence(
        packs=tuple(_open(str(folder), digest) for folder, digest in plan.packs),
        results=tuple(results),
        missing=dict(plan.missing),
        uncommitted=uncommitted,
        excluded=_excluded_keys(plan.config, plan.data),
        decisions=read_decisions(plan.config.decisions, plan.data),
        thresholds=plan.config.thresholds,
        target_recall=plan.config.controls.target_recall,
        synthetic_clean=plan.config.controls.clean_folder is None,
    )
    return write_report(evidence, out, plan.data)


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
        result = scan_shard(directory / element.name, packs, thresholds)
    elif element.kind == "copies":
        number = [pack.name for pack in packs].index(element.name)
        result = {"planted": run_copies(packs[number], plan.folders[number], controls, thresholds)}
    else:
        result = {"clean": run_clean(packs, controls, thresholds, plan.data)}
    facts = {"schema": SCAN_SCHEMA, "plan": element.digest, "kind": element.kind, "name": element.name}
    directory_name = element.facts.get("directory")
    write_atomic(element.result_path(plan.work), canonical_json({**facts, "directory": directory_name, **result}))


def scan_shard(path: Path, packs: tuple[Pack, ...], thresholds: Thresholds) -> dict[str, Any]:
    """Scan every picture of one committed shard.

    Returns:
        counts (records, pictures, failed, weak: too little structure), failures [{member, reason}], and findings:
        each a `Finding` as json with its key, member and pixel_sha256.
    """
    row = read_row(path.with_suffix(".json"))
    counts = {"records": len(row.samples), "pictures": 0, "failed": 0, "weak": 0}
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
    return {"sha256": row.sha256, "counts": counts, "failures": failures, "findings": findings}


def is_picture(member: str) -> bool:
    """Tell whether a part of a record is a picture to compare: image, edited, source, target, any other picture."""
    return member.lower().endswith(IMAGE_SUFFIXES) and member not in _NOT_PICTURES


def _packs(config: AuditConfig, out: Path, data: Path) -> tuple[list[tuple[Pack, Path | None]], list[tuple[str, str]]]:
    """Open or make every pack; return them with their folders, and (name, reason) of those that could not be made."""
    packs: list[tuple[Pack, Path | None]] = []
    missing = []
    for benchmark in config.benchmarks:
        try:
            pack = _open_pack(benchmark, config, out, data)
            packs.append((pack, None if benchmark.folder is None else data / benchmark.folder))
        except InputError as error:
            missing.append((benchmark.name, str(error).replace(f"{data}/", "")))  # no machine paths in a report
    return packs, missing


def _plan(config: AuditConfig, out: Path, data: Path) -> ScanPlan:
    packs, missing = _packs(config, out, data)
    compared = {
        "algorithm": ALGORITHM,
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "thresholds": config.thresholds.model_dump(),
        "packs": [pack.digest for pack, _ in packs],
    }
    controls = {"settings": config.controls.model_dump(exclude={"target_recall"}), "edits": CONTROL_EDITS}
    elements = [
        Element("shard", row.shard, {**compared, "directory": name, "sha256": row.sha256})
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
