"""Signal: one way to detect benchmark data in a record, with its own planted controls. `registry.SIGNALS` lists all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.matching.views import View, Views, find_views
from cavendish.mixing.shards.sample_format import Parts

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan


@dataclass(frozen=True)
class Finding:
    """One part of a record that holds something of a benchmark, or may.

    Args:
        benchmark, image: the benchmark's name and the image's id in it.
        level: "leak" or "review".
        kind: copy, crop, embedded, same-scene or unverified of images; labels; text or identity of metadata; similar.
        stage: the test that decided: file, pixels, pdq, pdq-inverted, local, masks, depth, text, id, embedding.
        reason: one sentence for the reader of the report.
        pdq_distance: smallest over the eight turns.
        inliers, score: of the local stage; None when an earlier stage decided.
        agreeing, textured: blocks of the pixel check; None when it was not made.
        affine: benchmark to mixture, 0..1 coordinates, six numbers row by row; None when not known.
        mixture_share, benchmark_share: see `covered_shares`.
        lines: inlier matches to draw: mixture x, y, benchmark x, y.
    """

    benchmark: str
    image: str
    level: str
    kind: str
    stage: str
    reason: str
    pdq_distance: int | None = None
    inliers: int | None = None
    score: float | None = None
    agreeing: int | None = None
    textured: int | None = None
    affine: tuple[float, ...] | None = None
    mixture_share: float | None = None
    benchmark_share: float | None = None
    lines: tuple[tuple[float, ...], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return a json-able map."""
        return asdict(self)


@dataclass
class SourceFacts:
    """What the records of one source say: how many there are, under which licences, and which datasets they name."""

    records: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return a json-able map."""
        return {"records": self.records, "licences": dict(self.licences), "named": dict(self.named)}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what `as_json` returned for other records of the source."""
        self.records += other["records"]
        self.licences.update(other["licences"])
        self.named.update(other["named"])


@dataclass
class Record:
    """A record of a shard; `sample` is the key of the sample that it is made of."""

    key: str
    parts: Parts
    sample: str = ""
    _views: dict[str, Views] = field(default_factory=dict)

    def views(self, member: str) -> Views:
        """Decode every image that a member may show, once."""
        if member not in self._views:
            self._views[member] = find_views(self.parts[member])
        return self._views[member]


@dataclass
class ShardResults:
    """What signals find in a shard.

    Args:
        counts: by what they count.
        members: for each name of a part of records how many there are, "compared" or "not compared" in full.
        sources: facts by name of the source.
        failures: (member, reason) of what could not be read or compared.
        findings: as json.
    """

    counts: Counter[str] = field(default_factory=Counter)
    members: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sources: dict[str, SourceFacts] = field(default_factory=lambda: defaultdict(SourceFacts))
    failures: list[dict[str, str]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, member: str, reason: object) -> None:
        """Note what could not be read or compared, and why."""
        self.failures.append({"member": member, "reason": " ".join(str(reason).split())})

    def add(self, record: Record, member: str, content: str, finding: Finding, text: str = "") -> None:
        """Add a finding in a member of a record.

        Args:
            member: its name; with " (frame 3)" and the like where an image is not what anybody sees of it.
            content: digest of what was compared: pixels, a label's bytes, a text.
            text: the training text, for findings in texts.
        """
        where = {"key": record.key, "sample": record.sample, "member": member, "pixel_sha256": content, "text": text}
        self.findings.append({**where, **finding.as_json(), "similarity": {}})

    def of(self, record: Record, member: str) -> list[dict[str, Any]]:
        """Return what was found so far in a member of a record."""
        return [one for one in self.findings if (one["key"], one["member"]) == (record.key, member)]


def view_name(member: str, view: View) -> str:
    """Name a view of a member in findings."""
    return f"{member} ({view.name})" if view.name else member


Planted = dict[str, Any]
"""A planted control and what was found of it: edit, found ("leak", "review" or None), and what identifies it."""


class Signal:
    """Base of all signals: what it compares, how it decides, what it plants. Override what applies.

    `name` is also the report's name of its controls; `counters` are counted in every shard; `from_metadata` marks
    signals that decode no image and take part in `audit text` and `audit lineage`; a planted control counts as found at
    one of `control_levels`.
    """

    name: str
    counters: tuple[str, ...] = ()
    from_metadata = False
    control_levels: tuple[str, ...] = ("leak", "review")

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Return everything that its results depend on, beside the shard itself."""
        return {}

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Compare one record with every benchmark."""
        raise NotImplementedError

    def can_plant(self, plan: ScanPlan, index: BenchmarkIndex) -> bool:
        """Tell whether it plants controls for a benchmark."""
        return False

    def plant(self, plan: ScanPlan, index: BenchmarkIndex) -> list[Planted]:
        """Plant edited copies of what a benchmark holds, and compare them as a record's parts are."""
        return []

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Return the fields of a benchmark's row in the report: how much of it this signal compared."""
        return {}

    def unread(self, index: BenchmarkIndex) -> list[str]:
        """Return why parts of a benchmark could not be read."""
        return []

    def not_cleared(self, plan: ScanPlan, index: BenchmarkIndex) -> list[str]:
        """Return what of a benchmark this signal cannot clear."""
        return []


def strongest(levels: set[str]) -> str | None:
    """Return the strongest of some levels: leak, review or None."""
    return "leak" if "leak" in levels else "review" if levels else None


DAMAGED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What metadata of another form than ours may raise; InputError is a ValueError."""
assert issubclass(InputError, ValueError)
