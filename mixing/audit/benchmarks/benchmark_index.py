"""The benchmark side of an audit: what is kept of each benchmark, made or refreshed from what the user has of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.contents import Question, Reader, listing, take
from cavendish.mixing.audit.benchmarks.image_pack import Pack, build_pack, image_files, read_pack
from cavendish.mixing.audit.benchmarks.label_pack import (
    LabelPack,
    build_label_pack,
    label_files_digest,
    read_label_files,
    read_label_pack,
)
from cavendish.mixing.audit.config import AuditConfig, Benchmark
from cavendish.mixing.audit.matching.fingerprints import ALGORITHM
from cavendish.mixing.audit.signals.embeddings import Vectors, build_vectors, open_model, read_vectors
from cavendish.mixing.audit.signals.labels import LABELS_ALGORITHM
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.storage.files import canonical_json, digest, read_json, write_atomic


@dataclass(frozen=True)
class Side:
    """One benchmark as it is indexed; packs by folder and digest, so that workers open them themselves.

    `images` is the folder of its original images, where there is one; `names` are those of its images and label maps.
    """

    name: str
    pack: tuple[Path, str] | None = None
    images: Path | None = None
    labels: tuple[Path, str] | None = None
    vectors: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    def open_pack(self) -> Pack:
        """Open its fingerprints."""
        assert self.pack is not None
        return _open_pack(*self.pack)

    def open_labels(self) -> LabelPack:
        """Open its fingerprints of labels."""
        assert self.labels is not None
        return _open_labels(*self.labels)


@dataclass
class Missing:
    """Collects (name, reason) of what is not there."""

    data: Path
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, reason: object) -> None:
        """Note why something of a benchmark is not there."""
        self.rows.append((name, str(reason).replace(f"{self.data}/", "")))  # no machine paths in a report


def work_folder(config: AuditConfig, out: Path, data: Path) -> Path:
    """Name the folder of packs and results."""
    return out if config.work is None else data / config.work


def index_sides(
    config: AuditConfig, out: Path, data: Path, reader: Reader | None = None
) -> tuple[list[Side], list[tuple[str, str]]]:
    """Make or refresh everything that is kept of the benchmarks.

    Returns:
        the sides, and (name, reason) of what is not there.

    Raises:
        InputError: a benchmark names a reader, and none was given; an embedder's file is not the one named.
    """
    missing = Missing(data)
    work = work_folder(config, out, data)
    models = [open_model(embedder, data) for embedder in config.embedders]
    if reader is None:
        reader = no_reader
    sides = []
    for benchmark in config.benchmarks:
        side = Side(benchmark.name)
        try:
            if benchmark.reader is not None:
                side = _take(benchmark, config, work, data, reader)
            elif benchmark.folder is not None or benchmark.pack is not None:
                side = _open_or_build(benchmark, config, work, data)
        except InputError as error:
            missing.add(benchmark.name, error)
        if benchmark.labels is not None:
            try:
                pack = _file_labels(benchmark, work / "packs" / benchmark.name / "labels", data)
                side = replace(side, labels=(pack.folder, pack.digest))
            except InputError as error:
                missing.add(benchmark.name, error)
        if side.pack is not None:
            side = _embedded(side, config, missing) if models else side
        sides.append(side)
    return sides, missing.rows


def no_reader(name: str, folder: Path) -> Iterable[Question]:
    """Stand in for a reader where none is given."""
    raise InputError(f"reader {name} is not at hand here; run the audit by its command line")


def named_side(benchmark: Benchmark, data: Path, reader: Reader) -> Side:
    """Take only the texts and names of a benchmark."""
    if benchmark.reader is not None and benchmark.folder is not None:
        questions = list(reader(benchmark.reader, data / benchmark.folder))
        texts = tuple(text for question in questions for text in question.texts)
        return Side(benchmark.name, texts=texts, names=tuple(question.name for question in questions))
    if benchmark.folder is not None:
        folder = data / benchmark.folder
        return Side(benchmark.name, names=tuple(path.relative_to(folder).as_posix() for path in image_files(folder)))
    if benchmark.pack is not None:
        return Side(benchmark.name, names=tuple(image["id"] for image in read_pack(data / benchmark.pack).images))
    return Side(benchmark.name)


def _open_or_build(benchmark: Benchmark, config: AuditConfig, work: Path, data: Path) -> Side:
    if benchmark.folder is not None:
        folder = data / benchmark.folder
        pack = build_pack(benchmark.name, folder, work / "packs" / benchmark.name, config.pixels)
        return Side(benchmark.name, (pack.folder, pack.digest), folder)
    assert benchmark.pack is not None
    pack = read_pack(data / benchmark.pack)
    if pack.name != benchmark.name:
        raise InputError(f"{data / benchmark.pack}: a pack of {pack.name}, not of {benchmark.name}")
    labels = None
    if (pack.folder / "labels").is_dir():
        made = read_label_pack(pack.folder / "labels")
        labels = (made.folder, made.digest)
    return Side(benchmark.name, (pack.folder, pack.digest), labels=labels)


def _take(benchmark: Benchmark, config: AuditConfig, work: Path, data: Path, reader: Reader) -> Side:
    """Index a benchmark through its reader; the pictures are written out only for as long as that takes."""
    assert benchmark.folder is not None
    assert benchmark.reader is not None
    folder, place = data / benchmark.folder, work / "packs" / benchmark.name
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmark {benchmark.name}")
    made_with = [benchmark.reader, ALGORITHM, LABELS_ALGORITHM, cv2.__version__, config.pixels]
    source = digest([*made_with, [one.sha256 for one in config.embedders], list(listing(folder))])
    note = place / "taken.json"
    known = read_json(note, "what was taken of a benchmark") if note.exists() else None
    if known is None or known["source"] != source:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix=f"{benchmark.name}-") as pictures:
            taken = take(reader(benchmark.reader, folder), Path(pictures))
            if taken.pictures:
                side = Side(benchmark.name, images=Path(pictures))
                pack = build_pack(benchmark.name, Path(pictures), place, config.pixels)
                _embedded(replace(side, pack=(pack.folder, pack.digest)), config, Missing(data))
            if taken.labels:
                build_label_pack(benchmark.name, taken.labels, place / "labels", source)
        unread = [[item["id"], item["reason"].replace(f"{data}/", "")] for item in taken.unread]
        known = {
            "source": source,
            "texts": taken.texts,
            "unread": unread,
            "pictures": taken.pictures,
            "labels": len(taken.labels),
        }
        write_atomic(note, canonical_json(known))
    made = read_pack(place) if known["pictures"] else None
    labels = read_label_pack(place / "labels") if known["labels"] else None
    return Side(
        benchmark.name,
        pack=None if made is None else (made.folder, made.digest),
        labels=None if labels is None else (labels.folder, labels.digest),
        texts=tuple(known["texts"]),
        unread=tuple((identity, reason) for identity, reason in known["unread"]),
    )


def _file_labels(benchmark: Benchmark, place: Path, data: Path) -> LabelPack:
    assert benchmark.labels is not None
    folder, kind, suffix = data / benchmark.labels.folder, benchmark.labels.kind, benchmark.labels.suffix
    source = digest([LABELS_ALGORITHM, label_files_digest(folder, kind, suffix)])
    try:
        known = read_label_pack(place)
        if (known.header["source"], known.name) == (source, benchmark.name):
            return known
    except InputError:
        pass  # not there yet, or of another version: it is made again
    maps, unread = read_label_files(folder, kind, suffix)
    return build_label_pack(benchmark.name, maps, place, source, unread)


def _embedded(side: Side, config: AuditConfig, missing: Missing) -> Side:
    """Add each embedder's vectors, made from the images where they are here, else those that came with the pack."""
    pack = side.open_pack()
    found = []
    for embedder in config.embedders:
        try:
            if side.images is not None:
                images = side.images
                pictures = (decode_rgb((images / one["id"]).read_bytes(), one["id"]) for one in pack.images)
                vectors = build_vectors(open_model(embedder, missing.data), pictures, pack)
            else:
                vectors = read_vectors(pack, embedder)
            found.append((vectors.name, vectors.digest))
        except InputError as error:
            missing.add(side.name, error)
    return replace(side, vectors=tuple(found))


def open_vectors(side: Side, config: AuditConfig) -> list[Vectors]:
    """Open the vectors of a side, in the order of the embedders."""
    named = {embedder.name: embedder for embedder in config.embedders}
    return [read_vectors(side.open_pack(), named[name]) for name, _ in side.vectors]


@lru_cache(maxsize=64)
def _open_pack(folder: Path, pack_digest: str) -> Pack:
    """Open a pack once in each process."""
    pack = read_pack(folder)
    if pack.digest != pack_digest:
        raise InputError(f"{folder}: the pack changed while the scan ran; run again")
    return pack


@lru_cache(maxsize=64)
def _open_labels(folder: Path, pack_digest: str) -> LabelPack:
    pack = read_label_pack(folder)
    if pack.digest != pack_digest:
        raise InputError(f"{folder}: the pack changed while the scan ran; run again")
    return pack
