"""Spike-in controls: edited copies of benchmark images, and pictures known to be clean, planted in every run.

What the audit says of them is the recall and the false positives measured in this very run, with this benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from encoders.sample import InputError, UInt8Image
from mixing.audit.edits import EDITS, procedural_picture
from mixing.audit.fingerprints import MIN_QUALITY
from mixing.audit.index import IMAGE_SUFFIXES, Pack, image_files
from mixing.audit.scan import Thresholds, scan_picture
from mixing.config import Config
from mixing.images import decode_rgb, encode_png

CONTROL_EDITS = (
    "jpeg 30",
    "resize 0.3",
    "squeeze 0.6 wide",
    "crop 70 %",
    "crop 50 %",
    "centre square 256 px",
    "mirrored",
    "quarter turn",
    "rotated 5 degrees",
    "perspective",
    "colour jitter",
    "negative",
    "blur",
    "noise",
    "letterbox",
    "mask overlay",
    "beside a map",
    "mirrored, crop 60 %, jpeg 40",
)


class ControlSettings(Config):
    """How many controls each benchmark gets, and what they must show.

    `clean_folder` holds pictures known to be in no benchmark; without it synthetic pictures stand in for them, which is
    a weaker test of false positives.
    """

    copies: int = 36
    clean: int = 36
    clean_folder: str | None = None
    seed: int = 0
    target_recall: float = 0.9


@dataclass(frozen=True)
class Interval:
    """A share with its two-sided 95 % Clopper-Pearson interval."""

    hits: int
    trials: int
    low: float
    high: float


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact binomial interval of a share.

    Source: Clopper and Pearson 1934.
    """
    alpha = 1 - confidence
    low = 0.0 if hits == 0 else float(beta.ppf(alpha / 2, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - alpha / 2, hits + 1, trials - hits))
    return Interval(hits, trials, round(low, 4), round(high, 4))


def run_copies(
    pack: Pack, folder: Path | None, settings: ControlSettings, thresholds: Thresholds
) -> list[dict[str, Any]]:
    """Plant edited copies of a benchmark's images and scan them.

    Images with too little structure to be hashed are left out: the report lists them as not cleared.

    Returns:
        For each: image, edit, found ("leak", "review" or None).
    """
    usable = np.flatnonzero(np.asarray(pack.arrays["quality"]) >= MIN_QUALITY)
    if not len(usable):
        return []
    rng = np.random.default_rng([settings.seed, 1])
    results = []
    for i in range(settings.copies):
        if i % len(usable) == 0:
            turn = rng.permutation(usable)
        number, edit = int(turn[i % len(usable)]), CONTROL_EDITS[i % len(CONTROL_EDITS)]
        copy = EDITS[edit](_original(pack, folder, number), np.random.default_rng([settings.seed, 2, i]))
        identity = pack.images[number]["id"]
        _, findings = scan_picture(copy, b"", (pack,), thresholds)
        levels = {finding.level for finding in findings if finding.image == identity}
        results.append({"image": identity, "edit": edit, "found": _strongest(levels)})
    return results


def run_clean(
    packs: tuple[Pack, ...], settings: ControlSettings, thresholds: Thresholds, data: Path
) -> list[dict[str, Any]]:
    """Scan pictures known to be clean, edited like the copies.

    Returns:
        For each: picture, edit, found ("leak", "review" or None), of ("benchmark/image" or None).
    """
    files = []
    if settings.clean_folder is not None:
        folder = data / settings.clean_folder
        files = [path for path in image_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise InputError(f"{folder}: controls.clean_folder holds no PNG, JPEG or WebP image")
    results = []
    for i in range(settings.clean):
        rng = np.random.default_rng([settings.seed, 3, i])
        if files:
            path = files[i % len(files)]
            name, image = path.name, decode_rgb(path.read_bytes(), str(path))
        else:
            name, image = f"synthetic {i}", procedural_picture(rng, 384, 512)
        edit = CONTROL_EDITS[i % len(CONTROL_EDITS)]
        edited = EDITS[edit](image, rng)
        _, findings = scan_picture(edited, encode_png(edited), packs, thresholds)
        found = _strongest({finding.level for finding in findings})
        of = next((f"{one.benchmark}/{one.image}" for one in findings if one.level == found), None)
        results.append({"picture": name, "edit": edit, "found": found, "of": of})
    return results


def _original(pack: Pack, folder: Path | None, number: int) -> UInt8Image:
    if folder is None:
        return pack.thumbnail(number)
    path = folder / pack.images[number]["id"]
    return decode_rgb(path.read_bytes(), str(path))


def _strongest(levels: set[str]) -> str | None:
    return "leak" if "leak" in levels else "review" if levels else None
