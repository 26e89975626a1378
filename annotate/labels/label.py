"""From a decoded picture to a Sample: every annotator runs, the checks decide, what is in doubt is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.annotate.annotators.detection import CenterNet, NanoDet
from cavendish.annotate.annotators.faces import CenterFace, blur_faces
from cavendish.annotate.annotators.nsfw import OpenNsfw
from cavendish.annotate.annotators.protocol import (
    Annotator,
    AnnotatorSpec,
    Detections,
    Failure,
    Mask,
    Prompted,
    Scores,
    TextBoxes,
    annotate_all,
    load_once,
)
from cavendish.annotate.annotators.saliency import (
    BoxSaliency,
    CropSaliency,
    Saliency,
    U2NetSaliency,
    mask_iou,
    subject_mask,
)
from cavendish.annotate.annotators.text import TextLines
from cavendish.annotate.config import LabelConfig
from cavendish.annotate.labels.hub_labels import HubAnnotators, add_hub_labels
from cavendish.annotate.labels.objects import (
    CutOut,
    absent_classes,
    agreed_objects,
    contested_boxes,
    contested_classes,
    cut_out,
    doubts,
    mirrored,
)
from cavendish.annotate.labels.quality import colour_separation, edge_align, pixel_weight, uncertain_share, verdict
from cavendish.encoders.codecs.palettes import color_word
from cavendish.encoders.expressions.programs import PEOPLE
from cavendish.encoders.sample import Instance, Rejection, Sample, UInt8Image
from cavendish.mixing.sources.decode import DecodedImage
from cavendish.mixing.sources.listing import FoundImage, SourceConfig

CATEGORY = "main subject"
SAME_AS_SUBJECT_IOU = 0.8
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "opencv-python-headless", "pillow")
_HUB_LIBRARIES = ("diffusers", "torch", "transformers")


@dataclass(frozen=True)
class Annotators:
    """The annotators of a run; None: not wanted."""

    saliency: Annotator[UInt8Image, Saliency] | None = None
    boxes: Annotator[Prompted, tuple[CropSaliency, ...]] | None = None
    detectors: tuple[Annotator[UInt8Image, Detections], ...] = ()
    faces: Annotator[UInt8Image, Detections] | None = None
    nsfw: Annotator[UInt8Image, Scores] | None = None
    text: Annotator[UInt8Image, TextBoxes] | None = None
    hub: HubAnnotators | None = None

    @property
    def specs(self) -> tuple[AnnotatorSpec, ...]:
        """Say what takes part, in a fixed order."""
        wanted = (self.nsfw, self.faces, self.text, *self.detectors, self.saliency, self.boxes)
        offline = tuple(annotator.spec for annotator in wanted if annotator is not None)
        return offline if self.hub is None else (*offline, *self.hub.specs)


def with_hub(annotators: Annotators, hub: HubAnnotators) -> Annotators:
    """Add hub models; detectors and masks among them take the places of the offline ones."""
    detectors, boxes = hub.detectors or annotators.detectors, hub.boxes or annotators.boxes
    return replace(annotators, hub=hub, detectors=detectors, boxes=boxes if detectors else annotators.boxes)


def annotators_for(config: LabelConfig, make: Any = load_once) -> Annotators:
    """Return the annotators a configuration asks for, loaded once in this process.

    Args:
        make: what to do with each class; one that only calls it gives specs without loading anything.
    """
    objects = config.objects is not None
    detectors = objects and not (config.hub and config.hub.detectors)
    return Annotators(
        saliency=make(U2NetSaliency) if config.mask is not None else None,
        boxes=make(BoxSaliency) if objects else None,
        detectors=(make(NanoDet), make(CenterNet)) if detectors else (),
        faces=make(CenterFace) if config.faces != "ignore" else None,
        nsfw=make(OpenNsfw) if config.max_nsfw is not None else None,
        text=make(TextLines) if config.max_text is not None else None,
    )


@dataclass(frozen=True)
class Picture:
    """One decoded picture and what its source says about it."""

    source: SourceConfig
    name: str
    found: FoundImage
    decoded: DecodedImage

    @property
    def image(self) -> UInt8Image:
        """Return its pixels."""
        return self.decoded.rgb_u8


@dataclass(frozen=True)
class _Seen:
    """All results for one picture."""

    saliency: Saliency | None = None
    views: tuple[Detections, ...] = ()
    faces: Detections | None = None
    text: TextBoxes | None = None


class _Stop(Exception):
    """A picture will not become a sample; the message says why."""


def label_pictures(
    config: LabelConfig, pictures: Sequence[Picture], annotators: Annotators
) -> list[Sample | Rejection]:
    """Annotate and judge a few pictures; one result each, in order. What fails costs its own picture only."""
    results: dict[int, Any] = dict(enumerate(_nsfw_gate(config, pictures, annotators)))
    passed = [number for number, result in results.items() if result is None]
    for number, seen in zip(passed, _look([pictures[number] for number in passed], annotators)):
        try:
            results[number] = seen
            if isinstance(seen, _Seen):
                results[number] = _sample(config, pictures[number], seen, annotators)
        except _Stop as stop:
            results[number] = Failure(str(stop))
    if annotators.hub is not None:
        labelled = [number for number in passed if isinstance(results[number], Sample)]
        images = [pictures[number].image for number in labelled]
        results |= zip(labelled, add_hub_labels(annotators.hub, images, [results[number] for number in labelled]))
    for number in passed:
        result = results[number] = _worth_keeping(config, results[number])
        if isinstance(result, Failure):
            picture = pictures[number]
            results[number] = Rejection(picture.found.key, f"{picture.name}: {result.reason}")
    return [results[number] for number in range(len(pictures))]


def _worth_keeping(config: LabelConfig, result: Sample | Failure) -> Sample | Failure:
    if isinstance(result, Failure) or any(
        array is not None for array in (result.instance_ids, result.depth_m, result.normals)
    ):
        return result
    if config.dropped_masks == "reject" or not result.captions:
        return Failure(f"mask dropped: {result.facts['mask_dropped']}")
    return result


def _nsfw_gate(config: LabelConfig, pictures: Sequence[Picture], annotators: Annotators) -> list[Rejection | None]:
    if annotators.nsfw is None or config.max_nsfw is None:
        return [None] * len(pictures)
    gate: list[Rejection | None] = []
    for picture, result in zip(pictures, annotate_all(annotators.nsfw, [picture.image for picture in pictures])):
        reason = ""
        if isinstance(result, Failure):
            reason = _failed(annotators.nsfw.spec, result)
        elif result.values["nsfw"] > config.max_nsfw:
            reason = f"nsfw {result.values['nsfw']:.3f} is over {config.max_nsfw:g}"
        gate.append(Rejection(picture.found.key, f"{picture.name}: {reason}") if reason else None)
    return gate


def _failed(spec: AnnotatorSpec, failure: Failure) -> str:
    return f"{spec.id} failed: {failure.reason}"


def _look(pictures: Sequence[Picture], annotators: Annotators) -> list[_Seen | Failure]:
    """Run the annotators that see whole pictures; a failure of any is the picture's."""
    images = [picture.image for picture in pictures]
    flipped = [np.ascontiguousarray(image[:, ::-1]) for image in images] if annotators.detectors else []
    columns: list[tuple[str, AnnotatorSpec, Sequence[Any]]] = []
    for name in ("saliency", "faces", "text"):
        annotator = getattr(annotators, name)
        if annotator is not None:
            columns.append((name, annotator.spec, annotate_all(annotator, images)))
    for name, views in (("plain", images), ("mirrored", flipped)):
        columns += [(name, detector.spec, annotate_all(detector, views)) for detector in annotators.detectors]
    return [_gather(row, columns, image) for row, image in enumerate(images)]


