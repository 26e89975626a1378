"""Does one element of a scan: everything of a shard, its words alone, or controls; commits the result as one json."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import cv2

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.benchmark_index import open_vectors
from cavendish.mixing.audit.benchmarks.image_pack import IMAGE_SUFFIXES
from cavendish.mixing.audit.benchmarks.label_pack import compare_labels
from cavendish.mixing.audit.controls import run_clean, run_copies, run_labels, run_texts
from cavendish.mixing.audit.matching.fingerprints import MIN_QUALITY
from cavendish.mixing.audit.plan import SCAN_SCHEMA, Element, ScanPlan
from cavendish.mixing.audit.signals.embeddings import embed, open_model, similar_images
from cavendish.mixing.audit.signals.ids import find_ids
from cavendish.mixing.audit.signals.images import Finding, scan_picture
from cavendish.mixing.audit.signals.labels import record_labels
from cavendish.mixing.audit.signals.lineage import SourceFacts, ancestors, record_origin, registry
from cavendish.mixing.audit.signals.texts import find_texts, place_of, record_texts
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.shards.sample_format import Parts
from cavendish.mixing.shards.writer import local_copy, read_parts, read_row
from cavendish.mixing.storage.files import canonical_json, digest, file_sha256, read_json, write_atomic
from cavendish.mixing.storage.place import Place, join, name_of, with_suffix

_NOT_PICTURES = ("depth.png", "normals.png", "geometric_normals.png", "instances.png", "weight.png")
_DAMAGED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What a record's metadata of another form than ours may raise; InputError is a ValueError."""


def committed_result(plan: ScanPlan, index: int) -> dict[str, Any] | None:
    """Return the result of an element; None when there is none, or a damaged one, which the next scan makes again."""
    path = plan.elements[index].result_path(plan.work)
    try:
        values = read_json(path, "a result of the scan")
    except InputError:
        return None
    if not isinstance(values, dict) or values.pop("digest", None) != digest(values):
        return None
    return values


def is_done(plan: ScanPlan, index: int) -> bool:
    """Tell whether an element's result is committed."""
    return committed_result(plan, index) is not None


def still_to_scan(plan: ScanPlan, indices: Iterable[int]) -> list[int]:
    """Return the elements without a result; that of a shard which was damaged is deleted: it may have been restored."""
    pending = []
    for index in indices:
        element, result = plan.elements[index], committed_result(plan, index)
        if result is not None and any(one["member"] == element.name for one in result.get("failures", ())):
            element.result_path(plan.work).unlink()
            result = None
        if result is None:
            pending.append(index)
    return pending


def scan_element(plan: ScanPlan, index: int) -> None:
    """Do one element and commit its result, with the digest by which a flipped bit in it is noticed."""
    cv2.setNumThreads(1)
    if is_done(plan, index):
        return
    element = plan.elements[index]
    facts = {"schema": SCAN_SCHEMA, "plan": element.digest, "kind": element.kind, "name": element.name}
    values = {**facts, "directory": element.facts.get("directory"), **_do(plan, element)}
    write_atomic(element.result_path(plan.work), canonical_json({**values, "digest": digest(values)}))


def _do(plan: ScanPlan, element: Element) -> dict[str, Any]:
    controls, thresholds = plan.config.controls, plan.config.thresholds
    if element.kind in ("shard", "words"):
        return scan_shard(
            plan, join(join(plan.data, element.facts["directory"]), element.name), element.kind == "shard"
        )
    if element.kind == "clean":
        return {"clean": run_clean(plan.packs, controls, thresholds, plan.data)}
    if element.kind == "texts":
        return {"planted": run_texts(plan.words, element.name, controls)}
    side = next(side for side in plan.sides if side.name == element.name)
    if element.kind == "labels":
        return {"planted": run_labels(side.open_labels(), controls)}
    return {"planted": run_copies(side.open_pack(), side.images, controls, thresholds)}


def scan_shard(plan: ScanPlan, path: Place, pictures: bool = True) -> dict[str, Any]:
    """Scan every picture, label and text of one committed shard; its words alone when not `pictures`.

    Returns:
        counts (records, pictures, labels, texts, failed, weak: too little structure, plain: labels that tell nothing),
        sources {name: facts}, failures [{member, reason}], and findings: each a `Finding` as json with its key, sample
        (the key of the picture it is of), member, pixel_sha256, text (the training text) and similarity.
    """
    row = read_row(with_suffix(path, ".json"))
    shard = _Shard(plan)
    shard.counts["records"] = len(row.samples)
    with local_copy(path) as tar, tar.open("rb") as file:
        if file_sha256(tar) != row.sha256:
            shard.fail(name_of(path), "its sha256 is not the one it was committed with")
        for key in row.samples:
            try:
                parts = read_parts(file, row, key)
            except InputError as error:
                shard.fail(key, str(error))
                continue
            shard.scan_words(key, parts)
            if pictures:
                shard.scan_pictures(key, parts)
                shard.scan_labels(key, parts)
    shard.counts["failed"] = len(shard.failures)
    return {
        "sha256": row.sha256,
        "counts": shard.counts,
        "sources": {name: facts.as_json() for name, facts in sorted(shard.sources.items())},
        "failures": shard.failures,
        "findings": shard.findings,
    }


