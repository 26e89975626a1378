"""What every annotator is to the job: a spec that says what it is, `load`, and `annotate` on a small batch.

A result is one of the frozen dataclasses below. Pixel coordinates count from the top left corner of the picture that
was given, (x0, y0, x1, y1) half open, and never leave it; masks and maps have the picture's size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.weights import ALL_WEIGHTS, find_weights
from cavendish.encoders.sample import InputError, UInt8Image, one_line

DepthKind = Literal["metric", "scale", "affine", "inverse"]
"""What the numbers of a depth map are: planar metres; depth up to an unknown factor; up to a factor and an offset; or
1/depth up to a factor and an offset (larger is nearer)."""

Mask = NDArray[np.bool_]
"""(H, W) bool."""

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels."""

Query = TypeVar("Query", contravariant=True)
Result = TypeVar("Result", covariant=True)
Input = TypeVar("Input")
Output = TypeVar("Output")
ALL_FAILED = 6
"""An annotator that fails on so many images in a row, and on all of them, is what is wrong."""

AnyAnnotator = TypeVar("AnyAnnotator", bound="Annotator[Any, Any]")


@dataclass(frozen=True)
class AnnotatorSpec:
    """What goes into the plan of a run and into the provenance of every sample an annotator touched.

    Args:
        id: family and version of our processing around the weights, "u2netp/1"; a change of either changes it.
        task: what it finds: "saliency", "detection", "masks", "text", "faces", "nsfw", "depth", "normals", "caption",
            "phrases".
        licence: SPDX id of the weights, or the name of their own licence; `check_licences` compares it as it stands.
        weights_sha256: of the file that is loaded, or of the sorted hashes of several.
        params: every setting that changes the result, the commit of a hub model among them.
        depth_kind: for task "depth", what its numbers are.
    """

    id: str
    task: str
    licence: str
    weights_sha256: str
    params: Mapping[str, float | int | str] = field(default_factory=dict)
    depth_kind: DepthKind | None = None


@dataclass(frozen=True)
class Failure:
    """One image of a batch for which there is no result, and why; the others are not affected."""

    reason: str


class Annotator(Protocol[Query, Result]):
    """A model behind a fixed face: `Annotator[UInt8Image, Detections]`, `Annotator[Prompted, Masks]`.

    One object per process (see `load_once`); `load` is called once, before the first `annotate`.
    """

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

    def annotate(self, queries: Sequence[Query]) -> Sequence[Result | Failure]:
        """Annotate (H, W, 3) uint8 sRGB images, or images with prompts, of any sizes: one result each, in order."""
        ...


@dataclass(frozen=True)
class Prompted:
    """An image for an annotator that is asked about something in it: boxes to cut out, phrases to find, a question."""

    image: UInt8Image
    boxes: tuple[Box, ...] = ()
    phrases: tuple[str, ...] = ()
    question: str = ""


@dataclass(frozen=True)
class Detection:
    """One labelled box with its score in [0, 1]."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True)
class Detections:
    """Every box over the annotator's own low threshold, best first, and what it thinks of each class it knows.

    `class_scores` holds the highest score of every class of the vocabulary anywhere in the picture: evidence of
    absence. An annotator with an open vocabulary has the classes it was asked for.
    """

    boxes: tuple[Detection, ...]
    class_scores: Mapping[str, float]


@dataclass(frozen=True)
class ScoredMask:
    """One mask with its score in [0, 1], and a label where the annotator gives one."""

    mask: Mask
    score: float
    label: str | None = None


@dataclass(frozen=True)
class Masks:
    """Masks in the order of the prompt's boxes, or best first when there was no prompt."""

    masks: tuple[ScoredMask, ...]


@dataclass(frozen=True)
class TextBox:
    """A line of writing: corners (x, y) in pixels, clockwise from the top left, and what it says if it was read."""

    corners: tuple[tuple[float, float], ...]
    score: float
    text: str | None = None


@dataclass(frozen=True)
class TextBoxes:
    """Lines of writing from top to bottom."""

    boxes: tuple[TextBox, ...]


@dataclass(frozen=True)
class Scores:
    """Judgements of the whole picture, by name, each in [0, 1]."""

    values: Mapping[str, float]


@dataclass(frozen=True)
class Depth:
    """A depth map of the kind its annotator declares.

    Args:
        values: (H, W) float32; of kind "metric", planar metres with +inf where there is no surface.
        kind: what the numbers are.
        valid: (H, W) bool; the others mean nothing.
        focal_px: the focal length the annotator estimated or was given; None when it has none.
        uncertainty: (H, W) float32, larger is less sure, in the annotator's own units; None when it gives none.
        normals: (H, W, 3) float32, as `Normals`, of an annotator that gives both; None when it gives none.
    """

    values: NDArray[np.float32]
    kind: DepthKind
    valid: Mask
    focal_px: float | None = None
    uncertainty: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Normals:
    """(H, W, 3) float32 camera-space unit vectors, +x right, +y up, +z toward the viewer; (0, 0, 0) unknown."""

    normals: NDArray[np.float32]


@dataclass(frozen=True)
class Caption:
    """A description of the picture in one line."""

    text: str


@dataclass(frozen=True)
class Phrase:
    """A phrase and the masks it names, best first; none: the annotator says that nothing in the picture fits it."""

    text: str
    masks: tuple[ScoredMask, ...]


