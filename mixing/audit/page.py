"""The report as one self-contained page: verdict, coverage, controls, each hit with both pictures and alignment."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from encoders.sample import InputError, UInt8Image
from mixing.audit.index import Pack
from mixing.images import decode_rgb
from mixing.shards import read_parts, read_row

MAX_PAIRS = 300
_PANE_PX = 460
_GAP_PX = 28


@dataclass(frozen=True)
class Pane:
    """One picture of a pair, placed: x, y, width, height in the drawing's pixels, and its data URI (None: not kept)."""

    x: float
    y: float
    width: float
    height: float
    uri: str | None

    def point(self, u: float, v: float) -> str:
        """Write a 0..1 position as svg coordinates."""
        return f"{self.x + u * self.width:.1f},{self.y + v * self.height:.1f}"


@dataclass(frozen=True)
class Pair:
    """A finding with its drawing: outlines in both panes and the lines between matching points."""

    finding: Mapping[str, Any]
    mixture: Pane
    benchmark: Pane
    width: float
    height: float
    mixture_outline: str | None
    benchmark_outline: str | None
    lines: tuple[tuple[str, ...], ...]


def render_page(report: Mapping[str, Any], packs: tuple[Pack, ...], data: Path) -> str:
    """Render the report; the first 300 findings are shown with their pictures, the rest stand in report.json."""
    by_name = {pack.name: pack for pack in packs}
    pairs = [draw_pair(finding, by_name.get(finding["benchmark"]), data) for finding in report["findings"][:MAX_PAIRS]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(report=report, pairs=pairs, max_pairs=MAX_PAIRS)


def draw_pair(finding: Mapping[str, Any], pack: Pack | None, data: Path) -> Pair:
    """Lay out a finding's two pictures side by side with what joins them."""
    left = _pane(_mixture_picture(finding, data), 0)
    right = _pane(_benchmark_picture(finding, pack), _PANE_PX + _GAP_PX)
    mixture_outline = benchmark_outline = None
    if finding["affine"] is not None:
        affine = np.array(finding["affine"], np.float64).reshape(2, 3)
        square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
        mixture_outline = _clipped(square @ affine[:, :2].T + affine[:, 2], left)
        inverse = cv2.invertAffineTransform(affine)
        benchmark_outline = _clipped(square @ inverse[:, :2].T + inverse[:, 2], right)
    lines = tuple(
        (*left.point(mx, my).split(","), *right.point(bx, by).split(",")) for mx, my, bx, by in finding["lines"]
    )
    return Pair(
        finding=finding,
        mixture=left,
        benchmark=right,
        width=2 * _PANE_PX + _GAP_PX,
        height=max(left.height, right.height),
        mixture_outline=mixture_outline,
        benchmark_outline=benchmark_outline,
        lines=lines,
    )


def _clipped(quad: NDArray[np.float64], pane: Pane) -> str | None:
    """Cut an outline to the pane's picture."""
    frame = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    area, common = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    if area <= 0 or common is None:
        return None
    return " ".join(pane.point(float(u), float(v)) for u, v in common.reshape(-1, 2))


def _mixture_picture(finding: Mapping[str, Any], data: Path) -> UInt8Image | None:
    path = data / finding["directory"] / finding["shard"]
    try:
        row = read_row(path.with_suffix(".json"))
        with path.open("rb") as file:
            parts = read_parts(file, row, finding["key"])
        return decode_rgb(parts[finding["member"]], finding["key"])
    except (InputError, OSError, KeyError):
        return None  # the shard changed since: the finding stands, its picture cannot be shown


def _benchmark_picture(finding: Mapping[str, Any], pack: Pack | None) -> UInt8Image | None:
    if pack is None or not pack.has_pixels:
        return None
    number = next((i for i, image in enumerate(pack.images) if image["id"] == finding["image"]), None)
    return None if number is None else pack.thumbnail(number)


def _pane(image: UInt8Image | None, x: float) -> Pane:
    if image is None:
        return Pane(x, 0, _PANE_PX, _PANE_PX * 0.6, None)
    height, width = image.shape[:2]
    factor = min(_PANE_PX / width, _PANE_PX / height)
    if factor < 1:
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 85))
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    shown_width, shown_height = width * factor, height * factor
    return Pane(x + (_PANE_PX - shown_width) / 2, 0, shown_width, shown_height, uri)