def is_picture(member: str) -> bool:
    """Tell whether a part of a record is a picture to compare: image, edited, source, target, albedo, any other one."""
    return member.lower().endswith(IMAGE_SUFFIXES) and member not in _NOT_PICTURES


def sample_key(key: str, parts: Parts) -> str:
    """Return the key of the picture that a record is of: what mixtures leave out by."""
    if "instruction.json" not in parts:
        return key
    meta = json.loads(parts["instruction.json"])
    spec = meta.get("spec")
    origin = spec.get("origin") if isinstance(spec, dict) else None
    named = origin.get("key") if isinstance(origin, dict) else None
    return str(named if named is not None else str(meta.get("key", key)).partition(".")[0])


class _Shard:
    """What is found while a shard is read."""

    def __init__(self, plan: ScanPlan) -> None:
        self.plan = plan
        self.counts = dict.fromkeys(("records", "pictures", "labels", "texts", "failed", "weak", "plain"), 0)
        self.sources: dict[str, SourceFacts] = defaultdict(SourceFacts)
        self.failures: list[dict[str, str]] = []
        self.findings: list[dict[str, Any]] = []
        self.sample = ""
        self.models = [open_model(embedder, plan.data) for embedder in plan.config.embedders]
        self.vectors = {side.name: open_vectors(side, plan.config) for side in plan.sides if side.pack is not None}

    def fail(self, member: str, reason: str) -> None:
        self.failures.append({"member": member, "reason": " ".join(reason.split())})

    def add(self, place: Mapping[str, Any], finding: Finding, similarity: Mapping[str, float]) -> None:
        where = {"sample": self.sample, "text": "", **place}
        self.findings.append({**where, **finding.as_json(), "similarity": dict(similarity)})

    def scan_words(self, key: str, parts: Parts) -> None:
        """Compare what a record says, is named and comes from with the benchmarks' texts and ids."""
        self.sample = key
        try:
            self.sample = sample_key(key, parts)
            source, licence, named = record_origin(parts)
            texts = record_texts(parts)
            parents = (*self.plan.config.sources.get(source or "", ()), *named)
            schemes = sorted({scheme for name in ancestors(parents) if (scheme := registry()[name].ids)})
            identities = find_ids(self.plan.ids, key, parts, schemes)
        except _DAMAGED as error:
            self.fail(f"{key}.json", f"its metadata cannot be read: {error}")
            return
        facts = self.sources[source or ""]
        facts.records += 1
        facts.licences[licence] += 1
        facts.named.update(named)
        for member, text in texts:
            self.counts["texts"] += 1
            for one in find_texts(self.plan.words, text):
                self.add({"key": key, "text": text, **place_of(member, text)}, one, {})
        for one in identities:
            self.add({"key": key, **place_of("json", one.image)}, one, {})

    def scan_pictures(self, key: str, parts: Parts) -> None:
        """Compare every picture of a record with every benchmark image."""
        for member, data in parts.items():
            if not is_picture(member):
                continue
            self.counts["pictures"] += 1
            try:
                image = decode_rgb(data, f"{key}.{member}")
                print_, found = scan_picture(image, data, self.plan.packs, self.plan.config.thresholds)
                similarity: dict[str, dict[str, float]] = defaultdict(dict)
                for model in self.models:
                    vector = embed(model, image)
                    for pack in self.plan.packs:
                        for vectors in self.vectors[pack.name]:
                            if vectors.name != model.embedder.name:
                                continue
                            known, more = similar_images(vector, vectors, pack, model.embedder, found)
                            found = [*found, *more]
                            for identity, value in known.items():
                                similarity[f"{pack.name}/{identity}"][vectors.name] = value
            except InputError as error:
                self.fail(f"{key}.{member}", str(error))
                continue
            self.counts["weak"] += print_.pdq.quality < MIN_QUALITY
            place = {"key": key, "member": member, "pixel_sha256": print_.pixel_sha256}
            for finding in found:
                self.add(place, finding, similarity[f"{finding.benchmark}/{finding.image}"])

    def scan_labels(self, key: str, parts: Parts) -> None:
        """Compare a record's masks and depth with the benchmarks'."""
        packs = self.plan.label_packs
        if not packs:
            return
        try:
            labels = record_labels(key, parts)
        except _DAMAGED as error:
            self.fail(f"{key} (labels)", str(error))
            return
        for member, _, one in labels:
            self.counts["labels"] += 1
            self.counts["plain"] += one.relief is None and not len(one.masks)
            place = {"key": key, "member": member, "pixel_sha256": hashlib.sha256(parts[member]).hexdigest()}
            for pack in packs:
                for finding in compare_labels(one, pack):
                    self.add(place, finding, {})
