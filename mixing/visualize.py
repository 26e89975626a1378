"""Arrays as pictures for people: depth, normals and ids of a Sample, captions, grids, data URIs for reports."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cavendish.encoders.codecs.depth import encode_depth
from cavendish.encoders.codecs.normals import encode_normals
from cavendish.encoders.codecs.palettes import lattice
from cavendish.encoders.sample import Example, Sample, UInt8Image
from cavendish.mixing.images import encode_png

Panel = tuple[str, UInt8Image]
"""A title and an (H, W, 3) uint8 picture."""

_INK = (28, 32, 38)
_PAPER = (255, 255, 255)


def ids_picture(ids: NDArray[np.uint16]) -> UInt8Image:
    """Draw (H, W) instance ids, each in a colour of its own; 0 is black."""
    present = np.unique(ids[ids > 0])
    table = np.zeros((int(ids.max(initial=0)) + 1, 3), np.uint8)
    if present.size:
        table[present] = lattice(int(present.size))
    return table[ids]


def record_panels(record: Sample | Example) -> list[Panel]:
    """List what there is to see of one record, image first."""
    if isinstance(record, Example):
        source = [] if record.source is None else [("source", record.source)]
        return [*source, (f"target: {record.task}", record.target)]
    panels: list[Panel] = [("image", record.image)]
    if record.depth_m is not None:
        panels.append(("depth", encode_depth(record.depth_m)))
    if record.normals is not None:
        panels.append(("normals", encode_normals(record.normals)))
    if record.instance_ids is not None:
        panels.append(("instances", ids_picture(record.instance_ids)))
    if record.edit is not None:
        panels.append((f"edit: {record.edit.kind}", record.edit.image))
    return panels


def fit(picture: UInt8Image, width: int, height: int) -> UInt8Image:
    """Scale a picture into width x height on white, keeping its aspect; targets keep hard edges when enlarged."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas


def grid(rows: Sequence[tuple[str, Sequence[Panel]]], cell: int = 160) -> UInt8Image:
    """Lay rows of titled panels out as one picture, each row under its caption."""
    columns = max((len(panels) for _, panels in rows), default=1)
    gap, caption, title = 6, 20, 16
    width = columns * (cell + gap) + gap
    row_height = caption + title + cell + gap
    canvas = Image.new("RGB", (width, max(1, len(rows)) * row_height + gap), _PAPER)
    draw = ImageDraw.Draw(canvas)
    strong, small = ImageFont.load_default(13), ImageFont.load_default(11)
    for number, (text, panels) in enumerate(rows):
        top = gap + number * row_height
        draw.text((gap, top), _shorten(draw, text, strong, width - 2 * gap), _INK, strong)
        for column, (name, picture) in enumerate(panels):
            left = gap + column * (cell + gap)
            draw.text((left, top + caption), _shorten(draw, name, small, cell), (110, 118, 129), small)
            canvas.paste(Image.fromarray(fit(picture, cell, cell)), (left, top + caption + title))
    return np.asarray(canvas)


def _shorten(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: int
) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-4]
    return text + "…"


def data_uri(picture: UInt8Image) -> str:
    """Return a picture as a `data:` URI for a self-contained page."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()
