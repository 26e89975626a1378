"""Boxes for words: Grounding DINO, MM Grounding DINO and OWLv2, asked for a list of class names or phrases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cavendish.annotate.annotators.hub import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    HubModel,
    clipped_box,
    normalised,
    size_of,
)
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Detection, Detections, OneByOne, Prompted
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import read_json

_SHORT, _LONG = 800, 1333
_MAX_TOKENS = 256


class GroundingDino(OneByOne[Prompted, Detections]):
    """Grounding DINO and MM Grounding DINO: every label is scored by its own tokens of the caption "a. b. c."

    So a box always has one of the labels that were asked for; the library reads labels back from tokens over a
    threshold and merges those of two labels. Source: Liu et al., ECCV 2024; Zhao et al., 2024.
    """

    def __init__(self, model: HubModel, threshold: float = 0.25) -> None:
        self._model = model
        self._threshold = threshold
        self._net: Any = None
        self._tokenizer: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("grounding-dino/1", "detection", {"threshold": self._threshold})

    def load(self) -> None:
        from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection

        config = read_json(self._model.folder / "config.json", "the configuration of a Grounding DINO model")
        kinds = {
            "grounding-dino": GroundingDinoForObjectDetection,
            "mm-grounding-dino": MMGroundingDinoForObjectDetection,
        }
        if config.get("model_type") not in kinds:
            raise InputError(f"{self._model.folder}: a {config.get('model_type')!r}, not one of {', '.join(kinds)}")
        self._net = self._model.read(kinds[config["model_type"]])
        self._tokenizer = self._model.read_tokenizer()

    @torch.no_grad()
    def _annotate_one(self, query: Prompted) -> Detections:
        text, spans = _caption(query.phrases)
        tokens = self._tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        offsets = tokens.pop("offset_mapping")[0].tolist()
        if len(offsets) > _MAX_TOKENS:
            raise ValueError(
                f"{len(query.phrases)} phrases are {len(offsets)} tokens, over {_MAX_TOKENS}; ask for fewer"
            )
        size = _short_side(size_of(query.image))
        x_NCHW = normalised(query.image, size, IMAGENET_MEAN, IMAGENET_STD).to(self._model.device, self._model.dtype)
        mask = torch.ones(1, *size, dtype=torch.long, device=self._model.device)
        out = self._net(pixel_values=x_NCHW, pixel_mask=mask, **tokens.to(self._model.device))
        scores_QT = out.logits[0].float().sigmoid()
        members = [[t for t, (start, end) in enumerate(offsets) if start < stop and end > begin and end > start]
                   for begin, stop in spans]  # fmt: skip
        scores_QL = torch.stack([scores_QT[:, rows].amax(dim=1) for rows in members], dim=1)
        return _detections(scores_QL, out.pred_boxes[0].float(), query, size_of(query.image), self._threshold)


def _caption(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return "a. b. c." in lower case and where each phrase stands in it."""
    if not phrases:
        raise ValueError("no phrases to look for")
    text, spans = "", []
    for phrase in phrases:
        words = " ".join(phrase.lower().replace(".", " ").split())
        spans.append((len(text), len(text) + len(words)))
        text += f"{words}. "
    return text.rstrip(), spans


def _short_side(size: tuple[int, int]) -> tuple[int, int]:
    """Scale to a shorter side of 800 pixels, the longer at most 1333."""
    scale = min(_SHORT / min(size), _LONG / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class Owlv2(OneByOne[Prompted, Detections]):
    """OWLv2: the picture padded to a square, one score per phrase. Source: Minderer et al., NeurIPS 2023.

    Padded with grey, as the weights were trained; the library pads with black.
    """

    def __init__(self, model: HubModel, threshold: float = 0.2) -> None:
        self._model = model
        self._threshold = threshold
        self._net: Any = None
        self._tokenizer: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("owlv2/1", "detection", {"threshold": self._threshold})

    def load(self) -> None:
        from transformers import Owlv2ForObjectDetection

        self._net = self._model.read(Owlv2ForObjectDetection)
        self._tokenizer = self._model.read_tokenizer()

    @torch.no_grad()
    def _annotate_one(self, query: Prompted) -> Detections:
        if not query.phrases:
            raise ValueError("no phrases to look for")
        length = self._net.config.text_config.max_position_embeddings
        texts = [f"a photo of a {phrase}" for phrase in query.phrases]
        tokens = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        side = self._net.config.vision_config.image_size
        longest = max(query.image.shape[:2])
        square = np.full((longest, longest, 3), 128, np.uint8)
        square[: query.image.shape[0], : query.image.shape[1]] = query.image
        x_NCHW = normalised(square, (side, side), CLIP_MEAN, CLIP_STD, Image.Resampling.BICUBIC)
        out = self._net(
            pixel_values=x_NCHW.to(self._model.device, self._model.dtype),
            input_ids=tokens["input_ids"].to(self._model.device),
            attention_mask=tokens["attention_mask"].to(self._model.device),
        )
        scores_QL = out.logits[0].float().sigmoid()
        return _detections(scores_QL, out.pred_boxes[0].float(), query, (longest, longest), self._threshold)


def _detections(
    scores_QL: Tensor, boxes_Q4: Tensor, query: Prompted, size: tuple[int, int], threshold: float
) -> Detections:
    """Turn scores and relative (cx, cy, w, h) boxes into labelled boxes, best first.

    Args:
        size: (height, width) in pixels that the boxes are relative to.
    """
    best, labels = scores_QL.max(dim=1)
    found = []
    for row in best.argsort(descending=True, stable=True).tolist():
        if float(best[row]) < threshold:
            break
        box = clipped_box(corners(boxes_Q4[row].tolist(), size), query.image)
        if box is not None:
            found.append(Detection(query.phrases[int(labels[row])], float(best[row]), box))
    highest = {phrase: float(scores_QL[:, i].max()) for i, phrase in enumerate(query.phrases)}
    return Detections(tuple(found), highest)


def corners(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) in pixels of a relative (cx, cy, w, h)."""
    cx, cy, width, height = box
    return (
        (cx - width / 2) * size[1],
        (cy - height / 2) * size[0],
        (cx + width / 2) * size[1],
        (cy + height / 2) * size[0],
    )
