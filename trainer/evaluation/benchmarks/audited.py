"""The readers' benchmarks as the leakage audit takes them: pictures, texts without wording, fingerprints of labels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cavendish.mixing.audit.benchmarks.benchmark_index import Question
from cavendish.mixing.audit.matching.label_prints import LabelPrint, print_depth, print_ids, print_masks
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.benchmarks.items import (
    DepthTruth,
    InstancesTruth,
    Item,
    MaskTruth,
    NormalsTruth,
    SemanticTruth,
)


def read_questions(reader: str, folder: Path) -> Iterator[Question]:
    """Yield the items of a benchmark, read by name from the folder it was downloaded to.

    Raises:
        InputError: unknown name, or a missing or odd folder or file.
    """
    benchmark = read_benchmark(reader, folder)
    for item in benchmark.items:
        labelled = item.read_truth is not None and benchmark.task in ("depth", "semantic", "referring", "instance")
        yield Question(
            name=item.picture or item.name,
            texts=_texts(item, benchmark.task),
            read_image=item.read_image,
            read_labels=partial(_print_truth, item) if labelled else None,
        )


def _texts(item: Item, task: str) -> tuple[str, ...]:
    """Return what the benchmark itself says; the wording around an expression is this project's."""
    if task in ("generate", "edit"):
        return (item.prompt,)
    if task == "referring":
        return tuple(row[0] for row in item.spec["legend"])
    return (item.spec["category"],) if task == "instance" else ()


def _print_truth(item: Item) -> LabelPrint:
    assert item.read_truth is not None
    truth = item.read_truth()
    match truth:
        case DepthTruth():
            return print_depth(truth.depth_m)
        case SemanticTruth():
            return print_ids(truth.labels)
        case MaskTruth():
            return print_masks([truth.mask])
        case InstancesTruth():
            return print_masks(mask for masks in truth.annotators for mask in masks)
        case NormalsTruth():
            raise AssertionError("normals have no fingerprint")