def _gather(
    row: int, columns: Iterable[tuple[str, AnnotatorSpec, Sequence[Any]]], image: UInt8Image
) -> _Seen | Failure:
    fields: dict[str, Any] = {}
    views: list[Detections] = []
    for name, spec, results in columns:
        result = results[row]
        if isinstance(result, Failure):
            return Failure(_failed(spec, result))
        if name in ("plain", "mirrored"):
            views.append(result if name == "plain" else mirrored(result, image.shape[1]))
        else:
            fields[name] = result
    return _Seen(views=tuple(views), **fields)


def _sample(config: LabelConfig, picture: Picture, seen: _Seen, annotators: Annotators) -> Sample:
    """Make the Sample of one picture; raises _Stop when there is none."""
    facts = {**_face_facts(config, seen), **_text_facts(config, seen, picture.image)}
    mask, scores, dropped = _subject(config, picture.image, seen.saliency)
    cuts, object_facts, unsure = _objects(config, picture.image, seen, annotators)
    facts |= object_facts
    if cuts:
        ids, instances = _paint(picture.image, cuts)
        facts["complete"] = sorted({cut.object.label for cut in cuts})
        if mask is not None and (same := [cut for cut in cuts if mask_iou(cut.mask, mask) >= SAME_AS_SUBJECT_IOU]):
            facts["main_subject"] = 1 + cuts.index(same[0])
        scores = _object_scores(cuts, ids, scores)
        weight = pixel_weight([cut.probability for cut in cuts], unsure)
    elif mask is not None and seen.saliency is not None:
        ids, instances = mask.astype(np.uint16), (_instance(1, CATEGORY, picture.image, mask),)
        weight = pixel_weight([seen.saliency.probability], ())
    else:
        ids, instances, weight = None, (), None
        facts["mask_dropped"] = dropped
    blurred = config.faces == "blur" and seen.faces is not None
    return Sample(
        key=picture.found.key,
        image=blur_faces(picture.image, seen.faces) if blurred and seen.faces is not None else picture.image,
        source=picture.source.name,
        licence=picture.found.facts["licence"],
        instance_ids=ids,
        instances=instances,
        weight=weight,
        captions=(picture.found.text,) if picture.found.text else (),
        facts=facts,
        provenance=_provenance(picture, annotators),
        quality={name: round(score, 4) for name, score in scores.items()},
    )


