"""What an audit does, as a list of tasks: every shard, and the controls of every signal and benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.benchmark_index import (
    BenchmarkIndex,
    Missing,
    Reader,
    index_benchmarks,
    metadata_index,
    no_reader,
    work_folder,
)
from cavendish.mixing.audit.benchmarks.image_pack import Pack
from cavendish.mixing.audit.benchmarks.label_pack import LabelPack
from cavendish.mixing.audit.config import AuditConfig, Benchmark
from cavendish.mixing.audit.signals.ids import IdIndex, build_id_index, read_ids
from cavendish.mixing.audit.signals.images import CONTROL_EDITS
from cavendish.mixing.audit.signals.lineage import registry
from cavendish.mixing.audit.signals.registry import METADATA_SIGNALS, SIGNALS
from cavendish.mixing.audit.signals.signal import Signal
from cavendish.mixing.audit.signals.texts import WordIndex, build_word_index, is_comparable, read_lines
from cavendish.mixing.shards.dataset import some_rows
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import file_sha256, files_below, join

SCAN_SCHEMA = "cavendish-audit-scan/4"


@dataclass(frozen=True)
class ScanTask:
    """One task of a scan: a "shard", the "metadata" of one, the "controls" of a signal and benchmark, or "clean"."""

    kind: str
    name: str
    facts: Mapping[str, Any]

    def result_path(self, work: Path) -> Path:
        """Name the file that holds the task's result; other inputs have another name."""
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
    indexes: tuple[BenchmarkIndex, ...]
    missing: tuple[tuple[str, str], ...]
    words: WordIndex
    ids: IdIndex
    tasks: tuple[ScanTask, ...] = ()

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The open packs, in the order of the benchmarks."""
        return tuple(index.open_pack() for index in self.indexes if index.pack is not None)

    @property
    def label_packs(self) -> tuple[LabelPack, ...]:
        """The open packs of labels."""
        return tuple(index.open_labels() for index in self.indexes if index.labels is not None)


def make_plan(config: AuditConfig, out: Path, data: Path, reader: Reader | None = None) -> ScanPlan:
    """Index the benchmarks and list the tasks of a full audit."""
    indexes, missing = index_benchmarks(config, out, data, reader)
    plan = _plan(config, out, data, indexes, Missing(data, missing))
    tasks = [*_shard_tasks(plan, "shard", SIGNALS), *_control_tasks(plan, SIGNALS)]
    if plan.packs and config.controls.clean:
        facts = {**_facts(plan, SIGNALS), **_control_facts(config), "source": _clean_source(config, data)}
        tasks.append(ScanTask("clean", "clean controls", facts))
    return replace(plan, tasks=tuple(tasks))


def metadata_plan(config: AuditConfig, out: Path, data: Path, reader: Reader | None = None) -> ScanPlan:
    """List the tasks of an audit of texts, ids and lineage alone: no image is read."""
    missing = Missing(data)
    indexes = []
    for benchmark in config.benchmarks:
        try:
            indexes.append(metadata_index(benchmark, data, reader or no_reader))
        except InputError as error:
            missing.add(benchmark.name, error)
            indexes.append(BenchmarkIndex(benchmark.name))
    plan = _plan(config, out, data, indexes, missing)
    tasks = (*_shard_tasks(plan, "metadata", METADATA_SIGNALS), *_control_tasks(plan, METADATA_SIGNALS))
    return replace(plan, tasks=tasks)


def _plan(config: AuditConfig, out: Path, data: Path, indexes: list[BenchmarkIndex], missing: Missing) -> ScanPlan:
    prompts: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for benchmark, index in zip(config.benchmarks, indexes):
        texts, ids = _texts_and_names(benchmark, index, data, missing)
        names[benchmark.name] = ids
        if texts:
            prompts[benchmark.name] = texts
    return ScanPlan(
        config=config,
        data=data,
        work=work_folder(config, out, data),
        indexes=tuple(indexes),
        missing=tuple(missing.rows),
        words=build_word_index(prompts),
        ids=build_id_index(names, {benchmark.name: _id_scheme(benchmark) for benchmark in config.benchmarks}),
    )


def _texts_and_names(
    benchmark: Benchmark, index: BenchmarkIndex, data: Path, missing: Missing
) -> tuple[list[str], list[str]]:
    """Gather a benchmark's texts, and the names that may hold ids: those given, and those of its images."""
    texts, names = list(index.texts), list(index.names)
    names += [image["id"] for image in index.open_pack().images] if index.pack else []
    names += index.open_labels().images if index.labels else []
    try:
        if benchmark.prompts is not None:
            lines = read_lines(data / benchmark.prompts, "prompts")
            if not any(is_comparable(line) for line in lines):
                missing.add(benchmark.name, f"{benchmark.prompts} holds no text that can be looked for")
            texts += lines
        if benchmark.ids is not None:
            names += read_ids(data / benchmark.ids, _id_scheme(benchmark))
    except InputError as error:
        missing.add(benchmark.name, error)
    nothing = benchmark.folder is None and benchmark.pack is None and not texts and not names
    if nothing and benchmark.name not in dict(missing.rows):
        missing.add(benchmark.name, "neither images nor labels, prompts or ids of it are there")
    return texts, names


def _id_scheme(benchmark: Benchmark) -> str | None:
    return None if benchmark.registry is None else registry()[benchmark.registry].ids


def _shard_tasks(plan: ScanPlan, kind: str, signals: Sequence[Signal]) -> list[ScanTask]:
    facts = _facts(plan, signals)
    return [
        ScanTask(kind, row.shard, {**facts, "directory": name, "sha256": row.sha256})
        for name in plan.config.shards
        for row in some_rows(join(plan.data, name))
    ]


def _control_tasks(plan: ScanPlan, signals: Sequence[Signal]) -> list[ScanTask]:
    return [
        ScanTask(
            "controls", index.name, {"signal": signal.name, **_facts(plan, [signal]), **_control_facts(plan.config)}
        )
        for index in plan.indexes
        for signal in signals
        if signal.can_plant(plan, index)
    ]


def _facts(plan: ScanPlan, signals: Sequence[Signal]) -> dict[str, Any]:
    return {signal.name: signal.facts(plan) for signal in signals}


def _control_facts(config: AuditConfig) -> dict[str, Any]:
    return {"settings": config.controls.model_dump(exclude={"target_recall"}), "edits": CONTROL_EDITS}


def _clean_source(config: AuditConfig, data: Path) -> str | None:
    folder = config.controls.clean_folder
    if folder is None:
        return None
    files = sorted(data / folder / name for name in files_below(data / folder))
    return digest([[path.name, file_sha256(path)] for path in files])
