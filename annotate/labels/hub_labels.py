"""What hub models add to a picture: depth, normals, a caption, phrases that lead back to their object.

Hub detectors and SAM 2 take the places of the offline detectors and of the saliency of boxes, so that objects are
agreed on, checked and painted by the same code; the rest is added to the finished Sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cavendish.annotate.annotators.detection import MAX_BOXES, SAME_BOX_IOU, box_iou
from cavendish.annotate.annotators.protocol import (
    Annotator,
    AnnotatorSpec,
    Box,
    Caption,
    Depth,
    Detections,
    Failure,
    Mask,
    Masks,
    Normals,
    OneByOne,
    Phrase,
    Phrases,
    Prompted,
    annotate_all,
    load_once,
    metric_depth_m,
)
from cavendish.annotate.annotators.saliency import CropSaliency, mask_iou
from cavendish.annotate.config import AnyModel, GroundingDinoModel, HubConfig, Owlv2Model, Qwen3VLModel
from cavendish.annotate.labels.conventions import agreeing_share, normals_of_depth
from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.mixing.sources.text import clean_text

WIDER = 0.05
"""How much larger, on each side, the second box is that SAM 2 is asked about: a sure mask stays the same."""

MAX_PHRASE_CHARS = 80
_PHRASE = re.compile(r"[a-z0-9][a-z0-9' -]*")
_RED = (255, 0, 0)

Detector = Annotator[Prompted, Detections]


class HubFailure(Exception):
    """A hub model gave no result for a picture; the message says which and why."""


@dataclass(frozen=True)
class HubAnnotators:
    """The hub models of a run, and what they are asked; None: not wanted.

    Args:
        detectors, boxes: stand in for `Annotators.detectors` and `Annotators.boxes`.
        questions: whether `captions` answers questions about marked objects, and with which words they are asked.
    """

    depth: Annotator[UInt8Image, Depth] | None = None
    normals: Annotator[UInt8Image, Normals] | None = None
    captions: Annotator[Any, Caption] | None = None
    detectors: tuple[Annotator[UInt8Image, Detections], ...] = ()
    boxes: Annotator[Prompted, tuple[CropSaliency, ...]] | None = None
    grounder: Annotator[Prompted, Phrases] | None = None
    question: str | None = None
    categories: tuple[str, ...] = ()
    min_cycle_iou: float = 0.7

    @property
    def specs(self) -> tuple[AnnotatorSpec, ...]:
        """Say what takes part beside detectors and boxes, in a fixed order."""
        wanted = (self.depth, self.normals, self.captions, self.grounder)
        return tuple(annotator.spec for annotator in wanted if annotator is not None)


def hub_annotators(config: HubConfig, data: Path = Path(), make: Any = load_once) -> HubAnnotators:
    """Return the hub annotators a configuration asks for, each model loaded once in this process.

    Args:
        data: where relative folders of models start.
        make: see `annotate.labels.label.annotators_for`.
    """

    def made(model: AnyModel | None) -> Any:
        return None if model is None else make(adapter_of, model, data)

    masks = made(config.masks)
    grounder = made(config.grounder)
    if isinstance(config.grounder, GroundingDinoModel | Owlv2Model):
        grounder = GroundedBoxes(grounder, masks)
    return HubAnnotators(
        depth=made(config.depth),
        normals=made(config.normals),
        captions=made(config.captions),
        detectors=tuple(AskedDetector(made(model), config.categories) for model in config.detectors),
        boxes=None if masks is None else MaskedBoxes(masks),
        grounder=grounder,
        question=config.captions.object_question if isinstance(config.captions, Qwen3VLModel) else None,
        categories=config.categories,
        min_cycle_iou=config.min_cycle_iou,
    )


def adapter_of(model: AnyModel, data: Path) -> Any:
    """Return the adapter a configuration names, not yet loaded; torch is imported here and not before."""
    from cavendish.annotate.annotators import hub_boxes, hub_depth, hub_masks, hub_normals, hub_words
    from cavendish.annotate.annotators.hub import HubModel

    kinds: Mapping[str, Callable[..., Any]] = {
        "depth_anything": hub_depth.DepthAnything,
        "depth_pro": hub_depth.DepthPro,
        "tipsv2_depth": hub_depth.Tipsv2Depth,
        "depth_anything_3": hub_depth.DepthAnything3,
        "moge_2": hub_depth.MoGe2,
        "marigold_depth": hub_depth.MarigoldDepth,
        "marigold_normals": hub_normals.MarigoldNormals,
        "sapiens2_normals": hub_normals.Sapiens2Normals,
        "tipsv2_normals": hub_normals.Tipsv2Normals,
        "grounding_dino": hub_boxes.GroundingDino,
        "owlv2": hub_boxes.Owlv2,
        "sam2": hub_masks.Sam2,
        "sam3": hub_masks.Sam3,
        "florence_2": hub_words.Florence2,
        "qwen3_vl": hub_words.Qwen3VL,
    }
    where = {name: getattr(model, name) for name in ("repository", "commit", "licence", "device", "batch", "precision")}
    settings = {
        name: getattr(model, name)
        for name in type(model).model_fields
        if name not in (*where, "folder", "adapter", "object_question")
    }
    return kinds[model.adapter](HubModel(folder=data / model.folder, **where), **settings)


class AskedDetector:
    """A detector with an open vocabulary that is asked for a fixed one: `Annotator[UInt8Image, Detections]`."""

    def __init__(self, detector: Detector, categories: tuple[str, ...]) -> None:
        self._detector, self._categories = detector, categories

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is: the detector and what it looks for."""
        spec = self._detector.spec
        return replace(spec, params={**spec.params, "categories": ", ".join(self._categories)})

    def load(self) -> None:
        self._detector.load()

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Detections | Failure]:
        """Look for the categories; one class for each box, the best box of each heap."""
        results = self._detector.annotate([Prompted(image, phrases=self._categories) for image in queries])
        return [one if isinstance(one, Failure) else _one_class_a_box(one) for one in results]


