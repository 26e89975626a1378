"""The quality page of a run: how the scores lie about their thresholds, what was kept, what was left out and why.

The page is a function of the shards and the inputs, so a repeated run writes the same bytes. Of large runs a sample
that is spread evenly is read, and the page says so.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader

from cavendish.annotate.annotators.faces import CenterFace, blur_faces
from cavendish.annotate.annotators.protocol import Failure, load_once
from cavendish.annotate.config import LabelConfig
from cavendish.encoders.sample import InputError, Rejection, Sample, UInt8Image
from cavendish.mixing.shards.dataset import Row, committed_rows
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import parse_record
from cavendish.mixing.sources.decode import decode_image
from cavendish.mixing.sources.items import Item
from cavendish.mixing.sources.listing import SourceConfig, read_item
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, join, write_atomic
from cavendish.mixing.visualize import data_uri

REPORT = "report.html"
MAX_READ = 20_000
EXAMPLES = 12
SIDE_PX = 300
_BINS = 24
_TINTS = ((40, 220, 90), (255, 170, 30), (70, 150, 255), (240, 80, 200), (250, 235, 60), (60, 225, 225))
_SCORES = re.compile(r"\b([a-z_]+) (\d+\.\d{3})\b")
_FAILED = re.compile(r"\b([a-z_]+) \d+\.\d+ is (under|over) ([\d.]+)")

LABELS: Mapping[str, str] = {
    "area": "share of the picture",
    "edge_align": "outline on edges of the picture",
    "colour_sep": "colours inside and outside, in standard deviations",
    "flip_iou": "agreement with the mirrored view",
    "scale_iou": "agreement with the wider or smaller view",
    "uncertain": "undecided pixels, over the mask's area",
    "agreed": "mean score of the detectors' views",
    "box_iou": "mask's box with the detectors' box",
    "cycle_iou": "mask a phrase leads back to",
    "depth_known": "pixels with depth",
    "depth_normals": "pixels where depth and normals agree",
}


@dataclass
class _Tally:
    """What was counted while the samples were read."""

    read: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    dropped_labels: Counter[str] = field(default_factory=Counter)
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    dropped: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    annotators: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def write_report(
    out: Place,
    config: LabelConfig,
    sources: Sequence[SourceConfig],
    listing: Mapping[str, tuple[int, Item]],
    data: Path,
) -> Place:
    """Write the page about a finished run, one page that needs nothing else; return its path.

    Args:
        sources: of the run.
        listing: of the keys whose pictures may be shown among the dropped, the source's number and the item.
        data: where relative paths of the sources start.
    """
    rows = committed_rows(out)
    rejected = [letter for row in rows for letter in row.rejected]
    tally = _tally(out, rows, rejected)
    kept = _spread([(row, key) for row in rows for key in row.samples], EXAMPLES)
    left_out = _spread([letter for letter in rejected if letter.key in listing], EXAMPLES)
    licences: Counter[str] = Counter()
    for row in rows:
        licences.update(row.licences)
    records = sum(row.count for row in rows)
    template = Environment(loader=PackageLoader("cavendish.annotate", "."), autoescape=True).get_template("report.html")
    page = template.render(
        records=records,
        pictures=records + len(rejected),
        rejected=len(rejected),
        read=tally.read,
        labels=tally.labels.most_common(),
        categories=sorted(tally.categories.items(), key=lambda pair: (-pair[1], pair[0]))[:24],
        reasons=_ranked(Counter(part for letter in rejected for part in reasons_of(letter.reason))),
        dropped_labels=_ranked(tally.dropped_labels),
        groups=_charts(tally, config),
        kept=[_kept_card(out, row, key) for row, key in kept],
        left_out=[_dropped_card(letter, listing, sources, config, data) for letter in left_out],
        annotators=list(tally.annotators.values()),
        licences=sorted(licences.items(), key=lambda pair: (-pair[1], pair[0])),
        versions=sorted(tally.versions.items()),
        plan=rows[0].plan[:12] if rows else "",
        faces=config.faces,
    )
    path = join(out, REPORT)
    write_atomic(path, page.encode())
    return path


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Take at most `count` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def _ranked(counts: Counter[str]) -> list[tuple[str, int, float]]:
    rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:20]
    return [(reason, count, 100 * count / rows[0][1]) for reason, count in rows]


def reasons_of(reason: str) -> list[str]:
    """Return the causes in a rejection's reason, without what differs from picture to picture: names, values, sizes."""
    text = _without_scores(reason.partition(": ")[2] or reason)
    failed = [f"mask: {name} {side} {limit}" for name, side, limit in _FAILED.findall(text)]
    if failed and text.startswith("mask dropped"):
        return failed
    text = _FAILED.sub(r"\1 \2 \3", text)
    return [re.sub(r"(?<![\w./])\d+(x\d+)?(?![\w.])", "N", re.sub(r"\b\d+\.\d{3,}\b", "N", text))[:120]]


