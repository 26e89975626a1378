"""The readers' benchmarks as the leakage audit takes them: pictures, texts without wording, fingerprints of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cavendish.encoders.tasks.registry import VISION_TASKS
from cavendish.mixing.audit.benchmarks.benchmark_index import Question
from cavendish.mixing.audit.matching.label_prints import LabelPrint
from cavendish.trainer.evaluation.benchmarks import read_benchmark
from cavendish.trainer.evaluation.items import Item
from cavendish.trainer.evaluation.score import truth_of
from cavendish.trainer.evaluation.tasks.task import TaskEvaluation, find_evaluation


def read_questions(reader: str, folder: Path) -> Iterator[Question]:
    """Yield the items of a benchmark, read by name from the folder it was downloaded to.

    Raises:
        InputError: unknown name, or a missing or odd folder or file.
    """
    benchmark = read_benchmark(reader, folder)
    evaluation = find_evaluation(benchmark.task) if benchmark.task in VISION_TASKS else None
    for item in benchmark.items:
        yield Question(
            name=item.picture or item.name,
            texts=(item.prompt,) if evaluation is None else evaluation.texts(item),
            read_image=item.read_image,
            read_labels=_label_reader(evaluation, item),
        )


def _label_reader(evaluation: TaskEvaluation | None, item: Item) -> Callable[[], LabelPrint] | None:
    if evaluation is None or not evaluation.prints_labels or item.read_truth is None:
        return None
    return lambda: evaluation.print_labels(truth_of(item))
