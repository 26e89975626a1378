"""The report as one self-contained page: verdict, coverage, controls, each hit with both sides and the alignment."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.benchmarks.label_pack import LabelPack
from cavendish.mixing.audit.matching.label_prints import DEPTH_SIDE, MASK_SIDE, LabelPrint
from cavendish.mixing.audit.matching.views import find_views
from cavendish.mixing.audit.plan import ScanPlan
from cavendish.mixing.audit.signals.labels import record_labels
from cavendish.mixing.audit.signals.lineage import registry
from cavendish.mixing.audit.signals.signal import Record
from cavendish.mixing.audit.signals.texts import normalized
from cavendish.mixing.images import encode_png
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import Parts
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.objects import Unreachable
from cavendish.mixing.storage.place import join, with_suffix

MAX_PAIRS = 300
_PANE_PX = 460
_GAP_PX = 28
_LABEL_PX = 320


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
    """A finding with its drawing: outlines in both panes and the lines between matching points, or marked words.

    `words` holds, for the training text and the benchmark's, (words, whether they stand in both in the same order).
    """

    finding: Mapping[str, Any]
    mixture: Pane | None = None
    benchmark: Pane | None = None
    mixture_outline: str | None = None
    benchmark_outline: str | None = None
    lines: tuple[tuple[str, ...], ...] = ()
    words: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] | None = None

    @property
    def width(self) -> float:
        """The drawing's width."""
        return 2 * _PANE_PX + _GAP_PX

    @property
    def height(self) -> float:
        """The drawing's height."""
        return max((pane.height for pane in (self.mixture, self.benchmark) if pane is not None), default=0)