def _face_facts(config: LabelConfig, seen: _Seen) -> dict[str, Any]:
    if seen.faces is None:
        return {}
    count = len(seen.faces.boxes)
    if count and config.faces == "drop":
        raise _Stop(f"{count} face{'s' if count > 1 else ''} (faces: drop)")
    return {"faces": {"count": count, "blurred": config.faces == "blur" and count > 0}}


def _text_facts(config: LabelConfig, seen: _Seen, image: UInt8Image) -> dict[str, Any]:
    if seen.text is None or config.max_text is None:
        return {}
    corners = [np.array(box.corners) for box in seen.text.boxes]
    share = sum(_polygon_area(points) for points in corners) / (image.shape[0] * image.shape[1])
    if share > config.max_text:
        raise _Stop(f"writing over {share:.3f} of the picture, the limit is {config.max_text:g}")
    lines = [
        {"corners": [list(corner) for corner in box.corners], "score": round(box.score, 4)} for box in seen.text.boxes
    ]
    return {"text": lines}


def _polygon_area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _subject(
    config: LabelConfig, image: UInt8Image, saliency: Saliency | None
) -> tuple[Mask | None, dict[str, float], str]:
    """Return the mask of the main subject, or None and why there is none, and the mask's scores."""
    if saliency is None or config.mask is None:
        return None, {}, "no main subject was looked for"
    mask = subject_mask(saliency.probability)
    scores = {
        "area": float(mask.mean()),
        "edge_align": edge_align(image, mask),
        "colour_sep": colour_separation(image, mask),
        "flip_iou": saliency.flip_iou,
        "scale_iou": saliency.scale_iou,
        "uncertain": uncertain_share(saliency.probability, mask),
    }
    dropped = verdict(scores, config.mask) or ("" if mask.any() else "it is empty")
    return None if dropped else mask, scores, dropped


