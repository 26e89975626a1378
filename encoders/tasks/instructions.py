"""Sample + task + rng -> Example: the prompt a person would type, the decodable answer, and how to decode it.

Everything random goes through `rng`, so the same sample, task and seed give the same bytes. `decode_example` needs the
spec alone; `encoders.legends.parser.parse_legend` recovers the colours from the prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colormaps import COLORMAPS, ColormapCodec, encode_colormap
from cavendish.encoders.codecs.depth import CUBE_WALK, encode_depth
from cavendish.encoders.codecs.instances import encode_instances
from cavendish.encoders.codecs.normals import CODEC_ID as NORMALS_CODEC
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.codecs.palettes import (
    BLACK,
    COLOR_NAMES,
    Color,
    lattice_colors,
    name_of,
    named_colors,
    random_colors,
)
from cavendish.encoders.codecs.semantic import NO_CLASS, encode_semantic
from cavendish.encoders.draws import one_of, shuffled
from cavendish.encoders.expressions.programs import NO, Program, Thing, category_match, scene_table
from cavendish.encoders.expressions.wording import (
    Expression,
    describable,
    find_absent,
    find_expression,
    plural,
    singular,
    write_expression,
)
from cavendish.encoders.legends.categories import SALIENT_CATEGORIES, SALIENT_EXPRESSIONS, SALIENT_WORDS
from cavendish.encoders.legends.notation import COLOR_FORMATS, format_color, notations_for, write_legend
from cavendish.encoders.legends.parser import BACKGROUND, quote_if_needed
from cavendish.encoders.sample import TASKS, Example, InputError, Instance, Sample, UInt8Image
from cavendish.encoders.tasks import wordings
from cavendish.encoders.tasks.askable import (
    classes_of,
    complete_classes,
    countable_classes,
    draw_absent,
    knows_absence,
    main_subject,
    present_instances,
    salient_instance,
    serves,
    tasks_of,
)
from cavendish.encoders.tasks.prompts import draw_wording
from cavendish.encoders.tasks.specs import Prediction, Segmentation, decode_example, legend_spec

__all__ = ["Prediction", "Segmentation", "decode_example", "make_example", "tasks_of"]

NEGATIVE_PROBABILITY = 0.1
"""How often a prompt asks for what is not there, when the sample knows what that is."""

SUBJECT_PROBABILITY = 0.3
"""How often an object that is the photo's main subject is asked for as that, rather than by class and colour."""

PHRASE_PROBABILITY = 0.5
"""How often an object with a written phrase is asked for by it, rather than by an expression that was proved."""

COLORMAP_PROBABILITY = 0.25
"""How often depth is drawn with a colour map named in the prompt, rather than with the cube walk."""

BACKGROUND_COLORS: tuple[tuple[str, float], ...] = (("black", 0.7), ("white", 0.15), ("gray", 0.1), ("navy", 0.05))

MAX_CLASSES = 20
MAX_DISTRACTORS = 3
MAX_EXPRESSIONS = 4

Drawn = tuple[str, UInt8Image, dict[str, Any]]
"""Prompt, target, spec."""