def _one_class_a_box(found: Detections) -> Detections:
    kept: list[Any] = []
    for box in found.boxes:
        if len(kept) < MAX_BOXES and all(box_iou(box.box, other.box) < SAME_BOX_IOU for other in kept):
            kept.append(box)
    return Detections(tuple(kept), found.class_scores)


class MaskedBoxes(OneByOne[Prompted, tuple[CropSaliency, ...]]):
    """SAM 2 in the place of `BoxSaliency`: each box is cut out three times, as given, wider, and in the mirror.

    A pixel's probability is the share of the three masks that have it; so where they differ, its label counts nothing.
    """

    def __init__(self, masks: Annotator[Prompted, Masks]) -> None:
        self._masks = masks

    @property
    def spec(self) -> AnnotatorSpec:
        spec = self._masks.spec
        return replace(spec, params={**spec.params, "wider": WIDER})

    def load(self) -> None:
        self._masks.load()

    def _annotate_one(self, query: Prompted) -> tuple[CropSaliency, ...]:
        height, width = query.image.shape[:2]
        wider = tuple(_wider(box, width, height) for box in query.boxes)
        turned = tuple((width - x1, y0, width - x0, y1) for x0, y0, x1, y1 in query.boxes)
        mirror = np.ascontiguousarray(query.image[:, ::-1])
        seen, mirrored = self._masks.annotate([Prompted(query.image, (*query.boxes, *wider)), Prompted(mirror, turned)])
        if isinstance(seen, Failure) or isinstance(mirrored, Failure):
            raise ValueError(next(one.reason for one in (seen, mirrored) if isinstance(one, Failure)))
        count = len(query.boxes)
        plain, wide = [m.mask for m in seen.masks[:count]], [m.mask for m in seen.masks[count:]]
        back = [m.mask[:, ::-1] for m in mirrored.masks]
        window = (0, 0, width, height)
        return tuple(
            CropSaliency(window, np.mean([p, w, b], axis=0, dtype=np.float32), mask_iou(p, b), mask_iou(p, w))
            for p, w, b in zip(plain, wide, back)
        )


