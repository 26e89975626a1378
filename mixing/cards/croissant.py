"""Croissant metadata (JSON-LD) of shards, with the parts of the RAI extension that can be said honestly.

Source: Croissant format specification 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, and the
RAI vocabulary 1.0; the context is the one mlcroissant 1.1 writes for that version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.mixing.cards.facts import ShardSet, add_up, licence_of

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_PLAIN = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty"),
    *(
        "fileObject",
        "fileSet",
        "format",
        "includes",
        "isArray",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
    ),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source"),
    *("subField", "transform"),
)
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{name: f"cr:{name}" for name in _PLAIN},
}
_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "json": "application/json"}
_WHAT = {
    "image": "the picture",
    "depth": "planar depth, 16-bit codes of log metres (log16/1)",
    "normals": "camera-space normals, 16 bits a component (unit16/1)",
    "geometric_normals": "normals of the flat faces (unit16/1)",
    "albedo": "base colour of the surfaces",
    "weight": "how far a pixel is to be trusted, 8 bits",
    "instances": "instance ids, 16 bits, 0 background",
    "edited": "the picture with one change",
    "json": "source, licence, camera, instances, captions, provenance",
    "source": "the picture an instruction is about",
    "target": "the decodable answer",
    "instruction": "task, prompt and what a decoder needs",
}


@dataclass(frozen=True)
class About:
    """What no shard knows of itself.

    Args:
        url: where the data are published; contents are then named by URLs below it.
        date: of publication, as YYYY-MM-DD; "": none is written.
    """

    name: str
    description: str
    version: str = "1.0.0"
    creator: str = ""
    url: str = ""
    date: str = ""
    cite: str = ""


def croissant(about: About, sets: Sequence[ShardSet], folder_of: Mapping[str, str]) -> dict[str, Any]:
    """Describe sets of shards in Croissant.

    Each kind of part is a record set of its own, with the same `key` in all: a join over tars is more than readers of
    the format do.

    Args:
        folder_of: for each set, by name, where its tars are: relative to the metadata, or a URL.
    """
    several = len(sets) > 1
    distribution: list[dict[str, Any]] = []
    record_sets: list[dict[str, Any]] = []
    for one in sets:
        prefix = f"{one.name}/" if several else ""
        files, records = _describe(one, prefix, folder_of[one.name])
        distribution += files
        record_sets += records
    licences = add_up(_all_licences(sets))
    values: dict[str, Any] = {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": about.name,
        "description": about.description,
        "version": about.version,
        "license": [licence_of(name).url or name for name in licences],
        "keywords": sorted({task for one in sets for task in one.tasks} | {"WebDataset"}),
        "distribution": distribution,
        "recordSet": record_sets,
        **rai(sets),
    }
    more = {"url": about.url, "datePublished": about.date, "citeAs": about.cite}
    values |= {name: value for name, value in more.items() if value}
    if about.creator:
        values["creator"] = {"@type": "sc:Organization", "name": about.creator}
    return values


def _all_licences(sets: Sequence[ShardSet]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in sets:
        for name, count in one.licences.items():
            total[name] = total.get(name, 0) + count
    return total


def _describe(one: ShardSet, prefix: str, folder: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Describe the tars of a set and, for each part, the files of that name in them and their records."""
    files: list[dict[str, Any]] = []
    for name, size, sha256 in one.tars:
        tar = {"@type": "cr:FileObject", "@id": f"{prefix}{name}", "name": name, "sha256": sha256}
        where = f"{folder}/{name}" if folder else name
        files.append({**tar, "contentUrl": where, "contentSize": f"{size} B", "encodingFormat": "application/x-tar"})
    tars = [{"@id": f"{prefix}{name}"} for name, _, _ in one.tars]
    record_sets = []
    for part in one.parts:
        kind, _, suffix = part.rpartition(".")
        kind = kind or part
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{prefix}{part}",
                "name": f"{prefix}{part}",
                "containedIn": tars,
                "encodingFormat": _MEDIA.get(suffix or part, "application/octet-stream"),
                "includes": f"*.{part}",
            }
        )
        record_sets.append(_record_set(f"{prefix}records/{part}", f"{prefix}{part}", kind, part, one.parts[part]))
    return files, record_sets


