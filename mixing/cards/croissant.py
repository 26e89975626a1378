"""Croissant metadata (JSON-LD) of shards, with the parts of the RAI extension that can be said honestly.

Source: Croissant format specification 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, and the
RAI vocabulary 1.0; the context is the one mlcroissant 1.1 writes for that version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.mixing.accounting import add_counts
from cavendish.mixing.cards.facts import ShardSet, add_up, licence_of

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_PLAIN = """arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format
    includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
    samplingRate separator source subField transform"""
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
    **{name: f"cr:{name}" for name in _PLAIN.split()},
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
    distribution: list[dict[str, Any]] = []
    record_sets: list[dict[str, Any]] = []
    for shards in sets:
        prefix = f"{shards.name}/" if len(sets) > 1 else ""
        files, records = _describe(shards, prefix, folder_of[shards.name])
        distribution += files
        record_sets += records
    licences = add_up(add_counts(shards.licences for shards in sets))
    values: dict[str, Any] = {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": about.name,
        "description": about.description,
        "version": about.version,
        "license": [licence_of(name).url or name for name in licences],
        "keywords": sorted({task for shards in sets for task in shards.tasks} | {"WebDataset"}),
        "distribution": distribution,
        "recordSet": record_sets,
        **rai(sets),
    }
    more = {"url": about.url, "datePublished": about.date, "citeAs": about.cite}
    values |= {name: value for name, value in more.items() if value}
    if about.creator:
        values["creator"] = {"@type": "sc:Organization", "name": about.creator}
    return values


def _describe(shards: ShardSet, prefix: str, folder: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Describe the tars of a set and, for each part, the files of that name in them and their records."""
    files: list[dict[str, Any]] = []
    for name, size, sha256 in shards.tars:
        tar = {"@type": "cr:FileObject", "@id": f"{prefix}{name}", "name": name, "sha256": sha256}
        where = f"{folder}/{name}" if folder else name
        files.append({**tar, "contentUrl": where, "contentSize": f"{size} B", "encodingFormat": "application/x-tar"})
    tars = [{"@id": f"{prefix}{name}"} for name, _, _ in shards.tars]
    record_sets = []
    for part in shards.parts:
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
        record_sets.append(_record_set(f"{prefix}records/{part}", f"{prefix}{part}", kind, part, shards.parts[part]))
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
    """Return what is known of collection, labels, limits and people from how the shards were made, and nothing else."""
    kinds = {"render" if shards.plan.kind.startswith("render-") else shards.plan.kind for shards in sets}
    kinds |= {"annotate"} if any(shards.models for shards in sets) else set()
    texts = [_RAI[kind] for kind in sorted(kinds) if kind in _RAI]
    faces = sorted({shards.faces for shards in sets if shards.faces})
    values: dict[str, Any] = {
        "rai:dataCollection": " ".join(text["collection"] for text in texts),
        "rai:dataCollectionType": sorted({text["type"] for text in texts}),
        "rai:dataAnnotationProtocol": [text["labels"] for text in texts],
        "rai:dataLimitations": [text["limits"] for text in texts],
        "rai:machineAnnotationTools": sorted(
            {f"{id} {task} {licence} sha256 {sha256}" for shards in sets for id, task, licence, sha256 in shards.models}
        ),
        "rai:dataUseCases": ["Training image generators to answer vision tasks with pictures that can be decoded."],
        "rai:personalSensitiveInformation": [_FACES[way] for way in faces if way in _FACES],
    }
    return {name: value for name, value in values.items() if value}


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
