"""Draw a wording: expand one template of `wordings`, seeded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from cavendish.encoders.draws import one_of

_CHOICE = re.compile(r"\[([^\[\]{}]*\|[^\[\]{}]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def draw_wording(templates: Sequence[str], slots: Mapping[str, str], rng: np.random.Generator) -> str:
    """Draw a template, settle its choices, fill its slots.

    Args:
        templates: from `wordings`: `[a|b|]` is a choice, `{name}` a slot.
        slots: text for every slot that any of the templates has. It is not expanded again.
        rng: draws the template, then each choice from left to right.
    """
    template = one_of(templates, rng)
    while match := _CHOICE.search(template):
        template = template[: match.start()] + one_of(match[1].split("|"), rng) + template[match.end() :]
    return fill_slots(template, slots)


def fill_slots(template: str, slots: Mapping[str, str]) -> str:
    """Fill `{name}` slots in one pass.

    Raises:
        KeyError: a slot without text.
    """
    return _SLOT.sub(lambda match: slots[match[1]], template)
