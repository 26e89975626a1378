"""The benchmark side of an audit: the index of each benchmark, made or refreshed from what the user has of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.benchmarks.image_files import list_benchmark, read_original
from cavendish.mixing.audit.benchmarks.image_pack import Pack, build_pack, read_pack
from cavendish.mixing.audit.benchmarks.label_pack import (
    LabelPack,
    build_label_pack,
    label_files_digest,
    read_label_files,
    read_label_pack,
)
from cavendish.mixing.audit.config import AuditConfig, Benchmark, Embedder
from cavendish.mixing.audit.matching.fingerprints import ALGORITHM, pixel_sha256
from cavendish.mixing.audit.matching.label_prints import LABELS_ALGORITHM, LabelPrint
from cavendish.mixing.audit.signals.embeddings import Vectors, build_vectors, open_model, read_vectors
from cavendish.mixing.images import encode_png
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import files_below, read_json, write_atomic


@dataclass(frozen=True)
class Question:
    """One item of a benchmark.

    Args:
        name: unique in the benchmark; may hold slashes.
        texts: its prompt or its expressions, without the project's own wording around them.
        read_image: returns the (H, W, 3) uint8 picture; None where the benchmark has none.
        read_labels: returns the fingerprint of its masks or depth; None where it has none.
    """

    name: str
    texts: tuple[str, ...] = ()
    read_image: Callable[[], UInt8Image] | None = None
    read_labels: Callable[[], LabelPrint] | None = None


Reader = Callable[[str, Path], Iterable[Question]]
"""Reads a benchmark, by the reader's name, from the folder it was downloaded to."""


@dataclass(frozen=True)
class BenchmarkIndex:
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

    def open_vectors(self, embedder: Embedder) -> Vectors:
        """Open a model's vectors of its images."""
        assert self.pack is not None
        return _open_vectors(*self.pack, embedder)


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


def index_benchmarks(
    config: AuditConfig, out: Path, data: Path, reader: Reader | None = None
) -> tuple[list[BenchmarkIndex], list[tuple[str, str]]]:
    """Make or refresh everything that is kept of the benchmarks.

    Returns:
        the indexes, and (name, reason) of what is not there.

    Raises:
        InputError: a benchmark names a reader, and none was given; an embedder's file is not the one named.
    """
    missing = Missing(data)
    work = work_folder(config, out, data)
    models = [open_model(embedder, data) for embedder in config.embedders]
    if reader is None:
        reader = no_reader
    indexes = []
    for benchmark in config.benchmarks:
        index = BenchmarkIndex(benchmark.name)
        try:
            if benchmark.reader is not None:
                index = _read_benchmark(benchmark, config, work, data, reader)
            elif benchmark.folder is not None or benchmark.pack is not None:
                index = _open_or_build(benchmark, config, work, data)
        except InputError as error:
            missing.add(benchmark.name, error)
        if benchmark.labels is not None:
            try:
                pack = _file_labels(benchmark, work / "packs" / benchmark.name / "labels", data)
                index = replace(index, labels=(pack.folder, pack.digest))
            except InputError as error:
                missing.add(benchmark.name, error)
        if index.pack is not None:
            index = _embedded(index, config, missing) if models else index
        indexes.append(index)
    return indexes, missing.rows


def no_reader(name: str, folder: Path) -> Iterable[Question]:
    """Stand in for a reader where none is given."""
    raise InputError(f"reader {name} is unavailable; run the audit by its command line")


def metadata_index(benchmark: Benchmark, data: Path, reader: Reader) -> BenchmarkIndex:
    """Take only the texts and names of a benchmark."""
    if benchmark.reader is not None and benchmark.folder is not None:
        questions = list(reader(benchmark.reader, data / benchmark.folder))
        texts = tuple(text for question in questions for text in question.texts)
        return BenchmarkIndex(benchmark.name, texts=texts, names=tuple(question.name for question in questions))
    if benchmark.folder is not None:
        folder = data / benchmark.folder
        return BenchmarkIndex(benchmark.name, names=tuple(list_benchmark(folder).images))
    if benchmark.pack is not None:
        return BenchmarkIndex(
            benchmark.name, names=tuple(image["id"] for image in read_pack(data / benchmark.pack).images)
        )
    return BenchmarkIndex(benchmark.name)


def _open_or_build(benchmark: Benchmark, config: AuditConfig, work: Path, data: Path) -> BenchmarkIndex:
    if benchmark.folder is not None:
        folder = data / benchmark.folder
        suffix = "" if benchmark.labels is None else benchmark.labels.suffix
        pack = build_pack(benchmark.name, folder, work / "packs" / benchmark.name, config.pixels, suffix)
        return BenchmarkIndex(benchmark.name, (pack.folder, pack.digest), folder)
    assert benchmark.pack is not None
    pack = read_pack(data / benchmark.pack)
    if pack.name != benchmark.name:
        raise InputError(f"{data / benchmark.pack}: a pack of {pack.name}, not of {benchmark.name}")
    labels = None
    if (pack.folder / "labels").is_dir():
        made = read_label_pack(pack.folder / "labels")
        labels = (made.folder, made.digest)
    return BenchmarkIndex(benchmark.name, (pack.folder, pack.digest), labels=labels)