def render_page(report: Mapping[str, Any], plan: ScanPlan, data: Path) -> str:
    """Render the report; the first 300 findings are shown with their pictures, the rest stand in report.json."""
    pairs = [draw_pair(finding, plan, data) for finding in report["findings"][:MAX_PAIRS]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    wanted = {one.registry for one in plan.config.benchmarks}
    return environment.get_template("report.html").render(
        report=report,
        pairs=pairs,
        max_pairs=MAX_PAIRS,
        others=[entry for name, entry in registry().items() if entry.reader is not None and name not in wanted],
        report_sha256=digest(report),
        bytes=len(canonical_json(report)),
    )


def draw_pair(finding: Mapping[str, Any], plan: ScanPlan, data: Path) -> Pair:
    """Lay out a finding's two sides beside each other with what joins them."""
    if finding["stage"] == "text":
        return Pair(finding, words=_marked(finding["text"], finding["image"]))
    if finding["stage"] in ("id", "lineage"):
        return Pair(finding)
    if finding["stage"] in ("masks", "depth"):
        left, right = _label_pictures(finding, plan, data)
        return Pair(finding, _pane(left, 0), _pane(right, _PANE_PX + _GAP_PX))
    return _draw_pictures(finding, plan, data)


def _draw_pictures(finding: Mapping[str, Any], plan: ScanPlan, data: Path) -> Pair:
    left = _pane(_mixture_picture(finding, data), 0)
    right = _pane(_benchmark_picture(finding, plan), _PANE_PX + _GAP_PX)
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
    return Pair(finding, left, right, mixture_outline, benchmark_outline, lines)


def _clipped(quad: NDArray[np.float64], pane: Pane) -> str | None:
    """Cut an outline to the pane's picture."""
    frame = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    area, common = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    if area <= 0 or common is None:
        return None
    return " ".join(pane.point(float(u), float(v)) for u, v in common.reshape(-1, 2))


def _marked(text: str, original: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Split both texts into words and mark those that stand in both in the same order."""
    sides = [text.split(), original.split()]
    plain = [[" ".join(normalized(word)) for word in words] for words in sides]
    blocks = SequenceMatcher(None, plain[0], plain[1], autojunk=False).get_matching_blocks()
    same = [{block.a + i for block in blocks for i in range(block.size)}]
    same.append({block.b + i for block in blocks for i in range(block.size)})
    return _runs(sides[0], same[0]), _runs(sides[1], same[1])


def _runs(words: list[str], common: set[int]) -> list[tuple[str, bool]]:
    """Join neighbouring words that are marked alike."""
    grouped = groupby(range(len(words)), key=lambda i: i in common)
    return [(" ".join(words[i] for i in run), marked) for marked, run in grouped]


def _parts(finding: Mapping[str, Any], data: Path) -> Parts | None:
    path = join(join(data, finding["directory"]), finding["shard"])
    try:
        row = read_row(with_suffix(path, ".json"))
        with open_file(path) as file:
            return read_parts(file, row, finding["key"])
    except Unreachable:
        raise
    except (InputError, OSError, KeyError):
        return None  # the shard changed since: the finding stands, its picture cannot be shown


def _mixture_picture(finding: Mapping[str, Any], data: Path) -> UInt8Image | None:
    parts = _parts(finding, data)
    member, _, view = finding["member"].partition(" (")
    if parts is None or member not in parts:
        return None
    found = find_views(parts[member]).views
    return next((shown.image for shown in found if shown.name == view.removesuffix(")")), None)


def _benchmark_picture(finding: Mapping[str, Any], plan: ScanPlan) -> UInt8Image | None:
    pack = next((pack for pack in plan.packs if pack.name == finding["benchmark"]), None)
    if pack is None or not pack.has_pixels:
        return None
    number = next((i for i, image in enumerate(pack.images) if image["id"] == finding["image"]), None)
    return None if number is None else pack.thumbnail(number)


def _label_pictures(
    finding: Mapping[str, Any], plan: ScanPlan, data: Path
) -> tuple[UInt8Image | None, UInt8Image | None]:
    """Draw the labels of both sides from their fingerprints, as they were compared."""
    parts, kind = _parts(finding, data), finding["stage"]
    prints = [] if parts is None else record_labels(Record(finding["key"], parts, finding["sample"]))
    mine = next((one for member, one_kind, one in prints if (member, one_kind) == (finding["member"], kind)), None)
    pack = next((pack for pack in plan.label_packs if pack.name == finding["benchmark"]), None)
    left = None if mine is None else _draw_masks(mine.masks) if kind == "masks" else _draw_relief(mine)
    right = None if pack is None else _draw_stored(pack, pack.images.index(finding["image"]), kind)
    return left, right


def _draw_stored(pack: LabelPack, owner: int, kind: str) -> UInt8Image:
    if kind == "masks":
        rows = np.flatnonzero(pack.arrays["mask_owners"] == owner)[::-1]
        bits = np.unpackbits(np.asarray(pack.arrays["masks"][rows]), axis=1)
        return _draw_masks(bits.reshape(-1, MASK_SIDE, MASK_SIDE) > 0)
    relief = np.asarray(pack.arrays["reliefs"][np.flatnonzero(pack.arrays["relief_owners"] == owner)[0]])
    known = relief > -128
    return _grey(np.where(known, relief / 31.0, 0), known)


def _draw_relief(one: LabelPrint) -> UInt8Image:
    assert one.relief is not None
    assert one.known is not None
    return _grey(one.relief, one.known)


def _grey(relief: NDArray[Any], known: NDArray[np.bool_]) -> UInt8Image:
    shade = np.clip(128 + relief * 48, 0, 255).astype(np.uint8)
    rgb = np.where(known[..., None], shade[..., None], np.array((120, 90, 160))).astype(np.uint8)
    assert rgb.shape == (DEPTH_SIDE, DEPTH_SIDE, 3)
    return _enlarged(rgb)


def _draw_masks(masks: NDArray[np.bool_]) -> UInt8Image:
    """Paint masks, the largest first, each in its own colour."""
    canvas = np.full((MASK_SIDE, MASK_SIDE, 3), 26, np.uint8)
    for number, mask in enumerate(masks):
        canvas[mask] = np.rint(np.array(colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.55, 0.95)) * 255)
    return _enlarged(canvas)


def _enlarged(grid: UInt8Image) -> UInt8Image:
    return np.asarray(cv2.resize(grid, (_LABEL_PX, _LABEL_PX), interpolation=cv2.INTER_NEAREST))


def _pane(image: UInt8Image | None, x: float) -> Pane:
    if image is None:
        return Pane(x, 0, _PANE_PX, _PANE_PX * 0.6, None)
    height, width = image.shape[:2]
    factor = min(_PANE_PX / width, _PANE_PX / height)
    flat = (height, width) == (_LABEL_PX, _LABEL_PX)
    if factor < 1:
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if flat:  # drawn from a fingerprint: few colours, hard edges
        uri = "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()
        factor = 1.0
    else:
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, 85))
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    shown_width, shown_height = width * factor, height * factor
    return Pane(x + (_PANE_PX - shown_width) / 2, 0, shown_width, shown_height, uri)