def _record_set(name: str, file_set: str, kind: str, part: str, count: int) -> dict[str, Any]:
    def field(what: str, data_type: str, **source: Any) -> dict[str, Any]:
        source = {"fileSet": {"@id": file_set}, **source}
        return {"@type": "cr:Field", "@id": f"{name}/{what}", "name": what, "dataType": data_type, "source": source}

    picture = not part.endswith("json")
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{_WHAT.get(kind, kind)}; {count} records, by the key they have in every record set",
        "key": {"@id": f"{name}/key"},
        "field": [
            field("key", "sc:Text", extract={"fileProperty": "filename"}, transform={"regex": r"^([^.]+)\."}),
            field(kind, "sc:ImageObject" if picture else "sc:Text", extract={"fileProperty": "content"}),
        ],
    }


def rai(sets: Sequence[ShardSet]) -> dict[str, Any]:
    """Say of collection, labels, limits and people what is known from how the shards were made, and nothing else."""
    kinds = {_kind(one) for one in sets}
    kinds |= {"annotate"} if any(one.models for one in sets) else set()
    told = [_RAI[kind] for kind in sorted(kinds) if kind in _RAI]
    tools = sorted({" ".join((*model[:2], model[2], f"sha256 {model[3]}")) for one in sets for model in one.models})
    faces = sorted({one.faces for one in sets if one.faces})
    values: dict[str, Any] = {
        "rai:dataCollection": " ".join(one["collection"] for one in told),
        "rai:dataCollectionType": sorted({one["type"] for one in told}),
        "rai:dataAnnotationProtocol": [one["labels"] for one in told],
        "rai:dataLimitations": [one["limits"] for one in told],
        "rai:machineAnnotationTools": tools,
        "rai:dataUseCases": ["Training image generators to answer vision tasks with pictures that can be decoded."],
        "rai:personalSensitiveInformation": [_FACES[way] for way in faces if way in _FACES],
    }
    return {name: value for name, value in values.items() if value}


def _kind(one: ShardSet) -> str:
    return "render" if one.plan.kind.startswith("render-") else one.plan.kind


_RAI: Mapping[str, Mapping[str, str]] = {
    "render": {
        "collection": "Pictures are rendered from scenes that a program composes from a seed.",
        "type": "Software Collection",
        "labels": "Depth, normals and ids are computed from the scene's geometry; no person annotated anything.",
        "limits": "Rendered scenes: furniture, light and materials are less varied than in photographs.",
    },
    "annotate": {
        "collection": "Pictures are taken from collections of others, each with the licence stated for it.",
        "type": "Secondary Data analysis",
        "labels": "Labels are made by models and kept where checks agree; no person annotated or checked them.",
        "limits": "Labels of models are no ground truth; what the checks leave out is not random.",
    },
    "convert": {
        "collection": "Records are taken over from data sets of others, with the licence stated for each.",
        "type": "Secondary Data analysis",
        "labels": "Labels are those of the data sets taken over.",
        "limits": "What the original data sets say of their limits holds here too.",
    },
    "encode": {
        "collection": "Examples are drawn from raw shards: an instruction, a picture, and the answer as a picture.",
        "type": "Software Collection",
        "labels": "Answers are encoded from the labels of the raw shards by a deterministic program.",
        "limits": "What is said of the raw shards holds here too.",
    },
}
_FACES: Mapping[str, str] = {
    "blur": "Pictures may show people; faces that a detector found are made unrecognisable.",
    "drop": "Pictures in which a detector found a face are left out.",
    "keep": "Pictures may show people; faces are counted and left as they are.",
    "ignore": "Pictures may show people; faces were not looked for.",
}