def make_example(
    sample: Sample,
    task: str,
    rng: np.random.Generator,
    negative_probability: float = NEGATIVE_PROBABILITY,
    colormap_shares: Mapping[str, float] | None = None,
) -> Example:
    """Draw one instruction for a sample.

    Args:
        sample: what is known of a picture.
        task: one of `tasks_of(sample)`.
        rng: every draw; the Example is a function of (sample, task, the state of rng).
        negative_probability: of asking for a class or an object that is not there, in samples that are exhaustive
            or whose facts["absent"] lists classes; the target is then background only.
        colormap_shares: share of depth examples drawn in each of COLORMAPS, the rest with the cube walk; None:
            `COLORMAP_PROBABILITY` in any of them, evenly.

    Returns:
        The Example. Its source is the sample's image, None for "generate"; its weight is the sample's, but None for
        "generate" and "edit", whose targets are pictures and not what was measured or guessed of one.

    Raises:
        InputError: the sample cannot serve the task.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} is not known; known: {', '.join(TASKS)}")
    serial = int(rng.integers(2**32))
    if not serves(sample, task):
        raise InputError(f"{sample.key}: cannot serve task {task!r}; it serves {', '.join(tasks_of(sample)) or 'none'}")
    if task == "depth":
        prompt, target, spec = _depth(sample, rng, colormap_shares)
    else:
        prompt, target, spec = _MAKERS[task](sample, rng, negative_probability)
    source = None if task == "generate" else sample.image
    weight = None if task in ("generate", "edit") else sample.weight
    return Example(f"{sample.key}.{task}.{serial:08x}", task, prompt, source, target, {"task": task, **spec}, weight)


def _depth(sample: Sample, rng: np.random.Generator, colormap_shares: Mapping[str, float] | None) -> Drawn:
    depth_m = _array(sample.depth_m)
    chance = COLORMAP_PROBABILITY if colormap_shares is None else sum(colormap_shares.values())
    if rng.random() >= chance:
        return draw_wording(wordings.DEPTH, {}, rng), encode_depth(depth_m), {"codec": CUBE_WALK.id}
    near_m, far_m = _depth_range(depth_m, rng)
    if colormap_shares is None:
        name = one_of(COLORMAPS, rng)
    else:
        names = [name for name in COLORMAPS if colormap_shares.get(name, 0) > 0]
        name = names[int(rng.choice(len(names), p=[colormap_shares[name] / chance for name in names]))]
    codec = ColormapCodec(name, near_m, far_m)
    unit = one_of((" m", " m", " meters", "m", " metres"), rng)
    slots = {"colormap": codec.name, "near": f"{near_m:g}{unit}", "far": f"{far_m:g}{unit}"}
    prompt = draw_wording(wordings.DEPTH_COLORMAP, slots, rng)
    return prompt, encode_colormap(depth_m, codec), {"codec": codec.id}


def _depth_range(depth_m: NDArray[np.float32], rng: np.random.Generator) -> tuple[float, float]:
    """Return round limits that hold every finite depth, or all but the farthest 5 %."""
    finite = depth_m[np.isfinite(depth_m)]
    low, high = float(finite.min()), float(np.quantile(finite, one_of((0.95, 1.0, 1.0), rng)))
    step = 10.0 ** np.floor(np.log10(max(high, 0.1)))
    far_m = float(np.ceil(high / step * 2 + 1e-6) * step / 2)
    near_m = float(np.floor(low / step * 10) * step / 10) if rng.random() < 0.5 else 0.0
    return round(near_m, 6), round(max(far_m, near_m + step / 2), 6)


def _normals(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    return draw_wording(wordings.NORMALS, {}, rng), encode_normals(_array(sample.normals)), {"codec": NORMALS_CODEC}


def _semantic(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    classes = classes_of(sample)
    names = _with_synonyms(
        shuffled(list(classes), rng)[: int(rng.integers(1, min(len(classes), MAX_CLASSES) + 1))], classes
    )
    distractors: tuple[str, ...] = ()
    if knows_absence(sample):
        distractors = draw_absent(sample, int(rng.integers(MAX_DISTRACTORS + 1)), rng)
        if rng.random() < negative_probability:
            absent = draw_absent(sample, int(rng.integers(1, MAX_DISTRACTORS + 1)), rng)
            names, distractors = ([], absent) if absent else (names, distractors)
    asked = {_said(name, rng): classes.get(name, ()) for name in shuffled([*names, *distractors], rng)}
    background = _background(rng)
    legend = dict(zip(asked, _colors(len(asked), background, rng)))
    ids = _array(sample.instance_ids)
    table = np.full(int(ids.max(initial=0)) + 1, NO_CLASS, np.int16)
    for label, members in enumerate(asked.values()):
        table[[i for i in members if i < len(table)]] = label
    target = encode_semantic(table[ids], legend, background)
    return _legend_prompt(legend, background, rng, expressions=False), target, legend_spec(legend, background)


def _with_synonyms(names: list[str], classes: Mapping[str, Any]) -> list[str]:
    """Add classes that could be meant by those asked for: it is arguable whether a stool is one of the chairs."""
    return [name for name in classes if name in names or any(category_match(name, asked) != NO for asked in names)]


def _legend_prompt(legend: Mapping[str, Color], background: Color, rng: np.random.Generator, expressions: bool) -> str:
    """Word a whole legend, as a list in a template or as a sentence; the background is an entry, stated or left out."""
    where = one_of(("entry", "sentence", "unstated") if background == BLACK else ("entry", "sentence"), rng)
    written = {**legend, BACKGROUND: background} if where == "entry" else dict(legend)
    notation = one_of(notations_for(written), rng)
    every = "" if expressions else one_of(("every ", "the ", "each ", ""), rng)
    text = write_legend(written, notation, rng, every)
    templates: tuple[str, ...] = wordings.REFERRING_SEVERAL if expressions else wordings.SEMANTIC
    if notation.structure == "sentence":
        templates = wordings.SEMANTIC_SENTENCES
    elif "\n" in text:
        text = "\n" + text
    prompt = draw_wording(templates, {"legend": text}, rng).strip("\n")
    if where != "sentence":
        return prompt
    color = {"background": _spoken_color(background, rng)}
    end = "" if prompt.endswith((".", "\n", "?", "!")) else "\n" if "\n" in text else "."
    gap = "" if end == "\n" else " "
    return f"{prompt}{end}{gap}{draw_wording(wordings.BACKGROUND_SENTENCES, color, rng)}"


def _instance(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    classes = countable_classes(sample)
    name, members = one_of(list(classes.items()), rng)
    if knows_absence(sample) and rng.random() < negative_probability:
        absent = draw_absent(sample, 1, rng)
        name, members = (absent[0], ()) if absent else (name, members)
    background = _background(rng)
    colors = dict(zip(members, lattice_colors(len(members), rng, background)))
    target = encode_instances(_array(sample.instance_ids), colors, background)
    thing = _said(name, rng)
    slots = {
        "thing": singular(thing),
        "things": plural(thing),
        "quoted": f'"{thing}"',
        "background": _spoken_color(background, rng),
    }
    prompt = draw_wording(wordings.INSTANCE, slots, rng)
    return prompt, target, {"codec": "instances/1", "category": thing, "background": list(background)}


def _referring(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    negative = knows_absence(sample) and rng.random() < negative_probability
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, MAX_EXPRESSIONS + 1))
    expressions = _expressions(sample, count, negative, rng)
    background = _background(rng)
    legend = dict(zip((e.text for e in expressions), _colors(len(expressions), background, rng)))
    ids = _array(sample.instance_ids)
    colors = [(expression.ids, legend[expression.text]) for expression in expressions]
    target = np.empty((*ids.shape, 3), np.uint8)
    target[...] = background
    for members, color in colors:
        target[np.isin(ids, members)] = color
    spec = {**legend_spec(legend, background), "kinds": [expression.kind for expression in expressions]}
    if len(expressions) > 1:
        return _legend_prompt(legend, background, rng, expressions=True), target, spec
    ((text, color),) = legend.items()
    numbers = [f for f in COLOR_FORMATS if f not in ("r, g, b", "r g b", "name") or (f == "name" and name_of(color))]
    slots = {
        "expression": quote_if_needed(text),
        "quoted": f'"{text}"',
        "color": format_color(color, one_of(numbers, rng)),
        "background": _spoken_color(background, rng),
    }
    return draw_wording(wordings.REFERRING, slots, rng), target, spec


def _expressions(sample: Sample, count: int, negative: bool, rng: np.random.Generator) -> list[Expression]:
    """Draw up to `count` expressions with targets that do not overlap; one that fits nothing first if `negative`."""
    table = scene_table(sample)
    absent = _absent_expression(sample, table, rng) if negative else None
    found = [] if absent is None else [absent]
    if absent is not None and count == 1:
        return found
    if (written := _written(sample)) and rng.random() < PHRASE_PROBABILITY:
        return [*found, one_of(written, rng)]
    if subject := _subject(sample, table, rng):
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


def _written(sample: Sample) -> list[Expression]:
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


def _subject(sample: Sample, table: tuple[Thing, ...], rng: np.random.Generator) -> Instance | None:
    """Return the photo's main subject when it is to be asked for as such: always when nothing else can be said."""
    if salient := salient_instance(sample):
        return salient
    subject = main_subject(sample)
    if subject is None or (
        describable(table, sample.exhaustive, complete_classes(sample)) and rng.random() >= SUBJECT_PROBABILITY
    ):
        return None
    return subject