def _without_scores(reason: str) -> str:
    """Cut the list of all scores that ends the reason of a dropped mask."""
    return re.sub(r" \([^()]*\)$", "", reason) if "edge_align" in reason else reason


def _tally(out: Place, rows: Sequence[Row], rejected: Sequence[Rejection]) -> _Tally:
    tally = _Tally()
    wanted = set(_spread([key for row in rows for key in row.samples], MAX_READ))
    for row in rows:
        with open_file(join(out, row.shard)) as file:
            for key in row.samples:
                if key in wanted:
                    _count(tally, json.loads(read_parts(file, row, key, {"json"})["json"]), row.samples[key])
    for letter in _spread(rejected, MAX_READ):
        _add_dropped(tally, letter.reason)
    return tally


def _count(tally: _Tally, meta: Mapping[str, Any], parts: Iterable[str]) -> None:
    facts, quality, parts = meta["facts"], meta["quality"], set(parts)
    tally.read += 1
    group = "objects" if "agreed" in quality else "subject"
    has = {
        "objects with a class": group == "objects",
        "a main subject": (group == "subject" and "instances.png" in parts) or "main_subject" in facts,
        "a caption": bool(meta["captions"]),
        "depth in metres": "depth.png" in parts,
        "normals": "normals.png" in parts,
        "phrases that lead back to their object": bool(facts.get("phrases")),
        "classes known to be absent": bool(facts.get("absent")),
        "faces": facts.get("faces", {}).get("count", 0) > 0,
        "writing": bool(facts.get("text")),
    }
    if "depth" in facts and not facts["depth"]["used"]:
        has[f"depth of kind {facts['depth']['kind']}, which is not in metres and was not used"] = True
    tally.labels.update(name for name, there in has.items() if there)
    tally.categories.update(instance["category"] for instance in meta["instances"])
    for one in facts.get("objects", {}).get("dropped", ()):
        tally.dropped_labels.update(f"object: {part}" for part in re.split(r"; ", reasons_of(f": {one['reason']}")[0]))
        for name, value, _ in re.findall(r"\b([a-z_]+) (\d+\.\d+) is (under|over)", one["reason"]):
            tally.dropped.setdefault(("objects", name), []).append(float(value))
    for one in facts.get("phrases_dropped", ()):
        tally.dropped_labels.update([f"phrase: {reasons_of(': ' + one['reason'])[0]}"])
    if "mask_dropped" in facts:
        _add_dropped(tally, f": mask dropped: {facts['mask_dropped']}")
        tally.dropped_labels.update(reasons_of(f": mask dropped: {facts['mask_dropped']}"))
    elif "instances.png" in parts:
        for name, value in quality.items():
            place = "hub" if name in ("cycle_iou", "depth_known", "depth_normals") else group
            tally.scores.setdefault((place, name), []).append(float(value))
    for spec in meta["provenance"].get("annotators", ()):
        tally.annotators.setdefault(json.dumps(spec, sort_keys=True), spec)
    tally.versions.update(meta["provenance"].get("versions", {}))


def _add_dropped(tally: _Tally, reason: str) -> None:
    if "mask dropped: " in reason:
        for name, value in _SCORES.findall(reason.rpartition("(")[2]):
            tally.dropped.setdefault(("subject", name), []).append(float(value))


def _charts(tally: _Tally, config: LabelConfig) -> list[dict[str, Any]]:
    """Return the groups of histograms, each chart with its thresholds."""
    objects, hub = config.objects, config.hub
    limits: dict[str, dict[str, tuple[float | None, float | None]]] = {
        "objects": {} if objects is None else {
            "agreed": (objects.min_score, None),
            "box_iou": (objects.min_box_iou, None),
            "edge_align": (objects.min_edge_align, None),
            "colour_sep": (objects.min_colour_sep, None),
            "flip_iou": (objects.min_flip_iou, None),
            "scale_iou": (objects.min_scale_iou, None),
        },
        "subject": {} if config.mask is None else {
            "area": (config.mask.min_area, config.mask.max_area),
            "edge_align": (config.mask.min_edge_align, None),
            "colour_sep": (config.mask.min_colour_sep, None),
            "flip_iou": (config.mask.min_flip_iou, None),
            "scale_iou": (config.mask.min_scale_iou, None),
            "uncertain": (None, config.mask.max_uncertain),
        },
        "hub": {} if hub is None else {
            "cycle_iou": (hub.min_cycle_iou, None), "depth_known": (None, None), "depth_normals": (None, None)
        },
    }  # fmt: skip
    titles = {
        "subject": "Masks of the main subject",
        "objects": "Objects with a class (of each picture the worst)",
        "hub": "Depth, normals and phrases of hub models",
    }
    groups = []
    for place, title in titles.items():
        charts = [
            _chart(name, tally.scores.get((place, name), []), tally.dropped.get((place, name), []), *ends)
            for name, ends in limits[place].items()
            if (place, name) in tally.scores or (place, name) in tally.dropped
        ]
        if charts:
            groups.append({"title": title, "charts": charts})
    return groups


