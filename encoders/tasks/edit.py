"""Editing by an instruction: keeps the tuned generator an editor."""

from __future__ import annotations

import numpy as np

from cavendish.encoders.sample import Sample
from cavendish.encoders.tasks.generate import CODEC_ID, GenerateTask, as_sentence
from cavendish.encoders.tasks.task import Instruction, Options, draw_wording


class EditTask(GenerateTask):
    """The source image with one change."""

    name = "edit"
    kind = "editing"
    fields = ("edit",)
    has_source = True
    hub_category = "image-to-image"
    usage = "edit WHAT TO CHANGE"

    def serves(self, sample: Sample) -> bool:
        return sample.edit is not None and bool(sample.edit.instruction.strip())

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Ask by the instruction alone, or worded."""
        assert sample.edit is not None
        instruction = sample.edit.instruction.strip()
        prompt = instruction
        if rng.random() < 0.5:
            request = instruction
            if instruction[1:2].islower():
                request = instruction[:1].lower() + instruction[1:].rstrip(".")
            prompt = draw_wording(EDIT, {"request": request, "sentence": as_sentence(instruction)}, rng)
        return Instruction(prompt, sample.edit.image, {"codec": CODEC_ID})


# How people ask; every line has the instruction in it.
EDIT = (
    "{sentence}",
    "Edit the image: {sentence}",
    "Edit this [photo|picture]. {sentence}",
    "Please edit the picture as follows: {sentence}",
    "{sentence} Keep everything else the same.",
    "{sentence} Change nothing else.",
    "{sentence} The rest of the image must stay as it is.",
    "{sentence} Leave all other parts untouched.",
    "Make one change: {sentence}",
    "Apply this edit: {sentence}",
    "Apply the following change to the image. {sentence}",
    "Change this picture: {sentence}",
    "Image editing. {sentence}",
    "Task: image editing. Instruction: {sentence}",
    "Instruction: {sentence}",
    "Modify the [image|photo|picture]: {sentence}",
    "Take this photo and do the following. {sentence}",
    "[Can|Could] you change this for me? {sentence}",
    "I'd like one thing changed. {sentence}",
    "Redraw the picture with this change: {sentence}",
    "Same picture, one difference: {sentence}",
    "Using the input image, {request}",
    "In this image, {request}",
    "In the picture, please {request}",
    "Please {request}",
    "please {request} thanks",
    "edit: {request}",
    "pls do this: {request}",
    "Retouch the photo. {sentence}",
    "Retouch: {sentence} Nothing else should change.",
    "Here is an edit request: {sentence}",
    "My request: {sentence}",
    "Do this to the image: {sentence}",
    "Return the same image after this edit: {sentence}",
    "Carry out this edit, preserving the scene otherwise. {sentence}",
    "Make the following edit and keep the composition. {sentence}",
    "What if you did this? {sentence}",
    "Show the scene after this change: {sentence}",
    "Alter the picture in one way only. {sentence}",
    "Keep the viewpoint and the lighting. {sentence}",
    "Preserve everything except what I ask for. {sentence}",
    "Give me an edited version: {sentence}",
    "Update the image. {sentence}",
    "One small edit please: {sentence}",
)

TASK = EditTask()
