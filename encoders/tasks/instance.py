"""Instance segmentation: every instance of one class in a color of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cavendish.encoders.codecs.instances import DecodedInstances, decode_instances_scored, encode_instances
from cavendish.encoders.codecs.palettes import BLACK, lattice_colors
from cavendish.encoders.draws import one_of
from cavendish.encoders.expressions.wording import plural, singular
from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.encoders.tasks.classes import countable_classes, draw_absent, draw_class_word, knows_absence
from cavendish.encoders.tasks.segmentation import draw_background, word_color
from cavendish.encoders.tasks.task import (
    Instruction,
    Options,
    Question,
    Task,
    after_verb,
    check_codec,
    draw_wording,
    pass_rng,
    read_color,
    word_question,
)

CODEC_ID = "instances/1"


class InstanceTask(Task):
    """The instances of one class that can be counted."""

    name = "instance"
    fields = ("instance_ids", "weight")
    hub_category = "image-segmentation"
    usage = "instances of CLASS"

    def serves(self, sample: Sample) -> bool:
        return bool(countable_classes(sample))

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Ask for one class, now and then for one that is not there."""
        assert sample.instance_ids is not None
        classes = countable_classes(sample)
        name, members = one_of(list(classes.items()), rng)
        if knows_absence(sample) and rng.random() < options.negative_probability:
            absent = draw_absent(sample, 1, rng)
            name, members = (absent[0], ()) if absent else (name, members)
        background = draw_background(rng)
        colors = dict(zip(members, lattice_colors(len(members), rng, background)))
        target = encode_instances(sample.instance_ids, colors, background)
        thing = draw_class_word(name, rng)
        prompt = draw_wording(INSTANCE, _slots(thing, word_color(background, rng)), rng)
        return Instruction(prompt, target, {"codec": CODEC_ID, "category": thing, "background": list(background)})

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> DecodedInstances:
        check_codec(spec, CODEC_ID)
        return decode_instances_scored(rgb_u8, read_color(spec.get("background"), "background"))

    def ask(self, text: str, pass_number: int) -> Question | None:
        match = re.match(r"of\s+(?=\S)", after_verb(text, "instances") or "")
        return None if match is None else self._question(match.string[match.end() :], pass_number)

    def ask_again(self, spec: Mapping[str, Any], pass_number: int) -> Question:
        return self._question(str(spec["category"]), pass_number)

    def _question(self, name: str, pass_number: int) -> Question:
        spec = {"task": self.name, "codec": CODEC_ID, "category": name, "background": list(BLACK)}
        prompt = word_question(INSTANCE, _slots(name, "black"), pass_rng(pass_number), pass_number)
        return Question(prompt, spec)


def _slots(thing: str, background: str) -> dict[str, str]:
    return {
        "thing": singular(thing),
        "things": plural(thing),
        "quoted": f'"{thing}"',
        "background": background,
    }


INSTANCE = (
    "Instance segmentation of every {thing}, with a different solid color each, on a {background} background.",
    "Segment [every|each] {thing} separately. Each one gets its own color on a {background} background.",
    "Instance segmentation: {things}. A distinct flat color for each one, everything else {background}.",
    "Give [every|each] {thing} its own color; everything else is {background}.",
    "Find all {things} and fill each with a different solid color. Leave the rest {background}.",
    "Paint each {thing} in a different color. The background must be {background}.",
    "Show me the individual {things}, one color per instance, on a {background} background.",
    "How many {things} are there? Draw each one in its own color over a {background} background.",
    "Color the {things} one by one, no two alike. Keep everything else {background}.",
    "instances of {thing}, background {background}",
    "separate masks for the {things}, rest {background}",
    "{things}: one flat color each, background {background}",
    "Please mark every single {thing} with a unique color. Everything else should be {background}.",
    "Could you separate the {things} for me? A unique color for each of them, {background} for everything else.",
    "Draw an instance mask of the {things}; background: {background}.",
    "[Detect|Locate] each {thing} and draw its silhouette in a color of its own on a {background} background.",
    "I need to count the {things}. Give each a separate color and make the background {background}.",
    "[Create|Generate|Produce] an instance map for the class {quoted}. Background: {background}.",
    "Task: instance segmentation. Class: {quoted}. Background: {background}.",
    "Class {quoted}, instance segmentation, background {background}.",
    "One color per {thing}, please. The rest of the image is {background}.",
    "Tell the {things} apart by color, on a {background} background.",
    "Every {thing} is to be a solid blob of its own color. Everything else stays {background}.",
    "Mask out each {thing} individually. Use any colors you like for them, but {background} for everything else.",
    "Choose a different color for each {thing} you see and fill it in. Everything else: {background}.",
    "Segment the {things} as instances over a {background} background.",
    "Which {things} are in this [picture|photo]? Fill each with a distinct color, leave everything else {background}.",
    "Instance masks of all {things}[, please|]. Background {background}.",
    "Draw every {thing} as a flat shape, colors all different, on a {background} background.",
    "Replace the picture by its {things}, each in one solid color, on a {background} background.",
    "Highlight all {things}, every one in a different color. All other pixels are {background}.",
    "If there are {things}, paint each one differently; all other pixels should be {background}.",
    "Only the {things} matter: one solid color for each, the rest {background}.",
    "Outline nothing, fill everything: each {thing} in its own color, background {background}.",
    "Make a color-per-object mask of the {things}. The background is {background}.",
    "Assign a separate color to each {thing}. Everything else is {background}.",
    "No two {things} may share a color. Anything else is {background}.",
    "Label the {things} individually with random distinct colors. Background = {background}.",
    "Pick out the {things}. Different {things}, different colors; everything else {background}.",
    "Split the {things} into instances and paint them on a {background} background.",
    "I want a mask where each {thing} has a color to itself and everything else is {background}.",
    "Instance-level segmentation of {things}, colors up to you, everything else {background}.",
    "Show where one {thing} ends and the next begins: one color each. Background {background}.",
    "Please paint the {things} so I can tell them apart. Everything else should be {background}.",
)

TASK = InstanceTask()