@dataclass(frozen=True)
class Phrases:
    """The phrases of the prompt, in its order."""

    phrases: tuple[Phrase, ...]


def metric_depth_m(depth: Depth) -> NDArray[np.float32]:
    """Return (H, W) float32 planar metres for `Sample.depth_m`, NaN where not valid.

    Raises:
        InputError: the depth is of another kind; aligning it is a step of its own.
    """
    if depth.kind != "metric":
        raise InputError(f'depth of kind {depth.kind!r} is not in metres: only "metric" may become a sample\'s depth')
    return np.where(depth.valid, depth.values, np.float32(np.nan)).astype(np.float32)


def check_licences(specs: Iterable[AnnotatorSpec], allowed: Collection[str]) -> None:
    """Refuse a run whose annotators have weights under a licence that it does not allow.

    Raises:
        InputError: names each such annotator with its licence.
    """
    refused = [f"{spec.id} ({spec.licence})" for spec in specs if spec.licence not in allowed]
    if refused:
        raise InputError(
            f"annotators under a licence this run does not allow: {', '.join(refused)}; allowed_licences has "
            f"{', '.join(sorted(allowed))}"
        )


def check_weights(specs: Iterable[AnnotatorSpec]) -> None:
    """Check that the weights some annotators name are here, without loading any.

    Raises:
        InputError: see `find_weights`.
    """
    named = {str(value) for spec in specs for value in (spec.weights_sha256, spec.params.get("graph_sha256"))}
    for weights in ALL_WEIGHTS:
        if weights.sha256 in named:
            find_weights(weights)


@cache
def load_once(make: Callable[..., AnyAnnotator], *arguments: Hashable) -> AnyAnnotator:
    """Return `make(*arguments)`, loaded; each once in a process, however many shards and jobs use it."""
    annotator = make(*arguments)
    annotator.load()
    return annotator


class DeviceError(RuntimeError):
    """A device failed, not an image: nothing of the shard is committed, and the next run makes it again."""


def each(function: Callable[[Input], Output], queries: Sequence[Input]) -> list[Output | Failure]:
    """Apply `function` to every query; one that raises becomes a Failure and costs only itself.

    Raises:
        DeviceError: out of memory, or a device that is in no state to go on.
    """
    return [result for query in queries for result in _attempt(lambda asked: [function(asked[0])], [query])]


class OneByOne(ABC, Generic[Input, Output]):
    """An annotator that takes one query at a time; see `Annotator`."""

    @abstractmethod
    def _annotate_one(self, query: Input) -> Output: ...

    def annotate(self, queries: Sequence[Input]) -> list[Output | Failure]:
        """Annotate each query by itself."""
        return each(self._annotate_one, queries)


def annotate_all(annotator: Annotator[Input, Output], queries: Sequence[Input]) -> Sequence[Output | Failure]:
    """Annotate a batch of queries.

    Raises:
        DeviceError: see `each`; or an annotator fails on all of several queries, which is not the images' fault.
    """
    results = annotator.annotate(queries)
    failures = [result for result in results if isinstance(result, Failure)]
    if len(failures) == len(queries) >= ALL_FAILED:
        raise DeviceError(f"{annotator.spec.id} failed on all of {len(queries)} images: {failures[0].reason}")
    return results


def in_batches(
    prepare: Callable[[Input], Any],
    run: Callable[[Sequence[Input], Sequence[Any]], Sequence[Output]],
    queries: Sequence[Input],
    batch: int,
) -> list[Output | Failure]:
    """Run queries together whose prepared inputs have one shape; the results are in the order of the queries.

    A batch that fails is halved, down to single queries: less memory is needed, and a query that is to blame costs only
    itself.

    Args:
        prepare: makes the input of a query, with a `shape`.
        run: gives a result for each query of a batch, from their inputs.
        batch: queries at a time, at most.

    Raises:
        DeviceError: a single query is out of memory, or the device is in no state to go on.
    """
    results: dict[int, Output | Failure] = {}
    buckets: dict[Any, list[tuple[int, Any]]] = {}
    for number, prepared in enumerate(each(prepare, queries)):
        if isinstance(prepared, Failure):
            results[number] = prepared
        else:
            buckets.setdefault(prepared.shape, []).append((number, prepared))

    def together(members: Sequence[tuple[int, Any]]) -> Sequence[Output]:
        return run([queries[number] for number, _ in members], [prepared for _, prepared in members])

    for bucket in buckets.values():
        for start in range(0, len(bucket), batch):
            members = bucket[start : start + batch]
            results |= zip((number for number, _ in members), _attempt(together, members))
    return [results[number] for number in range(len(queries))]


def _attempt(run: Callable[[Sequence[Any]], Sequence[Output]], queries: Sequence[Any]) -> Sequence[Output | Failure]:
    """Run queries together, in ever smaller parts when that fails; whatever one of them raises is its Failure."""
    try:
        return run(queries)
    except Exception as error:  # whatever a runtime raises on one image must not lose the batch
        reason = f"{type(error).__name__}: {one_line(error)}"
        out_of_memory = "out of memory" in reason.lower() or "can't allocate memory" in reason
        if isinstance(error, DeviceError) or (out_of_memory and len(queries) == 1) or "CUDA error" in reason:
            raise DeviceError(reason) from None
        if len(queries) == 1:
            return [Failure(reason)]
        parts = [queries[: len(queries) // 2], queries[len(queries) // 2 :]]
    return [result for part in parts for result in _attempt(run, part)]
