"""The instruction each benchmark item is asked with, and the decode specification that goes with it.

One fixed, plain wording per task, so that results can be compared. Whoever asks a model in other words or with another
legend puts the decode specification that was used into `specs.json` beside the predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cavendish.encoders.codecs.palettes import BLACK, Color, format_hex, lattice
from cavendish.encoders.tasks.segmentation import legend_spec

Prompt = tuple[str, dict[str, Any]]


def depth_prompt() -> Prompt:
    """Ask for metric depth in the cube-walk colours."""
    text = (
        "Predict the metric depth of this image as a picture: planar depth in metres along the "
        "black-red-yellow-green-cyan-blue-magenta-white walk, black at 0 m, white at infinity."
    )
    return text, {"task": "depth", "codec": "cube-walk/1"}


def normals_prompt() -> Prompt:
    """Ask for surface normals in the left-is-red colours."""
    text = (
        "Generate a surface normal map of this image: pinkish red faces left, light green faces up, "
        "light blue faces the camera."
    )
    return text, {"task": "normals", "codec": "normals-left-red/1"}


def semantic_prompt(classes: Mapping[int, str]) -> Prompt:
    """Ask for every class in a colour of a well separated lattice, and for black where there is none of them."""
    colors: list[Color] = [(int(r), int(g), int(b)) for r, g, b in lattice(len(classes))]
    legend = dict(zip(classes.values(), colors))
    entries = ", ".join(f'"{name}": "{format_hex(color)}"' for name, color in legend.items())
    text = f"Segment this image by class, in these flat colors: {{{entries}}}. Everything else is black."
    return text, {"task": "semantic", **legend_spec(legend, BLACK)}


def referring_prompt(expression: str) -> Prompt:
    """Ask for what an expression refers to in white on black."""
    text = (
        f'Segment what this expression refers to: "{expression}". Paint it white and everything else black; '
        "if it is not in the image, paint everything black."
    )
    return text, {"task": "referring", **legend_spec({expression: (255, 255, 255)}, BLACK)}


def instance_prompt(phrase: str) -> Prompt:
    """Ask for every instance of a phrase in its own colour on black."""
    text = (
        f'Segment every instance of "{phrase}", each in its own distinct solid color, on a black background. '
        "If there is none, paint everything black."
    )
    return text, {"task": "instance", "codec": "instances/1", "category": phrase, "background": [0, 0, 0]}
