"""What every annotator is to the job: a spec that says what it is, `load`, and `annotate` on a small batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from encoders.sample import UInt8Image

Result = TypeVar("Result")


@dataclass(frozen=True)
class AnnotatorSpec:
    """What goes into the provenance of every sample an annotator touched.

    Args:
        id: family and version of our processing around the weights, "u2netp/1"; a change of either changes it.
        task: what it finds: "saliency".
        licence: SPDX id of the weights.
        weights_sha256: of the file that was loaded.
        params: every setting that changes the result.
    """

    id: str
    task: str
    licence: str
    weights_sha256: str
    params: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """One image of a batch for which there is no result, and why; the others are not affected."""

    reason: str


class Annotator(Protocol[Result]):
    """A model behind a fixed face. One object per process; `load` is called once, before the first `annotate`."""

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is, without loading anything."""
        ...

    def load(self) -> None:
        """Read and check the weights.

        Raises:
            InputError: the weights are missing or are not the pinned ones; says how to get them.
        """
        ...

    def annotate(self, images: Sequence[UInt8Image]) -> list[Result | Failure]:
        """Annotate (H, W, 3) uint8 sRGB images of any sizes: one result or failure for each, in order."""
        ...


def each(function: Callable[[UInt8Image], Result], images: Sequence[UInt8Image]) -> list[Result | Failure]:
    """Apply `function` to every image; one that raises becomes a Failure and costs only itself."""
    results: list[Result | Failure] = []
    for image in images:
        try:
            results.append(function(image))
        except Exception as error:  # whatever a runtime raises on one picture must not lose the batch
            detail = " ".join(str(error).split())[:200]
            results.append(Failure(f"{type(error).__name__}: {detail}"))
    return results
