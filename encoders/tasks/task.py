"""The protocol of a task: which samples it serves, its prompt, target and decode spec, and how a person asks for it.

A task is one file beside this one and one entry of `registry.TASKS`; docs/add_a_task.md shows a complete small one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import InputError, Sample, UInt8Image

Kind = Literal["generation", "editing", "vision"]
"""The kinds of example that a mixture balances."""

NEGATIVE_PROBABILITY = 0.1
"""How often a prompt asks for what is not there, when the sample knows what that is."""


@dataclass(frozen=True)
class Options:
    """How examples are drawn.

    Args:
        negative_probability: of asking for a class or an object that is not there, in samples that are exhaustive or
            whose facts["absent"] lists classes; the target is then background only.
        colormap_shares: share of depth examples drawn in each of COLORMAPS, the rest with the cube walk; None:
            a quarter in any of them, evenly.
    """

    negative_probability: float = NEGATIVE_PROBABILITY
    colormap_shares: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Instruction:
    """What a task makes of a sample: the prompt, the target (H, W, 3) uint8, and the json-able spec that decodes it."""

    prompt: str
    target: UInt8Image
    spec: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One prompt and how to decode its answer: `spec` is that of an Example; `warnings` say what may go wrong."""

    prompt: str
    spec: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(self.spec["task"])


class Task:
    """One task. A subclass sets the fields and writes `serves`, `make` and `decode`; `ask` makes `predict` know it.

    Fields:
        name: as in mixture files; letters only.
        kind: what a mixture counts its examples as.
        fields: the arrays of a Sample that it draws from beside the image; shards decode no others for it.
        has_source: False when the prompt goes without an image.
        weighted: True when the sample's per-pixel weight holds for the target.
        finds_objects: True when a prompt may name what is not there, so that its target may be background only.
        hub_category: the task category of dataset hubs, for cards.
        usage: what a person types after `predict --task`.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = "vision"
    fields: ClassVar[tuple[str, ...]] = ()
    has_source: ClassVar[bool] = True
    weighted: ClassVar[bool] = True
    finds_objects: ClassVar[bool] = False
    hub_category: ClassVar[str | None] = None
    usage: ClassVar[str]

    def serves(self, sample: Sample) -> bool:
        """Tell whether a sample has what `make` needs."""
        raise NotImplementedError

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Draw one instruction for a sample that `serves`; every random choice goes through `rng`."""
        raise NotImplementedError

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Any:
        """Read an image (H, W, 3) uint8 that was drawn for a spec of `make`.

        Raises:
            InputError: a missing or odd field of the spec.
        """
        raise NotImplementedError

    def ask(self, text: str, pass_number: int) -> Question | None:
        """Turn what a person typed into a question; None when it is not of the form of `usage`.

        Args:
            text: the request, stripped.
            pass_number: 0 gives the plainest prompt; further passes draw other wordings and colors.

        By default the name alone is a request.
        """
        return self.ask_again({}, pass_number) if after_verb(text, self.name) == "" else None

    def ask_again(self, spec: Mapping[str, Any], pass_number: int) -> Question:
        """Ask the question of a decode spec in other words and colors; the decoded answer means the same.

        Raises:
            InputError: this task has only one way of asking.
        """
        raise InputError(f"{self.name} cannot be asked in other words; use one pass")


_CHOICE = re.compile(r"\[([^\[\]{}]*\|[^\[\]{}]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def draw_wording(templates: Sequence[str], slots: Mapping[str, str], rng: np.random.Generator) -> str:
    """Draw a template, settle its choices, fill its slots in one pass.

    Args:
        templates: `[a|b|]` is a choice (the last one empty), `{name}` a slot.
        slots: text for every slot that any of the templates has. It is not expanded again.
        rng: draws the template, then each choice from left to right.

    Raises:
        KeyError: a slot without text.
    """
    template = one_of(templates, rng)
    while match := _CHOICE.search(template):
        template = template[: match.start()] + one_of(match[1].split("|"), rng) + template[match.end() :]
    return _SLOT.sub(lambda match: slots[match[1]], template)


def pass_rng(pass_number: int) -> np.random.Generator:
    """Return the generator that draws the wording and colors of one pass over a question."""
    return np.random.default_rng([0x9E57, pass_number])


def word_question(
    templates: Sequence[str], slots: Mapping[str, str], rng: np.random.Generator, pass_number: int
) -> str:
    """Word pass 0 by the first template, others by any."""
    return draw_wording(templates if pass_number else templates[:1], slots, rng)


def after_verb(text: str, verb: str) -> str | None:
    """Return what follows the verb of a request ("segment the cat", "Segment: the cat"); None for another verb."""
    first, _, rest = text.partition(" ")
    return rest.strip() if first.lower().rstrip(":") == verb else None


def split_names(text: str, separator: str) -> list[str]:
    """Split a request into names.

    Raises:
        InputError: a name stands there twice.
    """
    names = [" ".join(name.split()) for name in text.split(separator)]
    names = [name for name in names if name]
    if len(set(names)) < len(names):
        raise InputError(f"{text!r} names something twice")
    return names


def read_field(spec: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field of a decode spec.

    Raises:
        InputError: it is missing or of another type.
    """
    value = spec.get(name)
    if not isinstance(value, kind):
        raise InputError(f"spec field {name!r} is {value!r}: give a {kind.__name__}")
    return value


def check_codec(spec: Mapping[str, Any], expected: str) -> None:
    """Check the codec of a decode spec.

    Raises:
        InputError: it is another.
    """
    if read_field(spec, "codec", str) != expected:
        raise InputError(f"spec codec {spec['codec']!r}: task {spec['task']!r} is read with {expected!r}")


def read_color(value: Any, name: str) -> Color:
    """Return a color of a decode spec.

    Raises:
        InputError: not three integers from 0 to 255.
    """
    numbers = (
        isinstance(value, list | tuple) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    )
    if not numbers:
        raise InputError(f"spec color of {name!r} is {value!r}: give three integers from 0 to 255")
    return value[0], value[1], value[2]
