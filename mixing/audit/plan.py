"""What an audit does, as a list of elements: the benchmark side indexed, every shard, and the controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.benchmark_index import (
    Missing,
    Side,
    index_sides,
    named_side,
    no_reader,
    work_folder,
)
from cavendish.mixing.audit.benchmarks.contents import Reader
from cavendish.mixing.audit.benchmarks.image_pack import Pack
from cavendish.mixing.audit.benchmarks.label_pack import LabelPack
from cavendish.mixing.audit.config import AuditConfig
from cavendish.mixing.audit.controls import CONTROL_EDITS
from cavendish.mixing.audit.matching.fingerprints import ALGORITHM
from cavendish.mixing.audit.signals.ids import IdIndex, build_id_index, read_ids
from cavendish.mixing.audit.signals.labels import LABELS_ALGORITHM
from cavendish.mixing.audit.signals.lineage import registry
from cavendish.mixing.audit.signals.texts import WordIndex, build_word_index, read_lines
from cavendish.mixing.shards.writer import some_rows
from cavendish.mixing.storage.files import digest, file_sha256
from cavendish.mixing.storage.place import join

SCAN_SCHEMA = "cavendish-audit-scan/3"


@dataclass(frozen=True)
class Element:
    """One piece of a scan: a shard, a shard's words alone, or controls ("copies", "labels", "texts", "clean")."""

    kind: str
    name: str
    facts: Mapping[str, Any]

    def result_path(self, work: Path) -> Path:
        """Name the file that holds this element's result; other inputs have another name."""
        return work / "scan" / f"{self.digest[:32]}.json"

    @cached_property
    def digest(self) -> str:
        """The digest of all that the result depends on."""
        return digest({"schema": SCAN_SCHEMA, "kind": self.kind, "name": self.name, **self.facts})


@dataclass(frozen=True)
class ScanPlan:
    """Everything a worker needs; picklable. `missing` says why a benchmark, or a part of it, is not there."""

    config: AuditConfig
    data: Path
    work: Path
    sides: tuple[Side, ...]
    missing: tuple[tuple[str, str], ...]
    words: WordIndex
    ids: IdIndex
    elements: tuple[Element, ...] = ()

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The open packs, in the order of the benchmarks."""
        return tuple(side.open_pack() for side in self.sides if side.pack is not None)

    @property
    def label_packs(self) -> tuple[LabelPack, ...]:
        """The open packs of labels."""
        return tuple(side.open_labels() for side in self.sides if side.labels is not None)


def make_plan(config: AuditConfig, out: Path, data: Path, reader: Reader | None = None) -> ScanPlan:
    """Index the benchmarks and list the elements of a whole audit."""
    plan = _plan(config, out, data, *index_sides(config, out, data, reader))
    return replace(plan, elements=tuple(_elements(plan)))


def words_plan(config: AuditConfig, out: Path, data: Path, reader: Reader | None = None) -> ScanPlan:
    """List the elements of an audit of texts, ids and lineage alone: no picture is read."""
    missing = Missing(data)
    sides = []
    for benchmark in config.benchmarks:
        try:
            sides.append(named_side(benchmark, data, reader or no_reader))
        except InputError as error:
            missing.add(benchmark.name, error)
            sides.append(Side(benchmark.name))
    plan = _plan(config, out, data, sides, missing.rows)
    said = _said_facts(plan)
    elements = [
        Element("words", row.shard, {**said, "directory": name, "sha256": row.sha256})
        for name in config.shards
        for row in some_rows(join(data, name))
    ]
    return replace(plan, elements=(*elements, *_text_controls(plan)))


def _plan(config: AuditConfig, out: Path, data: Path, sides: list[Side], rows: list[tuple[str, str]]) -> ScanPlan:
    missing = Missing(data, rows)
    prompts, ids = _said(config, sides, data, missing)
    return ScanPlan(
        config=config,
        data=data,
        work=work_folder(config, out, data),
        sides=tuple(sides),
        missing=tuple(missing.rows),
        words=build_word_index(prompts),
        ids=ids,
    )


def _elements(plan: ScanPlan) -> list[Element]:
    config, data = plan.config, plan.data
    compared = {
        "algorithm": [ALGORITHM, LABELS_ALGORITHM],
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "thresholds": config.thresholds.model_dump(),
        "packs": [side.pack[1] for side in plan.sides if side.pack is not None],
        "labels": [side.labels[1] for side in plan.sides if side.labels is not None],
        "vectors": [list(side.vectors) for side in plan.sides if side.vectors],
        "embedders": [one.model_dump(exclude={"file"}) for one in config.embedders],
    }
    said = _said_facts(plan)
    controls = _control_facts(config)
    elements = [
        Element("shard", row.shard, {**compared, **said, "directory": name, "sha256": row.sha256})
        for name in config.shards
        for row in some_rows(join(data, name))
    ]
    for side in plan.sides:
        if side.pack is not None and (side.images is not None or side.open_pack().has_pixels):
            elements.append(Element("copies", side.name, {**compared, **controls}))
        if side.labels is not None:
            elements.append(Element("labels", side.name, {**compared, **controls}))
    elements += _text_controls(plan)
    if compared["packs"] and config.controls.clean:
        source = _clean_source(config, data)
        elements.append(Element("clean", "clean controls", {**compared, **controls, "source": source}))
    return elements


def _text_controls(plan: ScanPlan) -> list[Element]:
    facts = {**_said_facts(plan), **_control_facts(plan.config)}
    return [Element("texts", name, facts) for name in dict.fromkeys(name for name, _ in plan.words.texts)]


def _control_facts(config: AuditConfig) -> dict[str, Any]:
    return {"settings": config.controls.model_dump(exclude={"target_recall"}), "edits": CONTROL_EDITS}


def _said_facts(plan: ScanPlan) -> dict[str, Any]:
    ids = {identity: list(names) for identity, names in plan.ids.items()}
    sources = {name: list(parents) for name, parents in plan.config.sources.items()}
    return {"words": plan.words.digest, "ids": digest(ids), "sources": sources}


def _said(config: AuditConfig, sides: list[Side], data: Path, missing: Missing) -> tuple[dict[str, list[str]], IdIndex]:
    """Gather the benchmarks' texts, and their ids: those given, and what the names of their images say."""
    prompts: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {}
    schemes = {one.name: None if one.registry is None else registry()[one.registry].ids for one in config.benchmarks}
    for benchmark, side in zip(config.benchmarks, sides):
        texts, names = list(side.texts), list(side.names)
        names += [image["id"] for image in side.open_pack().images] if side.pack else []
        names += side.open_labels().images if side.labels else []
        try:
            if benchmark.prompts is not None:
                texts += read_lines(data / benchmark.prompts, "prompts")
            if benchmark.ids is not None:
                names += read_ids(data / benchmark.ids, schemes[benchmark.name])
        except InputError as error:
            missing.add(benchmark.name, error)
        nothing = benchmark.folder is None and benchmark.pack is None and not texts and not names
        if nothing and benchmark.name not in dict(missing.rows):
            missing.add(benchmark.name, "neither images nor labels, prompts or ids of it are there")
        prompts[benchmark.name], lines[benchmark.name] = texts, names
    return {name: texts for name, texts in prompts.items() if texts}, build_id_index(lines, schemes)


def _clean_source(config: AuditConfig, data: Path) -> str | None:
    folder = config.controls.clean_folder
    if folder is None:
        return None
    return digest([[path.name, file_sha256(path)] for path in sorted((data / folder).rglob("*")) if path.is_file()])