def _read_benchmark(
    benchmark: Benchmark, config: AuditConfig, work: Path, data: Path, reader: Reader
) -> BenchmarkIndex:
    """Index a benchmark through its reader; the pictures are written out only for as long as that takes."""
    assert benchmark.folder is not None
    assert benchmark.reader is not None
    folder, place = data / benchmark.folder, work / "packs" / benchmark.name
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmark {benchmark.name}")
    made_with = [benchmark.reader, ALGORITHM, LABELS_ALGORITHM, cv2.__version__, config.pixels]
    source = digest([*made_with, [one.sha256 for one in config.embedders], list(_listing(folder))])
    note = place / "extracted.json"
    known = read_json(note, "what was extracted from a benchmark") if note.exists() else None
    if known is None or known["source"] != source:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix=f"{benchmark.name}-") as pictures:
            extracted = _extract(reader(benchmark.reader, folder), Path(pictures))
            if extracted.pictures:
                index = BenchmarkIndex(benchmark.name, images=Path(pictures))
                pack = build_pack(benchmark.name, Path(pictures), place, config.pixels)
                _embedded(replace(index, pack=(pack.folder, pack.digest)), config, Missing(data))
            if extracted.labels:
                build_label_pack(benchmark.name, extracted.labels, place / "labels", source)
        unread = [[item["id"], item["reason"].replace(f"{data}/", "")] for item in extracted.unread]
        known = {
            "source": source,
            "texts": extracted.texts,
            "unread": unread,
            "pictures": extracted.pictures,
            "labels": len(extracted.labels),
        }
        write_atomic(note, canonical_json(known))
    made = read_pack(place) if known["pictures"] else None
    labels = read_label_pack(place / "labels") if known["labels"] else None
    return BenchmarkIndex(
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


def _embedded(index: BenchmarkIndex, config: AuditConfig, missing: Missing) -> BenchmarkIndex:
    """Add each embedder's vectors, made from the images where they are here, else those that came with the pack."""
    pack = index.open_pack()
    found = []
    for embedder in config.embedders:
        try:
            if index.images is not None:
                images = (read_original(index.images, one["id"]) for one in pack.images)
                vectors = build_vectors(open_model(embedder, missing.data), images, pack)
            else:
                vectors = read_vectors(pack, embedder)
            found.append((vectors.name, vectors.digest))
        except InputError as error:
            missing.add(index.name, error)
    return replace(index, vectors=tuple(found))


@lru_cache(maxsize=64)
def _open_pack(folder: Path, pack_digest: str) -> Pack:
    """Open a pack once in each process."""
    pack = read_pack(folder)
    if pack.digest != pack_digest:
        raise InputError(f"{folder}: the pack changed while the scan ran; run again")
    return pack


@lru_cache(maxsize=64)
def _open_vectors(folder: Path, pack_digest: str, embedder: Embedder) -> Vectors:
    return read_vectors(_open_pack(folder, pack_digest), embedder)


@lru_cache(maxsize=64)
def _open_labels(folder: Path, pack_digest: str) -> LabelPack:
    pack = read_label_pack(folder)
    if pack.digest != pack_digest:
        raise InputError(f"{folder}: the pack changed while the scan ran; run again")
    return pack


@dataclass
class _Extracted:
    """Extracted from a benchmark: texts, fingerprints of labels, and what could not be read with reasons."""

    texts: list[str]
    labels: list[tuple[str, LabelPrint]]
    unread: list[dict[str, str]]
    pictures: int


def _extract(questions: Iterable[Question], folder: Path) -> _Extracted:
    """Write a benchmark's pictures into a folder, each once, as PNG; collect its texts and labels.

    A picture that several questions share has the first one's name.
    """
    extracted = _Extracted([], [], [], 0)
    names: dict[str, str] = {}
    for question in questions:
        extracted.texts += question.texts
        try:
            identity = _write_picture(question, folder, names)
            if question.read_labels is not None:
                extracted.labels.append((identity, question.read_labels()))
        except InputError as error:
            extracted.unread.append({"id": question.name, "reason": str(error)})
    extracted.pictures = len(names)
    return extracted


def _write_picture(question: Question, folder: Path, names: dict[str, str]) -> str:
    identity = f"{question.name}.png"
    if question.read_image is None:
        return identity
    image = question.read_image()
    known = names.setdefault(pixel_sha256(image), identity)
    if known == identity:
        path = folder / identity
        if ".." in path.relative_to(folder).parts:
            raise InputError(f"{question.name}: leads out of the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return known


def _listing(folder: Path) -> Iterator[list[str | int]]:
    """Yield name and size of every file of a download: what tells whether it is still the one that was read."""
    for path in sorted(folder / name for name in files_below(folder)):
        yield [path.relative_to(folder).as_posix(), path.stat().st_size]
