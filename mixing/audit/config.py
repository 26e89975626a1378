"""What an audit compares with what: the configuration of `cavendish audit`."""

from __future__ import annotations

from pydantic import Field, model_validator

from mixing.audit.controls import ControlSettings
from mixing.audit.lineage import ancestors, registry
from mixing.audit.scan import Thresholds
from mixing.config import Config


class Benchmark(Config):
    """What there is of a benchmark.

    Args:
        name: what reports call it.
        folder, pack: its images, or a fingerprint pack that someone made of them.
        prompts: its texts: one a line, or a json list of strings.
        ids: its pictures' ids, sequences or rooms: one a line, as "dataset:id" or as file names that contain them.
        registry: its name in the audit's registry, for its published size and what it is made of.
    """

    name: str
    folder: str | None = None
    pack: str | None = None
    prompts: str | None = None
    ids: str | None = None
    registry: str | None = None

    @model_validator(mode="after")
    def _some_source(self) -> Benchmark:
        if self.folder is not None and self.pack is not None:
            raise ValueError(f"benchmark {self.name}: give either folder or pack")
        if self.registry is not None and self.registry not in registry():
            raise ValueError(f"benchmark {self.name}: {self.registry!r} is not among {', '.join(registry())}")
        if not self.name or any(letter in self.name for letter in "/\\\0") or self.name.startswith("."):
            raise ValueError(f"benchmark name {self.name!r}: use letters, digits, '-' and '_'")
        return self


class AuditConfig(Config):
    """What is compared with what. Paths are relative to the data folder.

    Args:
        benchmarks: what must not be in the mixture.
        shards: directories of shards; every picture of every record is scanned.
        sources: for each source named in the shards, the datasets its pictures come from (an empty list: none). Once
            any source is declared, one that is not is a gap in the coverage.
        exclude: exclusion lists already applied to the mixture; findings under their keys count as removed.
        decisions: a reviewer's decisions, as saved from the report.
        pixels: keep small pictures of benchmark images beside their fingerprints (for pixel checks and the report).
        work: folder of the fingerprint packs and the scan's results, for several reports to share; else the report's.
        controls, thresholds: see there.
    """

    benchmarks: tuple[Benchmark, ...]
    shards: tuple[str, ...]
    sources: dict[str, tuple[str, ...]] = Field(default_factory=dict)
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
        ancestors(parent for parents in self.sources.values() for parent in parents)
        return self