def _generate(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    caption = one_of(sample.captions, rng).strip()
    prompt = caption
    if rng.random() < 0.5:
        prompt = draw_wording(wordings.GENERATE, {"caption": caption, "sentence": _sentence(caption)}, rng)
    return prompt, sample.image, {"codec": "image/1"}


def _edit(sample: Sample, rng: np.random.Generator, negative_probability: float) -> Drawn:
    if sample.edit is None:
        raise AssertionError("checked by make_example")
    instruction = sample.edit.instruction.strip()
    prompt = instruction
    if rng.random() < 0.5:
        request = instruction[:1].lower() + instruction[1:].rstrip(".") if instruction[1:2].islower() else instruction
        prompt = draw_wording(wordings.EDIT, {"request": request, "sentence": _sentence(instruction)}, rng)
    return prompt, sample.edit.image, {"codec": "image/1"}


def _array(array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise AssertionError("checked by make_example")
    return array


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _said(name: str, rng: np.random.Generator) -> str:
    return one_of(SALIENT_WORDS, rng) if name in SALIENT_CATEGORIES else name


def _background(rng: np.random.Generator) -> Color:
    names, shares = zip(*BACKGROUND_COLORS)
    return COLOR_NAMES[names[int(rng.choice(len(names), p=shares))]]


def _spoken_color(color: Color, rng: np.random.Generator) -> str:
    return format_color(color, one_of(("name", "name", "name", "hex", "(r, g, b)"), rng))


def _colors(count: int, background: Color, rng: np.random.Generator) -> tuple[Color, ...]:
    """Draw legend colours: of a lattice, of those with a name, or any that are far apart."""
    scheme = one_of(("lattice", "names", "random"), rng)
    if scheme == "names" and count <= 16:
        return named_colors(count, rng, background)
    if scheme == "random" and count <= 12:
        return random_colors(count, rng, background)
    return lattice_colors(count, rng, background)


_MAKERS: Mapping[str, Callable[[Sample, np.random.Generator, float], Drawn]] = {
    "normals": _normals,
    "semantic": _semantic,
    "instance": _instance,
    "referring": _referring,
    "generate": _generate,
    "edit": _edit,
}
