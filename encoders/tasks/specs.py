"""Decode a picture by the spec of an Example; the prompt is not needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colormaps import colormap_codec, decode_colormap
from cavendish.encoders.codecs.colors import check_picture
from cavendish.encoders.codecs.depth import DecodedDepth, decode_depth, depth_codec
from cavendish.encoders.codecs.instances import DecodedInstances, decode_instances_scored
from cavendish.encoders.codecs.normals import CODEC_ID as NORMALS_CODEC
from cavendish.encoders.codecs.normals import decode_normals
from cavendish.encoders.codecs.palettes import Color
from cavendish.encoders.codecs.semantic import decode_semantic
from cavendish.encoders.sample import InputError, UInt8Image


@dataclass(frozen=True)
class Segmentation:
    """A decoded "semantic" or "referring" picture.

    Args:
        labels: (H, W) int16, positions in `names`; -1 background.
        names: the classes or expressions of the prompt, in its order.
    """

    labels: NDArray[np.int16]
    names: tuple[str, ...]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the (H, W) pixels of one name."""
        return self.labels == self.names.index(name)


Prediction = DecodedDepth | NDArray[np.float32] | Segmentation | DecodedInstances | UInt8Image
"""By task: depth: DecodedDepth; normals: (H, W, 3) float32; semantic, referring: Segmentation; instance:
DecodedInstances; generate, edit: the picture itself."""


def legend_spec(legend: Mapping[str, Color], background: Color) -> dict[str, Any]:
    """Return what decodes a picture drawn in the colours of a legend: fields of the spec, in the legend's order."""
    rows = [[name, list(color)] for name, color in legend.items()]
    return {"codec": "legend/1", "legend": rows, "background": list(background)}


def decode_example(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    """Read a picture that was drawn for an Example.

    Args:
        spec: `Example.spec`, or its json.
        rgb_u8: (H, W, 3) uint8; any picture, such as a generator's answer.

    Returns:
        What the task asks for; see Prediction.

    Raises:
        InputError: not a picture, or a spec with a missing or odd field.
    """
    check_picture(rgb_u8)
    task = _field(spec, "task", str)
    if task not in _DECODERS:
        raise InputError(f"spec task {task!r} is not known; known: {', '.join(_DECODERS)}")
    return _DECODERS[task](spec, rgb_u8)


def _field(spec: Mapping[str, Any], name: str, kind: type) -> Any:
    value = spec.get(name)
    if not isinstance(value, kind):
        raise InputError(f"spec field {name!r} is {value!r}: give a {kind.__name__}")
    return value


def _codec(spec: Mapping[str, Any], expected: str) -> None:
    if _field(spec, "codec", str) != expected:
        raise InputError(f"spec codec {spec['codec']!r}: task {spec['task']!r} is read with {expected!r}")


def _color(value: Any, name: str) -> Color:
    numbers = (
        isinstance(value, list | tuple) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    )
    if not numbers:
        raise InputError(f"spec color of {name!r} is {value!r}: give three integers from 0 to 255")
    return value[0], value[1], value[2]


def _decode_depth(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    codec = _field(spec, "codec", str)
    if codec.startswith("cube-walk/"):
        return decode_depth(rgb_u8, codec=depth_codec(codec))
    return decode_colormap(rgb_u8, colormap_codec(codec))


def _decode_normals(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    _codec(spec, NORMALS_CODEC)
    return decode_normals(rgb_u8)


def _decode_legend(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    _codec(spec, "legend/1")
    legend: dict[str, Color] = {}
    for row in _field(spec, "legend", list):
        if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], str) or row[0] in legend:
            raise InputError(f"spec legend has the row {row!r}: give [name, [r, g, b]], each name once")
        legend[row[0]] = _color(row[1], row[0])
    labels = decode_semantic(rgb_u8, legend, _color(spec.get("background"), "background"))
    return Segmentation(labels, tuple(legend))


def _decode_instance(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    _codec(spec, "instances/1")
    return decode_instances_scored(rgb_u8, _color(spec.get("background"), "background"))


def _decode_image(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Prediction:
    _codec(spec, "image/1")
    return rgb_u8


_DECODERS: Mapping[str, Callable[[Mapping[str, Any], UInt8Image], Prediction]] = {
    "depth": _decode_depth,
    "normals": _decode_normals,
    "semantic": _decode_legend,
    "instance": _decode_instance,
    "referring": _decode_legend,
    "generate": _decode_image,
    "edit": _decode_image,
}
