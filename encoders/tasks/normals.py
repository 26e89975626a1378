"""Surface normals in camera space, in the left-is-red colors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.normals import CODEC_ID, decode_normals, encode_normals
from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.encoders.tasks.task import (
    Instruction,
    Options,
    Question,
    Task,
    check_codec,
    draw_wording,
    pass_rng,
    word_question,
)


class NormalsTask(Task):
    """Unit vectors in camera space."""

    name = "normals"
    fields = ("normals", "weight")
    usage = "normals"

    def serves(self, sample: Sample) -> bool:
        """Tell whether a tenth of the normals is known, that is not (0, 0, 0)."""
        return sample.normals is not None and bool(sample.normals.any(axis=-1).mean() >= 0.1)

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        assert sample.normals is not None
        return Instruction(draw_wording(NORMALS, {}, rng), encode_normals(sample.normals), {"codec": CODEC_ID})

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> NDArray[np.float32]:
        check_codec(spec, CODEC_ID)
        return decode_normals(rgb_u8)

    def ask_again(self, spec: Mapping[str, Any], pass_number: int) -> Question:
        prompt = word_question(NORMALS, {}, pass_rng(pass_number), pass_number)
        return Question(prompt, {"task": self.name, "codec": CODEC_ID})


# How people ask: a prompt says no more than that.
NORMALS = (
    "[Generate|Create|Produce] a surface normal map of this [image|photo|picture].",
    "[Estimate|Predict] the surface normals of [this image|this scene|every pixel].",
    "Surface normals[, please|].",
    "Normal map[.|]",
    "[Draw|Render|Paint] this scene as a normal map in camera space.",
    "Which way does every surface face? [Draw|Show] it as a normal map.",
    "Turn this [photo|image] into a surface normal map.",
    "[Convert|Translate] the [image|picture] to camera-space normals.",
    "Show me the orientation of every surface as a normal image.",
    "Please [make|give me] a normal map of this scene.",
    "Can you [estimate|work out] the surface orientation here and draw it in color?",
    "Compute dense surface normals from this single image.",
    "[Visualize|Visualise] the surface normals of the scene.",
    "I need the normals of this [image|photo|scene]. Use the usual colors.",
    "Surface normal estimation: encode the direction each pixel faces as a color.",
    "Normal estimation[, camera space|].",
    "For each pixel, [paint|draw] the color that stands for the direction of its surface.",
    "Replace every pixel with the color of its normal vector.",
    "Draw which way each surface points, as seen from the camera.",
    "Give the scene's geometry as a normal map.",
    "Surface normals with red for left, green for up and blue for surfaces facing the camera.",
    "Color the scene by orientation: facing left is pinkish red, facing up light green, facing us light blue.",
    "How are the surfaces [oriented|tilted]? [Answer|Reply] with a normal map.",
    "what do the normals look like here? draw them",
    "normal map pls",
    "can you do a surface normal map of this",
    "Output only the surface normals of the input.",
    "Task: surface normals. Input: this image. Output: the normal map.",
    "From this photograph, infer the orientation of each surface and paint it as a normal map.",
    "I'd like to relight this [room|scene|picture]. Please draw its normal map for me.",
    "Imagine the scene without color or light, only the directions of its surfaces. [Draw|Show] those as a normal map.",
    "What would the normal pass of a renderer look like here?",
    "Recover the fine geometry of this image as surface normals.",
    "Reconstruct the surface orientation [behind|of] this photograph, color-coded as usual.",
    "Give me pixelwise unit normals, encoded in RGB.",
    "Repaint the picture so that color means surface direction.",
    "Every color should tell where the surface is facing. Nothing else.",
    "Please estimate camera-space normals (x right, y up, z toward the viewer) and return them as an image.",
    "A surface normal map, same size and framing as the input.",
    "Keep the framing and show normals instead of [appearance|color and texture].",
    "Infer surface normals from shading and perspective and visualize them.",
    "Orientation map of this image.",
    "Do surface normal estimation on this [frame|image|photo].",
    "Make the shape visible: one color per surface direction.",
)

TASK = NormalsTask()
