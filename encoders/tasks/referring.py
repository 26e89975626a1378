"""Referring segmentation: what one or several expressions name, each in its color."""

from __future__ import annotations

import numpy as np

from cavendish.encoders.codecs.palettes import BLACK, format_hex, name_of, named_colors
from cavendish.encoders.draws import one_of, shuffled
from cavendish.encoders.expressions.programs import Program, Thing, scene_table
from cavendish.encoders.expressions.wording import (
    Expression,
    describable,
    find_absent,
    find_expression,
    write_expression,
)
from cavendish.encoders.legends.parser import quote_if_needed
from cavendish.encoders.legends.writer import COLOR_FORMATS, format_color
from cavendish.encoders.sample import Instance, Sample
from cavendish.encoders.tasks.classes import (
    SALIENT_EXPRESSIONS,
    complete_classes,
    draw_absent,
    knows_absence,
    main_subject,
    present_instances,
    salient_instance,
)
from cavendish.encoders.tasks.segmentation import (
    LegendTask,
    draw_background,
    draw_legend_colors,
    draw_legend_prompt,
    legend_spec,
    plain_legend,
    word_color,
)
from cavendish.encoders.tasks.task import (
    Instruction,
    Options,
    Question,
    draw_wording,
    pass_rng,
    word_question,
)

SUBJECT_PROBABILITY = 0.3
"""How often an object that is the photo's main subject is asked for as that, rather than by class and color."""

PHRASE_PROBABILITY = 0.5
"""How often an object with a written phrase is asked for by it, rather than by an expression that was proved."""

MAX_EXPRESSIONS = 4


class ReferringTask(LegendTask):
    """Objects by expressions that are proved to fit them, or that surely fit nothing."""

    name = "referring"
    fields = ("instance_ids", "depth_m", "weight")  # depth: nearer, farther
    usage = "segment EXPRESSION[; EXPRESSION...]"
    verb, separator = "segment", ";"

    def serves(self, sample: Sample) -> bool:
        return bool(salient_instance(sample) or main_subject(sample)) or describable(
            scene_table(sample), sample.exhaustive, complete_classes(sample)
        )

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Ask for one expression or a few, now and then for one that fits nothing."""
        assert sample.instance_ids is not None
        negative = knows_absence(sample) and rng.random() < options.negative_probability
        count = 1 if rng.random() < 0.6 else int(rng.integers(2, MAX_EXPRESSIONS + 1))
        expressions = _expressions(sample, count, negative, rng)
        background = draw_background(rng)
        legend = dict(zip((e.text for e in expressions), draw_legend_colors(len(expressions), background, rng)))
        target = np.empty((*sample.instance_ids.shape, 3), np.uint8)
        target[...] = background
        for expression in expressions:
            target[np.isin(sample.instance_ids, expression.ids)] = legend[expression.text]
        spec = {**legend_spec(legend, background), "kinds": [expression.kind for expression in expressions]}
        if len(expressions) > 1:
            return Instruction(draw_legend_prompt(legend, background, rng, REFERRING_SEVERAL), target, spec)
        ((text, color),) = legend.items()
        formats = [
            f for f in COLOR_FORMATS if f not in ("r, g, b", "r g b", "name") or (f == "name" and name_of(color))
        ]
        written = format_color(color, one_of(formats, rng))
        prompt = draw_wording(REFERRING, _slots(text, written, word_color(background, rng)), rng)
        return Instruction(prompt, target, spec)

    def question(self, expressions: list[str], pass_number: int) -> Question:
        rng = pass_rng(pass_number)
        legend = dict(zip(expressions, named_colors(len(expressions), rng)))
        spec = {"task": self.name, **legend_spec(legend, BLACK)}
        if len(expressions) > 1:
            slots = {"legend": plain_legend(legend)}
            return Question(word_question(REFERRING_SEVERAL, slots, rng, pass_number), spec)
        ((text, color),) = legend.items()
        slots = _slots(text, format_hex(color), "black")
        return Question(word_question(REFERRING, slots, rng, pass_number), spec)


def _slots(text: str, color: str, background: str) -> dict[str, str]:
    return {
        "expression": quote_if_needed(text),
        "quoted": f'"{text}"',
        "color": color,
        "background": background,
    }


def _expressions(sample: Sample, count: int, negative: bool, rng: np.random.Generator) -> list[Expression]:
    """Draw up to `count` expressions with targets that do not overlap; one that fits nothing first if `negative`."""
    table = scene_table(sample)
    absent = _absent_expression(sample, table, rng) if negative else None
    found = [] if absent is None else [absent]
    if absent is not None and count == 1:
        return found
    if (phrases := _phrase_expressions(sample)) and rng.random() < PHRASE_PROBABILITY:
        return [*found, one_of(phrases, rng)]
    if subject := _asked_subject(sample, table, rng):
        program = Program(category=subject.category)
        return [*found, Expression(one_of(SALIENT_EXPRESSIONS, rng), (subject.id,), program, "salient")]
    for _ in range(3 * count):
        if len(found) == count:
            break
        expression = find_expression(table, rng, sample.exhaustive, complete_classes(sample))
        if expression is None:
            break
        texts, taken = {e.text for e in found}, {i for e in found for i in e.ids}
        if expression.text not in texts and not taken & set(expression.ids):
            found.append(expression)
    return shuffled(found, rng)


def _phrase_expressions(sample: Sample) -> list[Expression]:
    """List the phrases of facts["phrases"]: a model wrote them, and another found the same object by them."""
    present = {instance.id: instance for instance in present_instances(sample)}
    rows = [row for row in sample.facts.get("phrases", ()) if row["id"] in present]
    return [
        Expression(row["text"], (row["id"],), Program(category=present[row["id"]].category), "phrase") for row in rows
    ]


def _absent_expression(sample: Sample, table: tuple[Thing, ...], rng: np.random.Generator) -> Expression | None:
    if sample.exhaustive:
        return find_absent(table, rng)
    absent = draw_absent(sample, 1, rng)
    if not absent:
        return None
    program = Program(category=absent[0])
    return Expression(write_expression(program, 1, rng), (), program, "none")


def _asked_subject(sample: Sample, table: tuple[Thing, ...], rng: np.random.Generator) -> Instance | None:
    """Return the photo's main subject when it is to be asked for as such: always when nothing else can be said."""
    if salient := salient_instance(sample):
        return salient
    subject = main_subject(sample)
    if subject is None or (
        describable(table, sample.exhaustive, complete_classes(sample)) and rng.random() >= SUBJECT_PROBABILITY
    ):
        return None
    return subject


