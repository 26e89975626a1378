"""Captions from hub models: Florence-2 and Qwen3-VL, decoded greedily so that a run can be repeated."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from cavendish.annotate.annotators.hub import IMAGENET_MEAN, IMAGENET_STD, HubModel, normalised
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Caption, OneByOne, Prompted
from cavendish.encoders.sample import UInt8Image

QUESTION = "Describe this picture in one sentence."
_FLORENCE_SIDE = 768
_FLORENCE_TASK = "Describe with a paragraph what is shown in the image."  # what <MORE_DETAILED_CAPTION> stands for


class Florence2(OneByOne[UInt8Image, Caption]):
    """Florence-2 captions. Source: Xiao et al., CVPR 2024."""

    def __init__(self, model: HubModel, max_tokens: int = 100, side: int = _FLORENCE_SIDE) -> None:
        self._model = model
        self._max_tokens, self._side = max_tokens, side
        self._net: Any = None
        self._tokenizer: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("florence-2/1", "caption", {"max_tokens": self._max_tokens, "side_px": self._side})

    def load(self) -> None:
        from transformers import Florence2ForConditionalGeneration

        self._net = self._model.read(Florence2ForConditionalGeneration)
        self._tokenizer = self._model.read_tokenizer()

    @torch.no_grad()
    def _annotate_one(self, image: UInt8Image) -> Caption:
        x_NCHW = normalised(image, (self._side,) * 2, IMAGENET_MEAN, IMAGENET_STD, Image.Resampling.BICUBIC)
        x_NCHW = x_NCHW.to(self._model.device, self._model.dtype)
        places = self._net.get_image_features(pixel_values=x_NCHW, return_dict=True).pooler_output.shape[-2]
        start = self._net.config.text_config.bos_token_id
        text = self._tokenizer(_FLORENCE_TASK, add_special_tokens=False)["input_ids"]
        end = self._net.config.text_config.eos_token_id
        ids = torch.tensor([[self._net.config.image_token_id] * places + [start, *text, end]])
        made = self._net.generate(
            input_ids=ids.to(self._model.device), pixel_values=x_NCHW, max_new_tokens=self._max_tokens, do_sample=False,
            num_beams=1,
        )  # fmt: skip
        return Caption(_one_line(self._tokenizer, made[0]))


class Qwen3VL(OneByOne[UInt8Image | Prompted, Caption]):
    """Qwen3-VL captions. Source: Qwen3-VL, 2025."""

    def __init__(self, model: HubModel, question: str = QUESTION, max_tokens: int = 80) -> None:
        self._model = model
        self._question, self._max_tokens = question, max_tokens
        self._net: Any = None
        self._tokenizer: Any = None
        self._pixels: Any = None

    @property
    def spec(self) -> AnnotatorSpec:
        return self._model.spec("qwen3-vl/1", "caption", {"question": self._question, "max_tokens": self._max_tokens})

    def load(self) -> None:
        from transformers import Qwen3VLForConditionalGeneration
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self._net = self._model.read(Qwen3VLForConditionalGeneration)
        self._tokenizer = self._model.read_tokenizer()
        vision = self._net.config.vision_config
        self._pixels = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            min_pixels=(vision.patch_size * vision.spatial_merge_size) ** 2 * 4,
            max_pixels=1024 * 1024,
        )

    @torch.no_grad()
    def _annotate_one(self, query: UInt8Image | Prompted) -> Caption:
        asked = query if isinstance(query, Prompted) else Prompted(query)
        image, question = asked.image, asked.question or self._question
        seen = self._pixels(images=[Image.fromarray(image)], return_tensors="pt")
        places = int(seen["image_grid_thw"].prod()) // self._pixels.merge_size**2
        text = (
            "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * places + f"<|vision_end|>{question}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        tokens = self._tokenizer([text], return_tensors="pt").to(self._model.device)
        made = self._net.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            mm_token_type_ids=(tokens["input_ids"] == self._net.config.image_token_id).int(),
            pixel_values=seen["pixel_values"].to(self._model.device, self._model.dtype),
            image_grid_thw=seen["image_grid_thw"].to(self._model.device),
            max_new_tokens=self._max_tokens,
            do_sample=False,
        )
        return Caption(_one_line(self._tokenizer, made[0, tokens["input_ids"].shape[1] :]))


def _one_line(tokenizer: Any, ids: Any) -> str:
    return " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
