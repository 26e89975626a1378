"""A benchmark as one of the project's readers gives it: pictures, texts and labels, for the audit to index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.matching.fingerprints import pixel_sha256
from cavendish.mixing.audit.signals.labels import LabelPrint
from cavendish.mixing.images import encode_png


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


@dataclass
class Taken:
    """What was taken from a benchmark: texts, fingerprints of labels, and what could not be read with reasons."""

    texts: list[str]
    labels: list[tuple[str, LabelPrint]]
    unread: list[dict[str, str]]
    pictures: int


def take(questions: Iterable[Question], folder: Path) -> Taken:
    """Write a benchmark's pictures into a folder, each once, as PNG; collect its texts and labels.

    A picture that several questions share has the first one's name.
    """
    taken = Taken([], [], [], 0)
    names: dict[str, str] = {}
    for question in questions:
        taken.texts += question.texts
        try:
            identity = _write_picture(question, folder, names)
            if question.read_labels is not None:
                taken.labels.append((identity, question.read_labels()))
        except InputError as error:
            taken.unread.append({"id": question.name, "reason": str(error)})
    taken.pictures = len(names)
    return taken


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


def listing(folder: Path) -> Iterator[list[str | int]]:
    """Yield name and size of every file of a download: what tells whether it is still the one that was read."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield [path.relative_to(folder).as_posix(), path.stat().st_size]
