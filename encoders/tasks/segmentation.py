"""What semantic and referring tasks share: colors of a legend, its wording in a prompt, its spec and its decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.palettes import (
    BLACK,
    COLOR_NAMES,
    Color,
    format_hex,
    lattice_colors,
    named_colors,
    random_colors,
)
from cavendish.encoders.codecs.semantic import decode_semantic
from cavendish.encoders.draws import one_of
from cavendish.encoders.legends.parser import BACKGROUND, quote_if_needed
from cavendish.encoders.legends.writer import format_color, notations_for, write_legend
from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.encoders.tasks.task import (
    Question,
    Task,
    after_verb,
    check_codec,
    draw_wording,
    read_color,
    read_field,
    split_names,
)

CODEC_ID = "legend/1"

BACKGROUND_COLORS: tuple[tuple[str, float], ...] = (("black", 0.7), ("white", 0.15), ("gray", 0.1), ("navy", 0.05))


@dataclass(frozen=True)
class Segmentation:
    """A decoded "semantic" or "referring" image.

    Args:
        labels: (H, W) int16, positions in `names`; -1 background.
        names: the classes or expressions of the prompt, in its order.
    """

    labels: NDArray[np.int16]
    names: tuple[str, ...]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the (H, W) pixels of one name."""
        return self.labels == self.names.index(name)


def legend_spec(legend: Mapping[str, Color], background: Color) -> dict[str, Any]:
    """Return what decodes an image drawn in the colors of a legend: fields of the spec, in the legend's order."""
    rows = [[name, list(color)] for name, color in legend.items()]
    return {"codec": CODEC_ID, "legend": rows, "background": list(background)}


def decode_legend(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Segmentation:
    """Read the labels of an image drawn in the colors of a spec's legend.

    Raises:
        InputError: a missing or odd field of the spec.
    """
    check_codec(spec, CODEC_ID)
    legend: dict[str, Color] = {}
    for row in read_field(spec, "legend", list):
        if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], str) or row[0] in legend:
            raise InputError(f"spec legend has the row {row!r}: give [name, [r, g, b]], each name once")
        legend[row[0]] = read_color(row[1], row[0])
    labels = decode_semantic(rgb_u8, legend, read_color(spec.get("background"), "background"))
    return Segmentation(labels, tuple(legend))


class LegendTask(Task):
    """A task whose answer is drawn in the colors of a legend; `verb` and `separator` are those of its `usage`."""

    fields: ClassVar[tuple[str, ...]] = ("instance_ids", "weight")
    finds_objects = True
    hub_category = "image-segmentation"
    verb: ClassVar[str]
    separator: ClassVar[str]

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Segmentation:
        return decode_legend(spec, rgb_u8)

    def ask(self, text: str, pass_number: int) -> Question | None:
        names = after_verb(text, self.verb)
        return self.question(split_names(names, self.separator), pass_number) if names else None

    def ask_again(self, spec: Mapping[str, Any], pass_number: int) -> Question:
        return self.question([str(name) for name, _ in spec["legend"]], pass_number)

    def question(self, names: list[str], pass_number: int) -> Question:
        """Ask for names in the wording and colors of a pass."""
        raise NotImplementedError


def draw_background(rng: np.random.Generator) -> Color:
    """Draw the color of everything else."""
    names, shares = zip(*BACKGROUND_COLORS)
    return COLOR_NAMES[names[int(rng.choice(len(names), p=shares))]]


def word_color(color: Color, rng: np.random.Generator) -> str:
    """Write a color that has a name: mostly by it."""
    return format_color(color, one_of(("name", "name", "name", "hex", "(r, g, b)"), rng))


def draw_legend_colors(count: int, background: Color, rng: np.random.Generator) -> tuple[Color, ...]:
    """Draw legend colors: of a lattice, of those with a name, or any that are far apart."""
    scheme = one_of(("lattice", "names", "random"), rng)
    if scheme == "names" and count <= 16:
        return named_colors(count, rng, background)
    if scheme == "random" and count <= 12:
        return random_colors(count, rng, background)
    return lattice_colors(count, rng, background)


def draw_legend_prompt(
    legend: Mapping[str, Color],
    background: Color,
    rng: np.random.Generator,
    templates: Sequence[str],
    quantifiers: Sequence[str] | None = None,
) -> str:
    """Word a whole legend, as a list in a template or as a sentence; the background is an entry, stated or left out.

    Args:
        templates: have the slot `{legend}`.
        quantifiers: of which one stands before class names in sentences; None: names are expressions.
    """
    where = one_of(("entry", "sentence", "unstated") if background == BLACK else ("entry", "sentence"), rng)
    written = {**legend, BACKGROUND: background} if where == "entry" else dict(legend)
    notation = one_of(notations_for(written), rng)
    every = "" if quantifiers is None else one_of(quantifiers, rng)
    text = write_legend(written, notation, rng, every)
    if notation.structure == "sentence":
        templates = LEGEND_SENTENCES
    elif "\n" in text:
        text = "\n" + text
    prompt = draw_wording(templates, {"legend": text}, rng).strip("\n")
    if where != "sentence":
        return prompt
    color = {"background": word_color(background, rng)}
    end = "" if prompt.endswith((".", "\n", "?", "!")) else "\n" if "\n" in text else "."
    gap = "" if end == "\n" else " "
    return f"{prompt}{end}{gap}{draw_wording(BACKGROUND_SENTENCES, color, rng)}"


def plain_legend(legend: Mapping[str, Color]) -> str:
    """Write a legend as a question does: names and hex codes, with commas."""
    return ", ".join(f"{quote_if_needed(name)}: {format_hex(color)}" for name, color in legend.items())


LEGEND_SENTENCES = (
    "[Segment|Label] this image. {legend}",
    "Semantic segmentation, please. {legend}",
    "{legend}",
    "Draw a segmentation map. {legend}",
    "Make a mask of this picture. {legend}",
    "Flat colors only. {legend}",
    "Let's segment the scene. {legend}",
    "Can you segment this photo? {legend}",
    "{legend} No shading, no outlines.",
    "Parse the scene by class. {legend}",
    "I want a label map. {legend}",
    "Redraw the photo as flat regions. {legend}",
)

BACKGROUND_SENTENCES = (
    "Everything else is {background}.",
    "Paint everything else {background}.",
    "The rest of the image is {background}.",
    "Leave the background {background}.",
    "All other pixels should be {background}.",
    "Keep the rest {background}.",
    "Anything else gets {background}.",
    "Use {background} for everything else.",
)
