"""Semantic segmentation: classes in the colors of a legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cavendish.encoders.codecs.palettes import BLACK, lattice_colors
from cavendish.encoders.codecs.semantic import NO_CLASS, encode_semantic
from cavendish.encoders.draws import shuffled
from cavendish.encoders.expressions.programs import NO, category_match
from cavendish.encoders.sample import Sample
from cavendish.encoders.tasks.classes import (
    classes_of,
    draw_absent,
    draw_class_word,
    knows_absence,
    present_instances,
)
from cavendish.encoders.tasks.segmentation import (
    LegendTask,
    draw_background,
    draw_legend_colors,
    draw_legend_prompt,
    legend_spec,
    plain_legend,
)
from cavendish.encoders.tasks.task import (
    Instruction,
    Options,
    Question,
    pass_rng,
    word_question,
)

MAX_CLASSES = 20
MAX_DISTRACTORS = 3


class SemanticTask(LegendTask):
    """Classes of the sample, and some that are surely absent, each in its color."""

    name = "semantic"
    usage = "label CLASS, CLASS, ..."
    verb, separator = "label", ","

    def serves(self, sample: Sample) -> bool:
        return bool(present_instances(sample))

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Ask for some of the classes, and for some that are not there."""
        assert sample.instance_ids is not None
        classes = classes_of(sample)
        names = _with_synonyms(
            shuffled(list(classes), rng)[: int(rng.integers(1, min(len(classes), MAX_CLASSES) + 1))], classes
        )
        distractors: tuple[str, ...] = ()
        if knows_absence(sample):
            distractors = draw_absent(sample, int(rng.integers(MAX_DISTRACTORS + 1)), rng)
            if rng.random() < options.negative_probability:
                absent = draw_absent(sample, int(rng.integers(1, MAX_DISTRACTORS + 1)), rng)
                names, distractors = ([], absent) if absent else (names, distractors)
        asked = {draw_class_word(name, rng): classes.get(name, ()) for name in shuffled([*names, *distractors], rng)}
        background = draw_background(rng)
        legend = dict(zip(asked, draw_legend_colors(len(asked), background, rng)))
        ids = sample.instance_ids
        table = np.full(int(ids.max(initial=0)) + 1, NO_CLASS, np.int16)
        for label, members in enumerate(asked.values()):
            table[[i for i in members if i < len(table)]] = label
        target = encode_semantic(table[ids], legend, background)
        prompt = draw_legend_prompt(legend, background, rng, SEMANTIC, ("every ", "the ", "each ", ""))
        return Instruction(prompt, target, legend_spec(legend, background))

    def question(self, names: list[str], pass_number: int) -> Question:
        rng = pass_rng(pass_number)
        legend = dict(zip(names, lattice_colors(len(names), rng)))
        prompt = word_question(SEMANTIC, {"legend": plain_legend(legend)}, rng, pass_number)
        return Question(prompt, {"task": self.name, **legend_spec(legend, BLACK)})


def _with_synonyms(names: list[str], classes: Mapping[str, Any]) -> list[str]:
    """Add classes that could be meant by those asked for: it is arguable whether a stool is one of the chairs."""
    return [name for name in classes if name in names or any(category_match(name, asked) != NO for asked in names)]


SEMANTIC = (
    "[Perform semantic segmentation on|Segment] this [image|picture] with the following legend: {legend}",
    "Semantic segmentation. Legend: {legend}",
    "Label every pixel. Colors: {legend}",
    "[Create|Generate|Produce] a segmentation map of this [image|photo]. Use these colors: {legend}",
    "Segment the [image|scene|photo]: {legend}",
    "Please draw a segmentation mask with this color code: {legend}",
    "Color-code the picture by class: {legend}",
    "Paint each class in its own color. The colors are: {legend}",
    "Here is a legend: {legend}\nDraw the segmentation [it describes|map].",
    "{legend}\n\nUse this legend to segment the image.",
    "Turn this photo into a label map. Legend: {legend}",
    "[Can|Could] you segment this for me? The legend is: {legend}",
    "segment this: {legend}",
    "semantic map pls: {legend}",
    "Class colors:\n{legend}\nDraw the segmentation map.",
    "I need a pixelwise labeling of this [image|scene]. Please follow the legend: {legend}",
    "Which pixels belong to what? Answer in these colors: {legend}",
    "Replace every pixel by its class color: {legend}",
    "Given the class colors below, segment the image.\n{legend}",
    "Task: semantic segmentation. Classes: {legend}",
    "Convert this image to flat class colors: {legend}",
    "Draw the image as flat regions, one color per class: {legend}",
    "Do semantic segmentation with the palette {legend}",
    "Make a mask image: {legend}",
    "Produce masks for these classes: {legend}",
    "Please find the following classes and fill them with solid color: {legend}",
    "Map of classes, no shading, no outlines: {legend}",
    "I'd like every class filled with a flat color. Mapping: {legend}",
    "Use the mapping below to paint a semantic segmentation:\n{legend}",
    "Show me where these things are: {legend}",
    "Parse the scene. Palette: {legend}",
    "Scene parsing with these colors: {legend}",
    "Only flat colors, please. Segment according to: {legend}",
    "Annotate this picture for a segmentation dataset. Label colors: {legend}",
    "Output a segmentation map and nothing else. Colors: {legend}",
    "For each pixel, pick the color of the class it shows: {legend}",
    "Draw class labels over the whole image: {legend}",
    "Redraw this image as a segmentation map: {legend}",
    "What is where in this picture? Legend: {legend}",
    "Fill each region with the color of its class. Legend:\n{legend}",
    "As a label image: {legend}",
    "Segment by category using exactly these colors: {legend}",
    "Please do a semantic segmentation for me, my colors are: {legend}",
    "Recolor the whole picture by category: {legend}",
    "Category colors: {legend}\nApply them to the image.",
)

TASK = SemanticTask()