def _chart(
    name: str, kept: Sequence[float], dropped: Sequence[float], low: float | None, high: float | None
) -> dict[str, Any]:
    """Return the bars of one histogram in a box of 100 x 100, kept below dropped."""
    top = 1.0
    if name in ("colour_sep", "uncertain"):
        most = float(np.quantile([*kept, *dropped], 0.95)) if kept or dropped else 1.0
        top = max(1.0, float(np.ceil(2 * most)) / 2)
    counts = [np.histogram(np.clip(values, 0, top), _BINS, (0, top))[0] for values in (kept, dropped)]
    tallest = max(1, int((counts[0] + counts[1]).max()))
    width = 100 / _BINS
    bars = []
    for number, (good, bad) in enumerate(zip(*counts)):
        first, second = 100 * int(good) / tallest, 100 * int(bad) / tallest
        if good:
            bars.append(("kept", number * width, 100 - first, width, first))
        if bad:
            bars.append(("dropped", number * width, 100 - first - second, width, second))
    ends = [(limit, side) for limit, side in ((low, "at least"), (high, "at most")) if limit is not None]
    lines = [(100 * min(limit / top, 1), f"{side} {limit:g}") for limit, side in ends]
    return {
        "name": name, "label": LABELS[name], "top": f"{top:g}", "bars": bars, "lines": lines, "kept": len(kept),
        "dropped": len(dropped), "clipped": any(value > top for value in (*kept, *dropped)), "tallest": tallest,
    }  # fmt: skip


def _kept_card(out: Place, row: Row, key: str) -> dict[str, Any]:
    with open_file(join(out, row.shard)) as file:
        sample = parse_record(key, read_parts(file, row, key))
    if not isinstance(sample, Sample):
        raise InputError(f"{join(out, row.shard)}: {key} is not a sample of an annotation run")
    words = [" ".join([*one.attributes.values(), one.category]) for one in sample.instances]
    words += [f"“{phrase['text']}”" for phrase in sample.facts.get("phrases", ())]
    scores = [f"{name} {value:.2f}" for name, value in sample.quality.items() if name in LABELS]
    return {
        "key": key,
        "pictures": [data_uri(_reduced(_painted(sample)))],
        "title": ", ".join(words) or "no mask: kept for its caption",
        "text": sample.captions[0][:160] if sample.captions else "",
        "note": _without_scores(sample.facts.get("mask_dropped", "")),
        "scores": "" if sample.instance_ids is None else " · ".join(scores),
    }


def _painted(sample: Sample) -> UInt8Image:
    """Tint every mask and draw its outline; what counts for nothing is white."""
    if sample.instance_ids is None:
        return sample.image
    picture = sample.image.astype(np.float32)
    for one, color in zip(sample.instances, cycle(_TINTS)):
        mask = sample.instance_ids == one.id
        picture[mask] = 0.62 * picture[mask] + 0.38 * np.array(color, np.float32)
    if sample.weight is not None:
        unsure = sample.weight == 0
        picture[unsure] = 0.35 * picture[unsure] + 0.65 * 255
    painted = picture.astype(np.uint8)
    thick = max(1, round(max(painted.shape[:2]) / 220))
    for one, color in zip(sample.instances, cycle(_TINTS)):
        outlines, _ = cv2.findContours(
            (sample.instance_ids == one.id).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(painted, outlines, -1, color, thick)
    return painted


def _reduced(picture: UInt8Image) -> UInt8Image:
    scale = min(1.0, SIDE_PX / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def _dropped_card(
    letter: Rejection,
    listing: Mapping[str, tuple[int, Item]],
    sources: Sequence[SourceConfig],
    config: LabelConfig,
    data: Path,
) -> dict[str, Any]:
    reason = _without_scores(letter.reason.partition(": ")[2] or letter.reason)
    number, item = listing[letter.key]
    card: dict[str, Any] = {"key": letter.key, "reason": reason, "pictures": [], "why": "the file gives no picture"}
    if reason.startswith(("nsfw ", "open-nsfw/", "centerface/")) or "(faces: drop)" in reason:
        return {**card, "why": "not shown"}
    try:
        found = read_item(sources[number], data, item)
        picture = decode_image(found.data, 2 * SIDE_PX).rgb_u8
    except InputError:
        return card
    if config.faces in ("blur", "drop"):
        (faces,) = load_once(CenterFace).annotate([picture])
        if isinstance(faces, Failure):
            return {**card, "why": "not shown"}
        picture = blur_faces(picture, faces)
    return {**card, "pictures": [data_uri(_reduced(picture))]}
