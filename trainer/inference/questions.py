"""What a person types after --task, as a prompt and the spec that decodes the answer.

A question is put in several wordings and colours by passes: pass 0 is always the same, further passes draw their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cavendish.encoders.codecs.depth import CUBE_WALK
from cavendish.encoders.codecs.normals import CODEC_ID as NORMALS_CODEC
from cavendish.encoders.codecs.palettes import BLACK, Color, format_hex, lattice_colors, named_colors
from cavendish.encoders.expressions.wording import plural, singular
from cavendish.encoders.legends.parser import BACKGROUND, parse_legend, quote_if_needed
from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks import wordings
from cavendish.encoders.tasks.prompts import draw_wording
from cavendish.encoders.tasks.specs import legend_spec

TASK_HELP = (
    "depth; normals; segment EXPRESSION[; EXPRESSION...]; label CLASS, CLASS, ...; instances of CLASS; edit WHAT TO "
    "CHANGE; generate WHAT TO DRAW; prompt TEXT (sent as typed, its legend is read from it)"
)


@dataclass(frozen=True)
class Question:
    """One prompt and how to decode its answer: `spec` is that of an Example."""

    prompt: str
    spec: Mapping[str, Any]

    @property
    def task(self) -> str:
        """One of `encoders.sample.TASKS`."""
        return str(self.spec["task"])


def read_question(text: str, pass_number: int = 0) -> Question:
    """Turn a task as typed into a question.

    Args:
        text: see TASK_HELP.
        pass_number: draws wording and colours; the decoded answer means the same for every one.

    Raises:
        InputError: not one of the forms, or a legend that cannot be read.
    """
    rng = np.random.default_rng([0x9E57, pass_number])
    verb, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    match verb.lower().rstrip(":"), rest:
        case "depth", "":
            return Question(_worded(wordings.DEPTH, {}, rng, pass_number), {"task": "depth", "codec": CUBE_WALK.id})
        case "normals", "":
            spec = {"task": "normals", "codec": NORMALS_CODEC}
            return Question(_worded(wordings.NORMALS, {}, rng, pass_number), spec)
        case "segment", str(what) if what:
            return _segment(_listed(what, ";"), rng, pass_number)
        case "label", str(what) if what:
            return _label(_listed(what, ","), rng, pass_number)
        case "instances", str(what) if re.match(r"of\s+\S", what):
            return _instances(what[2:].strip(), rng, pass_number)
        case ("edit" | "generate") as task, str(what) if what:
            return Question(what, {"task": task, "codec": "image/1"})
        case "prompt", str(what) if what:
            legend = parse_legend(what)
            background = legend.pop(BACKGROUND, BLACK)
            if not legend:
                raise InputError(f"prompt {what!r}: no name with a colour in it; write such as 'paint the mug red'")
            return Question(what, {"task": "semantic", **legend_spec(legend, background)})
    raise InputError(f"task {text!r} is not known; write one of: {TASK_HELP}")


def ask_again(spec: Mapping[str, Any], pass_number: int) -> Question:
    """Put the question of a decode spec in other words and colours; the decoded answer means the same.

    Args:
        spec: of a vision task, as in an Example.
        pass_number: draws wording and colours.

    Raises:
        InputError: a picture is asked for, which has no other words.
    """
    rng = np.random.default_rng([0x9E57, pass_number])
    match spec["task"]:
        case ("depth" | "normals") as task:
            return read_question(str(task), pass_number)
        case "semantic":
            return _label([str(name) for name, _ in spec["legend"]], rng, pass_number)
        case "referring":
            return _segment([str(name) for name, _ in spec["legend"]], rng, pass_number)
        case "instance":
            return _instances(str(spec["category"]), rng, pass_number)
    raise InputError(f"{spec['task']} cannot be asked in other words; use one pass")


def _worded(templates: Sequence[str], slots: Mapping[str, str], rng: np.random.Generator, pass_number: int) -> str:
    """Word pass 0 by the first template, others by any."""
    return draw_wording(templates if pass_number else templates[:1], slots, rng)


def _listed(text: str, separator: str) -> list[str]:
    names = [" ".join(name.split()) for name in text.split(separator)]
    names = [name for name in names if name]
    if len(set(names)) < len(names):
        raise InputError(f"{text!r} names something twice")
    return names


def _segment(expressions: list[str], rng: np.random.Generator, pass_number: int) -> Question:
    colors = named_colors(len(expressions), rng)
    legend = dict(zip(expressions, colors))
    spec = {"task": "referring", **legend_spec(legend, BLACK)}
    if len(expressions) > 1:
        return Question(_worded(wordings.REFERRING_SEVERAL, {"legend": _legend_text(legend)}, rng, pass_number), spec)
    ((expression, color),) = legend.items()
    slots = {
        "expression": quote_if_needed(expression),
        "quoted": f'"{expression}"',
        "color": format_hex(color),
        "background": "black",
    }
    return Question(_worded(wordings.REFERRING, slots, rng, pass_number), spec)


def _label(names: list[str], rng: np.random.Generator, pass_number: int) -> Question:
    legend = dict(zip(names, lattice_colors(len(names), rng)))
    prompt = _worded(wordings.SEMANTIC, {"legend": _legend_text(legend)}, rng, pass_number)
    return Question(prompt, {"task": "semantic", **legend_spec(legend, BLACK)})


def _instances(name: str, rng: np.random.Generator, pass_number: int) -> Question:
    slots = {"thing": singular(name), "things": plural(name), "quoted": f'"{name}"', "background": "black"}
    spec = {"task": "instance", "codec": "instances/1", "category": name, "background": list(BLACK)}
    return Question(_worded(wordings.INSTANCE, slots, rng, pass_number), spec)


def _legend_text(legend: Mapping[str, Color]) -> str:
    return ", ".join(f"{quote_if_needed(name)}: {format_hex(color)}" for name, color in legend.items())
