"""What a benchmark is: items with an image, a prompt and the truth, read only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cavendish.encoders.sample import UInt8Image
from cavendish.trainer.evaluation.metrics.depth import METRIC, DepthProtocol


class Truth:
    """What is true of an item; each task has its own, a dataclass whose first field is (H, W, ...)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = next(iter(vars(self).values())).shape[:2]
        return height, width


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Args:
        name: unique; the prediction is expected at `<predictions>/<name>.png`. May hold slashes.
        prompt: the instruction to give a model together with the picture.
        read_image: returns the (H, W, 3) uint8 picture as the protocol crops it; None when there is none to give.
        read_truth: returns the truth in the picture's size; None for generation benchmarks.
        spec: json-able decode specification that goes with `prompt` (`encoders.tasks.registry.decode_example`).
        classes: for semantic items, the ids of the names in the spec's legend: name to id. Names that are not here
            are void.
        group: subsets of one benchmark are scored separately and averaged (SA-Co/Gold).
        picture: several expressions may be asked in one picture; then this is its name, else it is `name`.
        position: which name of the spec's legend a referring item is about.
    """

    name: str
    prompt: str
    read_image: Callable[[], UInt8Image] | None
    read_truth: Callable[[], Truth] | None
    spec: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    group: str = ""
    picture: str = ""
    position: int = 0

    @property
    def file(self) -> str:
        """The prediction's file, relative to the folder of predictions."""
        return f"{self.picture or self.name}.png"


@dataclass(frozen=True)
class Benchmark:
    """A set of items of one task, and how it is scored.

    Args:
        name: the reader's name.
        task: a name of `encoders.tasks.registry.TASKS`.
        items: the questions, in a fixed order.
        expected: how many items the published set has; None when that is not fixed.
        depth: the protocol of a depth benchmark.
        classes: id to name of all evaluated classes of a semantic benchmark.
        headline: which referring figure the set is known for, "ciou" or "giou".
        notes: what a reader of the result must know.
    """

    name: str
    task: str
    items: tuple[Item, ...]
    expected: int | None = None
    depth: DepthProtocol = METRIC
    classes: Mapping[int, str] = field(default_factory=dict)
    headline: str = "giou"
    notes: tuple[str, ...] = ()
