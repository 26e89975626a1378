"""Masks from hub models: SAM 2.1 for boxes, SAM 3 for phrases."""

from __future__ import annotations

from typing import Any

import torch

from cavendish.annotate.annotators.hub import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    HubModel,
    as_mask,
    normalised,
    resized_map,
)
from cavendish.annotate.annotators.protocol import (
    AnnotatorSpec,
    Masks,
    OneByOne,
    Phrase,
    Phrases,
    Prompted,
    ScoredMask,
)


class Sam2(OneByOne[Prompted, Masks]):
    """SAM 2.1: one mask for each box, the best of its three proposals. Source: Ravi et al., SAM 2, 2024."""

    def __init__(self, model: HubModel) -> None:
        self._model = model
        self._net: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("sam2/1", "masks", {})

    def load(self) -> None:
        from transformers import Sam2Model

        self._net = self._model.read(Sam2Model)

    @torch.no_grad()
    def _annotate_one(self, query: Prompted) -> Masks:
        if not query.boxes:
            return Masks(())
        side = self._net.config.prompt_encoder_config.image_size
        height, width = query.image.shape[:2]
        x_NCHW = normalised(query.image, (side, side), IMAGENET_MEAN, IMAGENET_STD)
        scale = torch.tensor([side / width, side / height] * 2)
        boxes = torch.tensor(query.boxes, dtype=torch.float32) * scale
        out = self._net(
            pixel_values=x_NCHW.to(self._model.device, self._model.dtype),
            input_boxes=boxes[None].to(self._model.device),
            multimask_output=True,
        )
        masks = []
        for logits, scores in zip(out.pred_masks[0], out.iou_scores[0]):
            best = int(scores.argmax())
            mask = as_mask(resized_map(logits[best], query.image), 0.0)
            masks.append(ScoredMask(mask, float(scores[best].clamp(0, 1))))
        return Masks(tuple(masks))


class Sam3(OneByOne[Prompted, Phrases]):
    """SAM 3: every instance a phrase names; its presence score says whether there is any at all.

    The licence of its weights is its own: a run must allow it by name. Source: Meta, SAM 3, 2025.
    """

    def __init__(self, model: HubModel, threshold: float = 0.5) -> None:
        self._model = model
        self._threshold = threshold
        self._net: Any = None
        self._tokenizer: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("sam3/1", "phrases", {"threshold": self._threshold})

    def load(self) -> None:
        from transformers import Sam3Model

        self._net = self._model.read(Sam3Model)
        self._tokenizer = self._model.read_tokenizer()

    @torch.no_grad()
    def _annotate_one(self, query: Prompted) -> Phrases:
        side = _image_side(self._net.config.vision_config)
        x_NCHW = normalised(query.image, (side, side), HALF, HALF).to(self._model.device, self._model.dtype)
        seen = self._net.get_vision_features(pixel_values=x_NCHW)
        return Phrases(tuple(self._find(query, phrase, seen) for phrase in query.phrases))

    def _find(self, query: Prompted, phrase: str, seen: Any) -> Phrase:
        length = self._net.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            phrase, padding="max_length", truncation=True, max_length=min(32, length), return_tensors="pt"
        )
        out = self._net(
            vision_embeds=seen,
            input_ids=tokens["input_ids"].to(self._model.device),
            attention_mask=tokens["attention_mask"].to(self._model.device),
        )
        scores = out.pred_logits[0].float().sigmoid()
        if out.presence_logits is not None:
            scores = scores * out.presence_logits[0].float().sigmoid()
        masks = []
        for row in scores.argsort(descending=True, stable=True).tolist():
            if float(scores[row]) <= self._threshold:
                break
            mask = as_mask(resized_map(out.pred_masks[0, row].float().sigmoid(), query.image), 0.5)
            if mask.any():
                masks.append(ScoredMask(mask, float(scores[row]), phrase))
        return Phrase(phrase, tuple(masks))


def _image_side(config: Any) -> int:
    side = getattr(config, "image_size", None) or config.backbone_config.image_size
    return int(side[0] if isinstance(side, list | tuple) else side)
