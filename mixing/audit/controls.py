"""Spike-in controls: edited copies of benchmark images, texts and labels, and known-clean pictures, in every run.

What the audit says of them is the recall and the false positives measured in this very run, with this benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import IMAGE_SUFFIXES, Pack, image_files
from cavendish.mixing.audit.benchmarks.label_pack import LabelPack, compare_labels
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.matching.fingerprints import MIN_QUALITY
from cavendish.mixing.audit.signals.images import Thresholds, scan_picture
from cavendish.mixing.audit.signals.labels import MASK_SIDE, print_depth, print_masks
from cavendish.mixing.audit.signals.texts import LONG_TOKENS, WordIndex, find_texts, normalised
from cavendish.mixing.config import Config
from cavendish.mixing.images import decode_rgb, encode_png

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


TEXT_EDITS = ("case and punctuation", "inside another text", "one word in ten changed")
LABEL_EDITS = ("as it is", "mirrored", "quarter turn", "other size")


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


def run_texts(index: WordIndex, benchmark: str, settings: ControlSettings) -> list[dict[str, Any]]:
    """Plant edited copies of a benchmark's texts of eight words or more; shorter ones are only ever for review.

    Returns:
        For each: text, edit, found ("leak", "review" or None). A changed text counts as found when it is for review.
    """
    long = [
        text
        for (name, text), tokens in zip(index.texts, index.tokens)
        if name == benchmark and len(tokens) >= LONG_TOKENS
    ]
    rng = np.random.default_rng([settings.seed, 4])
    results = []
    for i in range(settings.copies if long else 0):
        text, edit = long[int(rng.integers(len(long)))], TEXT_EDITS[i % len(TEXT_EDITS)]
        levels = {one.level for one in find_texts(index, _edited_text(text, edit, rng)) if one.image == text}
        results.append({"text": text, "edit": edit, "found": _strongest(levels)})
    return results


def _edited_text(text: str, edit: str, rng: np.random.Generator) -> str:
    words = list(normalised(text))
    if edit == "case and punctuation":
        return ", ".join(" ".join(words).upper().split(" ", 1)) + "!"
    if edit == "inside another text":
        return f"Please make this picture for me: {' '.join(words)}, as a watercolour on rough paper."
    for place in rng.choice(len(words), max(len(words) // 10, 1), replace=False):
        words[place] = "otherwise"
    return " ".join(words)


def run_labels(pack: LabelPack, settings: ControlSettings) -> list[dict[str, Any]]:
    """Plant turned and resized copies of a benchmark's labels, as well as their fingerprints give them back.

    Returns:
        For each: image, kind, edit, found ("leak", "review" or None).
    """
    masks, reliefs = pack.arrays["masks"], pack.arrays["reliefs"]
    rows = [("masks", owner) for owner in sorted(set(np.asarray(pack.arrays["mask_owners"]).tolist()))]
    rows += [("depth", row) for row in range(len(reliefs))]
    rng = np.random.default_rng([settings.seed, 5])
    results = []
    for i, number in enumerate(rng.permutation(len(rows))[: settings.copies].tolist()):
        (kind, row), edit = rows[number], LABEL_EDITS[i % len(LABEL_EDITS)]
        if kind == "masks":
            mine = np.asarray(masks[np.flatnonzero(pack.arrays["mask_owners"] == row)])
            grids = np.unpackbits(mine, axis=1).reshape(-1, MASK_SIDE, MASK_SIDE).astype(np.float32)
            owner, planted = row, print_masks(_edited_map(grid, edit) > 0.5 for grid in grids)
        else:
            relief = np.asarray(reliefs[row], np.float32)
            depth = np.where(relief > -128, np.exp(relief / 100), np.nan).astype(np.float32)
            owner, planted = int(pack.arrays["relief_owners"][row]), print_depth(_edited_map(depth, edit))
        levels = {one.level for one in compare_labels(planted, pack) if one.image == pack.images[owner]}
        results.append({"image": pack.images[owner], "kind": kind, "edit": edit, "found": _strongest(levels)})
    return results


def _edited_map(values: NDArray[np.float32], edit: str) -> NDArray[np.float32]:
    if edit == "mirrored":
        return np.ascontiguousarray(values[:, ::-1])
    if edit == "quarter turn":
        return np.ascontiguousarray(np.rot90(values))
    if edit == "other size":
        size = (values.shape[1] * 5 // 2, values.shape[0] * 7 // 4)
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST))
    return values


def _original(pack: Pack, folder: Path | None, number: int) -> UInt8Image:
    if folder is None:
        return pack.thumbnail(number)
    path = folder / pack.images[number]["id"]
    return decode_rgb(path.read_bytes(), str(path))


def _strongest(levels: set[str]) -> str | None:
    return "leak" if "leak" in levels else "review" if levels else None
