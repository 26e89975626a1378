"""The card of a directory of shards or of a lock: README.md and ATTRIBUTION.md for people, and croissant.json.

Source: Croissant format specification 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, and the
RAI vocabulary 1.0; the context is the one mlcroissant 1.1 writes for that version. Of RAI only what is known is said.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import find_task
from cavendish.mixing.accounting import add_counts
from cavendish.mixing.cards.facts import Credit, ShardSet, add_up, licence_of, read_mixture, read_shard_set
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.storage.place import Place, is_file, join, make_folder, split_server, write_atomic

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def card(about: About, sets: Sequence[ShardSet], lock: Lock | None = None) -> str:
    """Write the card: what it is, what is in it, licences and duties, how it was made, how to check and load it."""
    parts = [_front_matter(sets), f"# {about.name}\n\n{about.description}", _contents(sets)]
    if lock is not None:
        parts.append(_mixture(lock))
    parts += [_licences(sets), _making(sets), _limits(sets), _use(about, sets, lock)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(sets: Sequence[ShardSet]) -> str:
    """The YAML that hubs read."""
    licences = sorted({licence for shards in sets for licence in add_up(shards.licences)})
    plain = licences[0].lower() if len(licences) == 1 and licence_of(licences[0]).known else "other"
    categories = sorted({name for shards in sets for task in shards.tasks if (name := find_task(task).hub_category)})
    count = sum(shards.records for shards in sets)
    size = next((name for most, name in _SIZES if count < most), "n>10M")
    lines = ["---", f"license: {plain}", "task_categories:", *(f"- {name}" for name in categories)]
    return "\n".join([*lines, "size_categories:", f"- {size}", "tags:", "- webdataset", "- croissant", "---"])


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _contents(sets: Sequence[ShardSet]) -> str:
    head = ("set", "made by", "shards", "records", "MB", "rejected", "plan", "sha256 of the shards")
    rows, sizes = [], []
    for shards in sets:
        counts = f"{shards.records:,}", f"{shards.bytes / 1e6:,.1f}", f"{shards.rejected:,}"
        digests = f"`{shards.plan.digest[:16]}`", f"`{shards.digest[:16]}`"
        rows.append((shards.name, shards.plan.kind, len(shards.tars), *counts, *digests))
        sizes += [(shards.name, f"{width} x {height}", f"{count:,}") for (height, width), count in shards.sizes.items()]
    text = ["## Contents", _table(head, rows), "Records by the parts they have (docs/shards.md of Cavendish):"]
    text += [_by_set("part", sets, [shards.parts for shards in sets]), "By the task they can serve:"]
    text += [_by_set("task", sets, [shards.tasks for shards in sets]), "By size:"]
    return "\n\n".join([*text, _few(("set", "width x height", "records"), sizes)])


def _by_set(what: str, sets: Sequence[ShardSet], counts: Sequence[Mapping[str, int]]) -> str:
    names = sorted({name for count in counts for name in count})
    rows = [(name, *(f"{count[name]:,}" if name in count else "" for count in counts)) for name in names]
    return _table((what, *(shards.name for shards in sets)), rows)


def _few(head: Sequence[str], rows: Sequence[Sequence[object]], most: int = 20) -> str:
    """Write a table, and of a very long one the beginning."""
    shown = _table(head, rows[:most])
    return shown if len(rows) <= most else f"{shown}\n\nand {len(rows) - most:,} more."


def _mixture(lock: Lock) -> str:
    rows = []
    for stream in lock.streams:
        shares = [float(Fraction(share)) for _, share in stream.share]
        share = f"{shares[0]:.4%}" if len(shares) == 1 else f"{shares[0]:.4%} to {shares[-1]:.4%}"
        rows.append((stream.source, stream.task, stream.kind, f"{stream.pool:,}", share))
    left = [(source.name, reason, f"{count:,}") for source in lock.sources for reason, count in source.left_out.items()]
    text = ["## Mixture", f"Lock `{lock.digest}`, mixture `{lock.mixture_digest}`, seed {lock.seed}. Shares are exact:"]
    text.append(_table(("source", "task", "kind", "records", "share of all examples"), rows))
    if left:
        text += ["Records that are in the shards and not drawn:", _table(("source", "reason", "records"), left)]
    audit = lock.audit
    if audit is None:
        return "\n\n".join([*text, "The mixture names no leakage audit."])
    return "\n\n".join([*text, f"Leakage audit: verdict {audit['verdict']}, report sha256 `{audit['sha256']}`."])


def _licences(sets: Sequence[ShardSet]) -> str:
    total = add_up(add_counts(shards.licences for shards in sets))
    rows = []
    for name, count in total.items():
        licence = licence_of(name)
        written = f"[{name}]({licence.url})" if licence.url else name
        rows.append((written, f"{count:,}", "; ".join(licence.asks)))
    text = ["## Licences", _table(("licence", "records", "what it asks"), rows)]
    people = len({author for shards in sets for _, author, _ in shards.credits if author})
    if people:
        text.append(
            f"ATTRIBUTION.md names the works that were used: {people} authors. Share it together with the data."
        )
    unnamed = [f"{count:,} under {name} in {shards.name}" for shards in sets for name, count in shards.unnamed.items()]
    if unnamed:
        text.append(f"**Authors missing**: {', '.join(unnamed)}. These licences ask for a name, and none is known.")
    unknown = [name for name in total if not licence_of(name).known]
    if unknown:
        text.append(
            f"**Not cleared**: {', '.join(unknown)}. Nothing is assumed of a licence that is not known by name."
        )
    return "\n\n".join(text)


def _making(sets: Sequence[ShardSet]) -> str:
    values = rai(sets)
    text = ["## How it was made", str(values.get("rai:dataCollection", ""))]
    text += [str(line) for line in values.get("rai:dataAnnotationProtocol", ())]
    tools = [(shards.name, tool, used) for shards in sets for tool, used in shards.tools.items()]
    if tools:
        text.append(_table(("set", "tool", "version"), tools))
    models = [(shards.name, *model[:3], f"`{model[3][:16]}`") for shards in sets for model in shards.models]
    if models:
        text.append(_table(("set", "model", "for", "licence", "weights sha256"), models))
    return "\n\n".join(part for part in text if part)


def _limits(sets: Sequence[ShardSet]) -> str:
    values = rai(sets)
    lines = [*values.get("rai:dataLimitations", ()), *values.get("rai:personalSensitiveInformation", ())]
    return "\n".join(["## Limits, and people", "", *(f"- {line}" for line in lines)]) if lines else ""


def _use(about: About, sets: Sequence[ShardSet], lock: Lock | None) -> str:
    first = shlex.quote(sets[0].path or ".")
    lines = [f"cavendish show {first} --verify  # every hash, every record"]
    lines.append(f"cavendish show {first} KEY --provenance  # where one record comes from")
    if lock is not None:
        lines.append("cavendish show LOCK --lineage  # every shard of the mixture against its hash")
    lines.append("python -c \"import mlcroissant; mlcroissant.Dataset('croissant.json')\"")
    text = ["## Checking and loading", "\n".join(f"    {line}" for line in lines)]
    text.append("The tars are WebDataset shards. mlcroissant keeps what it extracts under the name of a tar: set")
    text[-1] += " `CROISSANT_CACHE` to a folder of its own for each set of shards."
    return "\n\n".join([*text, f"Cite: {about.cite}" if about.cite else ""]).rstrip()


def attribution(about: About, sets: Sequence[ShardSet]) -> str:
    """List the works that were used, with author and licence, by how many records use them; "" when there are none."""
    total: Counter[Credit] = Counter()
    for shards in sets:
        total.update(shards.credits)
    if not total:
        return ""
    rows = []
    for (name, author, licence), count in sorted(total.items(), key=lambda item: (item[0][1].lower(), item[0])):
        rows.append((author or "unknown", name, licence, f"{count:,}"))
    asked: Mapping[str, None] = dict.fromkeys(licence for _, _, licence in sorted(total))
    links = [f"- {name}: {licence_of(name).url}" for name in sorted(asked) if licence_of(name).url]
    head = f"# Attribution: {about.name}\n\nPictures of this data set show, or are, works of these authors; they were"
    head += " rendered, resized or labelled."
    return "\n\n".join([head, _table(("author", "work", "licence", "records"), rows), "\n".join(links)]).rstrip() + "\n"


def write_card(path: Place, out: Place, about: About, data: Place = Path()) -> tuple[Place, ...]:
    """Write the card; the same shards and words give the same bytes.

    Args:
        path: a finished directory of shards, or the lock of a mixture.
        out: folder to write to; contents are named relative to it unless `about.url` says where they are published.
        data: folder that the paths in a lock, and in the plan of instruction shards, are relative to.

    Raises:
        InputError: neither is there, not finished, or not the locked shards.
    """
    lock: Lock | None = None
    folders: dict[str, Place]
    if is_file(path):
        lock = read_lock(path)
        sets = read_mixture(lock, data)
        folders = {shards.name: join(data, shards.path) for shards in sets}
    else:
        sets = (read_shard_set(path, data, path=path.as_posix() if isinstance(path, Path) else path),)
        folders = {sets[0].name: path}
    folder_of = {shards.name: _folder(shards, folders[shards.name], out, about, len(sets) > 1) for shards in sets}
    text = json.dumps(croissant(about, sets, folder_of), indent=1, ensure_ascii=False, sort_keys=True)
    files: Mapping[str, str] = {
        "README.md": card(about, sets, lock),
        "croissant.json": text + "\n",
        "ATTRIBUTION.md": attribution(about, sets),
    }
    make_folder(out)
    written = []
    for name, text in files.items():
        if text:
            write_atomic(join(out, name), text.encode())
            written.append(join(out, name))
    return tuple(written)


def _folder(shards: ShardSet, folder: Place, out: Place, about: About, several: bool) -> str:
    """Say where the tars of a set are, for the metadata in `out`: where they are published, else relative to it."""
    if several and split_server(shards.path)[0]:
        return shards.path.rstrip("/")
    if about.url:
        if not split_server(about.url)[0]:
            raise InputError(f"--url {about.url}: an address with a scheme, such as https://")
        return "/".join([about.url.rstrip("/"), *([shards.path] if several else [])])
    (server, path), (server_of_out, path_of_out) = split_server(folder), split_server(out)
    if server == server_of_out:
        relative = posixpath.relpath(path or ".", path_of_out or ".")
        return "" if relative == "." else relative
    if not server:
        raise InputError(f"{folder}: is on this machine, and its card would not be: give --url, where both can be read")
    return str(folder)


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
