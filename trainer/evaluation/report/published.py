"""Figures that others published, to stand beside ours; never exactly comparable.

Vision Banana states no masks, caps or crops, and quotes competitors from papers with other protocols: the protocol id
beside each of our numbers says what ours means. Values are in this project's units (shares 0..1, degrees).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

PAPER = "Vision Banana (arXiv 2604.20329)"
REPRODUCTION = "Open Vision Banana 9B"

CAVEAT = (
    "Published figures are copied from their sources, which do not state every mask, cap, crop and alignment; they are "
    "shown for orientation and are not exactly comparable with rows measured here."
)


@dataclass(frozen=True)
class Published:
    """One published row: who, and the metrics by the names that ours have."""

    source: str
    metrics: Mapping[str, float]
    remark: str = ""


def _depth(delta1: float, abs_rel: float) -> tuple[Published, ...]:
    return (Published(PAPER, {"delta1": delta1, "abs_rel": abs_rel}, "metric depth, masks, caps and crops not stated"),)


def _normals(mean: float, median: float) -> Published:
    return Published(PAPER, {"mean_deg": mean, "median_deg": median}, "pooled or per image not stated")


PUBLISHED: Mapping[str, Sequence[Published]] = MappingProxyType(
    {
        "cityscapes": (
            Published(PAPER, {"miou": 0.699}),
            Published(REPRODUCTION, {"miou": 0.692}, "one pass"),
            Published(REPRODUCTION, {"miou": 0.749}, "20 passes with a vote"),
            Published("SAM 3", {"miou": 0.652}, "best specialist, zero-shot"),
        ),
        "refcocog": (
            Published(PAPER, {"ciou": 0.738}),
            Published(REPRODUCTION, {"ciou": 0.685}),
            Published("SAM 3 + Gemini", {"ciou": 0.734}, "best specialist, zero-shot"),
        ),
        "reasonseg": (
            Published(PAPER, {"giou": 0.793}, "with Gemini 2.5 Pro in front"),
            Published(REPRODUCTION, {"giou": 0.736}, "with Qwen3-VL-32B in front"),
            Published("SAM 3 Agent", {"giou": 0.770}, "best specialist, zero-shot"),
        ),
        "saco-gold": (
            Published(PAPER, {"pmf1": 0.540}, "random 500 queries, seed not published"),
            Published(PAPER, {"cgf1": 0.475}, "with Gemini 3.1 Flash-Lite as presence gate"),
            Published(REPRODUCTION, {"cgf1": 0.389}, "11 passes, Qwen3-VL-8B as presence gate"),
            Published("SAM 3", {"cgf1": 0.5406, "il_mcc": 0.82, "pmf1": 0.6611}, "all pairs of all subsets"),
            Published("DINO-X", {"cgf1": 0.2126, "il_mcc": 0.38, "pmf1": 0.552}, "all pairs of all subsets"),
        ),
        "nyuv2": _depth(0.948, 0.081),
        "ibims": _depth(0.934, 0.078),
        "eth3d": _depth(0.935, 0.103),
        "diode-indoor": _depth(0.917, 0.108),
        "kitti": _depth(0.915, 0.107),
        "nuscenes": _depth(0.643, 0.219),
        "nyuv2-normals": (
            _normals(17.778, 8.876),
            Published(REPRODUCTION, {"mean_deg": 13.34}),
            Published("Lotus-2", {"mean_deg": 16.9}, "best specialist, zero-shot"),
            Published("DSINE", {"mean_deg": 16.4, "median_deg": 8.4}, "pooled"),
        ),
        "diode-normals": (
            _normals(13.818, 11.556),
            Published("Lotus-2", {"mean_deg": 18.6}, "best specialist, zero-shot"),
            Published("DSINE", {"mean_deg": 18.453, "median_deg": 13.871}, "StableNormal's 8-bit protocol"),
        ),
        "scannet-normals": (
            _normals(15.052, 7.468),
            Published("Lotus-2", {"mean_deg": 14.2}, "best specialist, zero-shot"),
            Published("DSINE", {"mean_deg": 16.2, "median_deg": 8.3}, "pooled"),
        ),
        "vkitti-normals": (
            _normals(29.063, 10.699),
            Published("Lotus-2", {"mean_deg": 28.9}, "best specialist, zero-shot"),
        ),
        "genai-bench": (Published(PAPER, {"win_rate": 0.535}, "people, against the untuned base"),),
        "imgedit": (Published(PAPER, {"win_rate": 0.478}, "people, against the untuned base"),),
    }
)
"""By benchmark. A set that is not here has no published figure for this method."""
