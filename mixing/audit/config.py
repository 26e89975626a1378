"""What an audit compares with what: the configuration of `cavendish audit`."""

from __future__ import annotations

from pydantic import Field, model_validator

from cavendish.mixing.audit.matching.label_prints import LabelKind
from cavendish.mixing.audit.signals.images import Thresholds
from cavendish.mixing.audit.signals.lineage import ancestors, registry
from cavendish.mixing.config import Config


class LabelFiles(Config):
    """Label maps of a benchmark, one file a picture: PNG of ids, 16-bit PNG of depth, or `.npy`.

    Args:
        folder: they lie at any depth in it.
        kind: "masks": every value is a mask; "depth": values grow with depth, in any unit.
        suffix: of the files' names, such as "_instanceIds.png".
    """

    folder: str
    kind: LabelKind
    suffix: str = ".png"


class Embedder(Config):
    """A model that turns a picture into a vector, as further evidence: an ONNX file with one input and one output.

    Args:
        file: the model; `sha256` must be that of its bytes.
        similarity: cosine from which a pair that nothing else found is for review.
        side_px: the picture is squeezed to a square of that side; 0: as the model's input says.
        mean, std: what the pixels (0..1) are normalised with; models that take uint8 get them as they are.
    """

    name: str
    file: str
    sha256: str
    similarity: float = Field(0.75, gt=0, le=1)
    side_px: int = Field(0, ge=0, le=1024)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Benchmark(Config):
    """What there is of a benchmark.

    Args:
        name: what reports call it.
        folder, pack: its images, or a fingerprint pack that someone made of them.
        reader: a reader of `trainer.evaluation.benchmarks`: `folder` is then the benchmark as downloaded, and its
            pictures, texts and labels are taken from there.
        labels: its label maps, where no reader gives them.
        prompts: its texts: one a line, or a json list of strings.
        ids: its pictures' ids, sequences or rooms: one a line, as "dataset:id" or as file names that contain them, or
            an annotation file of COCO's form. What its images' own names say is known without.
        registry: its name in the audit's registry, for its published size and what it is made of.
    """

    name: str
    folder: str | None = None
    pack: str | None = None
    reader: str | None = None
    labels: LabelFiles | None = None
    prompts: str | None = None
    ids: str | None = None
    registry: str | None = None

    @model_validator(mode="after")
    def _some_source(self) -> Benchmark:
        if self.folder is not None and self.pack is not None:
            raise ValueError(f"benchmark {self.name}: give either folder or pack")
        if self.reader is not None and self.folder is None:
            raise ValueError(f"benchmark {self.name}: reader {self.reader} needs the folder of the download")
        if self.reader is not None and self.labels is not None:
            raise ValueError(f"benchmark {self.name}: give either reader or labels")
        if self.registry is not None and self.registry not in registry():
            raise ValueError(f"benchmark {self.name}: {self.registry!r} is not among {', '.join(registry())}")
        if not self.name or any(letter in self.name for letter in "/\\\0") or self.name.startswith("."):
            raise ValueError(f"benchmark name {self.name!r}: use letters, digits, '-' and '_'")
        return self


class ControlSettings(Config):
    """How many controls each benchmark gets, and what they must show.

    `clean_folder` holds pictures known to be in no benchmark; without it synthetic pictures stand in for them, which is
    a weaker test of false positives.
    """

    copies: int = 36
    clean: int = 36
    clean_folder: str | None = None
    seed: int = 0
    target_recall: float = 0.9


MIN_COPIES, MIN_CLEAN, MIN_RECALL_LOW = 8, 4, 0.6
"""Whatever the configuration asks for: fewer controls, or a recall whose 95 % interval begins lower, show nothing."""


class AuditConfig(Config):
    """What is compared with what. Paths are relative to the data folder.

    Args:
        benchmarks: what must not be in the mixture.
        shards: directories of shards; every picture, label and text of every record is scanned.
        sources: for each source named in the shards, the datasets its pictures come from (an empty list: none). Once
            any source is declared, one that is not is a gap in the coverage.
        licences: the licences records may have; None: any.
        exclude: exclusion lists already applied to the mixture; findings under their keys count as removed.
        decisions: a reviewer's decisions, as saved from the report.
        pixels: keep small pictures of benchmark images beside their fingerprints (for pixel checks and the report).
        work: folder of the fingerprint packs and the scan's results, for several reports to share; else the report's.
        embedders: models whose similarity is further evidence.
        controls, thresholds: see there.
    """

    benchmarks: tuple[Benchmark, ...]
    shards: tuple[str, ...]
    sources: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    licences: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    decisions: str | None = None
    pixels: bool = True
    work: str | None = None
    embedders: tuple[Embedder, ...] = ()
    controls: ControlSettings = ControlSettings()
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _distinct(self) -> AuditConfig:
        for what, names in (
            ("benchmarks", [benchmark.name for benchmark in self.benchmarks]),
            ("embedders", [embedder.name for embedder in self.embedders]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} have the same name")
        if not self.benchmarks or not self.shards:
            raise ValueError("give at least one benchmark and one directory of shards")
        ancestors(parent for parents in self.sources.values() for parent in parents)
        return self


def changed_settings(config: AuditConfig) -> list[str]:
    """List the thresholds that are not the measured ones, and the controls that are weaker than the default."""
    changed = []
    for name, default in Thresholds().model_dump().items():
        value = getattr(config.thresholds, name)
        if value != default:
            changed.append(f"thresholds.{name} {value:g} (default {default:g})")
    for name in ("copies", "clean", "target_recall"):
        value, default = getattr(config.controls, name), getattr(ControlSettings(), name)
        if value < default:
            changed.append(f"controls.{name} {value:g} (default {default:g})")
    if not config.pixels:
        changed.append("pixels false (default true)")
    return changed
