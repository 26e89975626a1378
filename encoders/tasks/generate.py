"""Generation from a caption: keeps the tuned generator a generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.encoders.tasks.task import (
    Instruction,
    Kind,
    Options,
    Question,
    Task,
    after_verb,
    check_codec,
    draw_wording,
)

CODEC_ID = "image/1"
"""The answer is an image, and decodes to itself."""


class GenerateTask(Task):
    """The image of a caption, without a source image."""

    name = "generate"
    kind: ClassVar[Kind] = "generation"
    has_source = False
    weighted = False
    hub_category = "text-to-image"
    usage = "generate WHAT TO DRAW"

    def serves(self, sample: Sample) -> bool:
        return any(caption.strip() for caption in sample.captions)

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Ask by a caption alone, or worded."""
        caption = one_of(sample.captions, rng).strip()
        prompt = caption
        if rng.random() < 0.5:
            prompt = draw_wording(GENERATE, {"caption": caption, "sentence": as_sentence(caption)}, rng)
        return Instruction(prompt, sample.image, {"codec": CODEC_ID})

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> UInt8Image:
        """Return the image."""
        check_codec(spec, CODEC_ID)
        return rgb_u8

    def ask(self, text: str, pass_number: int) -> Question | None:
        """Send the text as typed."""
        what = after_verb(text, self.name)
        return Question(what, {"task": self.name, "codec": CODEC_ID}) if what else None


def as_sentence(text: str) -> str:
    """Return a text with a capital first letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


# How people ask; every line has the caption in it.
GENERATE = (
    "{caption}",
    "Generate an image: {caption}",
    "[Create|Make|Produce] a picture of the following: {caption}",
    "Draw this: {caption}",
    "A picture that matches this description: {caption}",
    "Please draw the following scene. {caption}",
    "Text to image: {caption}",
    "Show me this: {caption}",
    "Render the scene described here: {caption}",
    "Paint what I describe. {caption}",
    "I'd like an image of this: {caption}",
    "Can you make this picture? {caption}",
    "Imagine the following and draw it: {caption}",
    "Image prompt: {caption}",
    "Prompt: {caption}",
    "new image. {caption}",
    "make me this: {caption}",
    "pic of this pls: {caption}",
    "Create an image from this caption: {caption}",
    "Illustrate this caption. {caption}",
    "The caption reads: {sentence} Draw the picture.",
    "Visualize: {caption}",
    "Compose an image as follows. {caption}",
    "Bring this description to life: {caption}",
    "Give me a picture for this text: {caption}",
    "Produce one image. Content: {caption}",
    "Scene: {caption}",
    "Task: text-to-image generation. Prompt: {caption}",
    "Output an image of what is described here: {caption}",
    "What would this look like? {caption}",
    "Here is what I want to see: {caption}",
    "Generate the photograph this caption belongs to: {caption}",
    "Depict the following. {caption}",
    "Synthesize an image for: {caption}",
    "An image, please: {caption}",
    "Could you generate this for me? {caption}",
    "I need an illustration. {caption}",
    "Turn this sentence into a picture: {caption}",
    "From this description, create an image: {caption}",
    "Draw exactly what is said: {caption}",
    "Put this into a picture: {caption}",
    "Let me see this: {caption}",
    "Follow the description and generate an image. {caption}",
    "{sentence} Draw it.",
)

TASK = GenerateTask()