def _wider(box: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = WIDER * (x1 - x0), WIDER * (y1 - y0)
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(float(width), x1 + dx), min(float(height), y1 + dy)


class GroundedBoxes(OneByOne[Prompted, Phrases]):
    """A detector that finds a phrase and SAM 2 that cuts it out, as one `Annotator[Prompted, Phrases]`."""

    def __init__(self, detector: Detector, masks: Annotator[Prompted, Masks]) -> None:
        self._detector, self._masks = detector, masks

    @property
    def spec(self) -> AnnotatorSpec:
        """Say what this is: the detector; the masks of its boxes are in the params."""
        spec, cut = self._detector.spec, self._masks.spec
        params = {**spec.params, "masks": cut.id, "masks_sha256": cut.weights_sha256}
        return replace(spec, task="phrases", params=params)

    def load(self) -> None:
        self._detector.load()
        self._masks.load()

    def _annotate_one(self, query: Prompted) -> Phrases:
        return Phrases(tuple(self._find(query.image, phrase) for phrase in query.phrases))

    def _find(self, image: UInt8Image, phrase: str) -> Phrase:
        (found,) = self._detector.annotate([Prompted(image, phrases=(phrase,))])
        if isinstance(found, Failure):
            raise ValueError(found.reason)
        boxes = _one_class_a_box(found).boxes
        (cut,) = self._masks.annotate([Prompted(image, tuple(box.box for box in boxes))])
        if isinstance(cut, Failure):
            raise ValueError(cut.reason)
        return Phrase(phrase, tuple(replace(one, label=phrase) for one in cut.masks if one.mask.any()))


def add_hub_labels(
    hub: HubAnnotators, images: Sequence[UInt8Image], samples: Sequence[Sample]
) -> list[Sample | Failure]:
    """Return each sample with what the hub models see in its image, or which model failed on it.

    Args:
        images: as they were decoded, of the samples' sizes; faces in the samples' own may be blurred.

    Raises:
        DeviceError: see `annotate_all`.
    """
    columns = []
    for annotator in (hub.depth, hub.normals, hub.captions):
        seen = [None] * len(images) if annotator is None else annotate_all(annotator, images)
        columns.append([_named(annotator, result) for result in seen])
    results: list[Sample | Failure] = []
    for image, sample, *seen in zip(images, samples, *columns):
        failure = next((one for one in seen if isinstance(one, Failure)), None)
        try:
            results.append(failure or _with_labels(hub, image, sample, *seen))
        except HubFailure as error:
            results.append(Failure(str(error)))
    return results


def _named(annotator: Annotator[Any, Any] | None, result: Any) -> Any:
    if annotator is None or not isinstance(result, Failure):
        return result
    return Failure(f"{annotator.spec.id} failed: {result.reason}")


def _with_labels(
    hub: HubAnnotators, image: UInt8Image, sample: Sample, depth: Depth | None, vectors: Normals | None, told: Any
) -> Sample:
    facts: dict[str, Any] = dict(sample.facts)
    quality = dict(sample.quality)
    captions = sample.captions
    depth_m = None if depth is None or depth.kind != "metric" else metric_depth_m(depth)
    normals = vectors.normals if vectors is not None else depth.normals if depth is not None else None
    if depth is not None:
        facts["depth"] = {"kind": depth.kind, "used": depth_m is not None}
        if depth.focal_px is not None:
            facts["depth"]["focal_px"] = round(depth.focal_px, 2)
    if depth_m is not None:
        quality["depth_known"] = round(float((~np.isnan(depth_m)).mean()), 4)
        if normals is not None and depth is not None and depth.focal_px is not None:
            quality["depth_normals"] = round(agreeing_share(normals_of_depth(depth_m, depth.focal_px), normals), 4)
    if told is not None and (text := clean_text(told.text)):
        captions = (*captions, text)
    sample = replace(sample, depth_m=depth_m, normals=normals, captions=captions, facts=facts, quality=quality)
    return _with_phrases(hub, image, _without_doubtful_absence(hub, image, sample))


def _result(annotator: Annotator[Any, Any], query: Any) -> Any:
    (result,) = annotator.annotate([query])
    if isinstance(result, Failure):
        raise HubFailure(f"{annotator.spec.id} failed: {result.reason}")
    return result


def _without_doubtful_absence(hub: HubAnnotators, image: UInt8Image, sample: Sample) -> Sample:
    """Strike from what the detectors call absent whatever the grounder finds all the same."""
    absent = tuple(sample.facts.get("absent", ()))
    if hub.grounder is None or not hub.categories or not absent:
        return sample
    found: Phrases = _result(hub.grounder, Prompted(image, phrases=absent))
    return replace(
        sample, facts={**sample.facts, "absent": [phrase.text for phrase in found.phrases if not phrase.masks]}
    )


def _with_phrases(hub: HubAnnotators, image: UInt8Image, sample: Sample) -> Sample:
    """Let one model name each object and another find it again by that name; keep the names that lead back."""
    if hub.captions is None or hub.grounder is None or hub.question is None or sample.instance_ids is None:
        return sample
    written = [
        clean_phrase(_result(hub.captions, Prompted(_marked(image, one.box), question=hub.question)).text)
        for one in sample.instances
    ]
    asked = tuple(dict.fromkeys(phrase for phrase in written if phrase))
    found: Phrases = _result(hub.grounder, Prompted(image, phrases=asked)) if asked else Phrases(())
    grounded = {phrase.text: phrase.masks for phrase in found.phrases}
    kept, dropped, scores = [], [], []
    for one, phrase in zip(sample.instances, written):
        masks = [scored.mask for scored in grounded.get(phrase, ())]
        mask = sample.instance_ids == one.id
        reason = _cycle_doubt(phrase, written.count(phrase), masks, mask, hub.min_cycle_iou)
        if reason:
            dropped.append({"id": one.id, "text": phrase, "reason": reason})
        else:
            kept.append({"id": one.id, "text": phrase})
            scores.append(mask_iou(masks[0], mask))
    facts = {**sample.facts, "phrases": kept, "phrases_dropped": dropped}
    quality = {**sample.quality, **({"cycle_iou": round(min(scores), 4)} if scores else {})}
    return replace(sample, facts=facts, quality=quality)


def clean_phrase(text: str) -> str:
    """Return what a model calls an object as lower-case words without a final period, "" if it is no short phrase."""
    phrase = clean_text(text).lower().strip(" .\"'")
    return phrase if len(phrase) <= MAX_PHRASE_CHARS and _PHRASE.fullmatch(phrase) else ""


def _cycle_doubt(phrase: str, uses: int, masks: Sequence[Mask], mask: Mask, min_iou: float) -> str:
    if not phrase:
        return "not a short phrase"
    if uses > 1:
        return f"said of {uses} objects"
    if len(masks) != 1:
        return f"leads to {len(masks)} places" if masks else "leads nowhere"
    found = mask_iou(masks[0], mask)
    return f"leads to another mask: IoU {found:.3f} is under {min_iou:g}" if found < min_iou else ""


def _marked(image: UInt8Image, box: tuple[int, int, int, int]) -> UInt8Image:
    """Draw a red frame around a box, outside of it where there is room."""
    width = max(2, round(max(image.shape[:2]) / 200))
    x0, y0, x1, y1 = box
    corners = (
        (max(0, x0 - width), max(0, y0 - width)),
        (min(image.shape[1], x1 + width), min(image.shape[0], y1 + width)),
    )
    return cv2.rectangle(np.ascontiguousarray(image).copy(), *corners, _RED, width)  # type: ignore[no-any-return]