REFERRING = (
    "Segment {expression} in {color}. Everything else is {background}.",
    "[Highlight|Mark] {expression} in {color} and leave everything else {background}.",
    "Paint {expression} {color}, everything else {background}.",
    "Make a mask: {expression} in {color}, everything else in {background}.",
    "Mask of {expression} in {color} on a {background} background.",
    "Color {expression} {color} and keep the rest {background}.",
    "Find {expression} and fill it with {color}. The rest of the image should be {background}.",
    "Where is {expression}? Show it in {color}, everything else {background}.",
    "Draw only {expression}, in {color}, on a {background} background.",
    "Please segment {expression}. Use {color} for it and {background} for everything else.",
    "[Can|Could] you point out {expression}? Paint it {color} on a {background} background.",
    "Show me {expression} as a {color} shape on a {background} background.",
    "I'm looking for {expression}. Paint it in {color}; everything else {background}.",
    "Fill {expression} with solid {color} and everything else with {background}.",
    "Which pixels belong to {expression}? Make them {color} and all other pixels {background}.",
    "{expression}: {color}, background: {background}",
    "{expression} -> {color}, everything else -> {background}",
    "{expression} in {color}, rest {background}",
    "segment {expression} with {color}, background {background}",
    "mask {expression} in {color}, everything else {background}",
    "Task: referring segmentation. Target: {quoted}. Color: {color}. Background: {background}.",
    "Referring expression: {quoted}. Fill it with {color}; everything else is {background}.",
    "Segment what {quoted} refers to. Paint it {color} and leave the rest {background}.",
    "The phrase is {quoted}. Paint what it describes in {color}, everything else in {background}.",
    "Isolate {expression}: {color} for it, {background} for everything else.",
    "Cut out {expression} as a flat {color} silhouette on a {background} background.",
    "Generate a segmentation mask of {expression}. Mask color {color}. The background is {background}.",
    "Turn {expression} {color} and everything else {background}.",
    "Replace the image with a mask: {expression} should be {color} and everything else {background}.",
    "Ground this description in the image: {quoted}. Answer in {color} on a {background} background.",
    "Make {expression} {color}. Everything else must be {background}.",
    "I want {expression} painted {color}. Leave everything else {background}.",
    "If you can see {expression}, paint it {color}. Everything else is {background} either way.",
    "Draw a flat mask where {expression} is {color} and everything else is {background}.",
    "Use {color} for {expression} and {background} for everything else.",
    "Put {color} on {expression}. Keep everything else {background}.",
    "Locate {expression}, then fill it in {color}. Leave the background {background}.",
    "Only {expression} should be {color}. The rest should be {background}.",
    "Do a referring segmentation of {expression} in {color}. Everything else {background}.",
    "Tell me where {expression} is by painting it {color}. All other pixels should be {background}.",
    "Pick out {expression} in {color}, rest of the image {background}.",
    "Show {expression} as {color} and everything else as {background}.",
    "Everything {background} except for one thing: paint {expression} {color}.",
    "Shade {expression} in {color} (flat, no texture). Everything else {background}.",
)

REFERRING_SEVERAL = (
    "Segment these, each in its own color: {legend}",
    "Referring segmentation with several targets: {legend}",
    "[Highlight|Mark] the following: {legend}",
    "Find each of these and fill it with its color: {legend}",
    "Please paint what these phrases describe: {legend}",
    "Make one mask image for all of these: {legend}",
    "Draw a mask from these descriptions: {legend}",
    "{legend}\n\nPaint these and nothing else.",
    "Can you find these for me? {legend}",
    "Legend of descriptions: {legend}",
    "Where are they? Answer with these colors: {legend}",
    "mask these: {legend}",
    "Ground each phrase in the image: {legend}",
    "Descriptions and colors:\n{legend}",
)

TASK = ReferringTask()
