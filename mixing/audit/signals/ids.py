"""Leaks by name: the ids that public datasets give their pictures and sequences, in keys, file names and metadata."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.matching.views import strings_of
from cavendish.mixing.audit.signals.lineage import ancestors, record_origin, registry
from cavendish.mixing.audit.signals.signal import Finding, Record, ShardResults, Signal
from cavendish.mixing.audit.signals.texts import read_lines
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import read_json

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

IdIndex = Mapping[str, tuple[str, ...]]
"""An id as "dataset:id" to the benchmarks that hold it."""

# (dataset, pattern, what of it names the picture, what names its sequence, room or log)
_IDS: tuple[tuple[str, re.Pattern[str], str, str | None], ...] = (
    ("coco", re.compile(r"COCO_(?:train|val|test)\d{4}_(?P<n>\d{12})"), "{n}", None),
    ("coco", re.compile(r"(?:train|val|test|unlabeled)20(?:14|15|17)[/_](?P<n>\d{12})"), "{n}", None),
    ("flickr", re.compile(r"(?<![0-9A-Za-z])(?P<n>\d{6,11})_[0-9a-f]{9,10}(?:_[a-z])?\b"), "{n}", None),
    ("kitti", re.compile(r"(?P<d>20\d\d_\d\d_\d\d_drive_\d{4})(?:_sync)?(?:\D.*?(?P<n>\d{10}))?"), "{d}/{n}", "{d}"),
    ("nuscenes", re.compile(r"(?P<d>n\d{3}-\d{4}(?:-\d\d){5}-\d{4})__(?P<n>[A-Z_]+__\d+)"), "{d}/{n}", "{d}"),
    ("scannet", re.compile(r"(?P<d>scene\d{4})_\d\d(?:\D.*?(?P<n>\d+)\.(?:jpg|png))?"), "{d}/{n}", "{d}"),
    ("cityscapes", re.compile(r"(?P<d>[a-z]+)_(?P<n>\d{6}_\d{6})(?:_leftImg8bit)?"), "{d}_{n}", None),
    ("vkitti2", re.compile(r"(?P<d>Scene(?:01|02|06|18|20))[/_](?P<n>\S+)"), "{d}/{n}", "{d}"),
    ("sa1b", re.compile(r"\bsa_(?P<n>\d{1,9})\b"), "{n}", None),
    ("metaclip", re.compile(r"metaclip_\d+_\d+_(?P<n>[0-9a-f]{24})"), "{n}", None),
    ("openimages", re.compile(r"open.?images[^\s\"]*?[/:_](?P<n>[0-9a-f]{16})\b", re.IGNORECASE), "{n}", None),
)
_CANONICAL = re.compile(
    r"(?:coco|flickr|kitti|nuscenes|scannet|cityscapes|vkitti2|sa1b|metaclip|openimages|nyu|diode|eth3d|ibims)"
    r":[A-Za-z0-9_./-]+"
)
_BARE = {"coco": re.compile(r"(?<![0-9A-Za-z])(?P<n>\d{12})(?![0-9A-Za-z])")}


def canonical_ids(text: str, schemes: Iterable[str] = ()) -> list[str]:
    """Find the ids that public datasets give their pictures, and the sequences these belong to, in any text.

    Args:
        schemes: datasets whose bare numbers are ids too ("coco": 000000000139.jpg).
    """
    found = dict.fromkeys(_CANONICAL.findall(text))
    for dataset, pattern, picture, group in _IDS:
        for match in pattern.finditer(text):
            values = {key: value or "" for key, value in match.groupdict().items()}
            if values.get("n") or group is None:
                found[f"{dataset}:{picture.format(**values)}"] = None
            if group is not None:
                found[f"{dataset}:{group.format(**values)}"] = None
    for scheme in schemes:
        for match in _BARE[scheme].finditer(text):
            found[f"{scheme}:{match['n']}"] = None
    return list(found)


def build_id_index(lines: Mapping[str, Iterable[str]], schemes: Mapping[str, str | None]) -> IdIndex:
    """Index each benchmark's ids: canonical ones, or names that contain them; `schemes` reads its bare numbers."""
    known: dict[str, dict[str, None]] = defaultdict(dict)
    for name, texts in lines.items():
        scheme = schemes.get(name)
        for text in texts:
            for identity in canonical_ids(text, () if scheme is None else (scheme,)):
                known[identity][name] = None
    return {identity: tuple(names) for identity, names in known.items()}


def read_ids(path: Path, scheme: str | None) -> list[str]:
    """Read ids, one a line, a json list of strings, or an annotation file of COCO's form (`images`).

    Raises:
        InputError: missing, another form, or a line that holds no id.
    """
    values = read_json(path, "ids") if path.suffix == ".json" else None
    if isinstance(values, dict):
        images = values.get("images")
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise InputError(f"{path}: expected a json list of strings, or annotations with a list `images`")
        keys = ("file_name", "coco_url", "flickr_url", "url")
        return [" ".join(str(image[key]) for key in keys if isinstance(image.get(key), str)) for image in images]
    lines = read_lines(path, "ids")
    for line in lines:
        if not canonical_ids(line, () if scheme is None else (scheme,)):
            raise InputError(f'{path}: no id in {line!r}: write "dataset:id", or a file name that contains one')
    return lines


def find_ids(index: IdIndex, key: str, parts: Mapping[str, bytes], schemes: Iterable[str] = ()) -> list[Finding]:
    """Look for benchmark ids in a record's key and metadata; equal ids are a leak whatever the pixels say."""
    if not index:
        return []
    texts = [json.loads(parts[name]) for name in ("json", "instruction.json") if name in parts]
    found = []
    for identity in canonical_ids(" ".join([key, *(text for value in texts for text in strings_of(value))]), schemes):
        what = "a picture" if _names_a_picture(identity) else "a sequence, room or log"
        for benchmark in index.get(identity, ()):
            reason = f"The record's key or metadata names {what} of the benchmark: {identity}."
            found.append(Finding(benchmark, identity, "leak", "identity", "id", reason))
    return found


def _names_a_picture(identity: str) -> bool:
    dataset, _, rest = identity.partition(":")
    return "/" in rest or all(dataset != name or group is None for name, _, _, group in _IDS)


class IdSignal(Signal):
    """Looks for the benchmarks' image and sequence ids in keys and metadata."""

    name = "ids"
    from_metadata = True

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Name the benchmarks' ids, and what sources declare: bare numbers are ids in some of them."""
        ids = {identity: list(names) for identity, names in plan.ids.items()}
        return {"ids": digest(ids), "sources": {name: list(parents) for name, parents in plan.config.sources.items()}}

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Look for ids in a record's key and metadata."""
        source, _, named = record_origin(record.parts)
        parents = (*plan.config.sources.get(source or "", ()), *named)
        schemes = sorted({scheme for name in ancestors(parents) if (scheme := registry()[name].ids)})
        for finding in find_ids(plan.ids, record.key, record.parts, schemes):
            results.add(record, "json", digest(finding.image), finding)

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Count ids."""
        return {"ids": sum(index.name in names for names in plan.ids.values())}