def _objects(
    config: LabelConfig, image: UInt8Image, seen: _Seen, annotators: Annotators
) -> tuple[list[CutOut], dict[str, Any], list[tuple[float, float, float, float]]]:
    """Return the objects to keep, the facts about all, and the boxes of doubtful ones that count for nothing."""
    thresholds = config.objects
    if thresholds is None or annotators.boxes is None:
        return [], {}, []
    absent = list(absent_classes(seen.views, thresholds))
    agreed = agreed_objects(seen.views, thresholds)
    if not agreed or len(agreed) > thresholds.max_objects:
        return [], {"absent": absent, "objects": {"agreed": len(agreed), "dropped": []}}, []
    contested = contested_boxes(seen.views, agreed, thresholds)
    doubtful = contested_classes(contested, agreed)
    wanted = [one for one in agreed if one.label not in doubtful]
    (crops,) = annotators.boxes.annotate([Prompted(image, tuple(one.box for one in wanted))])
    if isinstance(crops, Failure):
        raise _Stop(_failed(annotators.boxes.spec, crops))
    cuts = [cut_out(image, one, crop) for one, crop in zip(wanted, crops)]
    reasons = doubts(cuts, thresholds)
    # A prompt for a class means all of it: one object without a mask takes the others of its class with it.
    lost = {cut.object.label for cut, reason in zip(cuts, reasons) if reason}
    kept = [cut for cut in cuts if cut.object.label not in lost]
    dropped = [{"category": label, "reason": "more of it was seen than agreed on"} for label in sorted(doubtful)]
    dropped += [{"category": cut.object.label, "reason": reason} for cut, reason in zip(cuts, reasons) if reason]
    facts = {"absent": absent, "objects": {"agreed": len(agreed), "dropped": dropped}}
    return kept, facts, [one.box for one, _ in contested]


def _paint(image: UInt8Image, cuts: Sequence[CutOut]) -> tuple[NDArray[np.uint16], tuple[Instance, ...]]:
    """Paint the masks, the largest first, and describe what can be seen of each."""
    ids = np.zeros(image.shape[:2], np.uint16)
    for number, cut in sorted(enumerate(cuts, 1), key=lambda pair: -int(pair[1].mask.sum())):
        ids[cut.mask] = number
    return ids, tuple(_instance(number, cut.object.label, image, ids == number) for number, cut in enumerate(cuts, 1))


def _object_scores(cuts: Sequence[CutOut], ids: NDArray[np.uint16], subject: Mapping[str, float]) -> dict[str, float]:
    """Return the sample's scores: of each the worst of its objects."""
    worst = {name: min(cut.scores[name] for cut in cuts) for name in cuts[0].scores}
    unsure = max(uncertain_share(cut.probability, cut.mask) for cut in cuts)
    return {**subject, **worst, "area": float((ids > 0).mean()), "uncertain": unsure}


def _instance(number: int, category: str, image: UInt8Image, mask: Mask) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    color = None if category in PEOPLE else color_word(image[mask])
    return Instance(
        id=number,
        category=category,
        visible_pixels=int(mask.sum()),
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        attributes={} if color is None else {"color": color},
    )


def _provenance(picture: Picture, annotators: Annotators) -> dict[str, Any]:
    found, decoded = picture.found, picture.decoded
    return {
        "annotators": [asdict(spec) for spec in annotators.specs],
        "file": {
            "name": picture.name,
            "sha256": sha256(found.data).hexdigest(),
            "format": decoded.format,
            "width": decoded.width,
            "height": decoded.height,
            "flags": [*decoded.flags, *found.flags],
            **{name: found.facts[name] for name in ("url", "author") if name in found.facts},
        },
        "versions": {
            name: version(name) for name in (*_LIBRARIES, *(_HUB_LIBRARIES if annotators.hub is not None else ()))
        },
    }
